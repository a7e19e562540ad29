"""Commands that need no Prefect, in this process."""

import json
import random
import re
import shlex
import sys
from pathlib import Path

import polars as pl
import pytest
import typer

from core.recipe import PROJECT
from flows import cli

REFERENCE = str(PROJECT / "data/reference/english.jsonl")
ROWS = [
    {"id": "a", "text": "The bees left their hive early in the morning and flew over the wide green fields.", "n": 1},
    {"id": "b", "text": "I'm sorry, but as an AI language model I cannot help with that request.", "n": 2},
    {"id": "c", "text": "The bees left their hive early in the morning and flew over the wide green fields!", "n": 3},
    {"id": "d", "text": "Rain fell on the roof all night, and nobody in the old house could sleep a wink.", "n": 4},
]


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code, before = 0, sys.argv
    sys.argv = ["stillhouse", *words]
    try:
        cli.main()
    except SystemExit as exit:
        code = int(exit.code or 0)
    finally:
        sys.argv = before
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
        (
            ["run", "poems"],
            "error: poems: no recipe of this name; built in are arithmetic, ",
        ),
        (["run", "smok"], "error: smok: no recipe of this name; did you mean 'smoke'?"),
        (
            ["distill", "missing", "--out", "/tmp/x", "--set", "student.layers=4"],
            "distill` takes the student's own keys; leave out",
        ),
        (["run", "missing.toml"], "error: missing.toml: 1 problem\n  cannot be read: No such file or directory"),
        (["run", "smoke", "--set", "samples=0"], "samples: input should be greater than or equal to 1, not 0"),
        (["run", "smoke", "--runs-dir", "/proc/nowhere"], "error: /proc/nowhere: cannot hold a run"),
        (["show", "nothing"], "error: nothing: no run of this name"),
        (["graph", "ring"], "error: ring: no such topology; there are centralized, single, independent"),
        (["filter", "missing.jsonl", "--out", "/tmp/x"], "error: missing.jsonl: is not there"),
        (["assess", "missing.parquet", "--reference", REFERENCE], "error: missing.parquet: is not there"),
        (["distill", "missing", "--out", "/tmp/x"], "error: missing: is not there"),
        (["distill", "missing", "--out", "/proc/nowhere"], "error: /proc/nowhere: cannot be written: "),
        (["distill", "missing", "--out", "/tmp/x", "--set", "epoch=1"], "epoch: unknown key, did you mean `epochs`?"),
    ],
)
def test_each_mistake_is_one_sentence_and_the_right_code(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(capsys, *words)
    assert code == (1 if "/proc/nowhere" in sentence else 2)
    assert sentence in err
    assert out == ""


def test_recipes_say_what_they_make(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "recipes")
    assert code == 0
    assert "constrained-instructions\n  Short answers" in out


def test_validate_prints_the_whole_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "validate", "smoke", "--live", "--json")
    assert code == 0
    assert json.loads(out)["recipe"]["topology"]["max_revisions"] == 2
    assert json.loads(out)["live"]["main"].startswith("fake/writer answers: keeps to a JSON schema, tells")


def test_preview_shows_every_turn_and_keeps_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = called(capsys, "preview", "smoke", "-n", "2")
    assert code == 0
    assert out.count("outcome") == 2
    assert list(tmp_path.iterdir()) == []


def test_filter_keeps_rows_unchanged_and_says_why_others_went(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, text, _ = called(capsys, "filter", str(rows), "--out", str(out), "--json")
    assert code == 0
    assert json.loads(text)["counts"] == {"candidates": 4, "kept": 2, "dropped": 2, "failed": 0}
    assert [json.loads(line) for line in (out / "kept.jsonl").read_text().splitlines()] == [ROWS[0], ROWS[3]]
    dropped = pl.read_parquet(out / "dropped.parquet").to_dicts()
    assert [(d["id"], d["n"], d["reason"], d["duplicate_of"]) for d in dropped] == [
        ("b", 2, "refusal", None),
        ("c", 3, "exact_duplicate", "a"),
    ]


def test_the_command_that_filter_names_next_reads_the_kept_rows_alone(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, _ = called(capsys, "filter", str(rows), "--out", str(tmp_path / "out"))
    assert text.splitlines()[-1].startswith(f"next: stillhouse assess {tmp_path}/out/kept.jsonl ")


def test_filters_can_be_chosen(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = 'filters=[{type="length",min_words=16}]'
    code, text, _ = called(capsys, "filter", str(rows), "--out", str(tmp_path / "out"), "--set", choice, "--json")
    assert code == 0
    assert json.loads(text)["reasons"] == {"length": 1}


def written(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.fixture(scope="module")
def passages() -> list[str]:
    texts = [json.loads(line)["text"] for line in Path(REFERENCE).read_text().splitlines()]
    return random.Random(2).sample(texts, len(texts))


def test_assess_says_loudly_that_few_documents_are_no_pass_and_exits_0(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, real = written(tmp_path / "few.jsonl", passages[:60]), written(tmp_path / "real.jsonl", passages[60:])
    code, out, _ = called(capsys, "assess", source, "--reference", real, "--runs-dir", str(tmp_path))
    assert code == 0
    assert out.splitlines()[0] == "verdict   UNDER-POWERED"
    assert "UNDER-POWERED, which is no pass" in out
    assert "assess at least 1,000 documents" in out
    assert [path.suffix for path in (tmp_path / ".cache" / "nulls").iterdir()] == [".json"]


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
    assert (code, out.splitlines()[0]) == (3, "verdict   COLLAPSE")
    assert "“the best way” 100.0%" in " ".join(out.split())
    assert "“the best way” 100.0%" in page.read_text()
    assert page.read_text().count('<svg class="strip"') == len(found["collapse"]["metrics"])


def test_assess_judges_what_a_dataset_adds_to_its_parent(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = written(tmp_path / "real.jsonl", passages[600:])
    parent = written(tmp_path / "parent.jsonl", passages[:400])
    child = written(tmp_path / "child.jsonl", passages[:400] + ["It was so " + text for text in passages[400:600]])
    words = ["assess", child, "--reference", real, "--parent", parent, "--runs-dir", str(tmp_path), "--json"]
    code, out, _ = called(capsys, *words)
    found = json.loads(out)
    assert (code, found["verdict"], found["parent"]["verdict"]) == (3, "collapse", "collapse")
    assert 100 <= found["parent"]["documents"] <= 200
    code, _, err = called(
        capsys, "assess", parent, "--reference", real, "--parent", parent, "--runs-dir", str(tmp_path)
    )
    assert code == 2
    assert "has no row that" in err


def test_gaps_tells_what_a_dataset_lacks_and_seeds_from_it_feed_the_next_run(
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
    take = out.splitlines()[-1].removeprefix("next: stillhouse run RECIPE ")
    code, out, _ = called(capsys, "preview", "smoke", *shlex.split(take), "-n", "1")
    assert (code, out.count("outcome")) == (0, 1)
    assert "house" in out
    code, _, err = called(capsys, *words)
    assert (code, err) == (2, f"error: {seeds}: is there already; name another file, or remove it\n")


def test_gaps_tells_of_none_and_writes_nothing_where_nothing_lacks(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, own = written(tmp_path / "real.jsonl", passages[400:]), written(tmp_path / "own.jsonl", passages[:400])
    words = ["gaps", own, "--reference", real, "--out", str(tmp_path / "seeds.jsonl")]
    code, out, _ = called(capsys, *words, "--json")
    found = json.loads(out)
    assert (code, found["topics"], found["words"], found["seeds"], found["out"]) == (0, [], [], 0, None)
    assert not (tmp_path / "seeds.jsonl").exists()
    code, _, err = called(capsys, "gaps", written(tmp_path / "few.jsonl", passages[:9]), "--reference", real)
    assert code == 2
    assert "9 documents beside 4000 of" in err


def test_gaps_says_so_where_no_seed_can_begin_from_what_lacks(
    passages: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = written(tmp_path / "real.jsonl", passages[400:])
    own = written(tmp_path / "own.jsonl", [re.sub(r"\bwas\b", "is", text) for text in passages[:400]])
    code, out, _ = called(capsys, "gaps", own, "--reference", real, "--out", str(tmp_path / "seeds.jsonl"))
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line.endswith("%")] == ["was"]
    assert out.splitlines()[-1].startswith("no seeds: what is lacking is what any text may have")
    assert not (tmp_path / "seeds.jsonl").exists()


def test_the_readme_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (PROJECT / "README.md").read_text()
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # it is a group
    missing = [name for name in commands if f"stillhouse {name}" not in readme]
    assert len(commands) > 15
    assert missing == []
