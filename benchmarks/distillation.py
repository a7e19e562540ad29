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

from benchmarks.machine import describe_measurement
from core.config.students import StudentConfig
from core.runs.run_dir import collect_versions
from core.sample import Message
from students.captured_signals import CAPTURE_BATCH, build_model_capture, build_signal_identity, capture_signals
from students.chat_encoding import (
    Conversation,
    EncodedConversation,
    encode_conversation,
    find_pad_id,
    find_stop_ids,
    render_chat,
)
from students.generation import generate_own_answers
from students.predictions import build_batch, compute_held_out_loss, predict_tokens
from students.start_model import TEACHER_LAYERS, StartModel, start_from_layers
from students.torch_teacher import EMBEDDED_KEYWORD, TorchTeacher, load_teacher
from students.training.student_training import train_student
from students.training.training_objective import measure_held_out

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


class TrainingOutcome(NamedTuple):
    """Of one training; losses and divergences in nats a token."""

    course: dict[float, float]
    """The held-out loss after so many epochs."""
    kl: float
    """From the whole of the trimmed teacher, in the end."""
    seconds: float
    teacher: float
    """The trimmed teacher's own held-out loss."""


def table() -> str:
    teacher = start_from_layers(TEACHER_LAYERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, held_out = generate_teacher_answers(teacher, TRAIN, HELD_OUT, ANSWER_TOKENS)
        outcomes = {
            arm: [train_arm(arm, i, train, held_out, folder, seed) for seed in SEEDS] for i, arm in enumerate(ARMS)
        }
        sizes = {arm: measure_bytes_per_token(locate_signals(arm, folder, SEEDS[0])) for arm in (FEW, DRAWS)}
        speed = measure_capture_speed(teacher, [*train, *held_out])
    return format_page(outcomes, sizes, speed)


def generate_teacher_answers(
    teacher: StartModel, train: int, held_out: int, tokens: int
) -> tuple[list[Conversation], list[Conversation]]:
    """So many of its own answers to short questions, of at most so many tokens; each about another topic or in another form."""
    topics = [json.loads(line)["topic"] for line in TOPICS.read_text(encoding="utf-8").splitlines()]
    questions = [form.format(topic) for form in ASKED for topic in topics][: train + held_out]
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(SEEDS[0])).tolist()
    asked = [[Message(role="user", content=questions[place])] for place in order]
    texts = sample_answers(teacher, asked, tokens, SEEDS[0])
    said = [[*one, Message(role="assistant", content=text or ".")] for one, text in zip(asked, texts, strict=True)]
    return list(said[:train]), list(said[train:])


def sample_answers(
    model: StartModel, asked: Sequence[Conversation], tokens: int, seed: int, temperature: float = 1.0
) -> list[str]:
    """What a model says to each, at most so many tokens."""
    tokenizer, found = model.tokenizer, []
    for first in range(0, len(asked), DRAWN_AT_ONCE):
        some = asked[first : first + DRAWN_AT_ONCE]
        prompts = [
            tokenizer(render_chat(one, tokenizer, answer_next=True), add_special_tokens=False)["input_ids"]
            for one in some
        ]
        placed = [EncodedConversation((*ids, 0), (False,) * len(ids) + (True,)) for ids in prompts]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            drawn = generate_own_answers(
                model.model, placed, stop=find_stop_ids(tokenizer), pad=find_pad_id(tokenizer), max_new_tokens=tokens,
                temperature=temperature, seed=seed + first,
            )  # fmt: skip
        found += [
            tokenizer.decode(one.ids[len(ids) :], skip_special_tokens=True)
            for one, ids in zip(drawn, prompts, strict=True)
        ]
    return found


def encode_all(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase) -> list[EncodedConversation]:
    return [
        one
        for one in (encode_conversation(one, tokenizer, 256) for one in conversations)
        if isinstance(one, EncodedConversation)
    ]


def locate_signals(arm: str, folder: Path, seed: int) -> Path:
    """One file for all that learn from the same: of draws, each seed has its own."""
    told = ARMS[arm]["distillation"]
    return folder / f"{told['signals']} {seed if arm == DRAWS else told.get('top_k', '')}.signals"


def measure_bytes_per_token(path: Path) -> float:
    """A token, hashes included."""
    with safe_open(path, "numpy") as file:
        return path.stat().st_size / int(file.get_tensor("tokens").sum())


def measure_capture_speed(teacher: StartModel, conversations: Sequence[Conversation]) -> float:
    """As a share of the bare teacher's forward speed, the slower of the two kinds, on the teacher's whole vocabulary."""
    some, pad = encode_all(conversations[:CAPTURED_TWICE], teacher.tokenizer), find_pad_id(teacher.tokenizer)
    bare, spent = measure_bare_seconds(teacher, some, pad), []
    with tempfile.TemporaryDirectory() as name:
        for kind in ("top_k", "sampled"):
            config = StudentConfig.model_validate({"distillation": {"signals": kind}}).distillation
            is_of = build_signal_identity(config, tokenizer="", teacher="", words=len(teacher.tokenizer), seed=SEEDS[0])
            began = time.monotonic()
            capture_signals(
                build_model_capture(teacher.model, is_of, pad), some, is_of, Path(name) / kind, progress=lambda _: None
            )
            spent.append(time.monotonic() - began)
    return bare / max(spent)


@torch.no_grad()
def measure_bare_seconds(teacher: StartModel, encoded: Sequence[EncodedConversation], pad: int) -> float:
    """Of the teacher's forward passes on the very batches that are captured, and nothing else."""
    began = time.monotonic()
    for first in range(0, len(encoded), CAPTURE_BATCH):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predict_tokens(teacher.model, build_batch(encoded[first : first + CAPTURE_BATCH], pad))
    return time.monotonic() - began


def shuffle_signals(source: Path, path: Path) -> Path:
    """The same signals, each at the position of another: as good as the texts and the file can look, and of no use."""
    with safe_open(source, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    order = np.random.default_rng(SEEDS[0]).permutation(len(arrays["ids"]))
    save_file({**arrays, "ids": arrays["ids"][order], "log_probs": arrays["log_probs"][order]}, path, metadata)
    return path


def train_arm(
    arm: str, number: int, train: Sequence[Conversation], held_out: Sequence[Conversation], folder: Path, seed: int
) -> TrainingOutcome:
    settings = {**STUDENT, "epochs": EPOCHS, "evaluate_steps": EVALUATE_STEPS, **ARMS[arm]}
    if arm != PLAIN:
        path = locate_signals(arm, folder, seed)
        path = shuffle_signals(path, folder / "shuffled.signals") if arm == CONTROL else path
        settings["distillation"] = {**settings["distillation"], "cache": str(path)}
    out = folder / f"student {number} {seed}"
    note = lambda line: print(f"{arm}, {seed}: {line}", file=sys.stderr)  # noqa: E731, T201
    record = train_student(
        train, StudentConfig.model_validate(settings), out, seed=seed, progress=note, held_out=held_out
    )
    student = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(out)
    encoded, pad, words = encode_all(held_out, tokenizer), find_pad_id(tokenizer), len(tokenizer)
    teacher = load_teacher(EMBEDDED_KEYWORD, tokenizer)
    found = measure_held_out(student, encoded, TorchTeacher(teacher, words, 1.0), pad, words, 1.0)
    assert found.kl is not None, "a teacher was beside"
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    course = {line["step"] * EPOCHS / record.steps: line["held_out"] for line in log if "held_out" in line}
    return TrainingOutcome(course, found.kl, record.seconds, compute_held_out_loss(teacher, encoded, pad))


def format_page(outcomes: Mapping[str, Sequence[TrainingOutcome]], sizes: Mapping[str, float], speed: float) -> str:
    plain = outcomes[PLAIN]
    best = mean(one.teacher for one in plain)
    lines = [
        format_caption(),
        "",
        f"Student: random weights, 6.8M parameters, 8,192 tokens; the teacher is trimmed to the same. {TRAIN} answers of the "
        f"teacher's own (temperature 1, at most {ANSWER_TOKENS} tokens) to learn, {HELD_OUT} held out; {EPOCHS} epochs, mean and "
        f"standard deviation of {len(SEEDS)} seeds. The teacher's own held-out loss is {best:.3f}. The gap is the "
        "distance from cross-entropy alone to this loss: after the same number of epochs, and at the best moment of each "
        "(measured three times per epoch). The last column is the first epoch with a loss of at most the lowest of cross-entropy "
        f"alone ({_format_mean([lowest_loss(one) for one in plain])}, after "
        f"{_format_epochs([find_epoch_of_loss(one, lowest_loss(one)) for one in plain])} epochs).",
        "",
        "| learns from | held-out loss, in the end | its least | gap closed, in the end | of the least | KL from the teacher "
        "| KL lowered | training s | as good after, epochs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, some in outcomes.items():
        pairs = list(zip(some, plain, strict=True))
        ended = [(last_loss(base) - last_loss(one)) / (last_loss(base) - one.teacher) for one, base in pairs]
        lowest = [(lowest_loss(base) - lowest_loss(one)) / (lowest_loss(base) - one.teacher) for one, base in pairs]
        lowered = [1 - one.kl / base.kl for one, base in pairs]
        cells = (
            arm,
            _format_mean([last_loss(one) for one in some]),
            _format_mean([lowest_loss(one) for one in some]),
            _format_share(ended),
            _format_share(lowest),
            _format_mean([one.kl for one in some]),
            _format_share(lowered),
            f"{mean(one.seconds for one in some):.0f}",
            _format_epochs([find_epoch_of_loss(one, lowest_loss(base)) for one, base in pairs]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    every = outcomes[ALL]
    off = {
        arm: (
            mean(last_loss(one) - last_loss(full) for one, full in zip(outcomes[arm], every, strict=True)),
            mean(one.kl - full.kl for one, full in zip(outcomes[arm], every, strict=True)),
        )
        for arm in sizes
    }
    lines += [
        "",
        f"Captured signals take {sizes[FEW]:.1f} bytes a token as top 8 with the rest and {sizes[DRAWS]:.1f} as 13 drawn, hashes "
        f"included. Compared with all probabilities at the end, held-out loss and KL: top 8 {off[FEW][0]:+.3f} and "
        f"{off[FEW][1]:+.3f} nats, drawn {off[DRAWS][0]:+.3f} and {off[DRAWS][1]:+.3f}. Capture runs at {speed:.0%} of the bare "
        "teacher's forward speed, the slower of the two counted.",
    ]
    return "\n".join(lines)


def last_loss(one: TrainingOutcome) -> float:
    return one.course[max(one.course)]


def lowest_loss(one: TrainingOutcome) -> float:
    return min(one.course.values())


def find_epoch_of_loss(one: TrainingOutcome, loss: float) -> float | None:
    """After how many epochs it first is as low as that; None for never."""
    return next((epoch for epoch, found in one.course.items() if found <= loss), None)


def _format_epochs(epochs: Sequence[float | None]) -> str:
    return ", ".join("never" if epoch is None else f"{epoch:.1f}" for epoch in epochs)


def _format_mean(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def _format_share(values: Sequence[float]) -> str:
    return f"{mean(values):.0%} ± {stdev(values):.0%}" if any(values) else ""


def format_caption() -> str:
    there = ", ".join(
        f"{name} {version}" for name, version in collect_versions().items() if name in ("torch", "transformers")
    )
    return f"{describe_measurement()}; {there}. `python -m benchmarks distillation`"
