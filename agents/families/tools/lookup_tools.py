"""Simulated tools that only look up or calculate: weather, units, currencies, routes, bills. They do not change the world."""

from math import hypot
from random import Random
from typing import Any

from agents.families.tools.simulated_tool import (
    SimulatedTool,
    ToolArguments,
    ToolError,
    ToolOutcome,
    WorldState,
    date_schema,
    integer_schema,
    object_schema,
    round_amount,
    text_schema,
    word_enum_schema,
)
from agents.families.tools.simulated_world import FORECAST_DAYS, TOWNS, add_days

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

MAX_AMOUNT = 1_000_000
"""Of any number to be turned into another."""


def _amount_schema(about: str) -> dict[str, Any]:
    return {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_AMOUNT, "description": about}


def _run_weather(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    town = world["towns"].get(arguments["city"])
    if town is None:
        raise ToolError(f"no forecast for {arguments['city']}: unknown city")
    weather = town["forecast"].get(arguments["day"])
    if weather is None:
        raise ToolError(
            f"no forecast for {arguments['city']} on {arguments['day']}: only {FORECAST_DAYS} days are known"
        )
    return ToolOutcome({"city": arguments["city"], "day": arguments["day"], **weather}, world)


def _draw_weather(world: WorldState, rng: Random) -> dict[str, Any]:
    return {"city": rng.choice([*world["towns"]]), "day": add_days(world["today"], rng.randrange(FORECAST_DAYS))}


def _fail_weather(world: WorldState, rng: Random) -> dict[str, Any]:
    asked = _draw_weather(world, rng)
    if rng.random() < 0.5:
        return {**asked, "day": add_days(world["today"], rng.randint(9, 14))}
    return {**asked, "city": _draw_other_town(world, rng)}


def _draw_other_town(world: WorldState, rng: Random) -> str:
    return rng.choice([town for town in TOWNS if town not in world["towns"]])


def _run_convert_units(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    value, given, wanted = arguments["value"], arguments["from_unit"], arguments["to_unit"]
    if {given, wanted} == {"celsius", "fahrenheit"}:
        converted = value * 9 / 5 + 32 if wanted == "fahrenheit" else (value - 32) * 5 / 9
    elif given in FACTORS and wanted in FACTORS and FACTORS[given][0] == FACTORS[wanted][0]:
        converted = value * FACTORS[given][1] / FACTORS[wanted][1]
    elif given == wanted:
        converted = value
    else:
        raise ToolError(f"{given} cannot be turned into {wanted}")
    return ToolOutcome({"value": round_amount(converted), "unit": wanted}, world)


def _draw_units(_world: WorldState, rng: Random) -> dict[str, Any]:
    given, wanted = rng.choice(PAIRS)
    if rng.random() < 0.5:
        given, wanted = wanted, given
    return {
        "value": rng.choice((rng.randint(2, 300), rng.randint(20, 999) / 10)),
        "from_unit": given,
        "to_unit": wanted,
    }


def _run_convert_currency(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    rates, wanted = world["rates"], arguments["to_currency"]
    amount = arguments["amount"] / rates[arguments["from_currency"]] * rates[wanted]
    return ToolOutcome({"amount": round_amount(amount), "currency": wanted}, world)


def _draw_currency(world: WorldState, rng: Random) -> dict[str, Any]:
    given, wanted = rng.sample([*world["rates"]], 2)
    return {"amount": rng.choice((rng.randint(3, 900), 5 * rng.randint(4, 400))), "from_currency": given,
            "to_currency": wanted}  # fmt: skip


def _run_plan_route(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
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
    return ToolOutcome({"destination": arguments["destination"], "start": arguments["start"], "mode": mode,
                "distance_km": distance, **duration}, world)  # fmt: skip


def _draw_route(world: WorldState, rng: Random) -> dict[str, Any]:
    mode = rng.choice([*MODES])
    towns = [name for name, town in world["towns"].items() if mode != "train" or town["station"]]
    start, destination = rng.sample(towns, 2)
    return {"start": start, "destination": destination, "mode": mode}


def _fail_route(world: WorldState, rng: Random) -> dict[str, Any]:
    without = [name for name, town in world["towns"].items() if not town["station"]]
    start = rng.choice([name for name, town in world["towns"].items() if town["station"]])
    if rng.random() < 0.5:
        return {"start": start, "destination": _draw_other_town(world, rng), "mode": rng.choice([*MODES])}
    return {"start": start, "destination": rng.choice(without), "mode": "train"}


def _run_split_bill(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    total = arguments["total_eur"] * (100 + arguments.get("tip_percent", 0)) / 100
    return ToolOutcome({"each_eur": round_amount(total / arguments["people"]), "people": arguments["people"]}, world)


def _draw_bill(_world: WorldState, rng: Random) -> dict[str, Any]:
    asked = {"total_eur": rng.randint(30, 600), "people": rng.randint(3, 12)}
    return {**asked, "tip_percent": rng.choice((5, 8, 10, 15, 20))} if rng.random() < 0.5 else asked


LOOKUP_TOOLS = (
    SimulatedTool(
        name="get_weather",
        description="The forecast for a city on one day: sky, temperature, wind and humidity.",
        need="the weather forecast for a city on a certain day",
        parameters=object_schema(
            {"city": text_schema("the name of the city"), "day": date_schema("the day of the forecast")}
        ),
        run=_run_weather,
        draw=_draw_weather,
        fail=_fail_weather,
        tells=("sky", "temperature_c"),
        sections=("towns",),
        asked={"city": ("city", "town", "where", "place", "location"), "day": ("day", "date", "when")},
        label="city",
    ),
    SimulatedTool(
        name="convert_units",
        description="Turn a measure into another unit of the same kind: length, mass, volume or temperature.",
        need="a measure turned into another unit",
        parameters=object_schema(
            {
                "value": {
                    "type": "number",
                    "minimum": -MAX_AMOUNT,
                    "maximum": MAX_AMOUNT,
                    "description": "the measure",
                },
                "from_unit": word_enum_schema(UNITS, "the unit of `value`"),
                "to_unit": word_enum_schema(UNITS, "the unit that is wanted"),
            }
        ),
        run=_run_convert_units,
        draw=_draw_units,
        tells=("value",),
    ),
    SimulatedTool(
        name="convert_currency",
        description="Turn an amount of money into another currency at today's rate.",
        need="an amount of money turned into another currency at today's rate",
        parameters=object_schema(
            {
                "amount": _amount_schema("the amount"),
                "from_currency": word_enum_schema(CURRENCIES, "the currency of `amount`"),
                "to_currency": word_enum_schema(CURRENCIES, "the currency that is wanted"),
            }
        ),
        run=_run_convert_currency,
        draw=_draw_currency,
        tells=("amount",),
        sections=("rates",),
        asked={"to_currency": ("currency",)},
    ),
    SimulatedTool(
        name="plan_route",
        description="Distance and travel time between two towns by car, train or bicycle.",
        need="the distance and travel time between two towns",
        parameters=object_schema(
            {
                "start": text_schema("the town to start from"),
                "destination": text_schema("the town to go to"),
                "mode": word_enum_schema(MODES, "how to travel"),
            }
        ),
        run=_run_plan_route,
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
    SimulatedTool(
        name="split_bill",
        description="What each person pays when a bill is shared equally, a tip included if one is given.",
        need="to know what each person pays of a shared bill",
        parameters=object_schema(
            {
                "total_eur": _amount_schema("the bill, in euros"),
                "people": integer_schema("how many share it", 2, 50),
            },
            {"tip_percent": integer_schema("the tip, in percent of the bill", 0, 30)},
        ),
        run=_run_split_bill,
        draw=_draw_bill,
        tells=("each_eur",),
        asked={"people": ("how many", "people", "persons")},
    ),
)
