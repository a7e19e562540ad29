"""The check `read_again`: a reader of only the text and the question must find the candidate's answer, or none.

Knows no family. It cannot see faults that the reader shares, or answers that differ in two plain words of many.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple, Self

from pydantic import Field

from agents.checks.base import AttemptJudge, Subject, Votes, ask_votes, check
from agents.checks.json_schema import get_required
from agents.checks.text.answer_equality import compare_numbers, compare_plain_texts
from agents.checks.text.quantities import TextQuantity, canonical_unit, distinct_quantities
from agents.checks.text.supported_by_passage import (
    WORD,
    content_words,
    is_denial_word,
    merge_forms,
    normalize_spelling,
    repeatable_words,
    split_polarity,
    word_forms,
)
from agents.checks.text.text_units import CONTRAST_WORDS, fold_text, read_word_groups
from agents.reply_schema import ReplySchema
from core.weights.embeddings import Similarity, embed_text

NO_ANSWER = re.compile(
    r"(?:the |this )?(?:text|passage|document)s? (?:does not|doesn't|do not|don't) (?:say|tell|mention|state|specify|give)\b"
    r"|not (?:said|told|mentioned|stated|specified|given)\b",
    re.IGNORECASE,
)
"""Common statements of readers that there is no answer, whatever the prompt asks them to write."""
OPPOSITES = [frozenset(pair) for pair in read_word_groups("opposites")]
"""Words that embeddings put near each other, and that say the opposite."""
SHARED_REASON = 0.3
"""Smallest F1 of the words after two equal answers yes or no: the same reason in other words shares some, another reason none."""
MAX_SHOWN_CHARACTERS = 160
"""Characters of an answer in the evidence."""


class ReaderAnswer(ReplySchema):
    """What a reader of text and question finds."""

    found: bool
    answer: str


class ReadAgainOptions(Votes):
    text: str = "text"
    question: str = "question"
    answer: str = "answer"
    answerable: str = "answerable"
    """Whether the text has the answer. Missing: it has."""
    overlap: float = Field(0.5, gt=0, le=1)
    """F1 of words (SQuAD, arXiv 1606.05250) from which answers are equal."""
    similarity: Similarity | None = Field(None, gt=0, lt=1)
    """`meaning_similarity` from which answers are equal, unless numbers, names or denials differ. Needs the extra
    `embeddings`."""
    temperature: float = Field(0.0, ge=0, le=2)


class ReadQuestion(NamedTuple):
    """What is read again."""

    text: str
    """Every passage that the student sees."""
    question: str
    answer: str
    """The candidate's."""
    left_out: bool
    """Whether the candidate's answer is from a passage that the student does not see."""
    answerable: bool
    """By what the student sees."""
    silence: str
    """The text that means no answer."""


def _get_read_question(subject: Subject, options: ReadAgainOptions) -> ReadQuestion:
    seed = subject.seed.data
    all_of = {**seed, **subject.candidate.fields}
    names = (options.text, options.question, options.answer)
    text, question, answer = (get_required(all_of, name, "neither the candidate nor the seed") for name in names)
    left_out = is_left_out(text, shown := seed.get("shown_passages"))
    answerable = seed.get(options.answerable, True) is not False and not left_out
    return ReadQuestion("\n\n".join(shown or [text]), question, answer, left_out, answerable, seed.get("silence", ""))


def is_left_out(text: str, shown: Sequence[str] | None) -> bool:
    """Whether the passages that a student sees, if they are more than `text`, lack it."""
    return bool(shown) and not any(passage in text for passage in shown or ())


def _get_reader_values(subject: Subject, options: ReadAgainOptions) -> dict[str, str]:
    read = _get_read_question(subject, options)
    return {"text": read.text, "question": f"{subject.candidate.fields.get('before', '')}{read.question}"}


def find_reader_answer(reading: ReaderAnswer, silence: str) -> str:
    """The answer that a reader found; empty for none."""
    return "" if not reading.found or says_no_answer(reading.answer, silence) else reading.answer


def _reads_the_same(subject: Subject, reading: ReaderAnswer, options: ReadAgainOptions) -> bool:
    """Whether a reader finds the candidate's answer, or none where there must be none."""
    read = _get_read_question(subject, options)
    found = find_reader_answer(reading, read.silence)
    if not read.answerable:
        return not found
    if not found:
        return False
    same = is_same_reading(read.answer, found, read.question, options.overlap)
    return same or (
        options.similarity is not None
        and is_paraphrase(read.answer, found, read.question, read.text)
        and meaning_similarity(read.answer, found, read.question) >= options.similarity
    )


@check(
    "read_again",
    ReadAgainOptions,
    calls=lambda options: options.votes,
    roles=("verifier",),
    attempt=AttemptJudge(ReaderAnswer, _reads_the_same, _get_reader_values),
    languages=("en",),
)
async def read_again_check(subject: Subject, options: ReadAgainOptions) -> str | None:
    """Who reads the text and the question alone must find the same answer, or none where there must be none."""
    values, asked = _get_reader_values(subject, options), _get_read_question(subject, options)
    read = await ask_votes(
        subject, options, "verifier", ReaderAnswer, values, lambda reading: _reads_the_same(subject, reading, options)
    )
    if read.enough:
        return None
    answers = [find_reader_answer(reading, asked.silence) for reading in read.given]
    silent = "that no other passage says it" if asked.left_out else "that the text does not say"
    wanted = repr(asked.answer[:MAX_SHOWN_CHARACTERS]) if asked.answerable else silent
    shown = (
        "; ".join(
            repr(reader_answer[:MAX_SHOWN_CHARACTERS]) if reader_answer else "nothing" for reader_answer in answers
        )
        or "no answer that could be read"
    )
    return f"{read.agreeing} of {options.votes} readers found {wanted}; they found: {shown}"


def says_no_answer(answer: str, silence: str) -> bool:
    """Whether a reply states that there is no answer."""
    bare = fold_text(answer).rstrip(".! ")
    return bare in ("", fold_text(silence).rstrip(".! ")) or bool(NO_ANSWER.match(bare))


def adds_nothing(answer: str, question: str) -> bool:
    """Whether an answer other than yes or no adds nothing to its question; an offered choice counts as new."""
    plain_answer, plain_question = normalize_spelling(answer), normalize_spelling(question)
    known, numbers = merge_forms(repeatable_words(plain_question)), distinct_quantities(plain_question)
    new = [word for word in content_words(plain_answer) if not word_forms(word) & known]
    new_numbers = [number for number in distinct_quantities(plain_answer) if not number.is_among(numbers)]
    return not (split_polarity(plain_answer)[0] or new or new_numbers)


def is_same_reading(left: str, right: str, question: str, overlap: float) -> bool:
    """Whether two answers to a question agree: equal as texts or numbers, or with enough `overlap` and no contradiction: yes
    and no, a denial, numbers, names, words such as `before`. For two times yes, or no, less overlap is enough.
    """
    if compare_plain_texts(left, right).equal or compare_numbers(left, right).equal:
        return True
    (lead, statement), (other_lead, other_statement) = (
        split_polarity(normalize_spelling(left)),
        split_polarity(normalize_spelling(right)),
    )
    if lead != other_lead:
        return False
    first, second = AnswerContent.of(statement), AnswerContent.of(other_statement)
    if lead and not (first.words and second.words):
        return True
    plain_question = normalize_spelling(question)
    known = merge_forms(repeatable_words(plain_question))
    offered = merge_forms([word for word in content_words(plain_question) if not word_forms(word) & known])
    if lead:  # to yes or no each may add a reason in other words, with a denial or a word such as `before`
        apart = first.differs_in_facts(second, offered, frozenset()) or first.replaces_word(second, known)
        apart = apart or _has_opposites(merge_forms(first.words), merge_forms(second.words))
        return not apart and first.overlap(second, known) >= min(overlap, SHARED_REASON)
    if first.contradicts(second, offered) or first.replaces_word(second, known):
        return False
    return first.overlap(second, known) >= overlap


def meaning_similarity(left: str, right: str, question: str) -> float:
    """The cosine of two answers' sentence embeddings without their parts along the question's, which both may repeat.

    Raises:
        UsageError: if the extra `embeddings` is not installed.
    """
    asked = embed_text(question)
    rests = [vector - (vector @ asked) * asked for vector in map(embed_text, (left, right))]
    lengths = math.prod(math.sqrt(rest @ rest) for rest in rests)
    return float(rests[0] @ rests[1]) / lengths if lengths > 1e-6 else 0.0


def is_paraphrase(left: str, right: str, question: str, text: str) -> bool:
    """Whether nothing that an embedding cannot see tells two answers apart: yes and no, a denial, numbers with their units,
    names of the `text`, opposites, an offered choice, one word in the same sentence for another, or a part for the whole.
    """
    (lead, statement), (other_lead, other_statement) = (
        split_polarity(normalize_spelling(answer)) for answer in (left, right)
    )
    if lead != other_lead:
        return False
    first, second = AnswerContent.of(statement), AnswerContent.of(other_statement)
    plain_question = normalize_spelling(question)
    known = merge_forms(repeatable_words(plain_question))
    offered = merge_forms([word for word in content_words(plain_question) if not word_forms(word) & known])
    if any(map(is_denial_word, first.words)) != any(map(is_denial_word, second.words)):
        return False
    if first._numbers_not_in(second) and second._numbers_not_in(first):
        return False
    names = _collect_names(statement, text), _collect_names(other_statement, text)
    signs = [
        {word for word in words if word in found or canonical_unit(word) or word_forms(word) & offered}
        for words, found in zip((first.words, second.words), names, strict=True)
    ]
    pools = merge_forms(first.words), merge_forms(second.words)
    missing = [[word for word in signs[i] if not word_forms(word) & pools[1 - i]] for i in (0, 1)]
    if all(missing) or _has_opposites(pools[0], pools[1]):
        return False
    left_new, right_new = first._new_content(known), second._new_content(known)
    is_part = not (left_new._words_not_in(right_new) and right_new._words_not_in(left_new))
    is_part = is_part and bool(left_new.words and right_new.words)
    return not is_part and not _replaces_in_place(statement, other_statement)


def _collect_names(answer: str, text: str) -> frozenset[str]:
    """The words of an answer that are names: capitalized within it, or first and never in small letters in the text."""
    words = WORD.findall(answer)
    names = {word for word in words[1:] if word[0].isupper() and word != "I"}
    if (
        words
        and words[0][0].isupper()
        and (words[0] in (known := WORD.findall(text)) or (words[1:2] and words[1] in names))
    ):
        names |= {words[0]} - {word.capitalize() for word in known if word.islower()}
    return frozenset(names)


def _has_opposites(left: frozenset[str], right: frozenset[str]) -> bool:
    """Whether one text has a word whose opposite, and not the word itself, is in the other."""
    return any(len(pair & left) == 1 and pair & right and pair & left != pair & right for pair in OPPOSITES)


def _replaces_in_place(left: str, right: str) -> bool:
    """Whether two sentences are the same but for one word in the same place, whatever its synonyms."""
    first, second = ([word.lower() for word in WORD.findall(text)] for text in (left, right))
    return len(first) == len(second) and sum(word != other for word, other in zip(first, second, strict=True)) == 1


class AnswerContent(NamedTuple):
    """The content of an answer, without yes or no."""

    words: Sequence[str]
    numbers: Sequence[TextQuantity]

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(content_words(text), distinct_quantities(text))

    def contradicts(self, other: "AnswerContent", offered: frozenset[str]) -> bool:
        """Whether each has a number, a name, a contrast word or an `offered` choice, by its forms, that the other lacks, or
        only one contains a denial.
        """
        if any(map(is_denial_word, self.words)) != any(map(is_denial_word, other.words)):
            return True
        return self.differs_in_facts(other, offered)

    def differs_in_facts(
        self, other: "AnswerContent", offered: frozenset[str], contrasts: frozenset[str] = CONTRAST_WORDS
    ) -> bool:
        """`contradicts` without denials, and with other words for `contrasts` or none."""
        if self._numbers_not_in(other) and other._numbers_not_in(self):
            return True
        return bool(self._signs_not_in(other, offered | contrasts) and other._signs_not_in(self, offered | contrasts))

    def replaces_word(self, other: "AnswerContent", known: frozenset[str]) -> bool:
        """Whether the two differ in exactly one word, as in red for green."""
        left, right = self._new_content(known), other._new_content(known)
        return len(left._words_not_in(right)) == len(right._words_not_in(left)) == 1

    def overlap(self, other: "AnswerContent", known: frozenset[str]) -> float:
        """F1 of words and numbers; words whose forms are `known` count only if there are no others."""
        left, right = self._new_content(known), other._new_content(known)
        if not (left.size and right.size):
            left, right = self, other
        shared = left.size - len(left._words_not_in(right)) - len(left._numbers_not_in(right))
        return 2 * shared / (left.size + right.size) if left.size + right.size else 0.0

    @property
    def size(self) -> int:
        return len(self.words) + len(self.numbers)

    def _new_content(self, known: frozenset[str]) -> "AnswerContent":
        return AnswerContent([word for word in self.words if not word_forms(word) & known], self.numbers)

    def _words_not_in(self, other: "AnswerContent") -> list[str]:
        """Each word of the other counts once."""
        left = list(other.words)
        missing = []
        for word in self.words:
            match = next((candidate for candidate in left if word_forms(word) & word_forms(candidate)), None)
            if match is None:
                missing.append(word)
            else:
                left.remove(match)
        return missing

    def _numbers_not_in(self, other: "AnswerContent") -> list[TextQuantity]:
        return [
            number
            for number in self.numbers
            if not (
                number.is_among(other.numbers) or any(other_number.is_among([number]) for other_number in other.numbers)
            )
        ]

    def _signs_not_in(self, other: "AnswerContent", turning: frozenset[str]) -> list[str]:
        """The names and the `turning` words that the other lacks."""
        pool = merge_forms(other.words)
        signs = [
            word for word in self.words if word[0].isupper() or word.lower() in turning or word_forms(word) & turning
        ]
        return [word for word in signs if not word_forms(word) & pool]
