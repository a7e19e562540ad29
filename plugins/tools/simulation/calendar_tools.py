"""Simulated calendar tools: free time, events, reminders. Later calls see what they add."""

from random import Random
from typing import Any

from plugins.tools.simulation.scenario_domains import CALL
from plugins.tools.simulation.simulated_tool import (
    SimulatedTool,
    ToolArguments,
    ToolError,
    ToolOutcome,
    WorldState,
    date_schema,
    integer_schema,
    object_schema,
    text_schema,
    time_schema,
)
from plugins.tools.simulation.simulated_world import (
    ASKED_DAYS,
    CALENDAR_DAYS,
    DAY_END,
    DAY_START,
    EVERYTHING,
    add_days,
    find_domain,
    format_minutes,
    is_weekday,
    parse_minutes,
    write_title,
)

DURATION_WORDS = {
    "30": ["half an hour", "half-hour", "half hour"],
    "45": ["three quarters of an hour"],
    "60": ["an hour", "one hour", "one-hour", "1 hour", "1-hour"],
    "90": ["an hour and a half", "one and a half hours"],
    "120": ["two hours", "two-hour", "2 hours"],
}
"""Common phrases for these numbers of minutes."""
LENGTHS = (30, 45, 60, 90)
DURATION_SCHEMA = {**integer_schema("how long it takes, in minutes", 15, 240), "x-evidence": DURATION_WORDS}
MAX_SHOWN_SLOTS = 4
"""Number of free times in one result."""


def _day_events(world: WorldState, on: str) -> list[tuple[int, int, str]]:
    """Start, end and title of the events of a day. Raises ToolError for a day that the calendar does not have."""
    if on not in world["calendar"]:
        raise ToolError(f"the calendar has no {on}: it goes {CALENDAR_DAYS} days ahead")
    return [(parse_minutes(e["start"]), parse_minutes(e["end"]), e["title"]) for e in world["calendar"][on]]


def _free_starts(world: WorldState, on: str, minutes: int, not_before: int = DAY_START) -> list[int]:
    events = _day_events(world, on)
    starts = range(DAY_START, DAY_END - minutes + 1, 30)
    return [
        start
        for start in starts
        if start >= not_before and all(start + minutes <= begin or start >= end for begin, end, _ in events)
    ]


def _run_find_slots(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    not_before = parse_minutes(arguments["not_before"]) if "not_before" in arguments else DAY_START
    free = _free_starts(world, arguments["day"], arguments["minutes"], not_before)[:MAX_SHOWN_SLOTS]
    if not free:
        raise ToolError(f"no free time of {arguments['minutes']} minutes on {arguments['day']}")
    return ToolOutcome({"day": arguments["day"], "free": [format_minutes(start) for start in free]}, world)


def _draw_slots(world: WorldState, rng: Random) -> dict[str, Any]:
    on, minutes = _draw_free_day(world, rng)
    asked = {"day": on, "minutes": minutes}
    if rng.random() < 0.3 and (late := [start for start in _free_starts(world, on, minutes) if start % 60 == 0]):
        return {**asked, "not_before": format_minutes(rng.choice(late))}
    return asked


def _draw_free_day(world: WorldState, rng: Random) -> tuple[str, int]:
    """A weekday after today with this number of free minutes; with three events of an hour, 30 are always free."""
    minutes = rng.choice(LENGTHS)
    days = [on for on in world["calendar"] if on > world["today"] and is_weekday(on)]
    free = [on for on in days if _free_starts(world, on, minutes)]
    return (rng.choice(free), minutes) if free else (rng.choice(days), 30)


def _run_add_event(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    on, start = arguments["when"]["day"], parse_minutes(arguments["when"]["start"])
    end = start + arguments["minutes"]
    for begin, stop, title in _day_events(world, on):
        if start < stop and end > begin:
            raise ToolError(f"busy on {on} from {format_minutes(begin)} to {format_minutes(stop)}: {title}")
    if end > 24 * 60:
        raise ToolError("an event must end on the day on which it begins")
    event = {"start": format_minutes(start), "end": format_minutes(end), "title": arguments["title"]}
    events = sorted([*world["calendar"][on], event], key=lambda entry: entry["start"])
    changed = {**world, "calendar": {**world["calendar"], on: events}, "number": world["number"] + 1}
    result = {"title": event["title"], "day": on, "start": event["start"], "minutes": arguments["minutes"]}
    return ToolOutcome({"event": f"E-{world['number']}", **result}, changed)


def _draw_event(world: WorldState, rng: Random) -> dict[str, Any]:
    on, minutes = _draw_free_day(world, rng)
    start = rng.choice(_free_starts(world, on, minutes))
    when = {"day": on, "start": format_minutes(start)}
    return {"title": draw_title(world, rng, on, start, minutes), "when": when, "minutes": minutes}


def _fail_event(world: WorldState, rng: Random) -> dict[str, Any]:
    """An event that begins with another one."""
    on = rng.choice([on for on in world["calendar"] if on > world["today"] and world["calendar"][on]])
    start = parse_minutes(rng.choice(world["calendar"][on])["start"])
    minutes = rng.choice((30, 45, 60))
    when = {"day": on, "start": format_minutes(start)}
    return {"title": draw_title(world, rng, on, start, minutes), "when": when, "minutes": minutes}


def draw_title(world: WorldState, rng: Random, on: str, start: int, minutes: int) -> str:
    """A title of the domain that no event of the day has, for an event of this length at this minute of the day."""
    existing = {event["title"] for event in world["calendar"][on]}
    events = find_domain(world).events or EVERYTHING.events
    fitting = [
        event for event in events if minutes in event.minutes and event.first_hour * 60 <= start < event.last_hour * 60
    ]
    titles = [write_title(event, rng) for event in fitting for _ in range(3) if event != CALL]
    new = [title for title in titles if title not in existing]
    return rng.choice(new) if new else write_title(CALL, rng)


def _run_add_reminder(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    if arguments["day"] < world["today"]:
        raise ToolError(f"{arguments['day']} is in the past")
    result = {key: arguments[key] for key in ("text", "day", "time")}
    return ToolOutcome({"reminder": f"R-{world['number']}", **result}, {**world, "number": world["number"] + 1})


def _draw_reminder(world: WorldState, rng: Random) -> dict[str, Any]:
    time = format_minutes(rng.randint(7 * 4, 21 * 4) * 15)
    text = rng.choice(find_domain(world).reminders or EVERYTHING.reminders)
    return {"text": text, "day": add_days(world["today"], rng.randint(1, ASKED_DAYS)), "time": time}


CALENDAR_TOOLS = (
    SimulatedTool(
        name="find_free_slots",
        description="Free times in the user's calendar on one day, for something of a given length.",
        need="to know when there is free time in the calendar",
        parameters=object_schema(
            {
                "day": date_schema("the day to look at"),
                "minutes": DURATION_SCHEMA,
            },
            {"not_before": time_schema("the earliest time to start")},
        ),
        run=_run_find_slots,
        draw=_draw_slots,
        tells=("free",),
        sections=("calendar",),
        asked={"day": ("day", "date", "when"), "minutes": ("how long", "length", "duration", "minutes", "much time")},
    ),
    SimulatedTool(
        name="add_event",
        description="Put an event into the user's calendar; refused where something else is in the way.",
        need="an event put into the calendar",
        parameters=object_schema(
            {
                "title": text_schema("what the event is, in a few words"),
                "when": object_schema(
                    {"day": date_schema("the day of the event"), "start": time_schema("when it begins")}
                ),
                "minutes": DURATION_SCHEMA,
            }
        ),
        run=_run_add_event,
        acts=True,
        draw=_draw_event,
        fail=_fail_event,
        tells=("day", "start"),
        sections=("calendar",),
    ),
    SimulatedTool(
        name="set_reminder",
        description="Remind the user of something at a time on a day.",
        need="a reminder to be set",
        parameters=object_schema(
            {
                "text": text_schema("what to be reminded of, in the user's words"),
                "day": date_schema("the day of the reminder"),
                "time": time_schema("the time of the reminder"),
            }
        ),
        run=_run_add_reminder,
        acts=True,
        draw=_draw_reminder,
        tells=("day", "time"),
        asked={"time": ("time", "when", "hour"), "day": ("day", "date", "when")},
    ),
)
