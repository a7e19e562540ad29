"""The simulated tools by name, and which of them work on the result of which."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from agents.families.tools.agenda import AGENDA
from agents.families.tools.base import Arguments, Ran, Tool, World, run_tool
from agents.families.tools.everyday import EVERYDAY
from agents.families.tools.trade import TRADE
from agents.families.tools.world import EVENTS, PER_EURO, clock_of, draw_world

__all__ = ["CHAINS", "TOOLS", "Arguments", "Ran", "Tool", "World", "draw_world", "run_tool"]

TOOLS: Mapping[str, Tool] = {tool.name: tool for tool in (*EVERYDAY, *AGENDA, *TRADE)}

Link = Callable[[Arguments, Mapping[str, Any], Random], dict[str, Any] | None]


def _in_money(field: str) -> Link:
    def link(_arguments: Arguments, result: Mapping[str, Any], rng: Random) -> dict[str, Any]:
        return {"amount": result[field], "from_currency": "EUR", "to_currency": rng.choice([*PER_EURO])}

    return link


def _in_unit(field: str, given: str, wanted: str) -> Link:
    return lambda _arguments, result, _rng: {"value": result[field], "from_unit": given, "to_unit": wanted}


def _first_slot(arguments: Arguments, result: Mapping[str, Any], rng: Random) -> dict[str, Any]:
    when = {"day": result["day"], "start": result["free"][0]}
    return {"title": rng.choice(EVENTS), "when": when, "minutes": arguments["minutes"]}


def _when_back(_arguments: Arguments, result: Mapping[str, Any], rng: Random) -> dict[str, Any] | None:
    if "due" not in result:
        return None
    return {"text": f"ask for {result['title']}", "day": result["due"], "time": clock_of(rng.randint(32, 72) * 15)}


CHAINS: Mapping[tuple[str, str], Link] = {
    ("find_product", "convert_currency"): _in_money("price_eur"),
    ("split_bill", "convert_currency"): _in_money("each_eur"),
    ("plan_route", "convert_units"): _in_unit("distance_km", "kilometre", "mile"),
    ("get_weather", "convert_units"): _in_unit("temperature_c", "celsius", "fahrenheit"),
    ("find_free_slots", "add_event"): _first_slot,
    ("find_book", "set_reminder"): _when_back,
}
"""Arguments of the second tool, from those of the first and its result; None where the result gives none."""
