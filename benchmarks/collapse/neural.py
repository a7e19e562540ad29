"""The neural case: the embedded SmolLM2 is trained on real sentences, and each later generation on the output of the previous
one.

Every generation starts from the same weights, as in Shumailov et al. 2024. Its sentences are compared with real sentences that no
model was trained on. Students and sentences are kept in FOLDER, so that a stopped benchmark resumes.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
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
SEED = 1
PROMPT = "Write a sentence of a novel."
ARMS = {"temperature 1": 1.0, "temperature 0.7": 0.7}
STUDENT = StudentConfig(start="layers", layers=30, epochs=1, learning_rate=1e-4, max_tokens=96, batch_size=16)
METRICS = ("hapax_mass", "tail_coverage", "distinct_4", "surprise", "types", "self_bleu")


class NeuralGeneration(NamedTuple):
    generation: int
    loss: float
    """Loss on held-out training text, in nats per token."""
    record: CollapseRecord


def table() -> str:
    texts = [json.loads(line)["text"] for line in (PROJECT / ENGLISH_REFERENCE).read_text().splitlines()]
    random.Random(SEED).shuffle(texts)
    return format_page({arm: train_generations(texts, temperature, FOLDER) for arm, temperature in ARMS.items()})


def train_generations(texts: Sequence[str], temperature: float, folder: Path) -> list[NeuralGeneration]:
    """The first model, trained on real sentences, is shared by all temperatures."""
    sentences, real, generations = list(texts[:SENTENCES]), texts[SENTENCES:], []
    for generation in range(1, GENERATIONS + 1):
        out = folder / (f"{generation} at {temperature}" if generation > 1 else "1")
        conversations = [
            [Message(role="user", content=PROMPT), Message(role="assistant", content=text)] for text in sentences
        ]
        trained = train_student(conversations, STUDENT, out, seed=SEED, progress=print_progress)
        output = folder / f"{generation} at {temperature}.json"
        if not output.exists():
            write_json(output, generate_sentences(out, temperature, SEED + 1_000_000 * generation))
        sentences = read_json(output)
        record = assess_texts(sentences, real, name="real", seed=SEED)
        generations.append(NeuralGeneration(generation, trained.loss_after, record))
        print_progress(f"temperature {temperature}, generation {generation}: {record.verdict}, {sentences[:3]}")
    return generations


def generate_sentences(student: Path, temperature: float, seed: int) -> list[str]:
    model = StartModel(
        AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student), "", None, ""
    )
    answers = sample_answers(model, [[Message(role="user", content=PROMPT)]] * SENTENCES, TOKENS, seed, temperature)
    return [text for text in answers if text.strip()]


def print_progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def format_page(arms: dict[str, list[NeuralGeneration]]) -> str:
    head = ["", "generation", "verdict", "loss of rare words", "loss", *METRICS]
    lines = [" | ".join(head), "---|" + "---:|" * (len(head) - 1)]
    for arm, generations in arms.items():
        for generation in generations:
            metrics = {metric.name: metric for metric in generation.record.metrics}
            cells = [f"{metrics[name].candidate:.3g} ({metrics[name].reference:.3g})" for name in METRICS]
            record = generation.record
            start = [
                arm,
                f"{generation.generation}",
                record.verdict,
                f"{record.tail or 0.0:.1f}",
                f"{generation.loss:.2f}",
            ]
            lines.append(" | ".join([*start, *cells]))
    rows = "\n".join(f"| {line} |" if not line.startswith("---") else f"|{line}" for line in lines)
    trends = "; ".join(
        f"{arm}: {find_lineage_trend([generation.record for generation in generations])}"
        for arm, generations in arms.items()
    )
    return f"""{describe_measurement()}. `STILLHOUSE_CORPORA=FOLDER python -m benchmarks collapse_neural`

SmolLM2-135M-Instruct, trained anew for each generation on the {SENTENCES:,} sentences of the previous generation
(the first on real sentences) for {format_count(STUDENT.epochs, "epoch")}, then asked for the same number. In parentheses real
text of the same topics and lengths. *Loss of rare words* is in deviations of real text; *loss* in nats per token, on text held
out of its training. One seed.

{rows}

The trend, {trends}."""
