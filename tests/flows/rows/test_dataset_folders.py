"""Which files of a folder are read, and what is said of the others; rows that cost too much."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from core.errors import UsageError
from core.project_files import PROJECT
from core.storage.bounded_reading import MAX_FIELDS
from flows.rows.dataset_rows import read_dataset_documents
from flows.terminal.console import SESSION

SPREAD = ["a.jsonl", "deep/b.jsonl", "deep/er/c d.jsonl"]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"text": name}) + "\n")
    return folder


def read(folder: Path) -> tuple[list[str], list[str]]:
    """The texts of a folder, and what is said about it."""
    said: list[str] = []
    with SESSION.report_to(lambda text, _: said.append(text)):
        texts = [[document.text for document in read_dataset_documents(folder)] for _ in range(2)]
    assert texts[0] == texts[1]
    return texts[0], said


@pytest.mark.parametrize(
    ("names", "texts", "left_out"),
    [
        (SPREAD, ["a.jsonl"], "left out 2 in subfolders (deep/b.jsonl, deep/er/c d.jsonl)"),
        (SPREAD[1:], SPREAD[1:], None),
        (SPREAD[:1], SPREAD[:1], None),
        (["a.jsonl", ".cache/b.jsonl"], ["a.jsonl"], None),
        ([".cache/b.jsonl", "deep/b.jsonl"], ["deep/b.jsonl"], None),
        (["kept.jsonl", "aside.jsonl", "kept.jsonl.plugins/review/reviews.jsonl"], ["kept.jsonl"], None),
        (["train.jsonl", "alpaca/train.jsonl"], ["train.jsonl"], None),
        (["train.jsonl", "alpaca/other.jsonl"], ["train.jsonl"], "left out 1 in subfolders (alpaca/other.jsonl)"),
    ],
)
def test_files_at_the_top_or_else_those_below_and_one_line_of_what_is_left_out(
    names: list[str], texts: list[str], left_out: str | None, tmp_path: Path
) -> None:
    found, said = read(write(tmp_path, *names))
    assert found == texts
    assert len(said) == (left_out is not None)
    assert left_out is None or left_out in said[0]


def write_wide_line(path: Path, keys: int, *, nested: bool) -> Path:
    wide = {f"k{i}": i for i in range(keys)}
    path.write_text(
        json.dumps({"text": "a"}) + "\n" + json.dumps({"text": "b", **({"x": [wide]} if nested else wide)}) + "\n"
    )
    return path


@pytest.mark.parametrize("nested", [False, True])
def test_a_row_of_too_many_keys_is_refused_and_one_of_many_elements_is_not(nested: bool, tmp_path: Path) -> None:
    wide = write_wide_line(tmp_path / "rows.jsonl", MAX_FIELDS + 1, nested=nested)
    with pytest.raises(UsageError, match="row 2: has over 4,000 different keys"):
        list(read_dataset_documents(wide))
    narrow = write_wide_line(tmp_path / "rows.jsonl", MAX_FIELDS - 10, nested=nested)
    assert len(list(read_dataset_documents(narrow))) == 2
    turns = [{"role": role, "content": f"a: {i}"} for i in range(MAX_FIELDS) for role in ("user", "assistant")]
    (tmp_path / "long.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    assert len(list(read_dataset_documents(tmp_path / "long.jsonl"))) == 1


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


@pytest.mark.attack(
    "a JSON line of 400,000 keys, Parquet of 20,000 columns",
    "refused: at most 4,000",
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_strangers_wide_file_is_refused_with_bounded_memory_and_work(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name == "rows.jsonl":
        write_wide_line(file, 400_000, nested=False)
    else:
        pl.DataFrame({"text": ["a"], **{f"c{i}": [i] for i in range(20_000)}}).write_parquet(file)
    command = [sys.executable, "-m", "stillhouse", "assess", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, preexec_fn=limit_memory)
    assert done.returncode == 2
    assert "different keys" in done.stderr or "it has 20,001 columns, over 4,000" in done.stderr
