"""What share of the keys a student needs: windows of several widths, next to full attention that is trained on the same texts.

Declared before the run:

- Texts, students and training of `benchmarks/long_inputs.py`: 480 conversations, one epoch.
- Arms: full attention; 5, 10, 20 and 40 % of the keys. A share is that of all pairs of a token and an earlier one or itself,
  over all layers, in the training texts. Of 30 layers, 1, 2, 3 and 6 have full attention, and the windows of all others are as
  wide as the share allows; the table has the share that results.
- Seeds: all arms with 1, then full attention and 20 % with 2 and 3. A stopped benchmark keeps what is there and goes on.
- 60 held-out texts as long as those of the training, 20 of 144 sentences. Right is an answer whose likeliest token is the
  fact's colour; far is a fact of more than 64 tokens before.
- Goal: windows of 20 % of the keys are within 1 point of full attention on far facts, and within 1 % of its held-out loss, by
  the means of the seeds. The control, windows in all layers, is measured in `long_inputs`.

    STILLHOUSE_SHARES=FOLDER python -m benchmarks.attention_shares [--arms full-1,20-1,...] [--rows N] [--held-out N]
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel

from benchmarks.long_inputs import HELD_OUT, MANY_SENTENCES, ROWS, build_conversation, measure_answers
from benchmarks.machine import describe_measurement
from benchmarks.retention import open_folder
from core.config.students import StudentConfig
from core.intervals import estimate_share
from core.storage.atomic_files import read_record, write_text
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from students.chat_encoding import EncodedConversation, encode_conversation, find_pad_id
from students.gguf_export import read_student
from students.predictions import compute_held_out_loss
from students.start_model import TEACHER_LAYERS, start_from_layers
from students.training.student_training import train_student

FULL_LAYER_COUNTS = {"5": 1, "10": 2, "20": 3, "40": 6}
"""Layers with full attention, by the share of the keys in percent."""
WHOLE, GOAL_SHARE, MOST_LOST = "full", "20", 0.01
ARM_ORDER = ("full-1", "20-1", "10-1", "5-1", "40-1", "full-2", "20-2", "full-3", "20-3")
"""A share and a seed each."""


class ShareOutcome(BaseModel):
    window: int | None
    full_layers: int
    share: float
    """Of all pairs of a token and an earlier one or itself, over all layers, in the training texts."""
    loss: float
    """Held-out nats per token of an answer."""
    far: list[bool]
    far_longer: list[bool]
    """Answers about far facts, in texts as long as those of the training and in longer ones."""


def compute_share(lengths: Sequence[int], window: int, full_layers: int) -> float:
    """The share of the causal pairs that a student attends to."""
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    kept = sum((m := min(n, window)) * (m + 1) // 2 + (n - m) * window for n in lengths)
    return (full_layers + (TEACHER_LAYERS - full_layers) * kept / pairs) / TEACHER_LAYERS


def choose_window(lengths: Sequence[int], share: float, full_layers: int) -> int:
    """The width whose share is the nearest."""
    return min(range(2, max(lengths)), key=lambda window: abs(compute_share(lengths, window, full_layers) - share))


def measure_share_arm(name: str, folder: Path, rows: int, held_out: int) -> ShareOutcome:
    file = folder / f"{name}.json"
    if file.is_file():
        return read_record(file, ShareOutcome)
    kind, seed = name.split("-")
    train = [build_conversation(f"train {place}") for place in range(rows)]
    other = [build_conversation(f"held out {place}") for place in range(held_out)]
    longer = [build_conversation(f"longer {place}", MANY_SENTENCES) for place in range(held_out // 3)]
    settings: dict[str, Any] = {
        "start": "layers", "layers": TEACHER_LAYERS, "vocabulary": 512, "epochs": 1, "learning_rate": 3e-4,
        "batch_size": 4, "max_tokens": 1024,
    }  # fmt: skip
    window, full_layers, share = None, TEACHER_LAYERS, 1.0
    if kind != WHOLE:
        tokenizer = start_from_layers(TEACHER_LAYERS).tokenizer
        encoded = [encode_conversation(one, tokenizer, 1024) for one in train]
        lengths = [len(one.ids) for one in encoded if isinstance(one, EncodedConversation)]
        full_layers = FULL_LAYER_COUNTS[kind]
        window = choose_window(lengths, int(kind) / 100, full_layers)
        share = compute_share(lengths, window, full_layers)
        settings["steps"] = [{"type": "windows", "window": window, "full_every": TEACHER_LAYERS // full_layers}]
    with tempfile.TemporaryDirectory() as place:
        config, student = StudentConfig.model_validate(settings), Path(place) / "student"
        train_student(train, config, student, seed=int(seed), progress=SESSION.print_unless_stopped, held_out=other[:8])
        model, tokenizer = read_student(student)
    known = [encode_conversation(one, tokenizer, 1024) for one in other]
    outcome = ShareOutcome(
        window=window, full_layers=full_layers, share=share,
        loss=compute_held_out_loss(model, [one for one in known if isinstance(one, EncodedConversation)], find_pad_id(tokenizer)),
        far=measure_answers(model, tokenizer, other).far().tolist(),
        far_longer=measure_answers(model, tokenizer, longer).far().tolist(),
    )  # fmt: skip
    write_text(file, outcome.model_dump_json() + "\n")
    return outcome


def judge_shares(found: Mapping[str, ShareOutcome]) -> str | None:
    """Whether the goal is reached, in a sentence, by the seeds that both arms have; None without one."""
    seeds = [name.split("-")[1] for name in found if name.startswith(f"{WHOLE}-")]
    pairs = [
        (found[f"{GOAL_SHARE}-{seed}"], found[f"{WHOLE}-{seed}"]) for seed in seeds if f"{GOAL_SHARE}-{seed}" in found
    ]
    if not pairs:
        return None
    far = fmean(fmean(few.far) - fmean(full.far) for few, full in pairs)
    loss = fmean(few.loss for few, _ in pairs) / fmean(full.loss for _, full in pairs) - 1
    reached = far >= -MOST_LOST and loss <= MOST_LOST
    return (
        f"{GOAL_SHARE} % of the keys next to all, {len(pairs)} seeds: far facts {100 * far:+.1f} points, held-out loss "
        f"{100 * loss:+.1f} %: the goal is {'reached' if reached else 'missed'}"
    )


def format_shares(found: Mapping[str, ShareOutcome], rows: int) -> str:
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.attention_shares`",
        "",
        f"{rows} conversations, one epoch. Far: more than 64 tokens before. 95 % intervals are of answers, not of trainings.",
        "",
        "| keys | window | full layers | seed | held-out loss | far facts | in texts four times as long |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in found.items():
        rates = [estimate_share(sum(right), len(right)) for right in (one.far, one.far_longer)]
        cells = (
            f"{one.share:.1%}", str(one.window or ""), f"{one.full_layers} of {TEACHER_LAYERS}", name.split("-")[1],
            f"{one.loss:.4f}", *(rate.format(format_percent) if rate else "" for rate in rates),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", judge_shares(found) or ""]).rstrip()


def table(names: Sequence[str] = ARM_ORDER, rows: int = ROWS, held_out: int = HELD_OUT) -> str:
    with open_folder("STILLHOUSE_SHARES") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        return format_shares({name: measure_share_arm(name, folder, rows, held_out) for name in names}, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ARM_ORDER))
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    asked = parser.parse_args()
    sys.stdout.write(f"{table(asked.arms.split(','), asked.rows, asked.held_out)}\n")


if __name__ == "__main__":
    main()
