"""Seeds from failures where a teacher can write what the student lacks: drawn tasks of reasoning-gym with their true answers.

Declared in `focus.json` before the first training. Generation 0's student is asked validation requests; generation 1 has as many
new rows by each kind of weights. No model is a teacher. `STILLHOUSE_FOCUS` names a folder for students and answers, so that a
stopped benchmark resumes:

    STILLHOUSE_FOCUS=FOLDER nice -n 15 python -m benchmarks.focus --seeds 1,2
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import evaluate_held_out, held_out_seeds
from benchmarks.forecast import format_toml
from benchmarks.machine import describe_measurement
from core.intervals import estimate_small_mean
from core.sample import Message, Seed
from core.storage.atomic_files import read_record, write_text
from flows.data.student_files import configure_student_as_teacher
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import SESSION
from plugins.focus.measurement import estimate_failures
from plugins.focus.weights import FocusWeights, weigh_values

KINDS: dict[str, dict[str, Any]] = {
    "needle_haystack": {"min_num_statements": 2, "max_num_statements": 2},
    "word_sequence_reversal": {"min_words": 3, "max_words": 3},
    "chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
    "letter_counting": {"min_words": 4, "max_words": 6},
    "products": {"min_digits": 2, "max_digits": 2},
    "lcm": {"max_value": 30},
}
ARMS = ("uniform", "failures", "loss", "inverse")
ROWS, HELD_OUT, VALIDATION, QUESTIONS = 96, 400, 200, 1_500
STUDENT = "{start='layers',layers=30,epochs=1,max_tokens=192}"
REASONING = "The question leads to it."
RESAMPLES = 2_000


class Measured(BaseModel):
    """The student of an arm and seed."""

    rows: dict[str, int]
    """New rows by kind."""
    tokens: int
    """Of the new rows: questions and answers."""
    passed: list[bool]
    """Held-out requests."""
    failed: list[bool]
    """Validation requests; of generation 0 alone."""
    seconds: float


class Case(NamedTuple):
    plan: RunPlan
    held_out: list[Seed]
    validation: list[Seed]
    folder: Path
    seed: int


def load_case_plan(seed: int, weights: Path | None = None) -> RunPlan:
    tasks, settings = (
        format_toml(dict.fromkeys(KINDS, 1)),
        ",".join(f"{k}={format_toml(v)}" for k, v in KINDS.items()),
    )
    lines = [
        f"samples={2 * ROWS}", f"seed={seed}", "filters=[]", "agents.generator.examples=0",
        "agents.generator.temperature=0", "agents.generator.max_tokens=48", f"student={STUDENT}",
        f"task={{questions={QUESTIONS},tasks={tasks},settings={{{settings}}}}}",
    ]  # fmt: skip
    return load_recipe_plan("reasoning", lines + ([f"focus.weights={weights}"] if weights else []))


def open_case(seed: int, folder: Path) -> Case:
    plan = load_case_plan(seed)
    asked = held_out_seeds(plan, HELD_OUT + VALIDATION)
    place = folder / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    return Case(plan, asked[:HELD_OUT], asked[HELD_OUT:], place, seed)


def draw_new_seeds(case: Case, plan: RunPlan, first: int, used: Sequence[Seed]) -> list[Seed]:
    """`ROWS` seeds from number `first` on, none with a question that is used or asked."""
    taken = {one.data["question"] for one in (*used, *case.held_out, *case.validation)}
    seeds, found = RunSeeds(replace(plan.with_recipe(samples=20 * ROWS), first_seed=first), "0" * 16), list[Seed]()
    for seed in (seeds[index] for index in range(len(seeds))):
        if seed.data["question"] not in taken:
            taken.add(seed.data["question"])
            found.append(seed)
        if len(found) == ROWS:
            return found
    raise RuntimeError(f"{len(found)} new questions, {ROWS} needed; raise QUESTIONS")


def build_row(plan: RunPlan, seed: Seed) -> list[Message]:
    from plugins.math.families.reasoning import ReasoningDraft, parse_procedural_question

    answer = str(parse_procedural_question(seed.data).entry["answer"])
    return plan.family.candidate(seed, ReasoningDraft(reasoning=REASONING, answer=answer)).messages


def measure_student(case: Case, name: str, new: Sequence[Seed], before: Sequence[Seed]) -> Measured:
    """Train a student on the rows of all generations and ask it, unless that is done."""
    from students.gguf_export import export_gguf, read_student
    from students.training.student_training import train_student

    file = case.folder / f"{name}.json"
    if file.is_file():
        return read_record(file, Measured)
    begun, student, config = time.monotonic(), case.folder / name, case.plan.recipe.student
    assert config is not None, "STUDENT is in the recipe"
    rows = [build_row(case.plan, seed) for seed in (*before, *new)]
    train_student(
        rows, config, student, seed=case.seed, held_out=rows[:4], progress=SESSION.print_unless_stopped, synthetic=True
    )
    model = configure_student_as_teacher(export_gguf(student, "q8_0").path, case.plan.recipe.generator_teacher)
    asked = [*case.held_out, *([] if before else case.validation)]
    results = asyncio.run(
        evaluate_held_out(case.plan, model, asked, SESSION.stop, lambda _: None, cache=case.folder / "replies")
    )
    passed = [one.fault is None for one in results]
    _, tokenizer = read_student(student)
    measured = Measured(
        rows=dict(Counter(seed.data["category"] for seed in new)),
        tokens=sum(len(tokenizer(turn.content)["input_ids"]) for row in rows[len(before) :] for turn in row),
        passed=passed[:HELD_OUT],
        failed=[not one for one in passed[HELD_OUT:]],
        seconds=time.monotonic() - begun,
    )
    write_text(file, measured.model_dump_json() + "\n")
    if before:
        shutil.rmtree(student)
    SESSION.print_message(f"focus: seed {case.seed}, {name}: {sum(passed[:HELD_OUT])} of {HELD_OUT} pass")
    return measured


def write_weights(case: Case, by: str, first: Measured, rows: Sequence[Seed]) -> Path:
    """As `stillhouse focus` does, whose runs have a teacher."""
    file = case.folder / f"{by}.weights.json"
    if by == "loss" and not file.is_file():
        from students.comparison import measure_text_loss
        from students.gguf_export import read_student

        model, tokenizer = read_student(case.folder / "generation 0")
        found = [measure_text_loss(model, tokenizer, [build_row(case.plan, seed)], 192).nats_per_token for seed in rows]
        numbers = [one for one in found if one is not None]
        values = weigh_values([seed.data for seed in rows], numbers, estimate_small_mean)
    elif not file.is_file():
        numbers = [float(one) for one in first.failed]
        asked = [seed.data for seed in case.validation]
        values = weigh_values(asked, numbers, estimate_failures, inverse=by == "inverse")
    if not file.is_file():
        weights = FocusWeights(run="generation 0", by=by, overall=fmean(numbers), values=tuple(values), requests=())  # type: ignore[arg-type]
        write_text(file, weights.model_dump_json(indent=1) + "\n")
    return file


def measure_arm(case: Case, arm: str, first: Measured, rows: Sequence[Seed]) -> Measured:
    plan = case.plan if arm == "uniform" else load_case_plan(case.seed, write_weights(case, arm, first, rows))
    return measure_student(case, arm, draw_new_seeds(case, plan, ROWS, rows), rows)


def estimate_ratio_to_uniform(
    firsts: Sequence[Measured], uniform: Sequence[Measured], arm: Sequence[Measured]
) -> tuple[float, float, float]:
    """The gain per token over that of uniform, with its 95 % interval; not a number where uniform gains nothing."""
    rng, count = np.random.default_rng(0), HELD_OUT * len(firsts)
    before, plain, own = (np.array([one.passed for one in some], float).ravel() for some in (firsts, uniform, arm))
    tokens = sum(one.tokens for one in uniform) / sum(one.tokens for one in arm)

    def ratio(chosen: Any) -> float:
        gain = float((plain - before)[chosen].sum())
        return float((own - before)[chosen].sum()) / gain * tokens if gain > 0 else float("nan")

    drawn = [ratio(rng.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return ratio(np.arange(count)), float(low), float(high)


def count_passed(case: Case, measured: Measured) -> dict[str, int]:
    pairs = zip(case.held_out, measured.passed, strict=True)
    found = Counter(seed.data["category"] for seed, passed in pairs if passed)
    return {kind: found[kind] for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--arms", default=",".join(ARMS))
    asked = parser.parse_args()
    found: dict[str, list[Measured]] = {}
    lines = [f"| seed | arm | pass | tokens | {' | '.join(KINDS)} |", "|---" * (4 + len(KINDS)) + "|"]
    for seed in map(int, asked.seeds.split(",")):
        case = open_case(seed, Path(os.environ["STILLHOUSE_FOCUS"]).resolve())
        rows = draw_new_seeds(case, case.plan, 0, [])
        first = measure_student(case, "generation 0", rows, [])
        measured = {
            "generation 0": first,
            **{arm: measure_arm(case, arm, first, rows) for arm in asked.arms.split(",")},
        }
        for name, one in measured.items():
            found.setdefault(name, []).append(one)
            cells = [f"{one.rows.get(kind, 0)}: {passed}" for kind, passed in count_passed(case, one).items()]
            lines.append(f"| {seed} | {name} | {fmean(one.passed):.1%} | {one.tokens:,} | {' | '.join(cells)} |")
    ratios = {
        arm: estimate_ratio_to_uniform(found["generation 0"], found["uniform"], found[arm])
        for arm in found
        if arm not in ("generation 0", "uniform") and "uniform" in found
    }
    sys.stdout.write("\n".join([describe_measurement(), "", *lines, json.dumps(ratios, indent=1)]) + "\n")


if __name__ == "__main__":
    main()
