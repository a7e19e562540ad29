"""A student that sees, trained from nothing on bar charts, with color jitter and without, and asked about new ones: with the
chart, blind (a white image), with another chart, and in a style that it was not trained on.

Charts are drawn here, of bars that differ in color and have no letters, or of bars of one color with a letter under each, and
every answer is computed from the bars. The benchmark fails if a student answers hardly better with the chart than without it:
then it would not see.

    python -m benchmarks.seeing [--letters] [--charts N] [--epochs N] [--asked N] [--jitter SHARE]
"""

import argparse
import asyncio
import io
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from benchmarks.machine import describe_measurement
from core.config.students import StudentConfig
from core.runs.student_records import StudentRecord
from core.sample import Message
from core.shared_options import DEFAULT_GGUF_TYPE
from core.storage.image_files import decode_image_url, fit_image, format_image_url
from core.weights.gguf_files import ImageLimits, read_image_limits
from flows.terminal.console import SESSION
from plugins.pictures.seeing.evaluation import (
    ARMS,
    BLIND,
    SEEING,
    SHUFFLED,
    PictureEvaluation,
    measure_arms,
)
from plugins.pictures.seeing.questions import PictureQuestion, QuestionSet
from students.chat_encoding import Conversation
from students.gguf_export import export_gguf
from students.training.student_training import train_student

COLORS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220), "black": (20, 20, 20), "yellow": (235, 200, 40),
    "purple": (150, 60, 180),
}  # fmt: skip
SIDE, PATCH = 64, 8
MOST_BARS = 6
HEIGHTS = range(6, 56, 3)
"""Two bars differ by 3 pixels or more."""
LETTERS = "ABCDEFGH"
LETTER_ROOM, LETTER_SIZE = 10, 9
"""Pixels under the bars, and of the font."""
QUESTIONS = 3
"""About each chart in training. Each is asked alone afterwards."""
SYSTEM = Message(role="system", content="Look.")
"""Shorter than the template's own."""
LEAST_GAIN = 0.3
"""Over both controls."""


class Style(NamedTuple):
    """How a chart is drawn."""

    background: tuple[int, int, int]
    grid: tuple[int, int, int] | None
    base_line: bool


BACKGROUNDS = (
    (255, 255, 255), (250, 244, 228), (232, 232, 232), (250, 228, 232), (228, 244, 228), (250, 248, 214), (238, 228, 248),
    (244, 232, 222),
)  # fmt: skip
STYLES = tuple(
    Style(background, grid, base_line=place % 2 == 1)
    for place, background in enumerate(BACKGROUNDS)
    for grid in (None, (background[0] - 44, background[1] - 44, background[2] - 44))
)
"""Each background with a grid and without one, half of them with a base line. After a training on 12,000 charts of the first
three backgrounds, one with a grid and one with a base line, the student was right on 81.4 % of charts in these styles (blind
20.0 %), and on 8.6 % in the held-out style.
"""
HELD_OUT_STYLE = Style((222, 234, 248), (180, 192, 206), base_line=True)
GRID_STEP = 12


class Chart(NamedTuple):
    """Bars from left to right: the height in pixels by color or letter."""

    bars: dict[str, int]
    url: str


class Setting(NamedTuple):
    charts: int = 16_000
    epochs: int = 4
    asked: int = 500
    """Charts of each style that the student is asked about, with one question each."""
    width: int = 96
    layers: int = 4
    rate: float = 2e-3
    batch: int = 32
    vocabulary: int = 512
    jitter: float = 0.2
    """The color jitter of one student; the other has none."""
    letters: bool = False
    """Whether the bars of a chart have one color, and a letter each."""


DEFAULT = Setting()
BARS = {False: "Bars have colors and no letters.", True: "The bars of a chart have one color, and a letter each."}


class Outcome(NamedTuple):
    record: StudentRecord
    processor_seconds: float
    """Of the training."""
    bytes: int
    """Of its two files."""
    known: PictureEvaluation
    """In the styles of the training."""
    held_out: PictureEvaluation
    """In another style."""


def draw_chart(rng: Random, style: Style, *, letters: bool = False) -> Chart:
    names = rng.sample(list(LETTERS if letters else COLORS), rng.randint(2, MOST_BARS))
    room = LETTER_ROOM if letters else 0
    floor = SIDE - room
    bars = dict(
        zip(names, rng.sample([height for height in HEIGHTS if height + room < SIDE - 2], len(names)), strict=True)
    )
    shared = rng.choice(list(COLORS.values())) if letters else None
    image = Image.new("RGB", (SIDE, SIDE), style.background)
    pen = ImageDraw.Draw(image)
    for level in range(floor - 2 - GRID_STEP, 0, -GRID_STEP) if style.grid else ():
        pen.line([0, level, SIDE, level], fill=style.grid)
    width, left = rng.randint(7 if letters else 5, 8), rng.randint(2, 5)
    for name, height in bars.items():
        pen.rectangle([left, floor - 2 - height, left + width - 2, floor - 3], fill=shared or COLORS[name])
        if letters:
            font = ImageFont.load_default(LETTER_SIZE)
            pen.text((left, SIDE - 1), name, fill=(20, 20, 20), font=font, anchor="ls")
        left += width + rng.randint(1, 2)
    if style.base_line:
        pen.line([0, floor - 2, SIDE, floor - 2], fill=(90, 90, 90))
    written = io.BytesIO()
    image.save(written, "PNG")
    return Chart(bars, format_image_url(written.getvalue()))


def ask(rng: Random, bars: Mapping[str, int], kind: int) -> tuple[str, str]:
    """A question of one of four kinds, and its answer."""
    if kind == 0:
        return "How many bars are there?", str(len(bars))
    if kind == 1:
        return "Which bar is the tallest?", max(bars, key=bars.__getitem__)
    if kind == 2:
        return "Which bar is the shortest?", min(bars, key=bars.__getitem__)
    one, other = rng.sample(list(bars), 2)
    return f"Which bar is taller, {one} or {other}?", max(one, other, key=bars.__getitem__)


KINDS = 4


def draw_conversation(
    rng: Random, styles: Sequence[Style], kinds: Sequence[int], *, letters: bool = False
) -> Conversation:
    """One chart, and a question of each of these kinds."""
    chart = draw_chart(rng, rng.choice(styles), letters=letters)
    turns = [SYSTEM]
    for place, kind in enumerate(kinds):
        question, answer = ask(rng, chart.bars, kind)
        turns.append(Message(role="user", content=question, images=() if place else (chart.url,)))
        turns.append(Message(role="assistant", content=answer))
    return turns


def draw_questions(
    rng: Random, styles: Sequence[Style], number: int, limits: ImageLimits, *, letters: bool = False
) -> QuestionSet:
    """A question about each of `number` charts, of all kinds in turn."""
    questions = []
    for place in range(number):
        *prompt, answer = draw_conversation(rng, styles, [place % KINDS], letters=letters)
        [url] = prompt[-1].images
        picture = fit_image(decode_image_url(url), limits.patch, limits.size)
        questions.append(PictureQuestion(prompt, answer.content, picture))
    return QuestionSet(questions, [])


def measure(setting: Setting, jitter: float, folder: Path, seed: int = 0) -> Outcome:
    """A student with this color jitter; others are trained on the same charts and asked the same questions."""
    rng = Random(f"seeing {seed}")
    rows, held_out = (
        [
            draw_conversation(rng, STYLES, rng.sample(range(KINDS), QUESTIONS), letters=setting.letters)
            for _ in range(number)
        ]
        for number in (setting.charts, 200)
    )
    config = StudentConfig.model_validate({
        "start": "random", "hidden_size": setting.width, "layers": setting.layers, "vocabulary": setting.vocabulary,
        "steps": [{"type": "sight", "patch": PATCH, "size": SIDE, "color_jitter": jitter}],
        "epochs": setting.epochs, "learning_rate": setting.rate,
        "batch_size": setting.batch, "precision": "float32", "checkpoint_steps": 100, "max_tokens": 256,
    })  # fmt: skip
    student = folder / "student"
    began = time.process_time()
    record = train_student(rows, config, student, seed=seed, progress=SESSION.print_unless_stopped, held_out=held_out)
    spent = time.process_time() - began
    exported = export_gguf(student, DEFAULT_GGUF_TYPE)
    assert exported.projector
    limits = read_image_limits(exported.projector)
    found = [
        asyncio.run(
            measure_arms(
                student,
                DEFAULT_GGUF_TYPE,
                name,
                exported.path,
                limits,
                draw_questions(rng, styles, setting.asked, limits, letters=setting.letters),
                SESSION,
            )
        )
        for name, styles in (("styles of the training", STYLES), ("a held-out style", [HELD_OUT_STYLE]))
    ]
    return Outcome(record, spent, exported.bytes, *found)


def check_controls(outcome: Outcome) -> None:
    """Raises RuntimeError if the student is hardly better with its chart than without."""
    rates = {name: arm.pass_rate.value for name, arm in outcome.known.arms.items()}
    for control in (BLIND, SHUFFLED):
        if rates[SEEING] - rates[control] < LEAST_GAIN:
            raise RuntimeError(
                f"{rates[SEEING]:.1%} right with the chart and {rates[control]:.1%} {control}: the student is not shown to see"
            )


def format_page(setting: Setting, outcomes: Mapping[float, Outcome]) -> str:
    """The page of students by color jitter."""
    outcome = next(iter(outcomes.values()))
    record = outcome.record
    size = (
        f"{record.parameters:,} parameters ({setting.layers} layers, {setting.width} wide, {outcome.bytes / 1e6:.1f} MB"
    )
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.seeing{' --letters' if setting.letters else ''}`",
        "",
        f"A student of {size} as {DEFAULT_GGUF_TYPE} with its embedder of images), from random weights, on {setting.charts:,} "
        f"charts of {SIDE} pixels in patches of {PATCH} with {QUESTIONS} questions each, {setting.epochs} epochs, "
        f"{record.steps:,} steps, color jitter {' and '.join(f'{jitter:g}' for jitter in outcomes)}. Asked in llama.cpp "
        f"about {setting.asked:,} new charts of each row, one question each: how many bars, which is the tallest, the shortest, "
        f"the taller of two. {BARS[setting.letters]} One seed.",
        "",
        f"| color jitter | charts | {' | '.join(ARMS)} |",
        f"|---:|---|{'---:|' * len(ARMS)}",
    ]
    for jitter, one in outcomes.items():
        for name, found in (("in the styles of the training", one.known), ("in a held-out style", one.held_out)):
            shares = []
            for arm in ARMS:
                rate = found.arms[arm].pass_rate
                shares.append(f"{100 * rate.value:.1f} % ({100 * rate.low:.1f} to {100 * rate.high:.1f})")
            lines.append(f"| {jitter:g} | {name} | {' | '.join(shares)} |")
    lines.append("")
    for jitter, one in outcomes.items():
        loss = f"held-out loss {one.record.loss_before:.2f} -> {one.record.loss_after:.2f}"
        spent = f"{one.record.seconds:.0f} s, {one.processor_seconds:.0f} s of processor time"
        lines.append(f"Color jitter {jitter:g}: {loss}, {spent}.")
    return "\n".join(lines)


def table(setting: Setting = DEFAULT) -> str:
    outcomes = {}
    for jitter in sorted({0.0, setting.jitter}):
        with tempfile.TemporaryDirectory() as name:
            outcomes[jitter] = measure(setting, jitter, Path(name))
    page = format_page(setting, outcomes)
    SESSION.print_message(page)
    for outcome in outcomes.values():
        check_controls(outcome)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("charts", "epochs", "asked", "width", "layers"):
        parser.add_argument(f"--{name}", type=int, default=getattr(DEFAULT, name))
    parser.add_argument("--letters", action="store_true")
    for name in ("rate", "jitter"):
        parser.add_argument(f"--{name}", type=float, default=getattr(DEFAULT, name))
    sys.stdout.write(f"{table(DEFAULT._replace(**vars(parser.parse_args())))}\n")


if __name__ == "__main__":
    main()
