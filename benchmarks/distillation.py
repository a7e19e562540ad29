"""What a teacher's probabilities add to its texts: a student of half its layers, with and without them, on equal data.

The embedded teacher's own answers, drawn at temperature 1 with torch, are both the text and the held-out text, so that no
student can do better on them than the teacher itself. Nothing of the network; some ten minutes on two quiet cores.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from benchmarks.machine import measured_on
from core.recipe import StudentConfig
from core.run import versions
from core.sample import Message
from students.data import Conversation, Encoded, batched, encode, pad_id, render, stop_ids
from students.distillation import measured
from students.evaluate import held_out_loss, predicted
from students.sampling import own_answers
from students.signals import CAPTURE_BATCH, FORMAT, capture, identity, told_by
from students.start import TEACHER_LAYERS, Start, from_layers
from students.teacher import EMBEDDED, TeacherBeside, teacher_digest, tokenizer_digest
from students.train import distill

TOPICS = Path("data/seeds/topics.jsonl")
ASKED = ("Write about {}.", "Tell me something about {}.")
TRAIN, HELD_OUT, ANSWER_TOKENS = 160, 40, 48
LAYERS, EPOCHS, SEED = 15, 2, 7
MIXED = {"sft": 0.5, "forward_kl": 0.5}
DRAWN_AT_ONCE = 120
CAPTURED_TWICE = 64
"""Conversations on which capture is compared with a bare forward pass."""
ARMS: dict[str, dict[str, Any]] = {
    "cross-entropy alone": {"objective": "sft"},
    "+ all probabilities, teacher beside": {"objective": MIXED},
    "+ top 8 and the rest, captured": {"objective": MIXED, "distillation": {"signals": "top_k"}},
    "+ 25 draws, captured": {"objective": MIXED, "distillation": {"signals": "sampled"}},
    "+ 25 draws, half the visits": {"objective": MIXED, "distillation": {"signals": "sampled"}, "epochs": EPOCHS // 2},
    "control: top 8 of other positions": {"objective": MIXED, "distillation": {"signals": "top_k"}},
}
CONTROL = "control: top 8 of other positions"


class Outcome(NamedTuple):
    loss: float
    kl: float
    seconds: float
    visits: int
    """Assistant tokens trained on, each time counted."""


class Signals(NamedTuple):
    """Files of captured signals, and what they cost."""

    files: dict[str, Path]
    bytes_per_token: dict[str, float]
    capture_speed: float
    """As a share of the bare teacher's forward speed."""


def table() -> str:
    teacher = from_layers(TEACHER_LAYERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        conversations = teacher_answers(teacher)
        train, held_out = conversations[:TRAIN], conversations[TRAIN:]
        signals = captured(teacher, conversations, folder)
        encoded = encode_all(held_out, teacher.tokenizer)
        best = held_out_loss(teacher.model, encoded, pad_id(teacher.tokenizer))
        outcomes: dict[str, Outcome] = {}
        for arm, settings in ARMS.items():
            out = folder / f"student {len(outcomes)}"
            outcomes[arm] = trained(teacher, train, held_out, with_cache(arm, settings, signals), out, encoded)
    return page(outcomes, best, signals)


def teacher_answers(teacher: Start) -> list[Conversation]:
    """Its own answers to short questions, each asked about another topic or in another form."""
    topics = [json.loads(line)["topic"] for line in TOPICS.read_text(encoding="utf-8").splitlines()]
    questions = [form.format(topic) for form in ASKED for topic in topics][: TRAIN + HELD_OUT]
    order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(SEED)).tolist()
    asked = [[Message(role="user", content=questions[place])] for place in order]
    texts = drawn_answers(teacher, asked, ANSWER_TOKENS, SEED)
    return [[*one, Message(role="assistant", content=text or ".")] for one, text in zip(asked, texts, strict=True)]


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


def captured(teacher: Start, conversations: Sequence[Conversation], folder: Path) -> Signals:
    encoded, pad = encode_all(conversations, teacher.tokenizer), pad_id(teacher.tokenizer)
    bare = bare_seconds(teacher, encoded[:CAPTURED_TWICE], pad)
    files, sizes, spent = {}, {}, {}
    for kind in ("top_k", "sampled"):
        config = StudentConfig.model_validate({"distillation": {"signals": kind}}).distillation
        is_of = identity(
            config, tokenizer=tokenizer_digest(teacher.tokenizer), teacher=teacher_digest(EMBEDDED),
            words=len(teacher.tokenizer), seed=SEED,
        )  # fmt: skip
        tell = told_by(teacher.model, is_of, pad)
        began = time.monotonic()
        capture(tell, encoded[:CAPTURED_TWICE], is_of, folder / "part", progress=lambda _: None)
        spent[kind] = time.monotonic() - began
        files[kind] = folder / f"{kind}.signals"
        capture(tell, encoded, is_of, files[kind], progress=lambda _: None)
        sizes[kind] = files[kind].stat().st_size / sum(sum(one.learned) for one in encoded)
    files["shuffled"] = shuffled(files["top_k"], folder / "shuffled.signals")
    return Signals(files, sizes, bare / max(spent.values()))


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
        metadata = {"format": FORMAT, "identity": file.metadata()["identity"]}
    order = np.random.default_rng(SEED).permutation(len(arrays["ids"]))
    save_file({**arrays, "ids": arrays["ids"][order], "log_probs": arrays["log_probs"][order]}, path, metadata)
    return path


def with_cache(arm: str, settings: Mapping[str, Any], signals: Signals) -> StudentConfig:
    told = dict(settings.get("distillation", {}))
    if told:
        told["cache"] = str(signals.files["shuffled" if arm == CONTROL else told["signals"]])
    return StudentConfig.model_validate({"layers": LAYERS, "epochs": EPOCHS, **settings, "distillation": told})


def trained(
    teacher: Start,
    train: Sequence[Conversation],
    held_out: Sequence[Conversation],
    config: StudentConfig,
    out: Path,
    encoded: Sequence[Encoded],
) -> Outcome:
    record = distill(train, config, out, seed=SEED, progress=lambda _: None, held_out=held_out)
    student = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    words, pad = len(teacher.tokenizer), pad_id(teacher.tokenizer)
    found = measured(student, encoded, TeacherBeside(teacher.model, words, 1.0), pad, words, 1.0)
    log = [json.loads(line) for line in (out / "training_log.jsonl").read_text(encoding="utf-8").splitlines()]
    return Outcome(record.loss_after, found.kl or 0.0, record.seconds, sum(line["tokens"] for line in log))


def page(outcomes: Mapping[str, Outcome], best: float, signals: Signals) -> str:
    plain = outcomes["cross-entropy alone"]
    gap = plain.loss - best
    lines = [
        caption(),
        "",
        f"Student: {LAYERS} of the teacher's {TEACHER_LAYERS} layers; {TRAIN} answers of the teacher's own (temperature 1, at "
        f"most {ANSWER_TOKENS} tokens) to learn, {HELD_OUT} held out; {EPOCHS} epochs, one seed. `+` arms weigh cross-entropy "
        f"and forward KL equally. The teacher's own held-out loss is {best:.3f}, and the gap of the first arm to it "
        f"{gap:.3f} nats.",
        "",
        "| arm | token visits | held-out loss | gap closed | KL from the teacher | KL lowered | training s |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, one in outcomes.items():
        closed = "" if one is plain else f"{(plain.loss - one.loss) / gap:.0%}"
        lowered = "" if one is plain else f"{1 - one.kl / plain.kl:.0%}"
        lines.append(
            f"| {arm} | {one.visits:,} | {one.loss:.3f} | {closed} | {one.kl:.3f} | {lowered} | {one.seconds:.0f} |"
        )
    dense, drawn = outcomes["+ all probabilities, teacher beside"], outcomes["+ 25 draws, captured"]
    few = outcomes["+ top 8 and the rest, captured"]
    lines += [
        "",
        f"Captured signals take {signals.bytes_per_token['top_k']:.1f} bytes a token as top 8 with the rest and "
        f"{signals.bytes_per_token['sampled']:.1f} as 25 draws, hashes included; capture runs at {signals.capture_speed:.0%} of "
        f"the bare teacher's forward speed, the slower of the two counted. Held-out loss beside all probabilities: top 8 "
        f"{few.loss - dense.loss:+.3f}, draws {drawn.loss - dense.loss:+.3f} nats. A training with captured signals took "
        f"{max(few.seconds, drawn.seconds) / plain.seconds:.2f} times the seconds of cross-entropy alone, with the teacher "
        f"beside {dense.seconds / plain.seconds:.2f} times; the vocabulary is the teacher's whole one.",
    ]
    return "\n".join(lines)


def caption() -> str:
    there = ", ".join(f"{name} {version}" for name, version in versions().items() if name in ("torch", "transformers"))
    return f"{measured_on()}; {there}. `python -m benchmarks distillation`"
