"""The samples of a curated run: kept, dropped and finished samples shard by shard, and the rows of its dataset. Knows files and
rows; knows no filter, no Prefect and no teacher.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.difficulty import PASS_RATE
from core.errors import UsageError
from core.runs.run_dir import RunDir
from core.sample import Message, RejectionReason, Sample, parse_sample_index
from core.storage.image_files import find_image_file, is_stored_image
from core.storage.sample_files import (
    ATTEMPTS_COLUMN,
    build_message_type,
    complete_turn_fields,
    read_one_sample,
    read_sample_columns,
    read_samples,
    unflatten_message,
)
from filters.base import Document
from flows.data.dataset_formats import count_prompt_turns
from flows.data.dataset_rows import build_row_document

if TYPE_CHECKING:
    import polars as pl


def count_finished_samples(run: RunDir) -> int:
    """Number of finished samples, before any filter."""
    return sum(len(read_sample_columns(run.shard_file(index), ("id",))) for index in run.shards())


def build_conversation_document(
    name: str,
    messages: Sequence[dict[str, Any]],
    question: str,
    score: float | None = None,
    image_folder: Path | None = None,
) -> Document:
    """The document of a conversation in a samples file, with its images if the folder of its run or release is given.

    Raises:
        StoreError: if an image is missing.
    """
    document = build_row_document({"messages": messages}, name)._replace(question=question, score=score)
    names = [name for turn in messages for name in turn.get("images") or ()]
    if not names or image_folder is None:
        return document
    images = [find_image_file(name, [image_folder]) if is_stored_image(name) else name for name in names]
    return document._replace(images=tuple(images))


def join_assistant_turns(messages: Sequence[dict[str, Any]]) -> str:
    """The assistant's turns joined by newlines, as in `Candidate.answer`."""
    return "\n".join(unflatten_message(flat).text for flat in messages if flat["role"] == "assistant")


def format_drop_reason(reason: str, detail: str) -> str:
    """The reason why a sample is not kept, as counted in the manifest, with the check, rubric or kind after a colon."""
    if reason in (RejectionReason.verifier, RejectionReason.critic):
        return f"{reason}:{detail}"
    headed = (RejectionReason.contract, RejectionReason.difficulty)
    return f"{reason}:{detail.partition(':')[0]}" if reason in headed else reason


class FailureCounter:
    """Counts the reasons of failed samples."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, Sample] = {}

    def add(self, sample: Sample) -> None:
        reason = format_drop_reason(sample.reason or "", sample.detail)
        self._counts[reason] += 1
        self._first.setdefault(reason, sample)

    def most_common(self) -> "FailureReason":
        """The most common reason, of at least one sample. Its text has the full error of a broken check on the first sample."""
        reason, count = self._counts.most_common(1)[0]
        first = self._first[reason]
        return FailureReason(
            f"{f'{first.reason}:{first.detail}' if first.check_broke else reason} ({count})", first.check_broke
        )


class FailureReason(NamedTuple):
    """A reason with its number of samples."""

    text: str
    check_broke: bool


def read_kept_samples(run: RunDir) -> Iterator[Sample]:
    return (sample for index in run.shards() for sample in _read_samples_if_present(run.kept_file(index)))


def read_dropped_samples(run: RunDir) -> Iterator[Sample]:
    """Dropped and failed samples."""
    return (sample for index in run.shards() for sample in _read_samples_if_present(run.dropped_file(index)))


def _read_samples_if_present(path: Path) -> list[Sample]:
    return read_samples(path) if path.exists() else []


def read_finished_samples(run: RunDir) -> Iterator[Sample]:
    """Every finished sample of the run in its latest state, ordered by id."""
    for index in run.shards():
        yield from _read_finished_shard(run, index)


def _read_finished_shard(run: RunDir, index: int) -> list[Sample]:
    """Samples of one shard: as filtered, and as the agents left them where no filter has run since."""
    judged = [*_read_samples_if_present(run.kept_file(index)), *_read_samples_if_present(run.dropped_file(index))]
    ids = {sample.id for sample in judged}
    newer = [sample for sample in read_samples(run.shard_file(index)) if sample.id not in ids]
    return sorted([*judged, *newer], key=lambda sample: sample.id)


class FinishedLine(NamedTuple):
    """A finished sample without its text."""

    id: str
    state: str
    reason: str | None
    detail: str


def read_finished_lines(run: RunDir) -> Iterator[FinishedLine]:
    """The lines of `read_finished_samples`, read from their columns alone: no text is read or checked."""
    for index in run.shards():
        lines: dict[str, FinishedLine] = {}
        for file in (run.shard_file(index), run.kept_file(index), run.dropped_file(index)):
            if file.exists() or not lines:
                table = read_sample_columns(file, FinishedLine._fields)
                lines |= {row[0]: FinishedLine(*row) for row in table.select(FinishedLine._fields).iter_rows()}
        yield from (lines[name] for name in sorted(lines))


def find_finished_sample(
    run: RunDir, index: int, name: str, read: Callable[[Path, str], Sample | None] = read_one_sample
) -> Sample | None:
    """A sample of a shard as filters left it, with what they masked; before any filter, as agents left it."""
    judged = (run.kept_file(index), run.dropped_file(index))
    files = (*filter(Path.exists, judged), run.shard_file(index))
    return next((sample for file in files if (sample := read(file, name))), None)


def find_sample(run: RunDir, name: str) -> Sample:
    """The sample called `name`, or whose id ends in that number.

    Raises:
        UsageError: naming the existing ids.
    """
    wanted = {name, f"{run.name.rpartition('-')[2]}-{name.zfill(6)}"}
    first = last = None
    for index in run.shards():
        ids = sorted(read_sample_columns(run.shard_file(index), ("id",))["id"])
        for found in wanted.intersection(ids):
            if sample := find_finished_sample(run, index, found):
                return sample
        if ids:
            first, last = first or ids[0], ids[-1]
    known = f"ids range from {first} to {last}" if first else "no sample is finished yet"
    raise UsageError(f"{name}: {run.name} has no such sample; {known}")


def read_kept_rows(run: RunDir) -> "pl.DataFrame":
    """The kept samples in the order of the run: `id`, `messages`, `asked` (the number of messages that are the prompt), and
    `reasoning`, `tools` and `question` from the candidates' fields, as text or JSON text; and, if any sample's difficulty was
    measured, its `pass_rate`.
    """
    import polars as pl

    kept = [create_empty_rows()]
    fields, roles = pl.col("fields").str, pl.element().struct.field("role")
    for index in run.shards():
        columns = ("id", "messages", "fields", ATTEMPTS_COLUMN)
        rows = complete_turn_fields(read_sample_columns(run.kept_file(index), columns))
        roles_of_rows = rows.select(pl.col("messages").list.eval(roles)).to_series().to_list()
        selected = rows.select(
            "id",
            "messages",
            pl.Series("asked", [count_prompt_turns(turns) for turns in roles_of_rows], dtype=pl.Int64),
            reasoning=fields.json_path_match("$.reasoning"),
            tools=fields.json_path_match("$.tools"),
            question=fields.json_path_match("$.question"),
            pass_rate=pl.col(ATTEMPTS_COLUMN).list.mean(),
        )
        measured = selected["pass_rate"].is_not_null().any()
        kept.append(selected if measured else selected.drop(PASS_RATE))
    return pl.concat(kept, how="diagonal")


def create_empty_rows() -> "pl.DataFrame":
    """`read_kept_rows` without rows."""
    import polars as pl

    texts = dict.fromkeys(("reasoning", "tools", "question"), pl.String)
    return pl.DataFrame(schema={"id": pl.String, "messages": pl.List(build_message_type()), "asked": pl.Int64, **texts})


def hash_prompt() -> "pl.Expr":
    """A hash of each row's prompt, without earlier thinking. Hashes are comparable within one process only."""
    import polars as pl

    asked = pl.element().struct.field("role", "content", "name", "tool_calls", "images")
    return pl.col("messages").list.head("asked").list.eval(pl.struct(asked)).hash()


class DatasetSplit(NamedTuple):
    """Kept rows for training, and held-out rows."""

    train: "pl.DataFrame"
    validation: "pl.DataFrame"


def split_rows(kept: "pl.DataFrame", share: float, seed: int, answers_per_seed: int = 1) -> DatasetSplit:
    """Hold out about `share` of the rows, drawn with `seed`; both parts keep their order.

    Samples of the same seed stay together, and so do samples with the same prompt: no held-out prompt is trained on. With two
    or more such groups, both parts have at least one.
    """
    # Union-find: rows are in one group if they share a seed or a prompt, directly or through other rows.
    parents: dict[Any, Any] = {}

    def find_root(key: Any) -> Any:
        while parents.setdefault(key, key) != key:
            parents[key] = key = parents[parents[key]]
        return key

    prompts = kept.select(hash_prompt()).to_series()
    keys = [("seed", parse_sample_index(name) // answers_per_seed) for name in kept["id"]]
    for key, prompt in zip(keys, prompts, strict=True):
        parents[find_root(("prompt", prompt))] = find_root(key)
    places_by_root: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        places_by_root.setdefault(find_root(key), []).append(place)

    groups = list(places_by_root.values())
    random.Random(seed).shuffle(groups)
    size = max(1, min(round(len(kept) * share), len(kept) - 1)) if len(groups) > 1 else 0
    held_out: set[int] = set()
    for group in groups:
        if len(held_out) + len(group) <= size:
            held_out.update(group)
    if size and not held_out:
        smallest: list[int] = min(groups, key=len)
        held_out.update(smallest)
    return DatasetSplit(
        kept[[i for i in range(len(kept)) if i not in held_out]],
        kept[[i for i in range(len(kept)) if i in held_out]],
    )


def extract_conversations(rows: "pl.DataFrame") -> list[list[Message]]:
    return [[unflatten_message(flat) for flat in messages] for messages in rows["messages"].to_list()]
