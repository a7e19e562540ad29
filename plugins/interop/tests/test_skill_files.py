"""The skill for coding agents: valid in its format, true in every name, and its commands run as written."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from core.config.recipe import Recipe
from core.errors import INTERRUPTED_EXIT_CODE, GateNotMet, RunFailed, UsageError
from core.sample import RejectionReason
from flows.commands.app import app
from flows.recipes.recipe_reference import build_recipe_reference
from plugins.interop.commands import REFERENCE_FILE, install_skill, read_skill_text

TEXT = read_skill_text()
BLOCKS = re.findall(r"^```sh\n(.*?)\n```$", TEXT, re.MULTILINE | re.DOTALL)
QUOTED = re.findall(r"`([^`\n]+)`", TEXT)


def list_commands() -> Iterator[list[str]]:
    """The words of each command in the text, without `stillhouse`."""
    for line in [*"\n".join(BLOCKS).splitlines(), *QUOTED]:
        if line.startswith("stillhouse "):
            yield shlex.split(line)[1:]


def has_key(model: Any, names: list[str]) -> bool:
    """Whether a recipe may have this dotted key."""
    if not names:
        return True
    if isinstance(model, type) and issubclass(model, BaseModel):
        return names[0] in model.model_fields and has_key(model.model_fields[names[0]].annotation, names[1:])
    if getattr(model, "__origin__", None) is dict:
        return has_key(get_args(model)[1], names[1:])
    return any(has_key(part, names) for part in get_args(model))


def test_every_command_option_key_reason_and_exit_code_in_it_exists() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    used = list(list_commands())
    assert len(used) >= 8
    for words in used:
        options = {name for parameter in commands[words[0]].params for name in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, words
    alone = {name for name in QUOTED if name.split()[0] in ("report", "show", "preview")}
    assert {name.split()[0] for name in alone} <= commands.keys()

    keys = [
        name
        for name in QUOTED
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name) and name.split(".")[0] in Recipe.model_fields
    ]
    keys += [word.partition("=")[0] for words in used for word in words if "=" in word]
    assert len(set(keys)) >= 6
    assert [key for key in keys if not has_key(Recipe, key.split("."))] == []

    table = [line.split("|")[1] for line in TEXT.partition("| reason |")[2].partition("\n\n")[0].splitlines()[2:]]
    named = [name.partition(":")[0] for cell in table for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) >= 8
    assert set(named) <= set(RejectionReason)
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert codes == {0, RunFailed.exit_code, UsageError.exit_code, GateNotMet.exit_code, INTERRUPTED_EXIT_CODE}


def test_it_is_installed_with_the_reference_and_replaces_no_changed_file(tmp_path: Path) -> None:
    folder = tmp_path / ".claude/skills/stillhouse"
    assert install_skill(folder, replace=False).written == ["SKILL.md", REFERENCE_FILE]
    assert (folder / "SKILL.md").read_text() == TEXT
    assert (folder / REFERENCE_FILE).read_text() == build_recipe_reference(linked=False)
    assert install_skill(folder, replace=False).written == []
    (folder / "SKILL.md").write_text("mine")
    (folder / REFERENCE_FILE).unlink()
    with pytest.raises(UsageError, match=r"SKILL\.md: differs from this version's skill; --force"):
        install_skill(folder, replace=False)
    assert not (folder / REFERENCE_FILE).exists()
    assert install_skill(folder, replace=True).written == ["SKILL.md", REFERENCE_FILE]
