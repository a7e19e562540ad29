"""Renders drafts as pictures, in a process of its own that is ended when it takes too long. Knows no question and no run."""

import atexit
import hashlib
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from typing import IO, Any, NamedTuple

from core.installation import format_install_command
from plugins.pictures.drawing import render_worker
from plugins.pictures.drawing.captures import MARGIN
from plugins.pictures.drawing.drafts import PictureDraft, PictureKind
from plugins.pictures.drawing.papers import TEMPLATE, build_paper_data
from plugins.pictures.drawing.render_worker import PAPER_FILE, read_message, write_message
from plugins.pictures.drawing.styles import PictureStyle
from plugins.pictures.drawing.svg_texts import TextBox
from plugins.pictures.drawing.vega_charts import build_chart_spec

RENDER_SECONDS = 180.0
"""For one picture, with the start of the process, which loads V8. A chart takes 0.2 seconds on an idle machine."""
MAX_SIDE = 2_400
"""Pixels of a picture's sides."""
MAX_PICTURE_BYTES = 4 << 20
LIBRARIES = {"vl_convert": "vl-convert-python", "typst": "typst", "PIL": "pillow", "matplotlib": "matplotlib"}


class RenderFailed(Exception):
    """A picture could not be rendered; the text gives the reason."""


class Drawing(NamedTuple):
    """A picture with what is known of its layout."""

    image: bytes
    """A PNG, or the JPEG of a scan or photo."""
    width: int
    height: int
    texts: list[TextBox]
    pixels_per_unit: float | None
    """Of a chart: how many pixels a difference of 1 in a value takes."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()


def renderer_problem() -> str | None:
    """Why nothing can be rendered here, in a sentence; None if it can."""
    missing = [name for module, name in LIBRARIES.items() if find_spec(module) is None]
    if not missing:
        return None
    return (
        f"pictures need the extra `pictures` ({', '.join(missing)} missing): run {format_install_command('pictures')}"
    )


class Renderer:
    """One rendering process, started when the first picture is drawn, and again after one that it did not survive."""

    def __init__(self, seconds: float = RENDER_SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def draw(self, draft: PictureDraft, kind: PictureKind, style: PictureStyle) -> Drawing:
        """The picture of a draft without a fault of `find_spec_fault`.

        Raises:
            RenderFailed: if a library refuses it, it takes too long, or the picture is too large.
        """
        pixels_per_unit = None
        request: dict[str, Any] = {"scale": style.scale, "capture": style.capture, "noise": style.noise}
        if kind == "charts":
            chart = build_chart_spec(draft, style)
            request |= {"spec": chart.spec, "theme": chart.theme, "font": style.font}
            shrunk = 1 - 2 * MARGIN if style.capture == "photo" else 1.0
            pixels_per_unit = chart.pixels_per_unit * style.scale * shrunk
        else:
            request["data"] = build_paper_data(draft, style)
        with self._lock:
            facts, picture = self._exchange(request)
        if "error" in facts:
            raise RenderFailed(f"it cannot be rendered: {facts['error']}")
        if max(facts["width"], facts["height"]) > MAX_SIDE or len(picture) > MAX_PICTURE_BYTES:
            size = f"{facts['width']:,} x {facts['height']:,} pixels and {len(picture):,} bytes"
            raise RenderFailed(f"it has {size}; {MAX_SIDE:,} pixels a side and {MAX_PICTURE_BYTES:,} bytes are allowed")
        texts = [TextBox(box["text"], box["size"], tuple(map(tuple, box["corners"]))) for box in facts["texts"]]
        return Drawing(picture, facts["width"], facts["height"], texts, pixels_per_unit)

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):  # what was not yet sent is lost with it
                    if pipe:
                        pipe.close()
            self._process = None
        if self._folder:
            self._folder.cleanup()
            self._folder = None

    def _exchange(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        process = self._process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        try:
            write_message(process.stdin, request)
            answer = read_message(_TimedReader(process.stdout, time.monotonic() + self._seconds))  # type: ignore[arg-type]
        except TimeoutError:
            self.close()
            raise RenderFailed(f"it took longer than {self._seconds:g} seconds to render") from None
        except (OSError, EOFError, ValueError):
            answer = None
        if answer is None:
            self.close()
            raise RenderFailed("the rendering process ended: the picture took too much memory, or crashed a library")
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        """Start the process in a folder with the template alone, with an environment that has no secret of this one."""
        self._folder = tempfile.TemporaryDirectory()
        shutil.copyfile(TEMPLATE, f"{self._folder.name}/{PAPER_FILE}")
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT") if name in os.environ
        }
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)  # noqa: PTH109
        command = [sys.executable, "-m", render_worker.__name__]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, "PYTHONPATH": paths},
            cwd=self._folder.name,
            start_new_session=True,
        )


class _TimedReader:
    """Reads a pipe until a deadline."""

    def __init__(self, pipe: IO[bytes], deadline: float) -> None:
        self._descriptor, self._deadline = pipe.fileno(), deadline

    def read(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end. Raises TimeoutError at the deadline."""
        content = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while len(content) < count:
                if not selector.select(max(0.0, self._deadline - time.monotonic())):
                    raise TimeoutError
                chunk = os.read(self._descriptor, count - len(content))
                if not chunk:
                    break
                content += chunk
        return content


@cache
def shared_renderer() -> Renderer:
    """The renderer of this process, which ends with it."""
    renderer = Renderer()
    atexit.register(renderer.close)
    return renderer
