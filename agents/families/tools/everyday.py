"""Simulated tools that only look something up or reckon: weather, units, currencies, routes, bills. They change no world."""

from math import hypot
from random import Random
from typing import Any

from agents.families.tools.base import (
    Arguments,
    Ran,
    Tool,
    ToolError,
    World,
    day,
    integer,
    neat,
    parameters,
    text,
    words,
)
from agents.families.tools.world import FORECAST_DAYS, TOWNS, later

UNITS = {
    "kilometre": ("kilometres", "kilometer", "kilometers", "km"),
    "mile": ("miles",),
    "metre": ("metres", "meter", "meters"),
    "foot": ("feet", "ft"),
    "kilogram": ("kilograms", "kilo", "kilos", "kg"),
    "pound": ("pounds", "lb", "lbs"),
    "litre": ("litres", "liter", "liters"),
    "gallon": ("gallons",),
    "celsius": ("°C",),
    "fahrenheit": ("°F",),
}
FACTORS = {
    "kilometre": ("metre", 1000.0),
    "mile": ("metre", 1609.344),
    "metre": ("metre", 1.0),
    "foot": ("metre", 0.3048),
    "kilogram": ("kilogram", 1.0),
    "pound": ("kilogram", 0.45359237),
    "litre": ("litre", 1.0),
    "gallon": ("litre", 3.785411784),
}
"""What each unit measures and how much of it: the international yard and pound (1959), the US liquid gallon."""
PAIRS = (
    ("kilometre", "mile"), ("metre", "foot"), ("kilogram", "pound"), ("litre", "gallon"), ("celsius", "fahrenheit")
)  # fmt: skip
CURRENCIES = {
    "EUR": ("euro", "euros", "€"),
    "USD": ("US dollar", "US dollars", "dollar", "dollars", "$"),
    "GBP": ("British pound", "British pounds", "pounds", "pound", "sterling", "£"),
    "CHF": ("Swiss franc", "Swiss francs", "francs", "franc"),
    "NOK": ("Norwegian krone", "Norwegian kroner", "Norwegian crowns"),
    "SEK": ("Swedish krona", "Swedish kronor", "Swedish crowns"),
    "JPY": ("Japanese yen", "yen", "¥"),
}
MODES = {
    "car": ("drive", "driving", "by car"),
    "train": ("rail", "by train"),
    "bicycle": ("bike", "cycle", "cycling"),
}
SPEEDS = {"car": 75, "train": 95, "bicycle": 17}
"""In km/h."""
DETOUR = 1.25
"""How much longer a road is than the straight line."""

MOST = 1_000_000
"""Of any number to be turned into another."""


def _money(about: str) -> dict[str, Any]:
    return {"type": "number", "exclusiveMinimum": 0, "maximum": MOST, "description": about}


def _weather(world: World, arguments: Arguments) -> Ran:
    town = world["towns"].get(arguments["city"])
    if town is None:
        raise ToolError(f"no forecast for {arguments['city']}: unknown city")
    found = town["forecast"].get(arguments["day"])
    if found is None:
        raise ToolError(
            f"no forecast for {arguments['city']} on {arguments['day']}: only {FORECAST_DAYS} days are known"
        )
    return Ran({"city": arguments["city"], "day": arguments["day"], **found}, world)


def _draw_weather(world: World, rng: Random) -> dict[str, Any]:
    return {"city": rng.choice([*world["towns"]]), "day": later(world["today"], rng.randrange(FORECAST_DAYS))}


def _fail_weather(world: World, rng: Random) -> dict[str, Any]:
    asked = _draw_weather(world, rng)
    if rng.random() < 0.5:
        return {**asked, "day": later(world["today"], rng.randint(9, 14))}
    return {**asked, "city": _elsewhere(world, rng)}


def _elsewhere(world: World, rng: Random) -> str:
    return rng.choice([town for town in TOWNS if town not in world["towns"]])


def _units(world: World, arguments: Arguments) -> Ran:
    value, given, wanted = arguments["value"], arguments["from_unit"], arguments["to_unit"]
    if {given, wanted} == {"celsius", "fahrenheit"}:
        converted = value * 9 / 5 + 32 if wanted == "fahrenheit" else (value - 32) * 5 / 9
    elif given in FACTORS and wanted in FACTORS and FACTORS[given][0] == FACTORS[wanted][0]:
        converted = value * FACTORS[given][1] / FACTORS[wanted][1]
    elif given == wanted:
        converted = value
    else:
        raise ToolError(f"{given} cannot be turned into {wanted}")
    return Ran({"value": neat(converted), "unit": wanted}, world)


def _draw_units(_world: World, rng: Random) -> dict[str, Any]:
    given, wanted = rng.choice(PAIRS)
    if rng.random() < 0.5:
        given, wanted = wanted, given
    return {
        "value": rng.choice((rng.randint(2, 300), rng.randint(20, 999) / 10)),
        "from_unit": given,
        "to_unit": wanted,
    }


def _currency(world: World, arguments: Arguments) -> Ran:
    rates, wanted = world["rates"], arguments["to_currency"]
    amount = arguments["amount"] / rates[arguments["from_currency"]] * rates[wanted]
    return Ran({"amount": neat(amount), "currency": wanted}, world)


def _draw_currency(world: World, rng: Random) -> dict[str, Any]:
    given, wanted = rng.sample([*world["rates"]], 2)
    return {"amount": rng.choice((rng.randint(3, 900), 5 * rng.randint(4, 400))), "from_currency": given,
            "to_currency": wanted}  # fmt: skip


def _route(world: World, arguments: Arguments) -> Ran:
    towns, mode = world["towns"], arguments["mode"]
    for end in (arguments["start"], arguments["destination"]):
        if end not in towns:
            raise ToolError(f"{end} is not on the map")
        if mode == "train" and not towns[end]["station"]:
            raise ToolError(f"no train: {end} has no station")
    (x, y), (u, v) = (towns[arguments[end]]["at"] for end in ("start", "destination"))
    distance = round(hypot(x - u, y - v) * DETOUR)
    hours, minutes = divmod(round(distance / SPEEDS[mode] * 60 / 5) * 5, 60)
    duration = {"hours": hours} if hours else {}
    duration |= {"minutes": minutes} if minutes else {}
    return Ran({"destination": arguments["destination"], "start": arguments["start"], "mode": mode,
                "distance_km": distance, **duration}, world)  # fmt: skip


def _draw_route(world: World, rng: Random) -> dict[str, Any]:
    mode = rng.choice([*MODES])
    towns = [name for name, town in world["towns"].items() if mode != "train" or town["station"]]
    start, destination = rng.sample(towns, 2)
    return {"start": start, "destination": destination, "mode": mode}


def _fail_route(world: World, rng: Random) -> dict[str, Any]:
    without = [name for name, town in world["towns"].items() if not town["station"]]
    start = rng.choice([name for name, town in world["towns"].items() if town["station"]])
    if rng.random() < 0.5:
        return {"start": start, "destination": _elsewhere(world, rng), "mode": rng.choice([*MODES])}
    return {"start": start, "destination": rng.choice(without), "mode": "train"}


def _bill(world: World, arguments: Arguments) -> Ran:
    total = arguments["total_eur"] * (100 + arguments.get("tip_percent", 0)) / 100
    return Ran({"each_eur": neat(total / arguments["people"]), "people": arguments["people"]}, world)


def _draw_bill(_world: World, rng: Random) -> dict[str, Any]:
    asked = {"total_eur": rng.randint(30, 600), "people": rng.randint(3, 12)}
    return {**asked, "tip_percent": rng.choice((5, 8, 10, 15, 20))} if rng.random() < 0.5 else asked


EVERYDAY = (
    Tool(
        name="get_weather",
        description="The forecast for a city on one day: sky, temperature, wind and humidity.",
        need="the weather forecast for a city on a certain day",
        parameters=parameters({"city": text("the name of the city"), "day": day("the day of the forecast")}),
        run=_weather,
        draw=_draw_weather,
        fail=_fail_weather,
        tells=("sky", "temperature_c"),
        sections=("towns",),
        asked={"city": ("city", "town", "where", "place", "location"), "day": ("day", "date", "when")},
        label="city",
    ),
    Tool(
        name="convert_units",
        description="Turn a measure into another unit of the same kind: length, mass, volume or temperature.",
        need="a measure turned into another unit",
        parameters=parameters(
            {
                "value": {"type": "number", "minimum": -MOST, "maximum": MOST, "description": "the measure"},
                "from_unit": words(UNITS, "the unit of `value`"),
                "to_unit": words(UNITS, "the unit that is wanted"),
            }
        ),
        run=_units,
        draw=_draw_units,
        tells=("value",),
    ),
    Tool(
        name="convert_currency",
        description="Turn an amount of money into another currency at today's rate.",
        need="an amount of money turned into another currency at today's rate",
        parameters=parameters(
            {
                "amount": _money("the amount"),
                "from_currency": words(CURRENCIES, "the currency of `amount`"),
                "to_currency": words(CURRENCIES, "the currency that is wanted"),
            }
        ),
        run=_currency,
        draw=_draw_currency,
        tells=("amount",),
        sections=("rates",),
        asked={"to_currency": ("currency",)},
    ),
    Tool(
        name="plan_route",
        description="Distance and travel time between two towns by car, train or bicycle.",
        need="the distance and travel time between two towns",
        parameters=parameters(
            {
                "start": text("the town to start from"),
                "destination": text("the town to go to"),
                "mode": words(MODES, "how to travel"),
            }
        ),
        run=_route,
        draw=_draw_route,
        fail=_fail_route,
        tells=("distance_km", "hours", "minutes"),
        sections=("towns",),
        asked={
            "start": ("from", "start", "starting", "where", "leave"),
            "destination": ("where", "destination", "place", "town", "city"),
        },
        label="destination",
    ),
    Tool(
        name="split_bill",
        description="What each person pays when a bill is shared equally, a tip included if one is given.",
        need="to know what each person pays of a shared bill",
        parameters=parameters(
            {
                "total_eur": _money("the bill, in euros"),
                "people": integer("how many share it", 2, 50),
            },
            {"tip_percent": integer("the tip, in percent of the bill", 0, 30)},
        ),
        run=_bill,
        draw=_draw_bill,
        tells=("each_eur",),
        asked={"people": ("how many", "people", "persons")},
    ),
)
