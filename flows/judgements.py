"""What filters say of each row by itself, on disk, batch by batch: so that a stopped command goes on where it was, another
threshold needs no row to be read again, and the rows may be more than memory holds. Knows no text but ids.

Every file only grows, and a line of `batches.jsonl` says how far each is whole.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.filter_config import FilterConfig, KeepOneFilter
from core.store import named_failures, read_json, write_json
from filters.arrays import Ragged, offsets
from filters.base import Drop, Mask
from filters.chain import SET_FILTERS, Judged, Sketched

PLACE = np.dtype(np.int64)
WORTH = np.dtype(np.float64)


class Unread(NamedTuple):
    """A row that could not be read, and is kept aside."""

    line: int
    error: str
    text: str


class JudgedBatch(NamedTuple):
    judged: Judged
    numbers: Sequence[int]
    """Of the rows that could be read, from 1 on in their file."""
    ids: list[str | None]
    """Theirs, for those that have one."""
    aside: list[Unread]


class Span(NamedTuple):
    """A batch that is judged: where its rows are, and its place among all."""

    file: int
    first_place: int
    numbers: Sequence[int]


class Judgements:
    """In `folder`, for one input and one list of filters, which `identity` tells; others' are thrown away."""

    def __init__(self, folder: Path, identity: dict[str, Any], configs: Sequence[FilterConfig]) -> None:
        self.identity = identity
        self._folder = folder
        self._configs = configs
        self.spans: list[Span] = []
        self._ends: dict[str, int] = {}
        with named_failures(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if self._earlier_identity() != identity:
                for file in folder.iterdir():
                    file.unlink()
                write_json(folder / "input.json", identity)
            self._take_up()

    def _earlier_identity(self) -> Any:
        file = self._folder / "input.json"
        return read_json(file) if file.exists() else None

    def _take_up(self) -> None:
        """Read which batches are whole, and cut off what came after them."""
        whole = 0
        for line in _lines(self._folder / "batches.jsonl"):
            record = json.loads(line) if line.endswith(b"\n") else None
            if record is None or not self._holds(record["ends"]):
                break
            self._note(record)
            whole += len(line)
        for name, end in {**dict.fromkeys(self._names(), 0), **self._ends, "batches.jsonl": whole}.items():
            with (self._folder / name).open("ab") as file:
                file.truncate(end)

    def _names(self) -> Iterator[str]:
        yield from ("drops.jsonl", "masks.jsonl", "ids.jsonl", "aside.jsonl")
        for step, config in enumerate(self._configs):
            if config.type in SET_FILTERS:
                yield from (f"{step}.values", f"{step}.sizes", f"{step}.places", f"{step}.worth")

    def _holds(self, ends: dict[str, int]) -> bool:
        return all(_size(self._folder / name) >= end for name, end in ends.items())

    def _note(self, record: dict[str, Any]) -> None:
        first, count = record["first"], record["count"]
        numbers = record["numbers"] or range(first, first + count)
        self.spans.append(Span(record["file"], self.count, numbers))
        self._ends = record["ends"]

    @property
    def count(self) -> int:
        """How many rows could be read so far."""
        return self.spans[-1].first_place + len(self.spans[-1].numbers) if self.spans else 0

    def add(self, file: int, batch: JudgedBatch) -> None:
        """Take in the next batch. Raises StoreError where there is no room; what was there before stays whole."""
        first_place, numbers = self.count, batch.numbers
        with named_failures(self._folder):
            ends = {name: self._append(name, data) for name, data in self._columns(file, first_place, batch)}
            plain = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
            record = {
                "file": file,
                "first": numbers[0] if numbers else 1,
                "count": len(numbers),
                "numbers": None if plain else list(numbers),
                "ends": {**self._ends, **ends},
            }
            self._append("batches.jsonl", json.dumps(record).encode() + b"\n")
        self._note(record)

    def _columns(self, file: int, first_place: int, batch: JudgedBatch) -> Iterator[tuple[str, bytes]]:
        judged = batch.judged
        yield (
            "drops.jsonl",
            _dumped(
                [first_place + place, step, drop.model_dump(mode="json")]
                for place, (step, drop) in judged.drops.items()
            ),
        )
        yield "masks.jsonl", _dumped([first_place + place, masks] for place, masks in judged.masks.items())
        yield "ids.jsonl", _dumped([batch.ids if any(id is not None for id in batch.ids) else None])
        yield "aside.jsonl", _dumped([file, *row] for row in batch.aside)
        for step, sketched in judged.sketched.items():
            yield f"{step}.values", sketched.sketches.values.tobytes()
            yield f"{step}.sizes", sketched.sketches.sizes.astype(PLACE).tobytes()
            yield f"{step}.places", (first_place + sketched.places).astype(PLACE).tobytes()
            if self._keeps_first(step):
                continue
            yield f"{step}.worth", sketched.worth.astype(WORTH).tobytes()

    def _keeps_first(self, step: int) -> bool:
        config = self._configs[step]
        return not isinstance(config, KeepOneFilter) or config.keep == "first"

    def _append(self, name: str, data: bytes) -> int:
        with (self._folder / name).open("ab") as file:
            file.write(data)
            return file.tell()

    def whole(self) -> Judged:
        """All batches as one; sketches are mapped, not read."""
        drops = {place: (step, Drop.model_validate(drop)) for place, step, drop in self._read("drops.jsonl")}
        masks = {place: tuple(Mask(*one) for one in some) for place, some in self._read("masks.jsonl")}
        steps = [step for step, config in enumerate(self._configs) if config.type in SET_FILTERS]
        return Judged(self.count, drops, masks, {step: self._sketched(step) for step in steps})

    def _sketched(self, step: int) -> Sketched:
        config = self._configs[step]
        type_ = SET_FILTERS[config.type].sketch([], config).values.dtype
        sizes = self._mapped(f"{step}.sizes", PLACE)
        places = self._mapped(f"{step}.places", PLACE)
        worth = np.zeros(places.size) if self._keeps_first(step) else self._mapped(f"{step}.worth", WORTH)
        return Sketched(places, Ragged(self._mapped(f"{step}.values", type_), offsets(sizes)), worth)

    def _mapped(self, name: str, type_: np.dtype[Any]) -> Any:
        file = self._folder / name
        return np.memmap(file, dtype=type_, mode="r") if _size(file) else np.empty(0, dtype=type_)

    def _read(self, name: str) -> Iterator[Any]:
        return (json.loads(line) for line in _lines(self._folder / name))

    def aside_rows(self) -> Iterator[tuple[int, Unread]]:
        """With the file of each."""
        return ((file, Unread(*row)) for file, *row in self._read("aside.jsonl"))

    def ids(self, places: Iterable[int]) -> dict[int, str]:
        """Of the rows at `places`, those that have one."""
        wanted = sorted(set(places))
        found: dict[int, str] = {}
        at = 0
        for span, ids in zip(self.spans, self._read("ids.jsonl"), strict=True):
            end = span.first_place + len(span.numbers)
            while at < len(wanted) and wanted[at] < end:
                id = ids[wanted[at] - span.first_place] if ids else None
                if id is not None:
                    found[wanted[at]] = id
                at += 1
        return found


def _lines(file: Path) -> Iterator[bytes]:
    if file.exists():
        with file.open("rb") as lines:
            yield from lines


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _dumped(rows: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
