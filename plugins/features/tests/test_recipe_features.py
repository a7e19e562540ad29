"""Features in a recipe: the filter drops samples that lack what their seed asks for, and the report shows coverage and gaps."""

import json
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
from plugins.features.tests.conftest import write_texts


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
