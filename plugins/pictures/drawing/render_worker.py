"""The program that renders pictures, one after the other, in a process of its own that may open no connection and write no file.
It reads requests and writes pictures. Knows no draft.

    python -m plugins.pictures.drawing.render_worker

A message is the length of its JSON in 4 bytes, the JSON, the length of its picture in 4 bytes, and the picture. It renders
specifications that `vega_charts` and `papers` built.
"""

import io
import json
import os
import platform
import resource
import struct
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from agents.sandbox.launcher import NO_NEW_PRIVS, call_libc, load_seccomp_filter
from agents.sandbox.system_calls import MACHINES, build_seccomp_filter
from plugins.pictures.drawing.captures import capture_picture
from plugins.pictures.drawing.svg_texts import DESCENT, find_text_boxes

MEMORY_BYTES = 3 << 30
"""Of data: several times what a picture takes, and less than makes a machine swap. V8 reserves addresses without using them, so
that they are not limited."""
OPEN_FILES = 128
MEASURED_SIZE = 100
"""Pixels of the letters whose widths are measured."""
PAPER_PPI = 96.0
PAPER_FILE = "paper.typ"
"""In the folder that the process is started in."""


class LetterWidths:
    """Widths of letters as resvg draws them, each measured once."""

    def __init__(self, font: str) -> None:
        self._font = font
        self._widths: dict[tuple[str, bool], float] = {}

    def measure(self, text: str, size: float, bold: bool) -> float:
        missing = sorted({letter for letter in text if (letter, bold) not in self._widths})
        if missing:
            self._measure_letters(missing, bold)
        return sum(self._widths[letter, bold] for letter in text) * size

    def _measure_letters(self, letters: list[str], bold: bool) -> None:
        """A letter is as wide as the distance that it adds between two bars."""
        import numpy as np
        import vl_convert
        from PIL import Image

        row = MEASURED_SIZE * 3 // 2
        lines = [f"|{letter}|" for letter in letters] + ["||"]
        drawn = "".join(
            f'<text xml:space="preserve" x="10" y="{row * place + MEASURED_SIZE}">{_escape(line)}</text>'
            for place, line in enumerate(lines)
        )
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{MEASURED_SIZE * 4}" height="{row * len(lines)}" '
            f'font-family="{self._font}" font-size="{MEASURED_SIZE}px" font-weight="{"bold" if bold else "normal"}">'
            f'<rect width="100%" height="100%" fill="white"/>{drawn}</svg>'
        )
        with Image.open(io.BytesIO(vl_convert.svg_to_png(svg, scale=1))) as image:
            dark = np.asarray(image.convert("L")) < 128
        ends = [np.flatnonzero(dark[row * place : row * (place + 1)].any(axis=0))[-1] for place in range(len(lines))]
        for letter, end in zip(letters, ends, strict=False):
            self._widths[letter, bold] = float(end - ends[-1]) / MEASURED_SIZE


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _render_chart(request: dict[str, Any]) -> tuple[list[dict[str, Any]], bytes]:
    import vl_convert

    svg = vl_convert.vegalite_to_svg(request["spec"], theme=request["theme"], allowed_base_urls=[])
    scale = request["scale"]
    texts = [
        {"text": box.text, "size": box.size * scale, "corners": [[x * scale, y * scale] for x, y in box.corners]}
        for box in find_text_boxes(svg, measure_letters(request["font"]).measure)
    ]
    return texts, vl_convert.svg_to_png(svg, scale=scale)


measure_letters = cache(LetterWidths)


def _render_paper(request: dict[str, Any], root: str) -> tuple[list[dict[str, Any]], bytes]:
    import typst

    own = "template" not in request
    compiler = typst.Compiler(
        f"{root}/{PAPER_FILE}" if own else request["template"].encode(),
        root=root,
        font_paths=typst.Fonts(include_system_fonts=False, include_embedded_fonts=True, font_paths=find_fonts()),
        sys_inputs={"data": request["data"]},
        package_path=root,
        package_cache_path=root,
    )
    scale = request.get("scale", 1.0)
    pages = compiler.compile(format="png", ppi=PAPER_PPI * scale)
    if not isinstance(pages, bytes):
        raise ValueError(f"it has {len(pages or ())} pages")  # noqa: TRY004
    marks = json.loads(compiler.query("<box>", field="value")) if own else []
    return [_build_paper_text(mark, PAPER_PPI * scale / 72) for mark in marks], pages


def _build_paper_text(mark: dict[str, Any], scale: float) -> dict[str, Any]:
    """A text with its corners in pixels. Typst measures from the top of the capitals to the line."""
    left, top, right = mark["x"], mark["y"], mark["x"] + mark["width"]
    bottom = mark["y"] + mark["height"] + DESCENT * mark["size"]
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return {
        "text": mark["text"],
        "size": mark["size"] * scale,
        "corners": [[round(x * scale, 1), round(y * scale, 1)] for x, y in corners],
    }


def find_fonts() -> list[str]:
    """The folder of Matplotlib's fonts."""
    found = find_spec("matplotlib")
    return [str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf")] if found and found.origin else []


def _encode_picture(drawn: bytes, request: dict[str, Any], texts: list[dict[str, Any]]) -> tuple[bytes, int, int]:
    """A picture with its pixels alone, without metadata or transparency, or as a scan or photo of it; its width and height."""
    from PIL import Image

    with Image.open(io.BytesIO(drawn)) as image:
        pixels = Image.new("RGB", image.size, "white")
        pixels.paste(image, mask=image.getchannel("A") if image.mode == "RGBA" else None)
    if request.get("capture"):
        gray = request["capture"] == "scan" and "spec" not in request  # colors tell the series of a chart apart
        jpeg = capture_picture(pixels, request["capture"], request["noise"], texts, gray=gray)
        return jpeg, pixels.width, pixels.height
    out = io.BytesIO()
    pixels.save(out, "PNG", optimize=True)
    return out.getvalue(), pixels.width, pixels.height


def _render_request(request: dict[str, Any], root: str) -> tuple[dict[str, Any], bytes]:
    try:
        texts, drawn = _render_chart(request) if "spec" in request else _render_paper(request, root)
        picture, width, height = _encode_picture(drawn, request, texts)
    except Exception as error:  # of a library: it is about this picture alone
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}, b""
    return {"texts": texts, "width": width, "height": height}, picture


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None at the end of the stream. Raises EOFError if the stream ends within it."""
    head = stream.read(4)
    if not head:
        return None
    body = _read_exactly(stream, struct.unpack("<I", head)[0])
    picture = _read_exactly(stream, struct.unpack("<I", _read_exactly(stream, 4))[0])
    return json.loads(body), picture


def _read_exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def write_message(stream: IO[bytes], values: dict[str, Any], picture: bytes = b"") -> None:
    body = json.dumps(values).encode()
    stream.write(struct.pack("<I", len(body)) + body + struct.pack("<I", len(picture)) + picture)
    stream.flush()


def _limit_process() -> None:
    """Take away what rendering does not need. Where the kernel has no filter of system calls, the other limits remain."""
    for which, limit in (
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (limit, limit))
    if sys.platform == "linux" and platform.machine() in MACHINES:
        call_libc("no_new_privs", "prctl", NO_NEW_PRIVS, 1, 0, 0, 0)
        load_seccomp_filter(build_seccomp_filter(platform.machine()))


def _register_fonts() -> None:
    import vl_convert

    for folder in find_fonts():
        vl_convert.register_font_directory(folder)


def _serve_pictures() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no picture
    _limit_process()
    _register_fonts()
    while message := read_message(requests):
        write_message(answers, *_render_request(message[0], os.getcwd()))  # noqa: PTH109


if __name__ == "__main__":
    _serve_pictures()
