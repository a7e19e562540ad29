"""Students of a capable teacher call a user's own tools (docs/real-case.md): of `recordings/office.py`, a manager's office.

Declared before the first training: of the verified conversations `HELD_OUT` are held out by seed 49; no task is in two of them.
Students with all layers of the embedded teacher learn from 32, 65 and all others; from 65 with a tenth and a third of the
arguments replaced by those of other conversations; from 65 with the answers of other conversations (control);
one has half of the layers. They and the start, which is the embedded teacher, get the held-out requests and make their calls,
greedily: each is executed in the world of the conversation, and its result is the next turn. A conversation is right if its
calls had the results of the recorded ones in their order, without the words of a reported problem; without recorded calls, if
none was made. Goal: 60 % of the conversations with calls are right where the start has under 10 %, and at most 3 points less of
the general panel.

`STILLHOUSE_TOOLS_CASE` names a folder for rows, students and answers, so that a stopped benchmark resumes; results are added to
`real-tools.json`. All students take about two hours of one core: `python -m benchmarks.real_tools --arms 32,65`.
"""

import argparse
import asyncio
import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from agents.calls.agent_context import LocalAgentContext, open_scratch_context
from agents.planning.run_plan import RunPlan
from agents.studies.general_panel import build_general_panel
from agents.studies.held_out_evaluation import EVALUATED_TEACHER, build_question
from benchmarks.ablation import call
from benchmarks.machine import describe_measurement
from benchmarks.real_case import (
    HALF,
    PANEL,
    SEEDS,
    START,
    TEACHER,
    Arm,
    Rows,
    ask_panel,
    describe_rate,
)  # fmt: skip
from benchmarks.retention import mark_passed, open_folder
from core.config.students import StudentConfig
from core.config.teachers import TeacherConfig
from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from core.sample import Message, Sample, SampleStatus, ToolCall, text_digest
from core.storage.atomic_files import read_json, write_text
from core.tracing import find_trace
from flows.data.curated_run import read_finished_samples
from flows.data.student_files import configure_student_as_teacher, export_student
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.run.dataset_distillation import distill_dataset
from flows.terminal.console import SESSION
from plugins.tools.toolbox.tool_spec import find_call_fault, read_parameter_schemas
from teachers.base import CallKey

RECIPE = PROJECT / "benchmarks/recordings/office.toml"
TOOLS = PROJECT / "benchmarks/recordings/office.py"
RESULTS = PROJECT / "benchmarks/real-tools.json"
HELD_OUT, PLANTED_ROWS, PLANTED = 100, 65, (0.1, 0.3)
ROUNDS, MOST_TOKENS = 4, 160
CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
SETTINGS = {"max_tokens": 1536}
"""The longest conversation has 1,200 tokens."""


class Case(NamedTuple):
    """What all arms share."""

    folder: Path
    plan: RunPlan
    train: list[Sample]
    """In random order."""
    held_out: list[Sample]


class Talk(NamedTuple):
    """What a model did with a held-out request."""

    results: list[str]
    """Of its calls, in order."""
    text: str
    """All that it wrote."""


def plant_errors(share: float) -> Any:
    """Replace a share of the arguments by those of the same name in another conversation, if they differ."""

    def change(rows: Rows, rng: Random) -> None:
        given: dict[str, list[Any]] = {}
        for call_ in list_calls(rows):
            for name, value in call_["arguments"].items():
                given.setdefault(name, []).append(value)
        for call_ in list_calls(rows):
            for name, value in call_["arguments"].items():
                if rng.random() < share and (others := [one for one in given[name] if one != value]):
                    call_["arguments"][name] = rng.choice(others)

    return change


def list_calls(rows: Rows) -> list[dict[str, Any]]:
    return [one for row in rows for message in row["messages"] for one in message.get("tool_calls", [])]


def shuffle_answers(rows: Rows, rng: Random) -> None:
    """Give each request what follows that of another conversation."""
    ends = [row["messages"][2:] for row in rows]
    rng.shuffle(ends)
    for row, end in zip(rows, ends, strict=True):
        row["messages"] = [*row["messages"][:2], *end]


ARMS = {
    **{str(rows): Arm(rows) for rows in (32, 65)},
    "all": Arm(0, seeds=SEEDS),
    **{f"planted {100 * share:.0f}": Arm(PLANTED_ROWS, change=plant_errors(share)) for share in PLANTED},
    "shuffled": Arm(PLANTED_ROWS, change=shuffle_answers),
    "half": Arm(0, HALF),
}
PANEL_ARMS = ("all", "half")


def open_case(folder: Path) -> Case:
    """The case, from a replayed run."""
    runs = folder / "runs"
    if not list(runs.glob("*/dataset/*.parquet")):
        call("generate", str(RECIPE), "--runs-dir", str(runs), "--resume")
    (manifest,) = runs.glob("*/manifest.json")
    kept = [one for one in read_finished_samples(RunDir(manifest.parent)) if one.state is SampleStatus.kept]
    Random(49).shuffle(kept)
    return Case(folder, load_recipe_plan(str(RECIPE)), kept[HELD_OUT:], kept[:HELD_OUT])


def load_tools() -> ModuleType:
    spec = importlib.util.spec_from_file_location("office", TOOLS)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def execute(tools: ModuleType, world: Any, offered: Any, asked: ToolCall) -> str:
    """The result of a call as a run has it."""
    if fault := find_call_fault(asked, offered, strict=True):
        return f"error: {fault}"
    try:
        return json.dumps(getattr(tools, asked.name)(world, **asked.arguments), ensure_ascii=False)
    except (LookupError, ValueError, IndexError) as error:
        return f"error: {error.args[0] if error.args else error}"


def read_calls(text: str) -> list[ToolCall] | None:
    """The calls of a reply in the Hermes form; None if one cannot be read."""
    found = []
    for one in CALL.findall(text):
        try:
            value = json.loads(one)
            found.append(ToolCall(name=value["name"], arguments=value["arguments"]))
        except (ValueError, TypeError, KeyError):
            return None
    return found


async def talk(context: LocalAgentContext, sample: Sample) -> Talk:
    """Let the model answer the request of a sample, with executed calls."""
    tools = load_tools()
    world = tools.make_world(int(text_digest(f"{context.recipe.seed}/world/{sample.seed.index}", length=7), 16))
    offered = read_parameter_schemas(sample.candidate.fields["tools"])
    messages, results, written = list(sample.candidate.messages[:2]), [], []
    for step in range(ROUNDS + 1):
        teacher = context.recipe.teachers[EVALUATED_TEACHER]
        question = build_question(context.recipe, teacher, sample.seed, messages, 0, MOST_TOKENS)
        key = CallKey(sample=sample.seed.index, seed=sample.seed.digest, agent="evaluation", revision=0, attempt=step)
        request = context.dispatcher.request_digest(EVALUATED_TEACHER, question)
        traced = find_trace().trace_call(teacher, key)
        reply = await context.dispatcher.answer(EVALUATED_TEACHER, question, request, sample.seed.index, traced)
        written.append(reply.text)
        calls = read_calls(reply.text)
        if not calls:
            if calls is None:
                results.append("unreadable call")
            break
        messages.append(Message(role="assistant", content="", tool_calls=tuple(calls)))
        for one in calls:
            results.append(execute(tools, world, offered, one))
            messages.append(Message(role="tool", name=one.name, content=results[-1]))
    return Talk(results, "\n".join(written))


async def talk_all(case: Case, model: TeacherConfig) -> list[Talk]:
    plan = case.plan.with_recipe(teachers={**case.plan.recipe.teachers, EVALUATED_TEACHER: model})
    plan = plan.with_generator(EVALUATED_TEACHER)
    async with open_scratch_context(plan, SESSION.stop, case.folder / "replies") as context:

        async def one(sample: Sample) -> Talk:
            async with context.dispatcher.admit_sample(sample.seed.index):
                return await talk(context, sample)

        return await asyncio.gather(*(one(sample) for sample in case.held_out))


def list_results(sample: Sample) -> list[str]:
    return [message.content for message in sample.candidate.messages if message.role == "tool"]


def is_right(sample: Sample, results: Sequence[str]) -> bool:
    return list(map(drop_problem, results)) == list(map(drop_problem, list_results(sample)))


def drop_problem(result: str) -> Any:
    try:
        value = json.loads(result)
    except ValueError:
        return result
    return {name: one for name, one in value.items() if name != "problem"} if isinstance(value, dict) else value


def measure_arm(case: Case, name: str, seed: int) -> TeacherConfig:
    """Train the student of an arm."""
    arm = ARMS[name]
    file, student = (case.folder / f"{name.replace(' ', '-')}-{seed}{end}" for end in (".jsonl", ""))
    rows: Rows = [
        {"messages": [message.model_dump(mode="json") for message in sample.candidate.messages]}
        for sample in case.train[: arm.rows or None]
    ]
    arm.change(rows, Random(seed))
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    config = StudentConfig.model_validate({**arm.student, **SETTINGS})
    distill_dataset(file, student, config, seed, SESSION.print_unless_stopped)
    return configure_student_as_teacher(export_student(student, "q8_0").path, TEACHER)


def record(case: Case, name: str, seed: int, model: TeacherConfig) -> float:
    talks = asyncio.run(talk_all(case, model))
    panel = None
    if name in (START, *PANEL_ARMS):
        tasks = build_general_panel(case.plan, PANEL)
        panel = float(mark_passed(asyncio.run(ask_panel(tasks, model)).judged).mean())
    write_text(case.folder / f"{name}-{seed}.answers.json", json.dumps([one.text for one in talks], indent=1))
    right = [is_right(sample, one.results) for sample, one in zip(case.held_out, talks, strict=True)]
    found = read_json(RESULTS) if RESULTS.exists() else {}
    rows = len(case.train[: ARMS[name].rows or None]) if name in ARMS else 0
    found[f"{name}, seed {seed}"] = {
        "machine": describe_measurement(), "panel": panel, "rows": rows,
        "with_calls": "".join(str(int(ok)) for ok, one in zip(right, case.held_out, strict=True) if list_results(one)),
        "without_calls": "".join(str(int(ok)) for ok, one in zip(right, case.held_out, strict=True) if not list_results(one)),
        "made_calls": sum(bool(one.results) for one in talks),
        "failed_calls": sum(text.startswith(("error: ", "unreadable")) for one in talks for text in one.results),
        "calls": sum(len(one.results) for one in talks),
    }  # fmt: skip
    write_text(RESULTS, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return float(np.mean(right))


def measure(arms: Sequence[str], trainings: int) -> None:
    """Measure the arms that `real-tools.json` lacks."""
    with open_folder("STILLHOUSE_TOOLS_CASE") as folder:
        case = open_case(folder)
        for name in arms:
            for seed in (ARMS[name].seeds if name in ARMS else SEEDS[:1])[:trainings]:
                if RESULTS.exists() and f"{name}, seed {seed}" in read_json(RESULTS):
                    continue
                model = TEACHER if name == START else measure_arm(case, name, seed)
                rate = record(case, name, seed, model)
                SESSION.print_unless_stopped(f"{name}, seed {seed}: {rate:.1%} of the conversations right")


def table() -> str:
    """The results, an arm in each row, with 95 % intervals of a bootstrap over conversations and trainings."""
    found = read_json(RESULTS)
    lines = [
        "| arm | rows | trainings | right, with calls | right, without calls | failed calls | panel |",
        "|---" * 7 + "|",
    ]
    for name in (START, *ARMS):
        ours = [one for key, one in found.items() if key.rpartition(",")[0] == name]
        if ours:
            cells = [name, str(ours[0]["rows"]), str(len(ours))]
            for kind in ("with_calls", "without_calls"):
                cells.append(describe_rate(np.array([[int(mark) for mark in one[kind]] for one in ours], dtype=float)))
            cells.append(f"{sum(one['failed_calls'] for one in ours)} of {sum(one['calls'] for one in ours)}")
            panels = [one["panel"] for one in ours if one["panel"] is not None]
            lines.append(f"| {' | '.join(cells)} | {f'{np.mean(panels):.1%}' if panels else ''} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join((START, *ARMS)))
    parser.add_argument("--trainings", type=int, default=len(SEEDS), help="of an arm, at most")
    options = parser.parse_args()
    measure(options.arms.split(","), options.trainings)
    sys.stdout.write(f"{table()}\n")


if __name__ == "__main__":
    main()
