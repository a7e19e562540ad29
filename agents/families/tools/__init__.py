"""The simulated tools by name, and which of them work on the result of which."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from agents.families.tools.calendar_tools import CALENDAR_TOOLS
from agents.families.tools.lookup_tools import LOOKUP_TOOLS
from agents.families.tools.shop_tools import SHOP_TOOLS
from agents.families.tools.simulated_tool import SimulatedTool, ToolArguments
from agents.families.tools.simulated_world import EURO_RATES, EVENTS, format_minutes

SIMULATED_TOOLS: Mapping[str, SimulatedTool] = {
    tool.name: tool for tool in (*LOOKUP_TOOLS, *CALENDAR_TOOLS, *SHOP_TOOLS)
}

ToolLink = Callable[[ToolArguments, Mapping[str, Any], Random], dict[str, Any] | None]


def _link_to_currency(field: str) -> ToolLink:
    def link(_arguments: ToolArguments, result: Mapping[str, Any], rng: Random) -> dict[str, Any]:
        return {"amount": result[field], "from_currency": "EUR", "to_currency": rng.choice([*EURO_RATES])}

    return link


def _link_to_unit(field: str, given: str, wanted: str) -> ToolLink:
    return lambda _arguments, result, _rng: {"value": result[field], "from_unit": given, "to_unit": wanted}


def _link_to_event(arguments: ToolArguments, result: Mapping[str, Any], rng: Random) -> dict[str, Any]:
    when = {"day": result["day"], "start": result["free"][0]}
    return {"title": rng.choice(EVENTS), "when": when, "minutes": arguments["minutes"]}


def _link_to_reminder(_arguments: ToolArguments, result: Mapping[str, Any], rng: Random) -> dict[str, Any] | None:
    if "due" not in result:
        return None
    return {
        "text": f"ask for {result['title']}",
        "day": result["due"],
        "time": format_minutes(rng.randint(32, 72) * 15),
    }


TOOL_CHAINS: Mapping[tuple[str, str], ToolLink] = {
    ("find_product", "convert_currency"): _link_to_currency("price_eur"),
    ("split_bill", "convert_currency"): _link_to_currency("each_eur"),
    ("plan_route", "convert_units"): _link_to_unit("distance_km", "kilometre", "mile"),
    ("get_weather", "convert_units"): _link_to_unit("temperature_c", "celsius", "fahrenheit"),
    ("find_free_slots", "add_event"): _link_to_event,
    ("find_book", "set_reminder"): _link_to_reminder,
}
"""Arguments of the second tool, from those of the first and its result; None where the result gives none."""
