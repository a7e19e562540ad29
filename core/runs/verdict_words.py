"""A collapse verdict in words: one line, one paragraph, and advice by cause; and the records that have them. Decides nothing."""

import math
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, computed_field

from core.runs.collapse_facts import (
    MIN_CONCLUSIVE_DOCUMENTS,
    MIN_REPETITION_DOCUMENTS,
    Z_LIMIT,
    CollapseFacts,
    CollapseVerdict,
)

TEMPLATES = Path(__file__).with_name("templates")
COPY_METRICS = ("exact_duplicates", "repeated_answers", "copied_documents", "duplicate_8grams")
"""The metrics of repetition that dropping repeated rows lowers."""
WORDS = tomllib.loads((TEMPLATES / "verdict_words.toml").read_text(encoding="utf-8"))
ADVICE: dict[str, str] = WORDS["advice"]
REPETITION_WORDS: dict[str, str] = WORDS["repetition"]


class CollapseFinding(NamedTuple):
    """Words for a finding, and whether it is a collapse."""

    sentence: str
    words: str
    is_collapse: bool = False


COLLAPSE_FINDINGS = {name: CollapseFinding(**words) for name, words in WORDS["findings"].items()}
BEGINNING_METRICS = ("openers", "templates")
HEADLINE_WIDTH = 88
"""Columns of a headline on a card of 100 columns: longer names of references are shortened."""
MIN_NAME_WIDTH = 18
"""Characters of a reference's name that a headline has at least."""
MAX_SUFFIX = 9
"""The longest suffix of a file's name that is kept when the name is shortened: `.jsonl.gz`."""
REFERENCE_PARTS = 3
"""Documents of the reference per compared document: two samples, and one for the variation of real text."""
RECOMMENDED_FACTOR = 4
"""With this times the needed documents, a slow loss of words shows at the first generation (docs/collapse.md)."""


class Advice(BaseModel):
    """What may help against one cause."""

    model_config = ConfigDict(frozen=True)

    cause: str
    """A key of `ADVICE`."""
    text: str


def format_count(count: int, noun: str) -> str:
    """A number with its noun, which has an s unless the number is 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def has_collapse(findings: Iterable[str]) -> bool:
    """Whether one of these findings is a collapse. One that only a later version knows is none."""
    return any(COLLAPSE_FINDINGS[name].is_collapse for name in findings if name in COLLAPSE_FINDINGS)


# One line


def _write_headline(record: CollapseFacts) -> str:
    """The verdict, what was compared, and the main finding: one line without a full stop."""
    if not _is_measured(record):
        compared = (
            f"compared with {_shorten_name(record.reference, MIN_NAME_WIDTH)}" if record.reference else "measured"
        )
        return f"{record.verdict}, nothing {compared}: {record.evidence[0] if record.evidence else 'too few documents'}"
    parts = [_count_compared(record)]
    parts += [f"as {record.kind}"] if record.kind != "prose" and not record.turns else []
    names = [name for name in (record.reference, record.parent) if name]
    end = ("" if record.reference else ", no reference") + f"; {_write_main_finding(record)}"
    taken = len(f"{record.verdict}, {' '.join(parts)}{end}") + len(" vs ") * len(names)
    width = max(MIN_NAME_WIDTH, (HEADLINE_WIDTH - taken) // max(len(names), 1))
    return f"{record.verdict}, {' '.join([*parts, *(f'vs {_shorten_name(name, width)}' for name in names)])}{end}"


def _is_measured(record: CollapseFacts) -> bool:
    return bool(record.metrics) and record.documents > 0


def _count_compared(record: CollapseFacts) -> str:
    if record.verdict == "inconclusive":
        return f"{record.documents:,} of about {format_count(_find_needed(record), _name_document(record))}"
    return format_count(record.documents, _name_document(record))


def _name_document(record: CollapseFacts) -> str:
    return f"{record.turns} turn" if record.turns else "document"


def _find_needed(record: CollapseFacts) -> int:
    return record.needed or (MIN_CONCLUSIVE_DOCUMENTS if record.reference else MIN_REPETITION_DOCUMENTS)


def _shorten_name(name: str, width: int) -> str:
    """The file's name of a path; recipe and generation of a release. A name that is longer than `width` is cut after a word and
    keeps its suffix or generation.
    """
    path = PurePath(name)
    is_numbered = path.name.isdecimal() and bool(path.parent.name)
    shown = path.name if path.suffix or len(path.parts) > 2 else name
    if is_numbered:
        shown = f"{path.parent.name}/{path.name}"
    if len(shown) > width:
        shown = shown.replace("standard-library", "stdlib")  # of a named reference
    if len(shown) <= width:
        return shown
    suffix = f"/{path.name}" if is_numbered else "".join(path.suffixes[-2:])
    suffix = suffix if len(suffix) <= MAX_SUFFIX else ""
    head = shown[: width - len(suffix) - 1]
    words = re.sub(r"[\W_]+[^\W_]*$", "", head)
    return f"{words if len(words) >= width / 3 else head}…{suffix}"


def _write_main_finding(record: CollapseFacts) -> str:
    found = list(_list_finding_words(record))
    if found:
        return found[0]
    if record.verdict == "inconclusive":
        return "no repetition found"
    if record.verdict == "no repetition":
        return f"rare words {'were not measured' if _judges_structure(record) else 'and structure were not judged'}"
    return "no difference beyond chance" if record.verdict == "pass" else "see the evidence"


def _list_finding_words(record: CollapseFacts) -> list[str]:
    """The findings in plain words, the gravest first."""
    words: list[str] = []
    findings = record.findings
    grave = {name: metrics for name, metrics in findings.items() if has_collapse([name])}
    for name, metrics in (grave or findings).items():
        if name == "repetition":
            words += _list_repetition_words(record, metrics)
        else:
            words.append(COLLAPSE_FINDINGS[name].words if name in COLLAPSE_FINDINGS else name)
    compared = "the reference" if record.reference else "the earlier releases"
    named = [sentence.replace("words", f"{record.unit}s").replace("the reference", compared) for sentence in words]
    return [sentence.replace("documents", f"{_name_document(record)}s") for sentence in named]


def _list_repetition_words(record: CollapseFacts, names: Sequence[str]) -> list[str]:
    """Repetition in plain words, copies first. Beginnings are quoted."""
    values = {metric.name: metric.candidate for metric in record.metrics}
    words = [
        sentence.format(share=_format_share(values.get(name, 0.0)))
        for name, sentence in REPETITION_WORDS.items()
        if name in names and name not in BEGINNING_METRICS
    ]
    phrases = [
        phrase
        for name, shown in (("openers", record.openers), ("templates", record.templates))
        if name in names
        for phrase in shown[:1]
    ]
    words += [f"{_format_share(phrase.candidate)} of the documents begin “{phrase.text}”" for phrase in phrases[:1]]
    if not phrases and any(name in names for name in BEGINNING_METRICS):
        words.append(REPETITION_WORDS["openers"])
    return words or [COLLAPSE_FINDINGS["repetition"].words]


def _format_share(share: float) -> str:
    """A whole percentage, which is 0 or 100 only if the share is exactly 0 or 1."""
    whole = round(100 * share)
    return f"{min(max(whole, 1), 99) if 0 < share < 1 else whole} %"


# One paragraph


@cache
def _load_template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("verdict.txt").module


def _write_paragraph(record: CollapseFacts) -> str:
    """What was compared, what the verdict means for the user, and what it leaves open, without names of metrics."""
    size = _find_dataset_size(record)
    facts = {
        "measured": _is_measured(record),
        "compared": format_count(record.documents, _name_document(record)),
        "size": size,
        "sampled": size > record.documents,
        "found": "; ".join(_list_finding_words(record)),
        "needed": f"{_find_needed(record):,}",
        "foreign": _is_foreign(record),
        "hides_losses": _is_foreign(record) or not record.findings.keys().isdisjoint(("steady", "uncertain")),
        "judges_structure": _judges_structure(record),
        "most": _list_largest_shares(record),
        "share": _format_share,
    }
    return " ".join(str(_load_template().paragraph(record, facts)).split())


def _is_foreign(record: CollapseFacts) -> bool:
    """Whether the text is another kind or has many words that the reference lacks: then no loss of rare words is called a
    collapse.
    """
    findings = record.findings
    return "other_kind" in findings or "new_words" in findings.get("topics", [])


def _list_largest_shares(record: CollapseFacts) -> list[tuple[str, str]]:
    """The largest shares that the intervals allow."""
    highest = {metric.name: metric.interval[1] for metric in record.metrics if metric.interval}
    words = {
        "exact_duplicates": f"of the {_name_document(record)}s repeat another",
        "copied_documents": "are near copies",
        "openers": "begin alike",
    }
    if not record.reference and _judges_structure(record):
        words["templates"] = "have one structure"
    return [
        (_format_share(math.sqrt(highest[name]) if name in BEGINNING_METRICS else highest[name]), what)
        for name, what in words.items()
        if name in highest
    ]


def _judges_structure(record: CollapseFacts) -> bool:
    """False if structures are shown only. Files of versions that measured none have no such metric."""
    return bool(record.reference) or all(metric.family for metric in record.metrics if metric.name == "templates")


# Advice by cause


def _list_advice(record: CollapseFacts) -> list[Advice]:
    """What may help, by cause."""
    uneven = record.spread.uneven if record.spread else []
    facts = {
        "dataset": format_count(_find_dataset_size(record), _name_document(record)),
        "unit": record.unit,
        "kind": record.kind,
        "needed": f"{_find_needed(record):,}",
        "better": f"; better {RECOMMENDED_FACTOR * _find_needed(record):,}" if record.reference else "",
        "reference": record.reference,
        "real": format_count(record.reference_documents or 0, _name_document(record)),
        "shared": f", {record.shared_documents:,} of them also in the dataset" if record.shared_documents else "",
        "wanted": f"{_find_wanted_reference(record):,}",
        "uneven": ", ".join(f"{attribute.name} `{attribute.value}`" for attribute in uneven),
    }
    causes = [*_find_causes(record), *(["uneven_spread"] if uneven else [])]
    return [Advice(cause=cause, text=ADVICE[cause].format_map(facts)) for cause in dict.fromkeys(causes)]


def _find_dataset_size(record: CollapseFacts) -> int:
    return record.documents if record.dataset_documents is None else record.dataset_documents


def _find_wanted_reference(record: CollapseFacts) -> int:
    """Documents of the reference to compare enough: their number grows with the reference if its topics have the same shares."""
    others, needed = (record.reference_documents or 0) - record.shared_documents, _find_needed(record)
    grown = math.ceil(others * needed / record.documents / 100) * 100 if record.documents else 0
    return max(REFERENCE_PARTS * needed, grown)


def _find_causes(record: CollapseFacts) -> list[str]:
    """The causes of a verdict, keys of `ADVICE`, in the order of the advice."""
    if record.verdict == "pass":
        return []
    if record.verdict == "no repetition":
        return ["no_reference"]
    if record.verdict == "shift":
        return ["other_genre" if _is_other_genre(record) else "other_topics"]
    if record.verdict == "inconclusive":
        return _find_shortages(record)
    return _find_collapse_causes(record)


def _find_shortages(record: CollapseFacts) -> list[str]:
    """Which side is too small for a verdict, or of another kind."""
    if record.reference_kind:
        return ["reference_of_other_kind"]
    needed, small = _find_needed(record), record.dataset_documents is None
    causes = ["few_samples"] if small or _find_dataset_size(record) < needed else []
    if record.reference_documents is not None:
        others = record.reference_documents - record.shared_documents
        causes += ["small_reference"] if others < REFERENCE_PARTS * needed or not causes else []
    return [*causes, *(["other_genre"] if _is_other_genre(record) else [])]


def _find_collapse_causes(record: CollapseFacts) -> list[str]:
    findings = record.findings
    repeated = set(findings.get("repetition", ()))
    other = record.reference is not None and (not record.generated or _is_other_genre(record))
    causes = ["other_genre"] if other else []
    causes += ["copies"] if repeated.intersection(COPY_METRICS) else []
    if not record.generated:
        return [*causes, "unknown_writer"]
    causes += ["lost_words"] if "tail" in findings or not findings else []
    causes += ["invented_words"] if "strange" in findings else []
    cautious = "likely" in findings or repeated - {*COPY_METRICS, *BEGINNING_METRICS} or _is_too_typical(record)
    causes += ["cautious_decoding"] if cautious or not findings else []
    few = (
        repeated.intersection((*BEGINNING_METRICS, "repeated_4grams", "distinct_4"))
        or not findings.keys().isdisjoint(("tail", "structure"))
        or not findings
    )
    causes += ["few_seeds"] if few or "copies" in causes else []
    return [*causes, *(["wanted_structures"] if "structure" in findings else [])]


def _is_other_genre(record: CollapseFacts) -> bool:
    """Whether the dataset is text of another kind, or has many words that the reference lacks and more rare words than it: no
    collapse makes either.
    """
    if "other_kind" in record.findings:
        return True
    metrics = {metric.name: metric for metric in record.metrics}
    new, rare = metrics.get("new_words"), metrics.get("hapax_mass")
    return bool(new and rare and new.z is not None and new.z >= Z_LIMIT and rare.candidate > rare.high)


def _is_too_typical(record: CollapseFacts) -> bool:
    """Whether more documents than in real text are likely ones."""
    return any(metric.name == "typical" and metric.candidate > metric.high for metric in record.metrics)


# The record with its words


class CollapseRecord(CollapseFacts):
    """The facts with their words, which are computed from them in files of all versions."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def headline(self) -> str:
        """The verdict, what was compared and the main finding: one line without a full stop."""
        return _write_headline(self)

    @property
    def line(self) -> str:
        """The headline after its subject, for a line that has no label: "collapse: inconclusive, …"; "collapse: found, …"."""
        return f"collapse: {'found' if self.verdict == 'collapse' else self.verdict}{self.headline.removeprefix(self.verdict)}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def paragraph(self) -> str:
        """What the verdict means, without names of metrics."""
        return _write_paragraph(self)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def advice(self) -> list[Advice]:
        """What may help, by cause."""
        return _list_advice(self)


class CollapseAssessment(BaseModel):
    """A dataset compared with real text, or assessed for repetition only, and compared with its parent."""

    model_config = ConfigDict(frozen=True)

    collapse: CollapseRecord
    parent: CollapseRecord | None = None

    @property
    def verdict(self) -> CollapseVerdict:
        """The graver of the two verdicts, in the order of `CollapseVerdict`."""
        verdicts = {record.verdict for record in (self.collapse, self.parent) if record}
        return next(verdict for verdict in CollapseVerdict if verdict in verdicts)

    @property
    def worse(self) -> CollapseRecord:
        """The comparison that has the verdict."""
        return self.parent if self.parent and self.collapse.verdict is not self.verdict else self.collapse

    @property
    def advice(self) -> list[Advice]:
        """What may help, from the comparisons that have the verdict."""
        records = [record for record in (self.collapse, self.parent) if record and record.verdict is self.verdict]
        return list(dict.fromkeys(advice for record in records for advice in record.advice))

    @property
    def collapse_reasons(self) -> list[str]:
        """The evidence of collapse, a sentence each."""
        records = [
            record for record in (self.collapse, self.parent) if record and record.verdict is CollapseVerdict.collapse
        ]
        return [
            f"compared with {record.reference}: {sentence}" if record.reference else sentence
            for record in records
            for sentence in record.evidence
        ]
