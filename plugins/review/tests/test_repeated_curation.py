"""A run that is curated again: what stays in its manifest, and what no longer fits its rows."""

from pathlib import Path

from core.runs.records import RunState
from core.sample import SampleStatus
from flows.data.run_storage import open_run_storage
from flows.run.dataset_stages import curate_again
from plugins.review.review_samples import index_run
from plugins.review.review_session import DecisionRequest, ReviewSession
from plugins.review.summary import ReviewSummary
from tests.support.lineages import OFF, make_run
from tests.support.promotions import add_student


def test_a_student_of_other_rows_is_no_longer_the_runs_and_shortfalls_stay(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run, weights = make_run(runs, OFF), tmp_path / "weights.gguf"
    weights.write_bytes(b"GGUF")
    add_student(run, weights)
    manifest = run.read_manifest()
    manifest.shortfalls, manifest.state = ["the student is not evaluated"], RunState.partial
    run.write_manifest(manifest)

    same = curate_again(run, open_run_storage(str(runs)))
    assert not same.stale_student
    assert run.read_manifest().student == manifest.student, "its rows are what they were"
    assert run.read_manifest().shortfalls == manifest.shortfalls
    assert run.read_manifest().state is RunState.partial

    review = ReviewSession(index_run(run), "anna")
    review.decide(DecisionRequest(sample=review.source.population[0], decision="drop"))
    other = curate_again(run, open_run_storage(str(runs)))
    after = run.read_manifest()
    assert other.stale_student
    assert (after.student, after.evaluation, after.shortfalls) == (None, None, [])
    assert after.counts.kept == manifest.counts.kept - 1
    after_reviews = after.get("review", ReviewSummary)
    assert after_reviews
    assert after_reviews.reviewers == {"reviewer 1": 1}, "no name is published with the manifest"
    assert "anna" not in run.manifest_file.read_text()


def test_a_goal_that_people_undo_is_missing_until_a_resumed_run_reaches_it_again(tmp_path: Path) -> None:
    runs, settings = tmp_path / "runs", (OFF, "samples=400", "keep=6")
    run = make_run(runs, *settings)
    assert run.read_manifest().state is RunState.done
    source = index_run(run)
    review = ReviewSession(source, "anna")
    passed = [one.id for one in source.samples.values() if one.state is SampleStatus.kept or one.reason == "surplus"]
    for name in passed:
        review.decide(DecisionRequest(sample=name, decision="drop"))
    curate_again(run, open_run_storage(str(runs)))
    after = run.read_manifest()
    candidates = after.counts.candidates
    assert after.shortfalls == [f"0 of 6 samples are kept of {candidates} candidates; `run --resume` makes more"]
    assert (after.state, after.remedy) == (RunState.partial, "resume")

    again = make_run(runs, *settings, resume=True).read_manifest()
    assert (again.counts.kept, again.state, again.shortfalls) == (6, RunState.done, [])
    assert again.counts.candidates > candidates
