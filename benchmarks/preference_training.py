"""What `preference-pairs` yields with the embedded teacher, and what DPO on its pairs adds to SFT on the same rows.

`STILLHOUSE_PAIRS` names a folder for the run and its answers, so that a stopped benchmark resumes. The arms are declared in
`preference-pairs.json`. Control: both trainings with chosen and rejected exchanged.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby, islice
from statistics import median
from typing import NamedTuple

from benchmarks.ablation import HELD_OUT, RULES, call
from benchmarks.machine import describe_measurement
from benchmarks.retention import open_folder
from core.runs.run_dir import RunDir
from core.sample import Message, SampleStatus, parse_sample_index, remove_thinking
from flows.data.curated_run import read_finished_samples
from flows.data.preference_pairs import PreferencePair, find_preference_pairs
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import SESSION
from plugins.ablation.ablation import join_checks
from plugins.ablation.answers import Answers
from plugins.ablation.arms import AGENT_REASONS, ArmRows
from plugins.ablation.results import AnsweredRequests, format_points
from plugins.ablation.statistics import describe_gain, estimate_gain, estimate_pass_rate
from plugins.ablation.task import AblationOptions, AblationTask, ArmTraining, prepare_ablation

RECIPE, CANDIDATES, SEED = "preference-pairs", 240, 8
STUDENT = {
    "start": "layers", "layers": 30, "objective": "sft", "epochs": 2, "learning_rate": 5e-5, "average": 0.75,
}  # fmt: skip
"""That of `constrained-instructions` without replay; each row is seen twice."""
DPO = {"sft": 1.0, "dpo": 0.5}
"""Objectives of both arms with pairs: those that docs/distillation.md gives for a run."""
FIRST = 144
"""Candidates from which the trial's rows come."""
REQUESTS, PANEL, TRAINING_SEED = 200, 64, 1
START, SFT, ADDED = "start", "SFT", "SFT and DPO"
WORSE, EXCHANGED = "control: SFT on the rejected answers", "control: SFT and DPO, chosen and rejected exchanged"
READINGS: dict[str, Callable[[AnsweredRequests], list[bool]]] = {
    "passed": lambda one: one.passed,
    "rules and topic": lambda one: join_checks(one, RULES),
    "`near_topic`": lambda one: one.by_check["near_topic"],
    "`adds_words`": lambda one: one.by_check["adds_words"],
    "panel": lambda one: one.panel,
}


class PairedRows(NamedTuple):
    """Kept answers, each with the clearest worse answer to the same prompt."""

    ids: list[str]
    chosen: list[list[Message]]
    rejected: list[list[Message]]


def table() -> str:
    """As Markdown."""
    with open_folder("STILLHOUSE_PAIRS") as folder:
        if not list(folder.glob(f"{RECIPE}-*/manifest.json")):
            settings = ["--set", f"samples={CANDIDATES}", "--set", f"seed={SEED}"]
            call("run", RECIPE, "--runs-dir", str(folder), *settings)
        (manifest,) = folder.glob(f"{RECIPE}-*/manifest.json")
        run = RunDir(manifest.parent)
        task = prepare_task(run)
        rows = draw_rows(run, task)
        lines = [
            describe_measurement(),
            "",
            describe_yield(run, task),
            "",
            *format_arms(measure_arms(task, rows), len(rows.ids)),
        ]
    return "\n".join(lines)


def prepare_task(run: RunDir) -> AblationTask:
    """The held-out requests, panel and checks; the run's recipe has no student, so one is added."""
    recipe = run.read_recipe()
    settings = [f"student.{name}={json.dumps(value)}" for name, value in STUDENT.items()]
    plan = load_recipe_plan(RECIPE, [f"samples={recipe.samples}", f"seed={recipe.seed}", *settings])
    options = AblationOptions("d,i", "equal", 1, REQUESTS, PANEL, HELD_OUT)
    task = prepare_ablation(run, options, plan, run.path.parent, SESSION)
    return replace(task, validation=[])  # drawn from the rows instead, the same for every arm


def describe_yield(run: RunDir, task: AblationTask) -> str:
    """Candidates, kept answers and pairs of a run, and what they cost."""
    recipe = run.read_recipe()
    samples = list(read_finished_samples(run))
    found = find_preference_pairs(samples, task.plan.family, recipe)
    tokens = sum(one.usage.prompt_tokens + one.usage.completion_tokens for one in samples)
    written = sum(one.usage.completion_tokens for one in samples)
    kinds = Counter(pair.kind for pair in found.pairs)
    gaps = [pair.gap for pair in found.pairs]
    pairs = len(found.pairs)
    return (
        f"{len(samples)} candidates for {len(samples) // recipe.answers_per_seed} prompts; kept "
        f"{sum(one.state is SampleStatus.kept for one in samples)}; prompts with a kept answer {found.prompts}; pairs {pairs} "
        f"({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())}); critic gap median {median(gaps):.2f}, "
        f"from {min(gaps):.2f} to {max(gaps):.2f}, failed checks of the rejected answer "
        f"{dict(sorted(Counter(len(pair.rejected.faults) for pair in found.pairs).items()))}; teacher tokens {tokens:,} "
        f"({written:,} written), {tokens / pairs:,.0f} for each pair"
    )


def draw_rows(run: RunDir, task: AblationTask) -> PairedRows:
    """The answers among the first candidates that passed checks and critic, each with a worse answer to the same prompt."""
    pairs: list[PreferencePair] = []
    recipe = run.read_recipe()
    first = islice(read_finished_samples(run), FIRST)
    for _, group in groupby(first, key=lambda one: parse_sample_index(one.id) // recipe.answers_per_seed):
        siblings = [one for one in group if one.state is not SampleStatus.failed]
        for chosen in siblings:
            if chosen.reason not in AGENT_REASONS:
                # A run pairs each prompt once: here each accepted answer, with the others as if they were dropped.
                others = [one.model_copy(update={"state": SampleStatus.dropped}) for one in siblings]
                others[siblings.index(chosen)] = chosen.model_copy(update={"state": SampleStatus.kept})
                pairs += find_preference_pairs(others, task.plan.family, recipe).pairs[:1]
    return PairedRows(
        [pair.chosen.id for pair in pairs],
        [remove_thinking([*pair.chosen.prompt, *pair.chosen.response]) for pair in pairs],
        [remove_thinking([*pair.rejected.prompt, *pair.rejected.response]) for pair in pairs],
    )


def measure_arms(task: AblationTask, rows: PairedRows) -> dict[str, AnsweredRequests]:
    """The answers of each arm; what is stored is not measured again."""
    both = task.config.model_copy(update={"objective": DPO})
    found: dict[str, AnsweredRequests] = {}
    for name, config in {SFT: task.config, ADDED: both, WORSE: task.config, EXCHANGED: both}.items():
        taught, other = (rows.rejected, rows.chosen) if name in (WORSE, EXCHANGED) else (rows.chosen, rows.rejected)
        letters = "di" if name == EXCHANGED else "d"  # the start is asked last
        arm = replace(task, config=config, declared=task.declared.model_copy(update={"arms": letters}))
        training = ArmTraining(
            "d", "equal", TRAINING_SEED, ArmRows(rows.ids, taught, 0, other if config is both else ())
        )
        answers = Answers(arm, SESSION)
        answers.measure_training(training)
        for key, digest in ((name, arm.digest_training(training)), (START, arm.digest_model("i"))):
            if answered := answers.find(digest):
                found[key] = answered
    return found


def format_arms(found: Mapping[str, AnsweredRequests], rows: int) -> Iterator[str]:
    """A table of pass rates, and the differences of the arms."""
    yield f"| arm | rows | {' | '.join(READINGS)} | words | seconds |"
    yield "|---" * (4 + len(READINGS)) + "|"
    for name, one in found.items():
        rates = [estimate_pass_rate([read(one)]) for read in READINGS.values()]
        cells = [rate.format(lambda value: f"{100 * value:.1f}") if rate else "" for rate in rates]
        trained = f"{one.seconds:.0f}" if one.seconds else ""
        yield f"| {name} | {rows if one.seconds else ''} | {' | '.join(cells)} | {median(one.words):.0f} | {trained} |"
    yield ""
    for first, second in ((SFT, START), (ADDED, SFT), (SFT, WORSE), (ADDED, EXCHANGED), (EXCHANGED, WORSE)):
        gains = [
            f"{reading} {describe_gain(estimate_gain([read(found[first])], [read(found[second])]), format_points)}"
            for reading, read in READINGS.items()
        ]
        yield f"- {first} minus {second}: {'; '.join(gains)}"
