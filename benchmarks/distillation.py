"""What a teacher's probabilities add to its texts: a student of 6.8M parameters, with and without them, on equal data.

The embedded teacher's own answers, drawn at temperature 1 with torch, are both the text and the held-out text, so that no
student can do better on them than the teacher itself. Nothing of the network; some seventy minutes on one quiet core.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.machine import measured_on
from core.run import versions
from core.sample import Message
from core.student_config import StudentConfig
from students.data import Conversation, Encoded, batched, encode, pad_id, render, stop_ids
from students.distillation import measured
from students.evaluate import held_out_loss, predicted
from students.sampling import own_answers
from students.signals import CAPTURE_BATCH, capture, identity, told_by
from students.start import TEACHER_LAYERS, Start, from_layers
from students.teacher import EMBEDDED, TeacherBeside, load_teacher
from students.train import distill

TOPICS = Path("data/seeds/topics.jsonl")
ASKED = ("Write about {}.", "Tell me something about {}.", "What is special about {}?", "Explain {} to a child.")
TRAIN, HELD_OUT, ANSWER_TOKENS = 600, 60, 64
EPOCHS, SEEDS = 12, (7, 8, 9)
EVALUATE_STEPS = 25
"""A third of an epoch."""
STUDENT = {"start": "random", "layers": 6, "hidden_size": 256, "vocabulary": 8192, "learning_rate": 1e-3}
DRAWN_AT_ONCE = 120
CAPTURED_TWICE = 64
"""Conversations on which capture is compared with a bare forward pass."""
PLAIN, ALL, FEW, DRAWS, CONTROL = (
    "cross-entropy alone", "all probabilities", "top 8 and the rest", "13 drawn", "control: top 8 of other positions"
)  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    PLAIN: {"objective": "sft"},
    ALL: {"objective": "forward_kl", "distillation": {"signals": "top_k", "top_k": STUDENT["vocabulary"]}},
    FEW: {"objective": "forward_kl", "distillation": {"signals": "top_k"}},
    DRAWS: {"objective": "forward_kl", "distillation": {"signals": "sampled"}},
    CONTROL: {"objective": "forward_kl", "distillation": {"signals": "top_k"}},
}


class Outcome(NamedTuple):
    """Of one training; losses and divergences in nats a token."""

    course: dict[float, float]
    """The held-out loss after so many epochs."""
    kl: float
    """From the whole of the trimmed teacher, in the end."""
    seconds: float
    teacher: float
    """The trimmed teacher's own held-out loss."""


def table() -> str:
    teacher = from_layers(TEACHER_LAYERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, held_out = teacher_answers(teacher, TRAIN, HELD_OUT, ANSWER_TOKENS)
        outcomes = {
            arm: [trained(arm, i, train, held_out, folder, seed) for seed in SEEDS] for i, arm in enumerate(ARMS)
        }
        sizes = {arm: bytes_of(signals_of(arm, folder, SEEDS[0])) for arm in (FEW, DRAWS)}
        speed = capture_speed(teacher, [*train, *held_out])
    return page(outcomes, sizes, speed)


def teacher_answers(
    teacher: Start, train: int, held_out: int, tokens: int
) -> tuple[list[Conversation], list[Conversation]]:
    """So many of its own answers to short questions, of at most so many tokens; each about another topic or in another form."""
    topics = [json.loads(line)["topic"] for line in TOPICS.read_text(encoding="utf-8").splitlines()]
    questions = [form.format(topic) for form in ASKED for topic in topics][: train + held_out]
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(SEEDS[0])).tolist()
    asked = [[Message(role="user", content=questions[place])] for place in order]
    texts = drawn_answers(teacher, asked, tokens, SEEDS[0])
    said = [[*one, Message(role="assistant", content=text or ".")] for one, text in zip(asked, texts, strict=True)]
    return list(said[:train]), list(said[train:])


def drawn_answers(
    model: Start, asked: Sequence[Conversation], tokens: int, seed: int, temperature: float = 1.0
) -> list[str]:
    """What a model says to each, at most so many tokens."""
    tokenizer, found = model.tokenizer, []
    for first in range(0, len(asked), DRAWN_AT_ONCE):
        some = asked[first : first + DRAWN_AT_ONCE]
        prompts = [
            tokenizer(render(one, tokenizer, answer_next=True), add_special_tokens=False)["input_ids"] for one in some
        ]
        placed = [Encoded((*ids, 0), (False,) * len(ids) + (True,)) for ids in prompts]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            drawn = own_answers(
                model.model, placed, stop=stop_ids(tokenizer), pad=pad_id(tokenizer), max_new_tokens=tokens,
                temperature=temperature, seed=seed + first,
            )  # fmt: skip
        found += [
            tokenizer.decode(one.ids[len(ids) :], skip_special_tokens=True)
            for one, ids in zip(drawn, prompts, strict=True)
        ]
    return found


def encode_all(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    return [one for one in (encode(one, tokenizer, 256) for one in conversations) if isinstance(one, Encoded)]


def signals_of(arm: str, folder: Path, seed: int) -> Path:
    """One file for all that learn from the same: of draws, each seed has its own."""
    told = ARMS[arm]["distillation"]
    return folder / f"{told['signals']} {seed if arm == DRAWS else told.get('top_k', '')}.signals"


def bytes_of(path: Path) -> float:
    """A token, hashes included."""
    with safe_open(path, "numpy") as file:
        return path.stat().st_size / int(file.get_tensor("tokens").sum())


def capture_speed(teacher: Start, conversations: Sequence[Conversation]) -> float:
    """As a share of the bare teacher's forward speed, the slower of the two kinds, on the teacher's whole vocabulary."""
    some, pad = encode_all(conversations[:CAPTURED_TWICE], teacher.tokenizer), pad_id(teacher.tokenizer)
    bare, spent = bare_seconds(teacher, some, pad), []
    with tempfile.TemporaryDirectory() as name:
        for kind in ("top_k", "sampled"):
            config = StudentConfig.model_validate({"distillation": {"signals": kind}}).distillation
            is_of = identity(config, tokenizer="", teacher="", words=len(teacher.tokenizer), seed=SEEDS[0])
            began = time.monotonic()
            capture(told_by(teacher.model, is_of, pad), some, is_of, Path(name) / kind, progress=lambda _: None)
            spent.append(time.monotonic() - began)
    return bare / max(spent)


@torch.no_grad()
def bare_seconds(teacher: Start, encoded: Sequence[Encoded], pad: int) -> float:
    """Of the teacher's forward passes on the very batches that are captured, and nothing else."""
    began = time.monotonic()
    for first in range(0, len(encoded), CAPTURE_BATCH):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted(teacher.model, batched(encoded[first : first + CAPTURE_BATCH], pad))
    return time.monotonic() - began


def shuffled(source: Path, path: Path) -> Path:
    """The same signals, each at the position of another: as good as the texts and the file can look, and of no use."""
    with safe_open(source, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    order = np.random.default_rng(SEEDS[0]).permutation(len(arrays["ids"]))
    save_file({**arrays, "ids": arrays["ids"][order], "log_probs": arrays["log_probs"][order]}, path, metadata)
    return path


def trained(
    arm: str, number: int, train: Sequence[Conversation], held_out: Sequence[Conversation], folder: Path, seed: int
) -> Outcome:
    settings = {**STUDENT, "epochs": EPOCHS, "evaluate_steps": EVALUATE_STEPS, **ARMS[arm]}
    if arm != PLAIN:
        path = signals_of(arm, folder, seed)
        path = shuffled(path, folder / "shuffled.signals") if arm == CONTROL else path
        settings["distillation"] = {**settings["distillation"], "cache": str(path)}
    out = folder / f"student {number} {seed}"
    note = lambda line: print(f"{arm}, {seed}: {line}", file=sys.stderr)  # noqa: E731, T201
    record = distill(train, StudentConfig.model_validate(settings), out, seed=seed, progress=note, held_out=held_out)
    student = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out)
    encoded, pad, words = encode_all(held_out, tokenizer), pad_id(tokenizer), len(tokenizer)
    teacher = load_teacher(EMBEDDED, tokenizer)
    found = measured(student, encoded, TeacherBeside(teacher, words, 1.0), pad, words, 1.0)
    assert found.kl is not None, "a teacher was beside"
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    course = {line["step"] * EPOCHS / record.steps: line["held_out"] for line in log if "held_out" in line}
    return Outcome(course, found.kl, record.seconds, held_out_loss(teacher, encoded, pad))


def page(outcomes: Mapping[str, Sequence[Outcome]], sizes: Mapping[str, float], speed: float) -> str:
    plain = outcomes[PLAIN]
    best = mean(one.teacher for one in plain)
    lines = [
        caption(),
        "",
        f"Student: random weights, 6.8M parameters, 8,192 tokens; the teacher is trimmed to the same. {TRAIN} answers of the "
        f"teacher's own (temperature 1, at most {ANSWER_TOKENS} tokens) to learn, {HELD_OUT} held out; {EPOCHS} epochs, mean and "
        f"standard deviation of {len(SEEDS)} seeds. The teacher's own held-out loss is {best:.3f}. The gap is that of "
        "cross-entropy alone to it: after as many epochs, and at the best moment of either (measured three times an epoch). The "
        "last column is when the loss first is no more than the least of cross-entropy alone "
        f"({_told([least(one) for one in plain])}, after {_moments([reached(one, least(one)) for one in plain])} epochs).",
        "",
        "| learns from | held-out loss, in the end | its least | gap closed, in the end | of the least | KL from the teacher "
        "| KL lowered | training s | as good after, epochs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, some in outcomes.items():
        pairs = list(zip(some, plain, strict=True))
        ended = [(last(base) - last(one)) / (last(base) - one.teacher) for one, base in pairs]
        lowest = [(least(base) - least(one)) / (least(base) - one.teacher) for one, base in pairs]
        lowered = [1 - one.kl / base.kl for one, base in pairs]
        cells = (
            arm,
            _told([last(one) for one in some]),
            _told([least(one) for one in some]),
            _share(ended),
            _share(lowest),
            _told([one.kl for one in some]),
            _share(lowered),
            f"{mean(one.seconds for one in some):.0f}",
            _moments([reached(one, least(base)) for one, base in pairs]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    every = outcomes[ALL]
    off = {
        arm: (
            mean(last(one) - last(full) for one, full in zip(outcomes[arm], every, strict=True)),
            mean(one.kl - full.kl for one, full in zip(outcomes[arm], every, strict=True)),
        )
        for arm in sizes
    }
    lines += [
        "",
        f"Captured signals take {sizes[FEW]:.1f} bytes a token as top 8 with the rest and {sizes[DRAWS]:.1f} as 13 drawn, hashes "
        f"included. Beside all probabilities in the end, held-out loss and KL: top 8 {off[FEW][0]:+.3f} and {off[FEW][1]:+.3f} "
        f"nats, drawn {off[DRAWS][0]:+.3f} and {off[DRAWS][1]:+.3f}. Capture runs at {speed:.0%} of the bare teacher's forward "
        "speed, the slower of the two counted.",
    ]
    return "\n".join(lines)


def last(one: Outcome) -> float:
    return one.course[max(one.course)]


def least(one: Outcome) -> float:
    return min(one.course.values())


def reached(one: Outcome, loss: float) -> float | None:
    """After how many epochs it first is as low as that; None for never."""
    return next((epoch for epoch, found in one.course.items() if found <= loss), None)


def _moments(epochs: Sequence[float | None]) -> str:
    return ", ".join("never" if epoch is None else f"{epoch:.1f}" for epoch in epochs)


def _told(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def _share(values: Sequence[float]) -> str:
    return f"{mean(values):.0%} ± {stdev(values):.0%}" if any(values) else ""


def caption() -> str:
    there = ", ".join(f"{name} {version}" for name, version in versions().items() if name in ("torch", "transformers"))
    return f"{measured_on()}; {there}. `python -m benchmarks distillation`"
