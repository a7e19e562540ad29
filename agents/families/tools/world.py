"""The small world that simulated tools work on, drawn anew for each seed: towns with weather, a calendar, a shop, a library,
rates of exchange. Knows no tool. All of it is made up but for the names of towns.
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
PER_EURO = {"USD": 1.09, "GBP": 0.85, "CHF": 0.95, "NOK": 11.6, "SEK": 11.2, "JPY": 162.0}
FORECAST_DAYS, CALENDAR_DAYS = 5, 7
OPENS, CLOSES = 9 * 60, 17 * 60
"""The hours of the calendar, in minutes."""


def draw_world(rng: Random, sections: Iterable[str]) -> dict[str, Any]:
    """A world with these sections; the same for the same state of `rng`."""
    today = date(2024, 1, 1) + timedelta(days=rng.randrange(3 * 365))
    wanted = set(sections)
    made = {name: draw(rng, today) for name, draw in SECTIONS.items() if name in wanted}
    return {"today": today.isoformat(), "number": rng.randint(100, 899), **made}


def later(world_today: str, days: int) -> str:
    return (date.fromisoformat(world_today) + timedelta(days=days)).isoformat()


def minutes_of(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def clock_of(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _towns(rng: Random, today: date) -> dict[str, Any]:
    names = rng.sample(TOWNS, 6)
    stations = {*rng.sample(names, 4)}
    warm, places = rng.randint(-4, 24), _apart(rng, len(names))
    return {
        name: {
            "at": at,
            "station": name in stations,
            "forecast": {
                (today + timedelta(days=day)).isoformat(): _weather(rng, warm) for day in range(FORECAST_DAYS)
            },
        }
        for name, at in zip(names, places, strict=True)
    }


def _apart(rng: Random, count: int) -> list[list[int]]:
    """Places on a map of 600 km, none two closer than 20."""
    places: list[list[int]] = []
    while len(places) < count:
        place = [rng.randint(0, 600), rng.randint(0, 600)]
        if all(hypot(place[0] - x, place[1] - y) >= 20 for x, y in places):
            places.append(place)
    return places


def _weather(rng: Random, warm: int) -> dict[str, Any]:
    temperature = warm + rng.randint(-5, 5)
    skies = [sky for sky in SKIES if sky != "snow" or temperature < 3]
    return {
        "sky": rng.choice(skies),
        "temperature_c": temperature,
        "wind_kmh": rng.randint(3, 70),
        "humidity_percent": rng.randint(30, 98),
    }


def _calendar(rng: Random, today: date) -> dict[str, Any]:
    return {(today + timedelta(days=day)).isoformat(): _day(rng, rng.sample(EVENTS, 3)) for day in range(CALENDAR_DAYS)}


def _day(rng: Random, titles: list[str]) -> list[dict[str, str]]:
    """Up to three events, none of which overlap, with free time between."""
    starts = sorted(rng.sample(range(OPENS, CLOSES - 90, 120), rng.randint(1, 3)))
    events = [(start + rng.choice((0, 15, 30)), rng.choice((30, 45, 60))) for start in starts]
    return [
        {"start": clock_of(start), "end": clock_of(start + long), "title": title}
        for (start, long), title in zip(events, titles, strict=False)
    ]


def _shop(rng: Random, _today: date) -> dict[str, Any]:
    return {
        name: {"price_eur": rng.randint(4, 180) + rng.choice((0, 0.5, 0.9, 0.95)), "in_stock": stock}
        for name, stock in zip(rng.sample(GOODS, 6), rng.sample(range(2, 16), 6), strict=True)
    }


def _library(rng: Random, today: date) -> dict[str, Any]:
    """On loan to the user or to somebody else, some of them wanted by others; at least one of each."""
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


def _rates(rng: Random, _today: date) -> dict[str, Any]:
    return {"EUR": 1.0} | {code: round(rate * rng.uniform(0.95, 1.05), 4) for code, rate in PER_EURO.items()}


SECTIONS: dict[str, Callable[[Random, date], dict[str, Any]]] = {
    "towns": _towns,
    "calendar": _calendar,
    "shop": _shop,
    "library": _library,
    "rates": _rates,
}
