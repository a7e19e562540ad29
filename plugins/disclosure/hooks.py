"""Holds back documents of a run, compares its kept rows with both halves, and refuses a release of rows that leak."""

from collections.abc import Sequence
from html import escape

from agents.families import find_recipe_family
from agents.planning.run_plan import RunPlan
from agents.sources.documents import hash_documents
from core.config.recipe import list_recipe_plugins
from core.errors import RecipeProblem, RunFailed, UsageError
from core.hooks import PageSection, RunHooks, SeedChoice
from core.plugins import load_hooks, locate_data
from core.project_files import find_referenced_file
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.sample import FrozenModel, Sample
from core.storage.atomic_files import hash_file, read_record, write_text
from flows.data.curated_run import read_kept_samples
from plugins.disclosure.config import NAME, DisclosureConfig
from plugins.disclosure.disclosure import DisclosureRecord, measure_disclosure
from plugins.disclosure.held_back import draw_held_back, find_held_back, read_sources

GATE_HINT = "or allow more (`disclosure.limit`, in a new run)"
LEAKS = "leaks.json"
OTHERS = ("distractors", "two_passages")
"""Options of a family that show passages of other documents."""


class Leak(FrozenModel):
    """A row that has a part of a used document. Has kinds, never the text."""

    row: str
    """The id of the sample."""
    document: str
    kinds: tuple[str, ...]


class LeakList(FrozenModel):
    leaks: tuple[Leak, ...] = ()


class DisclosureHooks(RunHooks):
    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        if plan.recipe.section(DisclosureConfig) is None:
            return []
        if plan.recipe.seeds.documents is None and plan.recipe.seeds.path is None:
            what = "compares rows with documents; name seeds.documents or seeds.path, or leave the table out"
            return [RecipeProblem(NAME, what)]
        problems = []
        if shown := next((name for name in OTHERS if getattr(plan.options, name, 0)), None):
            what = f"task.{shown} shows passages of held-back documents too; leave it or [disclosure] out"
            problems.append(RecipeProblem(NAME, what))
        hooks = load_hooks(list_recipe_plugins(plan.recipe))
        if len([one for one in hooks if type(one).choose_seeds is not RunHooks.choose_seeds]) > 1:
            problems.append(RecipeProblem(NAME, "another table chooses seeds too; leave one out"))
        try:
            find_held_back(plan)
        except UsageError as error:
            problems.append(RecipeProblem("disclosure.hold_back", str(error)))
        return problems

    def choose_seeds(self, plan: RunPlan) -> SeedChoice | None:
        return find_held_back(plan)

    def finish_assessment(self, run: RunDir, manifest: RunManifest) -> None:
        manifest.put(NAME, measure_run_disclosure(run))

    def list_release_faults(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        record = manifest.get(NAME, DisclosureRecord)
        if record is None:
            return []
        if record.mixed:
            return [
                (f"{record.mixed:,} rows are made of documents that were held back, so nothing is known of leaks", "")
            ]
        return [(record.verdict, GATE_HINT)] if record.leaks else []

    def list_summary_lines(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        record = manifest.get(NAME, DisclosureRecord)
        return [(NAME, record.verdict)] if record else []

    def render_report(self, run: RunDir, manifest: RunManifest, shown: Sequence[Sample]) -> Sequence[PageSection]:
        record = manifest.get(NAME, DisclosureRecord)
        body = f"<p>{escape(record.verdict)}.</p>" if record else ""
        return [PageSection(NAME, "Parts of source documents", body)] if record else []

    def render_card(self, manifest: RunManifest) -> Sequence[PageSection]:
        record = manifest.get(NAME, DisclosureRecord)
        return [PageSection(NAME, "Parts of source documents", f"{record.verdict}.")] if record else []


HOOKS = DisclosureHooks()


def measure_run_disclosure(run: RunDir) -> DisclosureRecord | None:
    """Compare the kept rows of a run with its documents, and list the leaks in the plugin's folder. None without the table.

    Raises:
        RunFailed: if the documents are no longer those of the run.
    """
    recipe, folder = run.read_recipe(), run.read_recipe_folder()
    config, name = recipe.section(DisclosureConfig), recipe.seeds.documents or recipe.seeds.path
    samples = list(read_kept_samples(run))
    if config is None or name is None or not samples:
        return None
    path = find_referenced_file(name, folder)
    if (hash_documents(path) if recipe.seeds.documents else hash_file(path))[:16] != run.read_sources().get(name):
        raise RunFailed(
            f"{path}: is not what the run was made of, so its rows cannot be compared; restore it and resume"
        )
    source = read_sources(recipe, folder)
    assert source, "the recipe names one"
    held = draw_held_back(source.sizes, config.hold_back, recipe.seed)
    quotes = find_recipe_family(recipe).name != "own_prompt" if config.quotes is None else config.quotes
    record, matches = measure_disclosure(
        [_join_published(sample, quotes=quotes) for sample in samples], source.passages, held,
        share=config.hold_back, seed=recipe.seed, quotes=quotes, limit=config.limit,
        mixed=sum(source.find_name(one.seed.data) in held for one in samples),
    )  # fmt: skip
    names = sorted(source.passages)
    leaks = [Leak(row=samples[one.row].id, document=names[one.document], kinds=one.kinds) for one in matches]
    file = locate_data(run.path, NAME) / LEAKS
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, LeakList(leaks=tuple(leaks)).model_dump_json(indent=2) + "\n")
    return record


def read_leaks(run: RunDir) -> Sequence[Leak]:
    file = locate_data(run.path, NAME) / LEAKS
    return read_record(file, LeakList).leaks if file.is_file() else ()


def _join_published(sample: Sample, *, quotes: bool) -> str:
    """The text of a row that is compared: answers alone where the rest shows the document on purpose."""
    roles = ("assistant",) if quotes else ("user", "assistant", "tool")
    turns = [turn for turn in sample.candidate.messages if turn.role in roles]
    return "\n".join(text for turn in turns for text in (turn.reasoning, turn.text) if text)
