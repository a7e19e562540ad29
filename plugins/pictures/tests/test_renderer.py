"""The rendering process: what it may not reach, and that a picture which ends it fails alone."""

import io
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vl_convert", reason="needs the extra `pictures`")
pytest.importorskip("typst", reason="needs the extra `pictures`")


from PIL import Image

from plugins.pictures.drawing.drafts import MAX_NAME, PictureDraft
from plugins.pictures.drawing.renderer import MAX_SIDE, Renderer, RenderFailed
from plugins.pictures.drawing.styles import PictureStyle

STYLE = PictureStyle(theme="plain", font_size=13)
TABLE: dict[str, Any] = {
    "title": "Loaves sold",
    "columns": ["Day", "Rye"],
    "rows": [["Monday", 34], ["Tuesday", -29], ["Wednesday", 41]],
    "questions": [{"question": "On which day was Rye the highest?", "program": {"op": "argmax", "column": "Rye"}}],
}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer()
    yield renderer
    renderer.close()


def test_a_process_that_was_killed_fails_one_picture_and_is_started_again(renderer: Renderer) -> None:
    draft = PictureDraft.model_validate(TABLE)
    first = renderer.draw(draft, "tables", STYLE)
    assert renderer._process
    os.kill(renderer._process.pid, signal.SIGKILL)
    renderer._process.wait()
    with pytest.raises(RenderFailed, match="the rendering process ended"):
        renderer.draw(draft, "tables", STYLE)
    assert renderer.draw(draft, "tables", STYLE) == first


def test_a_picture_that_is_too_large_is_refused_with_its_size(renderer: Renderer) -> None:
    columns = ["Day", *(f"{place} {'W' * (MAX_NAME - 2)}" for place in range(5))]
    rows = [[f"{row} {'W' * (MAX_NAME - 3)}", 1, 2, 3, 4, 5] for row in range(3)]
    draft = PictureDraft.model_validate({**TABLE, "columns": columns, "rows": rows})
    with pytest.raises(RenderFailed, match=f"{MAX_SIDE:,} pixels a side") as failure:
        renderer.draw(draft, "tables", STYLE)
    assert "it has " in str(failure.value)


@pytest.mark.parametrize("capture", ["", "scan", "photo"])
def test_a_box_is_where_the_text_is_also_on_a_scan_or_photo(capture: str, renderer: Renderer) -> None:
    """The letters of a dark label are inside its box, and nothing but paper is next to it."""
    draft = PictureDraft.model_validate(TABLE)
    style = STYLE.model_copy(update={"capture": capture, "noise": 5, "scale": 2.0, "paper": "a4"})
    drawing = renderer.draw(draft, "tables", style)
    with Image.open(io.BytesIO(drawing.image)) as opened:
        assert opened.format == ("JPEG" if capture else "PNG")
        assert opened.size == (drawing.width, drawing.height)
        gray = opened.convert("L")
    boxes = {box.text: box for box in drawing.texts}
    assert {"Day", "Rye", "Monday", "-29"} <= boxes.keys()
    for label in ("Monday", "Tuesday", "Wednesday"):
        xs, ys = zip(*boxes[label].corners, strict=True)
        left, top, right, bottom = (round(place) for place in (min(xs), min(ys), max(xs), max(ys)))
        inside = gray.crop((left, top, right, bottom)).getextrema()
        outside = gray.crop((left - 12, top, left - 4, bottom)).getextrema()
        assert inside[0] < 110 < outside[0]


@pytest.mark.parametrize("reached", ['#read("{}")', '#image("{}")', '#include "{}"', '#import "@preview/x:1.0.0"'])
def test_a_template_that_reaches_for_a_file_gets_none(reached: str, renderer: Renderer, tmp_path: Path) -> None:
    """No draft becomes a template; if one ever did, its folder is empty and there is no network."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (str(secret), f"../../../../../..{secret}", "/etc/passwd"):
        facts, png = renderer._exchange({"template": reached.replace("{}", path), "data": "{}"})
        assert "error" in facts
        assert png == b""
        assert "secret" not in json.dumps(facts).replace(path, "")


@pytest.mark.slow
def test_a_specification_that_reaches_for_data_gets_none(renderer: Renderer, tmp_path: Path) -> None:
    """No draft becomes a specification; if one ever did, nothing outside would be read or called."""
    data = tmp_path / "rows.json"
    data.write_text(json.dumps([{"label": "SECRETLABEL", "value": 3}]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        web = f"http://127.0.0.1:{server.getsockname()[1]}/rows.json"
        for source in (
            {"values": json.loads(data.read_text())},
            *({"url": url} for url in (web, f"file://{data}", str(data))),
        ):
            encoding = {"x": {"field": "label", "type": "nominal"}, "y": {"field": "value", "type": "quantitative"}}
            spec = {"data": source, "mark": "bar", "encoding": encoding, "width": 200, "height": 100}
            facts, _ = renderer._exchange({"spec": spec, "theme": None, "scale": 1.0, "font": STYLE.font})
            assert ("SECRETLABEL" in json.dumps(facts)) == ("values" in source), "the control shows its own values"
        with pytest.raises(TimeoutError):
            server.accept()
