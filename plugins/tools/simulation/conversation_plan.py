"""The plan of a conversation's turns: drawn calls with results of the simulated tools, and turns without a call.

Knows no teacher: the generator receives the plan, and checks compare the conversation with it.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, NamedTuple

from plugins.tools.simulation.simulated_tools import (
    SIMULATED_TOOLS,
    SimulatedTool,
    ToolArguments,
    WorldState,
    draw_title,
    run_tool,
)
from plugins.tools.simulation.simulated_world import (
    EVERYTHING,
    WORLD_SECTIONS,
    Domain,
    draw_world,
    find_domain,
    format_minutes,
    parse_minutes,
)

TurnKind = Literal["call", "chain", "parallel", "error", "ask", "outside"]
KINDS_WITHOUT_CALL: tuple[TurnKind, ...] = ("ask", "outside")
"""Turns in which no tool is called: a required argument is missing, or no tool fits."""
THING_KEYS = ("city", "product", "title", "text")
"""Arguments that name what a call is about."""
MAX_DRAWS = 40
"""Attempts to draw a turn that repeats nothing of the turns before."""
MIN_GAP = 60
"""Minutes between two events or reminders of one plan."""
ONCE_WITH_A_TOOL: tuple[TurnKind, ...] = ("chain", "parallel", "error")
"""Kinds of turns that a plan has once with the same tools; another becomes a plain call."""


ToolLink = Callable[[WorldState, ToolArguments, Mapping[str, Any], Random], dict[str, Any] | None]


class ToolChain(NamedTuple):
    link: ToolLink
    """Arguments of the second tool, from those of the first and its result; None where the result gives none."""
    asked: str
    """What the user asks for, so that the second call follows from the request."""


def _link_to_currency(world: WorldState, _arguments: ToolArguments, result: Any, rng: Random) -> dict[str, Any]:
    payments = find_domain(world).payments
    foreign = {code for one in payments for code in (one.from_currency, one.to_currency)} - {"EUR"}
    amount = result.get("price_eur", result.get("each_eur"))
    return {
        "amount": amount, "from_currency": "EUR", "to_currency": rng.choice(sorted(foreign) or ["USD", "GBP", "CHF"]),
    }  # fmt: skip


def _link_to_unit(field: str, given: str, wanted: str) -> ToolLink:
    return lambda _world, _arguments, result, _rng: {"value": result[field], "from_unit": given, "to_unit": wanted}


def _link_to_event(world: WorldState, arguments: ToolArguments, result: Any, rng: Random) -> dict[str, Any]:
    when = {"day": result["day"], "start": result["free"][0]}
    title = draw_title(world, rng, when["day"], parse_minutes(when["start"]), arguments["minutes"])
    return {"title": title, "when": when, "minutes": arguments["minutes"]}


def _link_to_reminder(_world: WorldState, _arguments: ToolArguments, result: Any, rng: Random) -> dict[str, Any] | None:
    if "due" not in result:
        return None
    time = format_minutes(rng.randint(32, 72) * 15)
    return {"text": f"ask for {result['title']}", "day": result["due"], "time": time}


TOOL_CHAINS: Mapping[tuple[str, str], ToolChain] = {
    ("find_product", "convert_currency"): ToolChain(
        _link_to_currency, "the price of one, and the same in the other currency"
    ),
    ("split_bill", "convert_currency"): ToolChain(
        _link_to_currency, "what each person pays, and the same in the other currency"
    ),
    ("plan_route", "convert_units"): ToolChain(
        _link_to_unit("distance_km", "kilometre", "mile"),
        "how far it is, in miles too, for somebody who thinks in miles",
    ),
    ("get_weather", "convert_units"): ToolChain(
        _link_to_unit("temperature_c", "celsius", "fahrenheit"),
        "the weather, with the temperature in Fahrenheit too, for somebody who thinks in it",
    ),
    ("find_free_slots", "add_event"): ToolChain(
        _link_to_event, "the first free time of that day, and the event put there"
    ),
    ("find_book", "set_reminder"): ToolChain(
        _link_to_reminder, "when the book is due back, and to be reminded on that day"
    ),
}


class PlannedCall(NamedTuple):
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class PlannedTurn:
    """The plan of one turn."""

    kind: TurnKind
    calls: tuple[PlannedCall, ...] = ()
    results: tuple[dict[str, Any], ...] = ()
    tool: str = ""
    """Which tool an `ask` is about."""
    missing: str = ""
    """The required argument that the user forgets."""
    said: Mapping[str, Any] | None = None
    """The other arguments of an `ask`, which the user states."""
    need: str = ""
    """What the user of an `outside` turn wants."""
    about: str = ""
    """What the first call is for, in the user's life."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "calls": [call._asdict() for call in self.calls],
            "results": list(self.results),
            "tool": self.tool,
            "missing": self.missing,
            "said": dict(self.said or {}),
            "need": self.need,
            "about": self.about,
        }


def parse_planned_turn(data: Mapping[str, Any]) -> PlannedTurn:
    return PlannedTurn(
        **{**data, "calls": tuple(PlannedCall(**c) for c in data["calls"]), "results": tuple(data["results"])}
    )


class ConversationPlan(NamedTuple):
    offered: list[str]
    world: dict[str, Any]
    wishes: list[PlannedTurn]


def draw_plan(
    rng: Random, fitting: Sequence[str], kinds: Sequence[TurnKind], count: int, domain: Domain = EVERYTHING
) -> ConversationPlan:
    """Tools to offer, at most `count` unless the kinds need more, a world for them, and a turn for each of `kinds`.

    Only fitting tools are called. No turn repeats a call, books the time of another, or fails with a thing that an earlier turn
    looked up. Where no tool can serve a kind, the turn is a plain call.
    """
    offered = _draw_offered_tools(rng, fitting, kinds, count)
    sections = [name for name in WORLD_SECTIONS if any(name in SIMULATED_TOOLS[tool].sections for tool in offered)]
    world = draw_world(rng, sections, domain)
    tools = {name: SIMULATED_TOOLS[name] for name in offered}
    fitting_tools = {name: tool for name, tool in tools.items() if name in fitting}
    wishes: list[PlannedTurn] = []
    now: WorldState = world
    for kind in kinds:
        # After an `ask`, the user has stated the missing argument, and its call follows.
        if wishes and wishes[-1].kind == "ask":
            wish = PlannedTurn("call", wishes[-1].calls)
        else:
            wish = _draw_new_turn(rng, kind, fitting_tools, now, wishes, domain)
        if wish.kind not in KINDS_WITHOUT_CALL:
            results = []
            for call in wish.calls:
                result, now = run_tool(now, tools, call.name, call.arguments)
                results.append(result)
            wish = replace(wish, results=tuple(results))
        wishes.append(wish)
    # The call that an `ask` is about belongs to the turn after it.
    planned = [replace(wish, calls=()) if wish.kind == "ask" else wish for wish in wishes]
    return ConversationPlan(offered, world, planned)


def _draw_offered_tools(rng: Random, fitting: Sequence[str], kinds: Sequence[TurnKind], count: int) -> list[str]:
    """Those that the kinds need, then such as fit the scenario, and now and then another that nobody needs."""
    needed: list[str] = []
    pairs = [pair for pair in TOOL_CHAINS if set(pair) <= set(fitting)]
    if "chain" in kinds and pairs:
        needed += rng.choice(pairs)
    able = {
        "parallel": [name for name in fitting if SIMULATED_TOOLS[name].label],
        "error": [name for name in fitting if SIMULATED_TOOLS[name].fail],
        "ask": [name for name in fitting if SIMULATED_TOOLS[name].asked],
    }
    needed += [rng.choice(names) for kind, names in able.items() if kind in kinds and names]
    rest = [name for name in rng.sample(fitting, len(fitting)) if name not in needed]
    others = [name for name in SIMULATED_TOOLS if name not in {*needed, *rest}]
    if others and rng.random() < 0.3:
        rest.insert(2, rng.choice(others))
    chosen = list(dict.fromkeys(needed))
    chosen += rest[: max(0, count - len(chosen))]
    return rng.sample(chosen, len(chosen))


def _draw_new_turn(
    rng: Random,
    kind: TurnKind,
    tools: Mapping[str, SimulatedTool],
    world: WorldState,
    before: Sequence[PlannedTurn],
    domain: Domain,
) -> PlannedTurn:
    """A turn without results that is not about the things of the turns before."""
    calls = [call for earlier in before for call in earlier.calls]
    moments = [moment for call in calls for moment in _list_moments(call)]
    known = {thing for call in calls for thing in _list_things(call, failing=kind == "error")}
    needs = {earlier.need for earlier in before}
    wish = PlannedTurn(kind)
    for attempt in range(MAX_DRAWS):
        wish = _draw_turn(rng, kind, tools, world, before, domain, any_tool=attempt >= MAX_DRAWS // 2)
        things = {thing for call in wish.calls for thing in _list_things(call, failing=kind == "error")}
        close = any(
            day == other and abs(minute - taken) < MIN_GAP
            for call in wish.calls
            for day, minute in _list_moments(call)
            for other, taken in moments
        )
        if not things & known and not close and not (wish.need and wish.need in needs):
            break
    purposes = SIMULATED_TOOLS[wish.calls[0].name].purposes if wish.calls else None
    return replace(wish, about=rng.choice([*purposes(world, **wish.calls[0].arguments)] or [""])) if purposes else wish


def _list_things(call: PlannedCall, *, failing: bool) -> list[str]:
    """What a call must not share with an earlier one: the names in its arguments, or all arguments where there are none.

    A product that was looked up may be ordered; but with a call that fails, no tool may have had the thing before.
    """
    names = [str(call.arguments[key]) for key in THING_KEYS if key in call.arguments]
    return [name if failing else f"{call.name} {name}" for name in names or [dump_json(call.arguments)]]


def _list_moments(call: PlannedCall) -> list[tuple[str, int]]:
    """The day and minute that a call books: the start of an event, or the time of a reminder."""
    when = call.arguments.get("when", call.arguments)
    clock = when.get("start", when.get("time"))
    booked = call.name in ("add_event", "set_reminder") and "day" in when and clock
    return [(when["day"], parse_minutes(clock))] if booked else []


def _draw_turn(
    rng: Random,
    kind: TurnKind,
    tools: Mapping[str, SimulatedTool],
    world: WorldState,
    before: Sequence[PlannedTurn],
    domain: Domain,
    *,
    any_tool: bool,
) -> PlannedTurn:
    """A planned turn without results. `any_tool`: also of a tool that the plan has used once, where the rest have nothing new."""
    just_used = {call.name for earlier in before[-1:] for call in earlier.calls}
    used = Counter(name for earlier in before for name in {call.name for call in earlier.calls})
    done = {
        tuple(dict.fromkeys(call.name for call in earlier.calls))
        for earlier in before
        if earlier.kind == kind and kind in ONCE_WITH_A_TOOL
    }

    def able(can: Callable[[SimulatedTool], object]) -> SimulatedTool | None:
        """A suitable tool, of those that the plan has used least, and preferably not the last one."""
        some = [tool for tool in tools.values() if can(tool) and (tool.name,) not in done]
        ranks = [
            (used[tool.name] // 2, False) if any_tool else (used[tool.name], tool.name in just_used) for tool in some
        ]
        return (
            rng.choice([tool for tool, rank in zip(some, ranks, strict=True) if rank == min(ranks)]) if some else None
        )

    if kind == "outside":
        usual = domain.tools or SIMULATED_TOOLS
        missing = [SIMULATED_TOOLS[name].need for name in usual if name not in tools and SIMULATED_TOOLS[name].sections]
        return PlannedTurn("outside", need=rng.choice(missing if missing and rng.random() < 0.4 else domain.needs))
    if kind == "ask" and (tool := able(lambda tool: tool.asked)):
        whole, forgotten = tool.draw(world, rng), rng.choice([*tool.asked])
        said = {name: value for name, value in whole.items() if name != forgotten}
        return PlannedTurn("ask", (PlannedCall(tool.name, whole),), tool=tool.name, missing=forgotten, said=said)
    if kind == "error" and (tool := able(lambda tool: tool.fail)) and tool.fail:
        return PlannedTurn("error", (PlannedCall(tool.name, tool.fail(world, rng)),))
    if kind == "parallel" and (tool := able(lambda tool: tool.label)):
        turn = _draw_parallel_turn(rng, tool, world)
        if turn.kind == "parallel" or not any_tool:
            return turn
    if kind == "chain" and (chain := _draw_chain_turn(rng, tools, world, done)):
        return chain
    done.clear()
    chosen = able(lambda _: True)
    assert chosen is not None
    return PlannedTurn("call", (PlannedCall(chosen.name, chosen.draw(world, rng)),))


def _draw_parallel_turn(rng: Random, tool: SimulatedTool, world: WorldState) -> PlannedTurn:
    """Two calls of one tool that differ in the label of their results."""
    first = tool.draw(world, rng)
    for _ in range(20):
        second = {**first, tool.label: tool.draw(world, rng)[tool.label]}
        right = "error" not in run_tool(world, {tool.name: tool}, tool.name, second).result
        right = right and (tool.plausible is None or tool.plausible(world, **second))
        if right and second[tool.label] not in first.values():
            return PlannedTurn("parallel", (PlannedCall(tool.name, first), PlannedCall(tool.name, second)))
    return PlannedTurn("call", (PlannedCall(tool.name, first),))


def _draw_chain_turn(
    rng: Random, tools: Mapping[str, SimulatedTool], world: WorldState, done: Collection[tuple[str, ...]]
) -> PlannedTurn | None:
    pairs = [pair for pair in TOOL_CHAINS if pair[0] in tools and pair[1] in tools and pair not in done]
    if not pairs:
        return None
    first_tool, second_tool = rng.choice(pairs)
    for _ in range(10):
        first = tools[first_tool].draw(world, rng)
        result = run_tool(world, tools, first_tool, first).result
        if "error" not in result and (second := TOOL_CHAINS[first_tool, second_tool].link(world, first, result, rng)):
            return PlannedTurn("chain", (PlannedCall(first_tool, first), PlannedCall(second_tool, second)))
    return None


def describe_turn(wish: PlannedTurn) -> str:
    """The description of a turn for the generator, with calls and results as JSON, one per line."""
    calls = "".join(
        f"\n- {call.name} {dump_json(call.arguments)} returns {dump_json(result)}"
        for call, result in zip(wish.calls, wish.results, strict=True)
    )
    about = f" It is about {wish.about}." if wish.about else ""
    match wish.kind:
        case "ask":
            intro = f" The user tells {dump_json(wish.said)} and" if wish.said else " The user"
            return (
                f"no call. The user wants {SIMULATED_TOOLS[wish.tool].need}.{about}{intro} forgets to tell `{wish.missing}`; "
                "the assistant asks for it."
            )
        case "outside":
            return (
                f"no call. The user wants {wish.need}, and says what for or with which detail of their own. None of the tools "
                "can do that, and the assistant says that it cannot."
            )
        case "chain":
            pair = (wish.calls[0].name, wish.calls[1].name)
            asked = f" The user asks for {TOOL_CHAINS[pair].asked}." if pair in TOOL_CHAINS else ""
            return (
                "two calls, one after the other; what the second takes from the first, the user cannot know."
                f"{asked}{about}{calls}"
            )
        case "parallel":
            return f"two calls at once.{about}{calls}"
        case "error":
            return f"one call that fails; the assistant says what is wrong and that it could not be done.{about}{calls}"
    return f"one call.{about}{calls}"


def dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def is_same_call(wanted: PlannedCall, name: str, arguments: ToolArguments) -> bool:
    """Whether a call is the wanted one: case is ignored, 2 equals 2.0, true differs from 1."""
    return wanted.name == name and _is_same_value(wanted.arguments, arguments)


def _is_same_value(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_is_same_value(left[key], right[key]) for key in left)
    if isinstance(left, str) and isinstance(right, str):
        return left.strip().casefold() == right.strip().casefold()
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
