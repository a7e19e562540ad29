"""Held-out questions about pictures: drawn by the recipe of a run, or rows of a dataset. Asks no model."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UsageError
from core.sample import Message, Sample, SampleStatus, Seed
from core.storage.image_files import FittedImage, UnreadableImage, decode_image_url, fit_image, format_image_url
from core.weights.gguf_files import ImageLimits
from flows.rows.row_images import read_seen_conversation
from flows.terminal.console import CommandSession

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


class PictureQuestion(NamedTuple):
    """A conversation whose last turn is asked, with one image in it."""

    prompt: Sequence[Message]
    answer: str
    picture: FittedImage

    def show(self, picture: FittedImage) -> list[Message]:
        """The prompt with this picture in place of its own."""
        url = (format_image_url(picture.png),)
        return [turn.model_copy(update={"images": url}) if turn.images else turn for turn in self.prompt]

    @property
    def text(self) -> str:
        return self.prompt[-1].content


class QuestionSet(NamedTuple):
    """The questions of an evaluation, and what was left out."""

    questions: list[PictureQuestion]
    notes: list[str]


async def draw_picture_questions(
    student: Path, plan: "RunPlan", number: int, limits: ImageLimits, session: CommandSession
) -> QuestionSet:
    """The questions of `number` pictures of seeds that no run of the recipe uses. Each is asked alone: they need no other.
    Pictures that the student was trained on are left out.

    Raises:
        RunStopped: on the stop signal.
        UsageError: if the recipe draws no pictures, or too few pass its checks.
    """
    from agents.calls.agent_context import open_scratch_context
    from agents.studies.held_out_evaluation import held_out_seeds
    from agents.topologies.sample_production import produce_samples
    from core.stop_signal import RunStopped

    if not plan.family.has_images or plan.asks_generator:
        raise UsageError(
            f"{plan.recipe.name}: draws no pictures without a teacher, so there are no new ones to ask about; name a recipe such "
            "as charts (--recipe charts), or your own rows (--data FILE)"
        )
    seeds: list[Seed] = held_out_seeds(plan, number)
    samples: list[Sample] = []

    def add_sample(sample: Sample) -> None:
        samples.append(sample)
        session.show_progress(lambda: f"pictures: {len(samples):,} of {len(seeds):,}")

    async with open_scratch_context(plan, session.stop) as context:
        await produce_samples(context, seeds, add_sample)
    if len(samples) < len(seeds):
        raise RunStopped
    kept = sorted(
        (sample for sample in samples if sample.state is SampleStatus.kept), key=lambda sample: sample.seed.index
    )
    fresh = _drop_trained_pictures(student, [sample.candidate.messages for sample in kept])
    questions = [question for conversation in fresh for question in _split_questions(conversation, limits)]
    notes = []
    if dropped := len(samples) - len(kept):
        notes.append(f"{dropped:,} of {len(samples):,} pictures did not pass the recipe's checks and are not asked.")
    if seen := len(kept) - len(fresh):
        notes.append(f"{seen:,} of {len(samples):,} pictures are of the student's training and are not asked.")
    return QuestionSet(questions, notes)


def _drop_trained_pictures(student: Path, conversations: Sequence[Sequence[Message]]) -> list[Sequence[Message]]:
    """The conversations that neither are in the student's training nor have an image of it."""
    from students import student_folder

    rows, images = student_folder.read_trained_rows(student), set(student_folder.read_trained_images(student))
    return [
        turns
        for turns in conversations
        if student_folder.digest_trained_row(turns) not in rows
        and images.isdisjoint(student_folder.digest_images([turns]))
    ]


def _split_questions(messages: Sequence[Message], limits: ImageLimits) -> list[PictureQuestion]:
    """Each question of a conversation about one picture, asked alone."""
    [url] = [url for turn in messages for url in turn.images]
    picture = fit_image(decode_image_url(url), limits.patch, limits.size)
    return [
        PictureQuestion([Message(role="user", content=asked.content, images=(url,))], answer.content, picture)
        for asked, answer in zip(messages[::2], messages[1::2], strict=True)
    ]


def read_picture_questions(conversations: Sequence[Sequence[Message]], limits: ImageLimits) -> QuestionSet:
    """The last question of each conversation that has one image and ends with a text answer."""
    questions: list[PictureQuestion] = []
    unreadable = 0
    for conversation in conversations:
        urls = [url for turn in conversation for url in turn.images]
        *prompt, last = conversation
        answered = last.role == "assistant" and not last.tool_calls and last.content.strip()
        if len(urls) != 1 or not answered or not prompt or prompt[-1].role != "user":
            continue
        try:
            picture = fit_image(decode_image_url(urls[0]), limits.patch, limits.size)
        except UnreadableImage:
            unreadable += 1
            continue
        questions.append(PictureQuestion(prompt, last.content, picture))
    others = len(conversations) - len(questions) - unreadable
    notes = []
    if others:
        notes.append(f"{others:,} rows without exactly one image, or without a text answer at the end, are not asked.")
    if unreadable:
        notes.append(f"{unreadable:,} rows whose image cannot be decoded are not asked.")
    return QuestionSet(questions, notes)


def read_held_out_pictures(student: Path, data: Path, number: int, limits: ImageLimits) -> QuestionSet:
    """Questions of rows that the student was not trained on, nor on their picture, drawn with a fixed seed.

    Raises:
        UsageError: if the data cannot be read, or the student was trained on all of its rows.
    """
    from flows.evaluate.dataset_evaluation import select_held_out_rows

    held_out = select_held_out_rows(student, data, number, read_seen_conversation)
    found = read_picture_questions([row.conversation for row in held_out.rows], limits)
    return QuestionSet(found.questions, [*held_out.notes, *found.notes])


def draw_blanks(questions: Sequence[PictureQuestion], patch: int) -> list[FittedImage]:
    """For each question a white image of its picture's size."""
    return [_draw_blank(question.picture, patch) for question in questions]


def _draw_blank(image: FittedImage, patch: int) -> FittedImage:
    """A white image of the same size."""
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (image.columns * patch, image.rows * patch), "white").save(written, "PNG")
    return image._replace(png=written.getvalue())


def shuffle_pictures(questions: Sequence[PictureQuestion], seed: str) -> list[FittedImage]:
    """For each question another picture of the set, the same for all questions of a picture.

    Raises:
        UsageError: if there is one picture only.
    """
    import random

    pictures = list(dict.fromkeys(question.picture for question in questions))
    if len(pictures) < 2:
        raise UsageError(
            f"{len(pictures)} different pictures are too few: how often a student is right with another's picture cannot be "
            "measured; ask about more"
        )
    random.Random(seed).shuffle(pictures)
    following = dict(zip(pictures, [*pictures[1:], pictures[0]], strict=True))
    return [following[question.picture] for question in questions]
