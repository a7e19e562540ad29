"""People's decisions about samples: an append-only log next to a run or a file, and what it says about each sample.

Knows neither the page on which people decide nor what a decision changes. A decision is undone by a line of its own, so nothing
is ever removed from a log.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import UsageError
from core.plugins import locate_data
from core.sample import Message, SampleStatus, json_digest
from plugins.review.line_log import LineLogReader, append_json_line

REVIEWS_FILE = "reviews.jsonl"
"""In a run's directory; next to a file, the file's name precedes it."""
Decision = Literal["keep", "drop", "fix", "label", "undo"]
"""`label` stores scores or a note and decides nothing; `undo` takes back the reviewer's last line about the sample."""
LONGEST_REVIEWER, LONGEST_NOTE = 80, 4000
"""Characters."""
LOWEST_SCORE, HIGHEST_SCORE = 1, 5
"""Of a rubric, as critics score."""


class ReviewEntry(BaseModel):
    """One line about one sample."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sample: str = Field(min_length=1)
    """The id of a run's sample; of a row of a file, the digest of its conversation."""
    reviewer: str = Field(min_length=1, max_length=LONGEST_REVIEWER)
    time: str
    """UTC, ISO 8601."""
    decision: Decision
    messages: list[Message] = []
    """The conversation as the reviewer saw it, before any edit; empty for `undo`."""
    edited: list[Message] | None = None
    """For `fix`: the conversation that replaces it."""
    scores: dict[str, int] = {}
    """By rubric, 1 (poor) to 5 (good)."""
    note: str = Field("", max_length=LONGEST_NOTE)
    machine: SampleStatus | None = None
    """What agents and filters had decided; None for a row of a file."""
    reason: str = ""
    """Why they had not kept it."""
    blind: bool = False
    """Whether the machine's verdict was hidden until the decision."""

    @model_validator(mode="after")
    def _check_parts(self) -> "ReviewEntry":
        if (self.edited is not None) != (self.decision == "fix"):
            raise ValueError("`edited` belongs to the decision `fix`, and only to it")
        if any(not LOWEST_SCORE <= score <= HIGHEST_SCORE for score in self.scores.values()):
            raise ValueError(f"scores are whole numbers from {LOWEST_SCORE} to {HIGHEST_SCORE}")
        return self

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


class RandomQueue(BaseModel):
    """A simple random sample of what is reviewed, fixed when it is drawn: a line of the log."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seed: int
    size: int = Field(ge=1)
    population: int
    """The samples that it was drawn from: those that the machine kept, or all rows of a file."""
    samples: list[str]
    """In the order in which they are to be reviewed. A beginning of it is a simple random sample too."""
    reviewer: str
    time: str


def draw_random_queue(population: Sequence[str], size: int, seed: int, reviewer: str) -> RandomQueue:
    """Draw `size` of the samples in `population`, or all if there are fewer. With the same seed, a shorter queue is the
    beginning of a longer one.
    """
    order = sorted(population)
    random.Random(seed).shuffle(order)
    return RandomQueue(
        seed=seed, size=size, population=len(order), samples=order[:size], reviewer=reviewer, time=format_utc_time()
    )


def format_utc_time() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ReviewLabel(NamedTuple):
    """A conversation that a person judged good or poor."""

    line: int
    """In the log, from 1 on."""
    messages: list[Message]
    good: bool


class _NumberedEntry(NamedTuple):
    line: int
    entry: ReviewEntry


class SampleReviews:
    """What people said about one sample."""

    def __init__(self) -> None:
        self._stacks: dict[str, list[_NumberedEntry]] = {}
        """The lines of each reviewer that were not undone."""
        self.first: ReviewEntry | None = None
        """The first line about the sample, undone or not: it has the text and the verdict from before all reviews."""

    def add(self, line: int, entry: ReviewEntry) -> None:
        stack = self._stacks.setdefault(entry.reviewer, [])
        if entry.decision == "undo":
            if stack:
                stack.pop()
            return
        self.first = self.first or entry
        stack.append(_NumberedEntry(line, entry))

    @property
    def reviewers(self) -> list[str]:
        """Everyone with a line about the sample, undone or not."""
        return list(self._stacks)

    def _find_last(self, reviewer: str) -> _NumberedEntry | None:
        return next((one for one in reversed(self._stacks.get(reviewer, [])) if one.entry.decision != "label"), None)

    def find_decision(self, reviewer: str) -> ReviewEntry | None:
        """The reviewer's current decision."""
        last = self._find_last(reviewer)
        return last.entry if last else None

    @property
    def decisions(self) -> dict[str, ReviewEntry]:
        """The current decision of each reviewer who has one."""
        return {name: found for name in self._stacks if (found := self.find_decision(name))}

    @property
    def last(self) -> _NumberedEntry | None:
        """The decision that counts: the last one, whoever made it."""
        return max(filter(None, map(self._find_last, self._stacks)), default=None, key=lambda one: one.line)

    @property
    def decision(self) -> ReviewEntry | None:
        return self.last.entry if self.last else None

    @property
    def disagreement(self) -> bool:
        return len({entry.decision for entry in self.decisions.values()}) > 1

    def merge_scores(self, reviewer: str) -> dict[str, int]:
        """The reviewer's scores, the last of each rubric."""
        return {rubric: score for one in self._stacks.get(reviewer, []) for rubric, score in one.entry.scores.items()}

    def find_note(self, reviewer: str) -> str:
        return next((one.entry.note for one in reversed(self._stacks.get(reviewer, [])) if one.entry.note), "")


class ReviewLog:
    """The log at a path, as it was when it was last read. Several processes may write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = LineLogReader(path)
        self._clear()

    def _clear(self) -> None:
        self.samples: dict[str, SampleReviews] = {}
        self.queues: list[RandomQueue] = []
        self._order: list[ReviewEntry] = []

    def refresh(self) -> bool:
        """Read what was added. Returns whether there was anything.

        Raises:
            UsageError: naming the line that cannot be used.
        """
        try:
            lines, again = self._reader.read_new_lines()
        except OSError as error:
            raise UsageError(f"{self.path}: the reviews cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise UsageError(f"{self.path}: {error}; take the line out") from None
        if again:
            self._clear()
        for number, value in lines:
            try:
                if isinstance(value, dict) and "queue" in value:
                    self.queues.append(RandomQueue.model_validate(value["queue"]))
                    continue
                entry = ReviewEntry.model_validate(value)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, first["loc"]))
                fault = f"{where + ': ' if where else ''}{first['msg']}"
                self._reader = LineLogReader(self.path)  # all is read again once the line is out
                self._clear()
                raise UsageError(f"{self.path}: line {number} is no review: {fault}; take the line out") from None
            self.samples.setdefault(entry.sample, SampleReviews()).add(number, entry)
            self._order.append(entry)
        return bool(lines) or again

    def append(self, line: ReviewEntry | RandomQueue) -> None:
        """Append a line and read it, with what others appended before it. Raises StoreError if it cannot be written whole."""
        append_json_line(
            self.path, line.to_json() if isinstance(line, ReviewEntry) else {"queue": line.model_dump(mode="json")}
        )
        self.refresh()

    def find_undoable(self, reviewer: str) -> str | None:
        """The sample of the reviewer's last line that was not undone."""
        undone = 0
        for entry in reversed(self._order):
            if entry.reviewer != reviewer:
                continue
            if entry.decision == "undo":
                undone += 1
            elif undone:
                undone -= 1
            else:
                return entry.sample
        return None

    def list_decided(self) -> Iterator[tuple[str, ReviewEntry]]:
        """Each sample with a decision, with the one that counts."""
        for name, reviews in self.samples.items():
            if (decision := reviews.decision) is not None:
                yield name, decision

    def list_labels(self) -> list[ReviewLabel]:
        """Conversations with a person's judgement, each once: kept ones are good, dropped ones poor; of a fixed one, the original
        is poor and the edited text good. Equal conversations with different judgements are left out, and those without an answer.
        """
        found: dict[str, list[ReviewLabel]] = {}
        for reviews in self.samples.values():
            if (last := reviews.last) is None:
                continue
            line, entry = last
            labels = [ReviewLabel(line, entry.messages, entry.decision == "keep")]
            labels += [ReviewLabel(line, entry.edited, True)] if entry.edited else []
            for label in labels:
                if any(message.role == "assistant" and message.text.strip() for message in label.messages):
                    text = json_digest([message.model_dump(mode="json") for message in label.messages])
                    found.setdefault(text, []).append(label)
        unique = [labels[0] for labels in found.values() if len({label.good for label in labels}) == 1]
        return sorted(unique, key=lambda label: (label.line, label.good))


def read_reviews(path: Path) -> ReviewLog:
    """The log at `path`, empty if there is none. Raises UsageError naming the line that cannot be used."""
    log = ReviewLog(path)
    log.refresh()
    return log


def locate_reviews(file: Path) -> Path:
    """The log of a run's folder or of a file."""
    return locate_data(file, "review") / REVIEWS_FILE


def hash_decisions(decisions: Mapping[str, ReviewEntry]) -> str:
    """A digest that changes with any decision or edited text, and not with notes or scores."""
    edited = {
        name: [entry.decision, [message.model_dump(mode="json") for message in entry.edited or ()]]
        for name, entry in decisions.items()
    }
    return json_digest(edited)
