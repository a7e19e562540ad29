"""`gaps`: the command and the function of the library."""

import json
import shlex
from pathlib import Path

import polars as pl
import pytest

import stillhouse
from core.project_files import PROJECT
from tests.flows.commands.test_commands import called, passages, written

REFERENCE = PROJECT / "data/reference/english.jsonl"

__all__ = ["passages"]


def test_gaps_prints_missing_topics_and_its_seeds_feed_the_next_run(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = written(tmp_path / "real.jsonl", passages[1500:])
    poor = written(tmp_path / "poor.jsonl", [text for text in passages[:1500] if "house" not in text.lower()])
    seeds = tmp_path / "my seeds.jsonl"
    words = ["gaps", poor, "--reference", real, "--out", str(seeds), "-n", "8"]
    code, out, _ = called(capsys, *words)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("  house ")] == [["house", "0.0%"]]
    rows = [json.loads(line) for line in seeds.read_text().splitlines()]
    assert len(rows) == 8
    assert all(passages[1499 + row["number"]] == row["text"] for row in rows)
    assert sum("house" in row["words"] for row in rows) >= 4
    take = out.splitlines()[-1].removeprefix("hint: generate samples for the gaps: stillhouse run RECIPE ")
    code, out, _ = called(capsys, "preview", "smoke", *shlex.split(take), "-n", "1")
    assert (code, out.count("outcome")) == (0, 1)
    assert "house" in out
    code, _, err = called(capsys, *words)
    assert (code, err) == (2, f"error: {seeds}: exists already; name another file, or remove it\n")


def test_a_file_without_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n")
    code, text, err = called(capsys, "gaps", str(file), "--reference", str(REFERENCE))
    assert (code, text) == (2, "")
    assert f"{file}: has no rows; give a file or a folder with one at least\n" in err


def test_gaps_are_frames(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["The cat is on the mat and the dog is in the fog."] * 200})
    lacking = stillhouse.gaps(frame, REFERENCE, tmp_path / "seeds.jsonl", number=5)
    assert lacking.words.columns == ["name", "here", "real"]
    assert (lacking.words["real"] > lacking.words["here"]).all()
    assert (tmp_path / "seeds.jsonl").read_text().count("\n") == lacking.report.seeds


def test_column_names_reach_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"asked": "Why?", "said": "Because."}) + "\n")
    code, _, err = called(
        capsys, "gaps", str(file), "--reference", str(REFERENCE), "--columns", "user=asked,assistant=sad"
    )
    assert (code, "has no `sad`, which --columns names" in err) == (2, True)
