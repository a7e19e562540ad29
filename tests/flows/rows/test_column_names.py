"""Columns that a user names: of every command that reads a dataset, and of the library."""

import json
import pickle
from pathlib import Path

import polars as pl
import pytest

import stillhouse
from core.errors import UsageError
from flows.rows.column_names import name_columns
from flows.rows.dataset_rows import read_dataset_conversations
from tests.flows.commands.test_commands import called

ROWS = [{"id": f"r{i}", "asked": f"Why {i}?", "said": f"Because {i}.", "text": "not this"} for i in range(3)]
NAMES = "user=asked,assistant=said"


def write(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_named_columns_are_read_and_kept_rows_keep_their_own(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / name, [*ROWS, {**ROWS[0], "text": "the same question and answer"}])
    found = stillhouse.filter(file, filters=["exact"], columns={"user": "asked", "assistant": "said"})
    assert found.kept.to_dicts() == ROWS
    assert found.dropped["detail"].to_list()
    # The control: without names, the other text is compared.
    assert stillhouse.filter(file, filters=["exact"]).kept.height == 2
    conversations = read_dataset_conversations(pickle.loads(pickle.dumps(name_columns(file, NAMES))))
    assert [turn.content for turn in conversations[2]] == ["Why 2?", "Because 2."]
    assert stillhouse.filter(pl.DataFrame(ROWS), filters=["exact"], columns=NAMES).kept.height == 3


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("user=asked", "--columns: asked: make no row"),
        ("speaker=asked,assistant=said", "--columns: speaker=asked: give WHAT=COLUMN"),
        ("user=asked,prompt=id,assistant=said", "--columns: prompt: is named twice"),
        ("user=asked,assistant", "--columns: assistant=: give WHAT=COLUMN"),
        ("user=asked,assistant=sad", "has no `sad`, which --columns names; it has id, asked, said, text"),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_wrong_names_are_refused_with_the_columns_there_are(
    name: str, names: str, sentence: str, tmp_path: Path
) -> None:
    file = write(tmp_path / name)
    with pytest.raises(UsageError, match=sentence):
        stillhouse.filter(file, tmp_path / "out", columns=names)
    assert not (tmp_path / "out").exists()


@pytest.mark.whole
def test_every_command_that_reads_a_dataset_takes_names() -> None:
    from typer.main import get_command

    from flows.commands.app import app

    group = get_command(app)
    commands = {name: group.get_command(None, name) for name in group.list_commands(None)}  # type: ignore[attr-defined]
    named = {name for name, one in commands.items() if "columns" in {parameter.name for parameter in one.params}}
    taking = {name for name, one in commands.items() if any(parameter.metavar == "INPUT" for parameter in one.params)}
    assert taking - named <= {"import"}, "chat logs have forms of their own"
    assert named >= {"filter", "assess", "distill", "evaluate", "index"}


@pytest.mark.parametrize(
    "words",
    [
        ["filter", "{rows}", "--out", "{out}"],
        ["assess", "{rows}"],
        ["assess", "{plain}", "--parent", "{rows}"],
        ["distill", "{rows}", "--out", "{out}"],
        ["index", "{out}", "--add", "{rows}"],
    ],
)
def test_the_names_reach_the_reader_of_each_command(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"rows": write(tmp_path / "rows.jsonl"), "plain": write(tmp_path / "plain.jsonl"), "out": tmp_path / "out"}
    command = [word.format(**files) for word in words]
    code, _, err = called(capsys, *command, "--columns", "user=asked,assistant=sad")
    assert code == 2
    assert "has no `sad`, which --columns names" in err


def test_a_result_of_other_columns_is_not_taken_for_this_one(tmp_path: Path) -> None:
    file, out = write(tmp_path / "rows.jsonl"), tmp_path / "out"
    stillhouse.filter(file, out, filters=["exact"], columns=NAMES)
    with pytest.raises(UsageError, match="result of another input"):
        stillhouse.filter(file, out, filters=["exact"], columns="text=said")
