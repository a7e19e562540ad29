"""Early fusion, patches as tokens of a student that has no vision encoder, next to late fusion: a frozen encoder in front of it.

Declared before the run:

- The charts, questions and students of `benchmarks/seeing.py`: 8,000 charts, since 16,000 took over 25
  minutes an arm, 4 epochs, 4 layers, 96 wide, seed 0.
- `early`: the step `sight`, patches of 8 pixels. `late`: three convolutions of stride 2 give 56 features for each of the same
  64 places; they are frozen, and a norm, a projection and places are trained with the student. Language parts are equal, all
  parameters within 1 % of each other (the benchmark fails otherwise), and so are rows, order, steps and learning rate.
- The encoder was trained before: from charts alone, the height of each color's bar or that it is absent, 8,000 other charts in
  the training's styles, 8 epochs, the arm's color jitter. Its head is thrown away; its own accuracy is printed. So `late` has
  seen 8,000 charts with their heights more than `early`.
- `late, random encoder` (control): the same, frozen as it was initialized.
- `late, encoder learns`: from the control's weights, with jitter 0.2, trained with the student on its answers. Declared after the
  other results, which it explains, with no goal: if it is as good as `late`, convolutions help; if not, the heights seen before.
- Order: `early`, `late` with color jitter 0.2, then both without, then the control, then `late, encoder learns`. A stopped
  benchmark prints what is there.
- 500 new charts in the training's styles and 500 in a style that neither saw: background, grid and base line. Each arm is asked
  with the chart, with a white image and with another chart. In torch, since llama.cpp has no such encoder: right is an answer
  whose every token, and the end, is the most likely one.
- Goal: `early` is at least as good: no interval of `early` minus `late`, paired by chart, is wholly below 0, with jitter or
  without, in either style. One seed: the intervals are of charts, not of trainings.

    STILLHOUSE_FUSION=FOLDER python -m benchmarks.late_fusion [--charts N] [--epochs N] [--asked N] [--encoder-charts N]
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.machine import describe_measurement
from benchmarks.retention import open_folder
from benchmarks.seeing import (
    COLORS,
    HEIGHTS,
    HELD_OUT_STYLE,
    KINDS,
    LEAST_GAIN,
    PATCH,
    QUESTIONS,
    SIDE,
    STYLES,
    Chart,
    Setting,
    Style,
    draw_chart,
    draw_conversation,
    draw_questions,
)
from core.config.students import StudentConfig
from core.intervals import IntervalEstimate, estimate_paired_difference, estimate_share
from core.runs.student_records import StudentRecord
from core.sample import Message
from core.shared_options import EMBEDDER_FILE
from core.storage.atomic_files import read_record, write_text
from core.storage.image_files import decode_image_url
from core.weights.gguf_files import ImageLimits
from flows.terminal.console import SESSION
from plugins.pictures.config import SightStep
from plugins.pictures.seeing.embedder import (
    POSITION_SCALE,
    SightCode,
    build_image_mask,
    collect_patches,
    embed_images,
    load_image_embedder,
)
from plugins.pictures.seeing.evaluation import ARMS, BLIND, SEEING, SHUFFLED
from plugins.pictures.seeing.questions import PictureQuestion, draw_blanks, shuffle_pictures
from students.chat_encoding import EncodedConversation, encode_conversation, find_pad_id
from students.known_architectures import FROM_FOLDER
from students.predictions import IMAGE_READER, ImageReader, TokenBatch, build_batch, predict_tokens
from students.start_model import StartModel
from students.training.steps import Training
from students.training.student_training import train_student

FUSION_SETTING, ENCODER_CHARTS, ENCODER_EPOCHS, ENCODER_RATE, ENCODER_BATCH = Setting(charts=8_000), 8_000, 8, 2e-3, 64
CHANNELS = (16, 32, 56)
"""Of the convolutions. The last makes both arms equally large."""
LIMITS = ImageLimits(PATCH, SIDE)
PLACES = SIDE // PATCH
SIZE_MARGIN = 0.01
EARLY, LATE, UNTRAINED, LEARNING = "early", "late", "late, random encoder", "late, encoder learns"
ORDER = ((EARLY, 0.2), (LATE, 0.2), (EARLY, 0.0), (LATE, 0.0), (UNTRAINED, 0.2), (LEARNING, 0.2))
KNOWN, OTHER = "in the styles of the training", "in a held-out style"


class FusedStudent(BaseModel):
    parameters: int
    trained: int
    """Of them."""
    steps: int
    loss: float
    """Held-out nats per token after the training."""
    seconds: float
    """Of the processor, without the encoder's own training."""
    right: dict[str, dict[str, list[bool]]]
    """By style and by picture, chart by chart."""


class TrainedEncoder(BaseModel):
    seconds: float
    accuracy: float
    """Of heights on charts that it did not see, all colors counted, in the styles of the training."""
    accuracy_other: float
    """The same in the held-out style."""


class ChartEncoder(nn.Module):
    """Features of each place of a chart, of shape (charts, channels, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = zip((3, *CHANNELS), CHANNELS, strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in sizes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            images = functional.gelu(layer(images))
        return images


class LateReader(ImageReader):
    """Projects the features of an encoder, which is frozen unless it `learns`, into tokens."""

    def __init__(self, encoder: ChartEncoder, width: int, learns: bool = False) -> None:
        super().__init__()
        self.limits, self.encoder = LIMITS, encoder.requires_grad_(learns)
        self.norm, self.project, self.last = (
            nn.LayerNorm(CHANNELS[-1]),
            nn.Linear(CHANNELS[-1], width),
            nn.LayerNorm(width),
        )
        self.positions = nn.Parameter(torch.randn(2, PLACES, width) * POSITION_SCALE)

    def forward(self, patches: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """As `ImageEmbedder.forward`. Images are square, so their patches are put together again."""
        blocks = patches.reshape(-1, PLACES, PLACES, 3, PATCH, PATCH)
        images = blocks.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIDE, SIDE)
        features = self.encoder(images).permute(0, 2, 3, 1).reshape(len(patches), -1)
        where = self.positions[0, places[:, 0]] + self.positions[1, places[:, 1]]
        found: torch.Tensor = self.last(self.project(self.norm(features)) + where)
        return found

    def build_inputs(self, model: PreTrainedModel, batch: TokenBatch) -> dict[str, torch.Tensor]:
        embedded = embed_images(model, batch.ids, collect_patches(batch.images))
        return {"inputs_embeds": embedded, "attention_mask": build_image_mask(batch)}

    def write(self, folder: Path) -> None:
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / EMBEDDER_FILE)

    def describe_use(self) -> str:
        return "A student of a benchmark."


class LateSightCode(SightCode):
    def __init__(self, encoder: Path | None, color_jitter: float, learns: bool) -> None:
        super().__init__(LIMITS, color_jitter)
        self._encoder, self._learns = encoder, learns

    def prepare(self, start: StartModel, training: Training) -> StartModel:
        encoder = ChartEncoder()
        if self._encoder:
            encoder.load_state_dict(load_file(self._encoder))
        setattr(start.model, IMAGE_READER, LateReader(encoder, start.model.config.hidden_size, self._learns))
        return start._replace(made_from=f"{start.made_from}, with an encoder of images")


class LateSightStep(SightStep):
    encoder: str | None = None
    """The file of the encoder; None for a random one."""
    learns: bool = False

    def load(self) -> LateSightCode:
        return LateSightCode(Path(self.encoder) if self.encoder else None, self.color_jitter, self.learns)


def read_chart(chart: Chart) -> torch.Tensor:
    """Its pixels, bytes of shape (3, 64, 64)."""
    with Image.open(io.BytesIO(decode_image_url(chart.url))) as image:
        return (
            torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.uint8)
            .reshape(SIDE, SIDE, 3)
            .permute(2, 0, 1)
        )


def list_heights(chart: Chart) -> list[int]:
    """The class of each color: 0 if it is absent, else 1 + the place of its height."""
    return [1 + list(HEIGHTS).index(chart.bars[color]) if color in chart.bars else 0 for color in COLORS]


class HeightHead(nn.Module):
    """Heights by color from the strongest feature of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(CHANNELS[-1] * PLACES, len(COLORS) * (1 + len(HEIGHTS)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(features.amax(3).flatten(1))
        return found.reshape(len(features), 1 + len(HEIGHTS), len(COLORS))


def train_encoder(file: Path, charts: int, epochs: int, jitter: float) -> TrainedEncoder:
    record = file.with_suffix(".json")
    if record.is_file():
        return read_record(record, TrainedEncoder)
    rng = Random("encoder")
    torch.manual_seed(0)

    def draw(number: int, styles: Sequence[Style]) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = [draw_chart(rng, rng.choice(styles)) for _ in range(number)]
        return torch.stack([read_chart(one) for one in drawn]), torch.tensor([list_heights(one) for one in drawn])

    images, heights = draw(charts, STYLES)
    held_out = [draw(500, styles) for styles in (STYLES, [HELD_OUT_STYLE])]
    encoder, head = ChartEncoder(), HeightHead()
    learned = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=ENCODER_RATE)
    steps = epochs * (charts // ENCODER_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, ENCODER_RATE, total_steps=steps)
    began = time.process_time()
    for _ in range(epochs):
        for places in torch.randperm(charts)[: charts // ENCODER_BATCH * ENCODER_BATCH].split(ENCODER_BATCH):
            factors = 1 - jitter * torch.rand(len(places), 3, 1, 1)
            loss = functional.cross_entropy(head(encoder(images[places] * factors / 255)), heights[places])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    seconds = time.process_time() - began
    with torch.no_grad():
        known, other = (float((head(encoder(x / 255)).argmax(1) == y).float().mean()) for x, y in held_out)
    save_file(encoder.state_dict(), file)
    trained = TrainedEncoder(seconds=seconds, accuracy=known, accuracy_other=other)
    write_text(record, trained.model_dump_json() + "\n")
    SESSION.print_unless_stopped(f"encoder, jitter {jitter:g}: {known:.1%} and {other:.1%} of heights, {seconds:.0f} s")
    return trained


def configure_fusion(setting: Setting, arm: str, jitter: float, encoder: Path) -> StudentConfig:
    sight = {"type": "sight", "patch": PATCH, "size": SIDE, "color_jitter": jitter}
    config = StudentConfig.model_validate({
        "start": "random", "hidden_size": setting.width, "layers": setting.layers, "vocabulary": setting.vocabulary,
        "steps": [sight], "epochs": setting.epochs, "learning_rate": setting.rate, "batch_size": setting.batch,
        "precision": "float32", "checkpoint_steps": 200, "max_tokens": 256,
    })  # fmt: skip
    if arm == EARLY:
        return config
    step = LateSightStep.model_validate(
        {**sight, "encoder": str(encoder) if arm == LATE else None, "learns": arm == LEARNING}
    )
    return config.model_copy(update={"steps": (step,)})


def read_fused_student(folder: Path, arm: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, **FROM_FOLDER)
    if arm == EARLY:
        load_image_embedder(model, folder)
    else:
        reader = LateReader(ChartEncoder(), model.config.hidden_size)
        reader.load_state_dict({name: value.float() for name, value in load_file(folder / EMBEDDER_FILE).items()})
        setattr(model, IMAGE_READER, reader)
    return model.eval(), AutoTokenizer.from_pretrained(folder, **FROM_FOLDER)


@torch.no_grad()
def judge_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[PictureQuestion],
    pictures: Sequence[Any],
) -> list[bool]:
    """Whether the most likely tokens are the answer's, chart by chart, each with its picture."""
    right = list[bool]()
    encoded = list[EncodedConversation]()
    for question, picture in zip(asked, pictures, strict=True):
        turns = [*question.show(picture), Message(role="assistant", content=question.answer)]
        one = encode_conversation(turns, tokenizer, 256, LIMITS)
        assert isinstance(one, EncodedConversation), one
        encoded.append(one)
    for first in range(0, len(encoded), 50):
        found = predict_tokens(model, build_batch(encoded[first : first + 50], find_pad_id(tokenizer)))
        wrong = set(found.rows[found.logits.argmax(-1) != found.targets].tolist())
        right += [row not in wrong for row in range(len(encoded[first : first + 50]))]
    return right


def measure_fused_student(
    setting: Setting, arm: str, jitter: float, folder: Path, encoder: Path, rows: Callable[[], Any]
) -> FusedStudent:
    name = f"{arm} {jitter:g}".replace(", ", " ")
    file = folder / f"{name}.json"
    if file.is_file():
        return read_record(file, FusedStudent)
    train, held_out = rows()
    began = time.process_time()
    record: StudentRecord = train_student(
        train, configure_fusion(setting, arm, jitter, encoder), folder / name, seed=0,
        progress=SESSION.print_unless_stopped, held_out=held_out,
    )  # fmt: skip
    seconds = time.process_time() - began
    model, tokenizer = read_fused_student(folder / name, arm)
    right: dict[str, dict[str, list[bool]]] = {}
    for style, styles in ((KNOWN, STYLES), (OTHER, (HELD_OUT_STYLE,))):
        asked = draw_questions(Random(f"asked {style}"), styles, setting.asked, LIMITS).questions
        pictures = {
            SEEING: [one.picture for one in asked],
            BLIND: draw_blanks(asked, PATCH),
            SHUFFLED: shuffle_pictures(asked, style),
        }
        right[style] = {shown: judge_answers(model, tokenizer, asked, images) for shown, images in pictures.items()}
    frozen = sum(one.numel() for one in ChartEncoder().parameters()) if arm in (LATE, UNTRAINED) else 0
    measured = FusedStudent(
        parameters=record.parameters, trained=record.parameters - frozen, steps=record.steps, loss=record.loss_after,
        seconds=seconds, right=right,
    )  # fmt: skip
    write_text(file, measured.model_dump_json() + "\n")
    rates = ", ".join(f"{style} {sum(one[SEEING]) / len(one[SEEING]):.1%}" for style, one in right.items())
    SESSION.print_unless_stopped(f"{name}: {rates}, {seconds:.0f} s")
    return measured


def draw_rows(setting: Setting) -> tuple[Any, Any]:
    """As `seeing.measure` draws them with seed 0."""
    rng = Random("seeing 0")
    rows, held_out = (
        [draw_conversation(rng, STYLES, rng.sample(range(KINDS), QUESTIONS)) for _ in range(number)]
        for number in (setting.charts, 200)
    )
    return rows, held_out


def compare_answers(first: Sequence[bool], second: Sequence[bool]) -> IntervalEstimate:
    pairs = list(zip(first, second, strict=True))
    counts = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False)))
    found = estimate_paired_difference(*counts)
    assert found, "charts were asked about"
    return found


def format_points(found: IntervalEstimate) -> str:
    return found.format(lambda value: f"{100 * value:+.1f}")


def format_fusion(
    setting: Setting,
    found: Mapping[tuple[str, float], FusedStudent],
    encoders: Mapping[float, TrainedEncoder],
    charts: int,
) -> str:
    one = next(iter(found.values()))
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.late_fusion`",
        "",
        f"{setting.charts:,} charts, {setting.epochs} epochs, {one.steps:,} steps, one seed. {setting.asked:,} new charts of "
        f"each row, in torch. The encoder learned heights on {charts:,} other charts.",
        "",
        f"| color jitter | fusion | parameters, trained | charts | {' | '.join(ARMS)} | held-out loss | CPU s |",
        f"|---:|---|---:|---|{'---:|' * len(ARMS)}---:|---:|",
    ]
    for (arm, jitter), student in found.items():
        for style, answers in student.right.items():
            shares = []
            for shown in ARMS:
                rate = estimate_share(sum(answers[shown]), len(answers[shown]))
                assert rate, "charts were asked about"
                shares.append(rate.format(lambda value: f"{100 * value:.1f} %"))
            size = f"{student.parameters:,}, {student.trained:,}"
            cells = (f"{jitter:g}", arm, size, style, *shares, f"{student.loss:.2f}", f"{student.seconds:.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for jitter in dict.fromkeys(jitter for _, jitter in found):
        for other in (LATE, UNTRAINED, LEARNING):
            if (EARLY, jitter) in found and (other, jitter) in found:
                gaps = [
                    f"{style} {format_points(compare_answers(answers[SEEING], found[other, jitter].right[style][SEEING]))}"
                    for style, answers in found[EARLY, jitter].right.items()
                ]
                lines.append(f"- early minus {other}, jitter {jitter:g}, in points: {'; '.join(gaps)}")
    for jitter, encoder in encoders.items():
        lines.append(
            f"- encoder, jitter {jitter:g}: right about {encoder.accuracy:.1%} of heights in the styles of its training, "
            f"{encoder.accuracy_other:.1%} in the held-out style, after {encoder.seconds:.0f} CPU s"
        )
    return "\n".join(lines)


def check_fusion(found: Mapping[tuple[str, float], FusedStudent]) -> None:
    """Raises RuntimeError if arms differ in size, or a student that learned is not shown to see."""
    sizes = [student.parameters for student in found.values()]
    if max(sizes) - min(sizes) > SIZE_MARGIN * min(sizes):
        raise RuntimeError(
            f"students of {min(sizes):,} to {max(sizes):,} parameters: more than {SIZE_MARGIN:.0%} apart"
        )
    for (arm, jitter), student in found.items():
        rates = {shown: sum(answers) / len(answers) for shown, answers in student.right[KNOWN].items()}
        if arm != UNTRAINED and rates[SEEING] < LEAST_GAIN + max(rates[BLIND], rates[SHUFFLED]):
            raise RuntimeError(f"{arm}, jitter {jitter:g}: {rates}: the student is not shown to see")


def table(setting: Setting = FUSION_SETTING, encoder_charts: int = ENCODER_CHARTS, arms: int = len(ORDER)) -> str:
    with open_folder("STILLHOUSE_FUSION") as folder:
        drawn = list[Any]()

        def rows() -> Any:
            if not drawn:
                drawn.append(draw_rows(setting))
            return drawn[0]

        found, encoders = dict[tuple[str, float], FusedStudent](), dict[float, TrainedEncoder]()
        for arm, jitter in ORDER[:arms]:
            encoder = folder / f"encoder-{jitter:g}.safetensors"
            if arm == LATE:
                encoders[jitter] = train_encoder(encoder, encoder_charts, ENCODER_EPOCHS, jitter)
            found[arm, jitter] = measure_fused_student(setting, arm, jitter, folder, encoder, rows)
        page = format_fusion(setting, found, encoders, encoder_charts)
    SESSION.print_message(page)
    check_fusion(found)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("charts", "epochs", "asked"):
        parser.add_argument(f"--{name}", type=int, default=getattr(FUSION_SETTING, name))
    parser.add_argument("--encoder-charts", type=int, default=ENCODER_CHARTS)
    parser.add_argument("--arms", type=int, default=len(ORDER), help="the first ones of the order")
    asked = parser.parse_args()
    setting = FUSION_SETTING._replace(charts=asked.charts, epochs=asked.epochs, asked=asked.asked)
    sys.stdout.write(f"{table(setting, asked.encoder_charts, asked.arms)}\n")


if __name__ == "__main__":
    main()
