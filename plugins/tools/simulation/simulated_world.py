"""The small world of the simulated tools, drawn for each seed: towns with weather, a calendar, a shop, a library, exchange
rates. Knows no tool.

Towns are those of the map, with weather of their season. Books, forecasts, appointments, prices and rates are invented, in
plausible ranges.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from random import Random
from typing import Any

from plugins.tools.simulation.scenario_domains import CATALOGUE, DOMAINS, DOMAINS_BY_NAME, PEOPLE, Domain, EventTitle
from plugins.tools.simulation.town_map import REGIONS, Region, great_circle_km

TITLES = (
    "The Salt Road", "A Winter of Herons", "Copper and Ash", "The Ferryman's Ledger", "Maps of Nowhere", "Quiet Machines",
    "The Orchard Wall", "Letters to the Lighthouse Keeper", "Bread Before Dawn", "The Glass Estuary", "An Atlas of Moss",
    "The Clockmaker's Debt", "Rivers Without Names", "Northern Kitchens", "The Last Tram Home", "Stone Fruit",
    "The Weather Diary", "Paper Cathedrals", "A Field Guide to Silence", "The Tin Violin", "Under the Viaduct",
    "The Beekeeper's Map", "Slow Trains", "Night Shift at the Observatory",
    *(f"The {first} {second}"
      for first in "Amber Broken Crooked Distant Eleventh Frozen Hollow Iron Painted Patient Second Silver Velvet".split()
      for second in "Bridge Cellar Comet Garden Harbour Hunter Island Lantern Mirror Orchestra Passage Valley".split()),
)  # fmt: skip
AUTHORS = (
    "Ines Halloway", "Tomas Verhaal", "Odile Marchetti", "Per Lindqvist", "Asha Raman", "Jonas Feld", "Marta Kowal",
    "Eamon Pryce", "Yuki Hanamura", "Rosa Belmonte", "Niko Saarinen", "Clara Whitlock",
)  # fmt: skip
EURO_RATES = {"USD": 1.09, "GBP": 0.85, "CHF": 0.95, "NOK": 11.6, "SEK": 11.2, "JPY": 162.0}
FORECAST_DAYS, CALENDAR_DAYS = 5, 7
"""Today included."""
ASKED_DAYS = CALENDAR_DAYS - 1
"""Days after today that a user asks about; the prompt's calendar has them all."""
WARM_MONTHS = range(4, 11)
DAY_START, DAY_END = 9 * 60, 17 * 60
"""The hours of the calendar, in minutes."""
EVERYTHING = Domain(
    "everything", 0, (), (), {},
    ("a table booked in a restaurant", "the score of last night's match", "a photo made brighter", "a taxi to come",
     "a song played", "an e-mail sent to a colleague", "the opening hours of a museum", "the latest news",
     "the tracking of a parcel",
     "a concert ticket bought", "a phone number found", "the meaning of a dream"),
    goods=tuple(CATALOGUE),
    reminders=tuple(dict.fromkeys(text for domain in DOMAINS for text in domain.reminders)),
    events=tuple(dict.fromkeys(event for domain in DOMAINS for event in domain.events)),
    measures=tuple(measure for domain in DOMAINS for measure in domain.measures),
    payments=tuple(payment for domain in DOMAINS for payment in domain.payments),
    bills=tuple(bill for domain in DOMAINS for bill in domain.bills),
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
    """The domain of a world; a world of an older seed has none."""
    return DOMAINS_BY_NAME.get(world.get("domain", ""), EVERYTHING)


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
    near = sorted(region.towns, key=lambda town: great_circle_km(region.towns[first], region.towns[town]))[:3]
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
