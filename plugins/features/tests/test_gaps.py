"""`gaps`: the command and the function of the library."""

import json
import re
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


def test_every_seed_of_gaps_names_its_subject_and_is_accepted_by_a_run(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text of common words alone starts no seed; a text whose only other word is in no other text starts one."""
    bare, alone = ["It is so.", "So it was.", "And he is."] * 100, "He is Quillonby."
    real = written(tmp_path / "real.jsonl", [*passages[2500:], alone, *bare])
    own, seeds = written(tmp_path / "own.jsonl", passages[:2500]), tmp_path / "seeds.jsonl"
    code, out, _ = called(capsys, "gaps", own, "--reference", real, "--out", str(seeds), "-n", "20")
    assert code == 0
    assert "lacking topic" in out
    rows = [json.loads(line) for line in seeds.read_text().splitlines()]
    assert [row["text"] for row in rows if not row["words"]] == []
    assert [(row["topic"], row["words"]) for row in rows if row["text"] == alone] == [("Quillonby", ["Quillonby"])]
    take = out.splitlines()[-1].removeprefix("hint: generate samples for the gaps: stillhouse run RECIPE ")
    code, _, err = called(capsys, "validate", "smoke", *shlex.split(take))
    assert (code, "'words'" in err) == (0, False), err
    real = written(tmp_path / "bare.jsonl", [*passages[2500:2600], *bare])
    code, out, _ = called(capsys, "gaps", own, "--reference", real)
    assert code == 0
    assert out.splitlines()[-1] == "no seeds: no text of a lacking topic has a word that names its subject"


def test_gaps_of_code_are_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"read_{word}" for word in ("page", "lines", "table", "Header", "index", "notes")]

    def code(place: int, *called_names: str) -> str:
        return f"def task_{place}(path):\n    value = open(path).read()\n" + "".join(
            f"    value = {name}(value, {place})\n" for name in called_names
        )

    real = [code(i, "heapq.heappush" if i % 10 == 1 else "list.sort", names[i % 6]) for i in range(300)]
    own = [code(i + 1_000, "list.sort", names[i % 6]) for i in range(300)]
    words = ["gaps", written(tmp_path / "own.jsonl", own), "--reference", written(tmp_path / "real.jsonl", real)]
    exit_code, out, _ = called(capsys, *words, "--json")
    found = json.loads(out)
    assert (exit_code, found["kind"], found["unit"]) == (0, "code", "token")
    assert {gap["name"] for gap in found["words"]} >= {"heapq", "heappush"}
    assert found["starts"] > 0
    exit_code, out, _ = called(capsys, *words)
    assert (exit_code, "lacking token" in out, " of " + words[3] + " as code" in out) == (0, True, True)
    exit_code, out, _ = called(capsys, *words, "--kind", "prose", "--json")
    assert json.loads(out)["unit"] == "word"


def test_gaps_writes_a_file_without_seeds_if_no_topic_is_missing(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, own = written(tmp_path / "real.jsonl", passages[400:]), written(tmp_path / "own.jsonl", passages[:400])
    seeds = tmp_path / "seeds.jsonl"
    words = ["gaps", own, "--reference", real, "--out", str(seeds)]
    code, out, _ = called(capsys, *words, "--json")
    found = json.loads(out)
    assert (code, found["topics"], found["words"], found["seeds"], found["out"]) == (0, [], [], 0, str(seeds))
    assert seeds.read_bytes() == b""
    seeds.unlink()
    code, out, _ = called(capsys, *words)
    sentence = f"no gaps measurable at this size; {seeds} is written without seeds"
    assert (code, out.splitlines()[1:], seeds.read_bytes()) == (0, [sentence], b"")
    code, _, err = called(capsys, "gaps", written(tmp_path / "few.jsonl", passages[:9]), "--reference", real)
    assert code == 2
    assert "9 documents and 4000 of" in err


def test_gaps_reports_when_missing_topics_yield_no_seed(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = written(tmp_path / "real.jsonl", passages[400:])
    own = written(tmp_path / "own.jsonl", [re.sub(r"\bwas\b", "is", text) for text in passages[:400]])
    code, out, _ = called(capsys, "gaps", own, "--reference", real, "--out", str(tmp_path / "seeds.jsonl"))
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.endswith("%")] == ["was"]
    assert out.splitlines()[-1].startswith("no seeds: only words are lacking that any text may have")
    assert out.splitlines()[-1].endswith(f"; {tmp_path / 'seeds.jsonl'} is written without seeds")
    assert (tmp_path / "seeds.jsonl").read_bytes() == b""


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
