"""The neural case: the embedded SmolLM2 is trained on real sentences, and each later generation on what the one before wrote.

Every generation begins from the same weights, as in Shumailov et al. 2024. Its sentences are judged by real ones that no
model was trained on. Students and sentences are kept in FOLDER, so that a benchmark that was stopped goes on.
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.collapse import tables
from benchmarks.distillation import drawn_answers
from benchmarks.machine import measured_on
from core.recipe import PROJECT, CollapseConfig
from core.run import CollapseRecord
from core.sample import Message
from core.store import read_json, write_json
from core.student_config import StudentConfig
from filters.collapse import measure
from filters.trend import trend_of
from flows.words import plural
from students.start import Start
from students.train import distill

FOLDER = tables.FOLDER / "neural"
SENTENCES = 1_200
"""That each generation is trained on, and that it writes."""
GENERATIONS = 3
TOKENS = 60
SEED = 1
ASKED = "Write a sentence of a novel."
ARMS = {"temperature 1": 1.0, "temperature 0.7": 0.7}
STUDENT = StudentConfig(start="layers", layers=30, epochs=1, learning_rate=1e-4, max_tokens=96, batch_size=16)
METRICS = ("hapax_mass", "tail_coverage", "distinct_4", "surprise", "types", "self_bleu")


class Written(NamedTuple):
    generation: int
    loss: float
    """Held out of the training text, nats a token."""
    record: CollapseRecord


def table() -> str:
    texts = [json.loads(line)["text"] for line in (PROJECT / CollapseConfig().reference).read_text().splitlines()]
    random.Random(SEED).shuffle(texts)
    return page({arm: generations(texts, temperature, FOLDER) for arm, temperature in ARMS.items()})


def generations(texts: Sequence[str], temperature: float, folder: Path) -> list[Written]:
    """The first model, trained on real sentences, is one for all temperatures."""
    learnt, real, found = list(texts[:SENTENCES]), texts[SENTENCES:], []
    for generation in range(1, GENERATIONS + 1):
        out = folder / (f"{generation} at {temperature}" if generation > 1 else "1")
        told = [[Message(role="user", content=ASKED), Message(role="assistant", content=text)] for text in learnt]
        trained = distill(told, STUDENT, out, seed=SEED, progress=progress)
        said = folder / f"{generation} at {temperature}.json"
        if not said.exists():
            write_json(said, written(out, temperature, SEED + 1_000_000 * generation))
        learnt = read_json(said)
        record = measure(learnt, real, name="real", seed=SEED)
        found.append(Written(generation, trained.loss_after, record))
        progress(f"temperature {temperature}, generation {generation}: {record.verdict}, {learnt[:3]}")
    return found


def written(student: Path, temperature: float, seed: int) -> list[str]:
    model = Start(AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student), "", None, "")
    said = drawn_answers(model, [[Message(role="user", content=ASKED)]] * SENTENCES, TOKENS, seed, temperature)
    return [text for text in said if text.strip()]


def progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def page(found: dict[str, list[Written]]) -> str:
    head = ["", "generation", "verdict", "loss of rare words", "loss", *METRICS]
    lines = [" | ".join(head), "---|" + "---:|" * (len(head) - 1)]
    for arm, written in found.items():
        for one in written:
            metrics = {metric.name: metric for metric in one.record.metrics}
            cells = [f"{metrics[name].candidate:.3g} ({metrics[name].reference:.3g})" for name in METRICS]
            told = [arm, f"{one.generation}", one.record.verdict, f"{one.record.tail or 0.0:.1f}", f"{one.loss:.2f}"]
            lines.append(" | ".join([*told, *cells]))
    rows = "\n".join(f"| {line} |" if not line.startswith("---") else f"|{line}" for line in lines)
    trends = "; ".join(f"{arm}: {trend_of([one.record for one in written])}" for arm, written in found.items())
    return f"""{measured_on()}. `STILLHOUSE_CORPORA=FOLDER python -m benchmarks collapse_neural`

SmolLM2-135M-Instruct, trained anew for each generation on the {SENTENCES:,} sentences of the one before (the first on real
ones) for {plural(STUDENT.epochs, "epoch")}, then asked for as many. In parentheses real text of the same topics and
lengths. *Loss of rare words* is in deviations of real text; *loss* in nats a token, on what was held out of its training
text. One seed.

{rows}

The trend, {trends}."""
