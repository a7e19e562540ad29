"""The simulated tools: functions of a small world, with the data for planning their calls and checking replies.

`data/tools.json` has their names, descriptions and schemas, in the form of a module's `schemas`, with notes. Knows no teacher
and no conversation.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from decimal import ROUND_HALF_UP, Decimal
from math import hypot
from random import Random
from typing import Any, ClassVar, NamedTuple

from agents.checks.json_schema import find_schema_fault
from plugins.tools.simulation.simulated_world import (
    ASKED_DAYS,
    CALENDAR_DAYS,
    CALL,
    CATALOGUE,
    DATA,
    DAY_END,
    DAY_START,
    EVERYTHING,
    FORECAST_DAYS,
    REGIONS,
    TITLES,
    add_days,
    find_domain,
    format_minutes,
    is_weekday,
    parse_minutes,
    road_km,
    write_title,
)
from plugins.tools.toolbox.tool_spec import ToolSpec

WorldState = dict[str, Any]
"""Plain JSON by section. `today` is always present."""
ToolArguments = Mapping[str, Any]
FACTORS = {
    "kilometre": ("metre", 1000.0), "mile": ("metre", 1609.344), "metre": ("metre", 1.0), "foot": ("metre", 0.3048),
    "kilogram": ("kilogram", 1.0), "pound": ("kilogram", 0.45359237), "litre": ("litre", 1.0), "gallon": ("litre", 3.785411784),
}  # fmt: skip
"""What each unit measures and how much of it: the international yard and pound (1959), the US liquid gallon."""
TRAVEL_TIMES = {"car": (15, 80), "train": (10, 90), "bicycle": (0, 16)}
"""Minutes for the way out of one town and into the other, or to the train, and km/h between them."""
MAX_CYCLING_KM = 120
"""The longest route by bicycle."""
FLAT_SPEEDS, FLAT_DETOUR = {"car": 75, "train": 95, "bicycle": 17}, 1.25
"""Of worlds with a flat map, which recorded seeds have: km/h, and how much longer a road is than the straight line."""
LENGTHS = (30, 45, 60, 90)
MAX_SHOWN_SLOTS = 4
"""Number of free times in one result."""
DELIVERY_TERMS = {"standard": (4, 3.90), "express": (1, 9.90)}
"""Days, and euros."""
RENEWALS = (7, 14, 28)


class ToolError(Exception):
    """A tool's error instead of a result; the assistant passes the text on."""


class ToolOutcome(NamedTuple):
    """A tool's answer, and the world after it."""

    result: dict[str, Any]
    world: WorldState


class SimulatedTool(ToolSpec):
    """A tool with its notes. `x-evidence` in its schema contains the words that people use for a value."""

    need: str
    """The wish of a user who needs the tool, as the end of `the user wants`."""
    tells: tuple[str, ...]
    """Fields of the result that a reply must state if they are present."""
    asks: Mapping[str, re.Pattern[str]] = {}
    """For some of `tells`, the words with which a request asks for the field. A reply to a request that asks for some of them may
    leave the others out."""
    words: Mapping[str, Mapping[str, Sequence[str]]] = {}
    """For some fields of the result whose values are words, the words for each value in a reply."""
    sections: tuple[str, ...] = ()
    """The sections of the world that it reads."""
    asked: Mapping[str, tuple[str, ...]] = {}
    """Required parameters that a user may forget, with words for asking for them."""
    acts: bool = False
    """Whether it changes the world."""
    current: bool = False
    """Whether its result holds for today, so that a reply may say so."""
    label: str = ""
    """The field of the result that distinguishes two results of one turn."""

    run: ClassVar[Callable[..., dict[str, Any]]]
    """The result of a call in a world, which a tool that `acts` changes in place. Raises ToolError."""
    draw: ClassVar[Callable[..., dict[str, Any]]]
    """Arguments that lead to a result."""
    fail: ClassVar[Callable[..., dict[str, Any]] | None] = None
    """Arguments that lead to an error."""
    purposes: ClassVar[Callable[..., Iterable[str]] | None] = None
    """What a call with these arguments may be for, in the life of the world's domain."""
    plausible: ClassVar[Callable[..., bool] | None] = None
    """Whether people of the world's domain ask this; None if they may ask all that the tool can do."""


def run_tool(
    world: WorldState, offered: Mapping[str, SimulatedTool], name: str, arguments: ToolArguments
) -> ToolOutcome:
    """Call a tool like a server: an unknown tool, invalid arguments and failures give an `error`."""
    tool = offered.get(name)
    if tool is None:
        return ToolOutcome({"error": f"there is no tool {name!r}"}, world)
    if fault := find_schema_fault(arguments, tool.parameters):
        return ToolOutcome({"error": f"bad arguments: {fault}"}, world)
    after = deepcopy(world) if tool.acts else world
    try:
        return ToolOutcome(tool.run(after, **arguments), after)
    except ToolError as error:
        return ToolOutcome({"error": str(error)}, world)


def _round_amount(value: float) -> int | float:
    """Rounded to two decimals, half a cent up; an integer if the decimals are zero."""
    rounded = Decimal(str(value)).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return int(rounded) if rounded == int(rounded) else float(rounded)


def _list_things(world: WorldState, kind: str) -> Sequence[Any]:
    """The things of a kind of the world's domain, or of all domains."""
    things: Sequence[Any] = getattr(find_domain(world), kind) or getattr(EVERYTHING, kind)
    return things


def _draw_other_town(world: WorldState, rng: Random) -> str:
    """A town of the same region that the tools do not know."""
    (region,) = [one for one in REGIONS.values() if world["towns"].keys() <= one.towns.keys()]
    return rng.choice([town for town in region.towns if town not in world["towns"]])


class GetWeather(SimulatedTool):
    def run(self, world: WorldState, city: str, day: str) -> dict[str, Any]:
        if city not in world["towns"]:
            raise ToolError(f"no forecast for {city}: unknown city")
        weather = world["towns"][city]["forecast"].get(day)
        if weather is None:
            raise ToolError(f"no forecast for {city} on {day}: only {FORECAST_DAYS} days are known")
        return {"city": city, "day": day, **weather}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        return {"city": rng.choice([*world["towns"]]), "day": add_days(world["today"], rng.randrange(FORECAST_DAYS))}

    def fail(self, world: WorldState, rng: Random) -> dict[str, Any]:
        asked = self.draw(world, rng)
        if rng.random() < 0.5:
            return {**asked, "day": add_days(world["today"], rng.randint(FORECAST_DAYS, ASKED_DAYS))}
        return {**asked, "city": _draw_other_town(world, rng)}

    def purposes(self, world: WorldState, **_arguments: Any) -> Iterable[str]:
        return find_domain(world).weather


class ConvertUnits(SimulatedTool):
    def run(self, world: WorldState, value: float, from_unit: str, to_unit: str) -> dict[str, Any]:
        (kind, factor), (wanted_kind, wanted_factor) = (FACTORS.get(u, (u, 1.0)) for u in (from_unit, to_unit))
        if {from_unit, to_unit} == {"celsius", "fahrenheit"}:
            converted = value * 9 / 5 + 32 if to_unit == "fahrenheit" else (value - 32) * 5 / 9
        elif kind == wanted_kind:
            converted = value * factor / wanted_factor
        else:
            raise ToolError(f"{from_unit} cannot be turned into {to_unit}")
        return {"value": _round_amount(converted), "unit": to_unit}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        measure = rng.choice(_list_things(world, "measures"))
        value = _round_amount(measure.least + rng.randint(0, measure.steps) * measure.step)
        return {"value": value, "from_unit": measure.from_unit, "to_unit": measure.to_unit}

    def purposes(self, world: WorldState, value: float, from_unit: str, to_unit: str) -> Iterable[str]:
        for one in find_domain(world).measures:
            fits = one.least <= value <= one.least + one.steps * one.step
            yield from [one.about] if fits and (one.from_unit, one.to_unit) == (from_unit, to_unit) else ()


class ConvertCurrency(SimulatedTool):
    def run(self, world: WorldState, amount: float, from_currency: str, to_currency: str) -> dict[str, Any]:
        converted = amount / world["rates"][from_currency] * world["rates"][to_currency]
        return {"amount": _round_amount(converted), "currency": to_currency}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        payment = rng.choice(_list_things(world, "payments"))
        amount = rng.randint(payment.least, payment.most)
        amount = round(amount, -1) if amount > 100 else amount
        return {"amount": amount, "from_currency": payment.from_currency, "to_currency": payment.to_currency}

    def purposes(self, world: WorldState, amount: float, from_currency: str, to_currency: str) -> Iterable[str]:
        for one in find_domain(world).payments:
            same = (one.from_currency, one.to_currency) == (from_currency, to_currency)
            yield from [one.about] if same and one.least <= amount <= one.most else ()


class PlanRoute(SimulatedTool):
    def run(self, world: WorldState, start: str, destination: str, mode: str) -> dict[str, Any]:
        towns, ends = world["towns"], [start, destination]
        for end in ends:
            if end not in towns:
                raise ToolError(f"{end} is not on the map")
            if mode == "train" and not towns[end].get("station", True):
                raise ToolError(f"no train: {end} has no station")
        if "at" in towns[start]:
            (x, y), (u, v) = (towns[end]["at"] for end in ends)
            distance = round(hypot(x - u, y - v) * FLAT_DETOUR)
            duration = round(distance / FLAT_SPEEDS[mode] * 60 / 5) * 5
        else:
            distance = _route_km(world, start, destination)
            if mode == "bicycle" and distance > MAX_CYCLING_KM:
                raise ToolError(f"too far by bicycle: {distance} km, and only {MAX_CYCLING_KM} km are possible")
            fixed, speed = TRAVEL_TIMES[mode]
            duration = round((fixed + distance / speed * 60) / 5) * 5
        hours, minutes = divmod(duration, 60)
        times = ({"hours": hours} if hours else {}) | ({"minutes": minutes} if minutes else {})
        return {"destination": destination, "start": start, "mode": mode, "distance_km": distance, **times}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
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
        usual = [way for way in ways if self.plausible(world, **way)]
        same_mode = [way for way in usual if way["mode"] == mode]
        if usual:
            return rng.choice(same_mode or usual)
        return {**min(ways, key=lambda way: _route_km(world, way["start"], way["destination"])), "mode": "car"}

    def fail(self, world: WorldState, rng: Random) -> dict[str, Any]:
        """A town that is not on the map, or too far a way by bicycle."""
        start = rng.choice([*world["towns"]])
        far = [town for town in world["towns"] if _route_km(world, start, town) > MAX_CYCLING_KM]
        if "bicycle" in find_domain(world).modes and far and rng.random() < 0.5:
            return {"start": start, "destination": rng.choice(far), "mode": "bicycle"}
        return {"start": start, "destination": _draw_other_town(world, rng), "mode": rng.choice(("car", "train"))}

    def plausible(self, world: WorldState, start: str, destination: str, mode: str) -> bool:
        domain = find_domain(world)
        most = domain.cycling_km if mode == "bicycle" else domain.reach_km
        return _route_km(world, start, destination) <= most

    def purposes(self, world: WorldState, **_arguments: Any) -> Iterable[str]:
        return find_domain(world).trips


def _route_km(world: WorldState, start: str, destination: str) -> int:
    return road_km(world["towns"][start]["coordinates"], world["towns"][destination]["coordinates"])


class SplitBill(SimulatedTool):
    def run(self, world: WorldState, total_eur: float, people: int, tip_percent: int = 0) -> dict[str, Any]:
        return {"each_eur": _round_amount(total_eur * (100 + tip_percent) / 100 / people), "people": people}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        bill = rng.choice(_list_things(world, "bills"))
        people = rng.randint(bill.least_people, bill.most_people)
        total = rng.randint(bill.least_each * people, bill.most_each * people)
        tip = {"tip_percent": rng.choice((5, 8, 10, 12))} if bill.tip and rng.random() < 0.7 else {}
        return {"total_eur": total, "people": people, **tip}

    def purposes(
        self, world: WorldState, total_eur: float, people: int, tip_percent: int | None = None
    ) -> Iterable[str]:
        for one in find_domain(world).bills:
            fits = one.least_people <= people <= one.most_people
            fits = fits and one.least_each <= total_eur / people <= one.most_each
            yield from [one.about] if fits and (one.tip or tip_percent is None) else ()


def _day_events(world: WorldState, on: str) -> list[tuple[int, int, str]]:
    """Start, end and title of the events of a day. Raises ToolError for a day that the calendar does not have."""
    if on not in world["calendar"]:
        raise ToolError(f"the calendar has no {on}: it goes {CALENDAR_DAYS} days ahead")
    return [(parse_minutes(e["start"]), parse_minutes(e["end"]), e["title"]) for e in world["calendar"][on]]


def _free_starts(world: WorldState, on: str, minutes: int, not_before: int = DAY_START) -> list[int]:
    events = _day_events(world, on)
    return [
        start
        for start in range(DAY_START, DAY_END - minutes + 1, 30)
        if start >= not_before and all(start + minutes <= begin or start >= end for begin, end, _ in events)
    ]


def _draw_free_day(world: WorldState, rng: Random) -> tuple[str, int]:
    """A weekday after today with this number of free minutes; with three events of an hour, 30 are always free."""
    minutes = rng.choice(LENGTHS)
    days = [on for on in world["calendar"] if on > world["today"] and is_weekday(on)]
    free = [on for on in days if _free_starts(world, on, minutes)]
    return (rng.choice(free), minutes) if free else (rng.choice(days), 30)


class FindFreeSlots(SimulatedTool):
    def run(self, world: WorldState, day: str, minutes: int, not_before: str = "09:00") -> dict[str, Any]:
        free = _free_starts(world, day, minutes, parse_minutes(not_before))[:MAX_SHOWN_SLOTS]
        if not free:
            raise ToolError(f"no free time of {minutes} minutes on {day}")
        return {"day": day, "free": [format_minutes(start) for start in free]}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        on, minutes = _draw_free_day(world, rng)
        asked = {"day": on, "minutes": minutes}
        if rng.random() < 0.3 and (late := [start for start in _free_starts(world, on, minutes) if start % 60 == 0]):
            return {**asked, "not_before": format_minutes(rng.choice(late))}
        return asked


class AddEvent(SimulatedTool):
    def run(self, world: WorldState, title: str, when: Mapping[str, str], minutes: int) -> dict[str, Any]:
        on, start = when["day"], parse_minutes(when["start"])
        end = start + minutes
        for begin, stop, other in _day_events(world, on):
            if start < stop and end > begin:
                raise ToolError(f"busy on {on} from {format_minutes(begin)} to {format_minutes(stop)}: {other}")
        if end > 24 * 60:
            raise ToolError("an event must end on the day on which it begins")
        event = {"start": format_minutes(start), "end": format_minutes(end), "title": title}
        world["calendar"][on] = sorted([*world["calendar"][on], event], key=lambda entry: entry["start"])
        number = _next_number(world)
        return {"event": f"E-{number}", "title": title, "day": on, "start": event["start"], "minutes": minutes}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        on, minutes = _draw_free_day(world, rng)
        return self._draw_at(world, rng, on, rng.choice(_free_starts(world, on, minutes)), minutes)

    def fail(self, world: WorldState, rng: Random) -> dict[str, Any]:
        """An event that begins with another one."""
        on = rng.choice([on for on in world["calendar"] if on > world["today"] and world["calendar"][on]])
        start = parse_minutes(rng.choice(world["calendar"][on])["start"])
        return self._draw_at(world, rng, on, start, rng.choice((30, 45, 60)))

    def _draw_at(self, world: WorldState, rng: Random, on: str, start: int, minutes: int) -> dict[str, Any]:
        when = {"day": on, "start": format_minutes(start)}
        return {"title": draw_title(world, rng, on, start, minutes), "when": when, "minutes": minutes}


def draw_title(world: WorldState, rng: Random, on: str, start: int, minutes: int) -> str:
    """A title of the domain that no event of the day has, for an event of this length at this minute of the day."""
    existing = {event["title"] for event in world["calendar"][on]}
    fitting = [
        event
        for event in _list_things(world, "events")
        if minutes in event.minutes and event.first_hour * 60 <= start < event.last_hour * 60
    ]
    titles = [write_title(event, rng) for event in fitting for _ in range(3) if event != CALL]
    new = [title for title in titles if title not in existing]
    return rng.choice(new) if new else write_title(CALL, rng)


def _next_number(world: WorldState) -> int:
    """The number of a new event, reminder or order."""
    world["number"] += 1
    return int(world["number"]) - 1


class SetReminder(SimulatedTool):
    def run(self, world: WorldState, text: str, day: str, time: str) -> dict[str, Any]:
        if day < world["today"]:
            raise ToolError(f"{day} is in the past")
        return {"reminder": f"R-{_next_number(world)}", "text": text, "day": day, "time": time}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        time = format_minutes(rng.randint(7 * 4, 21 * 4) * 15)
        text = rng.choice(_list_things(world, "reminders"))
        return {"text": text, "day": add_days(world["today"], rng.randint(1, ASKED_DAYS)), "time": time}


def _find_item(world: WorldState, section: str, name: str, kind: str) -> tuple[str, dict[str, Any]]:
    """The item with a name, and its data; case is ignored. Raises ToolError."""
    for known, thing in world[section].items():
        if known.casefold() == name.casefold():
            return known, thing
    raise ToolError(f"there is no {kind} named {name!r}")


class FindProduct(SimulatedTool):
    def run(self, world: WorldState, product: str) -> dict[str, Any]:
        name, item = _find_item(world, "shop", product, "product")
        return {"product": name, **item}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        return {"product": rng.choice([*world["shop"]])}

    def fail(self, world: WorldState, rng: Random) -> dict[str, Any]:
        return {"product": rng.choice([name for name in _list_things(world, "goods") if name not in world["shop"]])}


class PlaceOrder(SimulatedTool):
    def run(self, world: WorldState, product: str, quantity: int, delivery: Mapping[str, str]) -> dict[str, Any]:
        name, item = _find_item(world, "shop", product, "product")
        if quantity > (left := item["in_stock"]):
            raise ToolError(f"only {left} of {name} in stock" if left else f"{name} is sold out")
        days, fee = DELIVERY_TERMS[delivery["method"]]
        item["in_stock"] -= quantity
        total, arrives = _round_amount(item["price_eur"] * quantity + fee), add_days(world["today"], days)
        order = f"A-{_next_number(world)}"
        return {"order": order, "product": name, "quantity": quantity, "total_eur": total, "arrives": arrives}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        name = rng.choice([name for name, item in world["shop"].items() if item["in_stock"]])
        most = min(CATALOGUE[name].most, world["shop"][name]["in_stock"])
        return {"product": name, "quantity": rng.randint(1, most), "delivery": self._draw_delivery(world, rng)}

    def fail(self, world: WorldState, rng: Random) -> dict[str, Any]:
        """More than there are, and no more than a person may want."""
        few = {
            name: item["in_stock"] for name, item in world["shop"].items() if item["in_stock"] < CATALOGUE[name].most
        }
        name = rng.choice([*few])
        quantity = rng.randint(few[name] + 1, CATALOGUE[name].most)
        return {"product": name, "quantity": quantity, "delivery": self._draw_delivery(world, rng)}

    def _draw_delivery(self, world: WorldState, rng: Random) -> dict[str, str]:
        """To a town of the user's region, which is the world's, or any."""
        towns = [*world.get("towns", ())] or [*rng.choice([*REGIONS.values()]).towns]
        return {"method": rng.choice([*DELIVERY_TERMS]), "town": rng.choice(towns)}


class FindBook(SimulatedTool):
    def run(self, world: WorldState, title: str) -> dict[str, Any]:
        name, book = _find_item(world, "library", title, "book")
        due = {"due": book["due"]} if book["due"] else {}
        return {"title": name, "author": book["author"], "status": book["status"], **due}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        """A book that the user has not borrowed."""
        return {"title": rng.choice([title for title, book in world["library"].items() if not book["mine"]])}

    def fail(self, world: WorldState, rng: Random) -> dict[str, Any]:
        return {"title": rng.choice([title for title in TITLES if title not in world["library"]])}


class RenewLoan(SimulatedTool):
    def run(self, world: WorldState, title: str, days: int = 14) -> dict[str, Any]:
        name, book = _find_item(world, "library", title, "book")
        if not book["mine"]:
            raise ToolError(f"{name!r} is not on loan to this user")
        if book["reserved"]:
            raise ToolError(f"{name!r} cannot be renewed: another reader has reserved it")
        book["due"] = add_days(book["due"], days)
        return {"title": name, "due": book["due"]}

    def draw(self, world: WorldState, rng: Random) -> dict[str, Any]:
        mine = [title for title, book in world["library"].items() if book["mine"] and not book["reserved"]]
        asked = {"title": rng.choice(mine)}
        return {**asked, "days": rng.choice(RENEWALS)} if rng.random() < 0.6 else asked

    def fail(self, world: WorldState, rng: Random) -> dict[str, Any]:
        """A book of the user's that another reader waits for."""
        return {"title": rng.choice([t for t, book in world["library"].items() if book["reserved"] and book["mine"]])}


_CLASSES = (
    GetWeather, ConvertUnits, ConvertCurrency, PlanRoute, SplitBill, FindFreeSlots, AddEvent, SetReminder, FindProduct,
    PlaceOrder, FindBook, RenewLoan,
)  # fmt: skip
"""In the order of the file."""
SIMULATED_TOOLS: Mapping[str, SimulatedTool] = {
    notes["name"]: made(**notes)
    for made, notes in zip(_CLASSES, json.loads((DATA / "tools.json").read_text(encoding="utf-8")), strict=True)
}
