"""`features`, `feature-gaps` and `select`, from the command line."""

import json
import re
from pathlib import Path

import pytest

from plugins.features.tests.conftest import write_rows, write_texts
from tests.flows.commands.test_commands import called

BRACKETS = re.compile(r"[()]")


def test_lost_brackets_are_a_gap_of_features_with_marked_passages_and_seeds(
    folder: Path, dictionary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds, page = tmp_path / "seeds.jsonl", tmp_path / "gaps.html"
    words = [str(folder / "poor.jsonl"), "--reference", str(folder / "real.jsonl")]
    by_features = ["feature-gaps", *words, "--features", dictionary]
    code, out, err = called(capsys, *by_features, "--out", str(seeds), "--page", str(page), "-n", "10", "--json")
    assert code == 0, err
    report = json.loads(out)
    first = report["gaps"][0]
    assert first["here"] <= 0.5 * first["real"]
    for passage in first["passages"]:
        marked = "".join(passage["text"][max(0, a - 2) : b + 2] for a, b in passage["marks"])
        assert BRACKETS.search(marked), passage
    rows = [json.loads(line) for line in seeds.read_text().splitlines()]
    assert 1 <= len(rows) == report["seeds"] <= 10
    assert all(row["topic"] and row["words"] and row["feature"]["threshold"] > 0 for row in rows)
    assert sum("(" in row["text"] for row in rows) >= 0.8 * len(rows)
    # The other passages of a seed show the same feature, and are not its own.
    others = [row["examples"].split("\n\n") for row in rows]
    assert sum("(" in text for texts in others for text in texts) >= 0.8 * sum(map(len, others))
    assert all(len(texts) == 2 and row["text"] not in texts for row, texts in zip(rows, others, strict=True))
    assert "<mark>" in page.read_text()
    assert "http" not in page.read_text().replace("http-equiv", "")
    # Words do not show it.
    code, out, _ = called(capsys, "gaps", *words, "--json")
    assert (code, json.loads(out)["words"]) == (0, [])
    # The dataset compared with more of its own kind has none, and the same command prints the next one.
    same = write_rows(tmp_path / "same.jsonl", write_texts(120, 3, brackets=True))
    code, out, _ = called(capsys, "feature-gaps", same, *by_features[2:])
    assert code == 0
    assert "no gaps measurable at this size" in out
    assert "random dictionary, the same test: no gap" in out


def test_select_covers_more_features_than_random_rows(
    folder: Path, dictionary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*write_texts(60, 4, brackets=False), *write_texts(4, 5, brackets=True)]
    source, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "chosen.jsonl"
    words = ["select", source, "--rows", "3", "--features", dictionary, "--out", str(out)]
    code, printed, err = called(capsys, *words, "--json")
    assert code == 0, err
    shares = {selection["selection"]: selection for selection in json.loads(printed)["selections"]}
    assert shares["features"]["features"] > shares["random rows of equal lengths"]["features"]
    assert shares["features"]["features"] > shares["random rows"]["features"] + 0.05
    assert shares["word types"]["word_types"] > shares["random rows"]["word_types"] + 0.05
    chosen = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(chosen) == 3
    assert [row["n"] for row in chosen] == sorted(row["n"] for row in chosen)
    assert all(rows[row["n"]] == row["text"] for row in chosen)
    code, _, err = called(capsys, *words)
    assert code == 2
    assert "exists already; name another file" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["feature-gaps", "REAL", "--reference", "REAL"], "Missing option '--features'"),
        (
            ["feature-gaps", "REAL", "--reference", "REAL", "--features", "nowhere"],
            "nowhere: is no feature dictionary (cfg.json is missing)",
        ),
        (["features", "missing.jsonl", "--out", "OUT"], "missing.jsonl: is not there"),
        (["features", "REAL", "--out", "OUT", "--set", "latent=9"], "latent: unknown key, did you mean `latents`?"),
        (["features", "REAL", "--out", "OUT", "--set", "k=64", "--set", "latents=32"], "k must be below latents (32)"),
        (["features", "REAL", "--out", "OUT", "--from", "nowhere"], "--from nowhere: is not there; give a folder"),
        (["features", "REAL", "--out", "OUT", "--set", 'model="/nowhere"'], "model: transformers cannot"),
        (
            ["select", "REAL", "--rows", "999", "--features", "x", "--out", "OUT"],
            "has 120 rows; select fewer than it has",
        ),
    ],
)
def test_each_mistake_is_one_sentence(
    words: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"REAL": str(folder / "real.jsonl"), "OUT": str(tmp_path / "out")}
    code, out, err = called(capsys, *(names.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert sentence in err
    assert not (tmp_path / "out").exists()
