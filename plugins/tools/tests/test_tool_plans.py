"""Properties of thousands of drawn plans: true places, possible ways, listed days, fitting personas, no contradiction."""

import json
import re
from datetime import date
from functools import cache
from itertools import pairwise
from typing import Any

from core.sample import Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS
from plugins.tools.simulation.simulated_world import CATALOGUE, DOMAINS_BY_NAME
from tests.support.scripted_teacher import build_test_seeds

SETTINGS = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "samples=3000", "task.turns=[1,2,3]"]


@cache
def drawn_seeds() -> tuple[Seed, ...]:
    return tuple(build_test_seeds(load_recipe_plan("tool-calls", SETTINGS))[:])


def calls_of(seed: Seed) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Calls with results, and the calls that an `ask` leaves to the user."""
    return [pair for wish in seed.data["wishes"] for pair in zip(wish["calls"], wish["results"], strict=True)]


def test_no_turn_contradicts_another() -> None:
    """A plan repeats no call, and nothing fails that an earlier turn has looked up."""
    for seed in drawn_seeds():
        made: list[str] = []
        things: set[str] = set()
        for before, wish in pairwise([None, *seed.data["wishes"]]):
            names = {
                str(call["arguments"][key])
                for call in wish["calls"]
                for key in ("city", "product", "title")
                if key in call["arguments"]
            }
            if wish["kind"] == "error":
                assert not names & things, seed.data["wishes"]
            assert before is None or before["kind"] != "ask" or wish["calls"][0]["name"] == before["tool"]
            made += [json.dumps(call) for call in wish["calls"]]
            things |= names
        assert len(made) == len(set(made)), made
        needs = [wish["need"] for wish in seed.data["wishes"] if wish["need"]]
        assert len(needs) == len(set(needs))


def test_a_plan_fits_its_persona() -> None:
    abouts = 0
    for seed in drawn_seeds():
        domain = DOMAINS_BY_NAME[seed.data["world"]["domain"]]
        assert seed.data["who"] in domain.personas
        assert seed.data["why"] in domain.purposes
        for wish in seed.data["wishes"]:
            assert {call["name"] for call in wish["calls"]} | {wish["tool"]} <= {*domain.tools, ""}
            needs = {SIMULATED_TOOLS[name].need for name in domain.tools} | {*domain.needs, ""}
            assert wish["need"] in needs
            texts = {one.about for some in (domain.measures, domain.payments, domain.bills) for one in some}
            assert not wish["about"] or wish["about"] in texts | {*domain.trips, *domain.weather}
            abouts += bool(wish["about"])
        for call, result in calls_of(seed):
            given = call["arguments"]
            if "product" in given:
                assert given["product"] in domain.goods
                assert given.get("quantity", 1) <= CATALOGUE[given["product"]].most
                price = result.get("price_eur", CATALOGUE[given["product"]].least_eur)
                assert CATALOGUE[given["product"]].least_eur <= price <= CATALOGUE[given["product"]].most_eur
            if call["name"] == "add_event":
                hour = int(given["when"]["start"][:2])
                fitting = [
                    e for e in domain.events if e.first_hour <= hour < e.last_hour and given["minutes"] in e.minutes
                ]
                assert any(re.fullmatch(e.title.replace("NAME", r"\w+"), given["title"]) for e in fitting), call
                assert date.fromisoformat(given["when"]["day"]).weekday() < 5
            if call["name"] == "find_book":
                assert not seed.data["world"]["library"].get(given["title"], {"mine": False})["mine"]
    assert abouts > 1000
