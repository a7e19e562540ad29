"""Results of filters on single rows, on disk, in batches: a stopped command resumes, another threshold needs no second read,
and the rows may exceed memory. Knows no text except ids.

Files only grow, and each line of `batches.jsonl` records their sizes after a whole batch.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.config.filters import (
    FILTER_TABLES,
    ContaminationFilter,
    FilterConfig,
    KeepOneFilter,
    list_filter_extensions,
    list_filter_files,
)
from core.errors import StoreError, UsageError
from core.project_files import find_referenced_file
from core.storage.atomic_files import hash_file, read_json, translate_write_errors, write_json
from core.storage.bounded_reading import check_plain_folder, empty_folder, open_without_link
from core.storage.file_locks import hold_lock
from filters.base import DroppedDocument
from filters.chain.filter_chain import DocumentSketches, RowFilterResult
from filters.chain.registry import find_set_filter
from filters.masks import TextMask
from filters.ragged_arrays import RaggedArray, compute_offsets
from flows.rows.dataset_rows import read_file_state

CHECKPOINT_VERSION = 3
"""Of the format of a checkpoint; a checkpoint of another version is filtered again."""
COMPARISON_KEYS = {"threshold", "index"}
"""Keys of filters that do not change the result of a single row."""
LOCK_FILE = "lock"
PLACE_DTYPE = np.dtype(np.int64)
WORTH_DTYPE = np.dtype(np.float64)
BATCH_KEYS = {"file", "first", "count", "numbers", "unjudged", "ends"}


class UnreadableLine(NamedTuple):
    """A row that could not be read, by its line or row number in its file."""

    line: int
    error: str
    text: str


class CheckpointBatch(NamedTuple):
    judged: RowFilterResult
    numbers: Sequence[int]
    """Row numbers in the file, from 1 on, of the filtered rows."""
    ids: list[str | None]
    """Ids of the filtered rows; None for a row without an id."""
    unreadable: list[UnreadableLine]


class BatchSpan(NamedTuple):
    """A filtered batch: the numbers of its rows in their file, and the place of its first row among all rows."""

    file: int
    first_place: int
    numbers: Sequence[int]


def build_checkpoint_identity(files: Sequence[Path], configs: Sequence[FilterConfig], folder: Path) -> dict[str, Any]:
    """The state of the input files, and all else on which a row's result depends, as JSON has it."""
    sets = [name for config in configs if isinstance(config, ContaminationFilter) for name in config.sets]
    identity: dict[str, Any] = {
        "version": CHECKPOINT_VERSION,
        "files": [read_file_state(file) for file in files],
        "filters": [config.model_dump(mode="json", exclude=COMPARISON_KEYS) for config in configs],
        "sets": {name: hash_file(find_referenced_file(name, folder)) for name in sets},
    }
    if extensions := [extension for extension in list_filter_extensions(configs) if not extension.own]:
        own_files = list_filter_files([config for config in configs if config.type not in FILTER_TABLES])
        identity["extensions"] = {extension.name: extension.identity for extension in extensions if not extension.own}
        identity["sets"] |= {name: hash_file(find_referenced_file(name, folder)) for name in own_files}
    return dict(json.loads(json.dumps(identity)))


def read_checkpoint_identity(folder: Path) -> dict[str, Any] | None:
    """The identity of the checkpoint in `folder`; None where there is no checkpoint, or a damaged one."""
    file = folder / "input.json"
    identity = None
    if file.exists():
        with suppress(StoreError):
            identity = read_json(file)
    return identity if isinstance(identity, dict) and isinstance(identity.get("files"), list) else None


@contextmanager
def lock_output(out: Path) -> Iterator[None]:
    """Hold the folder `out` for this command: two would mix their batches.

    Raises:
        UsageError: if `out` has files that no filter wrote, or a link.
        RunInUse: if another command writes to it.
    """
    check_plain_folder(out)
    work = out / "work"
    if not (work / "input.json").exists() and not (out / "report.json").exists():
        entries = [*_list_visible(out), *_list_visible(work)]
        if foreign := sorted(path for path in entries if path not in (work, work / LOCK_FILE)):
            raise UsageError(f"{out}: has other files ({foreign[0].relative_to(out)}); give a new or empty folder")
    with hold_lock(work / LOCK_FILE, f"{out}: another `filter` writes to it"):
        yield


def _list_visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []


class FilterCheckpoint:
    """Checkpoint in `folder` of the input and filters in `identity`. Batches of unchanged files at its start stay valid. The
    folder is made, and an unrelated checkpoint removed, with the first batch: a command rejected earlier changes nothing.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], configs: Sequence[FilterConfig]) -> None:
        self.identity = identity
        self._folder = folder
        self._configs = configs
        self.spans: list[BatchSpan] = []
        self._ends: dict[str, int] = {}
        self._unjudged: Counter[int] = Counter()
        earlier = read_checkpoint_identity(folder) or {"files": []}
        pairs = zip(earlier["files"], identity["files"], strict=False)
        self._unchanged_files = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._started = self._unchanged_files > 0 and {**earlier, "files": identity["files"]} == identity
        if self._started:
            with translate_write_errors(folder):
                self._resume()
                if not self._is_whole():
                    self.spans, self._ends, self._unjudged, self._started = [], {}, Counter(), False
                elif earlier != identity:
                    write_json(folder / "input.json", identity)

    def _resume(self) -> None:
        """Read the valid batches, and truncate all files after them."""
        whole = 0
        for line in _read_lines(self._folder / "batches.jsonl"):
            record = _parse_batch_line(line)
            if record is None or record["file"] >= self._unchanged_files:
                break
            if any(_get_file_size(self._folder / name) < end for name, end in record["ends"].items()):
                break
            self._add_span(record)
            whole += len(line)
        names = ["drops.jsonl", "masks.jsonl", "ids.jsonl", "aside.jsonl"]
        for step, config in enumerate(self._configs):
            if find_set_filter(config):
                names += [f"{step}.values", f"{step}.sizes", f"{step}.places", f"{step}.worth"]
        for name, end in {**dict.fromkeys(names, 0), **self._ends, "batches.jsonl": whole}.items():
            with open_without_link(self._folder / name, "ab") as file:
                file.truncate(end)

    def _is_whole(self) -> bool:
        """Whether all batches can be read, and follow one another. False makes the command filter all rows again."""
        try:
            result = self.load_results()
            self.read_ids([])
            list(self.read_unreadable_lines())
        except (ValueError, TypeError, LookupError):
            return False
        ends = [(span.file, span.numbers[-1]) for span in self.spans if span.numbers]
        starts = [(span.file, span.numbers[0]) for span in self.spans if span.numbers]
        places = [np.fromiter(result.drops, PLACE_DTYPE, len(result.drops))]
        places += [sketched.places for sketched in result.sketched.values()]
        return (
            all(end < start for end, start in zip(ends, starts[1:], strict=False))
            and all(found.size == 0 or found.max() < self.count for found in places)
            and all(
                one.sketches.starts[-1] == one.sketches.values.size
                and one.sketches.sizes.size == one.places.size == one.worth.size
                and bool((np.diff(one.places) > 0).all())
                for one in result.sketched.values()
            )
        )

    def _add_span(self, record: dict[str, Any]) -> None:
        first, count = record["first"], record["count"]
        numbers = record["numbers"] or range(first, first + count)
        self.spans.append(BatchSpan(record["file"], self.count, numbers))
        self._ends = record["ends"]
        for step, count in enumerate(record["unjudged"]):
            self._unjudged[step] += count

    @property
    def count(self) -> int:
        """Number of filtered rows so far."""
        return self.spans[-1].first_place + len(self.spans[-1].numbers) if self.spans else 0

    def add(self, file: int, batch: CheckpointBatch) -> None:
        """Append the next batch. Raises StoreError if the disk is full; earlier batches stay whole."""
        first_place, numbers = self.count, batch.numbers
        with translate_write_errors(self._folder):
            if not self._started:
                self._started, self._unchanged_files = True, 0
                self._folder.mkdir(parents=True, exist_ok=True)
                empty_folder(self._folder, keep=(LOCK_FILE, "input.json"))
                write_json(self._folder / "input.json", self.identity)
                self._resume()
            ends = {name: self._append(name, data) for name, data in self._encode_columns(file, first_place, batch)}
            contiguous = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
            record = {
                "file": file,
                "first": numbers[0] if numbers else 1,
                "count": len(numbers),
                "numbers": None if contiguous else list(numbers),
                "unjudged": [batch.judged.unjudged.get(step, 0) for step in range(len(self._configs))],
                "ends": {**self._ends, **ends},
            }
            self._append("batches.jsonl", json.dumps(record).encode() + b"\n")
        self._add_span(record)

    def _encode_columns(self, file: int, first_place: int, batch: CheckpointBatch) -> Iterator[tuple[str, bytes]]:
        judged = batch.judged
        yield (
            "drops.jsonl",
            _dump_json_lines(
                [first_place + place, step, drop.model_dump(mode="json")]
                for place, (step, drop) in judged.drops.items()
            ),
        )
        yield "masks.jsonl", _dump_json_lines([first_place + place, masks] for place, masks in judged.masks.items())
        yield "ids.jsonl", _dump_json_lines([batch.ids if any(id is not None for id in batch.ids) else None])
        yield "aside.jsonl", _dump_json_lines([file, *row] for row in batch.unreadable)
        for step, sketched in judged.sketched.items():
            yield f"{step}.values", sketched.sketches.values.tobytes()
            yield f"{step}.sizes", sketched.sketches.sizes.astype(PLACE_DTYPE).tobytes()
            yield f"{step}.places", (first_place + sketched.places).astype(PLACE_DTYPE).tobytes()
            if self._keeps_first(step):
                continue
            yield f"{step}.worth", sketched.worth.astype(WORTH_DTYPE).tobytes()

    def _keeps_first(self, step: int) -> bool:
        config = self._configs[step]
        return not isinstance(config, KeepOneFilter) or config.keep == "first"

    def _append(self, name: str, data: bytes) -> int:
        with open_without_link(self._folder / name, "ab") as file:
            file.write(data)
            return file.tell()

    def load_results(self) -> RowFilterResult:
        """All batches as one result; sketches are memory-mapped."""
        drops = {
            place: (step, DroppedDocument.model_validate(drop))
            for place, step, drop in self._read_records("drops.jsonl")
        }
        masks = {place: tuple(TextMask(*mask) for mask in found) for place, found in self._read_records("masks.jsonl")}
        result = RowFilterResult(self.count, drops, masks, {}, dict(self._unjudged))
        for step, config in enumerate(self._configs):
            if compared := find_set_filter(config):
                type_ = compared.sketch([], config).values.dtype
                offsets = compute_offsets(self._map_array(f"{step}.sizes", PLACE_DTYPE))
                places = self._map_array(f"{step}.places", PLACE_DTYPE)
                first = self._keeps_first(step)
                worth = np.zeros(places.size) if first else self._map_array(f"{step}.worth", WORTH_DTYPE)
                sketches = RaggedArray(self._map_array(f"{step}.values", type_), offsets)
                result.sketched[step] = DocumentSketches(places, sketches, worth)
        return result

    def _map_array(self, name: str, type_: np.dtype[Any]) -> Any:
        file = self._folder / name
        return np.memmap(file, dtype=type_, mode="r") if _get_file_size(file) else np.empty(0, dtype=type_)

    def _read_records(self, name: str) -> Iterator[Any]:
        return (json.loads(line) for line in _read_lines(self._folder / name))

    def read_unreadable_lines(self) -> Iterator[tuple[int, UnreadableLine]]:
        """Each unreadable line with the index of its file."""
        return ((file, UnreadableLine(*row)) for file, *row in self._read_records("aside.jsonl"))

    def read_ids(self, places: Iterable[int]) -> dict[int, str]:
        """Ids of the rows at `places`, for rows with an id."""
        wanted = sorted(set(places))
        result: dict[int, str] = {}
        next_wanted = 0
        for span, ids in zip(self.spans, self._read_records("ids.jsonl"), strict=True):
            if ids is not None and len(ids) != len(span.numbers):
                raise ValueError("ids.jsonl: is damaged")
            end = span.first_place + len(span.numbers)
            while next_wanted < len(wanted) and wanted[next_wanted] < end:
                place = wanted[next_wanted]
                id = ids[place - span.first_place] if ids else None
                if id is not None:
                    result[place] = id
                next_wanted += 1
        return result


def _parse_batch_line(line: bytes) -> dict[str, Any] | None:
    """None for a line that is not whole."""
    record = None
    with suppress(ValueError):
        record = json.loads(line) if line.endswith(b"\n") else None
    return record if isinstance(record, dict) and record.keys() >= BATCH_KEYS else None


def _read_lines(file: Path) -> Iterator[bytes]:
    if file.exists():
        with file.open("rb") as lines:
            yield from lines


def _get_file_size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _dump_json_lines(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
