"""Properties of thousands of drawn plans: true places, possible ways, listed days, fitting personas, no contradiction."""

import json
import re
from collections import Counter
from datetime import date, timedelta
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from core.project_files import PROJECT
from core.sample import Seed
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.tools.families.tool_calls import ToolCallsFamily
from plugins.tools.scripts.tool_calls import write_conversation
from plugins.tools.simulation import SIMULATED_TOOLS, TOOL_CHAINS
from plugins.tools.simulation.scenario_domains import CATALOGUE, DOMAINS, DOMAINS_BY_NAME
from plugins.tools.simulation.scenarios import CROSSINGS, LIBRARY_GOALS, LIBRARY_VISITORS, scenario_lines
from plugins.tools.simulation.simulated_tool import run_tool
from plugins.tools.simulation.simulated_world import EVERYTHING, WORLD_SECTIONS, draw_world
from plugins.tools.simulation.town_map import REGIONS, road_km
from teachers.base import TeacherQuestion
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds, produce_scripted

SETTINGS = ["teachers.main={model='fake/tool_calls'}", "agents.critic=false", "samples=3000", "task.turns=[1,2,3]"]
ROADS = {
    ("Verona", "Padua"): 87, ("Utrecht", "Ghent"): 188, ("Nantes", "Rennes"): 113, ("Coimbra", "Porto"): 122,
    ("Brno", "Olomouc"): 80, ("Linz", "Vienna"): 184, ("Lublin", "Warsaw"): 177, ("Turku", "Helsinki"): 168,
    ("Lund", "Malmo"): 20,
    ("Aarhus", "Aalborg"): 118, ("Girona", "Barcelona"): 100, ("Budapest", "Debrecen"): 231, ("Budapest", "Pecs"): 240,
    ("Stuttgart", "Nuremberg"): 208, ("Lisbon", "Porto"): 313, ("Krakow", "Warsaw"): 293, ("Leuven", "Antwerp"): 55,
    ("Bologna", "Modena"): 42, ("Salzburg", "Linz"): 133, ("Poznan", "Wroclaw"): 183, ("Barcelona", "Lleida"): 162,
    ("Vejle", "Kolding"): 28, ("Kalmar", "Halmstad"): 240, ("Tampere", "Turku"): 162,
}  # fmt: skip
"""Kilometers by road, as road atlases give them."""
PLACES = {town: place for region in REGIONS.values() for town, place in region.towns.items()}


@cache
def drawn_seeds() -> tuple[Seed, ...]:
    return tuple(build_test_seeds(load_recipe_plan("tool-calls", SETTINGS))[:])


def calls_of(seed: Seed) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Calls with results, and the calls that an `ask` leaves to the user."""
    return [pair for wish in seed.data["wishes"] for pair in zip(wish["calls"], wish["results"], strict=True)]


@pytest.mark.parametrize(("pair", "known"), ROADS.items(), ids=["-".join(pair) for pair in ROADS])
def test_distances_are_those_of_the_roads(pair: tuple[str, str], known: int) -> None:
    assert abs(road_km(*(PLACES[town] for town in pair)) / known - 1) <= 0.15


def test_no_route_leaves_its_region_or_is_too_long_for_its_mode() -> None:
    modes = set()
    for seed in drawn_seeds():
        towns = seed.data["world"].get("towns", {})
        assert not towns or any(towns.keys() <= region.towns.keys() for region in REGIONS.values())
        for call, result in calls_of(seed):
            if call["name"] != "plan_route":
                continue
            mode, km = call["arguments"]["mode"], result.get("distance_km")
            if km is None:
                assert "not on the map" in result["error"] or (mode == "bicycle" and "too far" in result["error"])
                continue
            modes.add(mode)
            hours = result.get("hours", 0) + result.get("minutes", 0) / 60
            domain = DOMAINS_BY_NAME[seed.data["world"]["domain"]]
            nearest = min(road_km(PLACES[a], PLACES[b]) for a, b in combinations(towns, 2))
            assert 1 <= km <= (domain.cycling_km if mode == "bicycle" else max(domain.reach_km, nearest)), call
            assert (
                {"bicycle": 12, "car": 15, "train": 20}[mode]
                <= km / hours
                <= {"bicycle": 20, "car": 80, "train": 90}[mode]
            )
            assert result["distance_km"] == road_km(
                *(PLACES[call["arguments"][end]] for end in ("start", "destination"))
            )
    assert modes == {"car", "train", "bicycle"}


def test_every_day_is_in_the_prompts_calendar_under_its_right_name() -> None:
    for seed in drawn_seeds():
        plan = ToolCallsFamily().extra_prompt_values(seed)["plan"]
        _user, calendar, *rest = plan.split("\n")
        listed = dict(re.findall(r"(\w+, \d+ \w+ \d{4}) (?:is |\()(\d{4}-\d\d-\d\d)", calendar))
        today = date.fromisoformat(seed.data["world"]["today"])
        assert listed == {f"{d:%A}, {d.day} {d:%B %Y}": d.isoformat() for d in map(date.fromisoformat, listed.values())}
        assert set(re.findall(r"\d{4}-\d\d-\d\d", "\n".join(rest))) <= set(listed.values())
        for call, _ in calls_of(seed):
            asked = re.findall(r"\d{4}-\d\d-\d\d", json.dumps(call["arguments"]))
            assert all(today <= date.fromisoformat(day) <= today + timedelta(days=6) for day in asked), call


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


def test_no_plan_repeats_a_kind_of_turn_with_its_tools_or_books_a_time_twice() -> None:
    several = 0
    for seed in drawn_seeds():
        shapes: Counter[tuple[str, ...]] = Counter()
        booked: list[tuple[str, int]] = []
        fitting = {*seed.data["offered"]} & {*seed.data["tools"]}
        for before, wish in pairwise([None, *seed.data["wishes"]]):
            if before is None or before["kind"] != "ask":
                shapes[wish["kind"], *dict.fromkeys(call["name"] for call in wish["calls"])] += bool(wish["calls"])
            for call in wish["calls"]:
                when = call["arguments"].get("when", call["arguments"])
                if call["name"] in ("add_event", "set_reminder"):
                    hour, minute = when.get("start", when.get("time")).split(":")
                    moment = int(hour) * 60 + int(minute)
                    assert all(day != when["day"] or abs(moment - other) >= 60 for day, other in booked), seed.data[
                        "wishes"
                    ]
                    booked.append((when["day"], moment))
        for (kind, *_), times in shapes.items():
            assert times <= (1 if kind != "call" else 2 if len(fitting) > 1 else 3), seed.data["wishes"]
        several += len(booked) > 1
    assert several > 50


def test_a_critic_of_the_talk_sees_names_and_descriptions_of_tools_and_no_schema(tmp_path: Path) -> None:
    plan = load_recipe_plan("tool-calls", [*SETTINGS[:1], "samples=6"])
    good = '{"faults": [], "scores": {"natural": 5, "fitting": 5}, "advice": ""}'

    def answer(question: TeacherQuestion) -> str:
        return good if question.contract == "Review" else json.dumps(write_conversation(Random(1), question, right=1))

    teacher = ScriptedTeacher(answer)
    samples = produce_scripted(plan, teacher, tmp_path)
    reviews = [question.messages[-1].content for question in teacher.asked if question.contract == "Review"]
    assert len(reviews) == 6
    assert all("<tools>" in sample.candidate.messages[0].content for sample in samples)
    for review in reviews:
        assert "additionalProperties" not in review
        assert any(f"- {name}: {tool.description}" in review for name, tool in SIMULATED_TOOLS.items())
        assert review.count("\nUser: ") >= 1


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


def test_weather_fits_itself_its_region_and_its_month() -> None:
    for number in range(500):
        world = draw_world(Random(f"weather/{number}"), ["towns"])
        (region,) = [one for one in REGIONS.values() if world["towns"].keys() <= one.towns.keys()]
        for town in world["towns"].values():
            for day, weather in town["forecast"].items():
                degrees, sky = weather["temperature_c"], weather["sky"]
                assert abs(degrees - region.means_c[int(day[5:7]) - 1]) <= 6
                assert not (sky == "rain" and degrees < 3)
                assert not (sky == "snow" and degrees > 0)
                assert not (sky == "storm" and (degrees < 12 or weather["wind_kmh"] < 50))
                assert not (sky == "fog" and (weather["wind_kmh"] > 10 or weather["humidity_percent"] < 90))


def test_scenarios_without_a_domain_still_have_a_world_and_calls() -> None:
    """Rows of the user's own, as older seeds files have them."""
    row = {"who": "a nurse", "why": "plans a visit", "tools": [*SIMULATED_TOOLS]}
    options = ToolCallsFamily.options(turns=(3,), tools=(8,))
    for number in range(200):
        data = ToolCallsFamily().condition(row, options, Random(number))
        assert data["world"]["domain"] == EVERYTHING.name
        for wish in data["wishes"]:
            assert any("error" in result for result in wish["results"]) == (wish["kind"] == "error")


def test_an_older_seed_with_a_flat_map_keeps_its_distances() -> None:
    towns = {"Siena": {"at": [0, 0], "station": True}, "Lund": {"at": [141, 188], "station": False}}
    world = {"today": "2024-06-14", "number": 1, "towns": towns}
    route = {"start": "Siena", "destination": "Lund", "mode": "bicycle"}
    result = run_tool(world, SIMULATED_TOOLS, "plan_route", route).result
    assert (result["distance_km"], result["hours"], result["minutes"]) == (294, 17, 20)
    train = run_tool(world, SIMULATED_TOOLS, "plan_route", {**route, "mode": "train"}).result
    assert train == {"error": "no train: Lund has no station"}


def test_the_seeds_files_are_the_crossings_and_distinct() -> None:
    for name, file in (("simulated", "tool_scenarios.jsonl"), ("library", "library_tasks.jsonl")):
        text = (PROJECT / "data" / "seeds" / file).read_text()
        assert text == scenario_lines(name)
        assert len(set(text.splitlines())) == 400
        assert CROSSINGS[name](20) == [json.loads(line) for line in text.splitlines()[:20]]
    assert len(LIBRARY_GOALS) * len(LIBRARY_VISITORS) > 400


@pytest.mark.parametrize("domain", DOMAINS, ids=[domain.name for domain in DOMAINS])
def test_a_domain_has_things_for_each_of_its_tools(domain: Any) -> None:
    needed = {"find_product": "goods", "place_order": "goods", "set_reminder": "reminders", "add_event": "events",
              "find_free_slots": "events", "convert_units": "measures", "convert_currency": "payments", "split_bill": "bills",
              "plan_route": "trips", "get_weather": "weather"}  # fmt: skip
    assert all(getattr(domain, needed[tool]) for tool in domain.tools if tool in needed)
    assert len(domain.goods) in (0, *range(8, 20))
    assert set(domain.goods) <= set(CATALOGUE)
    assert any(set(pair) <= domain.tools.keys() for pair in TOOL_CHAINS)
    world = draw_world(Random(domain.name), WORLD_SECTIONS, domain)
    for name in domain.tools:
        for number in range(30):
            result = run_tool(world, SIMULATED_TOOLS, name, SIMULATED_TOOLS[name].draw(world, Random(number))).result
            assert "error" not in result
