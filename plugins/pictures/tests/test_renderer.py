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
            encoding = {
                "x": {"field": "label", "type": "nominal"},
                "y": {"field": "value", "type": "quantitative"},
            }
            spec = {"data": source, "mark": "bar", "encoding": encoding, "width": 200, "height": 100}
            facts, _ = renderer._exchange({"spec": spec, "theme": None})
            assert ("SECRETLABEL" in json.dumps(facts)) == ("values" in source), "the control shows its own values"
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.slow
def test_negative_bars_are_drawn_on_both_sides_of_zero_in_colours_of_the_theme(renderer: Renderer) -> None:
    draft = PictureDraft.model_validate({**TABLE, "chart": {"mark": "bar", "sort": "none"}})
    style = PictureStyle(theme="powerbi", font_size=11, values=True)
    drawing = renderer.draw(draft, "charts", style)
    tops = {box.text.replace("\u2212", "-"): box.corners[0][1] for box in drawing.texts}
    assert max(tops["34"], tops["41"]) < tops["0"] < tops["-29"]
    with Image.open(io.BytesIO(drawing.png)) as image:
        colours = {colour for count, colour in image.getcolors(1 << 20) or () if count > 200}
    assert (255, 255, 255) in colours, "the background is opaque"
    assert (0x11, 0x8D, 0xFF) in colours, "the first colour of powerbi"


@pytest.mark.slow
def test_seven_slices_have_seven_colours_in_every_theme(renderer: Renderer) -> None:
    names = ["Oak", "Elm", "Ash", "Yew", "Fir", "Box", "Lime"]
    draft = PictureDraft.model_validate(
        {**TABLE, "rows": [[name, 10 + place] for place, name in enumerate(names)], "chart": {"mark": "pie"}}
    )
    for theme in ("latimes", "urbaninstitute", "ggplot2", "dark"):
        drawing = renderer.draw(draft, "charts", PictureStyle(theme=theme, font_size=11))
        with Image.open(io.BytesIO(drawing.png)) as image:
            large = {colour for count, colour in image.getcolors(1 << 20) or () if count > 500}
        assert len(large) == len(names) + 1, "seven slices and the background"
