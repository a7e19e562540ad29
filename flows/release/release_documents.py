"""The documents of a release: card and training-data summary, from its records. Reads no row; decides nothing.

They depend on nothing else (no clock, no path of this machine), so the same release always gets the same text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from agents.sources.seed_source import find_seed_source
from core.config.recipe import Recipe
from core.plugins import load_hooks
from core.runs.records import RunManifest
from core.runs.releases import LineageRecord
from core.storage.atomic_files import hash_file, write_text
from core.storage.sample_files import read_sample_columns
from flows.data.dataset_card import TeacherTerms, build_dataset_card, describe_teacher_terms
from flows.terminal.run_summary import summarize_run
from flows.terminal.text_format import create_environment

CARD = "README.md"
TEMPLATES = Path(__file__).with_name("templates")
TRAINING_SUMMARY = "training-data-summary.md"


class UsedTeacher(NamedTuple):
    """A model that wrote or judged something."""

    terms: TeacherTerms
    roles: Sequence[str]


class UsedSource(NamedTuple):
    """A file or text from which samples were made, or with which they were compared."""

    name: str
    """Its file name, without folders of the machine where the run was made."""
    kind: Literal["seeds", "documents", "real rows", "reference", "prompt", "other"]
    digest: str | None
    """The first 16 digits of its SHA-256, or a digest of its parts, as recorded when the run was opened."""


class ReleaseFacts(NamedTuple):
    """Everything that the summary states."""

    recipe: Recipe
    filters: Mapping[str, str]
    """What each removes, by its type."""
    manifest: RunManifest
    lineage: LineageRecord
    released: str
    """ISO time in UTC."""
    teachers: Sequence[UsedTeacher]
    sources: Sequence[UsedSource]

    @property
    def name(self) -> str:
        return f"{self.lineage.recipe}/{self.lineage.generation}"

    @property
    def software(self) -> str:
        return f"Stillhouse {self.manifest.versions.get('stillhouse', '')}".strip()

    @property
    def masks_personal_data(self) -> bool:
        return "pii" in self.filters

    @property
    def people(self) -> str:
        """What people did to the rows of the release's own run, without a full stop; empty if they did nothing."""
        hooks = load_hooks(self.manifest.plugins)
        return "; ".join(filter(None, (one.describe_people(self.manifest) for one in hooks)))


def _gather_release_facts(
    recipe: Recipe, manifest: RunManifest, lineage: LineageRecord, released: str, sources: Mapping[str, str]
) -> ReleaseFacts:
    """`sources` are the hashes of the recipe's files by name, as in the run's identity; the others as in `ReleaseFacts`."""
    teachers = [
        UsedTeacher(describe_teacher_terms(model), roles)
        for model, roles in summarize_run(manifest, recipe).teachers.items()
    ]
    used = _list_sources(recipe, sources)
    filters = {config.type: config.about for config in recipe.filters}
    return ReleaseFacts(recipe, filters, manifest, lineage, released, teachers, used)


def _list_sources(recipe: Recipe, sources: Mapping[str, str]) -> list[UsedSource]:
    source = find_seed_source(recipe, Path())
    kinds: dict[str | None, Literal["seeds", "documents", "real rows", "reference"]] = {
        recipe.collapse.reference if recipe.collapse else None: "reference",
        recipe.lineage.real: "real rows",
        recipe.seeds.documents: "documents",
        source.file if source else None: "seeds",
        recipe.seeds.path: "seeds",
    }
    used: list[UsedSource] = []
    for name, digest in sorted(sources.items()):
        plain = Path(name.replace("\\", "/")).name or name
        prompt = name.startswith("prompts/") or name.endswith(".md")
        used.append(UsedSource(plain, kinds.get(name, "prompt" if prompt else "other"), digest))
    named = {Path(name).name for name in sources}
    missing = [(name, kind) for name, kind in kinds.items() if name and Path(name).name not in named]
    return used + [UsedSource(Path(name).name, kind, None) for name, kind in missing]


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
    facts = _gather_release_facts(recipe, manifest, lineage, released, sources)
    texts = {
        CARD: build_dataset_card(manifest, recipe, train, validation, lineage),
        TRAINING_SUMMARY: _build_training_summary(facts),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return {name: hash_file(folder / name) for name in texts}


def _count_conversations(folder: Path, manifest: RunManifest) -> tuple[int, int]:
    """Conversations to train on and held out: those of the first form of the dataset that holds every conversation."""
    whole = [form for form in manifest.dataset.formats if form.name != "preference" and not form.left_out]
    if whole:
        return whole[0].train, whole[0].validation
    splits = read_sample_columns(folder / "own.parquet", ("split",))["split"]
    return int((splits == "train").sum()), int((splits == "validation").sum())


def _build_training_summary(facts: ReleaseFacts) -> str:
    """The draft of the public summary of training content."""
    template = create_environment(TEMPLATES).get_template("training_summary.md")
    return template.render(facts=facts, m=facts.manifest, mix=facts.lineage.mix, recipe=facts.recipe) + "\n"
