"""Whether the answers of procedural pictures are right, by a second implementation of their programs in polars that shares no
code with the first, and what a blind model answers. With `--drawn N`, N pictures of each kind are drawn too: their sizes, fonts
and titles are counted, and each box that is an answer is read: among all texts of the picture, its own must be most like
the ink within it. Boxes of other texts and moved ones are the control.

python -m benchmarks.picture_answers [--pairs N] [--seed N] [--drawn N]
"""

import argparse
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from itertools import pairwise, product
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
from plugins.pictures.drawing.render_worker import find_fonts, measure_letters
from plugins.pictures.drawing.svg_texts import ASCENT, DESCENT
from plugins.pictures.drawing.word_leaks import AskedQuestion, WordLeak, measure_word_leak
from plugins.pictures.families.pictures import PicturesFamily, PicturesOptions
from plugins.pictures.statistics import count_choices

PAIRS, SEED, QUESTIONS = 10_000, 7, 3
LETTER_SIZE, NEAR, LEAST_PIXELS = 40, 2, 4
LEAST_LIKENESS = 0.5
"""Correlation from which ink is that of a text. The aim, set before the first run with seed 7: no wrong box, and at least 95 % of
each control found."""
CONTROLS = {"60 % to the right": (0.6, 0.0), "25 % to the right": (0.25, 0.0), "one line down": (0.0, 1.0)}
"""Where wrong boxes are: how far to the right, in widths, and down, in heights, of the right one."""
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


def _is_whole_table(answer: str, program: dict[str, Any], draft: PictureDraft) -> bool:
    """Whether a table, read again, has the cells of a draft, in the order in which they are drawn."""
    if program["other"] == "CSV":
        read = pl.read_csv(answer.encode(), has_header=False, infer_schema=False).rows()
    else:
        read = [tuple(line[2:-2].split(" | ")) for line in answer.splitlines() if not line.startswith("| ---")]
    rows = [tuple(row) for row in draft.rows]
    if draft.chart and draft.chart.sort != "none":
        rows.sort(key=lambda row: float(row[1]), reverse=draft.chart.sort == "descending")
    cells = [(line[0], *map(float, line[1:])) for line in read[1:]]
    return read[0] == tuple(draft.columns) and cells == [(row[0], *map(float, row[1:])) for row in rows]


def is_right(answer: str, program: dict[str, Any], question: str, draft: PictureDraft) -> bool:
    """Whether an answer is that of the second implementation, a mean as rounded as its question asks for."""
    if program["op"] == "table":
        return _is_whole_table(answer, program, draft)
    if program["op"] == "absent":
        shown = json.dumps(draft.model_dump(exclude={"questions"}), ensure_ascii=False).casefold()
        return answer == f"“{program['row']}” is not in the picture." and program["row"].casefold() not in shown
    expected = answer_by_polars(program, draft)
    if not isinstance(expected, float):
        return answer == str(expected)
    asked = re.search(r"rounded to (\d)", question)
    return abs(float(answer) - expected) <= (0.5 * 10 ** -int(asked[1]) if asked else 0) + 1e-6


def plant_faults(answer: str, program: dict[str, Any], draft: PictureDraft) -> dict[str, tuple[str, dict[str, Any]]]:
    """Wrong tables and absences made of a right one, each with its program: the control."""
    lines = answer.splitlines()
    if program["op"] == "table":
        changed = [*lines[:-1], re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), lines[-1])]
        return {
            "changed cell": ("\n".join(changed), program),
            "missing line": ("\n".join(lines[:-1]), program),
            "exchanged lines": ("\n".join([*lines[:-2], lines[-1], lines[-2]]), program),
        }
    if program["op"] == "absent":
        shown = program | {"row": draft.rows[-1][0]}
        return {
            "shown row": (f"“{shown['row']}” is not in the picture.", shown),
            "value of a row": (str(draft.rows[-1][1]), program),
        }
    return {}


class Measured(NamedTuple):
    counts: Counter[str]
    """Questions by operation."""
    wrong: Counter[str]
    leak: WordLeak
    """What the blind model answers."""
    planted: Counter[str]
    """Faults by kind."""
    found: Counter[str]


def measure(pairs: int, seed: int = SEED) -> Measured:
    """Judge the answers of procedural pictures, and planted faults."""
    counts, wrong, asked = Counter[str](), Counter[str](), list[AskedQuestion]()
    planted, found = Counter[str](), Counter[str]()
    number = 0
    while len(asked) < pairs:
        kind, mark = KINDS[number % len(KINDS)], MARKS[number // len(KINDS) % len(MARKS)]
        draft = PictureDraft.model_validate(
            draw_draft(Random(f"{seed}/{number}"), kind, QUESTIONS, mark, values=number % 2 == 0, page=number % 5 == 0)
        )
        for one in draft.questions:
            if one.program.op in PLACE_OPERATIONS:  # the layout answers them: see `--drawn`
                continue
            program = one.program.model_dump(exclude_defaults=True)
            answer = compute_answer(one.program, draft.table)
            counts[program["op"]] += 1
            wrong[program["op"]] += not is_right(answer, program, one.question, draft)
            for fault, (other, asking) in plant_faults(answer, program, draft).items():
                planted[fault] += 1
                found[fault] += not is_right(other, asking, one.question, draft)
            choices = count_choices(program, {"table": {"rows": draft.rows}})
            asked.append(AskedQuestion(str(number), one.question, answer, choices))
        number += 1
    return Measured(counts, wrong, measure_word_leak(asked), planted, found)


def format_measurement(pairs: int, seed: int = SEED) -> str:
    counts, wrong, leak, planted, found = measure(pairs, seed)
    lines = ["| operation | pairs | wrong |", "|---|---:|---:|"]
    lines += [f"| `{name}` | {count:,} | {wrong[name]:,} |" for name, count in counts.most_common()]
    blind = f"{100 * leak.share:.1f} % ({100 * leak.low:.1f} to {100 * leak.high:.1f} %)"
    verdict = {True: "words give answers away", False: "words give no answers away", None: "too few to tell"}[
        leak.leaks
    ]
    total = f"{counts.total():,} pairs, {wrong.total():,} wrong."
    return "\n".join(
        [
            total,
            "",
            *lines,
            "",
            f"Planted faults found: {', '.join(f'{found[name]} of {planted[name]} {name}' for name in planted)}.",
            f"Blind: {blind} right, {100 * leak.chance:.1f} % expected of a guess: {verdict}.",
        ]
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


class BoxCounts(NamedTuple):
    """Boxes in which the ink is not that of their text: of those that are answers, and of the controls for each of them."""

    boxes: int
    wrong: int
    found: dict[str, int]
    """By control: those that are found wrong."""


@cache
def load_vl_convert() -> Any:
    import vl_convert

    for folder in find_fonts():
        vl_convert.register_font_directory(folder)
    return vl_convert


def render_text(text: str, font: str, bold: bool, *, chart: bool) -> np.ndarray[Any, Any]:
    """A text alone, from 0 to 1, from the top of its capitals to below its line, as the renderer of its picture draws it."""
    if chart:
        vl_convert = load_vl_convert()
        width = measure_letters(font).measure(text, LETTER_SIZE, bold)
        drawn = vl_convert.svg_to_png(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{(ASCENT + DESCENT) * LETTER_SIZE}">'
            f'<text xml:space="preserve" y="{ASCENT * LETTER_SIZE}" font-family="{font}" font-size="{LETTER_SIZE}px" '
            f'font-weight="{"bold" if bold else "normal"}">{escape(text)}</text></svg>',
            scale=1,
        )
    else:
        import typst

        source = (
            "#set page(width: auto, height: auto, margin: 0pt, fill: none)\n"
            f'#set text(font: {json.dumps(font)}, size: {LETTER_SIZE}pt, top-edge: "cap-height", bottom-edge: "baseline", '
            f'weight: "{"bold" if bold else "regular"}")\n'
            f"#box(inset: (bottom: {DESCENT * LETTER_SIZE}pt), text({json.dumps(text, ensure_ascii=False)}))"
        )
        fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True, font_paths=find_fonts())
        drawn = typst.compile(source.encode(), format="png", ppi=72.0, font_paths=fonts)
    with Image.open(io.BytesIO(drawn)) as opened:
        return np.asarray(opened.getchannel("A"), float) / 255


def correlate(shown: np.ndarray[Any, Any], text: np.ndarray[Any, Any]) -> float:
    """The largest correlation of the ink of a part of a picture with that of a text that fills it, moved by up to two pixels."""
    ground = np.median(shown)
    ink = np.abs(shown - ground)
    height, width = ink.shape
    scaled = np.asarray(Image.fromarray((255 * text).astype(np.uint8)).resize((width, height)), float)
    best = 0.0
    for down, right in product(range(-NEAR, NEAR + 1), repeat=2):
        moved = np.roll(scaled, (down, right), axis=(0, 1))
        if moved.std() and ink.std():
            best = max(best, float(np.corrcoef(moved.ravel(), ink.ravel())[0, 1]))
    return best


class TextReader:
    """Finds which of a picture's texts a part of it shows."""

    def __init__(self, fields: Mapping[str, Any], image: bytes) -> None:
        with Image.open(io.BytesIO(image)) as opened:
            self.level = np.asarray(opened.convert("L"), float)
        chart, font = fields["kind"] == "charts", fields["style"]["font"]
        self._forms = {
            text: [render_text(text, font, bold, chart=chart) for bold in (False, True)]
            for text in {str(text) for text, *_ in fields["layout"]["texts"]}
        }

    def is_shown(self, text: str, box: Sequence[float]) -> bool:
        """Whether the ink within a box, in thousandths, is like that of a text, and less like that of any other."""
        height, width = self.level.shape
        left, right = (round(min(max(end, 0), 1000) * width / 1000) for end in (box[0], box[2]))
        top, bottom = (round(min(max(end, 0), 1000) * height / 1000) for end in (box[1], box[3]))
        shown = self.level[top:bottom, left:right]
        if min(shown.shape) < LEAST_PIXELS:
            return False
        scores = {one: max(correlate(shown, form) for form in forms) for one, forms in self._forms.items()}
        return scores[text] >= LEAST_LIKENESS and scores[text] == max(scores.values())


def count_wrong_boxes(fields: Mapping[str, Any], image: bytes) -> BoxCounts:
    """Read the boxes that are answers, and for each of them wrong ones: `CONTROLS`, and the box of the text whose width is the
    nearest.
    """
    asked = [
        (one["program"]["row"], json.loads(one["answer"]))
        for one in fields["questions"]
        if one["program"]["op"] == "box"
    ]
    if not asked:
        return BoxCounts(0, 0, {})
    reader, found = TextReader(fields, image), Counter[str]()
    places = [(str(text), _find_ends(corners, fields["layout"])) for text, _, corners in fields["layout"]["texts"]]
    for text, box in asked:
        width, height = box[2] - box[0], box[3] - box[1]
        for name, (right, down) in CONTROLS.items():
            moved = [
                end + part * size for end, part, size in zip(box, (right, down) * 2, (width, height) * 2, strict=True)
            ]
            found[name] += not reader.is_shown(text, moved)
        others = [ends for other, ends in places if other != text]
        found["another text"] += not reader.is_shown(text, min(others, key=lambda one: abs(one[2] - one[0] - width)))
    wrong = sum(not reader.is_shown(text, box) for text, box in asked)
    return BoxCounts(len(asked), wrong, dict(found))


def _find_ends(corners: Sequence[Sequence[float]], layout: Mapping[str, Any]) -> list[float]:
    """Left, top, right and bottom of a text, in thousandths of its picture."""
    xs, ys = (
        [1000 * corner[axis] / layout[side] for corner in corners] for axis, side in enumerate(("width", "height"))
    )
    return [min(xs), min(ys), max(xs), max(ys)]


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
    boxes = [count_wrong_boxes(fields, image) for fields, image in zip(looks.kept, looks.images, strict=True)]
    found = sum((Counter(one.found) for one in boxes), Counter[str]())
    series = Counter(len(fields["table"]["columns"]) - 1 for fields in looks.kept)
    styles = {
        name: dict(Counter(fields["style"][name] for fields in looks.kept)) for name in ("font", "capture", "paper")
    }
    return "; ".join(
        [
            f"{kind}: {len(looks.kept)} of {number} kept at the first draw, refused {dict(looks.refused)}",
            f"median {width:g} x {height:g} pixels, {sum(map(len, looks.images)) / len(looks.images) / 1e3:.0f} kB",
            f"{steady} of {len(columns)} columns rise or fall throughout",
            f"{len({fields['title'] for fields in looks.kept})} titles",
            f"columns {dict(sorted(series.items()))}",
            f"{styles}",
            f"{sum(one.wrong for one in boxes)} of {sum(one.boxes for one in boxes)} boxes wrong; controls found: {dict(found)}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--drawn", type=int, default=0)
    asked = parser.parse_args()
    sys.stdout.write(f"{format_measurement(asked.pairs, asked.seed)}\n")
    for kind in KINDS if asked.drawn else ():
        sys.stdout.write(f"{format_looks(kind, asked.drawn)}\n")


if __name__ == "__main__":
    main()
