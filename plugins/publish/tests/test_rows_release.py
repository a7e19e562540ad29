"""A filtered folder is released like a run; what is refused; what a release of rows does not reveal."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

import stillhouse
from core.runs.releases import read_release
from core.storage.atomic_files import hash_file
from flows.clean.dataset_filter import filter_dataset, parse_filter_settings
from flows.release.release_creation import create_release
from tests.flows.clean.test_dataset_filter import corpus
from tests.flows.commands.test_commands import called
from tests.support.lineages import make_run

TOKEN = "hf_" + "aB3d" * 9
"""Has the shape of a token of the Hub, and is none."""
FEW = [f"The {what} of the harbour was painted in May, and nobody came to see it." for what in ("wall", "gate", "roof")]


def make_folder(folder: Path, texts: Sequence[str], form: str = ".jsonl") -> Path:
    """A folder of `filter`, with the rows of `texts`."""
    source = folder.parent / f"{folder.name}-rows{form}"
    lines = "".join(json.dumps({"n": i, "text": text}) + "\n" for i, text in enumerate(texts)).encode()
    if form == ".parquet":
        pl.read_ndjson(lines).write_parquet(source)
    else:
        source.write_bytes(gzip.compress(lines) if form.endswith("gz") else lines)
    filter_dataset(source, folder, parse_filter_settings([], "length,exact"))
    return folder


@pytest.mark.parametrize("form", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_filtered_folder_is_released(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "data" / "runs"
    folder = make_folder(tmp_path / "clean", [*corpus(40), "no"], form)
    words = ("release", str(folder), "--license", "CC0-1.0", "--runs-dir", str(runs), "--json")
    code, out, errors = called(capsys, *words)
    assert code == 0, errors
    assert (json.loads(out)["release"], json.loads(out)["state"]) == ("clean/0", "done")
    release = read_release(tmp_path / "data" / "releases" / "clean" / "0")
    release.verify_files()
    data = release.dataset / f"train{form}"
    assert hash_file(data) == hash_file(folder / f"kept{form}")
    assert all(path.stat().st_mode & 0o222 == 0 for path in release.path.rglob("*") if path.is_file())
    counts = json.loads((release.path / "filters.json").read_text())
    assert counts["steps"][0]["dropped"] == 1
    documents = "".join((release.path / name).read_text() for name in release.manifest.files if "dataset" not in name)
    assert str(tmp_path) not in documents + (release.path / "manifest.json").read_text(), "no path of this machine"
    assert "Stillhouse wrote none of these rows" in (release.path / "README.md").read_text()
    assert "written by" not in documents.lower()
    assert f"path: dataset/train{form}" in (release.path / "README.md").read_text()
    assert called(capsys, *words)[0] == 0
    assert called(capsys, "lineage", "clean", "--runs-dir", str(runs))[0] == 0
    frames = stillhouse.load_release("clean", runs_dir=runs).dataset
    assert (len(frames.train), len(frames.validation)) == (json.loads(out)["counts"]["kept"], 0)


def test_other_rows_are_the_next_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = str(tmp_path / "data" / "runs")
    for generation, texts in enumerate((corpus(30), corpus(40))):
        folder = make_folder(tmp_path / f"week-{generation}", texts)
        code, out, errors = called(capsys, "release", str(folder), "--name", "weekly", "--runs-dir", runs)
        assert code == 0, errors
        assert out.startswith(f"release weekly/{generation}  ")
    release = read_release(tmp_path / "data" / "releases" / "weekly" / "1")
    assert release.lineage.ancestors[0].release == "weekly/0"
    assert called(capsys, "rollback", "weekly", "--runs-dir", runs)[0] == 0


@pytest.mark.parametrize(
    ("texts", "code", "error"),
    [
        ([f"use {TOKEN} for this", *corpus(30)], 3, "kept.jsonl, row 1: a token of the Hugging Face Hub"),
        (["no"], 3, "no row was kept"),
        ([f"{text} {i}" for i in range(30) for text in FEW], 3, "the verdict is collapse"),
        (corpus(60), 0, ""),
    ],
    ids=["secret", "empty", "collapse", "control"],
)
def test_secrets_and_collapse_are_not_released(
    texts: Sequence[str], code: int, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder(tmp_path / "clean", texts)
    got, _, errors = called(capsys, "release", str(folder), "--runs-dir", str(tmp_path / "runs"))
    assert got == code, errors
    assert error in errors
    assert TOKEN not in errors
    assert (tmp_path / "releases" / "clean" / "0").exists() == (code == 0)


def test_what_cannot_be_released_is_an_error_of_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, runs = make_folder(tmp_path / "Clean", corpus(20)), ("--runs-dir", str(tmp_path / "data" / "runs"))
    for words, error in (
        ((str(folder),), "--name: 'Clean' must be small letters"),
        ((str(folder), "--name", "../x"), "--name: '../x' must be small letters"),
        (("absent", "--name", "x"), "--name: absent is no folder that `filter` wrote"),
    ):
        code, _, errors = called(capsys, "release", *words, *runs)
        assert (code, error in errors) == (2, True), errors
    (folder / "report.json").unlink()
    code, _, errors = called(capsys, "release", str(folder), "--name", "x", *runs)
    assert (code, "`filter` has not finished here" in errors) == (2, True), errors


def test_a_lineage_is_of_rows_or_of_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, runs = make_folder(tmp_path / "clean", corpus(20)), tmp_path / "data" / "runs"
    create_release(make_run(runs))
    code, _, errors = called(capsys, "release", str(folder), "--name", "smoke", "--runs-dir", str(runs))
    assert (code, "--name smoke: is the name of a recipe with releases (smoke/0)" in errors) == (2, True), errors
    assert called(capsys, "release", str(folder), "--name", "rows", "--runs-dir", str(runs))[0] == 0
    code, _, errors = called(capsys, "run", "smoke", "--set", 'name="rows"', "--runs-dir", str(runs))
    assert (code, "rows: is the name of releases of given rows (rows/0)" in errors) == (2, True), errors
