"""The images of a run's conversations as files named by their content, so that an image is stored once, and a resumed run stores
it again under the same name; and images of any origin, bounded and fitted to a size. Knows no sample's family.
"""

import base64
import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.errors import StoreError
from core.installation import format_install_command
from core.sample import Message, Sample
from core.storage.atomic_files import write_bytes

IMAGES_FOLDER = "images"
IMAGES_COLUMN = "images"
IMAGE_COLUMNS = (IMAGES_COLUMN, "image")
"""Columns of a dataset that may hold the images of a row."""
IMAGE_NAME = re.compile(rf"{IMAGES_FOLDER}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})\.(?:png|jpeg)")
"""The path of an image in its run or release: the SHA-256 of its bytes, in folders by its first two digits."""
IMAGE_URL = re.compile("data:image/(png|jpeg);base64,")
JPEG_START = b"\xff\xd8\xff"


def store_sample_images(folder: Path, sample: Sample) -> Sample:
    """The sample with its `data:` images in files of `folder`, a run, each by its path there. Other URLs are kept.

    Raises:
        StoreError: if an image cannot be written.
    """
    if not any(message.images for message in sample.candidate.messages):
        return sample
    messages = [_store_message_images(folder, message) for message in sample.candidate.messages]
    return sample.model_copy(update={"candidate": sample.candidate.model_copy(update={"messages": messages})})


def _store_message_images(folder: Path, message: Message) -> Message:
    return message.model_copy(update={"images": tuple(_store_image(folder, url) for url in message.images)})


def _store_image(folder: Path, url: str) -> str:
    if not (begin := IMAGE_URL.match(url)):
        return url
    try:
        content = base64.b64decode(url[begin.end() :], validate=True)
    except ValueError:  # also of text that is no ASCII
        return url
    digest = hashlib.sha256(content).hexdigest()
    name = f"{IMAGES_FOLDER}/{digest[:2]}/{digest}.{begin[1]}"
    if not (folder / name).is_file():
        write_bytes(folder / name, content)
    return name


def is_stored_image(url: str) -> bool:
    """Whether an image of a message is the path of a file, and no URL."""
    return IMAGE_NAME.fullmatch(url) is not None


def find_image_file(name: str, folders: Sequence[Path]) -> Path:
    """The file of a stored image, in the first of the folders (runs, releases) that has it. Raises StoreError if none has it."""
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if not is_stored_image(name) or file is None:
        raise StoreError(f"{name}: is in none of {', '.join(map(str, folders))}; make the run again")
    return file


def read_image(name: str, folders: Sequence[Path]) -> bytes:
    """The bytes of a stored image.

    Raises:
        StoreError: if none of the folders has it, or its content is not what its name says.
    """
    file = find_image_file(name, folders)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != file.stem:
        raise StoreError(
            f"{file}: is damaged: its content has another hash than its name; delete it and run again with --resume"
        )
    return content


def format_image_url(content: bytes) -> str:
    """The `data:` URL of a PNG or JPEG."""
    kind = "jpeg" if content.startswith(JPEG_START) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that Pillow decodes by itself. It would start Ghostscript for EPS."""
MAX_PIXELS = 50_000_000
"""Width times height of the largest image that is decoded for a student. A pixel takes up to 16 bytes (WebP)."""
MAX_URL_CHARACTERS = 32 * 2**20
"""Of a `data:` URL."""


class UnreadableImage(ValueError):
    """An image that cannot be decoded, or not within the limit; the text gives the reason."""


class FittedImage(NamedTuple):
    """An image of whole patches."""

    png: bytes
    columns: int
    rows: int

    @property
    def tokens(self) -> int:
        """One for each patch."""
        return self.columns * self.rows


def find_images_problem() -> str | None:
    """What this machine lacks to decode images, in a sentence, or None. Loads nothing."""
    return None if find_spec("PIL") else f"needs the extra `pictures`: run {format_install_command('pictures')}"


@contextmanager
def open_image_bytes(content: bytes, max_pixels: int) -> Iterator["Image"]:
    """The image, with its size known and its pixels not yet decoded.

    Raises:
        UnreadableImage: here, or when its pixels are decoded within the context.
    """
    from PIL import Image

    if not content:
        raise UnreadableImage("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise UnreadableImage(
                        f"has {image.width:,} x {image.height:,} pixels; {max_pixels:,} are allowed in all"
                    )
                yield image
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(f"has far more pixels than {max_pixels:,}, which are allowed") from None
    except Image.UnidentifiedImageError:
        raise UnreadableImage(f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Exception as error:  # damaged files raise what their decoder happens to raise
        raise UnreadableImage(f"cannot be decoded: {type(error).__name__}: {str(error)[:100]}") from None


def decode_image_url(url: str) -> bytes:
    """The bytes in a `data:` URL. Nothing is downloaded or opened. Raises UnreadableImage for any other address."""
    head, comma, encoded = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise UnreadableImage(f"is not in the message, which names {url[:60]!r}; nothing is downloaded or opened")
    if len(url) > MAX_URL_CHARACTERS:
        raise UnreadableImage(f"has {len(url):,} characters; {MAX_URL_CHARACTERS:,} are allowed")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:  # also of text that is no ASCII
        raise UnreadableImage("is no base64 text") from None


def fit_image(content: bytes, patch: int, size: int, max_pixels: int = MAX_PIXELS) -> FittedImage:
    """The image upright (as its EXIF data says) without transparency, with sides that are multiples of `patch` and at most
    `size` pixels. A smaller image is not enlarged beyond the next multiple. Always written anew: equal pixels give equal bytes,
    and no decoder but Pillow's reads the bytes of a stranger.

    Raises:
        UnreadableImage: if it cannot be decoded.
    """
    from PIL import Image

    with open_image_bytes(content, max_pixels) as image:
        turn = _find_turn(image)
        scale = min(1.0, size / max(image.size))
        columns, rows = (min(max(1, round(side * scale / patch)), size // patch) for side in image.size)
        # A large JPEG is decoded at a fraction of its size, and still large enough.
        image.draft(None, (2 * size, 2 * size))
        image.load()
        bright = _reduce_to_8_bits(image)
        mode = "RGBA" if bright.has_transparency_data else "RGB"
        colored = bright if bright.mode == mode else bright.convert(mode)

        # Transparency is laid over white after the image was made small: no further copy of all its pixels.
        small = colored.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
        opaque = Image.new("RGB", small.size, "white")
        opaque.paste(small, mask=small if mode == "RGBA" else None)
        upright = opaque if turn is None else opaque.transpose(turn)
        written = io.BytesIO()
        upright.save(written, "PNG")
        return FittedImage(written.getvalue(), upright.width // patch, upright.height // patch)


def _find_turn(image: "Image") -> Any:
    """The operation of Pillow that turns the image upright, by its EXIF data; None if there is none, or it cannot be read."""
    from PIL.ExifTags import Base
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    with warnings.catch_warnings(), suppress(Exception):  # damaged data raises what its parser happens to raise
        warnings.simplefilter("ignore")
        return turns.get(image.getexif().get(Base.Orientation))
    return None


def _reduce_to_8_bits(image: "Image") -> "Image":
    """The image with 8 bits a color; Pillow would cut higher levels off to white. Raises UnreadableImage if white is unknown."""
    if image.mode.startswith("I;16"):
        grey = image.convert("I").point(lambda level: level / 256).convert("L")
        grey.info.pop("transparency", None)  # of 16 bits
        return grey
    if image.mode in ("I", "F"):
        raise UnreadableImage(f"has {image.mode} pixels, whose white is not known; save it with 8 bits a color")
    return image
