"""`validate --live` for agents that think: what it prints, and what it advises."""

import re
from typing import Any

import pytest

from tests.flows.commands.test_commands import called
from tests.support.thinking_endpoint import ThinkingServer, serve_thinking

ASKING = ["--set", "agents.generator.reasoning='low'"]


def validate(
    capsys: pytest.CaptureFixture[str], server: ThinkingServer, *words: str, keys: str = ""
) -> tuple[int, str, str]:
    with serve_thinking(server):
        endpoint = f"model='openai/m', base_url='{server.url}', dialect='{server.dialect}', logprobs=false{keys}"
        return called(capsys, "validate", "smoke", "--live", *words, "--set", f"teachers.main={{{endpoint}}}")


@pytest.mark.parametrize(
    ("server", "keys"),
    [
        (ThinkingServer(), ""),
        (ThinkingServer(dialect="openrouter", output="inline"), ""),
        (ThinkingServer(schema="no_thinking"), ", thinking='tagged'"),
        (ThinkingServer(schema="null_content"), ", thinking='tagged'"),
    ],
    ids=["vllm", "openrouter", "tagged", "null content"],
)
def test_a_way_that_works_is_named(server: ThinkingServer, keys: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = validate(capsys, server, *ASKING, keys=keys)
    assert (code, err) == (0, "")
    way = re.search(r"thinking='(\w+)'", keys)
    expected = (
        f'thinks and keeps to a JSON schema with thinking = "{way[1] if way else "native"}", counts thinking tokens'
    )
    assert f'{expected}, stops thinking with reasoning = "off"' in " ".join(out.split())


@pytest.mark.parametrize("schema", ["no_thinking", "null_content"])
def test_a_way_that_does_not_work_fails_in_one_sentence_with_one_that_does(
    schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = validate(capsys, ThinkingServer(schema=schema, counted=False), *ASKING)
    assert (code, out) == (1, ""), "no verdict before the probe"
    assert err.strip().endswith(
        'teacher main: with thinking = "native" it does not think; set teachers.main.thinking = "tagged", which works'
    )


def test_thinking_that_cannot_be_switched_off_is_a_fault_only_for_an_agent_that_wants_it_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = validate(capsys, ThinkingServer(always_thinks=True), *ASKING)
    assert code == 0
    assert 'NOT: stops thinking with reasoning = "off"' in " ".join(out.split())
    off = ["--set", "agents.critic.reasoning='off'"]
    code, _, err = validate(capsys, ThinkingServer(always_thinks=True), *ASKING, *off)
    assert code == 1
    assert 'thinks although agents.critic.reasoning = "off"' in err
