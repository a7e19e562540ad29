"""A student of German: the embedded start, which writes English, trained on a capable model's kept German rows, and asked
held-out German requests that the recipe's rules judge.

python -m plugins.languages.benchmarks.german_student >> plugins/languages/benchmarks/tasks.md

Declared before the first training:
- Rows: the drafts of `german.jsonl` that the checks of the recipe `german.toml` keep, on the first 30 topics of
  `topics-de.jsonl`. Held out: 70 requests on the other 10 topics.
- Arms: the start; the student, with all layers of the start and replay; the control, the same rows with shuffled answers. One
  seed each. Greedy, one answer to each request. An answer passes if it keeps all rules, has a word of its topic, and is German.
- Goal: the student passes at least 20 points more requests than the start and than the control, with at most 3 points less of
  the general panel. The start hardly knows German, so a miss is expected at this number of rows.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from agents.checks import Subject
from agents.checks.base import refuse_to_ask
from agents.planning.run_plan import RunPlan
from agents.studies.general_panel import ask_general_panel, build_general_panel
from agents.studies.held_out_evaluation import evaluate_held_out, held_out_seeds
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.project_files import PROJECT
from core.sample import Seed
from core.storage.atomic_files import write_text
from flows.data.student_files import configure_student_as_teacher, export_student
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.dataset_distillation import distill_dataset
from flows.terminal.console import SESSION
from plugins.languages.benchmarks.planted_rules import format_share, tabulate

HERE = Path(__file__).parent
TRAINED_TOPICS, HELD_OUT, PANEL_TASKS, LONGEST_ANSWER, SEED = 30, 70, 64, 120, 7
ALL_LAYERS = StudentConfig.model_validate({
    "layers": 30, "replay": {"share": 1.0}, "learning_rate": 1e-4, "max_tokens": 256, "batch_size": 4, "accumulate": 2,
})  # fmt: skip
START_MODEL = TeacherConfig(model="local/smollm2-135m", max_concurrent=8, slot_tokens=1024)


def load_german_plan(folder: Path, topics: Sequence[str]) -> RunPlan:
    """The recipe with these topics only."""
    write_text(folder / "topics.jsonl", "".join(topics))
    return load_recipe_plan(str(HERE / "german.toml"), [f"seeds.path={folder / 'topics.jsonl'}", "language=de"])


async def keeps_rules(plan: RunPlan, seed: Seed, answer: str) -> bool:
    subject = Subject(seed, plan.family.build_answered(seed, [answer]), refuse_to_ask)
    found = [await bound.check.findings(subject, bound.options) for bound in plan.checks]
    return all(finding.passed for findings in found for finding in findings)


def read_german_rows(plan: RunPlan) -> list[dict[str, Any]]:
    """The kept rows of a recording of `german.toml`, as conversations."""
    rows = []
    for one in map(json.loads, (HERE / "german.jsonl").read_text(encoding="utf-8").splitlines()):
        answer = json.loads(one["replies"][0]["reply"])["answer"]
        if asyncio.run(keeps_rules(plan, Seed(id="run-0", data=one["seed"]), answer)):
            turns = (("user", one["seed"]["instruction"]), ("assistant", answer))
            rows.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    return rows


def train_german(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> TeacherConfig:
    write_text(folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    distill_dataset(folder / f"{name}.jsonl", folder / name, ALL_LAYERS, SEED, SESSION.print_unless_stopped)
    return configure_student_as_teacher(export_student(folder / name, "q8_0").path, START_MODEL)


def shuffle_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    answers = [row["messages"][1] for row in rows]
    Random(SEED).shuffle(answers)
    return [{"messages": [row["messages"][0], answer]} for row, answer in zip(rows, answers, strict=True)]


def measure_model(plan: RunPlan, seeds: Sequence[Seed], model: TeacherConfig) -> list[str]:
    """Cells of a row: requests that pass, answers in German, panel, and the checks that refuse."""
    results = asyncio.run(
        evaluate_held_out(plan, model, seeds, SESSION.stop, lambda _done: None, cut_at=lambda _seed: LONGEST_ANSWER)
    )
    faults = Counter(result.fault for result in results)
    panel = build_general_panel(plan, PANEL_TASKS)
    judged = asyncio.run(ask_general_panel(panel, model, SESSION.stop, lambda _done: None, cache=None))
    german = sum(
        all(finding.passed for finding in asyncio.run(_find_language(plan, seed, result.answer)))
        for seed, result in zip(seeds, results, strict=True)
        if result.answer
    )
    return [
        format_share(faults.pop(None, 0), len(results)),
        format_share(german, len(results)),
        format_share(judged.passed, len(judged.judged)),
        ", ".join(f"{name} {count}" for name, count in faults.most_common()),
    ]


async def _find_language(plan: RunPlan, seed: Seed, answer: str) -> Any:
    (bound,) = [one for one in plan.checks if one.check.name == "in_language"]
    return await bound.check.findings(
        Subject(seed, plan.family.build_answered(seed, [answer]), refuse_to_ask), bound.options
    )


def print_student() -> None:
    topics = (PROJECT / "data/seeds/topics-de.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = read_german_rows(load_german_plan(folder, topics[:TRAINED_TOPICS]))
        plan = load_german_plan(folder, topics[TRAINED_TOPICS:])
        seeds, table = held_out_seeds(plan, HELD_OUT), []
        arms = {"start": None, "student": rows, "control: shuffled answers": shuffle_rows(rows)}
        for arm, own in arms.items():
            model = START_MODEL if own is None else train_german(folder, arm.split(":")[0], own)
            table.append([arm, *measure_model(plan, seeds, model)])
            SESSION.print_unless_stopped(" | ".join(table[-1]))
    head = "model | requests that pass | answers in German | general panel | refused by"
    sys.stdout.write(f"\n## A student of German\n\n{len(rows)} rows.\n\n{tabulate(head, table)}")


if __name__ == "__main__":
    print_student()
