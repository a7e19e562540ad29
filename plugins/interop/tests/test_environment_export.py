"""Environments of `verifiers`: right answers get 1, wrong ones and those to other requests 0, as the recipe's checks decide."""

import asyncio
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from core.config.recipe import Recipe
from core.errors import INTERRUPTED_EXIT_CODE, GateNotMet, RunFailed, UsageError
from core.sample import RejectionReason
from flows.commands.app import app
from flows.data.run_storage import RunStorage
from flows.recipes.recipe_reference import build_recipe_reference
from plugins.interop.answer_scoring import AnswerScore, load_answer_scorer, read_answer_tasks
from plugins.interop.commands import REFERENCE_FILE, install_skill, read_skill_text
from plugins.interop.environment_export import export_environment
from tests.flows.data.test_foreign_runs import run_with_checks

SHORT = ["task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]']
"""A recipe whose requests limit the number of words, and nothing else."""


def export(source: str, folder: Path, *settings: str, number: int = 6, evaluated: int = 2) -> Path:
    """The module of the exported package."""
    storage = RunStorage(folder / "runs")
    exported = export_environment(source, settings, folder / "env", storage, number=number, evaluated=evaluated)
    return exported.folder / exported.name.replace("-", "_")


def score(module: Path, *answers: str) -> list[AnswerScore]:
    """The scores of answers, one to each task."""
    scorer, tasks = load_answer_scorer(module), read_answer_tasks(module, "train")

    async def judge() -> list[AnswerScore]:
        return [await scorer.score(task, answer) for task, answer in zip(tasks, answers, strict=True)]

    return asyncio.run(judge())


@pytest.mark.parametrize(
    ("source", "settings", "sentence"),
    [
        ("extraction", (), "the generator writes the requests; make a run of it, and name the run"),
        ("conversations", (), "the generator writes the requests; make a run of it, and name the run"),
        ("smoke", ("verifiers=[]",), "has no check, so every answer would get the same reward"),
        ("smoke", ('verifiers=[{type="judge", rubric="Is it good?"}]',), "the check judge asks a teacher"),
    ],
)
def test_what_code_cannot_decide_is_refused_in_a_sentence(
    source: str, settings: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        export(source, tmp_path, *settings)
    assert not (tmp_path / "env").exists()


def test_own_checks_and_their_files_travel_with_the_package(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from stillhouse.checks import check\n\n\n@check('lower')\ndef lower(subject, _options):\n"
        '    """The answer must be in lower case."""\n'
        "    return None if subject.candidate.answer.islower() else 'it is not in lower case'\n"
    )
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nextends = "smoke"\n[[verifiers]]\ntype = "lower"\npath = "own.py"\n'
    )
    module = export(str(tmp_path / "mine.toml"), tmp_path, number=2, evaluated=0)
    (tmp_path / "own.py").unlink()
    assert [one.passed for one in score(module, "short", "Short")] == [True, False]
    with pytest.raises(UsageError, match="exists already and is not an empty folder"):
        export("smoke", tmp_path)


@contextmanager
def import_package(module: Path) -> Iterator[ModuleType]:
    sys.path.insert(0, str(module.parent))
    try:
        yield importlib.import_module(module.name)
    finally:
        sys.path.remove(str(module.parent))


def test_the_package_rewards_answers_in_verifiers(tmp_path: Path) -> None:
    vf: Any = pytest.importorskip(
        "verifiers.v1", reason="needs verifiers 0.4 next to Stillhouse: pip install verifiers"
    )
    module = export("smoke", tmp_path, *SHORT)
    with import_package(module) as package:
        environment = package.load_environment(split="train")
        assert isinstance(environment, vf.Env)
        tasks = list(environment.taskset)

        async def reward(task: Any, answer: str) -> tuple[float, str]:
            agent = vf.AgentInfo(config=vf.AgentConfig())
            trace = vf.Trace(task=vf.TraceTask(type=type(task).__name__, data=task.data), agent=agent)
            trace.root_reply = answer
            await task.score(trace)
            return trace.reward, trace.info["stillhouse"]["check"]

        assert len(tasks) == 6
        assert asyncio.run(reward(tasks[0], "Short and clear.")) == (1.0, "")
        assert asyncio.run(reward(tasks[0], "many words " * 200)) == (0.0, "max_words")


@pytest.mark.slow
@pytest.mark.waits
def test_the_package_builds_with_its_tasks(tmp_path: Path) -> None:
    module = export("smoke", tmp_path, *SHORT)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=module.parent, check=True, capture_output=True
    )
    (wheel,) = (module.parent / "dist").glob("*.whl")
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], check=True, capture_output=True, text=True
    ).stdout
    assert {"smoke_env/taskset.py", "smoke_env/tasks.jsonl", "smoke_env/checks.json"} <= set(listed.split())


@pytest.mark.parametrize("own", [False, True])
def test_an_environment_is_not_made_of_a_run_of_others_with_checks(own: bool, tmp_path: Path) -> None:
    run, mark = run_with_checks(tmp_path / "stranger")
    storage = RunStorage(run.path.parent if own else tmp_path / "mine")
    with pytest.raises(UsageError, match="has no request to make a task of" if own else "would run the file"):
        export_environment(str(run.path), [], tmp_path / "out", storage, number=5, evaluated=1)
    assert mark.exists() == own
    assert not (tmp_path / "out").exists()


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
