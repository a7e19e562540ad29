"""Whether a step narrows its data: simulated rows with a planted bias and with random drops; and the selection of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import GateNotMet, UsageError
from core.intervals import IntervalEstimate
from core.runs.run_dir import RunDir
from filters.base import Document
from filters.collapse.collapse_metrics import LanguageModel
from filters.collapse.diversity import TokenSample
from filters.collapse.matched_samples import TokenCorpus
from flows.release.release_creation import create_release
from plugins.ablation.hooks import NAME
from plugins.ablation.run_selection import JudgedRow, list_steps, measure_run_selection
from plugins.ablation.selection import (
    Bools,
    Ints,
    NarrowingRecord,
    SelectionRecord,
    SelectionStep,
    SelectionStepRecord,
    compare_steps,
    describe_narrowing,
)
from tests.flows.commands.test_commands import called
from tests.support.lineages import make_run

ROWS, WORDS, TOPICS = 300, 3_000, 30


def write_rows(rng: np.random.Generator) -> tuple[TokenSample, Ints]:
    """Rows of 10 to 30 words by Zipf's law, of which a part that differs from row to row is of the row's topic."""
    shares = 1 / np.arange(1, WORDS + 1)
    lengths, topics = rng.integers(10, 31, ROWS), rng.integers(0, TOPICS, ROWS)
    owner = np.repeat(np.arange(ROWS), lengths)
    ids = rng.choice(WORDS, len(owner), p=shares / shares.sum())
    own = rng.random(len(owner)) < rng.uniform(0, 0.8, ROWS)[owner]
    ids[own] = (ids[own] * 7 + 97 * (1 + topics[owner][own])) % WORDS
    return TokenSample(ids, lengths), topics


def keep_likely(rng: np.random.Generator, rows: TokenSample, count: int) -> Bools:
    """The rows that a tenth of them makes most likely, per word."""
    corpus = TokenCorpus(rows.ids, np.cumsum(rows.lengths) - rows.lengths, rows.lengths)
    part = rng.permutation(ROWS)[: ROWS // 10]
    seen = corpus.take_sample(part, rows.lengths[part])
    surprise = LanguageModel.fit(seen.ids, seen.lengths).negative_log_likelihood(rows.ids, rows.lengths)
    return np.argsort(np.argsort(surprise)) < count


def drop_at_random(rng: np.random.Generator, reached: Bools, count: int) -> Bools:
    kept = np.zeros(len(reached), dtype=bool)
    kept[rng.permutation(np.flatnonzero(reached))[:count]] = True
    return kept


def build_check(kept: Bools, reached: Bools | None = None) -> SelectionStep:
    return SelectionStep("likely", "check", np.ones(len(kept), dtype=bool) if reached is None else reached, kept)


@pytest.mark.slow
def test_a_check_that_keeps_what_is_likely_is_found_and_a_random_drop_is_not() -> None:
    """In at least 19 of 20 trials, and in at most 1 of 40."""
    rng, found, alarms = np.random.default_rng(11), 0, 0
    for trial in range(40):
        rows, topics = write_rows(rng)
        if trial < 20:
            (biased,) = compare_steps(rows, topics, [build_check(keep_likely(rng, rows, 200))], trial)
            found += "words" in {one.measure for one in biased.narrowing}
        everything = np.ones(ROWS, dtype=bool)
        (equal,) = compare_steps(rows, topics, [build_check(drop_at_random(rng, everything, 200))], trial)
        alarms += bool(equal.narrowing)
    assert found >= 19
    assert alarms <= 1


def test_many_random_steps_are_rarely_called_narrowing_and_one_biased_step_among_them_is() -> None:
    """A run of six steps: the correction holds for all their measures together."""
    rng, alarms, found = np.random.default_rng(12), 0, 0
    for trial in range(12):
        rows, topics = write_rows(rng)
        likely = keep_likely(rng, rows, 200)
        steps = [build_check(likely)]
        for kept in (180, 160, 140, 120, 100):
            reached = steps[-1].kept
            steps.append(SelectionStep("random", "check", reached, drop_at_random(rng, reached, kept)))
        biased, *random = compare_steps(rows, topics, steps, trial)
        found += bool(biased.narrowing)
        alarms += any(step.narrowing for step in random)
    assert found >= 11
    assert alarms <= 1


def test_the_measures_of_a_known_selection() -> None:
    """Twenty rows of one topic and twenty of another: a step that drops all of one topic."""
    first, second = np.tile([0, 1, 2], 20), np.concatenate([[3, 4, 5 + k] for k in range(20)])
    rows = TokenSample(np.concatenate([first, second]), np.full(40, 3))
    topics = np.repeat([0, 1], 20)
    (step,) = compare_steps(rows, topics, [build_check(topics == 0)], 0)
    found = {one.measure: one for one in step.measures}
    assert found.keys() == {"rare words", "words", "topics", "openings"}, "all lengths are equal"
    assert found["rare words"].removed == 1, "the last word of each row of the second topic"
    assert found["words"].removed == 22 / 25
    assert found["topics"].removed == pytest.approx(0.5)
    random = found["rare words"].random
    assert random.low < random.value == pytest.approx(0.5, abs=0.02)
    assert random.value < random.high
    assert [one.measure for one in step.narrowing] == ["rare words", "words", "topics", "openings"]


def test_few_rows_are_not_compared() -> None:
    rows, topics = write_rows(np.random.default_rng(13))
    (step,) = compare_steps(rows, topics, [build_check(np.arange(ROWS) >= 9)], 0)
    assert (step.rows, step.kept, step.measures) == (ROWS, ROWS - 9, [])


def judge(verdicts: dict[str, bool], accepted: bool | None = None, dropped_by: str | None = None) -> JudgedRow:
    kept = all(verdicts.values()) and accepted is True and dropped_by is None
    return JudgedRow(Document("x", "a"), None, verdicts, accepted, dropped_by, kept)


def test_a_step_saw_what_the_steps_before_it_kept() -> None:
    rows = [
        judge({"first": False}),
        judge({"first": True, "second": False}),
        judge({"first": True, "second": True}, accepted=False),
        judge({"first": True, "second": True}, accepted=True, dropped_by="exact"),
        judge({"first": True, "second": True}, accepted=True, dropped_by="quality"),
        judge({"first": True, "second": True}, accepted=True),
    ]
    steps = list_steps(rows, ["exact", "unused", "quality"])
    assert [(step.name, step.reached.sum(), step.kept.sum()) for step in steps] == [
        ("first", 6, 5), ("second", 5, 4), ("the critic", 4, 3), ("exact", 3, 2), ("quality", 2, 1),
        ("the whole selection", 6, 1),
    ]  # fmt: skip


def build_step(*measures: str, words: tuple[float, float] = (20, 21)) -> SelectionStepRecord:
    random = IntervalEstimate(value=0.12, low=0.1, high=0.14)
    found = [NarrowingRecord(measure=name, removed=0.31, random=random, p=0, narrows=True) for name in measures]
    return SelectionStepRecord(
        name="sound_prose",
        kind="check",
        rows=500,
        kept=400,
        words_kept=words[0],
        words_dropped=words[1],
        measures=found,
    )


def test_the_sentence_of_a_step() -> None:
    whole = "`sound_prose` removes 31 % of the rare words; a random drop of as many rows 12 % (10 to 14)"
    assert describe_narrowing(build_step("rare words")) == whole
    more = "; words, topics narrow too; the rows that it drops have 30 words, those that it keeps 20"
    assert describe_narrowing(build_step("rare words", "words", "topics", words=(20, 30))) == whole + more


@pytest.mark.parametrize(
    ("gated", "measure", "refused"), [(True, "words", 1), (True, "lengths", 0), (False, "words", 0)]
)
def test_lengths_alone_refuse_nothing(gated: bool, measure: str, refused: int) -> None:
    record = SelectionRecord(candidates=500, kept=400, gated=gated, steps=[build_step(measure)])
    assert (len(record.sentences), len(record.refusals)) == (1, refused)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    settings = ("samples=60", "student=false", "collapse.gate=false", "selection.gate=true")
    return make_run(tmp_path_factory.mktemp("selected") / "runs", *settings)


def test_a_run_records_and_shows_its_selection(gated: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    record = gated.read_manifest().get(NAME, SelectionRecord)
    assert record
    assert record.kept == gated.read_manifest().counts.kept
    assert [step.kind for step in record.steps][-1] == "all"
    assert {"check", "critic"} <= {step.kind for step in record.steps}
    assert "What selection removed" in gated.report_file.read_text()
    words = ("selection", gated.name, "--runs-dir", str(gated.path.parent))
    code, out, _ = called(capsys, *words, "--json")
    assert code == 0
    assert SelectionRecord.model_validate_json(out) == record
    assert "random drops of as many rows" in called(capsys, *words)[1]


def test_the_gate_refuses_a_run_with_a_step_that_narrows_until_it_is_off(
    gated: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = gated.read_manifest()
    record = manifest.get(NAME, SelectionRecord)
    assert record
    manifest.put(NAME, record.model_copy(update={"steps": [build_step("rare words")]}))
    gated.write_manifest(manifest)
    code, _, err = called(capsys, "release", gated.name, "--runs-dir", str(gated.path.parent))
    assert code == GateNotMet.exit_code
    assert "`sound_prose` removes 31 % of the rare words" in " ".join(err.split())
    assert "turn the gate off (`selection.gate = false`" in " ".join(err.split())
    settings = ("samples=60", "student=false", "collapse.gate=false", "selection.gate=false")
    again = make_run(gated.path.parent, *settings, resume=True)
    assert again.path == gated.path, "the gate is no part of the run's identity"
    assert create_release(again).release.manifest.run.get(NAME, SelectionRecord)


def test_a_run_without_the_section_is_measured_on_demand_only(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "student=false")
    assert NAME not in run.read_manifest().plugins
    assert measure_run_selection(run, run.read_recipe()).candidates > 0


def test_a_run_without_a_candidate_is_refused(tmp_path: Path) -> None:
    run: Any = make_run(tmp_path / "runs", "student=false")
    for file in run.path.rglob("0*.parquet"):
        file.unlink()
    with pytest.raises(UsageError, match="has no candidate with a word yet"):
        measure_run_selection(run, run.read_recipe())
