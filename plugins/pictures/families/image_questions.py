"""Questions about the user's own images, with short answers. A teacher that takes images writes both; another look at the image
must give the same answer, and the question alone must not. Knows no teacher.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field

from agents.checks import Options, Subject, check
from agents.checks.base import AttemptJudge, VoteCount, Votes, ask_votes
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
from agents.reply_schema import Finding, ReplySchema
from core.sample import Candidate, Message, Seed, json_digest
from plugins.pictures.families.short_answers import is_list, is_same_short_answer

IMAGE_QUESTION_KINDS = {
    "reading": "what is written at one place of a document, screen, sign or label, found by what is next to it",
    "value": "a value of a chart or table, read off an axis or where a row meets a column",
    "steps": "something that takes two facts of the image: a sum, a difference, or a thing found by another one",
    "counting": "how many of something there are, from three on, if they can be counted for certain",
    "kind": "what a thing in a photo is, or what a part of a diagram or screen is for",
    "feature": "the shape, material or state of a thing in a photo, or its color if that tells it from others",
    "place": "where a thing in a photo, map or drawing is, in relation to another one",
    "comparison": "which of three or more things is largest, highest, nearest, or has most of something",
}
OFFERED = 3
"""Kinds that a prompt offers: the model takes the first that suits the image, since none of a chart is one of a photo."""
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
    """By weight: `reading`, `value`, `steps`, `counting`, `kind`, `feature`, `place`, `comparison`, or your own words."""


class ImageQuestionDraft(ReplySchema):
    kind: int = Field(1, ge=1, le=OFFERED)
    """The place of the kind that it is of, among those that were offered."""
    question: str = Field(min_length=5)
    answer: str = Field(min_length=1)


class WellPosedOptions(Options):
    max_question_words: int = Field(40, ge=3)
    max_answer_words: int = Field(12, ge=1)


@check("well_posed", WellPosedOptions, languages=("en",))
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


async def _ask_until_decided(
    subject: Subject, options: Votes, role: str, agrees: Callable[[ReaderAnswer], bool], images: Sequence[str] = ()
) -> VoteCount:
    """As `ask_votes`, without the votes that can no longer change whether enough agree."""
    single, values = options.model_copy(update={"votes": 1, "agree": 1}), _ask_about_image(subject, options)
    replies, agreeing = list[ReaderAnswer | None](), 0
    while len(replies) < options.votes and agreeing < options.needed:
        if sum(reply is not None for reply in replies) - agreeing > options.votes - options.needed:
            break
        vote = await ask_votes(
            subject, single, role, ReaderAnswer, values, agrees, start=len(replies), images=images
        )  # fmt: skip
        replies, agreeing = [*replies, *vote.replies], agreeing + vote.agreeing
    return VoteCount(replies, agreeing, agreeing >= options.needed)


@check(
    "seen_again",
    SeenAgainOptions,
    calls=lambda options: options.votes,
    roles=("verifier",),
    attempt=AttemptJudge(ReaderAnswer, _sees_the_same, _ask_about_image),
    languages=("en",),
)
async def seen_again_check(subject: Subject, options: SeenAgainOptions) -> Finding:
    """Who sees the image and the question, and not the answer, must give the same answer."""
    asked = AskedAboutImage.of(subject)
    seen = await _ask_until_decided(subject, options, "verifier", asked.is_seen_by, subject.candidate.images)
    found = [find_reader_answer(reading, "") if reading else "" for reading in seen.replies]
    shown = "; ".join(repr(answer[:MAX_SHOWN_CHARACTERS]) if answer else "nothing" for answer in found)
    evidence = f"{seen.agreeing} of {len(found)} looks at the image found {asked.answer[:MAX_SHOWN_CHARACTERS]!r}"
    return Finding(check="seen_again", passed=seen.enough, evidence=f"{evidence}; they found: {shown}")


class NeedsImageOptions(Votes):
    # To drop what half of the guesses find would leave the rare answers alone: never two wheels, never a bicycle.
    votes: int = Field(3, ge=1, le=15)
    agree: int | None = Field(None, ge=1, le=15)
    """Right guesses that drop a question. Default: all."""

    @property
    def needed(self) -> int:
        return self.agree or self.votes


@check("needs_image", NeedsImageOptions, calls=lambda options: options.votes, roles=("blind",), languages=("en",))
async def needs_image_check(subject: Subject, options: NeedsImageOptions) -> Finding:
    """Not all who guess from the question alone, without the image, may find the answer."""
    asked = AskedAboutImage.of(subject)
    guessed = await _ask_until_decided(subject, options, "blind", asked.is_guessed_by)
    shown = "; ".join(repr(guess.answer[:MAX_SHOWN_CHARACTERS]) for guess in guessed.given)
    evidence = f"{guessed.agreeing} of {len(guessed.given)} guesses without the image are right or near it ({shown})"
    differ = len(guessed.given) - guessed.agreeing > options.votes - options.needed
    if guessed.enough:
        evidence += "; ask about something that only it shows"
    elif not differ:
        evidence = (
            f"only {len(guessed.given)} of {options.votes} guesses without the image could be read, too few to tell"
        )
    return Finding(check="needs_image", passed=differ, evidence=evidence)


def _draw_kinds(row: Sequence[Any], kinds: Mapping[str, float], turn: int) -> list[str]:
    """The kinds that are offered for the images of a row in its turn, from 0: one that is drawn, and the next ones. A kind is
    drawn with its weight in every turn, and has its share of any number of turns that equals the number of kinds (systematic
    sampling): kinds of equal weight come first once each.
    """
    weights = {kind: weight for kind, weight in kinds.items() if weight}
    cycle, step = divmod(turn, len(weights))
    rng = Random(json_digest([*row, cycle]))
    order = rng.sample(list(weights), len(weights))
    point = (rng.random() + step / len(order)) % 1 * sum(weights.values())
    ends = accumulate(weights[kind] for kind in order)
    first = next((place for place, end in enumerate(ends) if point < end), len(order) - 1)
    return [*order[first:], *order[:first]][:OFFERED]


def _describe_kinds(kinds: Sequence[str]) -> str:
    return " ".join(f"{place}. {IMAGE_QUESTION_KINDS.get(kind, kind)}." for place, kind in enumerate(kinds, 1))


def _describe_earlier(offered: Sequence[str], before: Sequence[Sequence[str]]) -> str:
    """What the prompt says of earlier questions about the same image; nothing of none."""
    if not before:
        return ""
    same = before.count(offered)
    most = f"{same} most obvious ones" if same > 1 else "most obvious one"
    skipped = f" {same} of them had the same request, so leave out the {most}." if same else ""
    times = "once" if len(before) == 1 else f"{len(before)} times"
    return f"\nThe image has been asked about {times} before. Ask about a part of it that is less obvious.{skipped}"


class ImageQuestionsFamily(RecipeFamily):
    name = "image_questions"
    prompts = PROMPTS / "image_questions"
    options = ImageQuestionsOptions
    seeded_by = ("images",)
    has_images = True
    extra = "pictures"
    checks = (well_posed_check, needs_image_check, seen_again_check)
    fields = ("question", "answer")
    defaults: ClassVar[Mapping[str, Any]] = {
        "collapse": {"structures": False, "kind": "prose"},
        "agents": {"generator": {"max_tokens": 200}, "critic": False, "verifier": {"max_tokens": 100}},
        "verifiers": [{"type": "well_posed"}, {"type": "needs_image"}, {"type": "seen_again"}],
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
        drawn = [_draw_kinds([images, row["source"]], options.kinds, past) for past in range(turn + 1)]
        *before, offered = drawn
        asked = {"about": _describe_kinds(offered), "earlier": _describe_earlier(offered, before)}
        return {"images": images, "source": row["source"], "kind": offered[0], "kinds": offered, **asked}

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return ImageQuestionDraft

    def candidate(self, seed: Seed, draft: ImageQuestionDraft) -> Candidate:
        question, answer = draft.question.strip(), draft.answer.strip()
        messages = [Message(role="user", content=question), Message(role="assistant", content=answer)]
        offered = seed.data.get("kinds") or [""]
        kind = offered[min(draft.kind, len(offered)) - 1]
        return Candidate(messages=messages, fields={"question": question, "answer": answer, "kind": kind})
