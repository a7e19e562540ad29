"""The rows of a recipe's seeds, read from its file, recording, documents or source. Knows no sample."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from agents.checks.base import Options
from agents.families.base import RecipeFamily
from agents.sources.documents import DocumentReading, hash_documents, read_documents
from agents.sources.seed_source import SeedSource
from core.config.recipe import SeedsConfig
from core.errors import UsageError
from core.project_files import find_referenced_file
from core.storage.bounded_reading import check_parquet_file, check_regular_file
from core.storage.recording import read_recording

SeedRow = Mapping[str, Any]
MAX_REPORTED_FAULTS = 10
"""Faults of a seeds file in one error message."""


class SeedRows(NamedTuple):
    """Rows of seeds, and their source."""

    where: str
    """The file or folder, or the family that makes the rows."""
    rows: Sequence[SeedRow]
    lines: Sequence[int]
    """The line or the number of each row, from 1."""


def load_seed_rows(
    seeds: SeedsConfig, folder: Path, source: SeedSource | None, family: RecipeFamily, options: Options, seed: int
) -> SeedRows:
    """The rows of a recipe's seeds: of its file, recording, documents or `source`, or those that `family` makes by `seed`.

    Raises:
        UsageError: naming the file or line that cannot be read.
    """
    if seeds.path is not None:
        path = find_referenced_file(seeds.path, folder)
        numbered = _read_parquet(path) if path.suffix == ".parquet" else _read_jsonl(path)
        return SeedRows(str(path), list(numbered.values()), list(numbered))
    if seeds.recording is not None:
        path = find_referenced_file(seeds.recording, folder)
        recorded = read_recording(path)
        if other := next((sample.family for sample in recorded if sample.family != family.name), None):
            raise UsageError(f"{path}: is a recording of the family {other}, and the recipe's is {family.name}")
        return SeedRows(str(path), [sample.seed for sample in recorded], range(1, len(recorded) + 1))
    if seeds.documents is not None:
        chunks = [chunk._asdict() for chunk in load_documents(seeds, folder).chunks]
        return SeedRows(str(find_referenced_file(seeds.documents, folder)), chunks, range(1, len(chunks) + 1))
    if source:
        found = source.read_rows()
        return SeedRows(str(find_referenced_file(source.file, folder)), [*found.values()], [*found])
    rows = family.rows(options, seed)
    if not rows:
        raise UsageError(f"{family.name}: has no seeds; name `seeds.path`, or what it is to make in [task]")
    return SeedRows(family.name, rows, range(1, len(rows) + 1))


def load_documents(seeds: SeedsConfig, folder: Path) -> DocumentReading:
    """The documents of a recipe in `folder`, cached while their bytes stay the same. Raises UsageError."""
    path = find_referenced_file(seeds.documents or "", folder)
    return _read_cached(path, seeds.chunk_words, hash_documents(path))


@lru_cache(maxsize=2)
def _read_cached(path: Path, words: int, _hash: str) -> DocumentReading:
    return read_documents(path, words=words)


def _read_jsonl(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of a JSONL file, by line number."""
    try:
        check_regular_file(path)
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")  # only "\n": JSON text may contain other line ends of Unicode
    except OSError as error:
        raise UsageError(f"{path}: the seeds cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{number}: is not UTF-8 text; save the file as UTF-8") from None
    rows, faults = {}, []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"{path}:{number}: is not JSON: {error}")
            continue
        if not isinstance(row, dict):
            faults.append(f"{path}:{number}: must be a JSON object, not {line.strip()[:40]!r}")
        elif _has_surrogate(line, row):
            faults.append(
                f"{path}:{number}: has half a surrogate pair (\\ud800 to \\udfff), which is no character; take it out"
            )
        rows[number] = row
    if faults:
        raise UsageError("\n  ".join(faults[:MAX_REPORTED_FAULTS]))
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows


def _has_surrogate(line: str, row: SeedRow) -> bool:
    """Whether a JSON row contains half a surrogate pair as an escape, which UTF-8 cannot encode."""
    if "\\u" not in line:
        return False
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_parquet(path: Path) -> dict[int, dict[str, Any]]:
    """The rows of a Parquet dataset, by number from 1."""
    from core.storage.sample_files import read_sample_columns

    try:
        check_parquet_file(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: the seeds cannot be read: {error}") from None
    # through JSON, so that dates become text
    parsed = (json.loads(json.dumps(row, default=str)) for row in read_sample_columns(path).to_dicts())
    rows = dict(enumerate(parsed, 1))
    if not rows:
        raise UsageError(f"{path}: has no seeds")
    return rows
