"""A resolved recipe as TOML: every key with its value, in a recipe that makes the same samples. Knows no teacher."""

import json
from pathlib import Path
from typing import Any

from core.config.inheritance import ABSENT_IF_FALSE, relocate_files
from core.config.recipe import Recipe
from core.config.toml_text import format_toml


def format_resolved_recipe(recipe: Recipe, folder: Path) -> str:
    """The recipe in `folder` as the text of a TOML file for any folder: its own files have absolute paths."""
    data = recipe.model_dump(mode="json")
    for table, key in ABSENT_IF_FALSE:
        if isinstance(data.get(table), dict) and data[table].get(key, False) is None:
            data[table][key] = False
    task = data.pop("task")
    data = _drop_nulls(data)
    # A schema may contain null, which TOML lacks; families read a schema's JSON text too.
    data["task"] = {key: json.dumps(value) if _has_null(value) else value for key, value in _drop_none(task).items()}
    return format_toml(relocate_files(data, folder, None))


def _drop_none(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_drop_nulls(inner) for inner in value] if isinstance(value, list) else value


def _has_null(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_null, value.values()))
    return any(map(_has_null, value)) if isinstance(value, list) else value is None
