"""Recipes that extend others: `extends = "smoke"`, or a path. Knows tables of TOML and file names, not the meaning of keys.

A recipe replaces the keys of its base, table by table; a list is replaced as a whole. Never inherited are `name` and
programs: the file of a check, and keys of such a type in the tables of plugins, as the module of a tool. A recipe without one
stays data, whatever it extends.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from core.config.agents import VerifierConfig
from core.config.base import Mark, find_mark, list_inner_types, list_marked_keys
from core.config.teachers import MODELLESS_DRAFTS, REPLAY_PREFIX
from core.config.toml_text import parse_toml
from core.errors import RecipeError, RecipeProblem, suggest_name
from core.hub_reference import HUB_PREFIX
from core.plugins import UnusablePlugin, find_part, load_part
from core.project_files import NAMED_REFERENCES, SHIPPED
from core.storage.bounded_reading import check_regular_file

EXTENDS_KEY = "extends"
MAX_CHAIN = 8
"""Recipes in a chain, the first one included."""
MAX_RECIPE_BYTES = 256 << 10
"""The shipped ones have 5 kB at most. tomllib walks from the first table to the last for each key of a deep one."""
RECIPE_FILE_NAME = "recipe.toml"
"""The recipe in a folder."""
ABSENT_IF_FALSE = (("agents", "critic"), ("collapse", "reference"))
"""Keys that `false` turns off, since TOML has no null."""
FALSE_IS_A_VALUE = (*ABSENT_IF_FALSE, ("collapse", "gate"))
"""Keys for which `false` says something, also where a base has a text."""
FREE_TABLES = ("extra", "engine")
"""Tables of a teacher with keys of any type."""
WEIGHTS_PREFIX = "local/"
"""Of the model of a teacher that llama.cpp runs; a file, unless it is a name or from the Hub."""
PROGRAMS: tuple[Mark, ...] = ("program", "command")


class RecipeTables(NamedTuple):
    """The tables of a recipe, with those of its bases."""

    data: dict[str, Any]
    """Names of files start from the recipe's folder."""
    bases: tuple[Path, ...] = ()
    """The files that it extends, nearest first."""
    programs: Mapping[str, tuple[str, ...]] = {}
    """By table (`verifiers`, or a plugin's section): programs that were inherited; they may not run."""

    def find_inherited_programs(self, overrides: Sequence[str]) -> list[RecipeProblem]:
        """The problems of inherited programs, unless `--set` replaces their whole list. `overrides` were applied."""
        problems = []
        for table, programs in self.programs.items():
            if any(re.match(rf"\s*{table}\s*=", setting) for setting in overrides):
                continue
            has = "checks in" if table == "verifiers" else f"the {table}"
            keys = " or ".join(f"`{key}`" for key in list_marked_keys(_find_table_type(table), *PROGRAMS))
            what = (
                f"{self.bases[0]} has {has} {', '.join(programs)}, and a recipe never inherits a program; read it, then list "
                f"the [[{table}]] in this recipe, each with its {keys}"
            )
            problems.append(RecipeProblem(table, what))
        return problems


def read_recipe_tables(path: Path, built_in: Mapping[str, Path]) -> RecipeTables:
    """The tables of the recipe at `path`, merged with those of the recipes that it extends.

    Raises:
        RecipeError: if one of them cannot be read, does not exist, or extends itself.
    """
    chain, tables = [path], [_read_toml(path)]
    while (base := tables[-1].pop(EXTENDS_KEY, None)) is not None:
        found = _locate_base(base, chain[-1], built_in)
        if found.resolve() in [file.resolve() for file in chain]:
            cycle = " -> ".join(map(str, [*chain, found]))
            raise _build_extends_error(chain[-1], f"{cycle}: a recipe cannot extend itself; remove one `extends`")
        if len(chain) == MAX_CHAIN:
            raise _build_extends_error(chain[-1], f"a chain has at most {MAX_CHAIN} recipes; extend a nearer base")
        chain.append(found)
        tables.append(_read_toml(found))

    data, programs = tables[-1], list_programs(tables[-1])
    for file, base_file, table in zip(chain[-2::-1], chain[:0:-1], tables[-2::-1], strict=True):
        inherited = relocate_files(data, base_file.resolve().parent, file.resolve().parent)
        inherited.pop("name", None)
        programs = {name: some for name, some in list_programs(inherited).items() if name not in table}
        data = merge_tables(inherited, table)
    return RecipeTables(data, tuple(chain[1:]), programs if len(chain) > 1 else {})


def merge_tables(base: Mapping[str, Any], table: Mapping[str, Any], where: tuple[str, ...] = ()) -> dict[str, Any]:
    """`base` with the values of `table`, which win. Tables are merged and lists replaced; `false` removes what is not itself
    true or false.
    """
    merged = deepcopy(dict(base))
    for key, value in table.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge_tables(below, value, (*where, key))
        elif value is False and key in merged and not isinstance(below, bool) and not _is_value(where, key):
            del merged[key]
        else:
            merged[key] = deepcopy(value)
    return merged


def _is_value(where: tuple[str, ...], key: str) -> bool:
    """Whether `false` is a value of this key."""
    return (*where, key) in FALSE_IS_A_VALUE or (
        where[:1] == ("teachers",) and where[2:] in [(name,) for name in FREE_TABLES]
    )


def relocate_files(data: Mapping[str, Any], folder: Path, new_folder: Path | None) -> dict[str, Any]:
    """The tables of a recipe in `folder`, for a recipe in `new_folder`; without one, with absolute paths.

    A name that exists only in the working directory or among the shipped files is searched there from any folder, so it is
    unchanged.
    """

    def move(name: Any) -> Any:
        if not isinstance(name, str) or not name or Path(name).is_absolute():
            return name
        if not _exists(folder / name) and (_exists(Path.cwd() / name) or _exists(SHIPPED / name)):
            return name
        return str(folder / name) if new_folder is None else os.path.relpath(folder / name, new_folder)

    def move_if_there(value: Any) -> Any:
        return move(value) if isinstance(value, str) and _is_there(folder, value) else value

    moved = deepcopy(dict(data))
    for table, key in (
        ("", "prompts"),
        ("seeds", "path"),
        ("seeds", "documents"),
        ("seeds", "recording"),
        ("lineage", "real"),
    ):
        _change_value(moved if not table else moved.get(table), key, move)
    _change_value(moved.get("collapse"), "reference", lambda name: name if name in NAMED_REFERENCES else move(name))
    draws = moved["seeds"].get("draw") if isinstance(moved.get("seeds"), dict) else None
    for name in draws if isinstance(draws, dict) else ():
        _change_value(draws, name, move)
    for filter_table in _list_tables(moved.get("filters")):
        _change_value(filter_table, "index", move)
        _change_value(
            filter_table, "sets", lambda names: [move(name) for name in names] if isinstance(names, list) else names
        )
        _change_other_values(filter_table, {"type", "index", "sets"}, move_if_there)
    for verifier in _list_tables(moved.get("verifiers")):
        _change_value(verifier, "path", move)
        _change_other_values(verifier, {"type", "path"}, move_if_there)
    _change_teachers(moved.get("teachers"), move)

    _change_sections(moved, move, move_if_there)
    return moved


def list_section_folders(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The keys of plugins' tables that name folders, each with its table."""
    return [
        (name, key)
        for name in list_section_names(data)
        for _, key, mark in _iterate_marked(data[name], _find_table_type(name))
        if mark == "folder"
    ]


def _change_sections(data: dict[str, Any], change: Callable[[Any], Any], change_word: Callable[[Any], Any]) -> None:
    """Change the files in the tables of plugins, and the words of their commands."""
    for name in list_section_names(data):
        for table, key, mark in _iterate_marked(data[name], _find_table_type(name)):
            if mark in ("file", "folder", "program"):
                table[key] = change(table[key])
            elif mark == "command" and isinstance(table[key], list):
                table[key] = [*map(change_word, table[key])]


def list_section_names(data: Mapping[str, Any]) -> list[str]:
    """The sections of plugins that a recipe names; without those that cannot be imported, with which no recipe is valid."""
    return [name for name in data if name != "verifiers" and _find_table_type(name)]


def _find_table_type(name: str) -> Any:
    """The type of `verifiers`, or of a plugin's section; None for other tables."""
    if name == "verifiers":
        return VerifierConfig
    try:
        return load_part("section", name) if find_part("section", name) else None
    except UnusablePlugin:
        return None


def _iterate_marked(value: Any, annotation: Any) -> Iterator[tuple[dict[str, Any], str, Mark]]:
    """The marked keys of a table or a list of tables of this type, each with the table that it is in."""
    for table in [value] if isinstance(value, dict) else _list_tables(value):
        for kind in list_inner_types(annotation):
            for key, field in kind.model_fields.items():
                if key in table and (mark := find_mark(field)):
                    yield table, key, mark
                elif key in table:
                    yield from _iterate_marked(table[key], field.annotation)


def _change_teachers(teachers: Any, change: Callable[[Any], Any]) -> None:
    """Change the files of teachers: weights, recordings and drafts."""

    def change_model(model: Any) -> Any:
        prefix = next((prefix for prefix in (WEIGHTS_PREFIX, REPLAY_PREFIX) if str(model).startswith(prefix)), None)
        file = str(model).removeprefix(prefix or "")
        if prefix is None or (prefix == WEIGHTS_PREFIX and (file.startswith(HUB_PREFIX) or not file.endswith(".gguf"))):
            return model
        return f"{prefix}{change(file)}"

    for teacher in teachers.values() if isinstance(teachers, dict) else ():
        _change_value(teacher, "model", change_model)
        _change_value(teacher, "draft", lambda draft: draft if draft in MODELLESS_DRAFTS else change(draft))


def _is_there(folder: Path, name: str) -> bool:
    return bool(name) and _exists(folder / name, Path.is_file)


def _exists(path: Path, found: Callable[[Path], bool] = Path.exists) -> bool:
    try:
        return found(path)
    except (OSError, ValueError):  # a long text is no file name
        return False


def _change_value(table: Any, key: str, change: Callable[[Any], Any]) -> None:
    if isinstance(table, dict) and key in table:
        table[key] = change(table[key])


def _change_other_values(table: dict[str, Any], known: set[str], change: Callable[[Any], Any]) -> None:
    """Change the values of all keys but `known`: which of them name files, only the check or filter knows."""
    for key in table.keys() - known:
        _change_value(table, key, change)


def _list_tables(value: Any) -> list[dict[str, Any]]:
    return [table for table in value if isinstance(table, dict)] if isinstance(value, list) else []


def list_programs(data: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The programs that a recipe names, by table; tables without one are left out."""
    found: dict[str, list[str]] = {}
    for name, table, key in _iterate_programs(data):
        found.setdefault(name, []).append(str(table[key]))
    return {name: tuple(dict.fromkeys(programs)) for name, programs in found.items()}


def rename_programs(data: Mapping[str, Any], change: Callable[[str], str]) -> None:
    """Change the names of a recipe's programs in its tables; commands stay."""
    for _, table, key in _iterate_programs(data, "program"):
        table[key] = change(str(table[key]))


def _iterate_programs(data: Mapping[str, Any], *marks: Mark) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The keys that name programs: the recipe's table, the table that has the key, and the key."""
    for name in ("verifiers", *list_section_names(data)):
        for table, key, mark in _iterate_marked(data.get(name), _find_table_type(name)):
            if mark in (marks or PROGRAMS):
                yield name, table, key


def _locate_base(base: Any, path: Path, built_in: Mapping[str, Path]) -> Path:
    """The file of the base that the recipe at `path` names."""
    if not isinstance(base, str):
        raise _build_extends_error(path, f"must be the name of a built-in recipe or a path, not {base!r}")
    if base in built_in:
        return built_in[base]
    file = path.parent / base
    file = file / RECIPE_FILE_NAME if _exists(file, Path.is_dir) else file
    if _exists(file, Path.is_file):
        return file
    advice = suggest_name(base, built_in, "built in are")
    raise _build_extends_error(path, f"{base!r} is neither a built-in recipe nor the file {file}; {advice}")


def _build_extends_error(path: Path, what: str) -> RecipeError:
    return RecipeError(str(path), [RecipeProblem(EXTENDS_KEY, what)])


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        check_regular_file(path)
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(
                str(path), [RecipeProblem("", f"is larger than {MAX_RECIPE_BYTES >> 10} kB; it is no recipe")]
            )
        return parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(str(path), [RecipeProblem("", f"cannot be read: {error.strerror}")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [RecipeProblem("", f"is not valid TOML: {error}")]) from None
