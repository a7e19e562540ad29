"""What answers of the student's own add after learning from the teacher's, beside as long a training on those.

A student of half of the embedded teacher's layers first learns from captured probabilities of the teacher's answers. Then it
goes on: on its own answers, on them in half of the steps, and for as long as the first on the teacher's. Three seeds; some
fifty minutes on one quiet core.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from benchmarks.distillation import encode_all, format_caption, generate_teacher_answers, sample_answers
from core.config.students import StudentConfig
from core.sample import Message
from students.chat_encoding import Conversation, find_pad_id
from students.predictions import EVALUATION_BATCH, build_batch, predict_tokens
from students.start_model import TEACHER_LAYERS, StartModel, start_from_layers
from students.torch_teacher import TorchTeacher
from students.training.student_training import train_student
from students.training.training_objective import measure_held_out

TRAIN, HELD_OUT, LAYERS, SEEDS = 240, 60, 15, (7, 8, 9)
ANSWER_TOKENS = 48
FIRST = {
    "start": "layers",
    "layers": LAYERS,
    "epochs": 2,
    "objective": "forward_kl",
    "distillation": {"signals": "top_k"},
}
BEFORE, OWN, HALF, GIVEN, TEXTS = (
    "before", "its own answers (reverse KL)", "its own answers in half of the steps (JSD)",
    "the teacher's answers and probabilities (forward KL)", "the teacher's answers alone (SFT), one epoch",
)  # fmt: skip
AFTER: dict[str, dict[str, Any]] = {
    OWN: {"objective": "reverse_kl", "distillation": {"lmbda": 1.0, "max_new_tokens": ANSWER_TOKENS}},
    HALF: {"objective": "jsd", "distillation": {"lmbda": 0.5, "max_new_tokens": ANSWER_TOKENS}},
    GIVEN: {"objective": "forward_kl", "distillation": {"signals": "dense"}},
    TEXTS: {"objective": "sft"},
}
RATE = 5e-5


class OnPolicyOutcome(NamedTuple):
    """In nats a token."""

    own: float
    """KL of the student from the teacher, estimated on answers that the student draws: mean of log q - log p."""
    given: float
    """KL of the teacher from the student on held-out answers of the teacher."""
    steps: int
    seconds: float


def table() -> str:
    teacher = start_from_layers(TEACHER_LAYERS)
    found: dict[str, list[OnPolicyOutcome]] = {arm: [] for arm in (BEFORE, *AFTER)}
    with tempfile.TemporaryDirectory() as name:
        train, held_out = generate_teacher_answers(teacher, TRAIN, HELD_OUT, ANSWER_TOKENS)
        for seed in SEEDS:
            folder = Path(name) / str(seed)
            folder.mkdir()
            found[BEFORE].append(_train_arm(FIRST, train, held_out, folder / "first", teacher, seed))
            goes_on = {"start": str(folder / "first"), "learning_rate": RATE, "epochs": 1}
            for arm, settings in AFTER.items():
                chosen = {**goes_on, **settings}
                if arm == GIVEN:
                    chosen["epochs"] = _choose_epochs(found, chosen, train, held_out, folder, teacher)
                found[arm].append(_train_arm(chosen, train, held_out, folder / arm.replace(" ", "-"), teacher, seed))
    return format_page(found)


def _choose_epochs(
    found: Mapping[str, Sequence[OnPolicyOutcome]],
    settings: Mapping[str, Any],
    train: Sequence[Conversation],
    held_out: Sequence[Conversation],
    folder: Path,
    teacher: StartModel,
) -> int:
    """How many of these take about as long as one on the student's own answers: of the first seed, as long as it is tried."""
    if found[GIVEN]:
        return found[GIVEN][0].steps // found[OWN][0].steps
    pace = _train_arm(settings, train, held_out, folder / "pace", teacher, SEEDS[0]).seconds
    return max(1, round(found[OWN][0].seconds / pace))


def _train_arm(
    settings: Mapping[str, Any],
    train: Sequence[Conversation],
    held_out: Sequence[Conversation],
    out: Path,
    teacher: StartModel,
    seed: int,
) -> OnPolicyOutcome:
    record = train_student(
        train, StudentConfig.model_validate(settings), out, seed=seed, progress=lambda _: None, held_out=held_out
    )
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    student = teacher._replace(model=model)
    words, pad = len(teacher.tokenizer), find_pad_id(teacher.tokenizer)
    given = measure_held_out(
        model, encode_all(held_out, teacher.tokenizer), TorchTeacher(teacher.model, words, 1.0), pad, words, 1.0
    )
    assert given.kl is not None, "a teacher was beside"
    return OnPolicyOutcome(_measure_own_kl(student, teacher, held_out, seed), given.kl, record.steps, record.seconds)


@torch.no_grad()
def _measure_own_kl(student: StartModel, teacher: StartModel, held_out: Sequence[Conversation], seed: int) -> float:
    asked = [one[:-1] for one in held_out]
    texts = sample_answers(student, asked, ANSWER_TOKENS, seed)
    said = [
        [*one, Message(role="assistant", content=text)] for one, text in zip(asked, texts, strict=True) if text.strip()
    ]
    encoded, pad = encode_all(said, teacher.tokenizer), find_pad_id(teacher.tokenizer)
    total, tokens = 0.0, 0
    for first in range(0, len(encoded), EVALUATION_BATCH):
        batch = build_batch(encoded[first : first + EVALUATION_BATCH], pad)
        ours, theirs = predict_tokens(student.model, batch), predict_tokens(teacher.model, batch)
        lost = functional.cross_entropy(theirs.logits, theirs.targets, reduction="sum")
        total += (lost - functional.cross_entropy(ours.logits, ours.targets, reduction="sum")).item()
        tokens += len(ours.targets)
    return total / tokens


def format_page(found: Mapping[str, Sequence[OnPolicyOutcome]]) -> str:
    cost = mean(
        _seconds_per_step(one) / _seconds_per_step(text) for one, text in zip(found[OWN], found[TEXTS], strict=True)
    )
    lines = [
        format_caption().replace("distillation`", "on_policy`"),
        "",
        f"A student of {LAYERS} of the teacher's {TEACHER_LAYERS} layers, {TRAIN} answers of the teacher's; mean and standard "
        f"deviation of {len(SEEDS)} seeds. A step on its own answers alone (up to {ANSWER_TOKENS} tokens) takes {cost:.1f} times "
        "as long as a step of SFT. In parentheses, the difference from the teacher's answers and probabilities learned in the "
        "time of the first, seed by seed. Objective and answers change together: each objective is commonly used with its source "
        "of answers.",
        "",
        "| then learns from | steps | seconds | KL from the teacher on its own answers | on the teacher's answers |",
        "|---|---:|---:|---:|---:|",
    ]
    for arm, some in found.items():
        others = found[GIVEN] if arm in (OWN, HALF) else some
        cells = [
            _format_difference([getattr(one, part) for one in some], [getattr(one, part) for one in others])
            for part in ("own", "given")
        ]
        lines.append(f"| {arm} | {some[0].steps} | {mean(one.seconds for one in some):.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seconds_per_step(one: OnPolicyOutcome) -> float:
    return one.seconds / one.steps


def _format_difference(values: Sequence[float], others: Sequence[float]) -> str:
    less = [value - other for value, other in zip(values, others, strict=True)]
    beside = f" ({mean(less):+.3f} ± {stdev(less):.3f})" if any(less) else ""
    return f"{mean(values):.3f} ± {stdev(values):.3f}{beside}"
