"""What a student's answers cost: the processor time of its server, and the price of it next to the teacher's tokens."""

import asyncio
import os
import threading
from functools import partial
from pathlib import Path

import pytest

from agents.studies.held_out_evaluation import HeldOutResult, ServedReplies, evaluate_held_out, held_out_seeds
from core.config.teachers import TeacherConfig
from core.errors import RecipeError
from core.sample import TokenUsage
from flows.evaluate.student_results import AnswerCost, estimate_answer_cost
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.base import TeacherReply
from teachers.local_llama import llama_settings, run_llama_server
from tests.support.exported_students import export_student

SMOKE = load_recipe_plan("smoke", ["agents.generator.max_tokens=8", "agents.generator.temperature=1.0"])
STUDENT = TeacherConfig(model="local/s.gguf", max_concurrent=8)
PRICED = TeacherConfig(model="openai/big", input_price=1.0, output_price=10.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(tmp_path_factory.mktemp("student"))


def read_ticks(pid: int) -> float:
    """Processor seconds of a process, by the kernel's other account of them, in steps of a tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_time_of_a_server_is_that_of_its_whole_process(weights: Path) -> None:
    tick = 2 / os.sysconf("SC_CLK_TCK")

    async def read() -> None:
        async with run_llama_server("x", llama_settings(str(weights), 1, 256), print, 120) as server:
            loaded = server.loaded
            assert loaded
            before = read_ticks(loaded.pid)
            found = loaded.served_seconds + loaded.seconds
            assert before - tick <= found <= read_ticks(loaded.pid) + tick
            assert loaded.seconds > 0, "it imported llama.cpp and read the weights"
        with pytest.raises(OSError, match="Invalid argument"):
            _ = loaded.served_seconds

    asyncio.run(read())


def test_replies_of_a_local_model_are_measured_and_those_from_the_cache_are_not(weights: Path, tmp_path: Path) -> None:
    """The control is a scripted model, which no server answers for."""
    seeds, served = held_out_seeds(SMOKE, 6), list[ServedReplies]()
    ask = partial(evaluate_held_out, SMOKE, stop=threading.Event(), on_progress=lambda _: None, on_served=served.append)
    for model, asked in ((f"local/{weights}", 4), (f"local/{weights}", 6), (f"local/{weights}", 6), ("fake/writer", 6)):
        results = asyncio.run(ask(model=TeacherConfig(model=model), seeds=seeds[:asked], cache=tmp_path))
        assert all(result.replies for result in results)
    assert [one.number for one in served] == [4, 2, 0, 6]
    assert served[0].seconds > 0
    assert served[1].seconds > 0
    assert served[3].seconds == 0


def results_of(replies: int) -> list[HeldOutResult]:
    """Of two requests with this number of replies each, of 500 tokens in and 50 out."""
    usage = TokenUsage(calls=1, prompt_tokens=500, completion_tokens=50)
    reply = TeacherReply(text="Yes.", finished=True, usage=usage)
    return [HeldOutResult(seed, "?", "Yes.", None, "", (reply,) * replies) for seed in range(2)]


def cost_at(price: str, teacher: TeacherConfig = PRICED) -> AnswerCost:
    """Of two replies, one of them measured: the other was in the cache."""
    recipe = load_recipe_plan("smoke", [f"student.core_hour_price={price}"] if price else []).recipe
    found = estimate_answer_cost(recipe, ServedReplies(1, 3.6), STUDENT, results_of(1), teacher, results_of(1))
    assert found
    return found


@pytest.mark.parametrize(("price", "cost"), [("0.05", 0.05), ("0.1", 0.1), ("0", 0.0), ("", 0.05)])
def test_the_price_is_proportional_to_that_of_a_core(price: str, cost: float) -> None:
    """3.6 core-seconds for each of 1,000 requests are a core-hour."""
    found = cost_at(price)
    assert found.price == pytest.approx(cost)
    assert found.core_seconds == 3.6
    assert found.teacher_price == pytest.approx(1.0), "500 tokens at 1 and 50 at 10 per million, 1,000 times"


def test_both_prices_are_in_one_line() -> None:
    assert cost_at("0.01").describe() == (
        "cost of 1,000 requests: student 0.01 on this machine (3.6 core-seconds each, 8 at once, 0.01 per core-hour); "
        "teacher openai/big 1 by tokens: the student costs 1 % of it"
    )
    for free in ({}, {"input_price": 0.0, "output_price": 0.0}):
        card = cost_at("0.01", TeacherConfig.model_validate({"model": "fake/writer", **free})).describe()
        assert card.endswith("; teacher fake/writer: its tokens have no price, or 0")


def test_a_request_with_two_replies_costs_both() -> None:
    served = ServedReplies(4, 3.6)
    found = estimate_answer_cost(SMOKE.recipe, served, STUDENT, results_of(2), PRICED, results_of(2))
    assert found
    assert (found.core_seconds, found.teacher_price) == (1.8, pytest.approx(2.0))


@pytest.mark.parametrize("served", [ServedReplies(0, 0.0), ServedReplies(2, 0.0)])
def test_no_cost_is_made_up_where_no_server_was_measured(served: ServedReplies) -> None:
    assert estimate_answer_cost(SMOKE.recipe, served, STUDENT, results_of(1), PRICED, results_of(1)) is None


@pytest.mark.parametrize(
    ("price", "problem"),
    [
        ("-1", "student.core_hour_price: input should be greater than or equal to 0, not -1"),
        ("'cheap'", "student.core_hour_price: input should be a valid number, unable to parse string as a number, not 'cheap'"),
        ("inf", "student.core_hour_price: input should be a finite number, not inf"),
    ],
)  # fmt: skip
def test_a_bad_price_of_a_core_is_one_sentence(price: str, problem: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan("smoke", [f"student.core_hour_price={price}"])
    assert list(map(str, caught.value.problems)) == [problem]
