"""The plan of a conversation's turns: drawn calls with results of the simulated tools, and turns without a call.

Knows no teacher: the generator receives the plan, and checks compare the conversation with it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal, NamedTuple

from agents.families.tools import SIMULATED_TOOLS, TOOL_CHAINS
from agents.families.tools.simulated_tool import SimulatedTool, ToolArguments, WorldState, run_tool
from agents.families.tools.simulated_world import WORLD_SECTIONS, draw_world

TurnKind = Literal["call", "chain", "parallel", "error", "ask", "outside"]
KINDS_WITHOUT_CALL: tuple[TurnKind, ...] = ("ask", "outside")
"""Turns in which no tool is called: a required argument is missing, or no tool fits."""
UNSERVED_NEEDS = (
    "a table booked in a restaurant", "the score of last night's match", "a photo made brighter", "a taxi to come",
    "a song played", "an e-mail sent to a colleague", "the opening hours of a museum", "a doctor's advice about a rash",
    "the lights in the living room switched off", "the latest news", "a film recommended that is in the cinemas now",
    "the tracking of a parcel", "a concert ticket bought", "a phone number found", "the meaning of a dream",
)  # fmt: skip
"""Requests that no tool can fulfil."""


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

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "calls": [call._asdict() for call in self.calls],
            "results": list(self.results),
            "tool": self.tool,
            "missing": self.missing,
            "said": dict(self.said or {}),
            "need": self.need,
        }


def parse_planned_turn(data: Mapping[str, Any]) -> PlannedTurn:
    return PlannedTurn(
        **{**data, "calls": tuple(PlannedCall(**c) for c in data["calls"]), "results": tuple(data["results"])}
    )


class ConversationPlan(NamedTuple):
    offered: list[str]
    world: dict[str, Any]
    wishes: list[PlannedTurn]


def draw_plan(rng: Random, fitting: Sequence[str], kinds: Sequence[TurnKind], count: int) -> ConversationPlan:
    """Tools to offer, at most `count` unless the kinds need more, a world for them, and a turn for each of `kinds`.

    Where no offered tool can serve a kind, the turn is a plain call.
    """
    offered = _draw_offered_tools(rng, fitting, kinds, count)
    world = draw_world(
        rng, [name for name in WORLD_SECTIONS if any(name in SIMULATED_TOOLS[tool].sections for tool in offered)]
    )
    tools = {name: SIMULATED_TOOLS[name] for name in offered}
    wishes: list[PlannedTurn] = []
    now: WorldState = world
    for kind in kinds:
        # After an `ask`, the user has stated the missing argument, and its call follows.
        wish = PlannedTurn("call", wishes[-1].calls) if wishes and wishes[-1].kind == "ask" else None
        wish = wish or _draw_turn(
            rng, kind, tools, now, {call.name for earlier in wishes[-1:] for call in earlier.calls}
        )
        if wish.kind not in KINDS_WITHOUT_CALL:
            results = []
            for call in wish.calls:
                result, now = run_tool(now, tools, call.name, call.arguments)
                results.append(result)
            wish = PlannedTurn(wish.kind, wish.calls, tuple(results))
        wishes.append(wish)
    # The call that an `ask` is about belongs to the turn after it.
    planned = [replace(wish, calls=()) if wish.kind == "ask" else wish for wish in wishes]
    return ConversationPlan(offered, world, planned)


def _draw_offered_tools(rng: Random, fitting: Sequence[str], kinds: Sequence[TurnKind], count: int) -> list[str]:
    """Those that the kinds need, then mostly such as fit the scenario, and now and then another."""
    needed: list[str] = []
    if "chain" in kinds:
        pairs = [pair for pair in TOOL_CHAINS if pair[0] in fitting] or [*TOOL_CHAINS]
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
        rest.insert(1, rng.choice(others))
    chosen = list(dict.fromkeys(needed))
    chosen += rest[: max(0, count - len(chosen))]
    return rng.sample(chosen, len(chosen))


def _draw_turn(
    rng: Random, kind: TurnKind, tools: Mapping[str, SimulatedTool], world: WorldState, just_used: set[str]
) -> PlannedTurn:
    """A planned turn without results."""

    def able(can: Callable[[SimulatedTool], object]) -> SimulatedTool | None:
        """A suitable tool, preferably not the last one used."""
        some = [tool for tool in tools.values() if can(tool)]
        unused = [tool for tool in some if tool.name not in just_used]
        return rng.choice(unused or some) if some else None

    if kind == "outside":
        missing = [tool.need for tool in SIMULATED_TOOLS.values() if tool.name not in tools and tool.sections]
        need = rng.choice(missing) if missing and rng.random() < 0.5 else rng.choice(UNSERVED_NEEDS)
        return PlannedTurn("outside", need=need)
    if kind == "ask" and (tool := able(lambda tool: tool.asked)) and tool.asked:
        whole, forgotten = tool.draw(world, rng), rng.choice([*tool.asked])
        said = {name: value for name, value in whole.items() if name != forgotten}
        return PlannedTurn("ask", (PlannedCall(tool.name, whole),), tool=tool.name, missing=forgotten, said=said)
    if kind == "error" and (tool := able(lambda tool: tool.fail)) and tool.fail:
        return PlannedTurn("error", (PlannedCall(tool.name, tool.fail(world, rng)),))
    if kind == "parallel" and (tool := able(lambda tool: tool.label)):
        return _draw_parallel_turn(rng, tool, world)
    if kind == "chain" and (chain := _draw_chain_turn(rng, tools, world)):
        return chain
    chosen = able(lambda _: True)
    assert chosen is not None
    return PlannedTurn("call", (PlannedCall(chosen.name, chosen.draw(world, rng)),))


def _draw_parallel_turn(rng: Random, tool: SimulatedTool, world: WorldState) -> PlannedTurn:
    """Two calls of one tool that differ in the label of their results."""
    assert tool.label is not None
    first = tool.draw(world, rng)
    for _ in range(20):
        second = {**first, tool.label: tool.draw(world, rng)[tool.label]}
        right = "error" not in run_tool(world, {tool.name: tool}, tool.name, second).result
        if right and second[tool.label] not in first.values():
            return PlannedTurn("parallel", (PlannedCall(tool.name, first), PlannedCall(tool.name, second)))
    return PlannedTurn("call", (PlannedCall(tool.name, first),))


def _draw_chain_turn(rng: Random, tools: Mapping[str, SimulatedTool], world: WorldState) -> PlannedTurn | None:
    pairs = [pair for pair in TOOL_CHAINS if pair[0] in tools and pair[1] in tools]
    if not pairs:
        return None
    first_tool, second_tool = rng.choice(pairs)
    for _ in range(10):
        first = tools[first_tool].draw(world, rng)
        result = run_tool(world, tools, first_tool, first).result
        if "error" not in result and (second := TOOL_CHAINS[first_tool, second_tool](first, result, rng)):
            return PlannedTurn("chain", (PlannedCall(first_tool, first), PlannedCall(second_tool, second)))
    return None


def describe_turn(wish: PlannedTurn) -> str:
    """The description of a turn for the generator, with calls and results as JSON, one per line."""
    calls = "".join(
        f"\n- {call.name} {dump_json(call.arguments)} returns {dump_json(result)}"
        for call, result in zip(wish.calls, wish.results, strict=True)
    )
    match wish.kind:
        case "ask":
            intro = f" The user tells {dump_json(wish.said)} and" if wish.said else " The user"
            return (
                f"no call. The user wants {SIMULATED_TOOLS[wish.tool].need}.{intro} forgets to tell `{wish.missing}`; "
                "the assistant asks for it."
            )
        case "outside":
            return f"no call. The user wants {wish.need}. None of the tools can do that, and the assistant says that it cannot."
        case "chain":
            return f"two calls, one after the other; what the second takes from the first, the user cannot know.{calls}"
        case "parallel":
            return f"two calls at once.{calls}"
        case "error":
            return f"one call that fails; the assistant says what is wrong and that it could not be done.{calls}"
    return f"one call.{calls}"


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
