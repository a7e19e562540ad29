"""The skill's files, in the Agent Skills format (agentskills.io): `SKILL.md`, and the generated reference of all recipe keys.

Knows no agent: any program that reads the format can use them.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from core.errors import UsageError
from core.storage.atomic_files import write_text

SKILL_NAME = "stillhouse"
"""Also the name of the folder, as the format demands."""
DEFAULT_SKILL_FOLDER = Path(".claude/skills") / SKILL_NAME
REFERENCE_FILE = "references/recipe.md"


class InstalledSkill(NamedTuple):
    folder: Path
    written: list[str]
    """Names of files that are new or replaced."""


def read_skill_text() -> str:
    """The text of `SKILL.md`."""
    return (files(__package__) / "SKILL.md").read_text(encoding="utf-8")


def build_skill_files() -> dict[str, str]:
    """The texts of all files, by their names in the skill's folder."""
    from flows.recipes.recipe_reference import build_recipe_reference

    return {"SKILL.md": read_skill_text(), REFERENCE_FILE: build_recipe_reference()}


def install_skill(folder: Path, *, replace: bool) -> InstalledSkill:
    """Write the skill's files to `folder`. Files that are the same already stay.

    Raises:
        UsageError: if a file there differs and `replace` is false, before anything is written.
        StoreError: if a file cannot be written.
    """
    contents = build_skill_files()
    changed = {name: text for name, text in contents.items() if _read_if_there(folder / name) != text}
    _check_changes(folder, changed, replace=replace)
    for name, text in changed.items():
        write_text(folder / name, text)
    return InstalledSkill(folder, list(changed))


def _check_changes(folder: Path, changed: Mapping[str, str], *, replace: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder; name another one with --out")
    there = [folder / name for name in changed if (folder / name).exists()]
    if there and not replace:
        raise UsageError(
            f"{there[0]}: differs from this version's skill; --force replaces it, or name another folder with --out"
        )


def _read_if_there(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # a folder, or no text
        return ""
