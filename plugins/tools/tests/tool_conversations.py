"""Small conversations with tools that the golden cases vary: one world, one plan each, and how it goes when all is right."""

from typing import Any

from agents.checks import Subject
from core.sample import Seed
from plugins.tools.simulation.simulated_tools import SIMULATED_TOOLS, run_tool
from plugins.tools.tool_family import ToolCallsFamily, ToolDraft

TODAY = "2025-11-04"  # a Tuesday


def _sky(sky: str, temperature: int, wind: int, humidity: int) -> dict[str, Any]:
    return {"sky": sky, "temperature_c": temperature, "wind_kmh": wind, "humidity_percent": humidity}


WORLD: dict[str, Any] = {
    "today": TODAY,
    "number": 417,
    "towns": {
        "Bergen": {
            "at": [0, 0],
            "station": True,
            "forecast": {"2025-11-05": _sky("clear", 9, 12, 60), "2025-11-06": _sky("rain", 7, 31, 88)},
        },
        "Ghent": {"at": [80, 60], "station": False, "forecast": {"2025-11-06": _sky("fog", 12, 5, 97)}},
        "Turku": {"at": [80, 0], "station": True, "forecast": {"2025-11-06": _sky("snow", -3, 44, 71)}},
    },
    "calendar": {
        "2025-11-05": [],
        "2025-11-06": [
            {"start": "09:00", "end": "10:30", "title": "budget review"},
            {"start": "13:00", "end": "14:00", "title": "choir rehearsal"},
        ],
    },
    "shop": {"desk lamp": {"price_eur": 24.9, "in_stock": 5}, "tea kettle": {"price_eur": 39, "in_stock": 2}},
    "library": {
        "The Salt Road": {
            "author": "Ines Halloway",
            "status": "on loan",
            "due": "2025-11-14",
            "mine": True,
            "reserved": False,
        },
        "Stone Fruit": {
            "author": "Per Lindqvist",
            "status": "available",
            "due": None,
            "mine": False,
            "reserved": False,
        },
    },
    "rates": {"EUR": 1.0, "GBP": 0.85, "USD": 1.1},
}
TEA = {"product": "tea kettle", "quantity": 3, "delivery": {"method": "express", "town": "Ghent"}}
LAMPS = {"product": "desk lamp", "quantity": 2, "delivery": {"method": "express", "town": "Ghent"}}
EYES = {"title": "eye test", "when": {"day": "2025-11-06", "start": "11:00"}, "minutes": 30}
VET = {"title": "vet visit", "when": {"day": "2025-11-06", "start": "13:30"}, "minutes": 30}
TURNS: dict[str, tuple[str, list[tuple[str, dict[str, Any]]], str, str]] = {
    "weather": (
        "call",
        [("get_weather", {"city": "Bergen", "day": "2025-11-06"})],
        "What will the weather be like in Bergen on Thursday?",
        "Bergen gets rain on Thursday at 7 °C, with wind of 31 km/h.",
    ),
    "cold": (
        "call",
        [("get_weather", {"city": "Turku", "day": "2025-11-06"})],
        "How is Turku on 6 November?",
        "On 6 November Turku has snow at -3 °C.",
    ),
    "two towns": (
        "parallel",
        [
            ("get_weather", {"city": "Bergen", "day": "2025-11-06"}),
            ("get_weather", {"city": "Ghent", "day": "2025-11-06"}),
        ],
        "Bergen or Ghent on Thursday, which is nicer?",
        "Bergen gets rain at 7 °C, Ghent has fog at 12 °C.",
    ),
    "no forecast": (
        "error",
        [("get_weather", {"city": "Bergen", "day": "2025-11-20"})],
        "And Bergen on 20 November?",
        "There is no forecast for Bergen on 20 November: only 5 days are known.",
    ),
    "product": (
        "call",
        [("find_product", {"product": "desk lamp"})],
        "Do you have a desk lamp, and what is it?",
        "The desk lamp costs 24.90 EUR, and 5 are in stock.",
    ),
    "in pounds": (
        "chain",
        [
            ("find_product", {"product": "desk lamp"}),
            ("convert_currency", {"amount": 24.9, "from_currency": "EUR", "to_currency": "GBP"}),
        ],
        "What is the desk lamp in British pounds?",
        "The desk lamp costs 24.90 EUR, which is 21.17 GBP.",
    ),
    "order": (
        "call",
        [("place_order", LAMPS)],
        "Send 2 of the desk lamp to Ghent by express delivery.",
        "I have ordered 2 of the desk lamp to Ghent: 59.70 EUR in all, and they arrive tomorrow.",
    ),
    "too many": (
        "error",
        [("place_order", TEA)],
        "I want 3 of the tea kettle in Ghent, express delivery.",
        "I could not place the order: only 2 of the tea kettle are in stock.",
    ),
    "event": (
        "call",
        [("add_event", EYES)],
        "Put the eye test on Thursday at 11:00, it takes half an hour.",
        "The eye test is in your calendar on Thursday at 11:00.",
    ),
    "busy": (
        "error",
        [("add_event", VET)],
        "The vet visit on Thursday at 1:30 pm, 30 minutes.",
        "That time is taken: on Thursday you are busy from 13:00 to 14:00 with choir rehearsal.",
    ),
    "slots": (
        "call",
        [("find_free_slots", {"day": "2025-11-06", "minutes": 90})],
        "When on Thursday do I have an hour and a half?",
        "On Thursday you are free at 10:30, 11:00, 11:30 or 14:00.",
    ),
    "route": (
        "call",
        [("plan_route", {"start": "Bergen", "destination": "Turku", "mode": "train"})],
        "How long is the train from Bergen to Turku?",
        "From Bergen to Turku it is 100 km by train, 1 hour and 5 minutes.",
    ),
    "book": (
        "call",
        [("find_book", {"title": "The Salt Road"})],
        "Is The Salt Road there?",
        "The Salt Road by Ines Halloway is on loan until 14 November.",
    ),
    "no book": (
        "error",
        [("find_book", {"title": "Slow Trains"})],
        "Does the library have Slow Trains?",
        "I could not find it: there is no book named 'Slow Trains'.",
    ),
    "free book": (
        "call",
        [("find_book", {"title": "Stone Fruit"})],
        "Is Stone Fruit there?",
        "Stone Fruit by Per Lindqvist is available.",
    ),
    "renewal": (
        "call",
        [("renew_loan", {"title": "The Salt Road", "days": 7})],
        "Keep The Salt Road for a week longer, please.",
        "The Salt Road is renewed until 21 November.",
    ),
    "bill": (
        "call",
        [("split_bill", {"total_eur": 90, "people": 4, "tip_percent": 10})],
        "We are 4, the bill is 90 euros, and we tip 10%.",
        "Each of the 4 pays 24.75 euros.",
    ),
    "reminder": (
        "call",
        [("set_reminder", {"text": "call the plumber", "day": "2025-11-05", "time": "08:15"})],
        "Remind me tomorrow at 8:15 am to call the plumber.",
        "I will remind you tomorrow at 8:15 am to call the plumber.",
    ),
    "miles": (
        "call",
        [("convert_units", {"value": 26.2, "from_unit": "mile", "to_unit": "kilometre"})],
        "How many kilometres are 26.2 miles?",
        "26.2 miles are 42.16 km.",
    ),
    "which day": ("ask", [], "What is the weather like in Bergen?", "For which day would you like to know?"),
    "which currency": ("ask", [], "Change 50 euros for me.", "Into which currency?"),
    "outside": ("outside", [], "Book me a table at the harbour.", "I cannot book tables here."),
}
ASKED = {"which day": ("get_weather", "day", {"city": "Bergen"}),
         "which currency": ("convert_currency", "to_currency", {"amount": 50, "from_currency": "EUR"})}  # fmt: skip


def wish_data(name: str) -> dict[str, Any]:
    kind, calls, _, _ = TURNS[name]
    tool, missing, said = ASKED.get(name, ("", "", {}))
    planned = [{"name": tool, "arguments": arguments} for tool, arguments in calls]
    results = [run_tool(WORLD, SIMULATED_TOOLS, tool, arguments).result for tool, arguments in calls]
    return {
        "kind": kind,
        "calls": planned,
        "results": results,
        "tool": tool,
        "missing": missing,
        "said": said,
        "need": "",
    }


def subject_of(case: dict[str, Any]) -> Subject:
    """The conversation `case["base"]` (or several) with what the case changes, executed like any other."""
    bases = [case["base"]] if isinstance(case["base"], str) else case["base"]
    wishes = [wish_data(base) for base in bases]
    data = {"world": WORLD, "offered": [*SIMULATED_TOOLS], "wishes": wishes, "intro": "-", "written_out": True}
    seed, turns = Seed(id="s-0", data=data), []
    for base in bases:
        _, calls, request, reply = TURNS[base]
        right = [{"name": name, "arguments": arguments} for name, arguments in calls]
        turns.append({"request": request, "calls": right, "reply": reply})
    turns[-1] |= {key: case[key] for key in ("request", "calls", "reply") if key in case}
    candidate = ToolCallsFamily().candidate(seed, ToolDraft.model_validate({"turns": turns}))

    async def ask(*_: Any, **__: Any) -> Any:
        raise AssertionError("no teacher is asked")

    return Subject(seed, candidate, ask)
