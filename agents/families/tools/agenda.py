"""Simulated tools of an assistant's desk: free time, events, reminders. What they add is there for later calls."""

from random import Random
from typing import Any

from agents.families.tools.base import Arguments, Ran, Tool, ToolError, World, clock, day, integer, parameters, text
from agents.families.tools.world import CALENDAR_DAYS, CLOSES, EVENTS, OPENS, REMINDERS, clock_of, later, minutes_of

LONG = {
    "30": ["half an hour", "half-hour", "half hour"],
    "45": ["three quarters of an hour"],
    "60": ["an hour", "one hour", "one-hour", "1 hour", "1-hour"],
    "90": ["an hour and a half", "one and a half hours"],
    "120": ["two hours", "two-hour", "2 hours"],
}
"""How people tell so many minutes."""
LENGTHS = (30, 45, 60, 90)
SHOWN = 4
"""Free times told at once."""


def _busy(world: World, on: str) -> list[tuple[int, int, str]]:
    """Start, end and title of the events of a day. Raises ToolError for a day that the calendar does not have."""
    if on not in world["calendar"]:
        raise ToolError(f"the calendar has no {on}: it goes {CALENDAR_DAYS} days ahead")
    return [(minutes_of(e["start"]), minutes_of(e["end"]), e["title"]) for e in world["calendar"][on]]


def _free(world: World, on: str, minutes: int, not_before: int = OPENS) -> list[int]:
    events = _busy(world, on)
    starts = range(OPENS, CLOSES - minutes + 1, 30)
    return [
        start
        for start in starts
        if start >= not_before and all(start + minutes <= begin or start >= end for begin, end, _ in events)
    ]


def _slots(world: World, arguments: Arguments) -> Ran:
    not_before = minutes_of(arguments["not_before"]) if "not_before" in arguments else OPENS
    free = _free(world, arguments["day"], arguments["minutes"], not_before)[:SHOWN]
    if not free:
        raise ToolError(f"no free time of {arguments['minutes']} minutes on {arguments['day']}")
    return Ran({"day": arguments["day"], "free": [clock_of(start) for start in free]}, world)


def _draw_slots(world: World, rng: Random) -> dict[str, Any]:
    on, minutes = _free_day(world, rng)
    asked = {"day": on, "minutes": minutes}
    if rng.random() < 0.3 and (late := [start for start in _free(world, on, minutes) if start % 60 == 0]):
        return {**asked, "not_before": clock_of(rng.choice(late))}
    return asked


def _free_day(world: World, rng: Random) -> tuple[str, int]:
    """A day with so many minutes free; with three events of an hour there are always 30."""
    minutes = rng.choice(LENGTHS)
    days = [on for on in world["calendar"] if _free(world, on, minutes)]
    return (rng.choice(days), minutes) if days else (rng.choice([*world["calendar"]]), 30)


def _add(world: World, arguments: Arguments) -> Ran:
    on, start = arguments["when"]["day"], minutes_of(arguments["when"]["start"])
    end = start + arguments["minutes"]
    for begin, stop, title in _busy(world, on):
        if start < stop and end > begin:
            raise ToolError(f"busy on {on} from {clock_of(begin)} to {clock_of(stop)}: {title}")
    if end > 24 * 60:
        raise ToolError("an event must end on the day on which it begins")
    event = {"start": clock_of(start), "end": clock_of(end), "title": arguments["title"]}
    events = sorted([*world["calendar"][on], event], key=lambda one: one["start"])
    changed = {**world, "calendar": {**world["calendar"], on: events}, "number": world["number"] + 1}
    told = {"title": event["title"], "day": on, "start": event["start"], "minutes": arguments["minutes"]}
    return Ran({"event": f"E-{world['number']}", **told}, changed)


def _draw_event(world: World, rng: Random) -> dict[str, Any]:
    on, minutes = _free_day(world, rng)
    start = clock_of(rng.choice(_free(world, on, minutes)))
    return {"title": _new_title(world, rng), "when": {"day": on, "start": start}, "minutes": minutes}


def _fail_event(world: World, rng: Random) -> dict[str, Any]:
    on = rng.choice([on for on in world["calendar"] if world["calendar"][on]])
    start = rng.choice(world["calendar"][on])["start"]
    return {"title": _new_title(world, rng), "when": {"day": on, "start": start}, "minutes": rng.choice(LENGTHS)}


def _new_title(world: World, rng: Random) -> str:
    there = {event["title"] for events in world["calendar"].values() for event in events}
    return rng.choice([title for title in EVENTS if title not in there] or EVENTS)


def _remind(world: World, arguments: Arguments) -> Ran:
    if arguments["day"] < world["today"]:
        raise ToolError(f"{arguments['day']} is in the past")
    told = {key: arguments[key] for key in ("text", "day", "time")}
    return Ran({"reminder": f"R-{world['number']}", **told}, {**world, "number": world["number"] + 1})


def _draw_reminder(world: World, rng: Random) -> dict[str, Any]:
    time = clock_of(rng.randint(7 * 4, 21 * 4) * 15)
    return {"text": rng.choice(REMINDERS), "day": later(world["today"], rng.randint(1, 10)), "time": time}


AGENDA = (
    Tool(
        name="find_free_slots",
        description="Free times in the user's calendar on one day, for something of a given length.",
        need="to know when there is free time in the calendar",
        parameters=parameters(
            {
                "day": day("the day to look at"),
                "minutes": integer("how long it takes, in minutes", 15, 240, **{"x-evidence": LONG}),
            },
            {"not_before": clock("the earliest time to start")},
        ),
        run=_slots,
        draw=_draw_slots,
        tells=("free",),
        sections=("calendar",),
        asked={"day": ("day", "date", "when"), "minutes": ("how long", "length", "duration", "minutes", "much time")},
    ),
    Tool(
        name="add_event",
        description="Put an event into the user's calendar; refused where something else is in the way.",
        need="an event put into the calendar",
        parameters=parameters(
            {
                "title": text("what the event is, in a few words"),
                "when": parameters({"day": day("the day of the event"), "start": clock("when it begins")}),
                "minutes": integer("how long it takes, in minutes", 15, 240, **{"x-evidence": LONG}),
            }
        ),
        run=_add,
        acts=True,
        draw=_draw_event,
        fail=_fail_event,
        tells=("day", "start"),
        sections=("calendar",),
    ),
    Tool(
        name="set_reminder",
        description="Remind the user of something at a time on a day.",
        need="a reminder to be set",
        parameters=parameters(
            {
                "text": text("what to be reminded of, in the user's words"),
                "day": day("the day of the reminder"),
                "time": clock("the time of the reminder"),
            }
        ),
        run=_remind,
        acts=True,
        draw=_draw_reminder,
        tells=("day", "time"),
        asked={"time": ("time", "when", "hour"), "day": ("day", "date", "when")},
    ),
)
