"""Prices of tokens: subsets, upper bounds, and the tables in which they are found."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.config.teacher_prices import apply_prices, find_teacher_prices, keep_recorded_prices
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.prices import SHIPPED_TABLE, TokenPrices, read_price_table
from core.project_files import SHIPPED
from core.sample import TokenUsage

price = st.floats(0, 1000)
count = st.integers(0, 10**6)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(prices=st.tuples(price, price, price, price, price), most=st.tuples(count, count), parts=st.tuples(*[count] * 5))
def test_no_usage_within_its_maximum_costs_more_than_was_reserved(
    prices: tuple[float, ...], most: tuple[int, int], parts: tuple[int, ...]
) -> None:
    """Also where an endpoint reports more cached, written or thinking tokens than tokens."""
    each = TokenPrices(*prices)
    prompt, completion, cached, written, thought = parts
    usage = TokenUsage(
        calls=1, prompt_tokens=min(prompt, most[0]), completion_tokens=min(completion, most[1]), cached_tokens=cached,
        cache_write_tokens=written, reasoning_tokens=thought,
    )  # fmt: skip
    assert 0 <= each.cost(usage) <= each.max_cost(*most) * (1 + 1e-12)


def test_each_kind_of_token_has_its_price_and_a_default_from_the_others() -> None:
    usage = TokenUsage(
        calls=1, prompt_tokens=1_000_000, completion_tokens=500_000, cached_tokens=600_000, cache_write_tokens=100_000,
        reasoning_tokens=200_000,
    )  # fmt: skip

    def cost(model: str, **prices: float) -> float:
        found = TeacherConfig(model=model, **prices).prices()  # type: ignore[arg-type]
        assert found
        return found.cost(usage)

    everything = {"cached_price": 0.1, "cache_write_price": 2.0, "reasoning_price": 30.0}
    assert cost("openai/x", input_price=1, output_price=10) == pytest.approx(1 + 5)
    assert cost("openai/x", input_price=1, output_price=10, **everything) == pytest.approx(0.3 + 0.06 + 0.2 + 3 + 6)
    assert cost("anthropic/x", input_price=1, output_price=10) == pytest.approx(0.9 + 0.125 + 5)
    assert cost("local/x") == 0
    assert TeacherConfig(model="openai/x", input_price=1).prices() is None
    assert TeacherConfig(model="openai/x", cached_price=1, output_price=1).prices() is None


MINE = """
currency = "EUR"
date = 2026-01-02
source = "my contract"
[openai]
protocol = "openai"
base_url = "https://api.openai.com"
models = { "gpt-5*" = { input_price = 7, output_price = 8 }, "gpt-5-mini" = { input_price = 1, output_price = 2 } }
[mine]
protocol = "openai"
base_url = "http://gpu:8000"
models = { "*" = { input_price = 0.5, output_price = 0.5, reasoning_price = 0.75 } }
"""


def test_a_price_is_from_the_recipe_else_the_users_table_else_the_shipped_table(tmp_path: Path) -> None:
    def prices_of(**teachers: TeacherConfig) -> dict[str, tuple[float, float, str]]:
        found = find_teacher_prices(teachers, tmp_path)
        return {name: (one.input_price, one.output_price, one.source.split(":")[0]) for name, one in found.items()}

    shipped = tomllib.loads((SHIPPED / SHIPPED_TABLE).read_text())["anthropic"]["models"]["claude-haiku-4-5*"]
    teachers = {
        "own": TeacherConfig(model="openai/gpt-5-mini", input_price=3, output_price=4),
        "listed": TeacherConfig(model="openai/gpt-5-mini"),
        "longer": TeacherConfig(model="openai/gpt-5-mini-2025", base_url="https://api.openai.com/v1"),
        "host": TeacherConfig(model="openai/org/model", base_url="http://gpu:8000/v1"),
        "like": TeacherConfig(model="openai/gpt-5-mini", base_url="http://gpu:8001/v1"),
        "shipped": TeacherConfig(model="anthropic/claude-haiku-4-5"),
        "free": TeacherConfig(model="local/smollm2-135m"),
        "half": TeacherConfig(model="openai/gpt-5-mini", cached_price=1),
    }
    before = prices_of(**teachers)
    assert before["listed"][2] == "data/prices.toml"
    assert before["listed"][:2] != (1, 2)
    (tmp_path / "prices.toml").write_text(MINE)
    user = str(tmp_path / "prices.toml")
    assert prices_of(**teachers) == {
        "own": (3, 4, "the recipe"), "listed": (1, 2, user), "longer": (7, 8, user), "host": (0.5, 0.5, user),
        "shipped": (shipped["input_price"], shipped["output_price"], "data/prices.toml"),
    }  # fmt: skip
    filled = apply_prices(teachers, find_teacher_prices(teachers, tmp_path))
    assert filled["host"].prices() == TokenPrices(0.5, 0.5, 0.5, 0.5, 0.75)
    assert filled["like"].prices() is None


def test_a_resumed_run_keeps_the_prices_of_tables_but_not_those_that_its_recipe_had(tmp_path: Path) -> None:
    def priced(**own: float) -> dict[str, TeacherConfig]:
        listed = TeacherConfig(model="openai/gpt-5-mini")
        return {"listed": listed, "own": TeacherConfig(model="openai/x", **own)}  # type: ignore[arg-type]

    (tmp_path / "prices.toml").write_text(MINE)
    recorded = find_teacher_prices(priced(input_price=1, output_price=1), tmp_path)
    (tmp_path / "prices.toml").write_text(
        MINE.replace('"gpt-5-mini" = { input_price = 1,', '"gpt-5-mini" = { input_price = 9,')
    )
    now = find_teacher_prices(priced(input_price=2, output_price=2), tmp_path)
    assert now["listed"].input_price == 9
    kept = keep_recorded_prices(now, recorded)
    assert (kept["listed"].input_price, kept["own"].input_price) == (1, 2)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("date = 1", "prices.toml: "),
        (MINE.replace("output_price = 2 ", "output = 2 "), r"openai\.models\.gpt-5-mini\.output_price: Field required"),
        ("[", "is not a TOML file"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(UsageError, match=fault):
        read_price_table(tmp_path / "prices.toml")
