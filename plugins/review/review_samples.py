"""What is reviewed: the samples of a run or the rows of a file, indexed once, and each with its whole history when it is opened.

Knows no page and no decision.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from agents.checks.judge import is_unclear_ruling
from core.config.agents import CriticConfig
from core.errors import StoreError, UsageError
from core.runs.run_dir import RunDir
from core.sample import Message, RejectionReason, Sample, SampleStatus, conversation_digest
from core.storage.image_files import format_image_url, is_stored_image, read_image
from core.storage.sample_files import (
    ATTEMPTS_COLUMN,
    SAMPLE_COLUMNS,
    build_sample,
    read_sample_columns,
    unflatten_message,
)
from flows.data.curated_run import find_finished_sample
from flows.rows.dataset_rows import read_all_rows
from flows.rows.row_forms import read_row_conversation
from flows.terminal.sample_history import collect_revisions, format_seed_value
from flows.terminal.text_format import format_one_line
from plugins.review.log import HIGHEST_SCORE, ReviewLog, locate_reviews

if TYPE_CHECKING:
    import polars as pl

SHOWN_CHARACTERS = 200
"""Of request and answer in the table."""
DEFAULT_RUBRIC = "quality"
"""Where no critic names its rubrics."""
CONFIDENCE_COLUMNS = ("confidence", "score")
"""Of a file's rows: a number that is low where its writer was unsure."""


class IndexedSample(NamedTuple):
    """What is known of a sample without its history."""

    id: str
    state: SampleStatus | None
    """What agents and filters decided, before all reviews; None for a row of a file."""
    reason: str
    detail: str
    request: str
    answer: str
    doubt: float
    """Sorts the samples that the machine was least sure of first."""
    text: str
    """All that search looks in, in lower case."""
    scores: dict[str, int]
    """The critic's, for the text that is reviewed."""
    place: Any
    """Where the whole sample is: a shard's number, or a row."""


class OpenedSample(NamedTuple):
    messages: list[Message]
    """Before all reviews."""
    seed: list[tuple[str, str]]
    history: list[dict[str, Any]]
    """By revision: drafts, critiques, checks' questions and verdicts."""
    pictures: Mapping[str, str] = {}
    """The `data:` URL of each stored image of the messages, by its name there."""


class ReviewSource(NamedTuple):
    """Something to review."""

    name: str
    log: ReviewLog
    samples: dict[str, IndexedSample]
    """In their order."""
    rubrics: list[str]
    open_sample: Callable[[IndexedSample], OpenedSample]
    min_score: int | None
    """Of the run's critic; None without one."""

    @property
    def population(self) -> list[str]:
        """What a random queue is drawn from: the samples that the machine kept, or all rows."""
        return [one.id for one in self.samples.values() if one.state in (None, SampleStatus.kept)]


def index_run(run: RunDir) -> ReviewSource:
    """The finished samples of a run, in its order.

    Raises:
        UsageError: if there is none, or its reviews cannot be read.
        StoreError: if a file of the run is damaged.
    """
    log = ReviewLog(locate_reviews(run.path))
    log.refresh()
    critic = run.read_recipe().agents.critic
    samples: dict[str, IndexedSample] = {}
    for shard in run.shards():
        produced = read_sample_columns(
            run.shard_file(shard), ("id", "state", "reason", "detail", "messages", "history")
        )
        rows = {row["id"]: row for row in produced.iter_rows(named=True)}
        for file in (run.kept_file(shard), run.dropped_file(shard)):
            if file.exists():
                judged = read_sample_columns(file, ("id", "state", "reason", "detail", "messages"))
                for row in judged.iter_rows(named=True):
                    if row["id"] in rows and row["id"] not in log.samples:  # else it may be what a person decided
                        rows[row["id"]] |= row
        for name in sorted(rows):
            if rows[name]["reason"] == RejectionReason.provider:  # it is made again when the run is resumed
                continue
            samples[name] = _index_sample(rows[name], shard, critic, log)
    if not samples:
        raise UsageError(f"{run.path}: has no finished sample to review")
    rubrics = list(dict.fromkeys(rubric for sample in samples.values() for rubric in sample.scores))

    min_score = critic.min_score if critic and rubrics else None
    return ReviewSource(run.name, log, samples, rubrics or [DEFAULT_RUBRIC], _build_sample_opener(run, log), min_score)


class _SampleReader:
    """Reads single samples, and keeps the tables of the files that were read last: a file is read again only if it changed."""

    def __init__(self, most: int = 16) -> None:
        """Keeps at most `most` files."""
        self._most = most
        self._tables: dict[tuple[Path, int, int, int], pl.DataFrame] = {}
        self._places: dict[tuple[Path, int, int, int], dict[str, int]] = {}

    def read(self, path: Path, name: str) -> Sample | None:
        """As `core.storage.sample_files.read_one_sample`."""
        try:
            stat = path.stat()
        except OSError as error:
            raise StoreError(f"{path}: is not a readable samples file: {error}") from None
        version = (path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        table = self._tables.pop(version, None)
        if table is None:
            table = read_sample_columns(path, (*SAMPLE_COLUMNS, ATTEMPTS_COLUMN))
            self._places[version] = {row: place for place, row in enumerate(table["id"])}
        self._tables[version] = table  # the newest last
        for oldest in list(self._tables)[: -self._most]:
            del self._tables[oldest], self._places[oldest]
        place = self._places[version].get(name)
        return None if place is None else build_sample(table.row(place, named=True))


def _build_sample_opener(run: RunDir, log: ReviewLog) -> Callable[[IndexedSample], OpenedSample]:
    reader = _SampleReader()

    def open_sample(sample: IndexedSample) -> OpenedSample:
        if (whole := find_finished_sample(run, sample.place, sample.id, reader.read)) is None:
            raise StoreError(f"{run.path}: sample {sample.id} is no longer there; start the review again")
        reviews = log.samples.get(sample.id)
        reviewed = reviews.first if reviews else None  # its text is from before any correction
        messages = reviewed.messages if reviewed else list(whole.candidate.messages)
        return OpenedSample(
            messages,
            [(key, format_seed_value(value)) for key, value in whole.seed.data.items()],
            _describe_history(whole),
            _read_pictures(run, messages),
        )

    return open_sample


def _index_sample(row: Mapping[str, Any], shard: int, critic: CriticConfig | None, log: ReviewLog) -> IndexedSample:
    history = orjson.loads(row["history"])
    scores = history["critiques"][-1]["scores"] if history["critiques"] else {}
    reviews = log.samples.get(row["id"])
    if reviews is not None and (first := reviews.first) is not None:
        row = {**row, "state": first.machine or row["state"], "reason": first.reason or row["reason"]}
        messages = first.messages
    else:
        messages = [unflatten_message(flat) for flat in row["messages"]]
    state = SampleStatus(row["state"])
    kept = state is SampleStatus.kept
    reason, detail = ("", "") if kept else (row["reason"] or "", row["detail"] or "")
    doubt = _measure_doubt(scores, history["verdicts"], critic)
    request, answer, text = _index_texts(messages, row["id"])
    return IndexedSample(row["id"], state, reason, detail, request, answer, doubt, text, scores, shard)


def _measure_doubt(
    scores: Mapping[str, int], verdicts: Sequence[Mapping[str, Any]], critic: CriticConfig | None
) -> float:
    """How sure the machine was of a sample: 0 is least sure.

    A judge without a clear ruling is least sure. Otherwise the distance of the critic's lowest score, which decides, from the
    middle between the highest score that drops a candidate and the lowest that lets it pass; ties by the mean score. Samples
    without scores come last, those with more failed checks on the way first.
    """
    if any(is_unclear_ruling(verdict["evidence"]) for verdict in verdicts):
        return 0.0
    failed = sum(not verdict["passed"] for verdict in verdicts)
    if not scores or critic is None:
        return HIGHEST_SCORE + 1 / (1 + failed)
    border, mean = critic.min_score - 0.5, sum(scores.values()) / len(scores)
    return abs(min(scores.values()) - border) + abs(mean - border) / 100


def _index_texts(messages: Iterable[Message], *more: str) -> tuple[str, str, str]:
    """Request and answer for the table, and the text for search."""
    turns = list(messages)
    asked = next((turn.text for turn in reversed(turns) if turn.role == "user"), "")
    answer = next((turn.text for turn in reversed(turns) if turn.role == "assistant"), "")
    text = "\n".join([*(turn.text for turn in turns), *more]).lower()
    return format_one_line(asked, SHOWN_CHARACTERS), format_one_line(answer, SHOWN_CHARACTERS), text


def _describe_history(sample: Sample) -> list[dict[str, Any]]:
    """Each revision with every turn, critique and verdict, for the page."""

    def describe_turns(turns: Sequence[Any]) -> list[dict[str, Any]]:
        keys = {"agent", "attempt", "teacher", "asked", "reply", "reasoning"}
        return [
            {
                **turn.model_dump(mode="json", include=keys),
                "context": [{"role": one.role, "content": one.text} for one in turn.context],
            }
            for turn in turns
        ]

    return [
        {
            "number": revision.number,
            "turns": describe_turns([*revision.drafts, *revision.checks, *revision.attempts]),
            "critiques": [critique.model_dump(mode="json") for critique in revision.critiques],
            "verdicts": [verdict.model_dump(mode="json") for verdict in revision.verdicts],
        }
        for revision in collect_revisions(sample)
    ]


class _FileRow(NamedTuple):
    name: str
    """The digest of its conversation."""
    messages: list[Message]
    confidence: float


def _read_pictures(run: RunDir, messages: Iterable[Message]) -> dict[str, str]:
    """Without those whose file is missing or damaged: the page then shows their names."""
    pictures = {}
    for name in filter(is_stored_image, (name for message in messages for name in message.images)):
        with suppress(StoreError):
            pictures[name] = format_image_url(read_image(name, [run.path]))
    return pictures


def index_file(file: Path) -> ReviewSource:
    """The rows of a dataset file, in its order; equal conversations are one sample.

    Raises:
        UsageError: naming the row that is no conversation.
    """
    log = ReviewLog(locate_reviews(file))
    log.refresh()
    samples: dict[str, IndexedSample] = {}

    def read(row: Mapping[str, Any]) -> _FileRow:
        numbers = (row.get(name) for name in CONFIDENCE_COLUMNS)
        confidence = next((float(one) for one in numbers if isinstance(one, int | float)), float("inf"))
        messages = read_row_conversation(row)
        return _FileRow(conversation_digest(messages), messages, confidence)

    for row in read_all_rows(file, read):
        name, messages, confidence = row
        if name not in samples:
            request, answer, text = _index_texts(messages, name)
            samples[name] = IndexedSample(name, None, "", "", request, answer, confidence, text, {}, messages)

    def open_sample(sample: IndexedSample) -> OpenedSample:
        return OpenedSample(sample.place, [], [])

    return ReviewSource(file.name, log, samples, [DEFAULT_RUBRIC], open_sample, None)
