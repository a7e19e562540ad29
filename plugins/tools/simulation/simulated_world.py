"""The small world of the simulated tools, drawn for each seed: towns with weather, a calendar, a shop, a library, exchange
rates; and the domains of life in which people use the tools (`data/world.toml`, `data/domains.toml`). Knows no tool.

A scenario crosses a domain's personas, purposes and tools; its world and calls use the domain's things only, so that a plan
fits its persona. Towns are real, those of a world of one region, which land connects, so a road is about as much longer than
the straight line everywhere; their weather is that of the season. Books, forecasts, appointments, prices and rates are
invented, in plausible ranges.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from pydantic import TypeAdapter

DATA = Path(__file__).parents[1] / "data"
EARTH_RADIUS_KM = 6371.0
"""The mean radius."""
DETOUR = 1.2
"""How much longer a road is than the great circle, on average; of 24 pairs of these towns none differs by more than 15 %."""
FORECAST_DAYS, CALENDAR_DAYS = 5, 7
"""Today included."""
ASKED_DAYS = CALENDAR_DAYS - 1
"""Days after today that a user asks about; the prompt's calendar has them all."""
WARM_MONTHS = range(4, 11)
DAY_START, DAY_END = 9 * 60, 17 * 60
"""The hours of the calendar, in minutes."""

Coordinates = Sequence[float]
"""Latitude and longitude in degrees."""


class Region(NamedTuple):
    towns: Mapping[str, tuple[float, float]]
    means_c: tuple[int, ...]
    """Mean temperature by month, from January, in °C."""


class Product(NamedTuple):
    least_eur: float
    most_eur: float
    most: int
    """The most that one person orders at once."""


class EventTitle(NamedTuple):
    title: str
    minutes: tuple[int, ...]
    first_hour: int = 9
    """It begins at this hour or later, and before `last_hour`."""
    last_hour: int = 17


class Measure(NamedTuple):
    from_unit: str
    to_unit: str
    least: float
    step: float
    steps: int
    """The value is `least` plus 0 to `steps` times `step`."""
    about: str


class Payment(NamedTuple):
    from_currency: str
    to_currency: str
    least: int
    most: int
    about: str


class SharedBill(NamedTuple):
    least_each: int
    most_each: int
    """In euros, for each person, before the tip."""
    least_people: int
    most_people: int
    tip: bool
    about: str


@dataclass(frozen=True)
class Domain:
    name: str
    weight: float = 0
    personas: tuple[str, ...] = ()
    """Each goes with each purpose."""
    purposes: tuple[str, ...] = ()
    """The end of `NAME, who …`."""
    tools: Mapping[str, float] = field(default_factory=dict)
    """The tools that fit, by weight."""
    needs: tuple[str, ...] = ()
    """Requests of these people that no tool can fulfil, as the end of `the user wants`."""
    goods: tuple[str, ...] = ()
    reminders: tuple[str, ...] = ()
    events: tuple[EventTitle, ...] = ()
    measures: tuple[Measure, ...] = ()
    payments: tuple[Payment, ...] = ()
    bills: tuple[SharedBill, ...] = ()
    trips: tuple[str, ...] = ()
    """What routes are asked for."""
    weather: tuple[str, ...] = ()
    """What the forecast is asked for."""
    modes: Mapping[str, float] = field(default_factory=lambda: {"car": 1, "train": 1, "bicycle": 0.5})
    """Weights of the modes of travel."""
    reach_km: int = 250
    """How far they travel by car or train."""
    cycling_km: int = 20
    """How far they travel by bicycle."""
    outdoors: bool = False
    """Whether it belongs to the warm half of the year."""


def read_data(name: str) -> dict[str, Any]:
    """A table of `plugins/tools/data`."""
    return tomllib.loads((DATA / name).read_text(encoding="utf-8"))


_WORLD = read_data("world.toml")
_NAMES: Mapping[str, list[str]] = _WORLD["names"]
EURO_RATES: Mapping[str, float] = _WORLD["rates"]
PEOPLE, AUTHORS = _NAMES["people"], _NAMES["authors"]
TITLES = [
    *_NAMES["titles"],
    *(f"The {first} {second}" for first in _NAMES["first_words"] for second in _NAMES["second_words"]),
]
CATALOGUE = {name: Product(*values) for name, values in _WORLD["goods"].items()}
"""The shop's products by name."""
REGIONS = {name: Region(**region) for name, region in _WORLD["regions"].items()}
TOWNS = [town for region in REGIONS.values() for town in region.towns]
DOMAINS = TypeAdapter(tuple[Domain, ...]).validate_python(read_data("domains.toml")["domains"])
DOMAINS_BY_NAME = {domain.name: domain for domain in DOMAINS}
CALL = EventTitle("call with NAME", (30, 45, 60, 90))
"""Fits any hour and every domain."""


def _join_domains(things: str) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(one for domain in DOMAINS for one in getattr(domain, things)))


EVERYTHING = Domain(
    "everything", needs=tuple(_NAMES["needs"]), goods=tuple(CATALOGUE), reminders=_join_domains("reminders"),
    events=_join_domains("events"), measures=_join_domains("measures"), payments=_join_domains("payments"),
    bills=_join_domains("bills"),
)  # fmt: skip
"""For scenarios without a domain: the things of all of them, without what they are asked for."""


def draw_world(rng: Random, sections: Iterable[str], domain: Domain = EVERYTHING) -> dict[str, Any]:
    """A world of the domain with these sections; the same for the same state of `rng`."""
    today = date(2024, 1, 1) + timedelta(days=rng.randrange(3 * 365))
    while domain.outdoors and today.month not in WARM_MONTHS:
        today = date(2024, 1, 1) + timedelta(days=rng.randrange(3 * 365))
    wanted = set(sections)
    made = {name: draw(rng, today, domain) for name, draw in WORLD_SECTIONS.items() if name in wanted}
    return {"today": today.isoformat(), "number": rng.randint(100, 899), "domain": domain.name, **made}


def find_domain(world: Mapping[str, Any]) -> Domain:
    return DOMAINS_BY_NAME.get(world.get("domain", ""), EVERYTHING)


def _great_circle_km(start: Coordinates, end: Coordinates) -> float:
    """The distance on a sphere, by the haversine formula."""
    (lat, lon), (other_lat, other_lon) = (map(radians, place) for place in (start, end))
    half = sin((other_lat - lat) / 2) ** 2 + cos(lat) * cos(other_lat) * sin((other_lon - lon) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * asin(sqrt(half))


def road_km(start: Coordinates, end: Coordinates) -> int:
    """An estimate of the distance by road or rail, in whole kilometers."""
    return round(_great_circle_km(start, end) * DETOUR)


def add_days(world_today: str, days: int) -> str:
    return (date.fromisoformat(world_today) + timedelta(days=days)).isoformat()


def parse_minutes(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def format_minutes(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def write_title(event: EventTitle, rng: Random) -> str:
    return event.title.replace("NAME", rng.choice(PEOPLE))


def is_weekday(day: str) -> bool:
    return date.fromisoformat(day).weekday() < 5


def _draw_towns(rng: Random, today: date, _domain: Domain) -> dict[str, Any]:
    """Six towns of one region: one, the two nearest to it, and three others."""
    region = rng.choice([*REGIONS.values()])
    first = rng.choice([*region.towns])
    near = sorted(region.towns, key=lambda town: _great_circle_km(region.towns[first], region.towns[town]))[:3]
    names = near + rng.sample([town for town in region.towns if town not in near], 3)
    warm = round(rng.gauss(region.means_c[today.month - 1], 2))
    days = [_draw_region_day(rng, region, warm, today + timedelta(days=ahead)) for ahead in range(FORECAST_DAYS)]
    return {
        name: {
            "coordinates": [*region.towns[name]],
            "forecast": {day.isoformat(): _draw_weather(rng, temperature) for day, temperature in days},
        }
        for name in names
    }


def _draw_region_day(rng: Random, region: Region, warm: int, day: date) -> tuple[date, int]:
    """A day, and the temperature of the region, which is at most five degrees from the mean of its month."""
    mean = region.means_c[day.month - 1]
    return day, max(mean - 5, min(mean + 5, warm + rng.randint(-2, 2)))


def _draw_weather(rng: Random, region_temperature: int) -> dict[str, Any]:
    """Weather whose parts fit each other: no rain in frost, no fog in a wind, no thunderstorm in the cold."""
    temperature = region_temperature + rng.randint(-1, 1)
    skies = {
        "clear": 3,
        "cloudy": 3,
        "rain": 3 if temperature >= 3 else 0,
        "snow": 3 if temperature <= 0 else 0,
        "fog": 1 if -2 <= temperature <= 12 else 0,
        "storm": 1 if temperature >= 12 else 0,
    }
    sky = rng.choices([*skies], [*skies.values()])[0]
    wind, humidity = {
        "clear": ((3, 30), (35, 70)),
        "cloudy": ((5, 35), (50, 85)),
        "rain": ((8, 45), (75, 96)),
        "snow": ((5, 40), (78, 96)),
        "fog": ((2, 8), (94, 99)),
        "storm": ((55, 90), (75, 95)),
    }[sky]
    return {
        "sky": sky,
        "temperature_c": temperature,
        "wind_kmh": rng.randint(*wind),
        "humidity_percent": rng.randint(*humidity),
    }


def _draw_calendar(rng: Random, today: date, domain: Domain) -> dict[str, Any]:
    """Up to three events on a weekday that do not overlap, with free time between them; a free weekend."""
    calendar: dict[str, list[dict[str, str]]] = {}
    for ahead in range(CALENDAR_DAYS):
        day = (today + timedelta(days=ahead)).isoformat()
        starts = sorted(rng.sample(range(DAY_START, DAY_END - 90, 120), rng.randint(1, 3))) if is_weekday(day) else []
        titles: set[str] = set()
        calendar[day] = []
        for start in starts:
            begin = start + rng.choice((0, 15, 30))
            fitting = [one for one in domain.events if one.first_hour * 60 <= begin < one.last_hour * 60]
            title = write_title(rng.choice(fitting), rng) if fitting else ""
            if title and title not in titles:
                end = begin + rng.choice((30, 45, 60))
                calendar[day].append({"start": format_minutes(begin), "end": format_minutes(end), "title": title})
                titles.add(title)
    return calendar


def _draw_shop(rng: Random, _today: date, domain: Domain) -> dict[str, Any]:
    """Six products; of half of them there are fewer than a person may want."""
    shop = {}
    for number, name in enumerate(rng.sample(domain.goods or EVERYTHING.goods, 6)):
        product = CATALOGUE[name]
        price = rng.randint(round(product.least_eur), round(product.most_eur) - 1) + rng.choice((0, 0.5, 0.9, 0.95))
        few = number % 2 and product.most > 1
        stock = rng.randint(1, product.most - 1) if few else rng.randint(product.most, product.most + 10)
        shop[name] = {"price_eur": price, "in_stock": stock}
    return shop


def _draw_library(rng: Random, today: date, _domain: Domain) -> dict[str, Any]:
    """Books that are available, on loan to others, on loan to the user, and reserved by another reader; at least one of each."""
    kinds = [("available", False, False), ("on loan", False, False), ("on loan", True, False), ("on loan", True, True)]
    kinds += [rng.choice(kinds[:2]) for _ in range(3)]
    return {
        title: {
            "author": rng.choice(AUTHORS),
            "status": status,
            "due": (today + timedelta(days=rng.randint(1, ASKED_DAYS))).isoformat() if status == "on loan" else None,
            "mine": mine,
            "reserved": reserved,
        }
        for title, (status, mine, reserved) in zip(rng.sample(TITLES, len(kinds)), kinds, strict=True)
    }


def _draw_rates(rng: Random, _today: date, _domain: Domain) -> dict[str, Any]:
    return {"EUR": 1.0} | {code: round(rate * rng.uniform(0.95, 1.05), 4) for code, rate in EURO_RATES.items()}


WORLD_SECTIONS: dict[str, Callable[[Random, date, Domain], dict[str, Any]]] = {
    "towns": _draw_towns,
    "calendar": _draw_calendar,
    "shop": _draw_shop,
    "library": _draw_library,
    "rates": _draw_rates,
}
