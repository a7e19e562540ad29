"""What `assess` finds in pictures: charts of the recipe in one theme next to charts in all themes, planted duplicates, and
pictures of a held-out set, each with a control.

    python -m benchmarks.image_styles [--charts N]
"""

import argparse
import base64
import io
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from PIL import Image

from benchmarks.image_duplicates import CHANGES
from benchmarks.machine import describe_measurement
from core.project_files import PROJECT
from core.runs.image_assessment import ImageAssessment, ImageStyle
from core.storage.image_files import IMAGES_FOLDER
from flows.evaluate.image_assessment import assess_images, compare_pictures, read_pictures
from flows.terminal.console import SESSION

CHARTS = 200
PLANTED = 50
SEED = 7
ALL, AGAIN = "all 12 themes", "all 12 themes, other data"
ARMS: Mapping[str, Sequence[str]] = {
    "one theme: `plain`": ["task.themes={plain=1}"],
    "one theme: `dark`": ["task.themes={dark=1}"],
    ALL: [],
    AGAIN: [f"seed={SEED + 1}"],
}
"""Settings of each run. Runs of one seed have the same tables, marks and sizes."""
PLANTED_CHANGES = ("saved again as PNG", "JPEG, quality 75", "one and a half times", "half the width and height")


class MeasuredArm(NamedTuple):
    name: str
    files: list[Path]
    style: ImageStyle


def run_charts(runs: Path, number: int, charts: int, settings: Sequence[str]) -> list[Path]:
    """The pictures of a run of the recipe."""
    words = [word for setting in (f"samples={charts}", f"name=arm-{number}", *settings) for word in ("--set", setting)]
    command = [sys.executable, "-m", "stillhouse", "run", "charts", *words, "--runs-dir", str(runs), "--quiet"]
    subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    [run] = runs.glob(f"arm-{number}-*")
    return sorted((run / IMAGES_FOLDER).rglob("*.png"))


def write_image_rows(path: Path, contents: Sequence[bytes]) -> Path:
    with path.open("w") as rows:
        for number, content in enumerate(contents):
            url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            rows.write(json.dumps({"text": f"Picture {number}.", "image": url}) + "\n")
    return path


def assess_contents(path: Path, contents: Sequence[bytes], reference: Path | None = None) -> ImageAssessment:
    found = assess_images(write_image_rows(path, contents), str(reference) if reference else None)
    assert found
    return found


def measure_arms(folder: Path, charts: int) -> list[MeasuredArm]:
    """Each arm at the number of pictures of the smallest one; then all themes with the rows in another order."""
    files = {name: run_charts(folder, number, charts, words) for number, (name, words) in enumerate(ARMS.items())}
    size = min(map(len, files.values()))
    arms = []
    for name, pictures in files.items():
        Random(SEED).shuffle(pictures)
        style = assess_contents(folder / "rows.jsonl", [file.read_bytes() for file in pictures[:size]]).style
        assert style
        arms.append(MeasuredArm(name, pictures[:size], style))
    turned = list(reversed(arms[list(ARMS).index(ALL)].files))
    style = assess_contents(folder / "rows.jsonl", [file.read_bytes() for file in turned]).style
    assert style
    return [*arms, MeasuredArm(f"{ALL}, rows in reverse order", turned, style)]


def plant_copies(contents: Sequence[bytes], folder: Path) -> list[str]:
    """Rows of the table of planted copies."""
    rows = []
    for name in PLANTED_CHANGES:
        copies = copy_pictures(contents[:PLANTED], name)
        found = assess_contents(folder / "rows.jsonl", [*contents, *copies])
        same = found.images - found.pictures
        rows.append(f"| {len(copies)} copies: {name} | {found.images} | {same} | {found.near_duplicates} |")
    control = assess_contents(folder / "rows.jsonl", contents)
    rows.append(f"| no copy | {control.images} | {control.images - control.pictures} | {control.near_duplicates} |")
    return rows


def copy_pictures(contents: Sequence[bytes], change: str) -> list[bytes]:
    return [CHANGES[change](Image.open(io.BytesIO(content)).convert("RGB")) for content in contents]


def measure_contamination(own: Sequence[bytes], held_out: Sequence[bytes], folder: Path) -> list[str]:
    reference = write_image_rows(folder / "held-out.jsonl", held_out)
    copies = copy_pictures(held_out[:PLANTED], "JPEG, quality 75")
    sides = {
        "charts of other data": own,
        f"the same, {PLANTED} replaced by JPEG copies of held-out ones": [*own[PLANTED:], *copies],
    }
    rows = []
    for name, pictures in sides.items():
        found = assess_contents(folder / "rows.jsonl", pictures, reference).reference
        assert found
        rows.append(f"| {name} | {found.compared} | {found.near_duplicates} |")
    return rows


def table(charts: int = CHARTS) -> str:
    SESSION.quiet = True
    with TemporaryDirectory() as name:
        folder = Path(name)
        arms = measure_arms(folder, charts)
        styles = [
            f"| {arm.name} | {arm.style.effective_palettes:.2f} | {arm.style.effective_layouts:.1f} | "
            f"{arm.style.brightness.median:.2f} | {arm.style.colorfulness.median:.0f} |"
            for arm in arms
        ]
        by_name = {arm.name: [file.read_bytes() for file in arm.files] for arm in arms}
        copies = plant_copies(by_name[ALL], folder)
        contaminated = measure_contamination(by_name[AGAIN], by_name[ALL], folder)
        rows = write_image_rows(
            folder / "rows.jsonl", [content for contents in by_name.values() for content in contents]
        )
        started = time.process_time()
        read = read_pictures(rows)
        compare_pictures(read.pictures, read.pictures, "itself")
        spent = 1000 * (time.process_time() - started) / len(read.pictures)
    return "\n".join(
        [
            f"{describe_measurement()}. `python -m benchmarks.image_styles`",
            "",
            f"{arms[0].style.pictures} pictures of each arm, of {charts} samples of the recipe `charts`. All arms but that of "
            "other data have the same tables, marks and sizes; only the themes differ.",
            "",
            "| charts | effective palettes | effective layouts | brightness | colorfulness |",
            "|---|---:|---:|---:|---:|",
            *styles,
            "",
            f"Copies of {PLANTED} pictures, added to those in all themes. A copy with the same pixels is the same picture.",
            "",
            "| added | images | the same picture | near-duplicates |",
            "|---|---:|---:|---:|",
            *copies,
            "",
            "Pictures that nearly or exactly repeat one of a held-out set (all themes):",
            "",
            "| dataset | pictures | found |",
            "|---|---:|---:|",
            *contaminated,
            "",
            f"{spent:.1f} s of processor time for 1,000 pictures, decoding included.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--charts", type=int, default=CHARTS)
    sys.stdout.write(f"{table(parser.parse_args().charts)}\n")


if __name__ == "__main__":
    main()
