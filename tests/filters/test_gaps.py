"""What a dataset lacks of real text: that it is found, that nothing is told of a fair draw, and that seeds lead back to it."""

import json
import random
from pathlib import Path

import pytest

from core.recipe import PROJECT, CollapseConfig
from filters.draws import Corpus, tokens
from filters.gaps import LACKING, WORDS, Gaps, gaps
from filters.reference import Reference

TEXTS = [
    json.loads(line)["text"]
    for line in Path(PROJECT / CollapseConfig().reference).read_text(encoding="utf-8").splitlines()
]
TAKEN = ("house", "letter", "family")


class Sides:
    """Real text, and the same text drawn once more."""

    def __init__(self, seed: int) -> None:
        texts = random.Random(seed).sample(TEXTS, len(TEXTS))
        self.own, self.real = texts[:1500], texts[1500:]
        self.reference = Reference.of(self.real, "real")

    def gaps(self, texts: list[str], starts: int = 30) -> Gaps:
        documents = [words for text in texts if (words := tokens(text))]
        found = gaps(Corpus.of(documents, self.reference.vocabulary), self.reference, starts)
        assert found
        return found


@pytest.fixture(scope="module")
def sides() -> Sides:
    return Sides(1)


def without(texts: list[str]) -> list[str]:
    return [text for text in texts if not set(TAKEN) & set(tokens(text))]


def test_nothing_is_told_of_what_was_drawn_from_the_same_text() -> None:
    for seed in range(5):
        drawn = Sides(seed)
        for size in (30, 300, 1500):
            found = drawn.gaps(drawn.own[:size])
            assert not found.topics + found.words, (seed, size)
            assert not found.starts


def test_the_words_that_were_taken_out_are_told_and_no_other(sides: Sides) -> None:
    found = sides.gaps(without(sides.own))
    assert {gap.name for gap in found.words} == set(TAKEN)
    for gap in found.words:
        assert gap.here == 0.0
        share = sum(gap.name in tokens(text) for text in sides.real) / len(sides.real)
        assert gap.real == pytest.approx(share, abs=0.002)


def test_a_word_at_half_of_its_share_is_lacking_and_above_it_is_not(sides: Sides) -> None:
    """At 30,000 documents any difference is real; only a large one is a gap."""
    have, have_not = ([t for t in sides.real if ("letter" in tokens(t)) is has] for has in (True, False))
    share = len(have) / len(sides.real)
    for part, told in ((0.45, True), (0.6, False)):
        count = round(part * share * 30_000)
        texts = [have[i % len(have)] for i in range(count)]
        texts += [have_not[i % len(have_not)] for i in range(30_000 - count)]
        assert ("letter" in {gap.name for gap in sides.gaps(texts).words}) is told
    assert LACKING == 0.5


def test_a_topic_that_was_taken_out_is_told(sides: Sides) -> None:
    topics = sides.reference.topics
    documents = [tokens(text) for text in sides.own]
    of = topics.assign(Corpus.of(documents, sides.reference.vocabulary))
    gone = 3
    name = topics.name(gone, list(sides.reference.vocabulary), 3)
    found = sides.gaps([text for text, topic in zip(sides.own, of, strict=True) if topic != gone])
    assert name in {gap.name for gap in found.topics}
    assert {start.topic for start in found.starts[:5]} == {name}


def test_starts_are_different_documents_that_have_what_is_lacking_by_turns(sides: Sides) -> None:
    found = sides.gaps(without(sides.own))
    assert len({start.place for start in found.starts}) == len(found.starts) == 30
    for start in found.starts:
        assert set(start.words) & set(TAKEN)
        assert set(start.words) <= set(tokens(sides.real[start.place]))
        assert len(start.words) <= WORDS
    times = [sum(word in start.words for start in found.starts) for word in TAKEN]
    assert max(times) - min(times) <= 1, "each of the words is begun from as often"


def test_what_is_begun_from_the_starts_closes_the_gap(sides: Sides) -> None:
    poor = without(sides.own)
    found = sides.gaps(poor, starts=80)
    mended = sides.gaps([*poor, *(sides.real[start.place] for start in found.starts)])
    assert not mended.words


def test_too_few_documents_are_not_compared(sides: Sides) -> None:
    few = Corpus.of([["the", "house"]] * 9, sides.reference.vocabulary)
    assert gaps(few, sides.reference, 10) is None
