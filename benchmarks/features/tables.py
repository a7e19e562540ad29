"""The tables of the benchmark of features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.features.closed_gaps import EXAMPLES, TEACHER, check_loop, measure_loop
from benchmarks.features.measured_texts import ARMS, FULL, LEARNED, RANDOM, Bench, Size
from benchmarks.features.planted_gaps import check_control, count_found, measure_alarms, measure_planted
from benchmarks.features.subset_scores import measure_prediction, measure_selection, measure_students
from benchmarks.machine import describe_measurement
from core.project_files import PROJECT

WORK_FOLDER = PROJECT / "data" / "runs" / "benchmark-features"


def table(work: Path = WORK_FOLDER, size: Size = FULL, *, long: bool = False, stored_only: bool = False) -> str:
    """Measure what is missing, and write the tables. The students take longer than all else: only if `long`. With
    `stored_only`, nothing is measured, and the tables are those of the parts that are stored.
    """
    bench = Bench(work, size, stored_only=stored_only)
    record = bench.training
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.features`",
        "",
        "| dictionary | explained variance | dead features |",
        "|---|---|---|",
        f"| autoencoder, {record.latents:,} latents, k {record.k}, {record.tokens:,} tokens | {record.explained_variance:.3f} | "
        f"{record.dead_share:.1%} |",
        f"| random dictionary | {record.random_explained_variance:.3f} | |",
        "",
    ]
    if planted := bench.measure("planted", lambda: measure_planted(bench)):
        lines += _format_planted(planted)
        if size == FULL:
            check_control(planted)
    if alarms := bench.measure("alarms", lambda: measure_alarms(bench)):
        found = ", ".join(f"{arm} {count}" for arm, count in alarms.items())
        lines += [
            f"Random splits of the same documents into halves, of {size.random_splits}, in which an arm finds any gap: {found}.",
            "",
        ]
    if prediction := bench.measure("prediction", lambda: measure_prediction(bench)):
        lines += _format_predictions("a bigram model", size.subsets, prediction, size)
    if selection := bench.measure("selection", lambda: measure_selection(bench)):
        lines += _format_selection(selection, size)
    if loop := measure_loop(bench):
        lines += _format_loop(loop)
        if size == FULL:
            check_loop(loop)
    if long:
        students = bench.measure("students", lambda: measure_students(bench))
        lines += _format_predictions(f"a student of 4 layers, {size.student_width} wide", size.students, students, size)
    return "\n".join(lines).strip()


def _format_planted(planted: Mapping[str, Any]) -> list[str]:
    arms = [arm for arm in ARMS if all(arm in row for row in planted.values())]
    lines = [
        "Planted gaps: the phi of each arm's largest gap with the property (found from 0.5 on), and its number of gaps.",
        "",
        f"| taken out | share | {' | '.join(arms)} |",
        f"|---|---|{'---|' * len(arms)}",
    ]
    for name, row in planted.items():
        cells = [f"{row[arm]['phi']:.2f} ({row[arm]['gaps']})" if row[arm]["gaps"] else "no gap" for arm in arms]
        lines.append(f"| {name} | {row['share']:.0%} | {' | '.join(cells)} |")
    return [*lines, f"| found | of {len(planted)} | {' | '.join(str(count_found(planted, arm)) for arm in arms)} |", ""]


def _format_selection(selection: Mapping[str, Any], size: Size) -> list[str]:
    return [
        f"Selection of {size.selected} documents.",
        "",
        "| selected by | words | word types | nats per word on held-out text |",
        "|---|---|---|---|",
        *(f"| {name} | {row['words']:,} | {row['types']:,} | {row['loss']:.3f} |" for name, row in selection.items()),
        "",
    ]


def _format_loop(loop: Mapping[str, Any]) -> list[str]:
    lines = [
        f"The loop: a property is taken out of half of the documents, and equal numbers of samples of {TEACHER} from each kind "
        f"of seeds are added. Each sample follows {EXAMPLES + 1} real passages: that of its seed, and others with its feature; "
        "in the arm `random`, random ones. Samples that repeat a passage are left out. In parentheses, 95 % of the samples drawn "
        "again.",
        "",
        "| taken out | seeds | added to documents | made, copies | with the property | gaps closed | opened | by the random "
        "dictionary |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in loop.items():
        for arm, counts in row["arms"].items():
            learned, random = counts[LEARNED], counts[RANDOM]
            low, high = learned.get("interval", (learned["closed"],) * 2)
            lines.append(
                f"| {name} ({row['share']:.0%}) | {arm} | {row['added']} to {row['documents']} | {counts['made']}, "
                f"{counts['copied']} | {counts['with the property']:.0%} | {learned['closed']} of {learned['found']} "
                f"({low} to {high}) | {learned['opened']} | {random['closed']} of {random['found']} |"
            )
    return [*lines, ""]


def _format_predictions(model: str, subsets: int, rows: Mapping[str, Any], size: Size) -> list[str]:
    lines = [
        f"What predicts the loss of {model} on held-out text, over {subsets} subsets of {size.subset_words:,} words on which it "
        "is trained: rank correlations, alone and given word types.",
        "",
        "| measure | alone | given word types | 95 % |",
        "|---|---|---|---|",
    ]
    for name, row in rows.items():
        low, high = row["interval"] or (None, None)
        given = "| |" if low is None else f"{row['given word types']:.2f} | {low:.2f} to {high:.2f} |"
        lines.append(f"| {name} | {row['spearman']:.2f} | {given}")
    return [*lines, ""]
