"""The package of docs/extensions.md, built, installed and used through the command line; and packages that are wrong."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.project_files import PROJECT

PAGE = (PROJECT / "docs" / "extensions.md").read_text()
NAME = re.compile(r"(?:# |<!-- )([\w./]+\.(?:py|toml|md))(?: -->)?$")
RunCommand = Callable[..., subprocess.CompletedProcess[str]]


def read_page_files() -> dict[str, str]:
    """The files of the page; blocks of one file are joined."""
    files: dict[str, str] = {}
    for block in re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        head, _, text = block.partition("\n")
        if name := NAME.match(head):
            files[name[1]] = files.get(name[1], "") + text + "\n"
    return files


@pytest.fixture(scope="module")
def extras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files, and the installed package in `site`."""
    folder = tmp_path_factory.mktemp("extras")
    for name, text in read_page_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(folder / "extras")], check=True)
    return folder


def run_command(
    folder: Path, *words: str, code: int = 0, path: Path | None = None, program: tuple[str, ...] = ("-m", "stillhouse")
) -> subprocess.CompletedProcess[str]:
    """`stillhouse` in `folder`, with the packages in `path`."""
    places = [str(PROJECT), *([str(path)] if path else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, *program, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def offer(site: Path, distribution: str, code: str, entry_points: str, version: str = "1.0") -> None:
    """Install a package of one module, as pip would leave it."""
    metadata = site / f"{distribution}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    (site / f"{distribution}.py").write_text(code)


ROWS = [
    {"text": "Bees make honey from the nectar of flowers. Let me know if you need more!"},
    {"text": "Bees make honey from the nectar of flowers."},
]


def write_rows(folder: Path, rows: list[dict[str, Any]] = ROWS) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_an_installed_filter_drops_rows_and_its_settings_are_validated(extras: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    [command] = re.findall(r"^stillhouse (filter .+)$", PAGE, re.MULTILINE)
    run_command(tmp_path, *command.split(), path=extras / "site")
    dropped = pl.read_parquet(tmp_path / "clean" / "dropped.parquet")
    assert dropped.select("reason", "detail").rows() == [("boilerplate", "ends with 'Let me know if'")]
    lenient = 'filters=[{type="sign_off",last_words=2}]'
    done = run_command(
        tmp_path, "filter", "rows.jsonl", "--out", "all", "--set", lenient, "--json", path=extras / "site"
    )
    assert json.loads(done.stdout)["counts"]["kept"] == 2
    wrong = ["filter", "rows.jsonl", "--out", "wrong", "--set", 'filters=[{type="sign_off",last_word=2}]']
    fault = run_command(tmp_path, *wrong, code=2, path=extras / "site").stderr
    assert "filters.0.last_word: unknown key, did you mean `last_words`?" in fault
    text = run_command(
        tmp_path, *wrong[:-1], 'filters=[{type="sign_off",last_words="x"}]', code=2, path=extras / "site"
    )
    assert "filters.0.last_words: input should be a valid integer" in text.stderr


def test_without_its_package_a_name_is_unknown(tmp_path: Path) -> None:
    write_rows(tmp_path)
    done = run_command(tmp_path, "filter", "rows.jsonl", "--out", "clean", "--filters", "sign_of", code=2)
    assert "filters.0.type: unknown filter 'sign_of'; known are length, refusal," in done.stderr
    assert not (tmp_path / "clean").exists()
