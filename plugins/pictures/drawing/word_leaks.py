"""Whether questions about pictures can be answered from their words alone: a blind model, trained on one half of the pictures
and asked about the other, compared with chance. Knows no picture.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from core.intervals import estimate_share
from core.sample import text_digest

WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")
MAX_ANSWERS = 200
"""The most frequent answers that the blind model chooses from. A rarer one is no good guess."""
MARGIN = 0.03
"""How far above chance the blind model may surely be: what two or three frequent answers of a small dataset give."""
MIN_QUESTIONS = 200
"""Below that number, nothing is said: the interval of a share is wider than the margin."""


class AskedQuestion(NamedTuple):
    picture: str
    question: str
    answer: str
    choices: int
    """The number of answers that someone who knows the operation and the number of rows would choose from; 0 for a number or
    text that is read from the picture."""


class WordLeak(NamedTuple):
    """What the blind model answered."""

    questions: int
    right: int
    chance: float
    """The expected share of right answers of a guess among the choices of each question."""
    low: float
    high: float
    """The 95 % interval of the share of right answers."""

    @property
    def share(self) -> float:
        return self.right / self.questions if self.questions else 0.0

    @property
    def leaks(self) -> bool | None:
        """Whether words alone surely answer more than chance; None with too few questions to tell."""
        if self.questions < MIN_QUESTIONS:
            return None
        return self.low > self.chance + MARGIN


def measure_word_leak(asked: Sequence[AskedQuestion]) -> WordLeak:
    """Train the blind model on either half of the pictures, and ask it about the other."""
    halves: tuple[list[AskedQuestion], list[AskedQuestion]] = ([], [])
    for one in asked:
        halves[int(text_digest(one.picture, 2), 16) % 2].append(one)
    right = 0
    for learned, tested in (halves, halves[::-1]):
        model = _BlindModel(learned)
        right += sum(model.guess(one.question) == one.answer for one in tested)
    chance = sum(1 / one.choices for one in asked if one.choices) / len(asked) if asked else 0.0
    share = estimate_share(right, len(asked))
    low, high = (share.low, share.high) if share else (0.0, 1.0)
    return WordLeak(len(asked), right, chance, low, high)


class _BlindModel:
    """Naive Bayes over the words of a question and pairs of neighbours, numbers included, with add-one smoothing."""

    def __init__(self, learned: Sequence[AskedQuestion]) -> None:
        self._answers = Counter(one.answer for one in learned).most_common(MAX_ANSWERS)
        known = {answer for answer, _ in self._answers}
        self._words: dict[str, Counter[str]] = defaultdict(Counter)
        vocabulary: set[str] = set()
        for one in learned:
            features = _list_features(one.question)
            vocabulary.update(features)
            if one.answer in known:
                self._words[one.answer].update(features)
        self._totals = {answer: self._words[answer].total() + len(vocabulary) for answer in known}

    def guess(self, question: str) -> str | None:
        features = _list_features(question)

        def score(answer: str, count: int) -> float:
            words, total = self._words[answer], self._totals[answer]
            return math.log(count) + sum(math.log((words[feature] + 1) / total) for feature in features)

        return max(self._answers, key=lambda pair: score(*pair))[0] if self._answers else None


def _list_features(question: str) -> list[str]:
    words = WORD.findall(question.casefold())
    return [*words, *(f"{one} {other}" for one, other in pairwise(words))]
