"""The batches of one teacher of a run, on disk: requests before they are sent, the batch's id, results before they are used.

A batch has up to three files, named by its tag: `TAG.requests.jsonl` until its id is known, `TAG.json` from before it is sent,
and `TAG.results.jsonl` once it has ended. Knows no provider.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import time
from uuid import uuid4

from core.errors import StoreError
from core.storage.atomic_files import read_json, write_atomically, write_json
from plugins.hosted.batches.batch_api import BatchStatus


@dataclass(frozen=True)
class BatchRecord:
    """A batch that was sent, or is about to be."""

    tag: str
    """Unique among all batches of all runs; the provider stores it with the batch."""
    model: str
    written: float
    """Unix time before it was sent."""
    custom_ids: tuple[str, ...]
    id: str = ""
    """The provider's; "" as long as it is unknown whether the batch was sent."""
    state: str = "written"
    done: int = 0
    failed: int = 0
    expires: float = 0.0

    @property
    def name(self) -> str:
        return self.id or f"with the tag {self.tag}"

    def update(self, status: BatchStatus) -> "BatchRecord":
        return replace(
            self, id=status.id, state=status.state, done=status.done, failed=status.failed, expires=status.expires
        )

    def describe(self) -> str:
        """State, counts, age and expected end."""
        failed = f" ({self.failed:,} failed)" if self.failed else ""
        parts = [f"{self.state}, {self.done:,} of {len(self.custom_ids):,} requests ended{failed}"]
        parts.append(f"{_format_minutes(time() - self.written)} old")
        if self.expires > time():
            parts.append(f"ends within {_format_minutes(self.expires - time())}")
        return ", ".join(parts)


def _format_minutes(seconds: float) -> str:
    minutes = max(0, round(seconds / 60))
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


@dataclass(frozen=True)
class BatchJournal:
    """A folder of batches. One process at a time writes it."""

    folder: Path

    def write_requests(self, model: str, lines: Mapping[str, bytes]) -> BatchRecord:
        """Store a new batch of requests by custom id, so that it survives a power cut before it is sent."""
        record = BatchRecord(f"stillhouse-{uuid4().hex}", model, time(), tuple(lines))
        with write_atomically(self.requests_file(record)) as partial, partial.open("wb") as file:
            file.writelines(lines.values())
        self.save(record)
        return record

    def save(self, record: BatchRecord) -> None:
        write_json(self.record_file(record), asdict(record))
        if record.id:
            self.requests_file(record).unlink(missing_ok=True)

    def remove(self, record: BatchRecord) -> None:
        """Forget a batch that was never sent."""
        self.record_file(record).unlink(missing_ok=True)
        self.requests_file(record).unlink(missing_ok=True)

    def record_file(self, record: BatchRecord) -> Path:
        return self.folder / f"{record.tag}.json"

    def requests_file(self, record: BatchRecord) -> Path:
        return self.folder / f"{record.tag}.requests.jsonl"

    def results_file(self, record: BatchRecord) -> Path:
        """Exists once the batch has ended and all of its results are stored."""
        return self.folder / f"{record.tag}.results.jsonl"

    def read_records(self) -> list[BatchRecord]:
        """All batches, in the order in which they were written. Raises StoreError for a damaged record."""
        records = []
        for file in self.folder.glob("*.json"):
            try:
                fields = read_json(file)
                records.append(BatchRecord(**{**fields, "custom_ids": tuple(fields["custom_ids"])}))
            except (TypeError, KeyError) as error:
                raise StoreError(f"{file}: is damaged: {error}; remove it to pay for its requests again") from None
        return sorted(records, key=lambda record: (record.written, record.tag))

    def is_ended(self, record: BatchRecord) -> bool:
        return self.results_file(record).exists()


def read_open_batches(folder: Path) -> Iterator[BatchRecord]:
    """The batches in a run's folder of batches, of all teachers, whose results are not stored."""
    for teacher in sorted(folder.glob("*/")):
        journal = BatchJournal(teacher)
        for record in journal.read_records():
            if not journal.is_ended(record):
                yield record


def read_result_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of results, each with its offset."""
    with file.open("rb") as results:
        offset = 0
        for line in results:
            yield offset, line
            offset += len(line)
