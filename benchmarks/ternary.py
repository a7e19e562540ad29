"""Ternary students next to full ones: held-out loss after as many steps and at as many bytes, and speed by size and format.

Students start from random weights, equal for a full and a ternary student of one width, and learn sentences of real text. Losses
are of the weights as their GGUF file stores them. The benchmark fails if a full student that is rounded to ternary values after
its training is as good as a ternary one: then ternary training would do nothing.

    python -m benchmarks.ternary [--rows N] [--epochs N] [--width N] [--layers N] [--vocabulary N] [--seeds N] [--sizes N]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import gguf
import torch
from transformers import PreTrainedModel

from benchmarks.decoding_speed import measure_decoding_speed
from benchmarks.machine import describe_measurement
from core.config.student_steps import ROW_MULTIPLE, TERNARY_BLOCK
from core.config.students import StudentConfig
from core.project_files import PROJECT
from core.runs.student_records import StudentRecord
from core.sample import Message
from flows.terminal.console import SESSION
from plugins.forms.ternary import build_bitnet, round_to_ternary
from students.chat_encoding import Conversation
from students.comparison import measure_text_loss
from students.gguf_export import GGUF_FORMS, GgufForm, export_gguf, read_student
from students.start_model import start_from_random
from students.training.student_training import train_student
from students.vocabulary_trimming import choose_tokens, keep_tokens

REFERENCE = PROJECT / "data" / "reference" / "english.jsonl"
QUESTION = Message(role="user", content="Write a sentence.")
MAX_TOKENS = 64
RATES = (1e-3, 2e-3)
"""Each arm is shown at its best one."""
FULL, TERNARY, WIDE, SMALL, ROUNDED = (
    "full", "ternary", "ternary, twice as wide", "full, narrower, as many bytes as ternary",
    "full, rounded to ternary values after its training (control)",
)  # fmt: skip
MARGIN = 0.1
"""Nats per token by which ternary training must beat rounding after the training; a training of a few steps does not."""
STORED = {FULL: "q8_0", TERNARY: "tq2_0", WIDE: "tq2_0", SMALL: "q4_0", ROUNDED: "tq2_0"}
SIZES = ((256, 6), (512, 8), (768, 12), (1024, 24))
"""Width and layers of the students whose speed is measured."""
SPEED_FORMS = ("q8_0", "q4_0", "tq2_0")


class Setting(NamedTuple):
    """What all arms share."""

    rows: int = 4000
    epochs: int = 4
    width: int = 256
    layers: int = 6
    vocabulary: int = 8192
    seeds: int = 3


DEFAULT = Setting()


class Outcome(NamedTuple):
    """An arm at one learning rate."""

    rate: float
    losses: list[float]
    """Held-out nats per token of the stored weights, by seed."""
    parameters: int
    bytes: int
    """Of its file, tokenizer included."""
    steps: int
    seconds: float
    """Mean training time."""


class SizeSpeed(NamedTuple):
    parameters: int
    bytes: dict[str, int]
    """By number format."""
    decoded: dict[str, float]
    """Tokens per second, by number format."""


def table(setting: Setting = DEFAULT, sizes: Sequence[tuple[int, int]] = SIZES) -> str:
    with tempfile.TemporaryDirectory() as name:
        arms = measure_arms(setting, Path(name))
        speeds = {size: measure_size(*size, setting.vocabulary, Path(name) / f"speed {size}") for size in sizes}
    check_control(arms)
    return format_page(setting, arms, speeds)


def measure_arms(setting: Setting, folder: Path) -> dict[str, Outcome]:
    """Every arm at its best rate."""
    train, held_out = read_conversations(setting.rows)
    narrow = choose_equal_width(setting)
    widths = {FULL: setting.width, TERNARY: setting.width, WIDE: 2 * setting.width, SMALL: narrow}
    found: dict[str, list[Outcome]] = {}
    for arm, width in widths.items():
        steps = [{"type": "ternary"}] if arm in (TERNARY, WIDE) else []
        for rate in RATES:
            students = []
            for seed in range(setting.seeds):
                start = write_start(setting, width, ROW_MULTIPLE if arm == SMALL else TERNARY_BLOCK, seed, folder)
                config = StudentConfig.model_validate({
                    "start": str(start), "steps": steps, "vocabulary": setting.vocabulary, "epochs": setting.epochs,
                    "learning_rate": rate, "max_tokens": MAX_TOKENS, "batch_size": 16,
                })  # fmt: skip
                out = folder / f"{arm} {rate} {seed}"
                record = train_student(
                    train, config, out, seed=seed, progress=SESSION.print_unless_stopped, held_out=held_out
                )
                students.append((out, record))
            add_outcome(found, arm, rate, students, held_out)
            if arm == FULL:
                rounded = [
                    (write_rounded(out, folder / f"rounded {rate} {out.name}"), record) for out, record in students
                ]
                add_outcome(found, ROUNDED, rate, rounded, held_out)
    return {arm: min(outcomes, key=lambda outcome: mean(outcome.losses)) for arm, outcomes in found.items()}


def add_outcome(
    found: dict[str, list[Outcome]],
    arm: str,
    rate: float,
    students: Sequence[tuple[Path, StudentRecord]],
    held_out: Sequence[Conversation],
) -> None:
    """Measure the students of an arm at one rate, by seed."""
    losses = [measure_stored_loss(student, STORED[arm], held_out) for student, _ in students]
    student, record = students[0]
    size, seconds = export_gguf(student, STORED[arm]).bytes, mean(record.seconds for _, record in students)
    found.setdefault(arm, []).append(Outcome(rate, losses, record.parameters, size, record.steps, seconds))
    SESSION.print_unless_stopped(f"{arm}, rate {rate:g}: {', '.join(f'{loss:.3f}' for loss in losses)}")


def write_rounded(student: Path, out: Path) -> Path:
    """The student with the ternary form of its layers, without any training of that form."""
    model, tokenizer = read_student(student)
    round_to_ternary(model)
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def read_conversations(rows: int) -> tuple[list[Conversation], list[Conversation]]:
    """Sentences of the reference as answers: of each eleven, the last is held out."""
    lines = REFERENCE.read_text(encoding="utf-8").splitlines()[: rows + rows // 10]
    texts = [Message(role="assistant", content=json.loads(line)["text"]) for line in lines]
    train = [[QUESTION, text] for place, text in enumerate(texts) if place % 11 < 10]
    return list(train), [[QUESTION, text] for text in texts[10::11]]


def write_start(setting: Setting, width: int, multiple: int, seed: int, folder: Path) -> Path:
    """A random Llama, the same for every arm of this width."""
    start = folder / f"start {width} {multiple} {seed}"
    if not start.exists():
        torch.manual_seed(seed)
        made = start_from_random(width, setting.layers, multiple)
        made.model.save_pretrained(start)
        made.tokenizer.save_pretrained(start)
    return start


def count_bytes(setting: Setting, width: int, multiple: int, form: GgufForm) -> float:
    """The weights' bytes of a student in a file."""
    hidden = max(multiple, width * 8 // 3 // multiple * multiple)
    matrices = setting.layers * (4 * width * width + 3 * width * hidden)
    return matrices * _bytes_per_weight(form.matrices) + setting.vocabulary * width * _bytes_per_weight(form.embedding)


def _bytes_per_weight(kind: gguf.GGMLQuantizationType) -> float:
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    return size / weights


def choose_equal_width(setting: Setting) -> int:
    """The width of a full student whose Q4_0 file has about the bytes of the ternary one's TQ2_0 file."""
    goal = count_bytes(setting, setting.width, TERNARY_BLOCK, GGUF_FORMS["tq2_0"])
    widths = range(ROW_MULTIPLE, setting.width + 1, ROW_MULTIPLE)
    return min(widths, key=lambda width: abs(count_bytes(setting, width, ROW_MULTIPLE, GGUF_FORMS["q4_0"]) - goal))


def measure_stored_loss(student: Path, form: str, held_out: Sequence[Conversation]) -> float:
    """The held-out loss of the student as a file of this form stores it."""
    model, tokenizer = read_student(student)
    round_to_form(model, GGUF_FORMS[form])
    loss = measure_text_loss(model, tokenizer, held_out, MAX_TOKENS).nats_per_token
    assert loss is not None
    return loss


@torch.no_grad()
def round_to_form(model: PreTrainedModel, form: GgufForm) -> None:
    """Give the matrices the values that a file of this form has, in place."""
    embedding = model.get_input_embeddings().weight
    for parameter in model.parameters():
        if parameter.ndim == 2:
            kind = form.embedding if parameter is embedding else form.matrices
            stored = gguf.dequantize(gguf.quantize(parameter.numpy(), kind), kind)
            parameter.copy_(torch.from_numpy(stored))


def measure_size(width: int, layers: int, vocabulary: int, folder: Path) -> SizeSpeed:
    """A student of random ternary weights in each format."""
    start = start_from_random(width, layers, TERNARY_BLOCK)
    start = keep_tokens(start, choose_tokens(start.tokenizer, (), vocabulary))
    model = build_bitnet(start.model)
    round_to_ternary(model)
    model.bfloat16().save_pretrained(folder)
    start.tokenizer.save_pretrained(folder)
    exported = {form: export_gguf(folder, form) for form in SPEED_FORMS}
    decoded = {form: asyncio.run(measure_decoding_speed(one.path)).decoded for form, one in exported.items()}
    return SizeSpeed(model.num_parameters(), {form: one.bytes for form, one in exported.items()}, decoded)


def check_control(arms: Mapping[str, Outcome]) -> None:
    """Raises RuntimeError if a full student rounded after its training is nearly as good as a ternary one."""
    trained, rounded = max(arms[TERNARY].losses), min(arms[ROUNDED].losses)
    if rounded < trained + MARGIN:
        raise RuntimeError(
            f"ternary training shows no use: a full student rounded after its training has a loss of {rounded:.3f}, a ternary "
            f"one {trained:.3f}, and the difference must be {MARGIN} or more; train longer"
        )


def format_page(setting: Setting, arms: Mapping[str, Outcome], speeds: Mapping[tuple[int, int], SizeSpeed]) -> str:
    lines = [
        f"{describe_measurement()}. `python -m benchmarks ternary`",
        "",
        f"{setting.rows} sentences, {setting.epochs} epochs of {arms[FULL].steps // setting.epochs} steps, {setting.layers} "
        f"layers, {setting.vocabulary:,} tokens, random starts, {setting.seeds} seeds; each arm at the best of the rates "
        f"{', '.join(f'{rate:g}' for rate in RATES)}. Losses are of the weights as stored.",
        "",
        "| student | stored as | parameters | MB | rate | held-out nats per token, by seed | mean | training s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for arm, outcome in arms.items():
        cells: list[Any] = [
            arm, STORED[arm], f"{outcome.parameters / 1e6:.1f}M", f"{outcome.bytes / 1e6:.1f}", f"{outcome.rate:g}",
            ", ".join(f"{loss:.3f}" for loss in outcome.losses), f"{mean(outcome.losses):.3f}", f"{outcome.seconds:.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    if speeds:
        formats = " / ".join(SPEED_FORMS)
        lines += [
            "",
            "Decoding of a single conversation, random ternary weights, the median of three:",
            "",
            f"| width x layers | parameters | MB: {formats} | tokens/s: {formats} | `tq2_0` over `q8_0`: size, speed | over "
            "`q4_0`: size, speed |",
            "|---|---:|---:|---:|---:|---:|",
        ]
    for (width, layers), found in speeds.items():
        size, speed = found.bytes, found.decoded
        ratios = [
            f"{size['tq2_0'] / size[other]:.2f}, {speed['tq2_0'] / speed[other]:.2f}" for other in ("q8_0", "q4_0")
        ]
        megabytes = " / ".join(f"{size[form] / 1e6:.1f}" for form in SPEED_FORMS)
        tokens = " / ".join(f"{speed[form]:,.0f}" for form in SPEED_FORMS)
        lines.append(
            f"| {width} x {layers} | {found.parameters / 1e6:.1f}M | {megabytes} | {tokens} | {ratios[0]} | {ratios[1]} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in DEFAULT._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="the number of sizes whose speed is measured")
    options = vars(parser.parse_args())
    sizes = SIZES[: options.pop("sizes")]
    sys.stdout.write(f"{table(Setting(**options), sizes)}\n")


if __name__ == "__main__":
    main()
