"""`diff` on small datasets with known changes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.compare.dataset_comparison import DatasetComparison, compare_datasets
from flows.compare.row_index import build_row_index
from flows.compare.row_matching import match_rows
from flows.data.run_storage import RunStorage
from tests.flows.commands.test_commands import called
from tests.support.lineages import write_rows


def chat(asked: str, answer: str, name: str | None = None) -> dict[str, Any]:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return {"messages": turns} | ({"id": name} if name else {})


def compare(folder: Path, a: Sequence[object], b: Sequence[object]) -> DatasetComparison:
    files = write_rows(folder / "a.jsonl", a), write_rows(folder / "b.jsonl", b)
    return compare_datasets(*map(str, files), RunStorage(folder / "runs"))


def counts(found: DatasetComparison) -> tuple[int, ...]:
    rows = found.rows
    return rows.same, rows.changed_by_id, rows.changed_by_request, rows.removed, rows.added


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([chat("q", "x", "1")], [chat("q", "x", "1")], (1, 0, 0, 0, 0)),
        ([chat("q", "x", "1")], [chat("p", "y", "1")], (0, 1, 0, 0, 0)),
        ([chat("q", "x", "1")], [chat("q", "y", "2")], (0, 0, 1, 0, 0)),
        ([chat("q", "x", "1")], [chat("q", "x", "2")], (1, 0, 0, 0, 0)),
        ([chat("q", "x", "1")], [chat("q", "x")], (1, 0, 0, 0, 0)),
        ([chat("q", "x"), chat("q", "x"), chat("q", "y")], [chat("q", "x"), chat("q", "z")], (1, 0, 1, 1, 0)),
        ([{"text": "one"}, {"text": "two"}], [{"text": "two"}, {"text": "three"}], (1, 0, 0, 1, 1)),
        ([{"prompt": "q", "completion": "x"}], [chat("q", "x")], (1, 0, 0, 0, 0)),
        ([{"instruction": "q", "input": "", "output": "x"}], [chat("q", "y")], (0, 0, 1, 0, 0)),
        (
            [{"prompt": "q", "chosen": "x", "rejected": "y"}],
            [{"prompt": "q", "chosen": "x", "rejected": "z"}],
            (0, 0, 1, 0, 0),
        ),
        ([chat("q", "<think>so</think>x")], [chat("q", "x")], (0, 0, 1, 0, 0)),
        ([chat("q", "x") | {"score": 1}], [chat("q", "x") | {"score": 2}], (1, 0, 0, 0, 0)),
    ],
)
def test_rows_match_by_id_then_content_then_request(
    tmp_path: Path, a: list[object], b: list[object], expected: tuple[int, ...]
) -> None:
    assert counts(compare(tmp_path, a, b)) == expected
    assert counts(compare(tmp_path, b, a)) == (*expected[:3], expected[4], expected[3])


SMALL_ROWS = st.lists(
    st.builds(chat, st.sampled_from("pq"), st.sampled_from("xyz"), st.sampled_from([None, "1", "2"])),
    min_size=1,
    max_size=9,
)


@given(SMALL_ROWS, SMALL_ROWS)
@settings(max_examples=15, deadline=None)
def test_each_row_is_in_exactly_one_group(tmp_path_factory: pytest.TempPathFactory, a: list[Any], b: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    indexes = [build_row_index(write_rows(folder / f"{name}.jsonl", rows)) for name, rows in (("a", a), ("b", b))]
    matches = match_rows(*indexes)
    paired = [matches.same, matches.changed]
    for side, (rows, alone, suffix) in enumerate([(a, matches.removed, ""), (b, matches.added, "_b")]):
        numbers = [number for frame in paired for number in frame[f"row{suffix}"]] + alone["row"].to_list()
        assert sorted(numbers) == list(range(1, len(rows) + 1)), side


def test_examples_show_both_texts_and_parquet_is_compared_with_lines(tmp_path: Path) -> None:
    before = [chat(f"q{i}", f"answer {i} of many words", str(i)) for i in range(200)]
    after = [
        chat(f"q{i}", f"answer {i} of several words" if i == 150 else f"answer {i} of many words", str(i))
        for i in range(200)
    ]
    pl.DataFrame(before).write_parquet(tmp_path / "a.parquet")
    write_rows(tmp_path / "b.jsonl", after)
    found = compare_datasets(str(tmp_path / "a.parquet"), str(tmp_path / "b.jsonl"), RunStorage(tmp_path / "runs"))
    assert counts(found) == (199, 1, 0, 0, 0)
    [example] = found.examples
    assert example.a
    assert example.b
    assert (example.a.place, example.b.place, example.a.id) == ("a.parquet:151", "b.jsonl:151", "150")
    assert (example.a.answer, example.b.answer) == ("answer 150 of many words", "answer 150 of several words")


def test_the_command_prints_words_that_changed_and_writes_a_page_that_escapes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.jsonl", [chat("q", "the grey boat drifts", "1"), chat("gone", "old", "2")])
    write_rows(tmp_path / "b.jsonl", [chat("q", "the <script>alert(1)</script> boat drifts\x1b[2J", "1")])
    code, out, _ = called(capsys, "diff", "a.jsonl", "b.jsonl", "--out", "page.html")
    assert code == 0
    assert "same 0   changed 1   removed 1   added 0" in out
    assert "the [-grey-] boat" in out
    assert "{+<script>alert(1)</script>+}" in out
    assert "\x1b" not in out
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "</main>" in page
    code, out, _ = called(capsys, "diff", "a.jsonl", "b.jsonl", "--json")
    record = json.loads(out)
    assert record["rows"] == {
        "rows_a": 2, "rows_b": 1, "same": 0, "changed_by_id": 1, "changed_by_request": 0, "removed": 1, "added": 0, "changed": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("a.jsonl", "a.jsonl"), "a.jsonl: is compared with itself; name two datasets"),
        (("a.jsonl", "bad.jsonl"), "bad.jsonl: row 1: needs `text`, or `messages`"),
        (("a.jsonl", "none"), "none: no run of this name"),
        (("a.jsonl", "data/none.jsonl"), "data/none.jsonl: is not there"),
    ],
)
def test_what_cannot_be_compared_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.jsonl", [chat("q", "x")])
    write_rows(tmp_path / "bad.jsonl", [{"question": "q"}])
    code, _, errors = called(capsys, "diff", *words)
    assert code == 2
    assert sentence in errors
