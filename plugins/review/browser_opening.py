"""Opens a page with a secret address in the user's browser. Knows no page."""

import html
import os
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _has_display() -> bool:
    """Whether a browser with windows can be opened. Without one, `webbrowser` may start a browser in the terminal."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def open_in_browser(url: str) -> Iterator[None]:
    """Open `url`, if there is a display. Other users of this machine can read a browser's arguments, so these name a file that
    only this user can read and that leads to the address; it is removed at the end.
    """
    if not _has_display():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="stillhouse-review-") as folder:  # only this user may enter it
        page = Path(folder) / "review.html"
        address = html.escape(url, quote=True)
        page.write_text(
            f'<!doctype html><meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url={address}">'
            f'<a href="{address}">review</a>',
            encoding="utf-8",
        )
        webbrowser.open(page.as_uri())
        yield
