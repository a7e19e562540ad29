"""The samples of a curated run: kept, dropped and finished samples shard by shard, and the rows of its dataset. Knows files and
rows; knows no filter, no Prefect and no teacher.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.agents import PASS_RATE
from core.errors import UsageError
from core.row_groups import choose_groups, group_rows
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
from flows.data.dataset_formats import IMAGE_SEED_COLUMNS, VOTES, count_prompt_turns
from flows.rows.row_forms import build_row_document
from flows.terminal.text_format import format_one_line

if TYPE_CHECKING:
    import polars as pl

TRAIN, VALIDATION = "train", "validation"
PASSAGE = "passage"
"""The column with the hash of the text that a sample's seed has, as `grounded_qa` asks about one."""
NO_SIDES: Mapping[Any, str] = MappingProxyType({})


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
    """Counts the reasons of failed samples, and what was said about each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._details: dict[str, Counter[str]] = {}
        self._first: dict[str, Sample] = {}

    def add(self, sample: Sample) -> None:
        reason = format_drop_reason(sample.reason or "", sample.detail)
        self._counts[reason] += 1
        self._first.setdefault(reason, sample)
        detail = sample.detail.removeprefix(reason.partition(":")[2]).removeprefix(":")
        self._details.setdefault(reason, Counter())[format_one_line(detail)] += 1

    def most_common(self) -> "FailureReason":
        """The most common reason, of at least one sample, with its most common cause. Its text has the full error of a broken
        check on the first sample.
        """
        reason, count = self._counts.most_common(1)[0]
        first, (cause, _) = self._first[reason], self._details[reason].most_common(1)[0]
        if first.check_broke:
            text = f"{first.reason}:{first.detail} ({count})"
        else:
            text = f"{reason} ({count}){f': {cause}' if cause else ''}"
        return FailureReason(text, first.check_broke, first.reason == RejectionReason.provider)


class FailureReason(NamedTuple):
    """A reason with its number of samples."""

    text: str
    check_broke: bool
    unanswered: bool
    """A teacher gave no reply, so that the samples can be made again."""


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
    """The kept samples in the order of the run: `id`, `messages`, `asked` (the number of messages that are the prompt),
    `reasoning`, `tools` and `question` from the candidates' fields, as text or JSON text, without tools that the system message
    has; `passage`, a hash of the seed's text; `votes` on the answers of a decision; `kind` and `source` of a question about the
    user's image; and, if any sample's difficulty was measured, its `pass_rate`.
    """
    import polars as pl

    kept = [create_empty_rows()]
    fields, seed = pl.col("fields").str.json_path_match, pl.col("seed").str.json_path_match
    of_image = pl.when(seed("$.data.images").is_not_null()).then
    for index in run.shards():
        columns = ("id", "messages", "fields", "seed", ATTEMPTS_COLUMN)
        rows = complete_turn_fields(read_sample_columns(run.kept_file(index), columns))
        roles_of_rows = (
            rows.select(pl.col("messages").list.eval(pl.element().struct.field("role"))).to_series().to_list()
        )
        selected = rows.select(
            "id",
            "messages",
            pl.Series("asked", [count_prompt_turns(turns) for turns in roles_of_rows], dtype=pl.Int64),
            reasoning=fields("$.reasoning"),
            tools=pl.when(seed("$.data.written_out").ne_missing("true")).then(fields("$.tools")),
            question=fields("$.question"),
            passage=seed("$.data.text").map_elements(_hash_passage, pl.String),
            **{name: of_image(pl.coalesce(fields(f"$.{name}"), seed(f"$.data.{name}"))) for name in IMAGE_SEED_COLUMNS},
            votes=fields("$.label_votes").str.json_decode(_build_votes_type()),
            pass_rate=pl.col(ATTEMPTS_COLUMN).list.mean(),
        )
        measured = selected["pass_rate"].is_not_null().any()
        kept.append(selected if measured else selected.drop(PASS_RATE))
    return pl.concat(kept, how="diagonal")


def _hash_passage(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def create_empty_rows() -> "pl.DataFrame":
    """`read_kept_rows` without rows."""
    import polars as pl

    texts = dict.fromkeys(("reasoning", "tools", "question", PASSAGE, *IMAGE_SEED_COLUMNS), pl.String)
    shapes: dict[str, Any] = {
        "id": pl.String,
        "messages": pl.List(build_message_type()),
        "asked": pl.Int64,
        VOTES: _build_votes_type(),
    }
    return pl.DataFrame(schema={**shapes, **texts})


def _build_votes_type() -> "pl.List":
    """The type of the column `votes`."""
    import polars as pl

    return pl.List(pl.Struct({"question": pl.String, "answer": pl.String, VOTES: pl.Int64}))


SharedKey = tuple[str, Hashable]
"""What rows share that must not be on both sides of a split: a prompt, an image, a passage."""


def list_shared_keys(rows: "pl.DataFrame") -> list[list[SharedKey]]:
    """For each row its prompt, without earlier thinking, its images and the passage that it is about. Keys are comparable within
    one process only.
    """
    import polars as pl

    turn = pl.element().struct
    prompt = pl.col("messages").list.head("asked")
    asked = prompt.list.eval(pl.struct(turn.field("role", "content", "name", "tool_calls", "images"))).hash()
    found = rows.select(
        prompt=pl.when(pl.col("asked") > 0).then(asked),
        images=pl.col("messages").list.eval(turn.field("images").explode().drop_nulls()),
        passage=pl.col(PASSAGE) if PASSAGE in rows.columns else pl.lit(None, pl.String),
    )
    return [
        [
            *((name, one) for name, one in (("prompt", prompt), (PASSAGE, passage)) if one),
            *(("image", one) for one in images),
        ]
        for prompt, images, passage in found.iter_rows()
    ]


class DatasetSplit(NamedTuple):
    """Kept rows for training, and held-out rows."""

    train: "pl.DataFrame"
    validation: "pl.DataFrame"


def split_rows(
    kept: "pl.DataFrame", share: float, seed: int, answers_per_seed: int = 1, sides: Mapping[SharedKey, str] = NO_SIDES
) -> DatasetSplit:
    """Hold out about `share` of the rows, drawn with `seed`; both parts keep their order.

    Samples of one seed stay together, and so do samples with the same prompt, image or passage: nothing held out is trained on.
    With two or more such groups, both parts have at least one. `sides` has the side of keys of earlier rows, which their groups
    take; a group with keys of both sides is held out.
    """
    keys = [
        [("seed", parse_sample_index(name) // answers_per_seed), *shared]
        for name, shared in zip(kept["id"], list_shared_keys(kept), strict=True)
    ]
    held_out: set[int] = set()
    free: list[list[int]] = []
    for group in group_rows(keys):
        earlier = {sides[key] for place in group for key in keys[place] if key in sides}
        if not earlier:
            free.append(group)
        elif VALIDATION in earlier:
            held_out.update(group)
    random.Random(seed).shuffle(free)
    count = sum(map(len, free))
    held_out |= choose_groups(free, max(1, min(round(count * share), count - 1)) if len(free) > 1 else 0)
    return DatasetSplit(
        kept[[i for i in range(len(kept)) if i not in held_out]],
        kept[[i for i in range(len(kept)) if i in held_out]],
    )


def extract_conversations(rows: "pl.DataFrame") -> list[list[Message]]:
    return [[unflatten_message(flat) for flat in messages] for messages in rows["messages"].to_list()]
