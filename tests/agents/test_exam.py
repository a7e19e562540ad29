"""Models asked in plain words about held-out seeds, and judged by the recipe's checks."""

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from agents.brake import Stopped
from agents.contract import ContractFault
from agents.exam import Result, can_be_examined, examine, held_out_seeds
from agents.families import FAMILIES
from agents.families.base import Family
from agents.plan import Plan
from agents.seeds import Seeds
from core.errors import ProviderError
from core.recipe import Faults, TeacherConfig
from core.sample import Seed
from flows.recipes import load

WRITER = TeacherConfig(model="fake/writer")


def results_of(plan: Plan, number: int, model: TeacherConfig = WRITER) -> list[Result]:
    seeds = held_out_seeds(plan, number)
    return asyncio.run(examine(plan, model, seeds, threading.Event(), lambda _: None))


def test_held_out_seeds_are_those_that_no_run_of_the_recipe_uses() -> None:
    plan = load("smoke")
    seeds = held_out_seeds(plan, 20)
    assert [seed.index for seed in seeds] == list(range(60, 80))
    used = [seed.data["instruction"] for seed in Seeds(plan, "run00000")]
    longer = Seeds(load("smoke", ["samples=80"]), "run00000")
    assert [seed.data for seed in seeds] == [seed.data for seed in longer[60:]]
    assert not {seed.data["instruction"] for seed in seeds} & set(used)


@pytest.mark.parametrize(("samples", "first"), [(60, 20), (61, 21)])
def test_several_answers_to_a_seed_do_not_put_the_exams_seeds_further_on(samples: int, first: int) -> None:
    alike = held_out_seeds(load("smoke", [f"samples={samples}", "answers_per_seed=3"]), 5)
    assert [seed.index for seed in alike] == list(range(first, first + 5))
    assert len({seed.data["instruction"] for seed in alike}) == 5


def test_quotas_say_what_is_asked() -> None:
    plan = load("smoke", ['quotas={by="category",keep={food=3}}'])
    assert {seed.data["category"] for seed in held_out_seeds(plan, 8)} == {"food"}


def test_answers_are_judged_by_the_recipes_checks_whoever_gives_them() -> None:
    plan = load("smoke")
    results = results_of(plan, 40)
    assert [result.seed for result in results] == list(range(60, 100))
    faults = Counter(result.fault for result in results)
    assert 5 < faults[None] < 35
    assert set(faults) - {None} <= {"max_words", "words_between", "exact_sentences", "include_words", "on_topic"}
    assert all(result.evidence for result in results if result.fault)
    assert all("{" not in result.answer for result in results), "plain words, no JSON"
    assert results_of(plan, 40) == results


def test_every_turn_is_asked_for_with_the_answers_before_it() -> None:
    plan = load("conversations", ["task.turns=[3]", "task.system=1.0", "teachers.main.model=fake/writer"])
    [result] = results_of(plan, 1)
    [seed] = held_out_seeds(plan, 1)
    assert result.question == "\n".join(seed.data["requests"])
    assert len(seed.data["requests"]) == 3
    assert len(result.answer.split("\n")) == (3 if result.fault != "cut off" else 1)


def test_who_does_not_answer_does_not_pass() -> None:
    silent = WRITER.model_copy(update={"faults": Faults(unavailable=1.0)})
    assert {result.fault for result in results_of(load("smoke"), 5, silent)} == {"no answer"}


def test_a_model_that_cannot_be_had_ends_the_exam() -> None:
    with pytest.raises(ProviderError, match="there is no file"):
        results_of(load("smoke"), 5, TeacherConfig(model="local/none.gguf"))


def test_an_exam_can_be_stopped() -> None:
    stop = threading.Event()
    plan = load("smoke")
    with pytest.raises(Stopped):
        asyncio.run(
            examine(plan, WRITER, held_out_seeds(plan, 300), stop, lambda done: stop.set() if done > 20 else None)
        )


def test_what_the_generator_asks_itself_cannot_be_asked_by_seeds() -> None:
    assert can_be_examined(load("smoke"))
    assert not can_be_examined(load("arithmetic"))


def reasoning(answers: list[str]) -> Any:
    family: Family = FAMILIES["reasoning"]
    seed = Seed(id="x-0", data={"question": "How many?", "expected": "4"})
    assert [message.content for message in family.questions(seed) or ()] == ["How many?"]
    return family.answered(seed, answers)


def test_a_plain_answer_is_read_as_a_student_is_taught_to_give_it() -> None:
    made = reasoning(["2 + 2 is 4.\n\nAnswer: 4"])
    assert made.fields == {"reasoning": "2 + 2 is 4.", "answer": "4"}
    assert made.messages[-1].content == "2 + 2 is 4.\n\nAnswer: 4"
    for said in ("4", "Answer: 4", "2 + 2 is 4. Answer: "):
        with pytest.raises(ContractFault, match="does not reason and then say 'Answer:'"):
            reasoning([said])
