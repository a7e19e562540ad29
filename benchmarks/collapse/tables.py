"""The tables of the collapse gate, from the trials that are there: false alarms, power, what must pass, order, cost."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.collapse.corpora import MAKERS
from benchmarks.collapse.generators import REGIMES
from benchmarks.collapse.plot import drawing
from benchmarks.collapse.trials import KINDS, run
from benchmarks.machine import measured_on
from core.recipe import PROJECT
from core.run import CollapseVerdict
from core.shares import wilson
from core.store import write_text
from filters.trend import trend
from filters.verdict import LIMIT, Evidence, judge

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
    """Make what trials are missing in FOLDER, and put all of them into words."""
    run(list(MAKERS), list(KINDS), FOLDER)
    rows = read(FOLDER)
    write_text(PLOT, plot(rows))
    return page(rows)


def plot(rows: list[Row]) -> str:
    lines = {words: [mean_tail(rows, regime, g) for g in (1, 2, 3, 4)] for regime, words in WORDS.items()}
    return drawing(lines, "Loss of rare words, in deviations of real text (2,000 documents)", LIMIT)


def read(folder: Path) -> list[Row]:
    files = sorted((folder / "trials").glob("*.jsonl"))
    return [
        {"file": file.stem.split("-", 1)[1], **json.loads(line)}
        for file in files
        for line in file.read_text().splitlines()
    ]


def page(rows: list[Row]) -> str:
    judged = [{**row, "verdict": verdict(row)} for row in rows if "documents" in row]
    parts = [
        f"{measured_on()}; numpy {version('numpy')}. Command: `STILLHOUSE_CORPORA=FOLDER python -m benchmarks collapse`.",
        INTRODUCTION,
        "### False alarms", false_alarms(judged),
        "### Power", power(judged),
        "### What must not be called collapse, and what must", changes(judged),
        "### Over generations", over_generations(judged),
        "### With the generations before it", in_lineage(judged),
        "### Text of another kind as the reference", other_kinds(judged),
        "### What the usual numbers say", shown(rows),
        "### Cost", cost(rows),
    ]  # fmt: skip
    return "\n\n".join(parts)


INTRODUCTION = """Four corpora of real English (verses, package descriptions, political prose, dictionary entries), each
shuffled once: 10,000 documents train a Kneser-Ney 4-gram, generations of 10,000 are written by it in seven ways, and the
reference is the rest, 20,000 to 30,000 documents that no generator saw. Verdicts are by the limits in
`filters/verdict.py`, the same for all."""


def evidence(row: Row) -> Evidence:
    return Evidence(row["z"], row["change"], row["real"], row["topics"], row["documents"])


def verdict(row: Row) -> CollapseVerdict:
    return judge(evidence(row)).verdict if row["documents"] else CollapseVerdict.under_powered


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def share(
    rows: list[Row], wanted: Callable[[Row], bool] = lambda row: row["verdict"] is CollapseVerdict.collapse
) -> str:
    return f"{sum(map(wanted, rows))} of {len(rows)}" if rows else "–"


def by_corpus(rows: list[Row]) -> list[str]:
    return [share([row for row in rows if row["corpus"] == name]) for name in MAKERS]


def alarmed(row: Row) -> bool:
    """Whether anything was found, at any size: what is under-powered may still have evidence."""
    return bool(judge(evidence(row)).reasons)


def false_alarms(rows: list[Row]) -> str:
    real = [row for row in rows if row["kind"] == "real"]
    lines = []
    for size in sorted({row["size"] for row in real}):
        here = [row for row in real if row["size"] == size]
        lines.append((f"{size:,}", len(here), *_alarms(here)))
    lines.append(("all", len(real), *_alarms(real)))
    head = ["documents", "pairs", "collapse", "anything at all", "upper end, 95 %"]
    text = (
        "Real against real, from one corpus: the reference and the candidate share no document. The upper end is Wilson's, "
        "of any finding; pairs of one parting share their reference."
    )
    return f"{text}\n\n{markdown(head, lines)}"


def _alarms(rows: list[Row]) -> tuple[int, int, str]:
    collapse = sum(row["verdict"] is CollapseVerdict.collapse for row in rows)
    anything = sum(map(alarmed, rows))
    return collapse, anything, f"{100 * wilson(anything, len(rows), UPPER):.2f} %"


def power(rows: list[Row]) -> str:
    lines = []
    for size, generation in ((500, 1), (500, 4), (2_000, 1), (2_000, 2), (2_000, 4), (4_000, 1), (4_000, 4)):
        for regime, words in WORDS.items():
            here = [r for r in rows if (r["kind"], r["size"], r.get("generation")) == (regime, size, generation)]
            if here:
                lines.append((words, f"{size:,}", generation, *by_corpus(here), share(here)))
    mixed = [(kind, [row for row in rows if row["kind"] == f"mixed_{kind}"]) for kind in ("replace", "truncated")]
    lines += [(f"a fifth {WORDS[kind]}, rest real", "10,000", 4, *by_corpus(here), share(here)) for kind, here in mixed]
    head = ["what was written", "documents", "generation", *MAKERS, "collapse"]
    return f"Verdicts of collapse.\n\n{markdown(head, lines)}"


CHANGES = {
    "shortened": "every document cut to three fifths", "reweighted": "topics re-weighted, from a tenth to ten times",
    "dropped": "half of the topics dropped", "templated": "three tenths begin in one of five ways",
    "doubled": "drawn with replacement from half", "spelled": "words of no language (a model of four letters)",
}  # fmt: skip


def changes(rows: list[Row]) -> str:
    lines = []
    for kind, words in CHANGES.items():
        for size in (500, 2_000, 4_000):
            here = [row for row in rows if (row["kind"], row["size"]) == (kind, size)]
            if not here:
                continue
            counts = Counter(str(row["verdict"]) for row in here)
            lines.append((words, f"{size:,}", *(counts[verdict] for verdict in CollapseVerdict)))
    return markdown(["real text, changed", "documents", *CollapseVerdict], lines)


def over_generations(rows: list[Row]) -> str:
    """Loss of rare words by generation, its trend, and the order of the regimes that it gives."""
    lines, order = [], {}
    for regime, words in WORDS.items():
        tails = [mean_tail(rows, regime, generation) for generation in (1, 2, 3, 4)]
        found = [trend([mean_tail(rows, regime, g, corpus) for g in (1, 2, 3, 4)]) for corpus in MAKERS]
        falling = sum(one is not None and one.falling for one in found)
        order[regime] = severity([r for r in rows if (r["kind"], r["size"], r.get("generation")) == (regime, 2_000, 4)])
        lines.append((words, *(f"{tail:.1f}" for tail in tails), f"{falling} of {len(MAKERS)}", f"{order[regime]:.1f}"))
    head = ["", *(f"generation {g}" for g in (1, 2, 3, 4)), "still falling, corpora", "severity at 4"]
    text = (
        "Loss of rare words in deviations of real text at 2,000 documents, mean of all corpora. *Severity* is the mean of "
        "that and of the deviations of `distinct_4`: a filter by likelihood repeats more than it forgets. Kendall's tau "
        f"of severity with the order of this table: {kendall([-order[regime] for regime in WORDS]):.2f}; by corpus: "
        + ", ".join(f"{name} {tau_of(rows, name):.2f}" for name in MAKERS)
        + "."
    )
    return f"{text}\n\n{markdown(head, lines)}"


def in_lineage(rows: list[Row]) -> str:
    """The fourth generation judged as a run judges it, that builds on three."""
    written = [row for row in rows if row["kind"] in REGIMES]
    before = {_place(row): row for row in written if row["part"] == 0}
    lines = []
    for size in (2_000, 4_000):
        for regime, words in WORDS.items():
            last = [row for row in written if (row["kind"], row["size"], row["generation"]) == (regime, size, 4)]
            told = [{**row, "verdict": _with(row, [before[*_place(row)[:-1], g] for g in (1, 2, 3)])} for row in last]
            lines.append((words, f"{size:,}", share(last), *by_corpus(told), share(told)))
    text = (
        "Verdicts of collapse on generation 4, alone and with the three before it known: a loss of rare words of at most a "
        "third is called a shift where it has stopped growing."
    )
    return f"{text}\n\n{markdown(['what was written', 'documents', 'alone', *MAKERS, 'with those before'], lines)}"


def _place(row: Row) -> tuple[str, str, int, int, int]:
    return row["corpus"], row["kind"], row["size"], row["seed"], row["generation"]


def _with(row: Row, before: list[Row]) -> CollapseVerdict:
    found = trend([evidence(one).tail for one in (*before, row)])
    return judge(evidence(row), steady=found is not None and found.steady).verdict


def mean_tail(rows: list[Row], regime: str, generation: int, corpus: str | None = None) -> float:
    here = [
        evidence(row).tail for row in rows
        if (row["kind"], row.get("size"), row.get("generation")) == (regime, 2_000, generation)
        and corpus in (None, row["corpus"])
    ]  # fmt: skip
    return sum(here) / max(len(here), 1)


def severity(rows: list[Row]) -> float:
    found = [(evidence(row).tail + float(row["z"]["distinct_4"])) / 2 for row in rows]
    return sum(found) / max(len(found), 1)


def tau_of(rows: list[Row], corpus: str) -> float:
    here = [row for row in rows if row["corpus"] == corpus and (row["size"], row.get("generation")) == (2_000, 4)]
    return kendall([-severity([row for row in here if row["kind"] == regime]) for regime in WORDS])


def kendall(values: Sequence[float]) -> float:
    """Tau of the values with their order (Kendall 1938): 1 if each is larger than all before it."""
    signs = [(later > earlier) - (later < earlier) for earlier, later in combinations(values, 2)]
    return sum(signs) / len(signs)


def other_kinds(rows: list[Row]) -> str:
    lines = []
    for reference in MAKERS:
        cells = []
        for name in MAKERS:
            here = [row for row in rows if row["corpus"] == reference and row["kind"] == f"other_{name}"]
            counts = Counter(str(row["verdict"]) for row in here)
            cells.append(", ".join(f"{verdict} {count}" for verdict, count in counts.items()) or "–")
        lines.append((reference, *cells))
    text = "Real text, 500 and 2,000 documents. A reference of another kind can call real text collapsed: use one of the same."
    return f"{text}\n\n{markdown(['reference', *MAKERS], lines)}"


NUMBERS = ("hapax_mass", "heaps_slope", "types", "distinct_2", "self_bleu", "compression_ratio", "vendi")


def shown(rows: list[Row]) -> str:
    lines = []
    for corpus in MAKERS:
        here = [row for row in rows if row["file"] == "shown" and row["corpus"] == corpus]
        for row in here:
            values = [row["values"][name] for name in NUMBERS]
            lines.append(
                (f"{corpus}, {row['kind']} {row['generation']}", *(f"{own / real - 1:+.1%}" for own, real in values))
            )
    text = (
        "Change from real text at 4,000 documents. Under replacement the numbers on the right keep or *raise* diversity "
        "(self-BLEU and compression fall when diversity rises) while the two on the left fall."
    )
    return f"{text}\n\n{markdown(['', *NUMBERS], lines)}"


def cost(rows: list[Row]) -> str:
    here = [row for row in rows if row["file"] == "cost"]
    lines = []
    for size in sorted({row["size"] for row in here}):
        cells = []
        for kind in ("read", "computed"):
            for corpus in MAKERS:
                cells += [
                    f"{r['seconds']:.1f}" for r in here if (r["corpus"], r["size"], r["kind"]) == (corpus, size, kind)
                ]
        lines.append((f"{size:,}", *cells))
    head = ["documents", *(f"{name}" for name in MAKERS), *(f"{name}, with the null" for name in MAKERS)]
    return (
        "CPU seconds of `filters.collapse.measure`, from texts, reading the reference too. Where the reference has too few "
        "documents for a null of the size, that of the size before is taken, which is there by then."
        f"\n\n{markdown(head, lines)}"
    )


assert set(WORDS) == set(REGIMES)
