"""Whether the answers of procedural pictures are right, by a second implementation of their programs in polars that shares no
code with the first, and what a blind model answers. With `--drawn N`, N pictures of each kind are drawn too: their sizes, fonts
and titles are counted, and each box that is an answer is compared with the ink in the picture.

python -m benchmarks.picture_answers [--pairs N] [--drawn N]
"""

import argparse
import io
import json
import re
import sys
from collections import Counter
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from agents.checks import Subject
from agents.checks.base import refuse_to_ask
from core.sample import Seed
from core.storage.image_files import decode_image_url
from plugins.pictures.drawing.drafts import PictureDraft, PictureKind
from plugins.pictures.drawing.procedural_drafts import draw_draft
from plugins.pictures.drawing.queries import PLACE_OPERATIONS, compute_answer
from plugins.pictures.drawing.word_leaks import AskedQuestion, WordLeak, measure_word_leak
from plugins.pictures.families.pictures import PicturesFamily, PicturesOptions
from plugins.pictures.statistics import count_choices

PAIRS, SEED, QUESTIONS = 10_000, 7, 3
INK, EDGE, MOVED = 40, 0.35, 0.6
"""Levels of gray that a letter differs from its ground, and the share of a line's height within which it begins."""
KINDS: tuple[PictureKind, ...] = ("charts", "tables", "documents")
TWO_COLUMNS = ("gap", "at_max", "at_min")
MARKS = ("bar", "horizontal_bar", "line", "point", "area", "pie")


def answer_by_polars(program: dict[str, Any], draft: PictureDraft) -> object:
    """The answer of a program over a draft, in floats and data frames: a float, a count, a label or a text."""
    if program["op"] == "field":
        return next(field.text for field in (*draft.fields, *draft.totals) if field.name == program["row"])
    rows = [list(row) for row in draft.rows]
    frame = pl.DataFrame(rows, schema=["label", *map(str, range(1, len(draft.columns)))], orient="row", strict=False)
    if draft.chart and draft.chart.sort != "none":
        frame = frame.sort("1", descending=draft.chart.sort == "descending", maintain_order=True)
    value, other = (
        pl.col(str(draft.columns.index(name))).cast(pl.Float64)
        for name in (program["column"], program["other"] if program["op"] in TWO_COLUMNS else program["column"])
    )
    frame = frame.select("label", value=value, other=other)
    by_label = dict(frame.select("label", "value").iter_rows())
    if program["op"] in TWO_COLUMNS:
        return _compare_columns(program, frame)
    if program["op"] in ("count_where", "rank", "trend"):
        return _count_values(program, frame)
    match program["op"]:
        case "value":
            return by_label[program["row"]]
        case "difference":
            return abs(by_label[program["row"]] - by_label[program["other"]])
        case "share":
            return 100 * by_label[program["row"]] / frame["value"].sum()
        case "argmax" | "argmin" as op:
            return frame.sort("value", descending=op == "argmax")["label"][0]
        case op:
            return getattr(frame["value"], op)()


def _count_values(program: dict[str, Any], frame: pl.DataFrame) -> object:
    match program["op"]:
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


def _compare_columns(program: dict[str, Any], frame: pl.DataFrame) -> object:
    if program["op"] == "gap":
        return abs(frame.filter(pl.col("label") == program["row"]).select(pl.col("value") - pl.col("other")).item())
    return frame.sort("value", descending=program["op"] == "at_max")["other"][0]


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
            draw_draft(Random(f"{SEED}/{number}"), kind, QUESTIONS, mark, values=number % 2 == 0, page=number % 5 == 0)
        )
        for one in draft.questions:
            if one.program.op in PLACE_OPERATIONS:  # the layout answers them: see `--drawn`
                continue
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


class DrawnLooks(NamedTuple):
    """What was drawn of one kind."""

    kept: list[dict[str, Any]]
    """The fields of the candidates that pass all checks."""
    images: list[bytes]
    refused: Counter[str]


def draw_pictures(kind: PictureKind, number: int) -> DrawnLooks:
    """Pictures as the recipe draws them, each once."""
    family, options = PicturesFamily(), PicturesOptions(kind=kind, pictures=number)
    looks = DrawnLooks([], [], Counter())
    for row in family.rows(options, SEED):
        seed = Seed(id="picture", data=family.condition(row, options, Random(row["made"])))
        candidate = family.candidate(seed, PictureDraft.model_validate(family.draw_draft(seed, 0)))
        subject = Subject(seed, candidate, refuse_to_ask)
        faults = [one.name for one in family.checks if not one.roles and one.run(subject, one.options())]
        if faults:
            looks.refused[faults[0]] += 1
        else:
            looks.kept.append(candidate.fields)
            looks.images.append(decode_image_url(candidate.images[0]))
    return looks


def count_wrong_boxes(fields: dict[str, Any], image: bytes, moved: float = 0.0) -> tuple[int, int]:
    """The boxes that are answers, and those at whose left or right end no letter is. For a control, they are `moved` to the right
    by a part of their width.
    """
    boxes = [json.loads(one["answer"]) for one in fields["questions"] if one["program"]["op"] == "box"]
    with Image.open(io.BytesIO(image)) as opened:
        level = np.asarray(opened.convert("L"), float)
    wrong = 0
    for left, top, right, bottom in boxes:
        left, right = (end + moved * (right - left) for end in (left, right))
        x, y = (
            np.array(ends) * size / 1000
            for ends, size in (((left, right), level.shape[1]), ((top, bottom), level.shape[0]))
        )
        inside = level[int(y[0]) : int(y[1]) + 1, int(x[0]) : int(x[1]) + 1]
        columns = np.abs(inside - np.median(inside)).max(axis=0) > INK
        # Letters begin and end within a tenth of a line's height from the sides.
        edge = max(4, round(EDGE * inside.shape[0]))
        wrong += not (columns.size and columns[:edge].any() and columns[-edge:].any())
    return len(boxes), wrong


def format_looks(kind: PictureKind, number: int) -> str:
    looks = draw_pictures(kind, number)
    sizes = [(fields["layout"]["width"], fields["layout"]["height"]) for fields in looks.kept]
    width, height = (median(size[axis] for size in sizes) for axis in (0, 1))
    columns = [
        [row[place] for row in fields["table"]["rows"]]
        for fields in looks.kept
        for place in range(1, len(fields["table"]["columns"]))
    ]
    steps = [[later - earlier for earlier, later in pairwise(column)] for column in columns]
    steady = sum(min(step) > 0 or max(step) < 0 for step in steps)
    boxes, control = (
        [count_wrong_boxes(fields, image, moved) for fields, image in zip(looks.kept, looks.images, strict=True)]
        for moved in (0, MOVED)
    )
    series = Counter(len(fields["table"]["columns"]) - 1 for fields in looks.kept)
    styles = {
        name: dict(Counter(fields["style"][name] for fields in looks.kept)) for name in ("font", "capture", "paper")
    }
    wrong, checked = (sum(box[place] for box in boxes) for place in (1, 0))
    return "; ".join(
        [
            f"{kind}: {len(looks.kept)} of {number} kept at the first draw, refused {dict(looks.refused)}",
            f"median {width:g} x {height:g} pixels, {sum(map(len, looks.images)) / len(looks.images) / 1e3:.0f} kB",
            f"{steady} of {len(columns)} columns rise or fall throughout",
            f"{len({fields['title'] for fields in looks.kept})} titles",
            f"columns {dict(sorted(series.items()))}",
            f"{styles}",
            f"{wrong} of {checked} boxes wrong; {sum(box[1] for box in control)} if they are moved by {MOVED:.0%} of their width",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--drawn", type=int, default=0)
    asked = parser.parse_args()
    sys.stdout.write(f"{format_measurement(asked.pairs)}\n")
    for kind in KINDS if asked.drawn else ():
        sys.stdout.write(f"{format_looks(kind, asked.drawn)}\n")


if __name__ == "__main__":
    main()
