"""Features in a recipe: the filter drops samples that lack what their seed asks for, and the report shows coverage and gaps."""

import json
import re
from pathlib import Path

import pytest

from core.errors import RecipeError, RunFailed, UsageError
from core.plugins import locate_data
from core.runs.run_dir import RunDir
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from flows.recipes.recipe_catalog import validate_recipe
from flows.report.pages import create_page_environment
from flows.run.run_preparation import prepare_run
from plugins.features.feature_dictionary import open_dictionary
from plugins.features.hooks import NAME, SEEDS_FILE, TEMPLATES, measure_run_features, read_run_gaps
from plugins.features.requested_features import FeaturesFilter
from plugins.features.tests.conftest import write_rows, write_texts
from tests.flows.commands.test_commands import called


def test_a_run_shows_coverage_next_to_real_text_and_its_seeds_are_checked(dictionary: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    poor = [" ".join(["tea"] * (8 + number % 8)) + "." for number in range(80)]
    real = write_texts(160, 7, brackets=True)
    record = measure_run_features(run, poor, real, "real.jsonl", Path(dictionary), lambda _message: None)
    assert record
    assert record.coverage < record.reference
    assert record.gaps >= 1
    report = read_run_gaps(run)
    assert report
    seed = json.loads((locate_data(run.path, NAME) / SEEDS_FILE).read_text().splitlines()[0])
    assert seed["feature"]["id"] in {gap.feature for gap in report.gaps}

    # The filter: the real passage shows the feature, a text without brackets does not, and other seeds ask for nothing.
    config = FeaturesFilter(type="features", dictionary=dictionary)
    measure = config.open_meter(tmp_path)
    row = {"seed": json.dumps({"id": "r-000000", "data": seed})}
    documents = [measure(row, Document("a", seed["text"])), measure(row, Document("b", poor[0]))]
    documents.append(measure({"seed": json.dumps({"id": "r-000001", "data": {}})}, Document("c", poor[0])))
    result = apply_filters(documents, [config])
    assert [document.id for document in result.kept] == ["a", "c"]
    assert [(drop.id, drop.reason.value) for drop in result.dropped] == [("b", "uncovered")]
    other = {**seed, "feature": {**seed["feature"], "dictionary": "other"}}
    with pytest.raises(RunFailed, match="is of another dictionary than"):
        measure({"seed": json.dumps({"id": "r-000002", "data": other})}, Document("d", poor[0]))

    # The report's part: text of the reference is escaped, and earlier generations come before this one.
    parts = create_page_environment(TEMPLATES).get_template("features.html").module
    earlier = {"0": record.model_copy(update={"coverage": 0.25})}
    shown = parts.coverage(record, earlier) + parts.gaps(report, report.gaps[:2], 2)  # type: ignore[attr-defined]
    assert shown.index("generation 0") < shown.index("this run") < shown.index("as much real text")
    assert "25 %" in shown
    assert "<mark>" in shown


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dictionary": "other"}, r"the seed's feature is of another dictionary than .*, 'other'; name the one"),
        ({"id": "3"}, r"not one that `stillhouse feature-gaps` wrote \(id: Input should be a valid integer\); rename"),
        ({"id": True}, r"\(id: Input should be a valid integer\)"),
        ({"id": 128}, r"\(id: the dictionary has 128 latents\)"),
        ({"threshold": "high"}, r"\(threshold: Input should be a valid number\)"),
        ({"threshold": -1}, r"\(threshold: Input should be greater than 0\)"),
        ("dark mode", r"`feature` is 'dark mode', not one .* \(it must be an object\); rename that column"),
    ],
)
def test_seeds_that_ask_for_no_feature_of_the_dictionary_are_refused_before_a_run(
    change: dict[str, object] | str, sentence: str, dictionary: str, tmp_path: Path
) -> None:
    feature = {"id": 3, "threshold": 2.5, "dictionary": open_dictionary(Path(dictionary)).digest}
    wrong = {**feature, **change} if isinstance(change, dict) else change
    seeds, runs = tmp_path / "seeds.jsonl", tmp_path / "runs"
    settings = [f"seeds.path={seeds}", f"filters=[{{type='features', dictionary='{dictionary}'}}]"]

    def write_seeds(*features: object) -> None:
        columns = [{}, {"feature": None}, *({"feature": one} for one in features)]
        rows = [{"topic": "tea", "words": ["tea", "cup"], **column} for column in columns]
        seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write_seeds(feature, wrong)
    sentence = f"seeds.jsonl:4: .*{sentence}"
    with pytest.raises(UsageError, match=sentence):
        prepare_run("smoke", settings, str(runs), resume=False)
    assert not runs.exists()
    with pytest.raises(RecipeError, match=sentence):
        validate_recipe("smoke", settings)
    # The same columns are free in recipes without the filter, and a feature of the dictionary is accepted.
    assert len(validate_recipe("smoke", settings[:1]).seeds.rows) == 4
    write_seeds(feature)
    assert len(validate_recipe("smoke", settings).seeds.rows) == 3
    assert prepare_run("smoke", settings, str(runs), resume=False).run.path.is_dir()


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
