"""The neural case: the embedded SmolLM2 is trained on real sentences, and each later generation on the output of the previous
one.

Every generation starts from the same weights, as in Shumailov et al. 2024, or, as a promoted student, from those of the previous
one. Its sentences are compared with real sentences that no model was trained on. Students and sentences are kept in FOLDER, so
that a stopped benchmark resumes.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.collapse import tables
from benchmarks.distillation import sample_answers
from benchmarks.machine import describe_measurement
from core.config.recipe import ENGLISH_REFERENCE
from core.config.students import StudentConfig
from core.project_files import PROJECT
from core.runs.records import CollapseRecord
from core.sample import Message
from core.storage.atomic_files import read_json, write_json
from filters.collapse.assessment import assess_texts
from filters.collapse.tail_trend import find_lineage_trend
from flows.terminal.text_format import format_count
from students.init.start_model import StartModel
from students.training.student_training import train_student

FOLDER = tables.FOLDER / "neural"
SENTENCES = 1_200
"""Sentences that each generation is trained on, and that it writes."""
GENERATIONS = 3
TOKENS = 60
SEEDS = (1, 2, 3)
PROMPT = "Write a sentence of a novel."
STUDENT = StudentConfig(start="layers", layers=30, epochs=1, learning_rate=1e-4, max_tokens=96, batch_size=16)
METRICS = ("hapax_mass", "tail_coverage", "distinct_4", "surprise", "types", "self_bleu")


class Arm(NamedTuple):
    temperature: float
    promoted: bool = False
    """Whether each generation starts from the weights of the previous one, as a student that took its teacher's place."""


ARMS = {"temperature 1": Arm(1.0), "temperature 0.7": Arm(0.7), "temperature 1, promoted": Arm(1.0, promoted=True)}


class NeuralGeneration(NamedTuple):
    generation: int
    loss: float
    """Loss on held-out training text, in nats per token."""
    record: CollapseRecord


Study = dict[str, dict[int, list[NeuralGeneration]]]
"""Generations by arm and seed."""


def table() -> str:
    texts = [json.loads(line)["text"] for line in (PROJECT / ENGLISH_REFERENCE).read_text().splitlines()]
    study: Study = {arm: {} for arm in ARMS}
    for seed in SEEDS:
        shuffled = list(texts)
        random.Random(seed).shuffle(shuffled)
        for arm in ARMS:
            study[arm][seed] = train_generations(shuffled, arm, seed, FOLDER / f"seed {seed}")
    return format_page(study)


def train_generations(texts: Sequence[str], name: str, seed: int, folder: Path) -> list[NeuralGeneration]:
    """The first model, trained on real sentences, is shared by all arms."""
    arm, generations = ARMS[name], []
    sentences, real = list(texts[:SENTENCES]), texts[SENTENCES:]
    before: Path | None = None
    for generation in range(1, GENERATIONS + 1):
        out = folder / (f"{generation}, {name}" if generation > 1 else "1")
        output = folder / (f"{generation}, {name}.json" if generation > 1 else f"1 at {arm.temperature}.json")
        conversations = [
            [Message(role="user", content=PROMPT), Message(role="assistant", content=text)] for text in sentences
        ]
        student = (
            STUDENT.model_copy(update={"start": str(before), "layers": None}) if arm.promoted and before else STUDENT
        )
        trained = train_student(conversations, student, out, seed=seed, progress=print_progress)
        if not output.exists():
            write_json(output, generate_sentences(out, arm.temperature, seed + 1_000_000 * generation))
        sentences, before = read_json(output), out
        record = assess_texts(sentences, real, name="real", seed=seed)
        generations.append(NeuralGeneration(generation, trained.loss_after, record))
        print_progress(f"seed {seed}, {name}, generation {generation}: {record.verdict}, {sentences[:3]}")
    return generations


def generate_sentences(student: Path, temperature: float, seed: int) -> list[str]:
    model = StartModel(
        AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student), "", None, ""
    )
    answers = sample_answers(model, [[Message(role="user", content=PROMPT)]] * SENTENCES, TOKENS, seed, temperature)
    return [text for text in answers if text.strip()]


def print_progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def format_page(study: Study) -> str:
    head = ["", "generation", "verdict by seed", "loss of rare words by seed", "loss", *METRICS]
    lines = []
    for arm, by_seed in study.items():
        for found in zip(*by_seed.values(), strict=True):
            metrics = [{metric.name: metric for metric in one.record.metrics} for one in found]
            lines.append(
                (
                    arm,
                    found[0].generation,
                    ", ".join(str(one.record.verdict) for one in found),
                    ", ".join(f"{one.record.tail or 0.0:.1f}" for one in found),
                    f"{mean(one.loss for one in found):.2f}",
                    *(
                        f"{mean(m[n].candidate for m in metrics):.3g} ({mean(m[n].reference for m in metrics):.3g})"
                        for n in METRICS
                    ),
                )
            )
    trends = "\n".join(
        f"- {arm}, seed {seed}: {find_lineage_trend([generation.record for generation in generations])}"
        for arm, by_seed in study.items()
        for seed, generations in by_seed.items()
    )
    return f"""{describe_measurement()}. `STILLHOUSE_CORPORA=FOLDER python -m benchmarks collapse_neural`

SmolLM2-135M-Instruct, trained for each generation on the {SENTENCES:,} sentences of the previous generation (the
first on real sentences) for {format_count(STUDENT.epochs, "epoch")}, then asked for the same number. Each generation starts from
the same weights; *promoted*: from those of the previous generation. In parentheses real text of the same topics and lengths.
*Loss of rare words* is in deviations of real text; *loss* in nats per token, on text held out of its training. {len(SEEDS)} seeds
of sentences, training and output; numbers are means.

{tables.format_table(head, lines)}

The trend:

{trends}"""
