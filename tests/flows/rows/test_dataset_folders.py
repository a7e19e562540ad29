"""Which files of a folder are read, and what is said of the others; rows that cost too much."""

import csv
import gzip
import io
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from core.errors import UsageError
from core.project_files import PROJECT
from core.storage.bounded_reading import MAX_FIELDS
from flows.clean.dataset_filter import filter_dataset, parse_filter_settings
from flows.rows.dataset_rows import read_dataset_conversations, read_dataset_documents
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


EXACT = parse_filter_settings([], "exact")
ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{i}",
        "instruction": f'Say "{i}", [{i}]\nand {{{i}}}; é,',
        "input": "",
        "output": f"{i}.\t\\ 😀",
        "system": "Bake.",
    }
    for i in range(4)
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def dump_array(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=2, ensure_ascii=False).encode()


def dump_sheet(rows: list[dict[str, Any]], separator: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def dump_arrow(rows: list[dict[str, Any]], compression: str | None = None) -> bytes:
    sink, table = io.BytesIO(), pa.Table.from_pylist(rows)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue()


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "rows.json": dump_array,
    "one-line.json": lambda rows: b"\xef\xbb\xbf " + json.dumps(rows).encode(),
    "rows.json.gz": lambda rows: gzip.compress(dump_array(rows)),
    "rows.csv": lambda rows: b"\xef\xbb\xbf" + dump_sheet(rows, ","),
    "semicolons.csv": lambda rows: dump_sheet(rows, ";"),
    "rows.tsv": lambda rows: dump_sheet(rows, "\t"),
    "rows.csv.gz": lambda rows: gzip.compress(dump_sheet(rows, ",")),
    "data-00000-of-00001.arrow": dump_arrow,
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_has_the_conversations_of_the_same_rows_as_lines(name: str, tmp_path: Path) -> None:
    expected = read_dataset_conversations(write_lines(tmp_path / "rows.jsonl", ROWS))
    assert [turn.role for turn in expected[0]] == ["system", "user", "assistant"]
    (folder := tmp_path / "folder").mkdir()
    (folder / name).write_bytes(FORMS[name](ROWS))
    (folder / "settings.json").write_text('{"not": "rows"}')
    assert read_dataset_conversations(folder / name) == expected == read_dataset_conversations(folder)
    report = filter_dataset(folder, tmp_path / "out", EXACT)
    assert (report.counts.kept, report.counts.failed) == (4, 0)
    assert read_dataset_conversations(tmp_path / "out") == expected


def test_a_saved_dataset_with_splits_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "saved")
    assert len(read_dataset_conversations(tmp_path / "saved")) == 5


@pytest.mark.attack(
    "a compressed or damaged Arrow stream, a sheet whose quotes never close, an array of depth 200,000",
    "refused, naming file and row",
)
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("cut.json", dump_array(ROWS)[:-20], "row 4: is not JSON"),
        ("open.json", dump_array(ROWS)[:-1], "row 4: the array is not closed"),
        ("more.json", dump_array(ROWS) + b"[]", "row 4: is followed by"),
        ("wrong.json", b'[{"text": "a"}, {"text": }]', "row 2: is not JSON"),
        ("deep.json", b"[" + b"[" * 200_000, "row 1: is not JSON"),
        ("wide.csv", b"text\na,b\n", r"row 1 \(line 2\): has 2 cells and the header 1"),
        ("twice.csv", b"text,text\na,b\n", "its header has `text` twice"),
        ("open.csv", b'text\n"a\nb\n', "row 1 "),
        ("latin.csv", "text\ncafé\n".encode("latin-1"), "it is not UTF-8 .*0xe9.* save it as UTF-8"),
        ("excel.csv", "text\na\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("packed.arrow", dump_arrow(ROWS, "zstd"), "is a compressed Arrow stream"),
        ("none.arrow", b"nothing of the kind", "is no Arrow stream"),
        ("cut.arrow", dump_arrow(ROWS)[:-300], "is a damaged Arrow stream"),
        ("columns.csv", ",".join(f"c{i}" for i in range(MAX_FIELDS + 1)).encode(), "it has 4,001 columns, over 4,000"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name}: cannot be read: .*{sentence}"):
        read_dataset_conversations(tmp_path / name)
