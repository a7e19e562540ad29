import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from agents.topologies.topology_graphs import TOPOLOGY_BUILDERS
from core.intervals import IntervalEstimate, estimate_ratio, estimate_share
from core.sample import Candidate, SampleStatus, Seed, Spending
from flows.commands.app import app
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.study.topology_comparison import (
    build_study_report,
    cost_per_kept,
    count_samples_needed,
    format_study_report,
)
from plugins.study.topology_study import (
    BASELINE_TOPOLOGY,
    TOPOLOGY_KINDS,
    StudyOutcome,
    TopologyStudy,
    TopologyTrial,
    build_study,
    find_problem_fault,
    run_trial,
)

SEED = Seed(id="study000-000000", data={"story": "a zoo", "steps": "2 steps: first multiply, then subtract"})
RIGHT: dict[str, Any] = {
    "problem": "This is about a zoo. There are 6 eggs. Then there are 8 times as many. Then 19 are taken away. "
    "How many eggs are there in the end?",
    "solution": "Start with 6. 6 * 8 = 48. 48 - 19 = 29. So there are 29.",
    "expression": "((6 * 8) - 19)",
    "answer": 29.0,
}

SOLVERS = "verifiers=[{type='agreement',votes=3}]"


def study(rates: str = "", samples: int = 40, tokens: int | None = None, *overrides: str) -> TopologyStudy:
    return build_study(
        load_recipe_plan("topology-study", [SOLVERS, f"teachers.main.extra={{{rates}}}", *overrides]), samples, tokens
    )


def trials(made: TopologyStudy, *kinds: str) -> list[TopologyTrial]:
    async def run() -> list[TopologyTrial]:
        return [await run_trial(made, kind, threading.Event()) for kind in kinds or TOPOLOGY_KINDS]

    return asyncio.run(run())


# The ground truth


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"answer": 30.0}, "contradiction"),
        ({"solution": "Start with 6. 6 * 8 = 48. 48 - 19 = 29. So there are 31."}, "contradiction"),
        ({"solution": "Start with 6. 6 * 8 = 49. 49 - 19 = 30. So there are 30."}, "contradiction"),
        ({"expression": "((6 * 8) - 18)"}, "drift"),
        ({"solution": "Start with 7. 7 * 8 = 56. 56 - 19 = 37. So there are 37.", "expression": "((7 * 8) - 19)",
          "answer": 37.0}, "drift"),
        ({"problem": RIGHT["problem"].replace("There are 6", "There are 9")}, "drift"),
        ({"problem": RIGHT["problem"].replace(" 6 eggs", " some eggs")}, "omission"),
        ({"problem": RIGHT["problem"].replace("Then 19 are", "Then some are")}, "omission"),
        ({"problem": RIGHT["problem"].replace(" Then 19 are taken away.", "")}, "omission"),
        ({"solution": "Start with 6. 48 - 19 = 29. So there are 29."}, "omission"),
        ({"problem": RIGHT["problem"].replace("a zoo", "a circus")}, "miscoordination"),
        ({"problem": RIGHT["problem"].replace("19 are taken away", "19 more come"), "expression": "((6 * 8) + 19)",
          "solution": "Start with 6. 6 * 8 = 48. 48 + 19 = 67. So there are 67.", "answer": 67.0}, "miscoordination"),
        ({"expression": "((6 * 8) - )"}, "drift"),
    ],
)  # fmt: skip
def test_the_ground_truth_finds_the_fault(changed: dict[str, Any], fault: str | None) -> None:
    assert find_problem_fault(SEED, Candidate(messages=[], fields={**RIGHT, **changed})) == fault


# The faulty teacher


# The study


def test_without_faults_all_topologies_keep_every_sample_and_no_error() -> None:
    made = study("", 30)
    report = build_study_report(made, trials(made))
    assert [row.topology for row in report.rows] == list(TOPOLOGY_KINDS)
    assert set(TOPOLOGY_KINDS) == set(TOPOLOGY_BUILDERS)
    for row in report.rows:
        assert (row.samples, row.kept, row.wrong) == (30, 30, 0)
        assert row.error_rate
        assert row.error_rate.value == 0
        assert row.amplification is None, "nothing to compare with"
    calls = [row.calls_per_kept.value for row in report.rows if row.calls_per_kept]
    assert calls == [1, 5, 6, 5], "a draft; critic and three solvers; three debaters, twice; nothing is revised"


@pytest.mark.parametrize("kind", TOPOLOGY_KINDS)
def test_no_topology_spends_more_than_its_budget_and_each_begins_at_the_first_seed(kind: str) -> None:
    [trial] = trials(study("drift=0.1,omission=0.1", 500, 30_000), kind)
    assert 20_000 < trial.spent.tokens <= 30_000
    assert 8 <= len(trial.outcomes) < 500
    assert trial.outcomes[0].number == 0
    assert trial.outcomes[-1].number < len(trial.outcomes) + 12, "all but some of the last that were begun"


# The numbers


def trial(kind: str, right: int, wrong: int, dropped: int) -> TopologyTrial:
    ends = (
        [(SampleStatus.kept, None)] * right
        + [(SampleStatus.kept, "drift")] * wrong
        + [(SampleStatus.dropped, None)] * dropped
    )
    outcomes = [StudyOutcome(i, state, fault, 2, 100) for i, (state, fault) in enumerate(ends)]
    return TopologyTrial(kind, outcomes, Spending(calls=2 * len(ends), prompt_tokens=100 * len(ends)))


def test_amplification_is_one_for_a_single_agent_and_a_ratio_of_error_rates_for_the_others() -> None:
    made = study()
    report = build_study_report(made, [trial(BASELINE_TOPOLOGY, 80, 20, 0), trial("centralized", 76, 4, 20)])
    single, centralized = report.rows
    assert single.amplification == IntervalEstimate(value=1, low=1, high=1)
    assert centralized.amplification
    assert centralized.amplification.value == pytest.approx(0.05 / 0.2)
    assert centralized.kept_share
    assert centralized.kept_share.value == 0.8
    assert centralized.calls_per_kept
    assert centralized.calls_per_kept.value == pytest.approx(2 / 0.8)
    assert centralized.amplification_by["drift"] == centralized.amplification
    assert build_study_report(made, [trial("centralized", 76, 4, 20)]).rows[0].amplification is None
    assert (
        "| centralized | 100 | 80 | 80.0 % (71.1 % to 86.7 %) | 5.0 % (2.0 % to 12.2 %) | 0.25 "
        in format_study_report(report)
    )


def test_the_samples_that_would_tell_are_enough_in_four_of_five_studies() -> None:
    small = build_study_report(study(), [trial(BASELINE_TOPOLOGY, 19, 21, 0), trial("centralized", 14, 11, 15)])
    needed = count_samples_needed(small.rows[1])
    assert needed
    assert f"includes 1, so nothing is certain. About {needed:,} samples" in format_study_report(small)
    assert count_samples_needed(small.rows[0]) is None
    rng = np.random.default_rng(3)
    tells = {}
    for share in (1, 4):
        number, found = needed // share, 0
        for _ in range(1000):
            ratio = estimate_ratio(
                int(rng.binomial(number * 25 // 40, 11 / 25)),
                number * 25 // 40,
                int(rng.binomial(number, 21 / 40)),
                number,
            )
            found += ratio is not None and not ratio.low < 1 < ratio.high
        tells[share] = found / 1000
    assert abs(tells[1] - 0.8) < 0.06, "4.7 standard errors"
    assert tells[4] < 0.4, "control: a quarter of them does not tell"


@pytest.mark.parametrize(
    ("counts", "value", "low", "high"),
    [
        ((15, 100, 30, 100), 0.5, 0.2872, 0.8704),
        ((0, 100, 30, 100), 0.0, 0.0, 0.2648),
        ((10, 10, 10, 10), 1.0, 1.0, 1.0),
    ],
)
def test_a_ratio_has_the_interval_of_katz(counts: tuple[int, ...], value: float, low: float, high: float) -> None:
    found = estimate_ratio(*counts)
    assert found
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), abs=1e-3)
    assert estimate_ratio(counts[0], counts[1], 0, counts[3]) is None


def covered(truth: float, found: list[IntervalEstimate | None]) -> float:
    return sum(bool(one and one.low <= truth <= one.high) for one in found) / len(found)


def test_intervals_have_their_nominal_coverage() -> None:
    rng = np.random.default_rng(7)
    ones, others = rng.binomial(400, 0.05, 1000), rng.binomial(400, 0.15, 1000)
    assert 0.93 < covered(0.05, [estimate_share(int(hits), 400) for hits in ones]) < 0.975
    ratios = [estimate_ratio(int(a), 400, int(b), 400) for a, b in zip(ones, others, strict=True)]
    assert 0.93 < covered(0.05 / 0.15, ratios) < 0.975
    costs, kept = rng.integers(1, 6, (100, 100)), rng.random((100, 100)) < 0.7
    found = [cost_per_kept(list(map(int, c)), list(map(bool, k)), 7) for c, k in zip(costs, kept, strict=True)]
    assert covered(3 / 0.7, found) > 0.88


# The command


def test_the_command_prints_the_table_and_saves_the_numbers(tmp_path: Path) -> None:
    out = tmp_path / "study.json"
    args = ["study", "topology-study", "--samples", "20", "--topologies", "single,centralized", "--out", str(out), "-q"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert "| single | 20 | 20 |" in done.output
    saved = json.loads(out.read_text())
    assert [row["topology"] for row in saved["rows"]] == ["single", "centralized"]
    assert (saved["tokens"], saved["truth"]) == (40_000_000, ["oracle"])
    assert json.loads(CliRunner().invoke(app, [*args, "--json"]).stdout) == saved, "the same seeds, the same numbers"
