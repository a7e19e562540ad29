"""Makes a reference from the user's own real text: reads any dataset or document, splits long texts, drops repeats, draws and
shuffles, and measures what the reference can show. Knows no Prefect.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from agents.sources.document_text import DOCUMENT_KINDS, read_document_text
from agents.sources.documents import documents_problem
from core.config.filters import MinHashFilter
from core.errors import UsageError
from core.installation import read_version
from core.runs.collapse_facts import MIN_CONCLUSIVE_DOCUMENTS
from core.sample import Message
from core.shared_options import DEFAULT_ASSESS_SEED, DataKind
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.collapse.matched_samples import split_into_words
from filters.duplicates.shingles import compute_text_keys
from flows.data.reference_files import (
    MIN_FUNCTION_WORDS,
    ReferenceRecord,
    count_passage_words,
    hash_texts,
    split_into_functions,
    write_reference,
)
from flows.evaluate.dataset_assessment import DIALOGUE_KIND, NULL_CACHE_FOLDER
from flows.rows.dataset_rows import find_dataset_files, find_ending, read_all_rows
from flows.rows.row_forms import build_row_document, read_row_conversation
from flows.terminal.console import SESSION, UserInterrupt
from flows.terminal.suggested_commands import format_command, format_next_line
from flows.terminal.text_format import format_count, replace_unsafe_characters
from plugins.references.passages import split_into_passages

if TYPE_CHECKING:
    from filters.collapse.power import LossPower
    from filters.collapse.text_kinds import TextKind

T = TypeVar("T")

TextRole = Literal["assistant", "user"]
"""Whose turns of a conversation are its text."""

MAX_ROW_WORDS = 400
"""A row of a dataset is a document, as in what is assessed, unless it is longer."""
PASSAGE_WORDS = 80
"""The longest passage of a split text, by default: the documents that the limits were set on have 8 to 80 words."""
MIN_PASSAGE_WORDS = 8
MAX_DOCUMENTS = 30_000
"""Documents of a reference by default: all that `assess` uses (`filters.collapse.reference_corpus`)."""
DRAWN_PER_DOCUMENT = 2
"""Different documents that are searched for near repeats, per document of the reference."""
BATCH = 1_000
MIN_DOCUMENTS = 30
"""As `assess` needs at least."""
FEW_TEXTS = 100
"""Passages of fewer texts than this share words that other text of the same kind lacks."""
SPLIT_KINDS = frozenset({"prose", "characters", "code"})
CODE_ENDINGS = frozenset({".py", ".pyi"})
SHOWN_DOCUMENTS = 2_000
"""Documents of a dataset for which the power is printed."""


class ReferenceOptions(NamedTuple):
    """How a reference is made."""

    kind: DataKind | None = None
    """What a document is; None: found from the texts."""
    role: TextRole = "assistant"
    split: int | None = None
    """The longest passage in words; 0 splits nothing; None: as `MAX_ROW_WORDS` and `PASSAGE_WORDS`."""
    documents: int = MAX_DOCUMENTS
    source: str = ""
    seed: int = DEFAULT_ASSESS_SEED


class SourceText(NamedTuple):
    """A text before it is split."""

    origin: str
    text: str
    is_row: bool
    """Whether it is a row of a dataset, rather than a file."""


class ReferenceReport(BaseModel):
    """The result of `stillhouse reference`."""

    model_config = ConfigDict(frozen=True)

    out: str | None
    """The file; None if nothing was written."""
    reference: ReferenceRecord
    compared: int
    """Of 2,000 documents of a dataset, those that can be compared."""
    loss: float
    """The smallest loss of rare words that is found in them with 95 % power; over 1 if none is."""
    turns: str | None = None
    """Of dialogues: the role whose turns the power is of, that with less power."""
    documents_needed: int
    """Compared documents at which a loss of a fifth of the rare words is found with 95 % power."""
    reference_needed: int
    """Documents of the reference for that."""
    longest: int
    """Words of the longest document."""


def prepare_reference(
    sources: Sequence[Path], out: Path, options: ReferenceOptions, *, cache: Path | None, write: bool = True
) -> ReferenceReport:
    """Make the reference and measure its power, then write it to `out`, a Parquet file, if `write`.

    Raises:
        UsageError: if a source cannot be read, or has too little text.
        UserInterrupt: if the user asked to stop; nothing is written then.
    """
    from filters.collapse.text_kinds import CHECKED_TEXTS, TEXT_KINDS, find_kind

    found = [source for path in sources for source in _find_source_files(path)]
    dropped: Counter[str] = Counter()
    read = _read_texts(found, options, dropped)
    first = list(islice(read, CHECKED_TEXTS))
    kind = TEXT_KINDS[options.kind] if options.kind else find_kind(list(_list_kind_samples(first)))
    documents = _split_all(chain(first, read), kind.name, options.split, dropped)
    spell = join_turns if kind.name == DIALOGUE_KIND else str
    kept = _drop_near_repeats(_draw_documents(documents, options, dropped, spell), dropped, spell)
    dropped["not drawn"] += max(0, len(kept) - options.documents)
    kept = kept[: options.documents]
    _check_enough(kept, sources, dropped)
    texts, origins = [text for _, text in kept], [origin for origin, _ in kept]
    turns = _list_text_turns(texts) if kind.name == DIALOGUE_KIND else {}
    record = ReferenceRecord(
        kind=kind.name, source=options.source, files=[path.name for path in found][:100], texts=len(set(origins)),
        documents=len(kept), turns={role: len(spoken) for role, spoken in turns.items()},
        words=sum(len(split_into_words(spell(text))) for text in texts), split=options.split, seed=options.seed,
        read=dropped.pop("read"), dropped={reason: count for reason, count in dropped.items() if count},
        sha256=hash_texts(texts), version=read_version(),
    )  # fmt: skip
    SESSION.print_unless_stopped(
        f"reference: {len(kept):,} documents; measuring how far they differ from each other, up to a minute"
    )
    nulls = cache / NULL_CACHE_FOLDER if cache else None
    role, power = _measure_power(texts, origins, kind, turns, nulls)
    _check_stop()
    if write:
        write_reference(out, texts, origins, record)
    return ReferenceReport(
        out=str(out) if write else None, reference=record, compared=power.documents, loss=power.smallest_loss,
        turns=role, documents_needed=power.documents_needed, reference_needed=power.reference_needed,
        longest=max(map(count_passage_words, map(spell, texts))),
    )  # fmt: skip


def check_reference_file(out: Path, *, replace: bool = False) -> None:
    """Raises UsageError if a reference cannot be written to `out`."""
    if out.suffix != ".parquet":
        raise UsageError(
            f"{out}: must end in .parquet, which also stores kind, source and counts; every command reads it"
        )
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name a file")
    if out.exists() and not replace:
        raise UsageError(f"{out}: exists already; name another file, or replace it with --force")


def _check_enough(kept: Sequence[tuple[str, str]], sources: Sequence[Path], dropped: Mapping[str, int]) -> None:
    if len(kept) >= MIN_DOCUMENTS:
        return
    reasons = _describe_dropped({reason: count for reason, count in dropped.items() if reason != "read"})
    found = f"{format_count(len(kept), 'document')} for a reference{f' (left out: {reasons})' if reasons else ''}"
    raise UsageError(
        f"{', '.join(map(str, sources))}: {found}; {MIN_DOCUMENTS} are needed at least, and 5,000 or more to be of use"
    )


def _measure_power(
    texts: Sequence[str],
    origins: Sequence[str],
    kind: "TextKind",
    turns: Mapping[str, Sequence[str]],
    cache: Path | None,
) -> tuple[str | None, "LossPower"]:
    """The power for a dataset. Of dialogues, that of the role with less of it, and the role."""
    from filters.collapse.power import measure_reference_power
    from filters.collapse.reference_corpus import ReferenceCorpus

    if kind.name != DIALOGUE_KIND:
        real = ReferenceCorpus.from_texts(texts, "", kind, origins)
        return None, measure_reference_power(real, SHOWN_DOCUMENTS, cache=cache)
    corpora = {role: ReferenceCorpus.from_texts(spoken, "", kind) for role, spoken in turns.items()}
    powers = {
        role: measure_reference_power(real, SHOWN_DOCUMENTS, cache=cache)
        for role, real in corpora.items()
        if len(real.corpus) >= MIN_DOCUMENTS
    }
    if not powers:
        raise UsageError(f"the dialogues have fewer than {MIN_DOCUMENTS} turns of a user or an assistant")
    weaker = max(powers, key=lambda role: powers[role].smallest_loss)
    return weaker, powers[weaker]


def _list_kind_samples(sources: Sequence[SourceText]) -> Iterator[str]:
    """Texts whose form shows the kind: of a document its passages, since a long one has a sum or a list of some form."""
    for source in sources:
        if source.is_row or Path(source.origin).suffix in CODE_ENDINGS:
            yield source.text
        else:
            yield from split_into_passages(source.text, PASSAGE_WORDS)


def _check_stop() -> None:
    if SESSION.stop.is_set():
        raise UserInterrupt


# Reading


def _find_source_files(path: Path) -> list[Path]:
    """The files that a source stands for: datasets as `assess` reads them, or documents. A folder without a dataset is searched
    for documents, without hidden files and links.

    Raises:
        UsageError: if there is none.
    """
    if path.is_file() and path.suffix.lower() in (*DOCUMENT_KINDS, *CODE_ENDINGS):
        return [path]
    try:
        return find_dataset_files(path)
    except UsageError as error:
        documents = [file for file in sorted(path.rglob("*")) if _is_document(file, path)] if path.is_dir() else []
        if not documents:
            kinds = ", ".join((*DOCUMENT_KINDS, *CODE_ENDINGS))
            raise UsageError(f"{error}; documents end in {kinds}") from None
        return documents


def _is_document(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return (
        file.suffix.lower() in (*DOCUMENT_KINDS, *CODE_ENDINGS)
        and not hidden
        and not file.is_symlink()
        and file.is_file()
    )


def _read_texts(files: Sequence[Path], options: ReferenceOptions, counts: Counter[str]) -> Iterator[SourceText]:
    """The texts of all files, counted as `read`, and those without a word as `empty`."""
    names = Counter(file.name for file in files)
    for number, file in enumerate(files, 1):
        label = file.name if names[file.name] == 1 else f"{number}/{file.name}"
        is_dataset = bool(find_ending(file))
        texts = _read_rows(file, label, options) if is_dataset else [_read_document(file, label)]
        for source in texts:
            _check_stop()
            counts["read"] += 1
            if counts["read"] % BATCH == 0:
                progress = f"reference: {counts['read']:,} texts read, file {number} of {len(files)}"
                SESSION.show_progress(partial(str, progress))
            if split_into_words(source.text):
                yield source
            else:
                counts["empty"] += 1


def _read_rows(file: Path, label: str, options: ReferenceOptions) -> Iterator[SourceText]:
    def read(row: Mapping[str, Any]) -> str:
        if options.kind == DIALOGUE_KIND and not isinstance(row.get("text"), str):
            return write_dialogue(read_row_conversation(row))
        document = build_row_document(row)
        return document.asked if options.role == "user" else document.text

    for number, text in enumerate(read_all_rows(file, read), 1):
        yield SourceText(f"{label}:{number}", text, is_row=True)


def write_dialogue(conversation: Sequence[Message]) -> str:
    """A conversation as the JSON of its messages, which `filters.collapse.text_kinds.read_turns` reads; without the messages
    beyond its limit of characters.
    """
    from filters.collapse.text_kinds import MAX_CHARACTERS

    turns = [json.dumps({"role": turn.role, "content": turn.content}, ensure_ascii=False) for turn in conversation]
    sizes = accumulate(len(turn) + len(", ") for turn in turns)
    return f"[{', '.join(turn for turn, size in zip(turns, sizes, strict=True) if size < MAX_CHARACTERS)}]"


def join_turns(dialogue: str) -> str:
    """The turns of a dialogue as plain text, for the search of repeats."""
    return "\n".join(turn for spoken in _read_turns(dialogue).values() for turn in spoken)


def _list_text_turns(texts: Sequence[str]) -> dict[str, list[str]]:
    """The turns by role of dialogues, each the JSON of its messages."""
    from filters.collapse.dialogues import list_role_turns

    return list_role_turns(list(map(_read_turns, texts)))


def _read_turns(text: str) -> dict[str, list[str]]:
    from filters.collapse.text_kinds import read_turns

    return read_turns(text)


def _read_document(file: Path, label: str) -> SourceText:
    suffix = file.suffix.lower()
    if suffix in CODE_ENDINGS:
        try:
            text = file.read_text(encoding="utf-8", errors="replace") if file.stat().st_size <= MAX_CODE_BYTES else ""
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
        return SourceText(label, text, is_row=False)
    if DOCUMENT_KINDS[suffix] in ("html", "pdf") and (problem := documents_problem()):
        raise UsageError(f"{file}: {problem}")
    return SourceText(label, read_document_text(file), is_row=False)


MAX_CODE_BYTES = 8 << 20


# Splitting and drawing


def _split_all(
    sources: Iterable[SourceText], kind: str, split: int | None, counts: Counter[str]
) -> Iterator[tuple[str, str]]:
    """Documents with the origin of their text. Parts under the least length are counted as `too short`."""
    for source in sources:
        if kind == DIALOGUE_KIND and not split_into_words(join_turns(source.text)):
            counts["no dialogue"] += 1
            continue
        least = MIN_FUNCTION_WORDS if kind == "code" else MIN_PASSAGE_WORDS
        parts = _split_text(source, kind, split)
        for part in parts:
            if (len(parts) == 1 and source.is_row) or count_passage_words(part) >= least:
                yield source.origin, part
            else:
                counts["too short"] += 1


def _split_text(source: SourceText, kind: str, split: int | None) -> list[str]:
    """The documents of a text. Code is split into its functions: a file always, a row if it is too long. By default, records,
    arithmetic are not split, dialogues never.
    """
    if kind == DIALOGUE_KIND:
        return [source.text]
    most = (MAX_ROW_WORDS if source.is_row else PASSAGE_WORDS) if split is None else split
    if split is None and kind not in SPLIT_KINDS:
        return [source.text]
    is_long = most > 0 and count_passage_words(source.text) > most
    if kind == "code" and (is_long or not source.is_row):
        return split_into_functions(source.text)
    return list(split_into_passages(source.text, split or PASSAGE_WORDS)) if is_long else [source.text]


def _draw_documents(
    documents: Iterable[tuple[str, str]],
    options: ReferenceOptions,
    counts: Counter[str],
    spell: Callable[[str], str] = str,
) -> list[tuple[str, str]]:
    """At most `DRAWN_PER_DOCUMENT` different documents per wanted one, drawn with equal probability and in random order.

    Each text has a random number that depends on its words and the seed. The smallest are kept (bottom-k sampling, Cohen and
    Kaplan 2007), so memory does not grow with the sources, and equal words are found as such. `spell`: a document as plain text.
    """
    most = DRAWN_PER_DOCUMENT * options.documents
    heap: list[int] = []
    chosen: dict[int, tuple[str, str]] = {}
    salt = str(options.seed).encode()
    for batch in _take_batches(documents, BATCH):
        keys = compute_text_keys(spell(text) for _, text in batch)
        for document, key in zip(batch, keys, strict=True):
            number = -int.from_bytes(blake2b(key.tobytes(), digest_size=16, key=salt).digest())
            if number in chosen:
                counts["exact repeats"] += 1
            elif len(heap) < most:
                heapq.heappush(heap, number)
                chosen[number] = document
            else:
                counts["not drawn"] += 1
                largest = heapq.heappushpop(heap, number)
                if largest != number:
                    chosen[number] = document
                    del chosen[largest]
    return [chosen[number] for number in sorted(chosen, reverse=True)]


def _take_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _drop_near_repeats(
    documents: Sequence[tuple[str, str]], counts: Counter[str], spell: Callable[[str], str] = str
) -> list[tuple[str, str]]:
    """Documents that are no near repeats of earlier ones, by the filter `minhash` with its defaults."""
    if not documents:
        return []
    SESSION.print_unless_stopped(f"reference: searching {len(documents):,} documents for near repeats")
    rows = [Document(str(place), spell(text)) for place, (_, text) in enumerate(documents)]
    kept = apply_filters(rows, [MinHashFilter(type="minhash")]).kept
    counts["near repeats"] += len(documents) - len(kept)
    return [documents[int(document.id)] for document in kept]


# Printing


def format_reference_report(report: ReferenceReport, arguments: Sequence[str] = ()) -> str:
    """The output of `stillhouse reference`. `arguments`: those of the same command without `--dry-run`."""
    record = report.reference
    texts = format_count(record.texts, "text")
    turns = " and ".join(format_count(count, f"{role} turn") for role, count in record.turns.items())
    kept = f"{format_count(record.documents, 'document')} of {texts}{f' with {turns}' if turns else ''}"
    lines = [f"kept      {kept}, {record.words:,} words, kind {record.kind}"]
    left_out = _describe_dropped(record.dropped) or "nothing"
    lines.append(f"read      {format_count(record.read, 'text')}; left out: {left_out}")
    lines += [f"source    {replace_unsafe_characters(record.source)}"] * bool(record.source)
    lines.append(f"sha256    {record.sha256}")
    lines.append(f"power     {_describe_power(report)}")
    lines += [f"warning   {sentence}" for sentence in _list_warnings(record)]
    if report.out is None:
        return "\n".join(
            [*lines, "nothing was written", *([format_next_line("reference", *arguments)] if arguments else [])]
        )
    command = format_command("assess", "INPUT", "--reference", report.out)
    return "\n".join([*lines, f"reference {report.out}", f"hint: compare a dataset with it: {command}"])


def _describe_dropped(dropped: Mapping[str, int]) -> str:
    return ", ".join(
        f"{count:,} {reason.removesuffix('s') if count == 1 else reason}" for reason, count in dropped.items() if count
    )


def _describe_power(report: ReferenceReport) -> str:
    few = f" ({report.compared:,} of them compared)" if report.compared < SHOWN_DOCUMENTS else ""
    loss = "no loss" if report.loss > 1 else f"a loss of {100 * report.loss:.0f} %"
    needed = f"a fifth from {report.documents_needed:,} compared documents and {report.reference_needed:,} of the reference on"
    if _has_few_texts(report.reference):
        needed = "the number of texts limits it"
    noun = f"{report.turns} turn" if report.turns else "document"
    shown = format_count(SHOWN_DOCUMENTS, noun)
    return f"with {shown} of a dataset{few}, {loss} of the rare words is found with 95 % power; {needed}"


def _has_few_texts(record: ReferenceRecord) -> bool:
    return record.texts < min(FEW_TEXTS, record.documents)


def _list_warnings(record: ReferenceRecord) -> list[str]:
    """What makes a comparison with this reference weak or wrong."""
    warnings = []
    few = min(record.turns, key=record.turns.__getitem__, default=None)
    noun, count = ("document", record.documents) if few is None else (f"{few} turn", record.turns[few])
    if count < 3 * MIN_CONCLUSIVE_DOCUMENTS:
        warnings.append(
            f"{format_count(count, noun)} are few: a comparison of {MIN_CONCLUSIVE_DOCUMENTS:,} needs "
            f"{3 * MIN_CONCLUSIVE_DOCUMENTS:,}, so a dataset without a sign of collapse is inconclusive"
        )
    if _has_few_texts(record):
        warnings.append(
            f"all passages are of {format_count(record.texts, 'text')}, and those of one text are alike: add more texts"
        )
    return warnings
