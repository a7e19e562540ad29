"""Records a run when its dataset is written, and refuses recipes of which no recording could be replayed."""

from collections.abc import Sequence

from agents.planning.run_plan import RunPlan
from core.errors import RecipeProblem
from core.hooks import PageSection, RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from plugins.rebuild.config import NAME
from plugins.rebuild.recording import RebuildRecord, find_unportable_names, write_release_recording


class RebuildHooks(RunHooks):
    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        recipe, problems = plan.recipe, []
        if names := find_unportable_names(recipe, plan.own_sources):
            what = f"{names[0]!r} is no path below the recipe's folder, so no other machine has it; copy the file there"
            problems.append(RecipeProblem(NAME, what))
        confident = recipe.agents.critic is not None and recipe.agents.critic.type == "confidence"
        asking = [bound.check.name for bound in plan.checks if bound.check.reads_logprobs(bound.options)]
        if readers := [*(["agents.critic"] if confident else []), *asking]:
            what = f"a recording has no token probabilities, which {readers[0]} reads; leave the table out, or take another"
            problems.append(RecipeProblem(NAME, what))
        return problems

    def finish_package(self, run: RunDir, manifest: RunManifest) -> None:
        write_release_recording(run, manifest)

    def list_summary_lines(self, manifest: RunManifest) -> Sequence[tuple[str, str]]:
        record = manifest.get(NAME, RebuildRecord)
        return [("rebuild", f"{record.samples:,} samples and {record.files:,} files recorded")] if record else []

    def render_card(self, manifest: RunManifest) -> Sequence[PageSection]:
        body = (
            "A release of this dataset contains what its run read, every request and every reply, in `recording/`. "
            "`stillhouse rebuild FOLDER` makes the dataset again from it, without a model, and compares every byte."
        )
        return [PageSection(NAME, "Rebuild it", body)] if manifest.get(NAME, RebuildRecord) else []


HOOKS = RebuildHooks()
