"""A page in a headless browser, if a browser is installed."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")
BROWSERS_OWN = "not an origin"
"""The initiator of a request that comes from the browser itself."""


def collect_browser_complaints(page: Path, profile: Path) -> tuple[list[str], list[str]]:
    """The browser's console messages about the page, and the URLs that the page requests. Skips if no browser is installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    log = profile.with_suffix(".json")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = ["--headless", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"]
    command = [browser, *options, *as_root, f"--user-data-dir={profile}", f"--log-net-log={log}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=True)
    assert "</main>" in done.stdout
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    pages = [one["url"] for one in asked if one.get("initiator", BROWSERS_OWN) != BROWSERS_OWN]
    return re.findall(r"CONSOLE.*", done.stderr), [url for url in pages if url.startswith("http")]
