"""The collapse assessment of any dataset: against real text or for repetition only, and against its parent; and the spread of a
run's kept samples over what its seeds drew. Knows no Prefect.
"""

import json
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from core.config.recipe import Recipe
from core.errors import UsageError
from core.project_files import find_referenced_file
from core.runs.records import CollapseRecord, CollapseVerdict, ExampleRecord, SamenessRecord, SpreadRecord
from core.runs.run_dir import RunDir
from core.runs.verdict_words import COPY_METRICS, CollapseAssessment
from core.sample import Message, RejectionReason, parse_sample_index
from core.storage.sample_files import read_sample_columns, unflatten_message
from filters.base import Document
from flows.data.reference_files import load_reference, read_reference, read_reference_record
from flows.data.stranger_files import is_synthetic_dataset, read_collapse_choices
from flows.rows.dataset_rows import read_all_rows, read_dataset_documents
from flows.rows.row_forms import build_row_document, read_row_conversation
from flows.rows.row_images import has_row_images
from flows.terminal.run_summary import format_headline, format_metrics
from flows.terminal.suggested_commands import format_next_line
from flows.terminal.text_format import TERMINAL_WIDTH, format_count, replace_unsafe_characters

NULL_CACHE_FOLDER = "nulls"
"""The folder in the runs' cache for null distributions: how far real text differs from itself."""

DIALOGUE_KIND = "dialogue"
"""The kind of data whose turns are assessed by role (`filters.collapse.dialogues`)."""
MAX_READ_SEEDS = 20_000
"""Seeds that are compared; of more, every second, third, and so on."""


def assess_dataset(
    source: Path, reference: str | None, seed: int, *, parent: Path | None, cache: Path | None, kind: str | None = None
) -> CollapseAssessment:
    """Compare a dataset with real text, and the rows that it adds to its parent with the parent. Without a reference, measure its
    repetition. Without a `kind`, that of its run's recipe, or what is found from its rows; with a reference of dialogues, its
    turns are compared. `collapse.structures` of the recipe counts too.

    Raises:
        UsageError: if a dataset cannot be read, or adds no row to its parent, or the kind is unknown.
    """
    from filters.collapse.assessment import assess_texts
    from filters.collapse.dialogues import assess_dialogues
    from filters.collapse.sameness import build_sameness_records
    from filters.collapse.text_kinds import get_kind

    chosen = read_collapse_choices(source)
    kind = kind or chosen.kind or _find_dialogue_kind(source, reference)
    known_kind = get_kind(kind) if kind else None
    documents = list(read_dataset_documents(source))
    texts = [document.text for document in documents]
    turns = _read_dataset_turns(source) if kind == DIALOGUE_KIND else []
    generated = is_synthetic_dataset(source)
    if reference is None:
        collapse = _assess_documents(documents, seed, kind, few_structures=chosen.few_structures)
    else:
        collapse = assess_answers(
            texts, reference, Path.cwd(), seed, cache, generated=generated, kind=kind, turns=turns, documents=documents,
            few_structures=chosen.few_structures,
        )  # fmt: skip
    collapse.sameness = build_sameness_records(documents, seed=seed)
    collapse.generated = generated
    if parent is None:
        return CollapseAssessment(collapse=collapse)
    earlier = [document.text for document in read_dataset_documents(parent)]
    known = set(earlier)
    places = [place for place, text in enumerate(texts) if text not in known]
    if not places:
        raise UsageError(
            f"{source}: has no row that {parent} lacks, so there is nothing to compare; leave out --parent"
        )
    how: dict[str, Any] = {
        "name": str(parent), "seed": seed, "cache": cache / NULL_CACHE_FOLDER if cache else None, "generated": generated,
    }  # fmt: skip
    if turns:
        comparison = assess_dialogues([turns[place] for place in places], _read_dataset_turns(parent), **how)
    else:
        comparison = assess_texts([texts[place] for place in places], earlier, kind=known_kind, **how)
    return CollapseAssessment(collapse=collapse, parent=comparison)


def assess_conversations(
    conversations: Sequence[Sequence[dict[str, Any]]],
    seed: int,
    kind: str | None = None,
    seeds: Sequence[Mapping[str, Any]] = (),
    *,
    few_structures: bool = False,
) -> CollapseRecord:
    """Measure repetition within the conversations of a run, each as its messages on disk. `seeds`: of the conversations.
    `few_structures`: as of `assess_repetition`.
    """
    documents = [build_row_document({"messages": messages}) for messages in conversations]
    return _assess_documents(documents, seed, kind, seeds, few_structures=few_structures)


def _assess_documents(
    documents: Sequence[Document],
    seed: int,
    kind: str | None,
    seeds: Sequence[Mapping[str, Any]] = (),
    *,
    few_structures: bool = False,
) -> CollapseRecord:
    from filters.collapse.dialogues import assess_dialogue_repetition
    from filters.collapse.repetition import assess_repetition
    from filters.collapse.text_kinds import get_kind

    if kind == DIALOGUE_KIND:
        return assess_dialogue_repetition(documents, seed=seed, seeds=seeds, few_structures=few_structures)
    known_kind = get_kind(kind) if kind else None
    return assess_repetition(documents, seed=seed, kind=known_kind, seeds=seeds, few_structures=few_structures)


def list_conversation_turns(conversations: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, list[str]]]:
    """The turns by role of each conversation of a run, as its messages on disk."""
    return _list_turns([[unflatten_message(flat) for flat in messages] for messages in conversations])


def _list_turns(conversations: Sequence[Sequence[Message]]) -> list[dict[str, list[str]]]:
    found = []
    for conversation in conversations:
        turns: dict[str, list[str]] = {}
        for message in conversation:
            turns.setdefault(message.role, []).append(message.content)
        found.append(turns)
    return found


def compare_with_earlier_releases(
    record: CollapseRecord,
    conversations: Sequence[Sequence[dict[str, Any]]],
    earlier: Sequence[Sequence[dict[str, Any]]],
    parent: str,
    seed: int,
    cache: Path,
    kind: str | None = None,
) -> CollapseRecord | None:
    """Compare the samples of a run without a reference with those of the earlier releases, up to `parent`, each as its messages
    on disk; of dialogues, their turns by role. A collapse or a shift becomes the verdict of `record`, the run's repetition, if
    that is better. None if there are too few samples.
    """
    from filters.collapse.assessment import assess_texts
    from filters.collapse.dialogues import assess_dialogues
    from filters.collapse.text_kinds import get_kind

    how: dict[str, Any] = {"name": parent, "seed": seed, "cache": cache / NULL_CACHE_FOLDER}
    if kind == DIALOGUE_KIND:
        comparison = assess_dialogues(list_conversation_turns(conversations), list_conversation_turns(earlier), **how)
    else:
        own, released = (
            [build_row_document({"messages": messages}).text for messages in side] for side in (conversations, earlier)
        )
        comparison = assess_texts(own, released, kind=get_kind(kind) if kind else None, **how)
    if not comparison.documents:
        return None
    record.parent = parent
    if comparison.verdict in (CollapseVerdict.collapse, CollapseVerdict.shift):
        record.verdict = CollapseAssessment(collapse=record.model_copy(), parent=comparison).verdict
        if record.verdict is comparison.verdict:
            record.evidence = [*record.evidence, *(f"compared with {parent}: {found}" for found in comparison.evidence)]
            record.findings = record.findings | comparison.findings
            record.examples = [*record.examples, *comparison.examples]
    return comparison


def measure_conversation_sameness(conversations: Sequence[Sequence[dict[str, Any]]], seed: int) -> list[SamenessRecord]:
    """How alike the questions and the answers of a run are, each conversation as its messages on disk."""
    from filters.collapse.sameness import build_sameness_records

    return build_sameness_records([build_row_document({"messages": messages}) for messages in conversations], seed=seed)


def assess_answers(
    answers: Sequence[str],
    reference: str,
    folder: Path,
    seed: int,
    cache: Path | None = None,
    before: Sequence[CollapseRecord] = (),
    *,
    generated: bool = True,
    kind: str | None = None,
    turns: Sequence[Mapping[str, Sequence[str]]] = (),
    documents: Sequence[Document] = (),
    seeds: Sequence[Mapping[str, Any]] = (),
    few_structures: bool = False,
) -> CollapseRecord:
    """Compare `answers` with the reference, a name or a file: metrics and verdict. Its null distribution is kept in `cache`.
    `before` are the comparisons of the generations that the answers build on, oldest first. `generated`: whether a teacher is
    known to have written the answers. `kind`: of both sides; without it, it is found from the texts. Of dialogues, `turns` are
    compared. With a named reference, a collapse also is repetition within the `documents` of the answers; `seeds` are theirs,
    and `few_structures` is as of `assess_repetition`.

    Raises:
        UsageError: if the reference cannot be read, or the kind is unknown.
    """
    from filters.collapse.assessment import assess_texts
    from filters.collapse.dialogues import assess_dialogues
    from filters.collapse.text_kinds import find_kind, get_kind, read_turns

    nulls = cache / NULL_CACHE_FOLDER if cache else None
    counted = get_kind(kind) if kind else find_kind(answers)
    if counted.name == DIALOGUE_KIND:
        turns = turns or list(map(read_turns, answers))
        path = find_referenced_file(reference, folder)
        return assess_dialogues(
            turns,
            _read_reference_turns(path),
            name=reference,
            seed=seed,
            cache=nulls,
            before=before,
            generated=generated,
        )
    real = load_reference(reference, folder, cache)
    record = assess_texts(
        answers, real.texts, name=real.name, seed=seed, cache=nulls, before=before, generated=generated,
        kind=counted, origins=real.origins, general=real.general,
    )  # fmt: skip
    if real.general:
        repetition = _assess_documents(documents, seed, counted.name, seeds, few_structures=few_structures)
        if repetition.verdict is CollapseVerdict.collapse:
            record.verdict = CollapseVerdict.collapse
            record.evidence = [*repetition.evidence, *record.evidence]
            record.findings = repetition.findings | record.findings
            record.examples = repetition.examples
            names = set().union(*repetition.findings.values()) - {metric.name for metric in record.metrics}
            record.metrics += [metric for metric in repetition.metrics if metric.name in names]
    return record


def _find_dialogue_kind(source: Path, reference: str | None) -> str | None:
    """`DIALOGUE_KIND` for conversations that are compared with a file that `stillhouse reference` made of dialogues."""
    path = Path(reference) if reference else None
    record = read_reference_record(path) if path and path.is_file() else None
    if record is None or record.kind != DIALOGUE_KIND:
        return None
    return DIALOGUE_KIND if any("assistant" in turns for turns in _read_dataset_turns(source)) else None


def _read_reference_turns(path: Path) -> list[dict[str, list[str]]]:
    from filters.collapse.text_kinds import read_turns

    if path.is_file() and read_reference_record(path):
        return [read_turns(text) or {"": [text]} for text in read_reference(path).texts]
    return _read_dataset_turns(path)


def _read_dataset_turns(source: Path) -> list[dict[str, list[str]]]:
    return list(read_all_rows(source, _read_row_turns))


def _read_row_turns(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """The turns by role of a row; other text than a dialogue's messages is one turn without a role."""
    from filters.collapse.text_kinds import read_turns

    text = row.get("text")
    if isinstance(text, str):
        return read_turns(text) or {"": [text]}
    return _list_turns([read_row_conversation(row)])[0]


def measure_run_spread(run: RunDir, recipe: Recipe, kept: Collection[str]) -> SpreadRecord | None:
    """The spread of the samples with the ids `kept` over the seeds of all finished samples. A seed is kept if any of its samples
    is: samples of one seed are no independent draws. Samples that only the goal of the recipe left over do not count.
    """
    from filters.collapse.seed_spread import TriedSeed, measure_spread

    ids, surplus = set(kept), _read_surplus(run)
    every = max(1, -(-recipe.samples // recipe.answers_per_seed // MAX_READ_SEEDS))
    tried: dict[int, TriedSeed] = {}
    for index in run.shards():
        rows = read_sample_columns(run.shard_file(index), ("id", "seed"))
        for name, seed in rows.iter_rows():
            number = parse_sample_index(name) // recipe.answers_per_seed
            if number % every or name in surplus:
                continue
            if number not in tried:
                tried[number] = TriedSeed(json.loads(seed)["data"], kept=False)
            if name in ids:
                tried[number] = tried[number]._replace(kept=True)
    return measure_spread(list(tried.values()), recipe.quotas.by if recipe.quotas else None)


def read_kept_seeds(run: RunDir, kept: Sequence[str]) -> list[dict[str, Any]]:
    """What was drawn for each of the samples with the ids `kept`, in their order."""
    wanted, drawn = set(kept), dict[str, dict[str, Any]]()
    for index in run.shards():
        rows = read_sample_columns(run.shard_file(index), ("id", "seed"))
        drawn |= {name: json.loads(seed)["data"] for name, seed in rows.iter_rows() if name in wanted}
    return [drawn.get(name, {}) for name in kept]


def _read_surplus(run: RunDir) -> set[str]:
    """The ids of samples that passed everything when the recipe had enough."""
    surplus: set[str] = set()
    for index in run.shards():
        if (path := run.dropped_file(index)).exists():
            rows = read_sample_columns(path, ("id", "reason"))
            surplus.update(rows.filter(rows["reason"] == RejectionReason.surplus.value)["id"])
    return surplus


def format_assessment(assessment: CollapseAssessment) -> list[str]:
    """The output of `assess`: the headline; what each comparison means, with its evidence; what may help; every number."""
    records = [record for record in (assessment.collapse, assessment.parent) if record]
    lines = [format_headline(assessment.worse)]
    for record in records:
        lines += ["", *([format_headline(record)] if assessment.parent else [])]
        lines += textwrap.wrap(replace_unsafe_characters(record.paragraph), TERMINAL_WIDTH)
        lines += _format_bullets([*record.evidence, *map(_format_example, record.examples)])
    if advice := assessment.advice:
        lines += ["", "what may help", *_format_bullets(one.text for one in advice)]
    for record in records:
        compared = f"compared with {replace_unsafe_characters(record.reference)}" if record.reference else "repetition"
        lines += ["", f"every number, {compared}", *format_metrics(record)] if record.metrics or record.sameness else []
    return lines


def _format_example(example: ExampleRecord) -> str:
    return f"“{example.text}” in {format_count(example.count, 'document')}"


def suggest_after_assessment(
    source: Path, assessment: CollapseAssessment, arguments: Sequence[str], *, has_page: bool
) -> str | None:
    """The line after the output of `assess`: drop repeated rows if there are too many, else write the page. `arguments` are
    those of `assess`. If most rows have images, equal texts may be about different ones.
    """
    copies = any(_has_copies(record) for record in (assessment.collapse, assessment.parent) if record)
    if copies and not _has_mostly_images(source):
        out = _find_free_name(f"{source.stem}-filtered")
        return format_next_line("filter", str(source), "--out", out, "--filters", "exact,minhash")
    if has_page:
        return None
    return format_next_line("assess", *arguments, "--out", _find_free_name(f"{source.stem}-assessment", ".html"))


def _has_mostly_images(source: Path) -> bool:
    pictured = list(read_all_rows(source, has_row_images))
    return 2 * sum(pictured) > len(pictured)


def _has_copies(record: CollapseRecord) -> bool:
    """Whether dropping repeated rows is advised, and a metric of copies is over its limit."""
    copied = any(metric.name in COPY_METRICS and metric.candidate > metric.high for metric in record.metrics)
    return copied and any(advice.cause == "copies" for advice in record.advice)


def _find_free_name(stem: str, suffix: str = "") -> str:
    """A name that no file in the working folder has."""
    names = chain([f"{stem}{suffix}"], (f"{stem}-{number}{suffix}" for number in count(2)))
    return next(name for name in names if not Path(name).exists())


def _format_bullets(sentences: Iterable[str]) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            replace_unsafe_characters(sentence), TERMINAL_WIDTH, initial_indent="  - ", subsequent_indent="    "
        )
    ]
