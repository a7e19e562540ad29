"""Questions about pictures of charts, tables and documents, whose every answer is computed from the data that the picture is
drawn from. Drafts are drawn by seed, or written by a teacher who is never asked for an answer. Knows no teacher.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from agents.checks import Options, Subject, check
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.reply_schema import ReplySchema
from core.sample import Candidate, Message, Seed
from core.storage.image_files import format_image_url
from plugins.pictures.drawing.drafts import MAX_QUESTIONS, Mark, PictureDraft, PictureKind, find_spec_fault
from plugins.pictures.drawing.legibility import find_layout_fault, find_mark_fault, find_reading_fault
from plugins.pictures.drawing.procedural_drafts import draw_draft
from plugins.pictures.drawing.queries import (
    PLACE_OPERATIONS,
    NoAnswer,
    Query,
    compute_answer,
    format_decimal,
    to_decimal,
)
from plugins.pictures.drawing.renderer import Drawing, RenderFailed, renderer_problem, shared_renderer
from plugins.pictures.drawing.styles import CHART_THEMES, PAPER_THEMES, PictureStyle, draw_style
from plugins.pictures.drawing.svg_texts import TextBox
from plugins.pictures.drawing.vega_charts import writes_values

DEFAULT_MARKS: Mapping[Mark, int] = {"bar": 4, "horizontal_bar": 2, "line": 3, "point": 1, "area": 1, "pie": 1}
BACK_REFERENCE = re.compile(
    r"\b(?:previous|above question|earlier question|last question|same question|question \d|(?:your|the) (?:last|first) answer|"
    r"as before|again|the (?:json|program|draft|seed))\b",
    re.IGNORECASE,
)
"""Words of a question that need another question, or what the picture was made from."""
COUNTED_OPERATIONS = frozenset({"count_where", "rank", "trend"})
"""Operations whose few answers may be in a question by chance: a limit of 3, or place 1. To drop those would make the others more
likely."""
ROUNDING = re.compile(r"rounded to \d+", re.IGNORECASE)
MAX_ROW_SEED = 2**48
LEVEL = 0.06
"""How much a text may rise or fall on its length. Of a steeper one, a box is mostly empty."""
PROMPTS = Path(__file__).parents[1] / "prompts"


class PicturesOptions(Options):
    kind: PictureKind = "charts"
    pictures: int = Field(1000, ge=1, le=1_000_000)
    """Seeds, without a seeds file."""
    questions: int = Field(3, ge=1, le=MAX_QUESTIONS)
    """Per picture."""
    marks: dict[Mark, int] = Field({})
    """By weight. Default: all."""
    themes: dict[str, int] = Field({})
    """By weight. Default: all."""
    value_labels: float = Field(0.6, ge=0, le=1)
    """Share of charts with values at marks."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        known = CHART_THEMES if self.kind == "charts" else PAPER_THEMES
        if unknown := sorted(self.themes.keys() - set(known)):
            raise ValueError(f"no theme {', '.join(unknown)} for {self.kind}; there are {', '.join(known)}")
        if self.marks and self.kind != "charts":
            raise ValueError(f"marks are those of charts, and the kind is {self.kind}; leave them out")
        if min([*self.themes.values(), *self.marks.values()], default=1) < 1:
            raise ValueError("a weight must be 1 or more; leave out what is not wanted")
        if problem := renderer_problem():
            raise ValueError(problem)
        return self


@check("spec")
def spec_check(subject: Subject, _options: Options) -> str | None:
    """The draft is one that can be drawn: names that differ, numbers of a sane size, letters that the fonts have, and no address,
    path, markup or expression in any text.
    """
    return find_spec_fault(_read_draft(subject), subject.candidate.fields["kind"])


@check("computed")
def computed_check(subject: Subject, _options: Options) -> str | None:
    """Each answer is what its program computes from the stored table, and at least one question has an answer that can be read
    from the picture.
    """
    fields = subject.candidate.fields
    if not fields["layout"]:
        return "nothing is drawn that could have an answer"
    draft, layout = _read_draft(subject), fields["layout"]
    table = draft.table._replace(boxes=_find_boxes(draft, _read_texts(layout), layout["width"], layout["height"]))
    answers = [message.content for message in subject.candidate.messages if message.role == "assistant"]
    for asked, written in zip(fields["questions"], answers, strict=True):
        try:
            computed = compute_answer(Query.model_validate(asked["program"]), table)
        except NoAnswer as reason:
            return f"{asked['question']!r} has no answer: {reason}"
        if not computed == asked["answer"] == written:
            return f"{asked['question']!r} is answered with {written!r}, and its program computes {computed!r}"
    if not answers:
        left_out = "; ".join(f"{asked['question']!r}: {asked['reason']}" for asked in fields["left_out"])
        return f"no question is left: {left_out or 'none was asked'}"
    return None


@check("legible")
def legible_check(subject: Subject, _options: Options) -> str | None:
    """No text of the picture is too small, cut off or covered by another, and each answer can be read from it."""
    fields = subject.candidate.fields
    layout = fields["layout"]
    if not layout:
        return fields["render_fault"] or "nothing is rendered"
    draft, style, pixels = _read_draft(subject), PictureStyle.model_validate(fields["style"]), layout["pixels_per_unit"]
    if fault := find_layout_fault(_read_texts(layout), layout["width"], layout["height"], blurred=bool(style.capture)):
        return fault
    if draft.chart and pixels and (fault := find_mark_fault(draft.table, draft.chart.mark, pixels)):
        return fault
    for asked in fields["questions"]:
        if fault := _find_reading_fault(draft, style, Query.model_validate(asked["program"]), pixels):
            return f"{asked['question']!r}: {fault}"
    return None


@check("self_contained", languages=("en",))
def self_contained_check(subject: Subject, _options: Options) -> str | None:
    """Each question can be asked alone: it names the column, rows and limit that its program uses, and no other question."""
    draft = _read_draft(subject)
    for asked in subject.candidate.fields["questions"]:
        if fault := _find_dependence_fault(asked["question"], Query.model_validate(asked["program"]), draft):
            return f"{asked['question']!r} {fault}"
    return None


@check("not_in_words", languages=("en",))
def not_in_words_check(subject: Subject, _options: Options) -> str | None:
    """No question has its answer in its own words. Whether a blind model answers more questions than chance is measured over
    the whole dataset.
    """
    for asked in subject.candidate.fields["questions"]:
        own_words = ROUNDING.sub("", asked["question"])
        if asked["program"]["op"] not in COUNTED_OPERATIONS and _contains(own_words, asked["answer"]):
            return f"{asked['question']!r} contains its answer {asked['answer']!r}"
    return None


class QueryReply(ReplySchema):
    """The query that a question asks for."""

    program: Query


class ProgramOptions(Options):
    temperature: float = Field(0.0, ge=0, le=2)


@check("program_fits", ProgramOptions, calls=lambda _options: MAX_QUESTIONS, roles=("verifier",))
async def program_fits_check(subject: Subject, options: ProgramOptions) -> str | None:
    """A second teacher, who sees a question and the names of columns and fields, writes a query with the same result."""
    table = _read_draft(subject).table
    names = {"columns": list(table.columns), "fields": list(table.fields)}
    for which, asked in enumerate(subject.candidate.fields["questions"]):
        values = {"question": asked["question"], **{key: json.dumps(names[key], ensure_ascii=False) for key in names}}
        reply = await subject.ask("verifier", QueryReply, values, which=which, temperature=options.temperature)
        if reply is None:
            return f"{asked['question']!r}: the verifier wrote no query that can be read"
        written = json.dumps(reply.program.model_dump(exclude_defaults=True), ensure_ascii=False)
        try:
            answer = compute_answer(reply.program, table)
        except NoAnswer as reason:
            return f"{asked['question']!r} reads as {written}, which has no answer: {reason}"
        if answer != asked["answer"]:
            return f"{asked['question']!r} reads as {written}, which gives {answer!r} and not {asked['answer']!r}"
    return None


def _find_dependence_fault(question: str, query: Query, draft: PictureDraft) -> str | None:
    """Why a question cannot be asked alone, in words."""
    if reference := BACK_REFERENCE.search(question):
        return f"needs another text: {reference[0]!r}"
    if not question.rstrip().endswith(("?", ".")):
        return "ends neither with a question mark nor with a full stop"
    named = [query.row, query.other]
    if query.op not in ("field", "table", *PLACE_OPERATIONS) and len(draft.columns) > 2:
        named.append(query.column)
    limits = [limit for limit in (query.above, query.below) if limit is not None]
    named += [format_decimal(to_decimal(limit)) for limit in limits]
    missing = [name for name in named if name and not _contains(question, name)]
    return f"does not name {missing[0]!r}, which its program uses" if missing else None


def _read_texts(layout: Mapping[str, Any]) -> list[TextBox]:
    return [TextBox(text, size, tuple(map(tuple, corners))) for text, size, corners in layout["texts"]]


def _find_boxes(draft: PictureDraft, texts: Sequence[TextBox], width: int, height: int) -> dict[str, list[int]]:
    """Left, top, right and bottom of the texts that are about level and in no other text, in thousandths of the picture."""
    shown = [box.text for box in texts]
    if not draft.chart:  # whose texts have all a box
        shown += [draft.title, draft.note, draft.paragraph, *(field.text for field in draft.fields)]
    boxes = {}
    for box in texts:
        (x1, y1), (x2, y2), *_ = box.corners
        if abs(y2 - y1) <= LEVEL * abs(x2 - x1) and sum(_contains(text, box.text) for text in shown) == 1:
            xs, ys = ([place[axis] for place in box.corners] for axis in (0, 1))
            ends = (min(xs) / width, min(ys) / height, max(xs) / width, max(ys) / height)
            boxes[box.text] = [min(max(round(1000 * end), 0), 1000) for end in ends]
    return boxes


def _contains(text: str, part: str) -> bool:
    """Whether a text has another as whole words, in any case; thousands of a number may be separated."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return re.search(rf"(?<![\w.]){re.escape(part)}(?![\w]|\.\d)", plain, re.IGNORECASE) is not None


def _read_draft(subject: Subject) -> PictureDraft:
    return PictureDraft.model_validate(subject.candidate.fields["draft"])


def _find_reading_fault(
    draft: PictureDraft, style: PictureStyle, query: Query, pixels_per_unit: float | None
) -> str | None:
    if draft.chart is None or pixels_per_unit is None:
        return None
    return find_reading_fault(query, draft.table, draft.chart.mark, pixels_per_unit, values=writes_values(draft, style))


class PicturesFamily(RecipeFamily):
    name = "pictures"
    prompts = PROMPTS / "pictures"
    options = PicturesOptions
    seeded_by = ("path", "itself")
    draws_drafts = True
    has_images = True
    extra = "pictures"
    checks = (spec_check, computed_check, legible_check, self_contained_check, not_in_words_check, program_fits_check)
    fields = ("title", "table", "questions")
    defaults: ClassVar[Mapping[str, Any]] = {
        "collapse": {"structures": False, "kind": "prose"},
        "agents": {"generator": {"max_tokens": 900, "examples": 2}, "critic": False, "verifier": {"max_tokens": 200}},
        "verifiers": [
            {"type": "spec"},
            {"type": "legible"},
            {"type": "computed"},
            {"type": "self_contained"},
            {"type": "not_in_words"},
        ],
        "filters": [],
    }

    def rows(self, options: PicturesOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        return [
            {"made": number}
            for number in Random(f"{seed}/pictures/{options.kind}").sample(range(MAX_ROW_SEED), options.pictures)
        ]

    def condition(self, row: Mapping[str, Any], options: PicturesOptions, rng: Random) -> dict[str, Any]:
        style = draw_style(rng, options.kind, options.themes, options.value_labels).model_dump()
        mark = _draw_mark(rng, options) if options.kind == "charts" else ""
        common = {"kind": options.kind, "style": style, "wanted": options.questions}
        if "made" not in row:
            persona = {"persona": require_text(row, "persona")} if "persona" in row else {}
            return {"topic": require_text(row, "topic"), **persona, "mark": mark, **common}
        if type(row["made"]) is not int or not 0 <= row["made"] < MAX_ROW_SEED:
            raise UnusableSeedRow(f"'made' with a whole number, not {str(row['made'])[:40]!r}")
        return {"made": row["made"], "draw": rng.getrandbits(32), "mark": mark, **common}

    def draw_draft(self, seed: Seed, revision: int) -> dict[str, Any] | None:
        data = seed.data
        if "made" not in data:
            return None
        rng = Random(f"{data['made']}/{data['draw']}/{revision}")
        style = data["style"]
        page = bool(style.get("paper"))
        return draw_draft(rng, data["kind"], data["wanted"], data["mark"], values=style["values"], page=page)

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return PictureDraft

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        """`topic`, of seeds that have one; `reader`: for whom it is; `form`: what the draft has to have."""
        data = seed.data
        forms = {
            "charts": f'"chart": {{"mark": "{data["mark"]}", "sort": "none"}}',
            "tables": "a table with 2 to 4 columns of numbers, and no chart",
            "documents": '"template": "invoice", "form", "report" or "receipt", and "fields" with 2 to 5 names and texts',
        }
        return {
            "topic": data.get("topic", "any"),
            "reader": data.get("persona", "someone who knows the subject"),
            "form": forms[data["kind"]],
        }

    def candidate(self, seed: Seed, draft: PictureDraft) -> Candidate:
        kind, style = seed.data["kind"], PictureStyle.model_validate(seed.data["style"])
        drawing: Drawing | None = None
        render_fault = ""
        if find_spec_fault(draft, kind) is None:
            try:
                drawing = shared_renderer().draw(draft, kind, style)
            except RenderFailed as failure:
                render_fault = str(failure)
        pixels = drawing.pixels_per_unit if drawing else None
        boxes = _find_boxes(draft, drawing.texts, drawing.width, drawing.height) if drawing else {}
        kept, left_out = _answer_questions(draft, boxes, style, pixels) if drawing else ([], [])
        fields = {
            "kind": kind,
            "title": draft.title,
            "table": {"columns": draft.columns, "rows": draft.table.rows} if drawing else {},
            "draft": draft.model_dump(mode="json", exclude_defaults=True),
            "style": seed.data["style"],
            "questions": kept,
            "left_out": left_out,
            "layout": _describe_layout(drawing) if drawing else {},
            "render_fault": render_fault,
        }
        messages = _build_turns(kept, format_image_url(drawing.image)) if drawing and kept else []
        return Candidate(messages=messages, fields=fields)


def _draw_mark(rng: Random, options: PicturesOptions) -> Mark:
    weights = options.marks or DEFAULT_MARKS
    return rng.choices(list(weights), list(weights.values()))[0]


def _answer_questions(
    draft: PictureDraft, boxes: Mapping[str, Sequence[int]], style: PictureStyle, pixels_per_unit: float | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The questions with a certain answer that can be read from the picture, and the others with the reason."""
    kept: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for asked in draft.questions:
        program = asked.program.model_dump(exclude_defaults=True)
        try:
            answer = compute_answer(asked.program, draft.table._replace(boxes=boxes))
            reason = _find_reading_fault(draft, style, asked.program, pixels_per_unit)
        except NoAnswer as fault:
            answer, reason = "", str(fault)
        if reason is None and any(other["question"].casefold() == asked.question.casefold() for other in kept):
            reason = "it is asked twice"
        if reason:
            left_out.append({"question": asked.question, "program": program, "reason": reason})
        else:
            kept.append({"question": asked.question, "program": program, "answer": answer})
    return kept, left_out


def _describe_layout(drawing: Drawing) -> dict[str, Any]:
    texts = [[box.text, box.size, box.corners] for box in drawing.texts]
    return {
        "width": drawing.width,
        "height": drawing.height,
        "texts": texts,
        "pixels_per_unit": drawing.pixels_per_unit,
        "sha256": drawing.sha256,
    }


def _build_turns(questions: Sequence[Mapping[str, Any]], image: str) -> list[Message]:
    """A conversation about one picture, which is in its first turn."""
    turns: list[Message] = []
    for asked in questions:
        images = () if turns else (image,)
        turns.append(Message(role="user", content=asked["question"], images=images))
        turns.append(Message(role="assistant", content=asked["answer"]))
    return turns
