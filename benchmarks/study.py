"""The topology study: (a) faults put into a scripted teacher at a known rate, (b) the embedded teacher.

    python -m benchmarks.study [injected|embedded] [--samples N]

Ground truth is what no agent uses: in (a) an oracle that recomputes every problem, in (b) checks that are held out.
"""

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from agents.study import KINDS, Study, study_of
from benchmarks.machine import measured_on
from core.recipe import PROJECT
from core.run import versions
from core.shares import ratio
from flows.recipes import load
from flows.session import SESSION
from flows.study import StudyReport, TopologyRow, study_report, study_text

INJECTED, SENSITIVITY = 10_000, 2_000
"""Samples for each topology in (a), and in each line of its second table."""
EMBEDDED = 150
"""In (b): about 1,800 calls of the embedded teacher in all."""
EMBEDDED_TOKENS = 2_000_000
HELD_OUT = ("on_topic", "sound_prose")
CLASSES = ("contradiction", "drift", "omission", "miscoordination")
RATES = (0.05, 0.3)
ONE_SOLVER = "verifiers=[{type='agreement',solutions=1,agree=1}]"
SOLVERS = "verifiers=[{type='agreement',solutions=3,agree=2}]"
BOTH = "verifiers=[{type='expression'},{type='agreement',solutions=3,agree=2}]"
GOALS = """Set before any study, at the recipe's rate of faults: amplification of `centralized` below 0.25, {small}; at least 4
times less than that of `independent`, {less}; for no more than 3 times the calls of `single`, {calls}."""


def measured(study: Study, kinds: Sequence[str] = KINDS) -> StudyReport:
    return asyncio.run(study_report(study, kinds, SESSION))


def injected(samples: int = INJECTED, fewer: int = SENSITIVITY) -> str:
    """Part (a) as Markdown."""
    began = time.monotonic()
    plan = load("topology-study")
    report = measured(study_of(plan, samples))
    single = report.row("single")
    assert single is not None
    tight = measured(study_of(plan, samples, single.tokens_spent))
    with tempfile.TemporaryDirectory() as folder:
        others = {**_rates(), **_other_agents(Path(folder))}
        lines = [_line(name, _varied(settings, fewer)) for name, settings in others.items()]
    took = f"All of it took {(time.monotonic() - began) / 60:.0f} minutes."
    return "\n\n".join(
        [
            _machine(),
            study_text(report),
            _goals(report),
            TIGHT,
            _table(tight),
            OTHERS.format(fewer=fewer),
            _others(lines),
            took,
        ]
    )


TIGHT = """The same, each topology with the tokens that `single` took for its samples above. A topology's last samples are
cut off by the end of its budget."""
OTHERS = """Other rates and other agents, {fewer:,} samples each of the same seeds: amplification, and calls for a kept sample."""


def _rates() -> dict[str, list[str]]:
    """Settings of the recipe by what they are called: faults in another share of all replies."""
    return {
        f"faults in {rate:.0%} of the replies".replace("%", " %"): [
            f"teachers.main.faults={{{', '.join(f'{name}={rate / len(CLASSES)}' for name in CLASSES)}}}"
        ]
        for rate in RATES
    }


def _other_agents(folder: Path) -> dict[str, list[str]]:
    """Other agents than the recipe's, at its rate of faults. `folder` gets the prompt of a critic that is not told what was
    asked for.
    """
    prompt = (PROJECT / "prompts" / "arithmetic" / "critic.md").read_text(encoding="utf-8")
    (folder / "critic.md").write_text(re.sub(r"^Asked: .*\n", "", prompt, flags=re.MULTILINE), encoding="utf-8")
    untold = f"prompts={folder}"
    return {
        "no critic": ["agents.critic=false"],
        "the critic is not told the request": [untold],
        "three solvers instead of `expression`": [SOLVERS],
        "three solvers, and the critic is not told": [SOLVERS, untold],
        "one solver instead of `expression`": [ONE_SOLVER],
        "`expression` and three solvers": [BOTH],
    }


def _varied(settings: Sequence[str], samples: int) -> StudyReport:
    study = study_of(load("topology-study", settings), samples)
    can_vote = study.plan.recipe.agents.critic is not None
    return measured(study, [kind for kind in KINDS if can_vote or kind != "independent"])


def _line(name: str, report: StudyReport) -> str:
    return f"| {name} | {' | '.join(_short(report.row(kind)) for kind in KINDS[1:])} |"


def _short(row: TopologyRow | None) -> str:
    if row is None or row.amplification is None or row.calls_per_kept is None:
        return "-"
    return f"{row.amplification.told('{:.2f}'.format)}, {row.calls_per_kept.value:.1f} calls"


def _others(lines: Sequence[str]) -> str:
    return "\n".join([f"| | {' | '.join(KINDS[1:])} |", "|" + "---|" * len(KINDS), *lines])


def _table(report: StudyReport) -> str:
    """The first table of a report, without its caption."""
    return study_text(report).split("\n\n")[1]


def _goals(report: StudyReport) -> str:
    single, independent, centralized = (report.row(kind) for kind in ("single", "independent", "centralized"))
    assert single, "without it there is nothing to compare with"
    assert independent
    assert centralized
    contained = ratio(independent.wrong, independent.kept, centralized.wrong, centralized.kept)
    amplified, calls, base = centralized.amplification, centralized.calls_per_kept, single.calls_per_kept
    assert contained
    assert amplified
    assert calls
    assert base
    times = calls.value / base.value
    return GOALS.format(
        small=_met(amplified.value < 0.25, amplified.told("{:.3f}".format)),
        less=_met(contained.value >= 4, contained.told("{:.2f}".format)),
        calls=_met(times <= 3, f"{times:.2f} times"),
    )


def _met(met: bool, told: str) -> str:
    return f"{'met' if met else 'NOT met'}: {told}"


def embedded(samples: int = EMBEDDED) -> str:
    """Part (b) as Markdown."""
    study = study_of(load("constrained-instructions"), samples, EMBEDDED_TOKENS, HELD_OUT)
    return "\n\n".join([_machine(), study_text(measured(study))])


def _machine() -> str:
    return (
        f"{measured_on()}; stillhouse {versions()['stillhouse']}. Words and formulas: "
        "[docs/topologies.md](../docs/topologies.md)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("injected", "embedded"))
    parser.add_argument("--samples", type=int)
    args = parser.parse_args()
    if args.part == "embedded":
        sys.stdout.write(embedded(args.samples or EMBEDDED) + "\n")
    else:
        samples = args.samples or INJECTED
        sys.stdout.write(injected(samples, min(samples, SENSITIVITY)) + "\n")


if __name__ == "__main__":
    main()
