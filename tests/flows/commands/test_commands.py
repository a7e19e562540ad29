"""Commands that need no Prefect, in this process."""

import json
import random
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import typer

from core.project_files import PROJECT
from flows import cli
from flows.commands.app import app
from flows.commands.command_options import CLEAN_PANEL, MAKE_PANEL, RELEASE_PANEL, STUDENT_PANEL, TRY_PANEL

REFERENCE = str(PROJECT / "data/reference/english.jsonl")
ROWS = [
    {"id": "a", "text": "The bees left their hive early in the morning and flew over the wide green fields.", "n": 1},
    {"id": "b", "text": "I'm sorry, but as an AI language model I cannot help with that request.", "n": 2},
    {"id": "c", "text": "The bees left their hive early in the morning and flew over the wide green fields!", "n": 3},
    {"id": "d", "text": "Rain fell on the roof all night, and nobody in the old house could sleep a wink.", "n": 4},
]


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code, before, handler = 0, sys.argv, signal.getsignal(signal.SIGINT)
    sys.argv = ["stillhouse", *words]
    try:
        cli.main()
    except SystemExit as exit:
        code = int(exit.code or 0)
    finally:
        sys.argv = before
        signal.signal(signal.SIGINT, handler)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "poems"], "error: poems: no recipe of this name; built in are "),
        (["run", "smok"], "error: smok: no recipe of this name; did you mean 'smoke'?\n"),
        (
            ["distill", "missing", "--out", "{out}", "--set", "student.layers=4"],
            "distill` takes the student's own keys; leave out",
        ),
        (["run", "missing.toml"], "error: missing.toml: 1 problem\n  cannot be read: No such file or directory"),
        (["run", "smoke", "--set", "samples=0"], "samples: input should be greater than or equal to 1, not 0"),
        (["run", "smoke", "--runs-dir", "/proc/nowhere"], "error: /proc/nowhere: cannot hold a run"),
        (["show", "nothing"], "error: nothing: no run of this name"),
        (["graph", "ring"], "error: ring: unknown topology; choose one of centralized, single, independent"),
        (["filter", "missing.jsonl", "--out", "{out}"], "error: missing.jsonl: is not there"),
        (["assess", "missing.parquet", "--reference", REFERENCE], "error: missing.parquet: is not there"),
        (["distill", "missing", "--out", "{out}"], "error: missing: is not there"),
        (["distill", "missing", "--out", "/proc/nowhere"], "error: /proc/nowhere: cannot be written: "),
        (["distill", "missing", "--out", "{out}", "--set", "epoch=1"], "epoch: unknown key, did you mean `epochs`?"),
    ],
)
def test_each_mistake_is_one_sentence_and_the_right_code(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, *(word.format(out=tmp_path / "out") for word in words))
    assert code == (1 if "/proc/nowhere" in sentence else 2)
    assert sentence in err
    assert out == ""


@pytest.mark.whole
def test_the_help_groups_every_command_by_what_a_user_does(capsys: pytest.CaptureFixture[str]) -> None:
    panels = [TRY_PANEL, MAKE_PANEL, CLEAN_PANEL, STUDENT_PANEL, RELEASE_PANEL]
    code, out, _ = called(capsys, "--help")
    places = [out.index(f" {panel} ") for panel in panels]
    assert (code, places) == (0, sorted(places))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    assert {command.rich_help_panel for command in commands.values()} == set(panels)


@pytest.mark.parametrize(("way", "others"), [("plain", "json_schema.* or .tool"), ("tool", "json_schema.* or .plain")])
def test_a_teacher_that_breaks_the_schema_gets_advice_for_another_mode(
    way: str, others: str, capsys: pytest.CaptureFixture[str]
) -> None:
    malformed = f"teachers.main={{model='fake/writer', structured='{way}', extra={{malformed=1}}}}"
    code, _, err = called(capsys, "validate", "smoke", "--live", "--set", malformed)
    assert code == 1
    assert re.search(rf'with structured = "{way}"; try "{others}" \(teachers.main.structured\)$', err.strip())


def test_assess_without_a_reference_measures_repetition(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    code, out, _ = called(capsys, "assess", written(tmp_path / "good.jsonl", passages[:600]), "--out", str(page))
    assert (code, out.splitlines()[0].partition(",")[0]) == (0, "collapse: no repetition")
    assert ", 600 documents, no reference; rare words were not measured" in out.splitlines()[0]
    assert re.search(
        r"answers: \d+% begin with “.+”, \d+% with the pattern “.+”, self-\s*BLEU 0\.\d\d", " ".join(out.split())
    )
    assert "questions:" not in out, "the rows have none"
    assert "How alike the texts are" in page.read_text()
    assert "compare with real text of the same kind" in out
    assert "next: " not in out, "the page is written"
    assert "Repetition within the dataset" in page.read_text()
    assert "range of real text" not in page.read_text()
    monkeypatch.chdir(tmp_path)
    copied = written(tmp_path / "copied.jsonl", passages[:300] * 2)
    _, out, _ = called(capsys, "assess", copied)
    assert out.splitlines()[-1] == f"next: stillhouse filter {copied} --out copied-filtered --filters exact,minhash"
    code, out, _ = called(capsys, *shlex.split(out.splitlines()[-1])[2:])
    assert code == 0
    code, out, _ = called(capsys, *shlex.split(out.splitlines()[-1])[2:])
    assert (code, out.splitlines()[0].partition(",")[0]) == (0, "collapse: inconclusive"), (
        "300 different documents are left"
    )
    code, out, _ = called(capsys, *shlex.split(out.splitlines()[-1])[2:])
    assert (code, (tmp_path / "kept-assessment.html").is_file()) == (0, True)
    code, out, _ = called(capsys, "assess", copied, "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["collapse"]["reference"]) == (3, "collapse", None)
    assert found["gates"][0].startswith("REPEAT: text is repeated (exact_duplicates 0.5, limit 0.05")
    assert found["headline"] == "collapse, 600 documents, no reference; 50 % of the documents repeat another"
    assert found["paragraph"] == found["collapse"]["paragraph"]
    assert [advice["cause"] for advice in found["advice"]] == ["copies", "unknown_writer"]


def written(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.fixture(scope="module")
def passages() -> list[str]:
    texts = [json.loads(line)["text"] for line in Path(REFERENCE).read_text().splitlines()]
    return random.Random(2).sample(texts, len(texts))


def test_assess_exits_3_on_collapse_with_the_evidence(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"The best way to keep a {text.split()[-1]} is to keep it well and dry." for text in passages[:80]]
    source, real = written(tmp_path / "same.jsonl", texts), written(tmp_path / "real.jsonl", passages[80:])
    words = ["assess", source, "--reference", real, "--runs-dir", str(tmp_path)]
    code, out, _ = called(capsys, *words, "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["parent"]) == (3, "collapse", None)
    assert any("“the best way” 100.0%" in gate for gate in found["gates"])
    assert found["collapse"]["documents"] <= 80
    page = tmp_path / "page.html"
    code, out, _ = called(capsys, *words, "--out", str(page))
    assert (code, out.splitlines()[0].partition(",")[0]) == (3, "collapse: found")
    text = " ".join(out.split())
    assert "“the best way” 100.0%" in text
    assert "with real text of the same kind (`--reference`)" in text, "it is unknown that a teacher wrote the text"
    assert out.splitlines()[-1] == f"next: stillhouse filter {source} --out same-filtered --filters exact,minhash"
    assert "without truncation" not in text
    assert "“the best way” 100.0%" in page.read_text()
    assert page.read_text().count('<svg class="strip"') == len(found["collapse"]["metrics"])


def test_an_index_writes_and_reads_signature_files_of_datasketch(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, file = str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "rows.parquet")
    code, out, _ = called(capsys, "index", first, "--add", str(rows), "--to-datasketch", file, "--json")
    added = json.loads(out)["added"]
    assert code == 0
    assert added > 0
    code, out, _ = called(capsys, "index", second, "--from-datasketch", file, "--name", "old", "--json")
    assert (code, json.loads(out)["sources"]) == (0, {"old": added})
    clean = str(tmp_path / "clean")
    words = ["filter", str(rows), "--out", clean, "--filters", "minhash", "--index", second]
    code, out, _ = called(capsys, *words, "--workers", "1", "--json")
    assert json.loads(out)["counts"]["kept"] == 0
    code, _, err = called(capsys, "index", first, "--to-datasketch", file)
    assert code == 2
    assert "--to-datasketch: an index stores no MinHash signatures; name the rows with --add" in err


@pytest.mark.whole
def test_a_page_names_every_command() -> None:
    files = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md"), *(PROJECT / "plugins").glob("*/README.md")]
    pages = "\n".join(page.read_text() for page in files)
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    missing = [name for name in commands if f"stillhouse {name}" not in pages]
    assert len(commands) > 15
    assert missing == []


@pytest.mark.parametrize("content", ["", "\n \n\n"])
@pytest.mark.parametrize(
    "words",
    [
        ["assess", "ROWS", "--reference", REFERENCE],
        ["assess", REFERENCE, "--reference", "ROWS"],
        ["filter", "ROWS", "--out", "OUT"],
        ["distill", "ROWS", "--out", "OUT"],
        ["index", "OUT", "--add", "ROWS"],
    ],
)
def test_a_file_without_rows_is_refused(
    words: list[str], content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    file.write_text(content)
    given = {"ROWS": str(file), "OUT": str(out)}
    code, text, err = called(capsys, *(given.get(word, word) for word in words))
    assert (code, text) == (2, "")
    assert f"{file}: has no rows; give a file or a folder with one at least\n" in err
    assert not out.exists() or not any(out.iterdir())
