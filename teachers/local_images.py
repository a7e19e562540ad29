"""A local student that sees: its images are decoded with bounded memory and fitted here, so that llama.cpp only reads patches.

Nothing is downloaded or opened: an image is in its message, as a `data:` URL.
"""

import asyncio
from collections.abc import Sequence

from core.sample import Message
from core.storage.image_files import MAX_PIXELS, UnreadableImage, decode_image_url, fit_image, format_png_url
from core.weights.gguf_files import ImageLimits
from teachers.base import CallFailed, ChargeAccount, Teacher, TeacherQuestion, TeacherReply

MAX_DECODERS = 2
"""Images that one process decodes at once: each may take 800 MB, and one of a client 400 MB."""
CLIENT_PIXELS = 25_000_000
"""Width times height of the largest image in a client's request, which a kilobyte can have."""


def fit_message_images(message: Message, limits: ImageLimits, max_pixels: int = MAX_PIXELS) -> Message:
    """Raises UnreadableImage if an image is not in the message, or cannot be decoded."""
    fitted = [fit_image(decode_image_url(url), limits.patch, limits.size, max_pixels) for url in message.images]
    return message.model_copy(update={"images": tuple(format_png_url(image.png) for image in fitted)})


class SeeingTeacher:
    """Fits the images of each question."""

    def __init__(self, teacher: Teacher, limits: ImageLimits) -> None:
        self.model, self.slots, self.manner = teacher.model, teacher.slots, teacher.manner
        self._teacher, self._limits = teacher, limits
        self._decoders = asyncio.Semaphore(MAX_DECODERS)

    async def reply(self, question: TeacherQuestion, rank: int, account: ChargeAccount) -> TeacherReply:
        if any(message.images for message in question.messages):
            try:
                async with self._decoders:
                    messages = await asyncio.to_thread(self._fit, question.messages)
            except UnreadableImage as fault:
                raise CallFailed(f"{self.model}: an image {fault}") from None
            question = question.model_copy(update={"messages": messages})
        return await self._teacher.reply(question, rank, account)

    def _fit(self, messages: Sequence[Message]) -> list[Message]:
        return [fit_message_images(message, self._limits) for message in messages]

    def release(self) -> None:
        self._teacher.release()
