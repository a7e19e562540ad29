"""One reviewer's work on a source: what the page lists and opens, and what it may decide. Knows no HTTP."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UsageError
from core.sample import Message, SampleStatus
from plugins.review.critic_calibration import calibrate_critic
from plugins.review.log import (
    LONGEST_NOTE,
    LONGEST_REVIEWER,
    RandomQueue,
    ReviewEntry,
    SampleReviews,
    draw_random_queue,
    format_utc_time,
)
from plugins.review.review_samples import IndexedSample, ReviewSource
from plugins.review.summary import summarize_reviews

MOST_LISTED = 100
"""Samples in one answer of `list_samples`."""
NOTHING_SAID = SampleReviews()


class SampleQuery(BaseModel):
    """Which samples are listed, and in which order. In blind mode, `state` and `reason` are ignored: they show the verdict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: Literal["all", "random"] = "all"
    """`random`: the random queue alone, in its order."""
    order: Literal["run", "unsure"] = "run"
    """`unsure`: what the machine was least sure of first. A random queue keeps its order."""
    status: Literal["any", "open", "reviewed", "keep", "drop", "fix", "disagree"] = "any"
    """`open`: not decided by this reviewer; `disagree`: reviewers differ."""
    state: Literal["", "kept", "dropped", "failed"] = ""
    reason: str = ""
    search: str = Field("", max_length=1000)
    """Words that a sample's text contains, next to each other."""
    blind: bool = False
    offset: int = Field(0, ge=0)
    limit: int = Field(50, ge=1, le=MOST_LISTED)


class DecisionRequest(BaseModel):
    """What the page sends for one decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: str
    decision: Literal["keep", "drop", "fix", "label"]
    edited: list[Message] | None = None
    scores: dict[str, int] = {}
    note: str = Field("", max_length=LONGEST_NOTE)
    blind: bool = False


def check_reviewer_name(name: str) -> str:
    """The name without spaces around it. Raises UsageError for one that a line of the log cannot have."""
    plain = name.strip()
    if not plain or len(plain) > LONGEST_REVIEWER or not plain.isprintable():
        raise UsageError(
            f"--reviewer {name!r}: must be a name of 1 to {LONGEST_REVIEWER} printable characters, as in --reviewer anna"
        )
    return plain


class ReviewSession:
    """One reviewer at one source. Every call first reads what others have appended to the log."""

    def __init__(self, source: ReviewSource, reviewer: str, *, blind: bool = False) -> None:
        self.source, self.log, self.reviewer, self.blind = source, source.log, reviewer, blind
        self.queue: RandomQueue | None = self.log.queues[-1] if self.log.queues else None
        self._verdicts_shown: set[str] = set()

    def draw_queue(self, size: int, seed: int) -> None:
        """Work on the random queue of this size and seed. It is drawn once; later calls find it in the log.

        Raises:
            UsageError: if the machine kept no sample, or the queue was drawn from others.
            StoreError: if the log cannot be written.
        """
        drawn = next((one for one in self.log.queues if (one.size, one.seed) == (size, seed)), None)
        population = self.source.population
        if drawn and (drawn.population != len(population) or not set(population).issuperset(drawn.samples)):
            raise UsageError(
                f"--random {size} --seed {seed}: was drawn from {drawn.population:,} samples of {self.source.name}, which "
                "are others now; take another --seed"
            )
        if drawn is None:
            if not population:
                raise UsageError(f"{self.source.name}: no sample was kept, so there is none to draw with --random")
            drawn = draw_random_queue(population, size, seed, self.reviewer)
            self.log.append(drawn)
        self.queue = drawn

    def describe(self) -> dict[str, Any]:
        """What the page needs before its first list."""
        samples = self.source.samples.values()
        states = Counter(str(one.state) for one in samples if one.state)
        reasons = Counter(one.reason for one in samples if one.reason)
        return {
            "name": self.source.name,
            "reviewer": self.reviewer,
            "blind": self.blind,
            "rubrics": self.source.rubrics,
            "total": len(self.source.samples),
            "states": dict(states.most_common()),
            "reasons": dict(reasons.most_common()),
            "queue": self.queue and {"size": len(self.queue.samples), "seed": self.queue.seed},
        }

    def summarize(self) -> dict[str, Any]:
        """Counts, estimates and agreement, as numbers and as sentences."""
        self.log.refresh()
        summary, critic = summarize_reviews(self.log, self.queue), calibrate_critic(self.source)
        mine = {name for name in self.log.samples if self._find_mine(name) is not None}
        return {
            "mine": len(mine),
            "mine_in_queue": len(mine.intersection(self.queue.samples)) if self.queue else None,
            "reviews": summary and summary.model_dump(mode="json"),
            "critic": critic and critic.model_dump(mode="json"),
            "estimate": summary.estimate if summary else [],
            "sentences": [*(summary.sentences if summary else []), *(critic.sentences if critic else [])],
        }

    def list_samples(self, query: SampleQuery) -> dict[str, Any]:
        """A page of the list, and the number of all samples in it."""
        self.log.refresh()
        found = list(self._find_matches(query))
        shown = found[query.offset : query.offset + query.limit]
        return {"total": len(found), "rows": [self._describe_row(sample, query) for sample in shown]}

    def open_sample(self, name: str, query: SampleQuery) -> dict[str, Any]:
        """A sample with its whole history and its neighbours in the list. While the machine's verdict is hidden, without it.

        Raises:
            UsageError: if there is no such sample.
        """
        self.log.refresh()
        sample = self._get_sample(name)
        opened, mine = self.source.open_sample(sample), self._find_mine(name)
        reviews = self.log.samples.get(name, NOTHING_SAID)
        shown: dict[str, Any] = {
            **self._describe_row(sample, query),
            "messages": [message.model_dump(mode="json") for message in opened.messages],
            "pictures": opened.pictures,
            "seed": opened.seed,
            "edited": mine.edited and [message.model_dump(mode="json") for message in mine.edited] if mine else None,
            "my_scores": reviews.merge_scores(self.reviewer),
            "note": reviews.find_note(self.reviewer),
            **self._find_neighbours(name, query),
        }
        if not self._is_hidden(name, query):
            self._verdicts_shown.add(name)
            shown |= {"detail": sample.detail, "scores": sample.scores, "history": opened.history}
        return shown

    def find_next(self, after: str, query: SampleQuery) -> str | None:
        """The next sample of the list after `after`, from the start again at its end; None if there is no other."""
        self.log.refresh()
        order = [sample.id for sample in self._list_in_order(query)]
        matches = {sample.id for sample in self._find_matches(query)}
        start = order.index(after) + 1 if after in order else 0
        return next((name for name in chain(order[start:], order[:start]) if name in matches and name != after), None)

    def decide(self, request: DecisionRequest) -> None:
        """Append a decision. When this returns, it is on disk.

        Raises:
            UsageError: naming what is wrong with the decision.
            StoreError: if the log cannot be written; nothing is decided then.
        """
        self.log.refresh()
        sample = self._get_sample(request.sample)
        messages = self.source.open_sample(sample).messages
        if request.decision == "keep" and not _has_answer(messages):
            raise UsageError(f"{sample.id}: has no answer to keep; drop it")
        if request.decision == "fix":
            _check_edit(sample.id, messages, request.edited)
        if unknown := request.scores.keys() - set(self.source.rubrics):
            raise UsageError(f"{sorted(unknown)[0]}: no such rubric; there are {', '.join(self.source.rubrics)}")
        if request.decision == "label" and not request.scores and not request.note:
            raise UsageError(f"{sample.id}: a label needs a score or a note")
        try:
            entry = ReviewEntry(
                sample=sample.id, reviewer=self.reviewer, time=format_utc_time(), decision=request.decision, messages=messages,
                edited=request.edited, scores=request.scores, note=request.note.strip(), machine=sample.state,
                reason=sample.reason, blind=request.blind and not self._has_seen_verdict(sample.id),
            )  # fmt: skip
        except ValidationError as error:
            raise UsageError(f"{sample.id}: {error.errors(include_url=False)[0]['msg']}") from None
        self.log.append(entry)

    def undo(self) -> str | None:
        """Take back this reviewer's last line. Returns its sample, or None if there is none. Raises StoreError as `decide`."""
        self.log.refresh()
        name = self.log.find_undoable(self.reviewer)
        if name is not None:
            self.log.append(ReviewEntry(sample=name, reviewer=self.reviewer, time=format_utc_time(), decision="undo"))
        return name

    def _get_sample(self, name: str) -> IndexedSample:
        if (sample := self.source.samples.get(name)) is None:
            raise UsageError(f"{name}: {self.source.name} has no such sample")
        return sample

    def _find_mine(self, name: str) -> ReviewEntry | None:
        return self.log.samples.get(name, NOTHING_SAID).find_decision(self.reviewer)

    def _has_seen_verdict(self, name: str) -> bool:
        """In this session, or with an earlier line, which may be undone by now."""
        return name in self._verdicts_shown or self.reviewer in self.log.samples.get(name, NOTHING_SAID).reviewers

    def _is_hidden(self, name: str, query: SampleQuery) -> bool:
        return query.blind and self._find_mine(name) is None

    @cached_property
    def _by_doubt(self) -> list[IndexedSample]:
        return sorted(self.source.samples.values(), key=lambda sample: sample.doubt)

    def _list_in_order(self, query: SampleQuery) -> Sequence[IndexedSample]:
        if query.scope == "random" and self.queue:
            return [self.source.samples[name] for name in self.queue.samples if name in self.source.samples]
        return self._by_doubt if query.order == "unsure" else list(self.source.samples.values())

    def _find_matches(self, query: SampleQuery) -> Iterator[IndexedSample]:
        wanted = query.search.strip().lower()
        for sample in self._list_in_order(query):
            if not query.blind:
                if query.state and sample.state != SampleStatus(query.state):
                    continue
                if query.reason and sample.reason != query.reason:
                    continue
            if self._has_status(sample.id, query.status) and (
                not wanted or wanted in sample.text or (not query.blind and wanted in sample.detail.lower())
            ):
                yield sample

    def _has_status(self, name: str, status: str) -> bool:
        if status == "any":
            return True
        reviews = self.log.samples.get(name, NOTHING_SAID)
        mine = reviews.find_decision(self.reviewer)
        if status == "open":
            return mine is None
        if status == "disagree":
            return mine is not None and reviews.disagreement
        return mine is not None and status in ("reviewed", mine.decision)

    def _describe_row(self, sample: IndexedSample, query: SampleQuery) -> dict[str, Any]:
        """Without the verdict while it is hidden, and without other reviewers' decisions until this reviewer has decided."""
        mine = self._find_mine(sample.id)
        row: dict[str, Any] = {
            "id": sample.id,
            "request": sample.request,
            "answer": sample.answer,
            "mine": mine and mine.decision,
            "others": [],
        }
        if mine is not None:
            decisions = self.log.samples[sample.id].decisions
            row["others"] = [
                {"reviewer": name, "decision": entry.decision, "note": entry.note}
                for name, entry in decisions.items()
                if name != self.reviewer
            ]
        if not self._is_hidden(sample.id, query):
            row |= {"state": sample.state, "reason": sample.reason}
        return row

    def _find_neighbours(self, name: str, query: SampleQuery) -> dict[str, Any]:
        """The samples before and after this one in the list, which it may have left when it was decided."""
        places = {sample.id: place for place, sample in enumerate(self._list_in_order(query))}
        here = places.get(name, -1)
        found = [sample.id for sample in self._find_matches(query)]
        before = [other for other in found if places[other] < here]
        after = next((other for other in found if places[other] > here), None)
        return {
            "position": len(before) + 1 if name in found else None,
            "total": len(found),
            "previous": before[-1] if before else None,
            "next": after,
        }


def _has_answer(messages: Sequence[Message]) -> bool:
    return any(message.role == "assistant" and message.text.strip() for message in messages)


def _check_edit(name: str, before: Sequence[Message], edited: Sequence[Message] | None) -> None:
    """Raises UsageError for a correction that changes nothing, leaves no answer, or has other turns."""
    if edited is None or [message.role for message in edited] != [message.role for message in before]:
        raise UsageError(f"{name}: a correction has the same turns by the same roles; only their texts change")
    if list(edited) == list(before):
        raise UsageError(f"{name}: nothing is changed; keep it instead")
    if not _has_answer(edited):
        raise UsageError(f"{name}: the correction has no answer; drop the sample instead")
