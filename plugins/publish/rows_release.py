"""Makes a release of a folder that `stillhouse filter` wrote: rows that a user gave, not a run.

It has the form of a run's release, so that `lineage`, `rollback`, `publish` and `pull` take it; a lineage has releases of
rows or of runs, never both. Each release has its own rows only.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from core.errors import GateNotMet, StoreError, UsageError
from core.runs.lineage import Lineage
from core.runs.records import DatasetRecord, FormatRecord, MixRecord, RunManifest, RunState, SampleCounts
from core.runs.releases import (
    READ_ONLY_MODE,
    LineageRecord,
    Release,
    ReleaseManifest,
    compute_manifest_digest,
    locate_releases,
    read_release,
)
from core.runs.run_dir import collect_versions, format_current_time
from core.runs.verdict_words import CollapseAssessment
from core.shared_options import DEFAULT_ASSESS_SEED
from core.storage.atomic_files import hash_file, read_json, write_atomically, write_json, write_text
from flows.data.dataset_card import build_license_fields, find_size_category
from flows.data.run_storage import RunStorage
from flows.evaluate.dataset_assessment import assess_dataset
from flows.release.release_creation import CreatedRelease
from flows.release.release_gate import find_release_refusals
from flows.report.filter_report import FilterReport
from flows.terminal.text_format import create_environment, hide_folder
from plugins.publish.secret_search import check_no_secrets

DATASET_FOLDER = "dataset/"
FILTERS_FILE = "filters.json"
"""The filter report without texts and paths: dropped rows may have what must not be released."""
TEMPLATES = Path(__file__).with_name("templates")
CARD = "README.md"
LINEAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class _FilteredFolder(NamedTuple):
    path: Path
    report: FilterReport
    kept: Path
    digest: str
    """Of the kept rows and the filters."""

    @property
    def kept_hash(self) -> str:
        return hash_file(self.kept)


def _read_filtered_folder(path: Path) -> _FilteredFolder:
    """Raises UsageError if the folder is not finished, or has no kept row."""
    try:
        report = FilterReport.model_validate(read_json(path / "report.json"))
    except (StoreError, ValidationError):
        raise UsageError(f"{path}: `filter` has not finished here; run the same `filter` command again") from None
    kept = path / Path(report.kept).name
    if not kept.is_file():
        raise UsageError(f"{kept}: the kept rows are missing; run the same `filter` command again")
    steps = [step.model_dump(mode="json") for step in report.steps]
    identity = json.dumps([hash_file(kept), report.counts.model_dump(), steps], sort_keys=True)
    return _FilteredFolder(path, report, kept, hashlib.sha256(identity.encode()).hexdigest())


def _name_lineage(folder: Path, name: str | None) -> str:
    """`name`, or that of the folder. Raises UsageError if it cannot name a lineage."""
    chosen = folder.resolve().name if name is None else name
    if not LINEAGE_NAME.fullmatch(chosen):
        raise UsageError(
            f"--name: {chosen!r} must be small letters, digits, `.`, `_` and `-`, at most 63; give another"
        )
    return chosen


def release_filtered_folder(
    folder: Path, name: str | None, reference: str | None, license_name: str | None, storage: RunStorage
) -> CreatedRelease:
    """The next release of `name`, by default the folder's; or that of the same rows, if they were released. The rows are
    compared with `reference`.

    Raises:
        GateNotMet: if there is no row, a row has a secret, or the rows show collapse.
        UsageError: if the folder is not finished, the lineage has releases of a recipe, or the release is set aside.
        StoreError: if the lineage is damaged, or a file cannot be written.
    """
    name, filtered = _name_lineage(folder, name), _read_filtered_folder(folder)
    if not filtered.report.counts.kept:
        raise GateNotMet(f"{folder} is not released: no row was kept, so there is nothing to release")
    check_no_secrets([filtered.kept])
    assessment = assess_dataset(filtered.kept, reference, DEFAULT_ASSESS_SEED, parent=None, cache=None)
    lineage = Lineage(locate_releases(storage.runs) / name)
    with storage.lock_lineage(name), lineage.lock():
        line = lineage.read_verified()
        if foreign := next((release for release in line if FILTERS_FILE not in release.manifest.files), None):
            raise UsageError(f"--name {name}: is the name of a recipe with releases ({foreign.name}); give another")
        if release := lineage.find_by_run_digest(filtered.digest):
            if lineage.is_aside(release):
                raise UsageError(f"{filtered.path}: was released as {release.name}, which was set aside; restore it")
            return CreatedRelease(release, already_released=True)
        parent = line[-1].name if line else None
        manifest = _build_manifest(filtered, assessment, name, license_name, parent)
        if refusals := find_release_refusals(manifest):
            raise GateNotMet("\n  ".join([f"{filtered.path} is not released:", *(one.reason for one in refusals)]))
        return CreatedRelease(_write_release(filtered, manifest, lineage, line), already_released=False)


def _hide_folders(value: Any) -> Any:
    """A JSON value without the folders of absolute paths: those of indexes and evaluation sets are of a private machine."""
    if isinstance(value, dict):
        return {hide_folder(key): _hide_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hide_folders(inner) for inner in value]
    return hide_folder(value) if isinstance(value, str) else value


def _build_manifest(
    filtered: _FilteredFolder, assessment: CollapseAssessment, name: str, license_name: str | None, parent: str | None
) -> RunManifest:
    """The record of the filters in the form of a run's."""
    report, counts = filtered.report, filtered.report.counts
    left, funnel = counts.candidates - counts.failed, [("rows", counts.candidates)]
    for step in report.steps:
        left -= step.dropped
        funnel.append((step.filter, left))
    reasons = {str(reason): count for reason, count in report.reasons.items() if count}
    now = format_current_time()
    return RunManifest(
        run=f"{name}-{filtered.digest[:8]}", digest=filtered.digest, state=RunState.done, remedy=None, started=now,
        counts=SampleCounts(**counts.model_dump()), funnel=funnel,
        reasons=reasons | ({"unreadable": counts.failed} if counts.failed else {}),
        collapse=assessment.collapse,
        dataset=DatasetRecord(
            mix=MixRecord(policy="replace", parent=parent, own=counts.kept), license=license_name,
            formats=[FormatRecord(name="rows", columns=[], train=counts.kept, validation=0)],
        ),
        versions=collect_versions(),
    )  # fmt: skip


def _write_release(filtered: _FilteredFolder, manifest: RunManifest, lineage: Lineage, line: list[Release]) -> Release:
    generation, ancestors = lineage.next_generation(), line[-1].ancestry if line else ()
    assert manifest.dataset.mix is not None
    assert manifest.collapse is not None
    verdict = manifest.collapse.verdict
    record = LineageRecord(
        recipe=lineage.recipe, generation=generation, ancestors=ancestors, mix=manifest.dataset.mix, verdict=verdict
    )
    path = lineage.path / str(generation)
    with write_atomically(path, READ_ONLY_MODE) as folder:
        data = folder / DATASET_FOLDER / filtered.kept.name.replace("kept", "train", 1)
        data.parent.mkdir(parents=True)
        shutil.copyfile(filtered.kept, data)
        report = filtered.report.model_copy(update={"source": Path(filtered.report.source).name})
        kept_out = {"out", "kept", "asides", "examples", "histograms"}
        write_json(folder / FILTERS_FILE, _hide_folders(report.model_dump(mode="json", exclude=kept_out)))
        write_json(folder / "lineage.json", record.model_dump(mode="json", exclude={"promotion"}))
        names = (f"{DATASET_FOLDER}{data.name}", FILTERS_FILE, "lineage.json")
        files = {name: hash_file(folder / name) for name in names}
        if _read_filtered_folder(filtered.path).digest != filtered.digest or files[names[0]] != filtered.kept_hash:
            raise StoreError(f"{filtered.kept}: was changed while it was released; run the command again")
        released = manifest.started
        write_text(folder / CARD, _render_card(manifest, record, report, names[0]))
        files[CARD] = hash_file(folder / CARD)
        whole = ReleaseManifest(
            release=f"{lineage.recipe}/{generation}", released=released, run=manifest, verdict=verdict,
            seeds=ancestors[-1].seeds if ancestors else 0, files=files, digest="",
        ).model_dump(mode="json")  # fmt: skip
        write_json(folder / "manifest.json", {**whole, "digest": compute_manifest_digest(whole)})
    return read_release(path)


def _render_card(manifest: RunManifest, lineage: LineageRecord, filtered: FilterReport, data_file: str) -> str:
    """The dataset card of the rows, all in `data_file`. Nothing is known of their training content."""
    text = create_environment(TEMPLATES).get_template("rows_card.md").render(
        lineage=lineage, m=manifest, report=filtered, license_fields=build_license_fields(manifest.dataset.license),
        size=find_size_category(filtered.counts.kept), data_file=data_file,
    )  # fmt: skip
    return text + "\n"
