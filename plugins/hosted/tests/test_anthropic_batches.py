"""Batches of Anthropic's API against a strict local server: results, failures, and batches of unknown id."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.hosted.tests.support.anthropic_batch_server import KEY, AnthropicBatchServer
from plugins.hosted.tests.support.batch_questions import QUESTIONS, Outcome, ask_in_batches, count_replies
from teachers.base import CallFailed, TeacherReply
from tests.support.http_serving import serve


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnthropicBatchServer]:
    monkeypatch.setenv("TEST_BATCH_KEY", KEY)
    with serve(AnthropicBatchServer()) as served:
        yield served


def ask(server: AnthropicBatchServer, folder: Path, **keys: Any) -> list[Outcome]:
    table = {"model": "anthropic/claude-haiku-4-5", "base_url": server.url, **keys}
    return ask_in_batches(table, folder)


def test_batched_replies_are_those_of_direct_calls(server: AnthropicBatchServer, tmp_path: Path) -> None:
    batched = ask(server, tmp_path / "batched")
    assert count_replies(batched) == len(QUESTIONS)
    assert (len(server.batches), server.direct) == (1, 0)
    (tmp_path / "direct").mkdir()
    direct = ask(server, tmp_path / "direct", batch=False)
    assert server.direct == len(QUESTIONS)
    assert batched == direct
    assert server.refused == []


@pytest.mark.parametrize("fate", ["expired", "overloaded_error", "api_error"])
def test_a_request_without_a_message_is_sent_again(server: AnthropicBatchServer, tmp_path: Path, fate: str) -> None:
    server.fate = lambda request, number: fate if number == 3 and len(server.batches) == 1 else "succeeded"
    assert count_replies(ask(server, tmp_path)) == len(QUESTIONS)
    assert [len(batch.requests) for batch in server.batches.values()] == [len(QUESTIONS), 1]


def test_a_cancelled_batch_stops_the_run_and_its_results_are_kept(server: AnthropicBatchServer, tmp_path: Path) -> None:
    server.fate = lambda request, number: "canceled" if number % 2 else "succeeded"

    def cancel(method: str, path: str) -> None:
        for batch in server.batches.values():
            batch.fields["cancel_initiated_at"] = batch.fields["created_at"]

    server.observe = cancel
    outcomes = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS) / 2
    assert {str(outcome) for outcome in outcomes if not isinstance(outcome, TeacherReply)} == {
        "anthropic/claude-haiku-4-5: batch msgbatch_000001: was cancelled outside this run; its results are kept, and --resume "
        "sends the other requests again"
    }
    server.observe, server.fate = (lambda _method, _path: None), (lambda request, number: "succeeded")
    assert count_replies(ask(server, tmp_path)) == len(QUESTIONS)
    assert set(server.billed.values()) == {1}


def test_a_batch_of_which_the_answer_was_lost_is_found_among_others(
    server: AnthropicBatchServer, tmp_path: Path
) -> None:
    """Another batch with as many requests is open: whose a batch is shows only when it has ended."""
    stranger = server.create(
        {"requests": [{"custom_id": f"other-{number}", "params": {"model": "x"}} for number in range(len(QUESTIONS))]}
    )

    def break_off(method: str, path: str) -> None:
        if method == "POST":
            server.observe = lambda _method, _path: None
            raise ConnectionError("the answer is lost")

    server.observe = break_off
    outcomes = ask(server, tmp_path, max_retries=4)
    assert count_replies(outcomes) == len(QUESTIONS)
    assert len(server.batches) == 2
    assert stranger.fields["processing_status"] == "ended"
    assert set(server.billed.values()) == {1}


@pytest.mark.parametrize("archived", [True, False])
def test_an_older_batch_whose_results_are_gone_is_not_taken_for_ours(
    server: AnthropicBatchServer, tmp_path: Path, archived: bool
) -> None:
    """The answer to our batch is lost, and it is looked for among others, one with as many requests."""
    stranger = server.create(
        {"requests": [{"custom_id": f"other-{number}", "params": {"model": "x"}} for number in range(len(QUESTIONS))]}
    )
    server.finish(stranger)
    stranger.gone = True
    if archived:
        stranger.fields["results_url"] = None

    def break_off(method: str, path: str) -> None:
        if method == "POST":
            server.observe = lambda _method, _path: None
            raise ConnectionError("the answer is lost")

    server.observe = break_off
    assert count_replies(ask(server, tmp_path, max_retries=1)) == len(QUESTIONS)
    assert len(server.batches) == 2
    assert set(server.billed.values()) == {1}


@pytest.mark.parametrize("path", ["/v1/messages/batches", "msgbatch_000001", "results"])
def test_an_answer_that_is_cut_off_is_requested_again(server: AnthropicBatchServer, tmp_path: Path, path: str) -> None:
    cut: list[str] = []

    def decide(requested: str) -> bool:
        if cut or not requested.endswith(path):
            return False
        cut.append(requested)
        return True

    server.cut = decide
    assert count_replies(ask(server, tmp_path)) == len(QUESTIONS)
    assert cut
    assert len(server.batches) == 1
    assert set(server.billed.values()) == {1}


def test_an_invalid_request_fails_its_call_alone(server: AnthropicBatchServer, tmp_path: Path) -> None:
    server.fate = lambda request, number: "invalid_request_error" if number == 3 else "succeeded"
    outcomes = ask(server, tmp_path)
    assert count_replies(outcomes) == len(QUESTIONS) - 1
    (failed,) = [outcome for outcome in outcomes if not isinstance(outcome, TeacherReply)]
    assert isinstance(failed, CallFailed)
    assert "status 400" in str(failed)
    assert len(server.batches) == 1
