"""The requests that a student may have been trained on, so that none of them is asked as held out. Knows rows, no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.errors import StoreError, UsageError
from core.runs.run_dir import RunDir
from core.runs.student_records import VALIDATION_REQUESTS
from core.storage.atomic_files import read_json
from flows.data.curated_run import extract_conversations, read_finished_samples
from flows.data.dataset_mixture import read_mixture_sources

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


def collect_used_requests(run: RunDir | None, plan: "RunPlan", on_note: Callable[[str], None]) -> set[str]:
    """The requests, in the form of `join_requests`, of the run's samples, of the releases that it builds on and of the recipe's
    real rows. A release or a file that is missing here is reported to `on_note`.
    """
    from agents.studies.held_out_evaluation import join_requests

    if run is None:
        return set()
    used = {join_requests(sample.candidate.messages) for sample in read_finished_samples(run)}
    validation = run.student / VALIDATION_REQUESTS
    if validation.is_file():  # a share of the training was chosen on them
        used.update(read_json(validation))
    parent = run.read_parent()
    if plan.recipe.lineage.real is None and parent is None:
        return used
    if parent and parent.release.rpartition("/")[0] != plan.recipe.name:
        return used  # another recipe was named, with other requests
    try:
        sources = read_mixture_sources(run, plan.recipe, plan.folder)
    except (StoreError, UsageError) as error:
        on_note(f"held-out requests: those of earlier releases or real rows, if drawn again, are not left out: {error}")
        return used
    for rows in (*(release.rows for release in sources.releases), sources.real_rows):
        used.update(map(join_requests, extract_conversations(rows)))
    return used
