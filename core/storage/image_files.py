"""The images of a run's conversations as files named by their content, so that an image is stored once, and a resumed run stores
it again under the same name. Knows no sample's family.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from core.errors import StoreError
from core.sample import Message, Sample
from core.storage.atomic_files import write_bytes

IMAGES_FOLDER = "images"
IMAGE_COLUMNS = ("images", "image")
"""Columns of a dataset that may hold the images of a row."""
IMAGE_NAME = re.compile(rf"{IMAGES_FOLDER}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})\.png")
"""The path of an image in its run or release: the SHA-256 of its bytes, in folders by its first two digits."""
PNG_URL = "data:image/png;base64,"


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
    if not message.images:
        return message
    return message.model_copy(update={"images": tuple(_store_image(folder, url) for url in message.images)})


def _store_image(folder: Path, url: str) -> str:
    if not url.startswith(PNG_URL):
        return url
    try:
        content = base64.b64decode(url.removeprefix(PNG_URL), validate=True)
    except ValueError:  # also of text that is no ASCII
        return url
    digest = hashlib.sha256(content).hexdigest()
    name = f"{IMAGES_FOLDER}/{digest[:2]}/{digest}.png"
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


def format_png_url(content: bytes) -> str:
    return f"{PNG_URL}{base64.b64encode(content).decode()}"
