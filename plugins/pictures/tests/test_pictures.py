"""The family `pictures` with its real renderers: what is drawn is checked, and what was changed afterwards is found."""

import asyncio
import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vl_convert", reason="needs the extra `pictures`")
pytest.importorskip("typst", reason="needs the extra `pictures`")

import numpy as np
from PIL import Image

from agents.checks import Subject
from benchmarks.picture_answers import CONTROLS, count_wrong_boxes
from core.sample import Candidate, SampleStatus, Seed
from core.storage.image_files import JPEG_START, decode_image_url, is_stored_image, read_image, store_sample_images
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.pictures.drawing.drafts import PictureDraft
from plugins.pictures.drawing.renderer import RENDER_SECONDS, Renderer, RenderFailed
from plugins.pictures.drawing.styles import PictureStyle
from plugins.pictures.families.pictures import PicturesFamily
from plugins.pictures.statistics import measure_pictures
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, produce_scripted

INVOICE: dict[str, Any] = {
    "title": "Invoice of Alder & Sons",
    "columns": ["Item", "Quantity", "Amount (€)"],
    "rows": [["Bolts", 12, 40.8], ["Nuts", 40, 44], ["Hinges", 3, 18.9]],
    "template": "invoice",
    "fields": [{"name": "Invoice number", "text": "A-4711"}],
    "questions": [
        {"question": "What is the Invoice number?", "program": {"op": "field", "row": "Invoice number"}},
        {"question": "What is the sum of Amount (€)?", "program": {"op": "sum", "column": "Amount (€)"}},
        {"question": "Which item has the largest Amount (€)?", "program": {"op": "argmax", "column": "Amount (€)"}},
    ],
}
STYLE = PictureStyle(theme="plain", font_size=11).model_dump()


def fault(candidate: Candidate, name: str) -> str | None:
    check = next(check for check in PicturesFamily.checks if check.name == name)
    subject = Subject(Seed(id="x-000000", data={}), candidate, None)  # type: ignore[arg-type]
    (finding,) = asyncio.run(check.findings(subject, check.options()))
    return None if finding.passed else finding.evidence


def draw(draft: dict[str, Any], kind: str = "documents") -> Candidate:
    seed = Seed(id="x-000000", data={"kind": kind, "style": STYLE, "wanted": 3})
    return PicturesFamily().candidate(seed, PictureDraft.model_validate(draft))


def with_field(candidate: Candidate, **changed: Any) -> Candidate:
    return candidate.model_copy(update={"fields": {**json.loads(json.dumps(candidate.fields)), **changed}})


def test_an_invoice_is_drawn_asked_about_and_every_later_change_is_found() -> None:
    candidate = draw(INVOICE)
    assert [message.content for message in candidate.messages[1::2]] == ["A-4711", "103.7", "Nuts"]
    assert [len(message.images) for message in candidate.messages] == [1, 0, 0, 0, 0, 0]
    for name in ("spec", "legible", "computed", "self_contained", "not_in_words"):
        assert fault(candidate, name) is None
    png = base64.b64decode(candidate.messages[0].images[0].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert pixels.std() > 10, "it is not blank"
    assert list_chunks(png) <= {"IHDR", "IDAT", "IEND", "PLTE"}, "no metadata could hold an answer"
    assert draw(INVOICE).messages == candidate.messages, "the same bytes each time"

    changed = json.loads(json.dumps(candidate.fields["draft"]))
    changed["rows"][2][2] = 118.9
    assert "is answered with '103.7', and its program computes '203.7'" in str(
        fault(with_field(candidate, draft=changed), "computed")
    )
    asked = [{**candidate.fields["questions"][1], "question": "And what is the sum again?"}]
    assert "needs another text: 'again'" in str(fault(with_field(candidate, questions=asked), "self_contained"))
    asked = [{**candidate.fields["questions"][0], "question": "Is A-4711 the Invoice number?"}]
    assert "contains its answer 'A-4711'" in str(fault(with_field(candidate, questions=asked), "not_in_words"))


def list_chunks(png: bytes) -> set[str]:
    kinds, place = set(), 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        kinds.add(png[place + 4 : place + 8].decode())
        place += 12 + length
    return kinds


def test_questions_without_a_certain_answer_are_left_out_and_a_picture_without_questions_fails() -> None:
    tie = {**INVOICE, "rows": [["Bolts", 12, 44], ["Nuts", 40, 44]]}
    candidate = draw(tie)
    assert [asked["program"]["op"] for asked in candidate.fields["questions"]] == ["field", "sum"]
    assert "a tie" in candidate.fields["left_out"][0]["reason"]
    none = draw({**tie, "questions": INVOICE["questions"][2:]})
    assert none.messages == []
    assert "no question is left" in str(fault(none, "computed"))


def test_a_draft_that_cannot_be_drawn_is_not_rendered() -> None:
    candidate = draw({**INVOICE, "title": "Invoice file:///etc/passwd"})
    assert candidate.messages == []
    assert "no address, path, markup or expression" in str(fault(candidate, "spec"))


def test_a_picture_that_takes_too_long_fails_alone() -> None:
    draft, style = PictureDraft.model_validate(INVOICE), PictureStyle.model_validate(STYLE)
    renderer = Renderer(seconds=0.0)
    try:
        with pytest.raises(RenderFailed, match="took longer than 0 seconds"):
            renderer.draw(draft, "documents", style)
        renderer._seconds = RENDER_SECONDS
        assert renderer.draw(draft, "documents", style).width > 100, "the process was started again"
    finally:
        renderer.close()


@pytest.mark.slow
def test_a_chart_is_drawn_with_every_label_and_crowded_labels_are_found() -> None:
    chart = {
        "title": "Loaves sold",
        "columns": ["Day", "Rye"],
        "rows": [["Monday", 34], ["Tuesday", 29], ["Wednesday", 41]],
        "chart": {"mark": "bar", "sort": "descending"},
        "questions": [{"question": "On which day was Rye the highest?", "program": {"op": "argmax", "column": "Rye"}}],
    }
    candidate = draw(chart, "charts")
    assert [message.content for message in candidate.messages[1::2]] == ["Wednesday"]
    assert fault(candidate, "legible") is None
    labels = [text for text, *_ in candidate.fields["layout"]["texts"]]
    assert [text for text in labels if text in ("Monday", "Tuesday", "Wednesday")] == ["Wednesday", "Monday", "Tuesday"]
    crowded = {**chart, "rows": [[f"A quite long label number {n}", n] for n in range(9)]}
    assert "overlap or run together" in str(fault(draw(crowded, "charts"), "legible"))


def test_a_teacher_writes_data_and_never_answers(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"topic": "hardware"}\n{"topic": "tools", "persona": "a clerk"}\n')
    plan = load_recipe_plan("documents", [f"seeds.path={seeds}", "samples=2", "teachers.main.model=fake/writer"])
    replies = iter([{**INVOICE, "template": "poster"}, INVOICE, {**INVOICE, "rows": [["Bolts", 1, 2]]}, INVOICE])

    def answer(_question: TeacherQuestion) -> str:
        return json.dumps(next(replies, INVOICE))

    teacher = ScriptedTeacher(answer)
    samples = [store_sample_images(tmp_path, sample) for sample in produce_scripted(plan, teacher, tmp_path)]
    assert [sample.state for sample in samples] == [SampleStatus.kept] * 2
    assert len(teacher.asked) >= 3, "a reply with an unknown template was repaired"
    for sample in samples:
        (name,) = sample.candidate.messages[0].images
        assert is_stored_image(name)
        start = JPEG_START if sample.seed.data["style"]["capture"] else b"\x89PNG"
        assert read_image(name, [tmp_path]).startswith(start)
    record = measure_pictures(samples)
    assert record is not None
    assert (record.pictures, record.forms, record.leaks) == (2, {"invoice": 2}, None)


def test_a_second_teacher_who_reads_a_question_in_another_way_refuses_it(tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"topic": "hardware"}\n')
    checks = 'verifiers=[{type="spec"},{type="computed"},{type="program_fits"}]'
    plan = load_recipe_plan(
        "documents",
        [f"seeds.path={seeds}", "samples=1", "topology.max_revisions=0", "teachers.main.model=fake/writer", checks],
    )
    largest = {"op": "argmax", "column": "Quantity"}

    def answer(question: TeacherQuestion) -> str:
        text = question.messages[-1].content
        if "Columns:" not in text:
            return json.dumps(INVOICE)
        asked = next(one for one in INVOICE["questions"] if one["question"] in text)
        return json.dumps({"program": largest if "Which item" in text else asked["program"]})

    (sample,) = produce_scripted(plan, ScriptedTeacher(answer), tmp_path)
    assert sample.state is SampleStatus.kept, "the item with the largest quantity is the one with the largest amount"
    largest["op"] = "argmin"
    (tmp_path / "again").mkdir()
    (sample,) = produce_scripted(plan, ScriptedTeacher(answer), tmp_path / "again")
    assert (sample.state, sample.detail) == (SampleStatus.dropped, "program_fits")
    assert "gives 'Hinges' and not 'Nuts'" in sample.verdicts[-1].evidence


def test_a_place_is_asked_only_for_a_text_that_the_picture_shows_once() -> None:
    """Bolts is also in the name of a customer, whose text has no box."""
    family = PicturesFamily()
    places = [
        {"question": f"Point at the text {name}?", "program": {"op": "box", "row": name}} for name in ("Bolts", "Nuts")
    ]
    customer = {"name": "Customer", "text": "Bolts & Co."}
    draft = {**INVOICE, "fields": [*INVOICE["fields"], customer], "questions": places}
    style = PictureStyle(theme="plain", font_size=11, paper="a4", scale=1.5).model_dump()
    seed = Seed(id="x-000000", data={"kind": "documents", "style": style})
    fields = family.candidate(seed, PictureDraft.model_validate(draft)).fields
    assert [one["question"] for one in fields["left_out"]] == ["Point at the text Bolts?"]
    left, top, right, bottom = json.loads(fields["questions"][0]["answer"])
    assert 0 < left < right < 300
    assert 0 < top < bottom < 400
    assert bottom - top < 20


def test_the_label_of_a_form_has_the_box_of_its_words_without_the_colon() -> None:
    """Read from the picture; the controls are boxes of another text, and moved ones."""
    family, name = PicturesFamily(), "Department"
    asked = [{"question": f"Where is the text {name}?", "program": {"op": "box", "row": name}}]
    draft = {**INVOICE, "template": "form", "fields": [{"name": name, "text": "Support"}], "questions": asked}
    style = PictureStyle(theme="plain", font="New Computer Modern", font_size=13, paper="a4", scale=1.5).model_dump()
    seed = Seed(id="x-000000", data={"kind": "documents", "style": style})
    candidate = family.candidate(seed, PictureDraft.model_validate(draft))
    counts = count_wrong_boxes(candidate.fields, decode_image_url(candidate.images[0]))
    assert (counts.boxes, counts.wrong) == (1, 0)
    assert counts.found == {**dict.fromkeys(CONTROLS, 1), "another text": 1}
