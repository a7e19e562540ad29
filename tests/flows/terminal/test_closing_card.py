"""The card at the end of `run`: what a stranger reads, in at most 17 lines."""

from pathlib import Path
from typing import Any

import pytest

from core.intervals import IntervalEstimate, estimate_paired_difference, estimate_share
from core.runs.records import RunInvocation, RunManifest, RunState
from core.runs.run_dir import RunDir
from core.runs.student_records import (
    EvaluationRecord,
    GeneralPanelRecord,
    ModelPassRecord,
    PairedComparison,
    PanelModelRecord,
)
from flows.terminal import run_summary
from flows.terminal.run_summary import format_closing_card
from flows.terminal.text_format import say
from tests.flows.report.test_run_report import HOSTILE, manifest, sample

REQUESTS = 40


def compared(role: str, both: int, student_only: int, other_only: int) -> PairedComparison:
    cells = (both, student_only, other_only, REQUESTS - both - student_only - other_only)
    difference = estimate_paired_difference(*cells)
    assert difference is not None
    return PairedComparison(
        role=role, both=both, student_only=student_only, other_only=other_only, neither=cells[3], difference=difference
    )


def evaluated(**passed: int) -> list[ModelPassRecord]:
    rates = {role: estimate_share(count, REQUESTS) for role, count in passed.items()}
    return [
        ModelPassRecord(role=role, model=role, passed=passed[role], pass_rate=rate)
        for role, rate in rates.items()
        if rate is not None
    ]


EVALUATION = EvaluationRecord(
    student_digest="x",
    requests=REQUESTS,
    first_seed=300,
    type="q8_0",
    models=evaluated(teacher=3, student=16, start=1),
    comparisons=[compared("teacher", 1, 15, 2), compared("start", 0, 16, 1)],
)


PANEL = GeneralPanelRecord(
    tasks=64,
    groups={"constraints": 32, "reasoning": 32},
    questions=12,
    models=[
        PanelModelRecord(
            role=role, passed=passed, pass_rate=IntervalEstimate(value=passed / 64, low=low, high=high), words=words,
            passed_by_group={"constraints": passed - 9, "reasoning": 9},
        )
        for role, passed, low, high, words in (
            ("teacher", 30, 0.352, 0.589, 90), ("student", 19, 0.2, 0.417, 24), ("start", 31, 0.367, 0.604, 96)
        )
    ],
    comparison=PairedComparison(
        role="start", both=17, student_only=2, other_only=14, neither=31,
        difference=IntervalEstimate(value=-0.1875, low=-0.303, high=-0.063),
    ),
    divergence=IntervalEstimate(value=0.412, low=0.31, high=0.52),
)  # fmt: skip


def card_of(tmp_path: Path, m: RunManifest, **more: Any) -> list[str]:
    run = RunDir(tmp_path / m.run)
    run.dataset.mkdir(parents=True, exist_ok=True)
    run.report_file.write_text("")
    samples = more.get("samples", [sample("a", text="Bees fly far. " * 20), sample("b", text="Bees hum."), sample("c")])
    return format_closing_card(m, run, samples, m.run, str(tmp_path)).splitlines()


@pytest.fixture(autouse=True)
def has_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_summary, "find_part", lambda kind, name: (kind, name) == ("command", "chat"))


def test_a_finished_run_fits_in_15_lines_of_100_columns(tmp_path: Path) -> None:
    lines = card_of(tmp_path, manifest(evaluation=EVALUATION))
    assert len(lines) == 15
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
    labels = [line[2:12].strip() for line in lines[1:-1]]
    assert labels == [
        "asked", "", "asked", "", "funnel", "held out", "teacher", "start", "student", "verdict", "dataset",
        "page", "more",
    ]  # fmt: skip
    assert lines[-1] == f"next: stillhouse chat {manifest().run} --runs-dir {tmp_path}"
    assert lines[-2].endswith(f"stillhouse show {manifest().run} --runs-dir {tmp_path}")


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.09, -0.03, "loses 3 to 9 points"),
        (-0.09, -0.001, "loses up to 9 points"),
        (-0.05, 0.05, "no certain loss (-5 to +5 points)"),
        (0.0, 0.0, "no certain loss (+0 to +0 points)"),
        (0.02, 0.11, "gains 2 to 11 points"),
    ],
)
def test_a_loss_is_stated_by_its_interval(low: float, high: float, words: str) -> None:
    assert PANEL.comparison
    found = IntervalEstimate(value=(low + high) / 2, low=low, high=high)
    assert say("general_loss", PANEL.comparison.model_copy(update={"difference": found})) == words


def test_the_models_are_compared_with_their_intervals(tmp_path: Path) -> None:
    text = "\n".join(card_of(tmp_path, manifest(evaluation=EVALUATION)))
    assert "held out  40 requests that no sample used; answers that pass every check (95 % interval):" in text
    assert "3 of 40    8 % (3 % to 20 %)   student +32 points (+14 to +49): better" in text
    assert "1 of 40    2 % (1 % to 13 %)   student +38 points (+19 to +53): better" in text
    assert "16 of 40   40 % (26 % to 55 %)" in text


def test_a_run_with_less_than_was_asked_for_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    short = manifest(
        state=RunState.partial, shortfalls=["only 12 of 30 samples were kept"], remedy="resume",
        invocation=RunInvocation(recipe="smoke", folder="/x"),
    )  # fmt: skip
    lines = card_of(tmp_path, short)
    assert lines[1] == "  missing   only 12 of 30 samples were kept"
    assert lines[-1] == f"next: stillhouse run smoke --runs-dir {tmp_path} --resume"


def test_text_of_teachers_cannot_move_the_cursor(tmp_path: Path) -> None:
    hostile = sample("h", text=HOSTILE + "\x1b[2J\nsecond line")
    text = "\n".join(card_of(tmp_path, manifest(), samples=[hostile]))
    assert "\x1b" not in text
    assert len(text.splitlines()) <= 15
