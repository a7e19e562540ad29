"""What each step of the default recipe buys: `stillhouse ablate` on a run of the embedded teacher, by a user's commands.

`STILLHOUSE_ABLATION` names a folder for the run and its answers, so that a stopped benchmark resumes. All arms take hours:
`python -m benchmarks.ablation --rows 200 --seeds 1 --requests 200 --arms d,e,h,i` prints the table of some.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import describe_measurement
from benchmarks.retention import RECIPE, open_folder
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.storage.atomic_files import read_record
from flows.terminal.console import SESSION
from plugins.ablation.ablation import collect_measured, join_checks, list_step_gains
from plugins.ablation.answers import Answers
from plugins.ablation.arms import ARMS, DEFAULT_ARMS
from plugins.ablation.results import Ablation, describe_size, describe_step, format_points
from plugins.ablation.statistics import describe_gain, estimate_pass_rate
from plugins.ablation.task import AblationOptions, prepare_ablation

CANDIDATES, SEED = 1_000, 11
SETTINGS = (f"samples={CANDIDATES}", f"seed={SEED}", "keep=0")
STUDENT = ("epochs=1", "replay.share=0.25")
"""Each row is seen once: an arm with more rows is not trained longer on each. An eighth of the recipe's replay, which takes
two thirds of a training's time.
"""
REFUSED_ARMS = "d,h,j,k,l"
"""Of `refused-drafts.json`."""
RULES = ("constraints", "on_topic")
"""Checks of rules and topic: `sound_prose` judges and selects most of the rest."""
HELD_OUT = tuple(f"benchmarks/held_out_checks.py:{name}" for name in ("near_topic", "adds_words"))


def table_of_refused_drafts() -> str:
    return table(seeds=3, arms=REFUSED_ARMS)


def table(rows: str = "45,250", seeds: int = 2, requests: int = 400, arms: str = DEFAULT_ARMS) -> str:
    with open_folder("STILLHOUSE_ABLATION") as folder:
        run = generate_declared_run(folder)
        options = ["--arms", arms, "--rows", rows, "--seeds", str(seeds), "-n", str(requests)]
        for option, values in (("--set", STUDENT), ("--held-out", HELD_OUT)):
            options += [word for value in values for word in (option, value)]
        call("ablate", run.name, "--runs-dir", str(folder), *options)
        found = read_record(run.path / "plugins" / "ablation" / "ablation.json", Ablation)
        by_rules = list_rule_gains(
            run, AblationOptions(arms, rows, seeds, requests, held_out=HELD_OUT, settings=STUDENT)
        )
        return "\n".join([format_page(found), *by_rules])


def generate_declared_run(folder: Path) -> RunDir:
    if not list(folder.glob(f"{RECIPE}-*/manifest.json")):
        call("generate", RECIPE, "--runs-dir", str(folder), *(word for one in SETTINGS for word in ("--set", one)))
    (manifest,) = folder.glob(f"{RECIPE}-*/manifest.json")
    return RunDir(manifest.parent)


def list_rule_gains(run: RunDir, options: AblationOptions) -> Iterator[str]:
    """A line for each comparison by `RULES` alone."""
    task = prepare_ablation(run, options, None, run.path.parent, SESSION)
    measured = collect_measured(task, Answers(task, SESSION))
    judged = replace(task, declared=task.declared.model_copy(update={"held_out_checks": list(RULES)}))
    for (letter, size), one in measured.items():
        rate = estimate_pass_rate(one.collect(lambda answers: join_checks(answers, RULES)))
        if rate and letter in ARMS:
            yield f"- by rules and topic alone, {ARMS[letter].name} {size}: {rate.format(lambda value: f'{value:.1%}')}"
    for step in list_step_gains(measured, judged):
        if step.held_out:
            yield f"- by rules and topic alone, {step.step}, {step.size}: {describe_gain(step.held_out, format_points)}"


def call(*words: str) -> None:
    """Run a command of Stillhouse with its progress on stderr. A run of fewer samples than asked for exits with 1."""
    done = subprocess.run(
        [Path(sys.executable).with_name("stillhouse"), *words], cwd=PROJECT, stdout=subprocess.DEVNULL
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"stillhouse {' '.join(words)}: exit {done.returncode}")


def format_page(found: Ablation) -> str:
    declared = found.declared
    lines = [
        describe_measurement(),
        "",
        f"A run of {CANDIDATES:,} candidates (`{RECIPE}`, seed {SEED}), the recipe's student with {', '.join(STUDENT)}, "
        f"{declared.requests} held-out requests, trainings of each arm: {declared.seeds}. They show "
        f"differences from about {100 * declared.detectable:.0f} points on.",
    ]
    for size in found.sizes:
        arms = found.list_arms(size)
        checks = list(arms[-1].by_check)
        lines += [
            "",
            f"**{describe_size(size, arms).capitalize()}**",
            "",
            f"| arm | rows | trainings | passed | {' | '.join(checks)} | panel | words | teacher tokens |",
            "|---" * (7 + len(checks)) + "|",
        ]
        for one in arms:
            by_check = " | ".join(f"{one.by_check[check]:.0%}" for check in checks)
            panel = "" if one.panel is None else f"{one.panel:.0%}"
            tokens = f"{one.teacher_tokens:,}" if one.teacher_tokens else ""
            rate = one.passed.format(lambda value: f"{value:.0%}")
            trained = f"{one.rows} | {one.seeds}" if one.rows else " | "
            lines.append(f"| {one.name} | {trained} | {rate} | {by_check} | {panel} | {one.words:.0f} | {tokens} |")
        lines.append("")
        for step in (step for step in found.steps if step.size == size):
            parts = ", ".join(f"`{check}` {100 * gain:+.0f}" for check, gain in step.by_check.items())
            panel = f"; panel {format_points(step.panel)}" if step.panel else ""
            lines.append(f"- {describe_step(step)} ({parts}{panel})")
    lines += [f"- measured otherwise than declared: {one}" for one in found.departures]
    return "\n".join([*lines, *(f"- {note}" for note in found.notes)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="45,250")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--arms", default=DEFAULT_ARMS)
    sys.stdout.write(f"{table(**vars(parser.parse_args()))}\n")


if __name__ == "__main__":
    main()
