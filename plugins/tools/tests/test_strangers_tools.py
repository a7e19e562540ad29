"""The tools of a run of unknown origin."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UsageError
from flows.data.student_files import load_student_plan
from tests.flows.data.test_foreign_runs import run_with_checks


@pytest.mark.parametrize(
    ("source", "act"),
    [
        ({"module": "tools.py"}, r"run the file .*tools.py \(tools.0.module\)"),
        ({"command": ["python", "server.py"]}, r"start python server.py \(tools.0.command\)"),
        ({"url": "http://example.org/mcp"}, r"send texts to http://example.org/mcp \(tools.0.url\)"),
    ],
)
def test_the_tools_of_a_strangers_run_are_not_started(source: dict[str, Any], act: str, tmp_path: Path) -> None:
    run, _ = run_with_checks(tmp_path / "stranger")
    recipe = json.loads(run.recipe_file.read_text())
    recipe["recipe"] |= {"verifiers": [], "family": "tool_calls", "task": {}, "tools": [source]}
    run.recipe_file.write_text(json.dumps(recipe))
    with pytest.raises(UsageError, match=act):
        load_student_plan(run.student, run, tmp_path / "mine")
