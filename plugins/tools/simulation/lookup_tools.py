"""Simulated tools that only look up or calculate: weather, units, currencies, routes, bills. They do not change the world."""

from collections.abc import Iterable
from math import hypot
from random import Random
from typing import Any

from plugins.tools.simulation.simulated_tool import (
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
from plugins.tools.simulation.simulated_world import ASKED_DAYS, EVERYTHING, FORECAST_DAYS, add_days, find_domain
from plugins.tools.simulation.town_map import REGIONS, road_km

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
TRAVEL_TIMES = {"car": (15, 80), "train": (10, 90), "bicycle": (0, 16)}
"""Minutes for the way out of one town and into the other, or to the train, and km/h between them."""
MAX_CYCLING_KM = 120
"""The longest route by bicycle."""
FLAT_SPEEDS, FLAT_DETOUR = {"car": 75, "train": 95, "bicycle": 17}, 1.25
"""Of worlds with a flat map, which seeds of older runs have: km/h, and how much longer a road is than the straight line."""

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
        return {**asked, "day": add_days(world["today"], rng.randint(FORECAST_DAYS, ASKED_DAYS))}
    return {**asked, "city": _draw_other_town(world, rng)}


def _draw_other_town(world: WorldState, rng: Random) -> str:
    """A town of the same region that the tools do not know."""
    (region,) = [one for one in REGIONS.values() if world["towns"].keys() <= one.towns.keys()]
    return rng.choice([town for town in region.towns if town not in world["towns"]])


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


def _draw_units(world: WorldState, rng: Random) -> dict[str, Any]:
    measure = rng.choice(find_domain(world).measures or EVERYTHING.measures)
    value = round_amount(measure.least + rng.randint(0, measure.steps) * measure.step)
    return {"value": value, "from_unit": measure.from_unit, "to_unit": measure.to_unit}


def _measure_purpose(world: WorldState, arguments: ToolArguments, rng: Random) -> str:
    return _draw_text(
        rng,
        (
            one.about
            for one in find_domain(world).measures
            if (one.from_unit, one.to_unit) == (arguments["from_unit"], arguments["to_unit"])
            and one.least <= arguments["value"] <= one.least + one.steps * one.step
        ),
    )


def _draw_text(rng: Random, texts: Iterable[str]) -> str:
    return rng.choice([*texts] or [""])


def _run_convert_currency(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    rates, wanted = world["rates"], arguments["to_currency"]
    amount = arguments["amount"] / rates[arguments["from_currency"]] * rates[wanted]
    return ToolOutcome({"amount": round_amount(amount), "currency": wanted}, world)


def _draw_currency(world: WorldState, rng: Random) -> dict[str, Any]:
    payment = rng.choice(find_domain(world).payments or EVERYTHING.payments)
    amount = rng.randint(payment.least, payment.most)
    amount = round(amount, -1) if amount > 100 else amount
    return {"amount": amount, "from_currency": payment.from_currency, "to_currency": payment.to_currency}


def _payment_purpose(world: WorldState, arguments: ToolArguments, rng: Random) -> str:
    return _draw_text(
        rng,
        (
            one.about
            for one in find_domain(world).payments
            if (one.from_currency, one.to_currency) == (arguments["from_currency"], arguments["to_currency"])
            and one.least <= arguments["amount"] <= one.most
        ),
    )


def _run_plan_route(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    towns, mode = world["towns"], arguments["mode"]
    ends = [arguments["start"], arguments["destination"]]
    for end in ends:
        if end not in towns:
            raise ToolError(f"{end} is not on the map")
        if mode == "train" and not towns[end].get("station", True):
            raise ToolError(f"no train: {end} has no station")
    if "at" in towns[ends[0]]:
        (x, y), (u, v) = (towns[end]["at"] for end in ends)
        distance = round(hypot(x - u, y - v) * FLAT_DETOUR)
        duration = round(distance / FLAT_SPEEDS[mode] * 60 / 5) * 5
    else:
        distance = road_km(*(towns[end]["coordinates"] for end in ends))
        if mode == "bicycle" and distance > MAX_CYCLING_KM:
            raise ToolError(f"too far by bicycle: {distance} km, and only {MAX_CYCLING_KM} km are possible")
        fixed, speed = TRAVEL_TIMES[mode]
        duration = round((fixed + distance / speed * 60) / 5) * 5
    hours, minutes = divmod(duration, 60)
    times = ({"hours": hours} if hours else {}) | ({"minutes": minutes} if minutes else {})
    result = {"destination": ends[1], "start": ends[0], "mode": mode, "distance_km": distance, **times}
    return ToolOutcome(result, world)


def _draw_route(world: WorldState, rng: Random) -> dict[str, Any]:
    """A route that people take: by bicycle only between neighbors."""
    modes = find_domain(world).modes
    mode = rng.choices([*modes], [*modes.values()])[0]
    ways = [
        {"start": start, "destination": end, "mode": way}
        for way in (mode, "car")
        for start in world["towns"]
        for end in world["towns"]
        if start != end
    ]
    usual = [way for way in ways if _is_usual_route(world, way)]
    same_mode = [way for way in usual if way["mode"] == mode]
    if same_mode or usual:
        return rng.choice(same_mode or usual)
    nearest = min(ways, key=lambda way: _route_km(world, way["start"], way["destination"]))
    return {**nearest, "mode": "car"}


def _is_usual_route(world: WorldState, arguments: ToolArguments) -> bool:
    distance = _route_km(world, arguments["start"], arguments["destination"])
    domain = find_domain(world)
    return distance <= (domain.cycling_km if arguments["mode"] == "bicycle" else domain.reach_km)


def _route_km(world: WorldState, start: str, destination: str) -> int:
    return road_km(world["towns"][start]["coordinates"], world["towns"][destination]["coordinates"])


def _fail_route(world: WorldState, rng: Random) -> dict[str, Any]:
    """A town that is not on the map, or too far a way by bicycle."""
    start = rng.choice([*world["towns"]])
    far = [town for town in world["towns"] if _route_km(world, start, town) > MAX_CYCLING_KM]
    if "bicycle" in find_domain(world).modes and far and rng.random() < 0.5:
        return {"start": start, "destination": rng.choice(far), "mode": "bicycle"}
    return {"start": start, "destination": _draw_other_town(world, rng), "mode": rng.choice(("car", "train"))}


def _run_split_bill(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    total = arguments["total_eur"] * (100 + arguments.get("tip_percent", 0)) / 100
    return ToolOutcome({"each_eur": round_amount(total / arguments["people"]), "people": arguments["people"]}, world)


def _draw_bill(world: WorldState, rng: Random) -> dict[str, Any]:
    bill = rng.choice(find_domain(world).bills or EVERYTHING.bills)
    people = rng.randint(bill.least_people, bill.most_people)
    total = rng.randint(bill.least_each * people, bill.most_each * people)
    tip = {"tip_percent": rng.choice((5, 8, 10, 12))} if bill.tip and rng.random() < 0.7 else {}
    return {"total_eur": total, "people": people, **tip}


def _bill_purpose(world: WorldState, arguments: ToolArguments, rng: Random) -> str:
    people, tip = arguments["people"], "tip_percent" in arguments
    return _draw_text(
        rng,
        (
            one.about
            for one in find_domain(world).bills
            if one.least_people <= people <= one.most_people
            and one.least_each <= arguments["total_eur"] / people <= one.most_each
            and (one.tip or not tip)
        ),
    )


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
        purpose=lambda world, _arguments, rng: _draw_text(rng, find_domain(world).weather),
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
        purpose=_measure_purpose,
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
        purpose=_payment_purpose,
        current=True,
        asked={"to_currency": ("currency",)},
    ),
    SimulatedTool(
        name="plan_route",
        description="Distance and travel time between two towns by car, train or bicycle, both estimated.",
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
        purpose=lambda world, _arguments, rng: _draw_text(rng, find_domain(world).trips),
        plausible=_is_usual_route,
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
        purpose=_bill_purpose,
        asked={"people": ("how many", "people", "persons")},
    ),
)
