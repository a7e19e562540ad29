"""Questions about the user's own images, with short answers. A teacher that takes images writes both; another look at the image
must give the same answer, and the question alone must not. Knows no teacher.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field

from agents.checks import Options, Subject, check
from agents.checks.base import AttemptJudge, Votes, ask_votes
from agents.checks.text.second_reader import (
    MAX_SHOWN_CHARACTERS,
    ReaderAnswer,
    adds_nothing,
    find_reader_answer,
    is_same_reading,
)
from agents.checks.text.supported_by_passage import content_words, normalize_spelling
from agents.checks.text.text_units import split_words
from agents.families.base import RecipeFamily, UnusableSeedRow, validate_weights
from agents.reply_schema import ReplySchema
from core.sample import Candidate, Message, Seed, json_digest
from plugins.pictures.families.short_answers import is_list, is_same_short_answer

IMAGE_QUESTION_KINDS = {
    "reading": "a text or a number that is written in the image",
    "counting": "how many of something there are, if they can be counted for certain",
    "kind": "what a thing in the image is",
    "feature": "the color, shape, material or state of a thing in the image",
    "place": "where a thing is, in relation to another one",
    "comparison": "which of two or more things in the image is larger, higher, nearer or more of something",
}
QUESTION_MARK = re.compile(r"[?\uff1f\u061f]")
"""Also those of Chinese and Japanese, and of Arabic."""
QUESTION_END = re.compile(r"[?\uff1f\u061f][\"'\u201d\u2019)]*\Z")
QUOTED = re.compile('["\u201c\u00ab][^"\u201d\u00bb]*["\u201d\u00bb]')
UNSEEN = re.compile(
    r"\bfile ?names?\b|\bmetadata\b|\b(?:these|the above|my) instructions\b|\bas an? (?:ai|language model)\b"
    r"|\bresolution of (?:the|this) (?:image|picture|photo)|\b(?:previous|earlier) (?:question|answer)\b|\bas before\b",
    re.IGNORECASE,
)
"""What someone who sees the image does not see."""
NEAR_GUESS = 0.5
"""`overlap` of `read_again`: a guess with half of the words of a phrase counts as near to it, which is the strict side here."""
PHRASE_WORDS = 3
"""Content words from which an answer is a phrase. Half of a shorter one is another answer: blue for dark blue."""
PROMPTS = Path(__file__).parents[1] / "prompts"


class ImageQuestionsOptions(Options):
    kinds: Annotated[dict[str, float], validate_weights("kind")] = Field(
        default_factory=lambda: dict.fromkeys(IMAGE_QUESTION_KINDS, 1.0), min_length=1, validate_default=True
    )
    """By weight: `reading`, `counting`, `kind`, `feature`, `place`, `comparison`, or your own words."""


class ImageQuestionDraft(ReplySchema):
    question: str = Field(min_length=5)
    answer: str = Field(min_length=1)


class WellPosedOptions(Options):
    max_question_words: int = Field(40, ge=3)
    max_answer_words: int = Field(12, ge=1)


@check("well_posed", WellPosedOptions)
def well_posed_check(subject: Subject, options: WellPosedOptions) -> str | None:
    """It must be one question about the image, with a short answer that is not in the question, unless it offers a choice."""
    question, answer = (subject.candidate.fields[name].strip() for name in ("question", "answer"))
    if not QUESTION_END.search(question) or len(QUESTION_MARK.findall(QUOTED.sub("", question))) > 1:
        return "ask one question, which ends with its only question mark"
    if (count := len(split_words(question))) > options.max_question_words:
        return f"the question has {count} words; ask in at most {options.max_question_words}"
    if "\n" in answer or (count := len(split_words(answer))) > options.max_answer_words:
        return f"answer in one line of at most {options.max_answer_words} words"
    if not any(map(str.isalnum, answer)):
        return f"the answer {answer!r} says nothing"
    if found := UNSEEN.search(question) or UNSEEN.search(answer):
        return f"speaks of {found[0]!r}, which the image does not show"
    if adds_nothing(answer, question):
        return f"the question gives its answer {answer!r} away"
    return None


class SeenAgainOptions(Votes):
    votes: int = Field(3, ge=1, le=15)


class AskedAboutImage(NamedTuple):
    question: str
    answer: str

    @classmethod
    def of(cls, subject: Subject) -> Self:
        fields = subject.candidate.fields
        return cls(fields["question"], fields["answer"])

    def is_seen_by(self, reading: ReaderAnswer | None) -> bool:
        """Whether another look found the same answer."""
        found = find_reader_answer(reading, "") if reading else ""
        return bool(found) and is_same_short_answer(self.answer, found, self.question)

    def is_guessed_by(self, guess: ReaderAnswer) -> bool:
        """Whether a guess is the answer, or near to one that is a phrase, also if its writer says that nothing can be known."""
        guessed = guess.answer.strip()
        if not guessed or is_same_short_answer(self.answer, guessed, self.question):
            return bool(guessed)
        is_phrase = len(content_words(normalize_spelling(self.answer))) >= PHRASE_WORDS and not is_list(self.answer)
        return is_phrase and is_same_reading(self.answer, guessed, self.question, NEAR_GUESS)


def _sees_the_same(subject: Subject, reading: ReaderAnswer, _options: SeenAgainOptions) -> bool:
    return AskedAboutImage.of(subject).is_seen_by(reading)


def _ask_about_image(subject: Subject, _options: Options) -> dict[str, str]:
    return {"question": AskedAboutImage.of(subject).question}


@check(
    "seen_again",
    SeenAgainOptions,
    calls=lambda options: options.votes,
    roles=("verifier",),
    attempt=AttemptJudge(ReaderAnswer, _sees_the_same, _ask_about_image),
)
async def seen_again_check(subject: Subject, options: SeenAgainOptions) -> str | None:
    """Who sees the image and the question, and not the answer, must give the same answer."""
    asked = AskedAboutImage.of(subject)
    values = _ask_about_image(subject, options)
    seen = await ask_votes(
        subject, options, "verifier", ReaderAnswer, values, asked.is_seen_by, images=subject.candidate.images
    )
    if seen.enough:
        return None
    return (
        f"{seen.agreeing} of {options.votes} looks at the image found {asked.answer[:MAX_SHOWN_CHARACTERS]!r}; they found: "
        f"{_list_answers(seen.replies)}"
    )


class NeedsImageOptions(Votes):
    votes: int = Field(3, ge=1, le=15)


@check("needs_image", NeedsImageOptions, calls=lambda options: options.votes, roles=("blind",))
async def needs_image_check(subject: Subject, options: NeedsImageOptions) -> str | None:
    """Who guesses from the question alone, without the image, must not find the answer."""
    asked = AskedAboutImage.of(subject)
    guessed = await ask_votes(
        subject, options, "blind", ReaderAnswer, _ask_about_image(subject, options), asked.is_guessed_by
    )
    guesses = guessed.given
    if len(guesses) < options.needed:
        return f"only {len(guesses)} of {options.votes} guesses without the image could be read, too few to tell"
    if not guessed.enough:
        return None
    shown = "; ".join(repr(guess.answer[:MAX_SHOWN_CHARACTERS]) for guess in guesses)
    return (
        f"{guessed.agreeing} of {options.votes} guesses without the image are right or near it ({shown}); ask about something "
        "that only it shows"
    )


def _list_answers(readings: Sequence[ReaderAnswer | None]) -> str:
    answers = (find_reader_answer(reading, "") if reading else "" for reading in readings)
    return "; ".join(repr(answer[:MAX_SHOWN_CHARACTERS]) if answer else "nothing" for answer in answers)


def _draw_kind(row: Sequence[Any], kinds: Mapping[str, float], turn: int) -> str:
    """The kind that is asked about the images of a row in its turn, from 0. A kind has its weight in every turn, and its share of
    any number of turns that equals the number of kinds (systematic sampling): kinds of equal weight come once each.
    """
    weights = {kind: weight for kind, weight in kinds.items() if weight}
    cycle, step = divmod(turn, len(weights))
    rng = Random(json_digest([*row, cycle]))
    order = rng.sample(list(weights), len(weights))
    place = (rng.random() + step / len(order)) % 1 * sum(weights.values())
    ends = accumulate(weights[kind] for kind in order)
    return next((kind for kind, end in zip(order, ends, strict=True) if place < end), order[-1])


def _describe_earlier(kind: str, before: Sequence[str]) -> str:
    """What the prompt says of the kinds that were asked about the same image before; nothing of none."""
    if not before:
        return ""
    listed = "; ".join(IMAGE_QUESTION_KINDS.get(one, one) for one in dict.fromkeys(before))
    same = before.count(kind)
    skipped = f" {same} of them had the same request, so leave out the {same} most obvious ones." if same else ""
    return f"\nThe image has been asked about {len(before)} times before: {listed}. Ask about something else.{skipped}"


class ImageQuestionsFamily(RecipeFamily):
    name = "image_questions"
    prompts = PROMPTS / "image_questions"
    options = ImageQuestionsOptions
    seeded_by = ("images",)
    has_images = True
    extra = "pictures"
    checks = (well_posed_check, seen_again_check, needs_image_check)
    fields = ("question", "answer")
    defaults: ClassVar[Mapping[str, Any]] = {
        "collapse": {"structures": False, "kind": "prose"},
        "agents": {"generator": {"max_tokens": 200}, "critic": False, "verifier": {"max_tokens": 100}},
        "verifiers": [{"type": "well_posed"}, {"type": "seen_again"}, {"type": "needs_image"}],
        "filters": [{"type": "images"}, {"type": "image_duplicates", "same_question": True}],
    }

    def condition(self, row: Mapping[str, Any], options: ImageQuestionsOptions, rng: Random) -> dict[str, Any]:
        return self.condition_again(row, options, rng, 0)

    def condition_again(
        self, row: Mapping[str, Any], options: ImageQuestionsOptions, rng: Random, turn: int
    ) -> dict[str, Any]:
        images = row["images"]
        if not isinstance(images, list) or not images:
            raise UnusableSeedRow("'images' with at least one image")
        *before, kind = (_draw_kind([images, row["source"]], options.kinds, past) for past in range(turn + 1))
        asked = {
            "kind": kind,
            "about": IMAGE_QUESTION_KINDS.get(kind, kind),
            "earlier": _describe_earlier(kind, before),
        }
        return {"images": images, "source": row["source"], **asked}

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ImageQuestionDraft

    def candidate(self, seed: Seed, draft: ImageQuestionDraft) -> Candidate:
        question, answer = draft.question.strip(), draft.answer.strip()
        messages = [Message(role="user", content=question), Message(role="assistant", content=answer)]
        return Candidate(messages=messages, fields={"question": question, "answer": answer})
