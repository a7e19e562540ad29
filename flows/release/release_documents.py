"""The documents of a release: card and training-data summary. Writes files; decides nothing."""

from collections.abc import Mapping
from pathlib import Path

from core.config.recipe import Recipe
from core.runs.records import RunManifest
from core.runs.releases import LineageRecord
from core.storage.atomic_files import hash_file, write_text
from core.storage.sample_files import read_sample_columns
from flows.data.dataset_card import build_dataset_card, build_license_fields, find_size_category
from flows.release.release_facts import ReleaseFacts, gather_release_facts
from flows.report.filter_report import FilterReport
from flows.terminal.template_environment import create_environment

CARD = "README.md"
TEMPLATES = Path(__file__).with_name("templates")
TRAINING_SUMMARY = "training-data-summary.md"


def write_release_documents(
    folder: Path,
    recipe: Recipe,
    manifest: RunManifest,
    lineage: LineageRecord,
    released: str,
    sources: Mapping[str, str],
) -> dict[str, str]:
    """Write the documents of the release in `folder`. Returns the hash of each."""
    train, validation = _count_conversations(folder, manifest)
    facts = gather_release_facts(recipe, manifest, lineage, released, sources)
    texts = {
        CARD: build_dataset_card(manifest, recipe, train, validation, lineage),
        TRAINING_SUMMARY: build_training_summary(facts),
    }
    return _write_documents(folder, texts)


def write_rows_documents(
    folder: Path, manifest: RunManifest, lineage: LineageRecord, filtered: FilterReport, data_file: str
) -> dict[str, str]:
    """As `write_release_documents`, of rows that a user gave, all in `data_file`. Nothing is known of their training content, so
    that summary is left out.
    """
    card = create_environment(TEMPLATES).get_template("rows_card.md")
    license_fields, size = build_license_fields(manifest.license), find_size_category(filtered.counts.kept)
    text = card.render(
        lineage=lineage, m=manifest, report=filtered, license_fields=license_fields, size=size, data_file=data_file
    )
    return _write_documents(folder, {CARD: text + "\n"})


def _write_documents(folder: Path, texts: Mapping[str, str]) -> dict[str, str]:
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: hash_file(folder / name) for name in texts}


def _count_conversations(folder: Path, manifest: RunManifest) -> tuple[int, int]:
    """Conversations to train on and held out: those of the first form of the dataset that holds every conversation."""
    whole = [form for form in manifest.formats if form.name != "preference" and not form.left_out]
    if whole:
        return whole[0].train, whole[0].validation
    splits = read_sample_columns(folder / "own.parquet", ("split",))["split"]
    return int((splits == "train").sum()), int((splits == "validation").sum())


def build_training_summary(facts: ReleaseFacts) -> str:
    """The draft of the public summary of training content."""
    template = create_environment(TEMPLATES).get_template("training_summary.md")
    return template.render(facts=facts, m=facts.manifest, mix=facts.lineage.mix, recipe=facts.recipe) + "\n"
