"""The small world of the simulated tools, drawn for each seed: towns with weather, a calendar, a shop, a library, exchange
rates. Knows no tool. Everything is invented except the names of towns.
"""

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from math import hypot
from random import Random
from typing import Any

TOWNS = """Aarhus Bergen Brno Coimbra Debrecen Dresden Gdansk Ghent Girona Graz Groningen Innsbruck Kaunas Konstanz Leuven
Linz Lublin Lucerne Lund Malmo Maribor Matera Nantes Odense Olomouc Padua Pecs Plovdiv Rennes Rijeka Salzburg Sibiu Siena
Tampere Tartu Toledo Trento Trieste Turku Uppsala Utrecht Varna Verona Zadar""".split()
SKIES = ("clear", "cloudy", "rain", "snow", "fog", "storm")
GOODS = (
    "desk lamp", "rain jacket", "tea kettle", "bicycle pump", "yoga mat", "cast iron pan", "wool blanket", "garden hose",
    "chess set", "paint roller", "head torch", "picnic basket", "drawing tablet", "bread knife", "phone stand", "lunch box",
    "hiking socks", "glass teapot", "wall clock", "camping stove", "watering can", "door mat", "spice rack", "tool box",
    "travel pillow", "bird feeder", "coffee grinder", "step ladder", "garden hammock", "folding umbrella",
    *(f"{first} {second}"
      for first in "bamboo copper cork enamel linen oak slate walnut".split()
      for second in "basket bench box jug mug planter shelf stool tray".split()),
)  # fmt: skip
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
EVENTS = (
    "dentist appointment", "budget review", "piano lesson", "parent evening", "eye test", "call with the landlord",
    "job interview", "choir rehearsal", "car inspection", "physiotherapy", "swimming lesson", "book club", "haircut",
    "planning session", "driving lesson", "vet visit", "yoga class", "house viewing", "tax consultation", "band practice",
    *(f"{first} with {second}"
      for first in ("lunch", "a walk", "a call", "a lesson", "dinner")
      for second in "Agnes Boris Carla Dmitri Elif Farah Gustav Hanna Idris Jolanta Kofi Leonie".split()),
)  # fmt: skip
REMINDERS = (
    "call the plumber", "water the ferns", "renew the passport", "take the bread out of the freezer", "pay the gas bill",
    "pick up the parcel", "feed the neighbour's cat", "send the signed contract", "buy candles", "charge the camera",
    "cancel the gym membership", "return the projector", "order new glasses", "check the tyre pressure", "defrost the soup",
    "book the ferry", "write to the insurance", "bring the choir folder", "put out the bins", "back up the laptop",
    *(f"{first} the {second}"
      for first in ("collect", "pay for", "look for", "pack", "clean", "order")
      for second in ("birthday cake", "blue curtains", "borrowed drill", "camera lens", "camping chairs", "concert tickets",
                     "ski boots", "spare keys", "wedding present", "winter tyres")),
)  # fmt: skip
EURO_RATES = {"USD": 1.09, "GBP": 0.85, "CHF": 0.95, "NOK": 11.6, "SEK": 11.2, "JPY": 162.0}
FORECAST_DAYS, CALENDAR_DAYS = 5, 7
DAY_START, DAY_END = 9 * 60, 17 * 60
"""The hours of the calendar, in minutes."""


def draw_world(rng: Random, sections: Iterable[str]) -> dict[str, Any]:
    """A world with these sections; the same for the same state of `rng`."""
    today = date(2024, 1, 1) + timedelta(days=rng.randrange(3 * 365))
    wanted = set(sections)
    made = {name: draw(rng, today) for name, draw in WORLD_SECTIONS.items() if name in wanted}
    return {"today": today.isoformat(), "number": rng.randint(100, 899), **made}


def add_days(world_today: str, days: int) -> str:
    return (date.fromisoformat(world_today) + timedelta(days=days)).isoformat()


def parse_minutes(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def format_minutes(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _draw_towns(rng: Random, today: date) -> dict[str, Any]:
    names = rng.sample(TOWNS, 6)
    stations = {*rng.sample(names, 4)}
    warm = rng.randint(-4, 24)
    places: list[list[int]] = []  # on a map of 600 km, at least 20 km apart
    while len(places) < len(names):
        place = [rng.randint(0, 600), rng.randint(0, 600)]
        if all(hypot(place[0] - x, place[1] - y) >= 20 for x, y in places):
            places.append(place)

    towns = {}
    for name, at in zip(names, places, strict=True):
        forecast = {}
        for day in range(FORECAST_DAYS):
            temperature = warm + rng.randint(-5, 5)
            forecast[(today + timedelta(days=day)).isoformat()] = {
                "sky": rng.choice([sky for sky in SKIES if sky != "snow" or temperature < 3]),
                "temperature_c": temperature,
                "wind_kmh": rng.randint(3, 70),
                "humidity_percent": rng.randint(30, 98),
            }
        towns[name] = {"at": at, "station": name in stations, "forecast": forecast}
    return towns


def _draw_calendar(rng: Random, today: date) -> dict[str, Any]:
    """Up to three events a day that do not overlap, with free time between them."""
    calendar = {}
    for day in range(CALENDAR_DAYS):
        titles = rng.sample(EVENTS, 3)
        starts = sorted(rng.sample(range(DAY_START, DAY_END - 90, 120), rng.randint(1, 3)))
        events = [(start + rng.choice((0, 15, 30)), rng.choice((30, 45, 60))) for start in starts]
        calendar[(today + timedelta(days=day)).isoformat()] = [
            {"start": format_minutes(start), "end": format_minutes(start + long), "title": title}
            for (start, long), title in zip(events, titles, strict=False)
        ]
    return calendar


def _draw_shop(rng: Random, _today: date) -> dict[str, Any]:
    return {
        name: {"price_eur": rng.randint(4, 180) + rng.choice((0, 0.5, 0.9, 0.95)), "in_stock": stock}
        for name, stock in zip(rng.sample(GOODS, 6), rng.sample(range(2, 16), 6), strict=True)
    }


def _draw_library(rng: Random, today: date) -> dict[str, Any]:
    """Books that are available, on loan to the user, reserved, or on loan to others; at least one of each."""
    kinds = [("available", False, False), ("on loan", True, False), ("on loan", True, True), ("on loan", False, False)]
    kinds += [rng.choice(kinds) for _ in range(2)]
    return {
        title: {
            "author": rng.choice(AUTHORS),
            "status": status,
            "due": (today + timedelta(days=rng.randint(1, 20))).isoformat() if status == "on loan" else None,
            "mine": mine,
            "reserved": reserved,
        }
        for title, (status, mine, reserved) in zip(rng.sample(TITLES, len(kinds)), kinds, strict=True)
    }


def _draw_rates(rng: Random, _today: date) -> dict[str, Any]:
    return {"EUR": 1.0} | {code: round(rate * rng.uniform(0.95, 1.05), 4) for code, rate in EURO_RATES.items()}


WORLD_SECTIONS: dict[str, Callable[[Random, date], dict[str, Any]]] = {
    "towns": _draw_towns,
    "calendar": _draw_calendar,
    "shop": _draw_shop,
    "library": _draw_library,
    "rates": _draw_rates,
}
