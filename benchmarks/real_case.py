"""Students of a capable teacher: tenants' messages to a property manager become structured reports (docs/real-case.md).

Declared before the first training: students with all layers of the embedded teacher on 45, 90, 180 and all verified rows;
at `PLANTED_ROWS` rows a share of the values replaced by another row's (10 and 30 %), and answers of other rows as the control;
one student with half of the layers; and the start, which is the embedded teacher. All answer the same held-out messages, once
and greedily. A value is right if it equals that of the held-out row. Goal: 60 % of the values right where the start has under
10 %, and at most 3 points less of the general panel. Declared later: `prompted`, the start's first drafts as a run asks for
them, with instructions, examples and schema.

`STILLHOUSE_CASE` names a folder for rows, students and answers, so that a stopped benchmark resumes; results are added to
`real-case.json`. All students take about three hours of one core: `python -m benchmarks.real_case --arms 45,90`.

`--cost` measures what the answers of the trained student `all` take of the processors, in processor seconds of llama.cpp's
process without loading, since other work shares the machine. Next to it are the tokens of the recorded teacher's drafts of the
same messages. Declared were three rounds of one stream and eight slots; other work left time for one, and one thread was added.

`--rows` compares the kept rows with the facts from which the messages were written, and lets the check `occurs` judge the answers
of the student `all`.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from agents.planning.run_plan import RunPlan
from agents.studies.general_panel import GeneralPanel, PanelResults, ask_general_panel, build_general_panel
from agents.studies.held_out_evaluation import (
    HeldOutResult,
    ServedReplies,
    evaluate_held_out,
    evaluate_prompted,
    held_out_seeds,
    judge_by_check,
)
from benchmarks.ablation import call
from benchmarks.machine import describe_measurement
from benchmarks.retention import mark_passed, open_folder
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.prices import TokenPrices
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.sample import Message, Seed, TokenUsage
from core.storage.atomic_files import read_json, write_text
from flows.data.curated_run import read_finished_samples
from flows.data.student_files import configure_student_as_teacher, export_student, read_run_rows
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.dataset_distillation import distill_dataset
from flows.terminal.console import SESSION

RECIPE = PROJECT / "benchmarks/recordings/repairs.toml"
FACTS = PROJECT / "benchmarks/recordings/repairs-facts.jsonl"
"""By the number of the sample, what its message was written from."""
MESSAGES = 480
RESULTS = PROJECT / "benchmarks/real-case.json"
SEEDS = (7, 8, 9)
PLANTED_ROWS = 90
PLANTED = (0.1, 0.3)
WHOLE: Mapping[str, Any] = {
    "layers": 30,
    "replay": {"share": 1.0},
    "learning_rate": 1e-4,
    "max_tokens": 768,
    "batch_size": 4,
    "accumulate": 2,
}
HALF = {**WHOLE, "layers": 16, "learning_rate": 2e-4}
PANEL, RESAMPLES, MOST_TOKENS = 64, 2_000, 200
COST_ARMS: Mapping[str, tuple[int, int | None]] = {
    "one stream": (1, None),
    "eight slots": (8, None),
    "one stream, one thread": (1, 1),
    "eight slots, one thread": (8, 1),
}
"""Streams and threads of llama.cpp. With one thread nothing waits for another: the control for what a busy machine adds."""
TOKEN_PRICES = TokenPrices(0.25, 2.0, 0.25, 0.25, 2.0)
"""Of the page: a small hosted model, in USD per million tokens."""
TEACHER = TeacherConfig(model="local/smollm2-135m", max_concurrent=8, slot_tokens=1536)
START, PROMPTED = "start", "prompted"

Rows = list[dict[str, Any]]


class Arm(NamedTuple):
    rows: int
    student: Mapping[str, Any] = WHOLE
    seeds: Sequence[int] = SEEDS[:1]
    change: Callable[[Rows, Random], None] = lambda _rows, _rng: None
    """What is done to the rows."""


def plant_errors(share: float) -> Callable[[Rows, Random], None]:
    """Replace a share of the values by the same field's value of another row, if that differs."""

    def change(rows: Rows, rng: Random) -> None:
        given = [read_values(row) for row in rows]
        for row, values in zip(rows, given, strict=True):
            wrong = {name: rng.choice(others) for name in values if rng.random() < share
                     if (others := [one[name] for one in given if one[name] != values[name]])}  # fmt: skip
            write_values(row, {**values, **wrong})

    return change


def shuffle_answers(rows: Rows, rng: Random) -> None:
    given = [read_values(row) for row in rows]
    rng.shuffle(given)
    for row, values in zip(rows, given, strict=True):
        write_values(row, values)


def read_values(row: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(row["messages"][-1]["content"])
    return values


def write_values(row: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    row["messages"][-1]["content"] = json.dumps(values, ensure_ascii=False, separators=(",", ":"))


ARMS = {
    **{str(rows): Arm(rows) for rows in (45, 90, 180)},
    "all": Arm(0, seeds=SEEDS),
    **{f"planted {100 * share:.0f}": Arm(PLANTED_ROWS, change=plant_errors(share)) for share in PLANTED},
    "shuffled": Arm(PLANTED_ROWS, change=shuffle_answers),
    "half": Arm(0, HALF),
}
"""By name: the number of rows, if nothing else. 0 rows are all."""
PANEL_ARMS = ("all", "half")


class Case(NamedTuple):
    """What all arms share."""

    folder: Path
    rows: Rows
    """The kept rows for training, in random order."""
    expected: Mapping[str, dict[str, Any]]
    """The values of each held-out message."""
    plan: RunPlan
    seeds: Sequence[Seed]
    """Of the held-out messages."""


def read_both_parts(run: RunDir) -> list[list[Message]]:
    return [*read_run_rows(run, "train"), *read_run_rows(run, "validation")]


def open_case(folder: Path) -> Case:
    """The case, from a replayed run over all messages."""
    runs = folder / "runs"
    if not list(runs.glob("*/dataset/*.parquet")):
        call("generate", str(RECIPE), "--runs-dir", str(runs), "--resume", "--set", f"samples={MESSAGES}")
    (manifest,) = runs.glob("*/manifest.json")
    kept = {row[-2].content: row for row in read_both_parts(RunDir(manifest.parent))}
    plan = load_recipe_plan(str(RECIPE))
    seeds = held_out_seeds(plan, MESSAGES - plan.recipe.samples)
    expected = {seed.data["text"]: json.loads(kept.pop(seed.data["text"])[-1].content) for seed in seeds}
    rows = [{"messages": [one.model_dump(include={"role", "content"}) for one in row]} for row in kept.values()]
    Random(SEEDS[0]).shuffle(rows)
    return Case(folder, rows, expected, plan, seeds)


class Answers(NamedTuple):
    right: np.ndarray
    """Of shape (messages, fields): 1 where the value is right."""
    fields: list[str]
    parsed: int
    """Answers that are a JSON object."""
    panel: float | None
    results: Sequence[HeldOutResult]


def ask_model(case: Case, model: TeacherConfig, panel: int) -> Answers:
    results = asyncio.run(
        evaluate_held_out(
            case.plan, model, case.seeds, SESSION.stop, lambda _done: None, cut_at=lambda _seed: MOST_TOKENS
        )
    )
    passed = None
    if panel:
        tasks = build_general_panel(case.plan, panel)
        passed = float(mark_passed(asyncio.run(ask_panel(tasks, model)).judged).mean())
    return score_answers(case, results, passed)


def ask_prompted_start(case: Case) -> Answers:
    """The start's first draft of each held-out message, asked as a run asks its teacher."""
    plan = case.plan.with_recipe(teachers={name: TEACHER for name in case.plan.recipe.teachers})
    drafts = asyncio.run(evaluate_prompted(plan, case.seeds, SESSION.stop, lambda _done: None))
    return score_answers(case, drafts, None)


def score_answers(case: Case, results: Sequence[HeldOutResult], panel: float | None) -> Answers:
    right, parsed, fields = [], 0, list(next(iter(case.expected.values())))
    for seed, result in zip(case.seeds, results, strict=True):
        try:
            found = json.loads(result.answer)
        except ValueError:
            found = None
        values = found if isinstance(found, dict) else {}
        parsed += isinstance(found, dict)
        wanted = case.expected[seed.data["text"]]
        right.append([name in values and values[name] == wanted[name] for name in fields])
    return Answers(np.array(right, dtype=float), fields, parsed, panel, results)


async def ask_panel(panel: GeneralPanel, model: TeacherConfig) -> PanelResults:
    return await ask_general_panel(panel, model, SESSION.stop, lambda _done: None, cache=None)


def measure_arm(case: Case, name: str, seed: int) -> Answers:
    arm = ARMS[name]
    file, student = (case.folder / f"{name.replace(' ', '-')}-{seed}{end}" for end in (".jsonl", ""))
    rows = json.loads(json.dumps(case.rows[: arm.rows or None]))
    arm.change(rows, Random(seed))
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    distill_dataset(file, student, StudentConfig.model_validate(dict(arm.student)), seed, SESSION.print_unless_stopped)
    weights = export_student(student, "q8_0").path
    return ask_model(case, configure_student_as_teacher(weights, TEACHER), PANEL if name in PANEL_ARMS else 0)


def record(name: str, seed: int, answers: Answers) -> None:
    found = read_json(RESULTS) if RESULTS.exists() else {}
    found[f"{name}, seed {seed}"] = {
        "machine": describe_measurement(), "messages": len(answers.right), "parsed": answers.parsed, "panel": answers.panel,
        "fields": dict(zip(answers.fields, answers.right.mean(0).round(4).tolist(), strict=True)),
        "right": ["".join(str(int(one)) for one in row) for row in answers.right],
    }  # fmt: skip
    write_text(RESULTS, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def measure(arms: Sequence[str], trainings: int) -> None:
    """Measure the arms that `real-case.json` lacks."""
    with open_folder("STILLHOUSE_CASE") as folder:
        case = open_case(folder)
        for name in arms:
            for seed in (ARMS[name].seeds if name in ARMS else SEEDS[:1])[:trainings]:
                if RESULTS.exists() and f"{name}, seed {seed}" in read_json(RESULTS):
                    continue
                if name == PROMPTED:
                    answers = ask_prompted_start(case)
                else:
                    answers = ask_model(case, TEACHER, PANEL) if name == START else measure_arm(case, name, seed)
                texts = [result.answer for result in answers.results]
                write_text(folder / f"{name}-{seed}.answers.json", json.dumps(texts, indent=1))
                record(name, seed, answers)
                SESSION.print_unless_stopped(f"{name}, seed {seed}: {answers.right.mean():.1%} of the values right")


def measure_cost() -> None:
    """Add what the answers of the student `all` cost to `real-case.json`, each arm as soon as it is measured."""
    with open_folder("STILLHOUSE_CASE") as folder:
        case = open_case(folder)
        weights = export_student(folder / f"all-{SEEDS[0]}", "q8_0").path
        drafts = read_draft_usage(case)
        for name, (streams, threads) in COST_ARMS.items():
            found = read_json(RESULTS)
            cost = found.setdefault("cost", {"draft": describe_tokens(drafts, len(case.seeds)), "core_seconds": {}})
            if name in cost["core_seconds"]:
                continue
            teacher = TEACHER.model_copy(update={"max_concurrent": streams, "threads": threads})
            served: list[ServedReplies] = []
            results = asyncio.run(evaluate_held_out(
                case.plan, configure_student_as_teacher(weights, teacher), case.seeds, SESSION.stop, lambda _done: None,
                cut_at=lambda _seed: MOST_TOKENS, on_served=served.append,
            ))  # fmt: skip
            usage = sum((reply.usage for result in results for reply in result.replies), TokenUsage())
            cost["student"] = describe_tokens(usage, len(case.seeds))
            cost["core_seconds"][name] = {
                "seconds": round(served[0].seconds / served[0].number, 3), "messages": served[0].number,
                "load": os.getloadavg()[1], "machine": describe_measurement(),
            }  # fmt: skip
            write_text(RESULTS, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
            SESSION.print_unless_stopped(f"{name}: {cost['core_seconds'][name]['seconds']} core-seconds a message")


def describe_rows() -> str:
    """How many values of the kept rows are those of the facts, and what `occurs` refuses of the answers of the student `all`."""
    facts = {one["sample"]: one for one in map(json.loads, FACTS.read_text().splitlines())}
    with open_folder("STILLHOUSE_CASE") as folder:
        case = open_case(folder)
        (manifest,) = (folder / "runs").glob("*/manifest.json")
        samples = list(read_finished_samples(RunDir(manifest.parent)))
        texts = read_json(folder / f"all-{SEEDS[0]}.answers.json")
    kept = [(json.loads(sample.answer), facts[sample.seed.index]) for sample in samples]
    lines = [
        f"{name}: {np.mean([str(found[name]).lower() == str(true[name]).lower() for found, true in kept]):.1%} as drawn"
        for name in kept[0][0]
    ]
    results = [
        HeldOutResult(seed.index, "", text, None, "", (), case.plan.family.build_answered(seed, [text]))
        for seed, text in zip(case.seeds, texts, strict=True)
    ]
    whole = score_answers(case, results, None).right.all(1)
    accepted = asyncio.run(judge_by_check(case.plan.checks, case.seeds, results))["occurs"]
    for name, chosen in (("right", whole), ("wrong", ~whole)):
        lines.append(f"{name} reports: occurs refuses {np.sum(chosen & ~np.array(accepted))} of {chosen.sum()}")
    return "\n".join(lines)


def describe_tokens(usage: TokenUsage, messages: int) -> dict[str, float]:
    """The tokens of a message, and what 1,000 messages cost at `TOKEN_PRICES`."""
    return {
        "prompt_tokens": round(usage.prompt_tokens / messages, 1),
        "completion_tokens": round(usage.completion_tokens / messages, 1),
        "usd_per_1000": round(1000 * TOKEN_PRICES.cost(usage) / messages, 4),
    }


def read_draft_usage(case: Case) -> TokenUsage:
    """Of the recorded teacher's first draft of each held-out message, as the run counted it."""
    (manifest,) = (case.folder / "runs").glob("*/manifest.json")
    drafts = {
        sample.seed.data["text"]: next(turn.usage for turn in sample.turns if turn.agent == "generator")
        for sample in read_finished_samples(RunDir(manifest.parent))
    }
    return sum((drafts[text] for text in case.expected), TokenUsage())


def table() -> str:
    """The results, an arm in each row, with 95 % intervals of a bootstrap over messages and trainings."""
    found, lines = read_json(RESULTS), []
    fields = list(next(iter(found.values()))["fields"])
    lines = [
        f"| arm | trainings | values right | messages all right | {' | '.join(fields)} | JSON | panel |",
        "|---" * (6 + len(fields)) + "|",
    ]
    for name in (START, PROMPTED, *ARMS):
        ours = [one for key, one in found.items() if key.rpartition(",")[0] == name]
        if ours:
            right = np.array([[[int(mark) for mark in row] for row in one["right"]] for one in ours])
            cells = [name, str(len(ours)), describe_rate(right.mean(2)), describe_rate(right.all(2).astype(float))]
            cells += [f"{rate:.0%}" for rate in right.mean((0, 1))]
            cells.append(f"{sum(one['parsed'] for one in ours) / right[..., 0].size:.0%}")
            panels = [one["panel"] for one in ours if one["panel"] is not None]
            lines.append(f"| {' | '.join(cells)} | {f'{np.mean(panels):.0%}' if panels else ''} |")
    return "\n".join(lines)


def describe_rate(right: np.ndarray) -> str:
    """The mean of (trainings, messages), in percent, with a percentile bootstrap over both."""
    rng = np.random.default_rng(SEEDS[0])
    means = [
        right[rng.integers(len(right), size=len(right))][:, rng.integers(right.shape[1], size=right.shape[1])].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{right.mean():.0%} ({low:.0%} to {high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join((START, PROMPTED, *ARMS)))
    parser.add_argument("--trainings", type=int, default=len(SEEDS), help="of an arm, at most")
    parser.add_argument("--cost", action="store_true", help="only the cost of the trained student's answers")
    parser.add_argument("--rows", action="store_true", help="only what the rows and the student's answers are worth")
    options = parser.parse_args()
    if options.rows:
        sys.stdout.write(f"{describe_rows()}\n")
        return
    if options.cost:
        measure_cost()
        return
    measure(options.arms.split(","), options.trainings)
    sys.stdout.write(f"{table()}\n")


if __name__ == "__main__":
    main()
