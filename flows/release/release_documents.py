"""The documents of a release: card, Croissant, bill of materials, training-data summary. Writes files; decides nothing."""

import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

from jinja2 import Environment

from core.config.recipe import Recipe
from core.runs.records import RunManifest
from core.runs.releases import LineageRecord
from core.storage.atomic_files import hash_file, write_json, write_text
from core.storage.sample_files import read_sample_columns
from flows.data.dataset_card import (
    build_dataset_card,
    build_license_fields,
    create_markdown_environment,
    escape_cell,
    find_size_category,
    hide_folder,
)
from flows.release.croissant_document import build_croissant_document
from flows.release.release_facts import ReleasedFile, ReleaseFacts, gather_release_facts
from flows.release.sbom_document import build_sbom_document
from flows.report.filter_report import FilterReport
from flows.terminal.text_format import format_count

CARD = "README.md"
CROISSANT = "croissant.json"
SBOM = "sbom.spdx.json"
TRAINING_SUMMARY = "training-data-summary.md"


def write_release_documents(
    folder: Path,
    recipe: Recipe,
    manifest: RunManifest,
    lineage: LineageRecord,
    released: str,
    run_digests: Mapping[str, str],
    sources: Mapping[str, str],
    hashes: Mapping[str, str],
) -> dict[str, str]:
    """Write all documents of the release in `folder`; each states the files before it. `hashes` are those of the release's other
    files. Returns the hash of each document.
    """
    written: dict[str, str] = {}

    def gather() -> ReleaseFacts:
        files = [
            ReleasedFile(path, digest, (folder / path).stat().st_size) for path, digest in {**hashes, **written}.items()
        ]
        return gather_release_facts(recipe, manifest, lineage, released, run_digests, sources, files)

    train, validation = _count_conversations(folder, manifest)
    write_text(folder / CARD, build_dataset_card(manifest, recipe, train, validation, lineage))
    written[CARD] = hash_file(folder / CARD)
    write_text(folder / TRAINING_SUMMARY, build_training_summary(gather()))
    written[TRAINING_SUMMARY] = hash_file(folder / TRAINING_SUMMARY)
    write_json(folder / CROISSANT, build_croissant_document(gather(), folder))
    written[CROISSANT] = hash_file(folder / CROISSANT)
    write_json(folder / SBOM, build_sbom_document(gather()))
    written[SBOM] = hash_file(folder / SBOM)
    return written


def write_rows_documents(folder: Path, facts: ReleaseFacts, filtered: FilterReport) -> dict[str, str]:
    """As `write_release_documents`, of rows that a user gave. Nothing is known of their training content, so that summary is left
    out.
    """
    card = _create_document_environment().get_template("rows_card.md")
    license_fields, size = build_license_fields(facts.manifest.license), find_size_category(filtered.counts.kept)
    text = card.render(facts=facts, m=facts.manifest, report=filtered, license_fields=license_fields, size=size)
    write_text(folder / CARD, text + "\n")
    written = {CARD: hash_file(folder / CARD)}
    for name, build in ((CROISSANT, partial(build_croissant_document, folder=folder)), (SBOM, build_sbom_document)):
        files = [ReleasedFile(path, digest, (folder / path).stat().st_size) for path, digest in written.items()]
        write_json(folder / name, build(facts._replace(files=sorted([*facts.files, *files]))))
        written[name] = hash_file(folder / name)
    return written


def _count_conversations(folder: Path, manifest: RunManifest) -> tuple[int, int]:
    """Conversations to train on and held out: those of the first form of the dataset that holds every conversation."""
    whole = [form for form in manifest.formats if form.name != "preference" and not form.left_out]
    if whole:
        return whole[0].train, whole[0].validation
    splits = read_sample_columns(folder / "own.parquet", ("split",))["split"]
    return int((splits == "train").sum()), int((splits == "validation").sum())


def build_training_summary(facts: ReleaseFacts) -> str:
    """The draft of the public summary of training content."""
    template = _create_document_environment().get_template("training_summary.md")
    return template.render(facts=facts, m=facts.manifest, mix=facts.lineage.mix, recipe=facts.recipe) + "\n"


@cache
def _create_document_environment() -> Environment:
    return create_markdown_environment(
        Path(__file__).with_name("templates"), escape_cell, format_count, format_day, hide_folder
    )


def format_day(iso: str) -> str:
    return re.sub(r"T.*", "", iso)
