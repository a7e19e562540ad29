"""The journal of one teacher's batches: requests are stored before they are sent, and results before they are used. Knows no
provider.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import time
from uuid import uuid4

from core.runs.batch_records import BatchRecord, locate_results, read_batch_records
from core.storage.atomic_files import write_atomically, write_json
from plugins.hosted.batches.batch_api import BatchStatus


def update_record(record: BatchRecord, status: BatchStatus) -> BatchRecord:
    """The record with what the provider says of the batch now."""
    return replace(
        record, id=status.id, state=status.state, done=status.done, failed=status.failed, expires=status.expires
    )


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
        return locate_results(self.folder, record)

    def read_records(self) -> list[BatchRecord]:
        return read_batch_records(self.folder)

    def is_ended(self, record: BatchRecord) -> bool:
        return self.results_file(record).exists()


def read_result_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of results, each with its offset."""
    with file.open("rb") as results:
        offset = 0
        for line in results:
            yield offset, line
            offset += len(line)
