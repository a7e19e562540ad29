"""The tables of the collapse gate, from existing trials: false alarms, power, changes that must pass, order, cost."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.collapse.corpora import CORPUS_READERS
from benchmarks.collapse.generators import REGIMES
from benchmarks.collapse.plot import draw_lines
from benchmarks.collapse.trials import KINDS, run_trials
from benchmarks.machine import describe_measurement
from core.intervals import wilson_bound
from core.project_files import PROJECT
from core.runs.collapse_facts import Z_LIMIT
from core.runs.records import CollapseVerdict
from core.storage.atomic_files import write_text
from filters.collapse.collapse_verdict import (
    MIN_CHANGES,
    MIN_LOSS,
    MIN_STRANGE_SHARE,
    TAIL_LIMIT,
    MetricEvidence,
    decide_collapse,
)
from filters.collapse.tail_trend import fit_tail_trend

Row = dict[str, Any]

FOLDER = Path(os.environ.get("STILLHOUSE_CORPORA", "data/runs/.collapse"))
UPPER = 1.645
"""The normal deviate with 95 % below it."""
PLOT = PROJECT / "docs" / "collapse.svg"
WORDS = {
    "filtered": "half kept by likelihood", "truncated": "truncated (nucleus .9)", "replace": "replace",
    "anchor10": "replace, 10 % real", "anchor30": "replace, 30 % real", "accumulate": "accumulate",
    "verified": "accumulate, verified",
}  # fmt: skip


def table() -> str:
    """False alarms and power of all trials in FOLDER, after the missing ones were run."""
    rows = run_missing_trials()
    write_text(PLOT, draw_tail_plot(rows))
    return format_page(rows)


def table_of_sizes() -> str:
    return format_sizes_page(run_missing_trials())


def table_of_generations() -> str:
    return format_generations_page(run_missing_trials())


def run_missing_trials() -> list[Row]:
    run_trials(list(CORPUS_READERS), list(KINDS), FOLDER)
    return read_trials(FOLDER)


def draw_tail_plot(rows: list[Row]) -> str:
    lines = {words: [mean_tail(rows, regime, g) for g in (1, 2, 3, 4)] for regime, words in WORDS.items()}
    return draw_lines(lines, "Loss of rare words, in deviations of real text (2,000 documents)", Z_LIMIT)


def read_trials(folder: Path) -> list[Row]:
    files = sorted((folder / "trials").glob("*.jsonl"))
    return [
        {"file": file.stem.split("-", 1)[1], **json.loads(line)}
        for file in files
        for line in file.read_text().splitlines()
    ]


def judge_rows(rows: list[Row]) -> list[Row]:
    return [{**row, "verdict": decide_row(row)} for row in rows if "documents" in row]


def format_page(rows: list[Row]) -> str:
    judged = judge_rows(rows)
    parts = [
        f"{describe_measurement()}; numpy {version('numpy')}. "
        "Command: `STILLHOUSE_CORPORA=FOLDER python -m benchmarks collapse`.",
        INTRODUCTION,
        "### False alarms", format_false_alarms(judged),
        "### Limits", format_limits(judged),
        "### Power", format_power(judged),
        "### What must not be called collapse, and what must", format_changes(judged),
    ]  # fmt: skip
    return "\n\n".join(parts)


def format_sizes_page(rows: list[Row]) -> str:
    judged = judge_rows(rows)
    parts = [
        SAME_TRIALS,
        "### Small references", format_small(judged),
        "### Sizes of reference and candidate", format_sizes(judged),
    ]  # fmt: skip
    return "\n\n".join(parts)


def format_generations_page(rows: list[Row]) -> str:
    judged = judge_rows(rows)
    parts = [
        SAME_TRIALS,
        "### Over generations", format_generations(judged),
        "### With the generations before it", format_lineage(judged),
        "### Text of another kind as the reference", format_other_kinds(judged),
        "### What the usual numbers say", format_diversity(rows),
        "### Cost", format_cost(rows),
    ]  # fmt: skip
    return "\n\n".join(parts)


INTRODUCTION = """Eight corpora of real English (verses, package descriptions, political prose, dictionary entries, documentation
of a kernel and of a database, glosses, reviews), each shuffled once: 10,000 documents train a Kneser-Ney 4-gram, generations of
10,000 are written by it in seven ways, and the reference is the rest, 10,000 to 30,000 documents that no generator saw. Verdicts
are by the limits in `filters/collapse/collapse_verdict.py`, the same for all."""
SAME_TRIALS = "Corpora, writers and limits are those of [the collapse gate](collapse.md#the-collapse-gate)."


def build_evidence(row: Row) -> MetricEvidence:
    return MetricEvidence(
        row["z"], row["change"], row["real"], row["topics"], row["documents"], row.get("loss_deviation", 0.0)
    )


def decide_row(row: Row) -> CollapseVerdict:
    return decide_collapse(build_evidence(row)).verdict if row["documents"] else CollapseVerdict.inconclusive


def format_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def format_share(
    rows: list[Row], wanted: Callable[[Row], bool] = lambda row: row["verdict"] is CollapseVerdict.collapse
) -> str:
    return f"{sum(map(wanted, rows))} of {len(rows)}" if rows else "–"


def format_shares_by_corpus(rows: list[Row]) -> list[str]:
    return [format_share([row for row in rows if row["corpus"] == name]) for name in CORPUS_READERS]


def has_findings(row: Row) -> bool:
    """Whether there is any finding, at any size: an inconclusive trial may still have findings."""
    return bool(decide_collapse(build_evidence(row)).reasons)


def format_false_alarms(rows: list[Row]) -> str:
    real = [row for row in rows if row["kind"] == "real"]
    lines = []
    for size in sorted({row["size"] for row in real}):
        selected = [row for row in real if row["size"] == size]
        lines.append((f"{size:,}", len(selected), *_count_alarms(selected)))
    lines.append(("all", len(real), *_count_alarms(real)))
    head = ["documents", "pairs", "collapse", "anything at all", "upper end, 95 %"]
    text = (
        "Real against real, from one corpus: the reference and the candidate share no document. The upper end is Wilson's, "
        "of any finding; pairs of the same split share their reference."
    )
    return f"{text}\n\n{format_table(head, lines)}"


def _count_alarms(rows: list[Row]) -> tuple[int, int, str]:
    collapse = sum(row["verdict"] is CollapseVerdict.collapse for row in rows)
    anything = sum(map(has_findings, rows))
    return collapse, anything, f"{100 * wilson_bound(anything, len(rows), UPPER):.2f} %"


LIMITS = {
    "tail": (
        f"`hapax_mass` at {TAIL_LIMIT} deviations, or with `tail_coverage` at {Z_LIMIT:.0f}, and {MIN_LOSS} of both lost; or "
        f"fewer own and fewer new words, each at {Z_LIMIT:.0f}",
        "Student's t with 60 comparisons, one in a thousand; the share: text of models of these corpora",
    ),
    "repetition": (
        f"a REPEAT metric at {Z_LIMIT:.0f} deviations and its least change",
        "Student's t; the change: differences between corpora",
    ),
    "likely": (
        f"`surprise` {Z_LIMIT:.0f} deviations and {MIN_CHANGES['surprise']} nats low",
        "Student's t; the change: nucleus .9 lowers it by more",
    ),
    "strange": (
        f"`strange_words` up at {Z_LIMIT:.0f} deviations and {MIN_STRANGE_SHARE} of the new words, `tail_coverage` down",
        "Student's t; the share: other corpora bring 0.07 to 0.76",
    ),
    "topics": (f"topics or `new_words` at {Z_LIMIT:.0f} deviations (a shift)", "Wilks 1938; Student's t"),
    "unlike": (
        f"`surprise`, `unlikely`, `reverse_surprise` or `tail_coverage` for the worse at {Z_LIMIT:.0f} deviations (a shift)",
        "Student's t",
    ),
}
"""By finding: its limits, and where they are from."""


def format_limits(rows: list[Row]) -> str:
    """Each limit with its source and its false alarms among all real pairs of all sizes."""
    real = [row for row in rows if row["kind"] in ("real", "small_real", "sizes_real") and row["documents"]]
    reasons = [decide_collapse(build_evidence(row)).reasons for row in real]
    lines = []
    for finding, (limit, source) in LIMITS.items():
        alarms = sum(finding in found for found in reasons)
        upper = 100 * wilson_bound(alarms, len(real), UPPER)
        lines.append((limit, source, f"{alarms} of {len(real):,}", f"{upper:.2f} %"))
    text = (
        "False alarms of each limit among all pairs of real text, references of 500 to 30,000 documents. The upper end, 95 %, "
        "is Wilson's; pairs share references."
    )
    return f"{text}\n\n{format_table(['limit', 'source', 'real pairs', 'upper end'], lines)}"


def format_power(rows: list[Row]) -> str:
    lines = []
    for size, generation in ((500, 1), (500, 4), (2_000, 1), (2_000, 2), (2_000, 4), (4_000, 1), (4_000, 4)):
        for regime, words in WORDS.items():
            selected = [r for r in rows if (r["kind"], r["size"], r.get("generation")) == (regime, size, generation)]
            if selected:
                lines.append(
                    (words, f"{size:,}", generation, *format_shares_by_corpus(selected), format_share(selected))
                )
    mixed = [(kind, [row for row in rows if row["kind"] == f"mixed_{kind}"]) for kind in ("replace", "truncated")]
    lines += [
        (f"a fifth {WORDS[kind]}, rest real", "10,000", 4, *format_shares_by_corpus(selected), format_share(selected))
        for kind, selected in mixed
    ]
    head = ["what was written", "documents", "generation", *CORPUS_READERS, "collapse"]
    return f"Verdicts of collapse.\n\n{format_table(head, lines)}"


VERDICTS = [verdict for verdict in CollapseVerdict if verdict is not CollapseVerdict.unrepeated]
"""Those of a comparison with a reference."""
CHANGES = {
    "shortened": "every document cut to three fifths", "reweighted": "topics re-weighted, from a tenth to ten times",
    "dropped": "half of the topics dropped", "templated": "three tenths begin in one of five ways",
    "doubled": "drawn with replacement from half", "spelled": "words of no language (a model of four letters)",
}  # fmt: skip


def format_changes(rows: list[Row]) -> str:
    lines = []
    for kind, words in CHANGES.items():
        for size in (500, 2_000, 4_000):
            selected = [row for row in rows if (row["kind"], row["size"]) == (kind, size)]
            if not selected:
                continue
            counts = Counter(str(row["verdict"]) for row in selected)
            lines.append((words, f"{size:,}", *(counts[verdict] for verdict in VERDICTS)))
    return format_table(["real text, changed", "documents", *VERDICTS], lines)


def format_small(rows: list[Row]) -> str:
    """Verdicts with references of at most 5,000 documents, by corpus."""
    small = [row for row in rows if row["file"] in ("small", "small_real", "late")]
    kinds: dict[tuple[Any, ...], list[Row]] = {}
    for row in small:
        kind = row["kind"].removeprefix("small_")
        kind = "other kinds of text" if kind.startswith("other_") else kind
        about = [f"{name} {row[name]:,}" for name in ("generation", "train", "share") if name in row]
        kinds.setdefault((", ".join([kind, *about]), row["reference_size"], row["size"]), []).append(row)
    lines = [
        (words, f"{reference:,}", f"{size:,}", *format_shares_by_corpus(selected), format_share(selected))
        for (words, reference, size), selected in kinds.items()
    ]
    real = [row for row in small if row["kind"] == "small_real"]
    collapse, anything, upper = _count_alarms(real)
    text = (
        f"Verdicts of collapse. Real against real: {collapse} of {len(real)} pairs, 95 % upper end "
        f"{100 * wilson_bound(collapse, len(real), UPPER):.2f} %; any finding {anything}, {upper}. `lost` is real text without a "
        "share of its hapax mass; the rest is as in the tables above."
    )
    head = ["what was compared", "reference", "documents", *CORPUS_READERS, "collapse"]
    return f"{text}\n\n{format_table(head, lines)}"


def format_sizes(rows: list[Row]) -> str:
    """Verdicts of collapse by size of the reference and of the candidate, all corpora together."""
    grid = [row for row in rows if row["file"] == "sizes"]
    kinds = {
        "real text": ("sizes_real", None), "a fifth of the hapax mass removed": ("sizes_lost", None),
        "replace, generation 1": ("sizes_replace", 1), "replace, generation 2": ("sizes_replace", 2),
    }  # fmt: skip
    sizes = sorted({row["size"] for row in grid})
    lines = []
    for words, (kind, generation) in kinds.items():
        of_kind = [row for row in grid if row["kind"] == kind and row.get("generation") == generation]
        for reference in sorted({row["reference_size"] for row in grid}):
            selected = [row for row in of_kind if row["reference_size"] == reference]
            cells = [format_share([row for row in selected if row["size"] == size]) for size in sizes]
            lines.append((words, f"{reference:,}", *cells))
    head = ["", "reference", *(f"{size:,} documents" for size in sizes)]
    return f"Verdicts of collapse, all corpora.\n\n{format_table(head, lines)}"


def format_generations(rows: list[Row]) -> str:
    """Loss of rare words by generation, its trend, and the resulting order of regimes."""
    lines, order = [], {}
    for regime, words in WORDS.items():
        tails = [mean_tail(rows, regime, generation) for generation in (1, 2, 3, 4)]
        trends = [
            fit_tail_trend([mean_tail(rows, regime, g, corpus) for g in (1, 2, 3, 4)]) for corpus in CORPUS_READERS
        ]
        falling = sum(trend is not None and trend.falling for trend in trends)
        order[regime] = severity([r for r in rows if (r["kind"], r["size"], r.get("generation")) == (regime, 2_000, 4)])
        lines.append(
            (words, *(f"{tail:.1f}" for tail in tails), f"{falling} of {len(CORPUS_READERS)}", f"{order[regime]:.1f}")
        )
    head = ["", *(f"generation {g}" for g in (1, 2, 3, 4)), "still falling, corpora", "severity at 4"]
    text = (
        "Loss of rare words in deviations of real text at 2,000 documents, mean of all corpora. *Severity* is the mean of "
        "that and of the deviations of `distinct_4`: a filter by likelihood repeats more than it forgets. Kendall's tau "
        f"of severity with the order of this table: {kendall_tau([-order[regime] for regime in WORDS]):.2f}; by corpus: "
        + ", ".join(f"{name} {compute_tau(rows, name):.2f}" for name in CORPUS_READERS)
        + "."
    )
    return f"{text}\n\n{format_table(head, lines)}"


def format_lineage(rows: list[Row]) -> str:
    """Verdicts on the fourth generation, as of a run that builds on three generations."""
    written = [row for row in rows if row["kind"] in REGIMES]
    before = {_find_trial_key(row): row for row in written if row["part"] == 0}
    lines = []
    for size in (2_000, 4_000):
        for regime, words in WORDS.items():
            last = [row for row in written if (row["kind"], row["size"], row["generation"]) == (regime, size, 4)]
            with_lineage = [
                {
                    **row,
                    "verdict": _decide_with_lineage(row, [before[*_find_trial_key(row)[:-1], g] for g in (1, 2, 3)]),
                }
                for row in last
            ]
            lines.append(
                (
                    words,
                    f"{size:,}",
                    format_share(last),
                    *format_shares_by_corpus(with_lineage),
                    format_share(with_lineage),
                )
            )
    text = (
        "Verdicts of collapse on generation 4, alone and with the three before it known: a loss of rare words of at most a "
        "third is called a shift where it has stopped growing."
    )
    return f"{text}\n\n{format_table(['what was written', 'documents', 'alone', *CORPUS_READERS, 'with those before'], lines)}"


def _find_trial_key(row: Row) -> tuple[str, str, int, int, int]:
    return row["corpus"], row["kind"], row["size"], row["seed"], row["generation"]


def _decide_with_lineage(row: Row, before: list[Row]) -> CollapseVerdict:
    trend = fit_tail_trend([build_evidence(generation).tail for generation in (*before, row)])
    return decide_collapse(build_evidence(row), steady=trend is not None and trend.steady).verdict


def mean_tail(rows: list[Row], regime: str, generation: int, corpus: str | None = None) -> float:
    selected = [
        build_evidence(row).tail for row in rows
        if (row["kind"], row.get("size"), row.get("generation")) == (regime, 2_000, generation)
        and corpus in (None, row["corpus"])
    ]  # fmt: skip
    return sum(selected) / max(len(selected), 1)


def severity(rows: list[Row]) -> float:
    values = [(build_evidence(row).tail + float(row["z"]["distinct_4"])) / 2 for row in rows]
    return sum(values) / max(len(values), 1)


def compute_tau(rows: list[Row], corpus: str) -> float:
    selected = [row for row in rows if row["corpus"] == corpus and (row["size"], row.get("generation")) == (2_000, 4)]
    return kendall_tau([-severity([row for row in selected if row["kind"] == regime]) for regime in WORDS])


def kendall_tau(values: Sequence[float]) -> float:
    """Tau of the values with their order (Kendall 1938): 1 if each is larger than all before it."""
    signs = [(later > earlier) - (later < earlier) for earlier, later in combinations(values, 2)]
    return sum(signs) / len(signs)


def format_other_kinds(rows: list[Row]) -> str:
    lines = []
    for reference in CORPUS_READERS:
        cells = []
        for name in CORPUS_READERS:
            selected = [row for row in rows if row["corpus"] == reference and row["kind"] == f"other_{name}"]
            counts = Counter(str(row["verdict"]) for row in selected)
            cells.append(", ".join(f"{verdict} {count}" for verdict, count in counts.items()) or "–")
        lines.append((reference, *cells))
    text = (
        "Real text, 500 and 2,000 documents. A reference of another kind can call real text collapsed: use a reference of the "
        "same kind."
    )
    return f"{text}\n\n{format_table(['reference', *CORPUS_READERS], lines)}"


NUMBERS = ("hapax_mass", "heaps_slope", "types", "distinct_2", "self_bleu", "compression_ratio", "vendi")


def format_diversity(rows: list[Row]) -> str:
    lines = []
    for corpus in CORPUS_READERS:
        selected = [row for row in rows if row["file"] == "shown" and row["corpus"] == corpus]
        for row in selected:
            values = [row["values"][name] for name in NUMBERS]
            lines.append(
                (f"{corpus}, {row['kind']} {row['generation']}", *(f"{own / real - 1:+.1%}" for own, real in values))
            )
    text = (
        "Change from real text at 4,000 documents. Under replacement the numbers on the right keep or *raise* diversity "
        "(self-BLEU and compression fall when diversity rises) while the two on the left fall."
    )
    return f"{text}\n\n{format_table(['', *NUMBERS], lines)}"


def format_cost(rows: list[Row]) -> str:
    selected = [row for row in rows if row["file"] == "cost"]
    lines = []
    for size in sorted({row["size"] for row in selected}):
        cells = []
        for kind in ("read", "computed"):
            for corpus in CORPUS_READERS:
                cells += [
                    f"{r['seconds']:.1f}"
                    for r in selected
                    if (r["corpus"], r["size"], r["kind"]) == (corpus, size, kind)
                ]
        lines.append((f"{size:,}", *cells))
    head = [
        "documents",
        *(f"{name}" for name in CORPUS_READERS),
        *(f"{name}, with the null" for name in CORPUS_READERS),
    ]
    return (
        "CPU seconds of `filters.collapse.assessment.assess_texts`, from texts, reading the reference too. Where the reference "
        "has too few documents for a null of the size, the null of the previous size is used, which exists by then."
        f"\n\n{format_table(head, lines)}"
    )


assert set(WORDS) == set(REGIMES)
