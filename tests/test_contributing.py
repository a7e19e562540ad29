"""The worked example of CONTRIBUTING.md, applied as written to a copy of the packages."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from core.project_files import PROJECT

PAGE = (PROJECT / "CONTRIBUTING.md").read_text()
PLACE = re.compile(r"# (?:new file )?([\w/.]+\.py)(?:, (above|below) `(.+)`)?$")


def list_edits() -> list[tuple[str, str, str, str]]:
    """File, where in it (`above`, `below` or nothing for a new file), the line named, and the text of each block."""
    section = PAGE.partition("## Example: add a filter")[2]
    edits = []
    for block in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        head, _, text = block.partition("\n")
        place = PLACE.match(head)
        assert place, f"no place in {head!r}"
        edits.append((place[1], place[2] or "", place[3] or "", text))
    return edits


def apply_edit(folder: Path, file: str, side: str, line: str, text: str) -> None:
    path = folder / file
    if not side:
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    lines = path.read_text().splitlines(keepends=True)
    [number] = [number for number, existing in enumerate(lines) if existing.startswith(line)]
    lines.insert(number + (side == "below"), text)
    path.write_text("".join(lines))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    packages = [
        path.parent for path in PROJECT.glob("*/__init__.py") if path.parent.name not in ("tests", "benchmarks")
    ]
    for package in packages:
        shutil.copytree(package, folder / package.name)
    shutil.copytree(PROJECT / "data", folder / "data", ignore=shutil.ignore_patterns("runs", "releases", ".*"))
    for edit in list_edits():
        apply_edit(folder, *edit)
    return folder


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_touches_three_files_and_a_test() -> None:
    files = {file for file, *_ in list_edits()}
    assert len([file for file in files if not file.startswith("tests/")]) == 3
    assert len(files) == 4


def test_the_filter_of_the_example_runs_from_the_command_line(copy: Path) -> None:
    rows = [{"text": "Bees make honey. Let me know if you need more!"}, {"text": "Bees make honey in their hive."}]
    (copy / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(copy, "-m", "stillhouse", "filter", "rows.jsonl", "--out", "clean", "--filters", "sign_off")
    assert (copy / "clean" / "kept.jsonl").read_text() == json.dumps(rows[1]) + "\n"
    dropped = pl.read_parquet(copy / "clean" / "dropped.parquet")
    assert dropped["detail"].to_list() == ["ends with 'Let me know if'"]
    assert "removes answers that end with an offer of further help" in (copy / "clean" / "report.html").read_text()


def test_the_recipe_reference_has_the_filter_of_the_example(copy: Path) -> None:
    page = run(copy, "-m", "flows.recipes.recipe_reference")
    assert "### `sign_off`" in page
    assert "`last_words`" in page


def test_the_test_of_the_example_passes(copy: Path) -> None:
    run(copy, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider",
        "tests/filters/rules/test_sign_off.py")  # fmt: skip
