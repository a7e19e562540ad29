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

from benchmarks.machine import describe_measurement
from core.intervals import estimate_ratio
from core.project_files import PROJECT
from core.runs.run_dir import collect_versions
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import SESSION
from plugins.study.topology_comparison import (
    TopologyResult,
    TopologyStudyReport,
    format_study_report,
    run_topology_study,
)
from plugins.study.topology_study import TOPOLOGY_KINDS, TopologyStudy, build_study

INJECTED, SENSITIVITY = 10_000, 2_000
"""Samples for each topology in (a), and in each line of its second table."""
EMBEDDED = 150
"""In (b): about 1,800 calls of the embedded teacher in all."""
EMBEDDED_TOKENS = 2_000_000
HELD_OUT = ("on_topic", "sound_prose")
CLASSES = ("contradiction", "drift", "omission", "miscoordination")
RATES = (0.05, 0.3)
ONE_SOLVER = "verifiers=[{type='agreement',votes=1}]"
SOLVERS = "verifiers=[{type='agreement',votes=3}]"
BOTH = "verifiers=[{type='expression'},{type='agreement',votes=3}]"
GOALS = """Set before any study, at the recipe's rate of faults: amplification of `centralized` below 0.25, {small}; at least 4
times less than that of `independent`, {less}; for no more than 3 times the calls of `single`, {calls}."""


def run_study(study: TopologyStudy, kinds: Sequence[str] = TOPOLOGY_KINDS) -> TopologyStudyReport:
    return asyncio.run(run_topology_study(study, kinds, SESSION))


def measure_injected(samples: int = INJECTED, fewer: int = SENSITIVITY) -> str:
    """Part (a) as Markdown."""
    began = time.monotonic()
    plan = load_recipe_plan("topology-study")
    report = run_study(build_study(plan, samples))
    single = report.find_row("single")
    assert single is not None
    tight = run_study(build_study(plan, samples, single.tokens_spent))
    with tempfile.TemporaryDirectory() as folder:
        others = {**_list_rate_settings(), **_list_agent_settings(Path(folder))}
        lines = [_format_line(name, _run_varied(settings, fewer)) for name, settings in others.items()]
    took = f"All of it took {(time.monotonic() - began) / 60:.0f} minutes."
    return "\n\n".join(
        [
            _describe_machine(),
            format_study_report(report),
            _format_goals(report),
            TIGHT,
            _extract_table(tight),
            OTHERS.format(fewer=fewer),
            _format_others(lines),
            took,
        ]
    )


TIGHT = """The same, each topology with the tokens that `single` needed for its samples above. A topology's last samples are
cut off by the end of its budget."""
OTHERS = """Other rates and other agents, {fewer:,} samples each of the same seeds: amplification, and calls for a kept sample."""


def _list_rate_settings() -> dict[str, list[str]]:
    """Settings of the recipe by what they are called: faults in another share of all replies."""
    return {
        f"faults in {rate:.0%} of the replies".replace("%", " %"): [
            f"teachers.main.extra={{{', '.join(f'{name}={rate / len(CLASSES)}' for name in CLASSES)}}}"
        ]
        for rate in RATES
    }


def _list_agent_settings(folder: Path) -> dict[str, list[str]]:
    """Other agents than the recipe's, at its rate of faults. `folder` gets the prompt of a critic that is not told what was
    asked for.
    """
    prompt = (PROJECT / "prompts" / "arithmetic" / "critic.md").read_text(encoding="utf-8")
    (folder / "critic.md").write_text(re.sub(r"^Asked: .*\n", "", prompt, flags=re.MULTILINE), encoding="utf-8")
    untold = f"prompts={folder}"
    return {
        "no critic": ["agents.critic=false"],
        "the critic does not see the request": [untold],
        "three solvers instead of `expression`": [SOLVERS],
        "three solvers, and the critic does not see it": [SOLVERS, untold],
        "one solver instead of `expression`": [ONE_SOLVER],
        "`expression` and three solvers": [BOTH],
    }


def _run_varied(settings: Sequence[str], samples: int) -> TopologyStudyReport:
    study = build_study(load_recipe_plan("topology-study", settings), samples)
    can_vote = study.plan.recipe.agents.critic is not None
    return run_study(study, [kind for kind in TOPOLOGY_KINDS if can_vote or kind != "independent"])


def _format_line(name: str, report: TopologyStudyReport) -> str:
    return f"| {name} | {' | '.join(_format_short(report.find_row(kind)) for kind in TOPOLOGY_KINDS[1:])} |"


def _format_short(row: TopologyResult | None) -> str:
    if row is None or row.amplification is None or row.calls_per_kept is None:
        return "-"
    return f"{row.amplification.format('{:.2f}'.format)}, {row.calls_per_kept.value:.1f} calls"


def _format_others(lines: Sequence[str]) -> str:
    return "\n".join([f"| | {' | '.join(TOPOLOGY_KINDS[1:])} |", "|" + "---|" * len(TOPOLOGY_KINDS), *lines])


def _extract_table(report: TopologyStudyReport) -> str:
    """The first table of a report, without its caption."""
    return format_study_report(report).split("\n\n")[1]


def _format_goals(report: TopologyStudyReport) -> str:
    single, independent, centralized = (report.find_row(kind) for kind in ("single", "independent", "centralized"))
    assert single, "without it there is nothing to compare with"
    assert independent
    assert centralized
    contained = estimate_ratio(independent.wrong, independent.kept, centralized.wrong, centralized.kept)
    amplified, calls, base = centralized.amplification, centralized.calls_per_kept, single.calls_per_kept
    assert contained
    assert amplified
    assert calls
    assert base
    times = calls.value / base.value
    return GOALS.format(
        small=_format_goal(amplified.value < 0.25, amplified.format("{:.3f}".format)),
        less=_format_goal(contained.value >= 4, contained.format("{:.2f}".format)),
        calls=_format_goal(times <= 3, f"{times:.2f} times"),
    )


def _format_goal(met: bool, told: str) -> str:
    return f"{'met' if met else 'NOT met'}: {told}"


def measure_embedded(samples: int = EMBEDDED) -> str:
    """Part (b) as Markdown."""
    study = build_study(load_recipe_plan("constrained-instructions"), samples, EMBEDDED_TOKENS, HELD_OUT)
    return "\n\n".join([_describe_machine(), format_study_report(run_study(study))])


def _describe_machine() -> str:
    return (
        f"{describe_measurement()}; stillhouse {collect_versions()['stillhouse']}. Words and formulas: "
        "[plugins/study](../plugins/study/README.md)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("injected", "embedded"))
    parser.add_argument("--samples", type=int)
    args = parser.parse_args()
    if args.part == "embedded":
        sys.stdout.write(measure_embedded(args.samples or EMBEDDED) + "\n")
    else:
        samples = args.samples or INJECTED
        sys.stdout.write(measure_injected(samples, min(samples, SENSITIVITY)) + "\n")


if __name__ == "__main__":
    main()
