"""Where this project's own files are, and where a recipe's file names lead. Knows paths only."""

import os
import tomllib
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
"""The folder of this project's packages: a checkout, or site-packages."""
_IN_WHEEL = Path(__file__).resolve().parent / "shipped"
SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else PROJECT
"""The folder that has `data/` with the shipped seeds, documents and reference: the checkout, or a folder of the wheel."""

RUNS_FOLDER = os.environ.get("STILLHOUSE_RUNS") or "data/runs"
"""Default folder of runs; releases and students are stored next to it."""
NAMED_REFERENCES = ("python",)
"""Values of `collapse.reference` that are no file: `python` is the standard library of the running Python, as functions."""


def find_referenced_file(name: str, folder: Path) -> Path:
    """The file `name` of a recipe in `folder`: absolute, in that folder, in the working directory, or shipped with Stillhouse."""
    places = [folder / name, Path.cwd() / name, SHIPPED / name]
    return next((place for place in places if place.exists()), places[0])


def read_shipped_table(name: str) -> dict[str, Any]:
    """A TOML file of `SHIPPED`."""
    return tomllib.loads((SHIPPED / name).read_text(encoding="utf-8"))
