"""Two calls for one reply: the budget, the ledger, and a kill between them."""

import contextlib
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.calls.budget import BudgetExhausted
from core.config.recipe import Recipe
from core.sample import Sample
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherQuestion
from tests.support.forked import FORKS, Program
from tests.support.scripted_teacher import ScriptedTeacher, estimate_usage, produce_scripted
from tests.support.thinking_endpoint import ThinkingServer, serve_thinking
from tests.support.waiting import wait_until

REVIEW = json.dumps({"scores": {"sense": 5, "style": 5}, "faults": [], "advice": "keep it"})
SMALL = ["samples=10", "task.kinds={max_words=1}", "task.constraints=[1]", 'verifiers=[{type="constraints"}]']
THINKING = ["teachers.main.thinking='two_step'", "agents.generator.reasoning='low'", "agents.critic.reasoning='low'"]


def recipe_of(*overrides: str) -> Recipe:
    return load_recipe_plan("smoke", [*SMALL, *THINKING, *overrides]).recipe


def answer(question: TeacherQuestion) -> str:
    if question.json_schema is None:
        return f"I think about {question.messages[-1].content}"
    return REVIEW if question.contract == "Review" else json.dumps({"answer": "Bees fly."})


def make_samples(recipe: Recipe, folder: Path, teacher: ScriptedTeacher) -> list[Sample]:
    """The samples that were made before the budget ended."""
    made: list[Sample] = []
    with contextlib.suppress(BudgetExhausted):
        produce_scripted(recipe, teacher, folder, done=made.append)
    return made


def test_two_calls_are_one_turn_with_the_thought_and_the_usage_of_both(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(answer)
    samples = make_samples(recipe_of(), tmp_path, teacher)
    assert len(samples) == 10
    turns = [turn for sample in samples for turn in sample.turns]
    assert {turn.usage.calls for turn in turns} == {2}
    assert all(turn.reasoning.startswith("I think about") for turn in turns)
    assert not any("I think" in turn.reply or "I think" in turn.asked for turn in turns)
    assert sum(turn.usage.calls for turn in turns) == len(teacher.asked)
    plain = make_samples(
        recipe_of("agents.generator.reasoning='off'", "agents.critic.reasoning='off'"), tmp_path / "off", teacher
    )
    assert {(turn.usage.calls, turn.reasoning) for sample in plain for turn in sample.turns} == {(1, "")}


@pytest.mark.parametrize("limit", ["calls=3", "calls=17", "tokens=9000", "tokens=30000"])
def test_no_budget_is_exceeded_and_a_larger_one_pays_no_thought_again(limit: str, tmp_path: Path) -> None:
    teacher = ScriptedTeacher(answer, seconds=0.001)
    make_samples(recipe_of(f"budget.{limit}"), tmp_path, teacher)
    kind, _, most = limit.partition("=")
    usages = [estimate_usage(question) for question in teacher.asked]
    spent = {"calls": len(usages), "tokens": sum(usage.prompt_tokens + usage.completion_tokens for usage in usages)}
    assert 0 < spent[kind] <= int(most)
    assert len(make_samples(recipe_of(), tmp_path, teacher)) == 10
    asked = Counter(question.canonical for question in teacher.asked)
    assert max(asked.values()) == 1, "also between a thought and its answer"


@pytest.mark.slow
def test_a_kill_between_thought_and_answer_does_not_pay_for_the_thought_again(tmp_path: Path) -> None:
    class KillingServer(ThinkingServer):
        victim: Program | None = None

        def complete(self, body: dict[str, Any]) -> dict[str, Any]:
            if self.victim and "response_format" in body:
                self.victim.send_signal(signal.SIGKILL)
                self.victim.wait()
                self.victim = None
            return super().complete(body)

    with serve_thinking(KillingServer()) as server:
        endpoint = f"model='openai/m', base_url='{server.url}', dialect='vllm', logprobs=false, max_concurrent=1"
        teacher = f"teachers.main={{{endpoint}, thinking='two_step'}}"
        words = [str(tmp_path), "smoke", *SMALL, *THINKING[1:], "samples=3", teacher]
        assert isinstance(server, KillingServer)
        server.victim = victim = FORKS.start("tests.support.produce_run", *words)
        wait_until(lambda: any("response_format" in body for body in server.bodies))
        assert victim.returncode == -signal.SIGKILL
        victim.stdout.close()
        thoughts = sum("response_format" not in body for body in server.bodies)
        assert thoughts == len(server.bodies) - 1, "killed at the first answer"
        FORKS.run("tests.support.produce_run", *words)
    asked = Counter(json.dumps(body) for body in server.bodies if "response_format" not in body)
    assert len(asked) > thoughts
    assert set(asked.values()) == {1}
