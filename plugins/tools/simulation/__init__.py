"""The simulated tools by name, and which of them work on the result of which."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

from plugins.tools.simulation.calendar_tools import CALENDAR_TOOLS, draw_title
from plugins.tools.simulation.lookup_tools import LOOKUP_TOOLS
from plugins.tools.simulation.shop_tools import SHOP_TOOLS
from plugins.tools.simulation.simulated_tool import SimulatedTool, ToolArguments, WorldState
from plugins.tools.simulation.simulated_world import find_domain, format_minutes, parse_minutes

SIMULATED_TOOLS: Mapping[str, SimulatedTool] = {
    tool.name: tool for tool in (*LOOKUP_TOOLS, *CALENDAR_TOOLS, *SHOP_TOOLS)
}

ToolLink = Callable[[WorldState, ToolArguments, Mapping[str, Any], Random], dict[str, Any] | None]


class ToolChain(NamedTuple):
    link: ToolLink
    """Arguments of the second tool, from those of the first and its result; None where the result gives none."""
    asked: str
    """What the user asks for, so that the second call follows from the request."""


def _link_to_currency(field: str) -> ToolLink:
    def link(world: WorldState, _arguments: ToolArguments, result: Mapping[str, Any], rng: Random) -> dict[str, Any]:
        payments = find_domain(world).payments
        foreign = {code for one in payments for code in (one.from_currency, one.to_currency)} - {"EUR"}
        return {
            "amount": result[field],
            "from_currency": "EUR",
            "to_currency": rng.choice(sorted(foreign) or ["USD", "GBP", "CHF"]),
        }

    return link


def _link_to_unit(field: str, given: str, wanted: str) -> ToolLink:
    return lambda _world, _arguments, result, _rng: {"value": result[field], "from_unit": given, "to_unit": wanted}


def _link_to_event(
    world: WorldState, arguments: ToolArguments, result: Mapping[str, Any], rng: Random
) -> dict[str, Any]:
    when = {"day": result["day"], "start": result["free"][0]}
    title = draw_title(world, rng, when["day"], parse_minutes(when["start"]), arguments["minutes"])
    return {"title": title, "when": when, "minutes": arguments["minutes"]}


def _link_to_reminder(
    _world: WorldState, _arguments: ToolArguments, result: Mapping[str, Any], rng: Random
) -> dict[str, Any] | None:
    if "due" not in result:
        return None
    time = format_minutes(rng.randint(32, 72) * 15)
    return {"text": f"ask for {result['title']}", "day": result["due"], "time": time}


TOOL_CHAINS: Mapping[tuple[str, str], ToolChain] = {
    ("find_product", "convert_currency"): ToolChain(
        _link_to_currency("price_eur"), "the price of one, and the same in the other currency"
    ),
    ("split_bill", "convert_currency"): ToolChain(
        _link_to_currency("each_eur"), "what each person pays, and the same in the other currency"
    ),
    ("plan_route", "convert_units"): ToolChain(
        _link_to_unit("distance_km", "kilometre", "mile"),
        "how far it is, in miles too, for somebody who thinks in miles",
    ),
    ("get_weather", "convert_units"): ToolChain(
        _link_to_unit("temperature_c", "celsius", "fahrenheit"),
        "the weather, with the temperature in Fahrenheit too, for somebody who thinks in it",
    ),
    ("find_free_slots", "add_event"): ToolChain(
        _link_to_event, "the first free time of that day, and the event put there"
    ),
    ("find_book", "set_reminder"): ToolChain(
        _link_to_reminder, "when the book is due back, and to be reminded on that day"
    ),
}
