"""Releases of two families with their recordings, and copies of them that were tampered with."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from core.runs.releases import Release, compute_manifest_digest, read_release
from core.storage.atomic_files import hash_file
from flows.release.release_creation import create_release
from tests.support.lineages import OFF, make_run

RECORDED = "rebuild.documents=false"
FAMILIES = {
    "smoke": (),
    "instructions": (
        "samples=12", "keep=0", "shard_size=6", "student=false", "teachers={main={model='fake/instructions'}}",
    ),
}  # fmt: skip
"""The settings of a small run of each recipe, with a scripted teacher."""


def release_recorded(runs: Path, recipe: str = "smoke", settings: Sequence[str] = ()) -> Release:
    return create_release(make_run(runs, OFF, RECORDED, *FAMILIES[recipe], *settings, recipe=recipe)).release


def copy_release(release: Release, to: Path) -> Path:
    """A writable copy with its lineage; the folder of the release."""
    lineage = shutil.copytree(release.path.parent, to / "releases" / release.lineage.recipe)
    for file in lineage.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return lineage / release.path.name


def rewrite_manifest(release: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Hashes and digest of what the folder now has, as somebody does who hides a change."""
    file = release / "manifest.json"
    whole = json.loads(file.read_text())
    change(whole)
    names = {str(one.relative_to(release)): one for one in release.rglob("*") if one.is_file() and one != file}
    whole["files"] = {name: hash_file(path) for name, path in sorted(names.items())}
    file.write_text(json.dumps({**whole, "digest": compute_manifest_digest(whole)}))
    read_release(release).verify_files()


def edit_rows(file: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    change(pl.read_parquet(file)).write_parquet(file)


def edit_lines(file: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    whole = json.loads(file.read_text())
    change(whole)
    file.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
