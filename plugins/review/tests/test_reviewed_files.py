"""`filter` on files that people reviewed: their word beats a filter's, and a corrected text is written in the file's own form."""

import json
import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.errors import StoreError, UsageError
from core.runs.records import RunState
from core.sample import Message, SampleStatus
from flows.clean.dataset_filter import filter_dataset, parse_filter_settings
from flows.data.run_storage import open_run_storage
from flows.report.filter_report import ReviewedRows, format_filter_card
from flows.rows.row_forms import read_row_conversation
from flows.run.dataset_stages import curate_again
from plugins.review.corrected_rows import correct_row
from plugins.review.line_log import append_json_line
from plugins.review.review_samples import index_file, index_run
from plugins.review.review_session import DecisionRequest, ReviewSession
from plugins.review.summary import ReviewSummary
from tests.support.lineages import OFF, make_run
from tests.support.promotions import add_student

FILTERS = parse_filter_settings(["filters=[{type = 'exact', of = 'answer'}, {type = 'length', min_words = 2}]"])
ANSWERS = ["It is the first.", "It is the second.", "It is the second.", "Short", "It is the last.", "It is the last."]
"""Row 2 repeats 1, 5 repeats 4, and 3 is too short."""


def build_turns(number: int) -> list[dict[str, str]]:
    question = {"role": "user", "content": f"Question {number}?"}
    return [question, {"role": "assistant", "content": ANSWERS[number]}]


def write_file(folder: Path, ending: str) -> Path:
    file = folder / f"rows.{ending}"
    rows = [{"id": f"r{i}", "messages": build_turns(i), "extra": [i]} for i in range(len(ANSWERS))]
    if ending == "parquet":
        pl.DataFrame(rows).write_parquet(file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def review_file(file: Path, decisions: dict[int, tuple[Any, str | None]]) -> None:
    """Decide about rows by their number, with the corrected answer or a note."""
    review = ReviewSession(index_file(file), "anna")
    names = list(review.source.samples)
    for number, (decision, text) in decisions.items():
        messages = review.source.open_sample(review.source.samples[names[number]]).messages
        edited = [messages[0], Message(role="assistant", content=text or "")] if decision == "fix" else None
        note = text or "" if decision == "drop" else ""
        review.decide(DecisionRequest(sample=names[number], decision=decision, edited=edited, note=note))


def read_written(file: str | Path) -> list[dict[str, Any]]:
    if str(file).endswith(".parquet"):
        return pl.read_parquet(file).to_dicts()
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_persons_word_beats_a_filters_and_corrections_are_written(ending: str, tmp_path: Path) -> None:
    file = write_file(tmp_path, ending)
    plain = filter_dataset(file, tmp_path / "plain", FILTERS)
    assert [row["id"] for row in read_written(plain.kept)] == ["r0", "r1", "r4"], "the control: without reviews"
    assert plain.reviews is None

    review_file(
        file, {0: ("fix", "It is the very first."), 2: ("keep", None), 3: ("keep", None), 4: ("drop", "poor\nrow")}
    )
    report = filter_dataset(file, tmp_path / "out", FILTERS)
    kept = read_written(report.kept)
    assert [row["id"] for row in kept] == ["r0", "r1", "r2", "r3", "r5"], "5 repeated a row that a person dropped"
    assert kept[0] == {
        "id": "r0",
        "messages": [build_turns(0)[0], {"role": "assistant", "content": "It is the very first."}],
        "extra": [0],
    }
    before = read_written(file)
    assert kept[1:] == [before[i] for i in (1, 2, 3, 5)], "other rows are unchanged"
    [dropped] = read_written(tmp_path / "out" / "dropped.parquet")
    assert (dropped["id"], dropped["row"], dropped["filter"]) == ("r4", "5", "review")
    assert (dropped["reason"], dropped["detail"]) == ("review", "poor row")
    assert report.reviews == ReviewedRows(kept=2, dropped=1, corrected=1, absent=0)
    assert [(step.filter, step.dropped) for step in report.steps] == [("exact", 0), ("length", 0), ("review", 1)]
    assert "2 kept, 1 dropped, 1 corrected by people" in format_filter_card(report)
    assert "2 kept, 1 dropped, 1 corrected by people" in (tmp_path / "out" / "report.html").read_text()

    review_file(file, {1: ("drop", None)})
    with pytest.raises(UsageError, match="other reviews"):
        filter_dataset(file, tmp_path / "out", FILTERS)


CALL = {"function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Old question?", "completion": "Old answer."},
        {"prompt": [{"role": "user", "content": "Old?"}], "completion": [{"role": "assistant", "content": "Old."}]},
        {"instruction": "Old", "input": "question?", "output": "Old answer."},
        {"instruction": "Old question?", "output": "Old answer.", "system": "Be kind.", "history": [["a", "b"]]},
        {"conversations": [{"from": "human", "value": "Old question?"}, {"from": "gpt", "value": "Old answer."}]},
        {"messages": [json.dumps({"role": "user", "content": "Old?"}), json.dumps({"role": "assistant", "content": "Old."})]},
        {"messages": [{"role": "user", "content": "Old?"}, {"role": "assistant", "content": "Old.", "reasoning_content": "hm"}]},
        {"messages": [{"role": "user", "content": "Old?"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nOld."}]},
        {"messages": [{"role": "user", "content": "Old?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
    ],
)  # fmt: skip
def test_a_correction_is_written_in_the_form_of_its_row(row: dict[str, Any]) -> None:
    before = read_row_conversation(row)
    both = [message.model_copy(update={"content": f"new {message.role}"}) for message in before]
    for edited in ([*before[:-1], both[-1]], both):
        changed = correct_row({**row, "extra": 1}, edited)
        assert read_row_conversation(changed) == edited
        assert changed.keys() == {**row, "extra": 1}.keys()
    assert correct_row(row, before) == row


def test_a_log_that_is_a_link_gets_no_line(tmp_path: Path) -> None:
    target, path = tmp_path / "outside", tmp_path / "log"
    target.write_text("before\n")
    path.symlink_to(target)
    with pytest.raises(StoreError, match="log: cannot be"):
        append_json_line(path, "line")
    assert target.read_text() == "before\n"
    path.unlink()
    append_json_line(path, "line")  # the control


def test_a_link_that_replaces_a_log_while_it_is_written_gets_no_line(tmp_path: Path) -> None:
    target, path, other = tmp_path / "outside", tmp_path / "log", tmp_path / "link"
    target.write_text("before\n")
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            other.symlink_to(target)
            other.replace(path)
            path.unlink()
            path.touch()

    thread = threading.Thread(target=replace)
    thread.start()
    written = refused = 0
    try:
        for _ in range(300):
            try:
                append_json_line(path, "line")
                written += 1
            except StoreError:
                refused += 1
    finally:
        done.set()
        thread.join()
    assert target.read_text() == "before\n"
    assert written + refused == 300


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
