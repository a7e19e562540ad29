"""A folder to start from: a small recipe that extends another one, a few of its seeds, and its prompts. Runs no check."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agents.families import adapt_family, find_family
from core.config.inheritance import (
    EXTENDS_KEY,
    RECIPE_FILE_NAME,
    list_programs,
    list_section_folders,
    list_section_names,
    read_recipe_tables,
    relocate_files,
    rename_programs,
)
from core.config.recipe import Recipe
from core.config.toml_text import format_toml, format_toml_value
from core.errors import RecipeError, UsageError
from core.project_files import find_referenced_file
from core.storage.atomic_files import translate_write_errors, write_atomically, write_bytes
from core.storage.bounded_reading import check_regular_file
from flows.recipes.recipe_catalog import list_built_in_recipes, locate_recipe
from prompts import read_prompt_files

SEED_ROWS = 12
FIRST_SAMPLES, FIRST_SAMPLES_FOR_GOAL, FIRST_KEEP = 20, 60, 10
"""Candidates of a first run; with a number of samples to keep, more candidates, since some are dropped."""
MAX_SEEDS_BYTES = 64 << 20
"""A larger file of seeds is used where it is."""


class RecipeSource(NamedTuple):
    """The recipe that a new one starts from."""

    title: str
    """The value of `extends`."""
    data: Mapping[str, Any]
    """Its tables, with those of its bases; names of files start from the new folder."""
    built_in: bool


def create_recipe_folder(name: str, source: str, folder: Path) -> list[str]:
    """Write the folder of a new recipe that starts from `source`; the names of its files.

    Raises:
        UsageError: if the name cannot be used, the folder has files, or there is no such recipe.
        RecipeError: if the source cannot be read, or may not run its checks.
    """
    _check_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists already and is not an empty folder; name another one with --out")
    file = locate_recipe(source)
    tables = read_recipe_tables(file, list_built_in_recipes())
    if problems := tables.find_inherited_programs(()):
        raise RecipeError(str(file), problems)
    built_in = source in list_built_in_recipes()
    origin, target = file.resolve().parent, folder.resolve()
    title = source if built_in else os.path.relpath(file.resolve(), target)
    moved = relocate_files(tables.data, origin, target)

    contents = _copy_prompts(tables.data, origin)
    if rows := _copy_seeds(tables.data, origin):
        contents["seeds.jsonl"] = rows
    if built_in:
        contents |= _copy_folder("seeds", "documents", tables.data, origin)
        for section, key in list_section_folders(tables.data):
            contents |= _copy_folder(section, key, tables.data, origin)
        contents |= _copy_programs(moved, origin)
    contents[RECIPE_FILE_NAME] = _write_recipe(name, folder, RecipeSource(title, moved, built_in), contents).encode()
    _write_files(folder, contents)
    return sorted(contents, key=lambda path: (path != RECIPE_FILE_NAME, path))


def _get_table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A table of a recipe that is not validated."""
    table = data.get(key)
    return table if isinstance(table, Mapping) else {}


def _check_name(name: str) -> None:
    pattern = next(entry.pattern for entry in Recipe.model_fields["name"].metadata if hasattr(entry, "pattern"))
    if not re.fullmatch(pattern, name):
        raise UsageError(f"{name}: cannot be a recipe's name; use lowercase letters, digits and dashes")
    if name in list_built_in_recipes():
        raise UsageError(f"{name}: is the name of a built-in recipe; choose another name")


def build_folder_argument(folder: Path) -> str:
    """The folder of a recipe as an argument that is never taken for a built-in recipe."""
    return f"./{folder}" if str(folder) in list_built_in_recipes() else str(folder)


def _write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    if folder.exists():  # it is empty, and may be the working directory
        for name, content in contents.items():
            write_bytes(folder / name, content)
        return
    with translate_write_errors(folder), write_atomically(folder) as partial:
        for name, content in contents.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)


def _copy_prompts(data: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """The prompts of the recipe, or else of its family."""
    own = find_referenced_file(str(data["prompts"]), folder) if data.get("prompts") else None
    family = _read_family_name(data)
    sections = {name: data[name] for name in list_section_names(data) if data[name]}
    installed = adapt_family(find_family(family), sections).prompts
    return {f"prompts/{file}": content for file, content in read_prompt_files(family, own, installed).items()}


def _read_family_name(data: Mapping[str, Any]) -> str:
    return str(data.get("family", Recipe.model_fields["family"].default))


def _copy_seeds(data: Mapping[str, Any], folder: Path) -> bytes:
    """Rows from all parts of the file of seeds; nothing if it is large, is no JSONL, or must have rows of each category."""
    name = _get_table(data, "seeds").get("path")
    path = find_referenced_file(str(name), folder) if name else None
    if path is None or path.suffix != ".jsonl" or data.get("quotas"):
        return b""
    try:
        check_regular_file(path)
        rows = [line for line in path.read_bytes().split(b"\n") if line.strip()] if _is_small(path) else []
    except OSError as error:
        raise UsageError(f"{path}: the seeds cannot be read: {error.strerror}") from None
    count = min(SEED_ROWS, len(rows))
    return b"".join(rows[i * len(rows) // count].rstrip(b"\r") + b"\n" for i in range(count))


def _is_small(path: Path) -> bool:
    return path.stat().st_size <= MAX_SEEDS_BYTES


def _copy_folder(table: str, key: str, data: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """The files of a folder that a key of a table names, under the name of the plugin's table, or of the key."""
    name, copy = _get_table(data, table).get(key), key if table == "seeds" else table
    place = find_referenced_file(str(name), folder) if name else None
    files = sorted(place.iterdir()) if place and place.is_dir() else []
    return {f"{copy}/{file.name}": file.read_bytes() for file in files if file.is_file()}


def _copy_programs(data: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """The files of a built-in recipe's programs, which `data` then names in the new folder."""
    contents: dict[str, bytes] = {}

    def copy(name: str) -> str:
        file = find_referenced_file(name, folder)
        contents[file.name] = file.read_bytes()
        return file.name

    rename_programs(data, copy)
    return contents


def _write_recipe(name: str, folder: Path, source: RecipeSource, contents: Mapping[str, bytes]) -> str:
    """The text of the new recipe: keys first, then tables, since a key below a table belongs to it."""
    shown = _format_comment_text(shlex.quote(build_folder_argument(folder)))
    title = _format_comment_text(source.title)
    lines = [
        f"# Starts from {title}: a key that is left out has the value that it has there, and `false`",
        "# removes a key. A list, such as [[filters]], is replaced as a whole.",
        "#",
        f"#   stillhouse validate {shown} --resolved    prints every key with its value",
        f"#   stillhouse preview {shown}                prints three samples; nothing is stored",
        f"#   stillhouse run {shown}",
        f"name = {format_toml_value(name)}",
        f"{EXTENDS_KEY} = {format_toml_value(source.title)}",
        "",
        *_format_size(source.data),
    ]
    if any(file.startswith("prompts/") for file in contents):
        lines += ["# What each agent is asked. Without a file, the family's prompt is used.", 'prompts = "prompts"', ""]
    has_student = bool(_get_table(source.data, "student"))
    if has_student:
        lines += ["# Without a student, the run ends with the dataset.", "# student = false", ""]
    lines += [*_format_seeds(contents, source.data), *_format_teacher(source.data)]
    for table in reversed(list_programs(source.data)):
        lines += ["# A program is never inherited.", format_toml({table: source.data[table]})]
    if not has_student:
        sees = find_family(_read_family_name(source.data)).has_images
        start = '# start = "layers"' + ('\n# steps = [{ type = "sight" }]' if sees else "")
        lines += ["# A small model that learns from the kept samples.", "# [student]", start, ""]
    return "\n".join(lines)


def _format_comment_text(text: str) -> str:
    """`text` on one line, so that no part of it can leave a comment."""
    return format_toml_value(text)[1:-1]


def _format_size(data: Mapping[str, Any]) -> list[str]:
    """A first run that is small, unless the recipe has a number of samples per category."""
    if data.get("quotas"):
        return []
    samples, keep = (_read_count(data, key) for key in ("samples", "keep"))
    first = min(samples, FIRST_SAMPLES_FOR_GOAL if keep else FIRST_SAMPLES)
    goal = [f"keep = {min(keep, FIRST_KEEP, first)}"] if keep else []
    there = f"{samples}, to keep {keep}" if keep else f"{samples}"
    return [f"# Candidates of a first run; there it is {there}.", f"samples = {first}", *goal, ""]


def _read_count(data: Mapping[str, Any], key: str) -> int:
    value = data.get(key)
    return value if isinstance(value, int) else int(Recipe.model_fields[key].default)


def _format_seeds(contents: Mapping[str, bytes], data: Mapping[str, Any]) -> list[str]:
    if rows := contents.get("seeds.jsonl", b"").count(b"\n"):
        about = f"# {rows} of its seeds, one JSON object per line: replace them with yours."
        return [about, "[seeds]", 'path = "seeds.jsonl"', ""]
    if any(file.startswith("documents/") for file in contents):
        about = "# A folder of txt, md, html and pdf files: replace them with yours."
        return [about, "[seeds]", 'documents = "documents"', ""]
    about = "# A folder of files: replace them with yours."
    copied = [
        (table, key)
        for table, key in list_section_folders(data)
        if any(one.startswith(f"{table}/") for one in contents)
    ]
    return [line for table, key in copied for line in (about, f"[{table}]", f'{key} = "{table}"', "")]


def _format_teacher(data: Mapping[str, Any]) -> list[str]:
    """The teacher of the source in a comment, and how to name another one."""
    teacher = _get_table(_get_table(data, "teachers"), "main")
    here = _format_comment_text(str(teacher.get("model", "the embedded model")))
    lines = [
        f"# {here} writes. Any OpenAI-compatible endpoint can take its place:",
        "# [teachers.main]",
        '# model = "openai/NAME"',
        '# base_url = "http://localhost:8000/v1"',
    ]
    return [*lines, *(["# extra = false               # a scripted teacher's"] if "extra" in teacher else []), ""]
