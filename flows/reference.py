"""Every key of a recipe, as a page: written from the types that read it, so that it cannot be wrong.

python -m flows.reference > docs/recipe.md
"""

import sys
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agents.checks.registry import BUILT_IN
from agents.families import ALL
from core.filter_config import DuplicateFilter, FilterConfig
from core.recipe import Recipe

INTRO = """# Every key of a recipe

A recipe is a TOML file. Whatever it leaves out has the default that stands here; `stillhouse validate RECIPE` prints one
in full, and `--set key=value` overrides any key. Written by `python -m flows.reference`.
"""
FREE = {"task": "The family's own options: see *Families* below.", "verifiers": "The checks, in their order: see *Checks* below.",
        "filters": "The filters, in their order: see *Filters* below."}  # fmt: skip


def reference() -> str:
    """The page as Markdown."""
    parts = [INTRO, "## The recipe\n", _table(Recipe), *_tables(Recipe, "")]
    parts += ["## Families\n", *(_section(f"`[task]` of `{family.name}`", family.options) for family in ALL)]
    own = {check.name: check for family in ALL for check in family.checks}
    checks = [*BUILT_IN, *own.values()]
    parts += ["## Checks\n", *(f"### `{check.name}`\n\n{check.about}\n\n{_table(check.options)}" for check in checks)]
    filters = {_type_of(model): model for model in _models(FilterConfig)}
    parts += ["## Filters\n", *(_section(f"`{name}`", model) for name, model in filters.items())]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def _section(title: str, model: type[BaseModel]) -> str:
    about = (model.__doc__ or "").strip() if model.__doc__ and model is not DuplicateFilter else ""
    return "\n\n".join(part for part in (f"### {title}", _prose(about), _table(model)) if part)


def _tables(model: type[BaseModel], where: str) -> Iterator[str]:
    """A section for each table within `model`, and within that."""
    for name, field in model.model_fields.items():
        if name in FREE:
            continue
        for inner in dict.fromkeys(_models(field.annotation)):
            path = f"{where}{name}" + (".NAME" if _is_mapping(field.annotation) else "")
            yield _section(f"`[{path}]`", inner)
            yield from _tables(inner, f"{path}.")


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type_of(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _table(model: type[BaseModel]) -> str:
    rows = [_row(name, field) for name, field in model.model_fields.items() if name != "type" or not _is_tag(field)]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) if rows else "No keys of its own."


def _is_tag(field: FieldInfo) -> bool:
    return len(get_args(field.annotation)) == 1


def _row(name: str, field: FieldInfo) -> str:
    about = (
        FREE.get(name)
        or _prose(field.description or "")
        or ("Its table is below." if _models(field.annotation) else "")
    )
    allowed = [about, *_limits(field)]
    return f"| `{name}` | {_default(field)} | {' '.join(part for part in allowed if part)} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=False) if field.default_factory is None else None
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, BaseModel) or value is None or value == () or value == {} or _has_tables(value):
        return ""
    return f"`{_toml(value)}`"


def _has_tables(value: Any) -> bool:
    """Whether a default is tables, which have sections of their own."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return any(isinstance(one, BaseModel) for one in values)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def _limits(field: FieldInfo) -> Iterator[str]:
    """What is allowed, as far as the type says it."""
    if choices := dict.fromkeys(part for part in _choices(field.annotation) if isinstance(part, str)):
        yield "One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    low = next((f"{m.ge}" for m in field.metadata if hasattr(m, "ge")), None)
    above = next((f"{m.gt}" for m in field.metadata if hasattr(m, "gt")), None)
    high = next((f"{m.le}" for m in field.metadata if hasattr(m, "le")), None)
    bounds = [f"at least {low}" if low else "", f"above {above}" if above else "", f"at most {high}" if high else ""]
    if any(bounds):
        yield f"({', '.join(bound for bound in bounds if bound)})"


def _choices(annotation: Any) -> list[Any]:
    if getattr(annotation, "__origin__", None) is not None and "Literal" in str(annotation.__origin__):
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
