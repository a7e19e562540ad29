"""The neural case: the embedded SmolLM2 is trained on real sentences, and each later generation on the output of the previous
one.

Every generation starts from the same weights, as in Shumailov et al. 2024, or, as a promoted student, from those of the previous
one. Its sentences are compared with real sentences that no model was trained on. Students and sentences are kept in FOLDER, so
that a stopped benchmark resumes.
"""

import hashlib
import json
import multiprocessing
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.collapse import tables
from benchmarks.machine import describe_measurement
from core.config.recipe import ENGLISH_REFERENCE
from core.config.students import StudentConfig
from core.project_files import PROJECT
from core.runs.records import CollapseRecord
from core.sample import Message
from core.storage.atomic_files import hash_file, read_json, write_json
from filters.collapse.assessment import assess_texts
from filters.collapse.tail_trend import find_lineage_trend
from flows.terminal.text_format import format_count
from students.chat_encoding import find_stop_ids, render_chat
from students.training.student_training import train_student

FOLDER = tables.FOLDER / "neural"
SENTENCES = 1_060
"""Sentences that each generation is trained on, and that it writes: the gate compares at least 1,000 of them."""
TOKENS = 60
ANSWERS_AT_ONCE = 265
SEEDS = (1, 2, 3)
REQUEST = (Message(role="system", content="You write novels."), Message(role="user", content="Write a sentence."))
"""A system message of its own: the template of the start adds a longer one to a conversation without."""
STUDENT = StudentConfig(start="layers", layers=30, epochs=1, learning_rate=1e-4, max_tokens=96, batch_size=16)
METRICS = ("hapax_mass", "tail_coverage", "distinct_4", "surprise", "types", "self_bleu")


class Arm(NamedTuple):
    temperature: float
    generations: int = 3
    promoted: bool = False
    """Whether each generation starts from the weights of the previous one, as a student that took its teacher's place."""


ARMS = {
    "temperature 1": Arm(1.0),
    "temperature 1, promoted": Arm(1.0, promoted=True),
    "temperature 0.7": Arm(0.7, generations=1),
}
PROCESSES = 2
"""Trainings at a time, each with one thread."""


class NeuralGeneration(NamedTuple):
    generation: int
    loss: float
    """Loss on held-out training text, in nats per token."""
    record: CollapseRecord


Study = dict[str, dict[int, list[NeuralGeneration]]]
"""Generations by arm and seed."""


def table() -> str:
    texts = [json.loads(line)["text"] for line in (PROJECT / ENGLISH_REFERENCE).read_text().splitlines()]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        # The first model, trained on real sentences, is shared by all arms of a seed.
        first = [pool.submit(train_generations, texts, next(iter(ARMS)), seed, 1) for seed in SEEDS]
        for trained in first:
            trained.result()
        running = {
            (name, seed): pool.submit(train_generations, texts, name, seed, arm.generations)
            for name, arm in ARMS.items()
            for seed in SEEDS
        }
        study = {name: {seed: running[name, seed].result() for seed in SEEDS} for name in ARMS}
    return format_page(study)


def train_generations(texts: Sequence[str], name: str, seed: int, generations: int) -> list[NeuralGeneration]:
    """What is in FOLDER already is not made again."""
    arm, folder, found = ARMS[name], FOLDER / f"seed {seed}", []
    shuffled = list(texts)
    random.Random(seed).shuffle(shuffled)
    sentences, real = shuffled[:SENTENCES], shuffled[SENTENCES:]
    before: Path | None = None
    for generation in range(1, generations + 1):
        out = folder / (f"{generation}, {name}" if generation > 1 else "1")
        conversations = [[*REQUEST, Message(role="assistant", content=text)] for text in sentences]
        student = (
            STUDENT.model_copy(update={"start": str(before), "layers": None}) if arm.promoted and before else STUDENT
        )
        trained = train_student(conversations, student, out, seed=seed, progress=print_progress)
        random_seed = seed + 1_000_000 * generation
        output = folder / f"sentences {identify_sentences(out, arm.temperature, random_seed)}.json"
        if not output.exists():
            write_json(output, generate_sentences(out, arm.temperature, random_seed))
        sentences, before = read_json(output), out
        record = assess_texts(sentences, real, name="real", seed=seed)
        found.append(NeuralGeneration(generation, trained.loss_after, record))
        print_progress(f"seed {seed}, {name}, generation {generation}: {record.verdict}, {sentences[:3]}")
    return found


def identify_sentences(student: Path, temperature: float, seed: int) -> str:
    """A hash of everything that determines the sentences of `generate_sentences`: the weights, their settings, the request."""
    made_from = {
        "files": {
            file.name: hash_file(file)
            for file in sorted(
                [*student.glob("*.safetensors"), *student.glob("*config.json"), *student.glob("token*.json")]
            )
        },
        "request": [message.model_dump(mode="json") for message in REQUEST],
        "temperature": temperature,
        "seed": seed,
        "sentences": SENTENCES,
        "tokens": TOKENS,
        "at_once": ANSWERS_AT_ONCE,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def generate_sentences(student: Path, temperature: float, seed: int) -> list[str]:
    """SENTENCES answers to REQUEST, less the blank ones."""
    tokenizer, model = AutoTokenizer.from_pretrained(student), AutoModelForCausalLM.from_pretrained(student)
    request = torch.tensor(
        [tokenizer(render_chat(REQUEST, tokenizer, answer_next=True), add_special_tokens=False).input_ids]
    )
    random_numbers = torch.Generator().manual_seed(seed)
    answers = [
        answer
        for first in range(0, SENTENCES, ANSWERS_AT_ONCE)
        for answer in sample_from_one_request(
            model,
            request,
            min(ANSWERS_AT_ONCE, SENTENCES - first),
            temperature,
            find_stop_ids(tokenizer),
            random_numbers,
        )
    ]
    return [text for text in tokenizer.batch_decode(answers, skip_special_tokens=True) if text.strip()]


@torch.no_grad()
def sample_from_one_request(
    model: PreTrainedModel,
    request: torch.Tensor,
    count: int,
    temperature: float,
    stop: Sequence[int],
    random_numbers: torch.Generator,
) -> list[list[int]]:
    """`count` answers to one request, with at most TOKENS tokens each.

    The request is read once for all, and an answer that has ended is no longer computed: 0.14 s for an answer instead of 0.31 s
    with the `generate` of transformers, on one core.
    """
    read = model(request, use_cache=True)
    cache, logits = read.past_key_values, read.logits[:, -1].expand(count, -1)
    cache.batch_repeat_interleave(count)
    answers: list[list[int]] = [[] for _ in range(count)]
    unfinished = list(range(count))
    for _ in range(TOKENS):
        summed = torch.softmax(logits.float() / temperature, dim=-1).cumsum(dim=-1)
        places = torch.rand(len(unfinished), 1, generator=random_numbers) * summed[:, -1:]
        tokens = torch.searchsorted(summed, places).clamp(max=summed.shape[1] - 1)
        unended = [row for row, token in enumerate(tokens[:, 0].tolist()) if token not in stop]
        for row in unended:
            answers[unfinished[row]].append(int(tokens[row, 0]))
        unfinished = [unfinished[row] for row in unended]
        if not unfinished:
            break
        kept = torch.tensor(unended)
        cache.batch_select_indices(kept)
        logits = model(tokens[kept], past_key_values=cache, use_cache=True).logits[:, -1]
    return answers


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
        f"- {arm}, seed {seed}: {find_lineage_trend([generation.record for generation in generations]) or 'too few generations'}"
        for arm, by_seed in study.items()
        for seed, generations in by_seed.items()
    )
    return f"""{describe_measurement()}. `STILLHOUSE_CORPORA=FOLDER python -m benchmarks collapse_neural`

SmolLM2-135M-Instruct, trained for each generation on the {SENTENCES:,} sentences of the previous generation (the first on real
sentences) for {format_count(STUDENT.epochs, "epoch")}, then asked for the same number. Each generation starts from the same
weights; *promoted*: from those of the previous generation. In parentheses real text of the same topics and lengths. *Loss of
rare words* is in deviations of real text; *loss* in nats per token, on text held out of its training. {len(SEEDS)} seeds of
sentences, training and output; metrics and *loss* are means.

{tables.format_table(head, lines)}

The trend:

{trends}"""
