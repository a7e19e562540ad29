"""A page in a headless browser, where one is installed."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")
BROWSERS_OWN = "not an origin"
"""Who asked, where no page did: browsers run errands of their own."""


def complaints(page: Path, profile: Path) -> tuple[list[str], list[str]]:
    """What a browser writes on its console of the page, and what the page asks the network for. Skips where there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    log = profile.with_suffix(".json")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = ["--headless", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"]
    command = [browser, *options, *as_root, f"--user-data-dir={profile}", f"--log-net-log={log}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    assert "</main>" in done.stdout
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    pages = [one["url"] for one in asked if one.get("initiator", BROWSERS_OWN) != BROWSERS_OWN]
    return re.findall(r"CONSOLE.*", done.stderr), [url for url in pages if url.startswith("http")]
