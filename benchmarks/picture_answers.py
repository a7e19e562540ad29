"""Whether the answers of procedural pictures are right, by a second implementation of their programs in polars that shares no
code with the first, and what a blind model answers. Nothing is rendered.

python -m benchmarks.picture_answers [--pairs N]
"""

import argparse
import re
import sys
from collections import Counter
from random import Random
from typing import Any

import polars as pl

from plugins.pictures.drawing.drafts import PictureDraft, PictureKind
from plugins.pictures.drawing.procedural_drafts import draw_draft
from plugins.pictures.drawing.queries import compute_answer
from plugins.pictures.drawing.word_leaks import AskedQuestion, WordLeak, measure_word_leak
from plugins.pictures.statistics import count_choices

PAIRS, SEED, QUESTIONS = 10_000, 7, 3
KINDS: tuple[PictureKind, ...] = ("charts", "tables", "documents")
MARKS = ("bar", "horizontal_bar", "line", "point", "area", "pie")


def answer_by_polars(program: dict[str, Any], draft: PictureDraft) -> object:
    """The answer of a program over a draft, in floats and data frames: a float, a count, a label or a text."""
    if program["op"] == "field":
        return next(field.text for field in draft.fields if field.name == program["row"])
    rows = [list(row) for row in draft.rows]
    frame = pl.DataFrame(rows, schema=["label", *map(str, range(1, len(draft.columns)))], orient="row", strict=False)
    if draft.chart and draft.chart.sort != "none":
        frame = frame.sort("1", descending=draft.chart.sort == "descending", maintain_order=True)
    value = pl.col(str(draft.columns.index(program["column"]))).cast(pl.Float64)
    frame = frame.select("label", value=value)
    by_label = dict(frame.iter_rows())
    match program["op"]:
        case "value":
            return by_label[program["row"]]
        case "difference":
            return abs(by_label[program["row"]] - by_label[program["other"]])
        case "argmax" | "argmin" as op:
            return frame.sort("value", descending=op == "argmax")["label"][0]
        case "max" | "min" | "sum" | "mean" as op:
            return getattr(frame["value"], op)()
        case "count_where" if "above" in program:
            return frame.filter(pl.col("value") > program["above"]).height
        case "count_where":
            return frame.filter(pl.col("value") < program["below"]).height
        case "rank":
            ranks = frame.with_columns(rank=pl.col("value").rank("min", descending=True))
            return int(ranks.filter(pl.col("label") == program["row"])["rank"].item())
        case _:
            steps = frame["value"].diff().drop_nulls()
            return "rising" if (steps > 0).all() else "falling" if (steps < 0).all() else "neither"


def is_right(answer: str, program: dict[str, Any], question: str, draft: PictureDraft) -> bool:
    """Whether an answer is that of the second implementation, a mean as rounded as its question asks for."""
    expected = answer_by_polars(program, draft)
    if not isinstance(expected, float):
        return answer == str(expected)
    asked = re.search(r"rounded to (\d)", question)
    return abs(float(answer) - expected) <= (0.5 * 10 ** -int(asked[1]) if asked else 0) + 1e-6


def measure(pairs: int) -> tuple[Counter[str], Counter[str], WordLeak]:
    """Questions and wrong answers by operation, and what the blind model answers."""
    counts, wrong, asked = Counter[str](), Counter[str](), list[AskedQuestion]()
    number = 0
    while len(asked) < pairs:
        kind, mark = KINDS[number % len(KINDS)], MARKS[number // len(KINDS) % len(MARKS)]
        draft = PictureDraft.model_validate(
            draw_draft(Random(f"{SEED}/{number}"), kind, QUESTIONS, mark, values=number % 2 == 0)
        )
        for one in draft.questions:
            program = one.program.model_dump(exclude_defaults=True)
            answer = compute_answer(one.program, draft.table)
            counts[program["op"]] += 1
            wrong[program["op"]] += not is_right(answer, program, one.question, draft)
            choices = count_choices(program, {"table": {"rows": draft.rows}})
            asked.append(AskedQuestion(str(number), one.question, answer, choices))
        number += 1
    return counts, wrong, measure_word_leak(asked)


def format_measurement(pairs: int) -> str:
    counts, wrong, leak = measure(pairs)
    lines = ["| operation | pairs | wrong |", "|---|---:|---:|"]
    lines += [f"| `{name}` | {count:,} | {wrong[name]:,} |" for name, count in counts.most_common()]
    blind = f"{100 * leak.share:.1f} % ({100 * leak.low:.1f} to {100 * leak.high:.1f} %)"
    verdict = {True: "words give answers away", False: "words give no answers away", None: "too few to tell"}[
        leak.leaks
    ]
    total = f"{counts.total():,} pairs, {wrong.total():,} wrong."
    return "\n".join(
        [total, "", *lines, "", f"Blind: {blind} right, {100 * leak.chance:.1f} % expected of a guess: {verdict}."]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    sys.stdout.write(f"{format_measurement(parser.parse_args().pairs)}\n")


if __name__ == "__main__":
    main()
