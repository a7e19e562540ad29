"""The batches of a run on disk, for those who show a run: what was sent, and how much of it has ended. Knows no provider.

A batch has up to three files, named by its tag: `TAG.requests.jsonl` until its id is known, `TAG.json` from before it is sent,
and `TAG.results.jsonl` once it has ended. A plugin writes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

from core.errors import StoreError
from core.storage.atomic_files import read_json


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


def read_batch_records(folder: Path) -> list[BatchRecord]:
    """All batches of a teacher, in the order in which they were written. Raises StoreError for a damaged record."""
    records = []
    for file in folder.glob("*.json"):
        try:
            fields = read_json(file)
            records.append(BatchRecord(**{**fields, "custom_ids": tuple(fields["custom_ids"])}))
        except (TypeError, KeyError) as error:
            raise StoreError(f"{file}: is damaged: {error}; remove it to pay for its requests again") from None
    return sorted(records, key=lambda record: (record.written, record.tag))


def locate_results(folder: Path, record: BatchRecord) -> Path:
    """The file that exists once the batch has ended and all of its results are stored."""
    return folder / f"{record.tag}.results.jsonl"


def read_open_batches(folder: Path) -> Iterator[BatchRecord]:
    """The batches in a run's folder of batches, of all teachers, whose results are not stored."""
    for teacher in sorted(folder.glob("*/")):
        for record in read_batch_records(teacher):
            if not locate_results(teacher, record).exists():
                yield record
