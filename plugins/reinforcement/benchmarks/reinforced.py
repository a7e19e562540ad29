"""What reinforcement adds to a small student, next to other uses of the same processor time.

Declared before seeds 1 and 2 were run:

- Recipe `constrained-instructions`. Students of new weights, 4 layers, 128 wide, 1,024 tokens, since a step of the recipe's own
  student takes too long (`--step` measures one). A program, no model, wrote their 450 rows: sentences about the topic that ignore
  the rules; rows are kept that pass all checks. So the start knows the form, and the rules only as far as rows show them.
- Arms, all from one start and at one learning rate: `grpo` (640 requests), `shuffled` (the same rewards, each to a random answer
  to the same request), `rejection` (the same sampling, then the likelihood of the answers that keep every rule), `rows` (more
  training on the 450 rows). The last two stop at the processor seconds of `grpo`.
- Seeds 1 and 2, with rows, start and requests of their own. Seed 0 chose the start's epochs, 50 of 10 and 50, and the learning
  rate of `grpo`, 3e-4 of 1e-4, 3e-4 and 1e-3.
- Each is asked 150 held-out requests with the recipe's sampling in llama.cpp, the 64 tasks of the general panel, and the held-out
  checks of `benchmarks/held_out_checks.py`, which reward nothing.
- Goal: `grpo` passes 8 points more than the start, with an interval above 0, and more than every other arm; `shuffled` gains less
  than 4; no held-out check falls by more than 3 points; the panel loses at most 2 points.

STILLHOUSE_REINFORCED=FOLDER nice python -m plugins.reinforcement.benchmarks.reinforced
"""

import argparse
import asyncio
import copy
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from agents.checks.registry import bind_checks
from agents.planning.run_plan import RunPlan
from agents.planning.seeds import RunSeeds
from agents.studies.general_panel import ask_general_panel, build_general_panel
from agents.studies.held_out_evaluation import evaluate_held_out, held_out_seeds, judge_by_check
from benchmarks.machine import describe_measurement
from core.config.agents import VerifierConfig
from core.config.students import StudentConfig
from core.intervals import estimate_small_mean
from core.project_files import PROJECT
from core.sample import Message, Seed
from core.storage.atomic_files import read_record, write_text
from flows.data.student_files import configure_student_as_teacher
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import SESSION
from plugins.reinforcement.config import REQUESTS_PER_STEP
from plugins.reinforcement.grading import build_reward, grade_answer
from plugins.reinforcement.policy_training import GROUP, PolicySettings, PolicyTraining, Reward, SampledAnswer
from students.chat_encoding import (
    EncodedConversation,
    encode_conversation,
    find_pad_id,
    find_stop_ids,
    render_chat,
)
from students.generation import sample_texts
from students.gguf_export import export_gguf, read_student
from students.predictions import build_batch, compute_token_loss
from students.start_model import TEACHER_LAYERS, start_from_layers
from students.training.student_training import train_student

ARMS = ("start", "grpo", "shuffled", "rejection", "rows")
ROWS, REQUESTS, HELD_OUT, PANEL, BATCH, LONGEST = 450, 640, 150, 64, 32, 64
RATE = 3e-4
STUDENT = {
    "start": "random", "layers": 4, "hidden_size": 128, "vocabulary": 1024, "epochs": 50, "batch_size": 16,
    "learning_rate": 2e-3, "precision": "float32",
}  # fmt: skip
CHECKS = ("near_topic", "adds_words")
SENTENCES = (
    "Many people enjoy {topic} with friends.", "It brings {a} and {b} to mind.", "You may think of {a} first.",
    "We remember {a}, {b} and quiet hours!", "Nobody forgets the {a} near the {b}.", "At 9 it begins with {a}.",
    "The {a} waits while the {b} follows.", "There is always time for {topic}.", "A little {a} helps, and {b} too.",
    "{Topic} can make a slow day better.", "Every {a} tells a story.", "Once you find {a}, you want {b} as well.",
)  # fmt: skip


class MeasuredArm(BaseModel):
    seconds: float
    """Of the processor, for learning."""
    rewards: list[float]
    """Mean of each step; empty where nothing is sampled."""
    passed: list[bool]
    by_check: dict[str, list[bool]]
    panel: list[bool]
    words: float


@dataclass
class ReinforcedCase:
    seed: int
    plan: RunPlan
    asked: list[Seed]
    rewarded: list[Seed]
    rows: list[list[Message]]
    folder: Path


def write_text_by_program(seed: Seed, rng: random.Random) -> str:
    """One to three sentences about the topic. They ignore the rules."""
    first, second = rng.sample(seed.data["words"], 2)
    topic = seed.data["topic"]
    values = {"topic": topic, "Topic": topic[0].upper() + topic[1:], "a": first, "b": second}
    return " ".join(text.format(**values) for text in rng.sample(SENTENCES, rng.randint(1, 3)))


def write_kept_rows(plan: RunPlan, seed: int) -> list[list[Message]]:
    seeds = RunSeeds(replace(plan.with_recipe(samples=6 * ROWS), first_seed=0), "0" * 16)
    rng, rows = random.Random(f"rows {seed}"), list[list[Message]]()
    for place in range(len(seeds)):
        text = write_text_by_program(seeds[place], rng)
        if asyncio.run(grade_answer(plan, seeds[place], SampledAnswer(place, text, finished=True))) == 1:
            rows.append([*(plan.family.questions(seeds[place]) or ()), Message(role="assistant", content=text)])
        if len(rows) == ROWS:
            return rows
    raise RuntimeError(f"{len(rows)} rows, {ROWS} needed; write better sentences")


def open_reinforced_case(seed: int, folder: Path) -> ReinforcedCase:
    plan = load_recipe_plan(
        "constrained-instructions", [f"samples={6 * ROWS}", f"seed={seed}", f"agents.generator.max_tokens={LONGEST}"]
    )
    place = folder / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    seeds = held_out_seeds(plan, HELD_OUT + REQUESTS)
    return ReinforcedCase(seed, plan, seeds[:HELD_OUT], seeds[HELD_OUT:], write_kept_rows(plan, seed), place)


def shuffle_rewards(reward: Reward) -> Reward:
    """Each reward to a random answer to the same request."""

    async def shuffled(answers: Sequence[SampledAnswer]) -> list[float]:
        rewards, rng = await reward(answers), random.Random(answers[0].request)
        return [
            one
            for first in range(0, len(rewards), GROUP)
            for one in rng.sample([*rewards[first : first + GROUP]], GROUP)
        ]

    return shuffled


class Learning:
    """A copy of the start, learning by likelihood for some processor seconds."""

    def __init__(self, case: ReinforcedCase, model: Any, tokenizer: Any) -> None:
        self.case, self.model, self.tokenizer = case, model, tokenizer
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0)

    def learn(self, batch: Sequence[EncodedConversation]) -> None:
        compute_token_loss(self.model, build_batch(batch, find_pad_id(self.tokenizer))).mean.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def learn_rows(self, seconds: float) -> list[float]:
        encoded = [encode_conversation(row, self.tokenizer, 256) for row in self.case.rows]
        usable, rng = [one for one in encoded if isinstance(one, EncodedConversation)], random.Random(self.case.seed)
        began = time.process_time()
        while time.process_time() - began < seconds:
            self.learn(rng.sample(usable, BATCH))
        return []

    def learn_own_best(self, seconds: float, prompts: Sequence[tuple[int, ...]]) -> list[float]:
        stop, reward = find_stop_ids(self.tokenizer), build_reward(self.case.plan, self.case.rewarded)
        began, step, means = time.process_time(), 0, list[float]()
        while time.process_time() - began < seconds:
            first = step * REQUESTS_PER_STEP % len(prompts)
            asked = [place for place in range(first, first + REQUESTS_PER_STEP) for _ in range(GROUP)]
            answers = sample_texts(
                self.model, [prompts[place] for place in asked], stop=stop, pad=find_pad_id(self.tokenizer),
                max_new_tokens=LONGEST, temperature=1.0, seed=step,
            )  # fmt: skip
            texts = [
                SampledAnswer(place, self.tokenizer.decode(list(ids), skip_special_tokens=True), ids[-1] in stop)
                for place, ids in zip(asked, answers, strict=True)
            ]
            rewards = asyncio.run(reward(texts))
            kept = [
                EncodedConversation(prompts[place] + ids, (False,) * len(prompts[place]) + (True,) * len(ids))
                for place, ids, one in zip(asked, answers, rewards, strict=True) if one == 1
            ]  # fmt: skip
            if kept:
                self.learn(kept)
            means.append(sum(rewards) / len(rewards))
            step += 1
        return means


def measure_recipe_step() -> str:
    """The processor seconds of a step of the embedded teacher, as the recipe's student begins, with its learning rate."""
    plan = load_recipe_plan("constrained-instructions", [])
    seeds, start = held_out_seeds(plan, REQUESTS_PER_STEP), start_from_layers(TEACHER_LAYERS)
    texts = [render_chat(plan.family.questions(seed) or (), start.tokenizer, answer_next=True) for seed in seeds]
    prompts = [tuple(start.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    settings = PolicySettings(1e-5, plan.recipe.agents.generator.max_tokens, bf16=True, seed=0)
    training = PolicyTraining(start.model, start.tokenizer, prompts, build_reward(plan, seeds), settings)
    began = time.process_time()
    line = asyncio.run(training.run_step(0))
    spent = time.process_time() - began
    return f"{start.model.num_parameters() / 1e6:.0f}M parameters: {spent:.0f} s of a processor for {line['tokens']:.0f} tokens"


def train_arm(case: ReinforcedCase, arm: str, start: Path, seconds: float) -> tuple[Any, Any, float, list[float]]:
    """The model, its tokenizer, processor seconds and mean rewards. Arms without a number of steps stop after `seconds`."""
    model, tokenizer = read_student(start)
    questions = [case.plan.family.questions(seed) or () for seed in case.rewarded]
    texts = [render_chat(messages, tokenizer, answer_next=True) for messages in questions]
    prompts = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    began = time.process_time()
    rewards: list[float] = []
    if arm in ("grpo", "shuffled"):
        reward: Reward = build_reward(case.plan, case.rewarded)
        settings = PolicySettings(RATE, LONGEST, bf16=False, seed=case.seed)
        used = shuffle_rewards(reward) if arm == "shuffled" else reward
        training = PolicyTraining(model, tokenizer, prompts, used, settings)
        log = asyncio.run(training.run(case.folder / f"{arm}.weights", arm, SESSION.print_message, lambda: None))
        rewards = [line["reward"] for line in log]
    elif arm == "rows":
        Learning(case, model, tokenizer).learn_rows(seconds)
    elif arm == "rejection":
        rewards = Learning(case, model, tokenizer).learn_own_best(seconds, prompts)
    return model, tokenizer, time.process_time() - began, rewards


def measure_reinforced(case: ReinforcedCase, arm: str) -> MeasuredArm:
    file, start = case.folder / f"{arm}.json", case.folder / "start"
    if file.is_file():
        return read_record(file, MeasuredArm)
    train_student(
        case.rows, StudentConfig.model_validate(STUDENT), start, seed=case.seed, held_out=case.rows[:8],
        progress=SESSION.print_message, synthetic=False,
    )  # fmt: skip
    seconds = read_record(case.folder / "grpo.json", MeasuredArm).seconds if arm in ("rows", "rejection") else 0.0
    model, tokenizer, spent, rewards = train_arm(case, arm, start, seconds)
    folder = case.folder / f"{arm}.student"
    copy.deepcopy(model).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    asking = configure_student_as_teacher(export_gguf(folder, "q8_0").path, case.plan.recipe.generator_teacher)
    quiet: Callable[[int], None] = lambda _done: None  # noqa: E731
    results = asyncio.run(evaluate_held_out(case.plan, asking, case.asked, SESSION.stop, quiet))
    path = str(PROJECT / "benchmarks" / "held_out_checks.py")
    held_out, problems = bind_checks([VerifierConfig(type=name, path=path) for name in CHECKS], (), case.plan.folder)
    assert not problems, problems
    panel = asyncio.run(ask_general_panel(build_general_panel(case.plan, PANEL), asking, SESSION.stop, quiet))
    measured = MeasuredArm(
        seconds=spent,
        rewards=rewards,
        passed=[one.fault is None for one in results],
        by_check=asyncio.run(judge_by_check(held_out, case.asked, results)),
        panel=[one.fault is None for one in panel.judged],
        words=sum(len(one.answer.split()) for one in results) / len(results),
    )
    write_text(file, measured.model_dump_json() + "\n")
    SESSION.print_message(f"seed {case.seed}, {arm}: {sum(measured.passed)} of {HELD_OUT}, {spent:.0f} s")
    return measured


def format_paired_gain(before: Sequence[bool], after: Sequence[bool]) -> str:
    found = estimate_small_mean([100.0 * (b - a) for a, b in zip(before, after, strict=True)])
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})" if found else ""


def format_arms(found: dict[str, list[MeasuredArm]]) -> str:
    def join(arm: str, name: str) -> list[bool]:
        return [value for one in found[arm] for value in (one.by_check[name] if name in CHECKS else getattr(one, name))]

    columns = ("passed", *CHECKS, "panel")
    head = ["arm", "CPU s", "passed by seed", *(f"{name}, points over start" for name in columns), "words", "reward"]
    lines = [describe_measurement(), "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm, measured in found.items():
        seeds = ", ".join(f"{100 * sum(one.passed) / len(one.passed):.0f} %" for one in measured)
        cells = [
            f"{100 * sum(join(arm, name)) / len(join(arm, name)):.1f} %"
            + (f", {format_paired_gain(join('start', name), join(arm, name))}" if arm != "start" else "")
            for name in columns
        ]
        words = sum(one.words for one in measured) / len(measured)
        rewards = [one.rewards for one in measured if one.rewards]
        reward = ", ".join(f"{sum(r[:4]) / 4:.2f} → {sum(r[-4:]) / 4:.2f}" for r in rewards)
        seconds = ", ".join(f"{one.seconds:.0f}" for one in measured)
        lines.append(f"| {' | '.join([arm, seconds, seeds, *cells, f'{words:.0f}', reward])} |")
    others = [
        f"{arm} {format_paired_gain(join(arm, 'passed'), join('grpo', 'passed'))}" for arm in found if arm != "grpo"
    ]
    return "\n".join([*lines, "", f"Points that `grpo` passes over {', '.join(others)}."])


def measure_reinforcement() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--step", action="store_true", help="only measure a step of the recipe's own student")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.step:
        sys.stdout.write(f"{describe_measurement()}\n{measure_recipe_step()}\n")
        return
    found: dict[str, list[MeasuredArm]] = {}
    for seed in map(int, asked.seeds.split(",")):
        case = open_reinforced_case(seed, Path(os.environ["STILLHOUSE_REINFORCED"]).resolve())
        for arm in ARMS:
            found.setdefault(arm, []).append(measure_reinforced(case, arm))
    sys.stdout.write(f"{format_arms(found)}\n")


if __name__ == "__main__":
    measure_reinforcement()
