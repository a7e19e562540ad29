"""Replies of a capable model go through every recipe as they went through an earlier version, and no good draft is sent back.

`benchmarks/recordings/earlier/` has 126 samples; the checks of that time sent ten drafts back without reason.
"""

import asyncio
import re
import threading
from pathlib import Path

import pytest

from agents.studies.preview import preview_samples
from core.project_files import PROJECT
from core.sample import Sample, SampleStatus
from core.storage.recording import RecordedSample, read_recording
from flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan

RECORDINGS = PROJECT / "benchmarks" / "recordings"
EARLIER = RECORDINGS / "earlier"


def list_recordings(folder: Path) -> list[Path]:
    """Those of recipes whose plugin is installed."""
    return [path for path in sorted(folder.glob("*.jsonl")) if path.stem in list_built_in_recipes()]


REFUSED_NOW = {
    "conversations": {31: "max_sentence_words"},
    "grounded-qa": {30: "read_again", 48: "read_again"},
    "reasoning": {20: "solved"},
}
"""By number, the first drafts of the newer recordings that a check refuses: a sentence of 14 words where 12 are allowed; two
answers that say more than was asked, which no reader says; and an answer that is right where reasoning-gym's is wrong, to a
question that is not drawn any more."""
REFUSED_THEN = {"conversations": 6, "extraction": 1, "grounded-qa": 1, "instructions": 2}
"""Unjust revisions in the recordings."""
GAPS_SHOWN = {"code": {4: "edit_distance('flaw', 'l')"}}
"""By number, the drafts of the earlier recordings that are sent back with reason: the input that no test has."""
FIRST = {"code": 8}
"""How many are replayed where that is not all: each draft of a solution takes a dozen sandboxes."""
PASSED_FURTHER = re.compile(r"has no reply for sample \d+: (?:critic|verifier), revision 0,")
"""A draft that was sent back then passes the checks now, so an agent is asked that was not asked then."""


def replay(recipe: str, path: Path, recorded: list[RecordedSample]) -> list[Sample]:
    # The user's words in these conversations are those of code, as the recipe was then.
    then = ["verifiers=[{type='constraints'}]"] if recipe == "conversations" else []
    settings = [*then, f"seeds={{recording='{path}'}}", f"teachers.main={{model='fake/replay:{path}'}}", "cache_mb=0"]
    plan = load_recipe_plan(recipe, [*settings, f"samples={len(recorded)}", "keep=0"])
    return list(asyncio.run(preview_samples(plan, len(recorded), threading.Event())).samples)


@pytest.mark.whole
@pytest.mark.parametrize("path", list_recordings(EARLIER), ids=lambda path: path.stem)
def test_no_good_draft_of_a_capable_model_is_sent_back(path: Path) -> None:
    recorded = list(read_recording(path))
    revised = [sample for sample in recorded if any(reply.revision for reply in sample.replies)]
    assert len(revised) == REFUSED_THEN.get(path.stem, 0)
    sent_back = {
        sample.seed.index: (sample.state, sample.detail, [v.evidence for v in sample.verdicts if not v.passed])
        for sample in replay(path.stem, path, recorded[: FIRST.get(path.stem)])
        if sample.revisions or not (sample.state is SampleStatus.kept or PASSED_FURTHER.search(sample.detail or ""))
    }
    gaps = GAPS_SHOWN.get(path.stem, {})
    assert sent_back.keys() == gaps.keys(), sent_back
    assert all(gap in str(sent_back[number]) for number, gap in gaps.items())


@pytest.mark.whole
@pytest.mark.parametrize("path", list_recordings(RECORDINGS), ids=lambda path: path.stem)
def test_checks_refuse_no_good_first_draft(path: Path) -> None:
    recorded = list(read_recording(path))
    assert len(recorded) == 60
    recorded = recorded[: FIRST.get(path.stem)]
    refused = {
        sample.seed.index: verdict.check
        for sample in replay(path.stem, path, recorded)
        for verdict in sample.verdicts
        if not verdict.revision and not verdict.passed
    }
    assert refused == REFUSED_NOW.get(path.stem, {})
