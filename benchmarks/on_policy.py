"""What answers of the student's own add after learning from the teacher's: as long a training either way, from one start.

A student of half of the embedded teacher's layers first learns from captured probabilities of the teacher's answers. Then it
goes on in three ways for about the same time. One seed; some twenty minutes on two quiet cores.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from benchmarks.distillation import caption, drawn_answers, encode_all, teacher_answers
from core.recipe import StudentConfig
from core.sample import Message
from students.data import Conversation, batched, pad_id
from students.distillation import measured
from students.evaluate import EVALUATION_BATCH, predicted
from students.start import TEACHER_LAYERS, Start, from_layers
from students.teacher import TeacherBeside
from students.train import distill

TRAIN, HELD_OUT, LAYERS, SEED = 240, 60, 15, 7
ANSWER_TOKENS = 48
FIRST = {
    "start": "layers",
    "layers": LAYERS,
    "epochs": 2,
    "objective": "forward_kl",
    "distillation": {"signals": "top_k"},
}
OWN, GIVEN, TEXTS = "its own answers", "the teacher's answers and probabilities", "the teacher's answers alone"
AFTER: dict[str, dict[str, Any]] = {
    OWN: {"objective": "reverse_kl", "distillation": {"lmbda": 1.0, "max_new_tokens": ANSWER_TOKENS}},
    GIVEN: {"objective": "forward_kl", "distillation": {"signals": "dense"}},
    TEXTS: {"objective": "sft"},
}
RATE = 5e-5


class Judged(NamedTuple):
    """In nats a token."""

    own: float
    """KL of the student from the teacher, estimated on answers that the student draws: mean of log q - log p."""
    given: float
    """KL of the teacher from the student on held-out answers of the teacher."""
    steps: int
    seconds: float


def table() -> str:
    teacher = from_layers(TEACHER_LAYERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, held_out = teacher_answers(teacher, TRAIN, HELD_OUT)
        found = {"before": _trained(FIRST, train, held_out, folder / "first", teacher)}
        goes_on = {"start": str(folder / "first"), "learning_rate": RATE}
        epochs = 1
        for i, (arm, settings) in enumerate(AFTER.items()):
            if i:
                pace = _trained(
                    {**goes_on, **settings, "epochs": 1}, train, held_out, folder / f"pace {i}", teacher
                ).seconds
                epochs = max(1, round(found[OWN].seconds / pace))
            found[arm] = _trained({**goes_on, **settings, "epochs": epochs}, train, held_out, folder / f"{i}", teacher)
    return page(found)


def _trained(
    settings: Mapping[str, Any],
    train: Sequence[Conversation],
    held_out: Sequence[Conversation],
    out: Path,
    teacher: Start,
) -> Judged:
    record = distill(
        train, StudentConfig.model_validate(settings), out, seed=SEED, progress=lambda _: None, held_out=held_out
    )
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    student = teacher._replace(model=model)
    words, pad = len(teacher.tokenizer), pad_id(teacher.tokenizer)
    given = measured(
        model, encode_all(held_out, teacher.tokenizer), TeacherBeside(teacher.model, words, 1.0), pad, words, 1.0
    )
    assert given.kl is not None, "a teacher was beside"
    return Judged(_own_kl(student, teacher, held_out), given.kl, record.steps, record.seconds)


@torch.no_grad()
def _own_kl(student: Start, teacher: Start, held_out: Sequence[Conversation]) -> float:
    asked = [one[:-1] for one in held_out]
    texts = drawn_answers(student, asked, ANSWER_TOKENS, SEED)
    said = [
        [*one, Message(role="assistant", content=text)] for one, text in zip(asked, texts, strict=True) if text.strip()
    ]
    encoded, pad = encode_all(said, teacher.tokenizer), pad_id(teacher.tokenizer)
    total, tokens = 0.0, 0
    for first in range(0, len(encoded), EVALUATION_BATCH):
        batch = batched(encoded[first : first + EVALUATION_BATCH], pad)
        ours, theirs = predicted(student.model, batch), predicted(teacher.model, batch)
        lost = functional.cross_entropy(theirs.logits, theirs.targets, reduction="sum")
        total += (lost - functional.cross_entropy(ours.logits, ours.targets, reduction="sum")).item()
        tokens += len(ours.targets)
    return total / tokens


def page(found: Mapping[str, Judged]) -> str:
    own, texts = found[OWN], found[TEXTS]
    cost = own.seconds / own.steps / (texts.seconds / texts.steps)
    lines = [
        caption().replace("distillation`", "on_policy`"),
        "",
        f"A student of {LAYERS} of the teacher's {TEACHER_LAYERS} layers, {TRAIN} answers of the teacher's; one seed. A step on "
        f"its own answers (up to {ANSWER_TOKENS} tokens, the teacher beside, reverse KL) takes {cost:.1f} times one "
        "on texts alone, and the others go on for about as long.",
        "",
        "| then learns from | steps | seconds | KL from the teacher on its own answers | on the teacher's answers |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {arm} | {one.steps} | {one.seconds:.0f} | {one.own:.3f} | {one.given:.3f} |" for arm, one in found.items()
    ]
    return "\n".join(lines)
