"""Pictures of one colored square, and conversations that ask for its color: what a tiny student can learn to see in seconds."""

import io
import json
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from core.sample import Message
from core.storage.image_files import format_image_url

COLORS = ("red", "green", "blue", "black", "yellow", "purple")
QUESTION = "Which color?"
SIZES = ((64, 48), (32, 64), (48, 48), (200, 90))
"""The last is larger than a tiny student's images."""


def draw_square(color: str, rng: Random, size: tuple[int, int] = SIZES[0]) -> str:
    """The `data:` URL of a white PNG with a square somewhere."""
    image = Image.new("RGB", size, "white")
    side = min(size) // 3
    left, top = (rng.randrange(length - side) for length in size)
    ImageDraw.Draw(image).rectangle([left, top, left + side, top + side], fill=color)
    return png_url(image)


def png_url(image: Image.Image) -> str:
    written = io.BytesIO()
    image.save(written, "PNG")
    return format_image_url(written.getvalue())


def ask_color(color: str, rng: Random, size: tuple[int, int] = SIZES[0]) -> list[Message]:
    image = draw_square(color, rng, size)
    return [Message(role="user", content=QUESTION, images=(image,)), Message(role="assistant", content=color)]


def color_conversations(number: int, seed: int = 0) -> list[list[Message]]:
    rng = Random(seed)
    return [ask_color(rng.choice(COLORS), rng) for _ in range(number)]


def write_rows(file: Path, number: int, seed: int) -> Path:
    """The conversations in OpenAI's form, with `data:` URLs."""
    lines = []
    for asked, answer in color_conversations(number, seed):
        parts = [{"type": "image_url", "image_url": {"url": asked.images[0]}}, {"type": "text", "text": asked.content}]
        turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer.content}]
        lines.append(json.dumps({"messages": turns}))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file
