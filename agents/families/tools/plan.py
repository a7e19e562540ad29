"""What the turns of a conversation are to be: drawn calls that the simulated tools have answered, and turns without a call.

Knows no teacher: the plan is what the generator is told and what checks hold it to.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

from agents.families.tools import CHAINS, TOOLS, Arguments, Tool, World, draw_world, run_tool
from agents.families.tools.world import SECTIONS

Kind = Literal["call", "chain", "parallel", "error", "ask", "outside"]
WITHOUT: tuple[Kind, ...] = ("ask", "outside")
"""Turns in which no tool is called: a required argument is missing, or no tool fits."""
NEEDS = (
    "a table booked in a restaurant", "the score of last night's match", "a photo made brighter", "a taxi to come",
    "a song played", "an e-mail sent to a colleague", "the opening hours of a museum", "a doctor's advice about a rash",
    "the lights in the living room switched off", "the latest news", "a film recommended that is in the cinemas now",
    "the tracking of a parcel", "a concert ticket bought", "a phone number found", "the meaning of a dream",
)  # fmt: skip
"""What none of the tools can do, whatever is offered."""


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What one turn is to be."""

    kind: Kind
    calls: tuple[Call, ...] = ()
    results: tuple[dict[str, Any], ...] = ()
    tool: str = ""
    """Which tool an `ask` is about."""
    missing: str = ""
    """The required argument that the user forgets."""
    said: Mapping[str, Any] | None = None
    """The other arguments of an `ask`, which the user tells."""
    need: str = ""
    """What the user of an `outside` turn wants."""

    def as_data(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "calls": [call._asdict() for call in self.calls],
            "results": list(self.results),
            "tool": self.tool,
            "missing": self.missing,
            "said": dict(self.said or {}),
            "need": self.need,
        }


def wish_of(data: Mapping[str, Any]) -> Wish:
    return Wish(**{**data, "calls": tuple(Call(**c) for c in data["calls"]), "results": tuple(data["results"])})


class Drawn(NamedTuple):
    offered: list[str]
    world: dict[str, Any]
    wishes: list[Wish]


def draw_plan(rng: Random, fitting: Sequence[str], kinds: Sequence[Kind], count: int) -> Drawn:
    """Tools to offer, at most `count` unless the kinds need more, a world for them, and a wish for each of `kinds`.

    Where no offered tool can serve a kind, the turn is a plain call.
    """
    offered = _offered(rng, fitting, kinds, count)
    world = draw_world(rng, [name for name in SECTIONS if any(name in TOOLS[tool].sections for tool in offered)])
    tools = {name: TOOLS[name] for name in offered}
    wishes: list[Wish] = []
    now: World = world
    for kind in kinds:
        wish = _answer_to(wishes[-1]) if wishes and wishes[-1].kind == "ask" else None
        wish = wish or _wish(rng, kind, tools, now, {call.name for one in wishes[-1:] for call in one.calls})
        wish, now = _played(wish, tools, now)
        wishes.append(wish)
    return Drawn(offered, world, [_public(wish) for wish in wishes])


def _offered(rng: Random, fitting: Sequence[str], kinds: Sequence[Kind], count: int) -> list[str]:
    """Those that the kinds need, then mostly such as fit the scenario, and now and then another."""
    needed: list[str] = []
    if "chain" in kinds:
        pairs = [pair for pair in CHAINS if pair[0] in fitting] or [*CHAINS]
        needed += rng.choice(pairs)
    able = {
        "parallel": [name for name in fitting if TOOLS[name].label],
        "error": [name for name in fitting if TOOLS[name].fail],
        "ask": [name for name in fitting if TOOLS[name].asked],
    }
    needed += [rng.choice(names) for kind, names in able.items() if kind in kinds and names]
    rest = [name for name in rng.sample(fitting, len(fitting)) if name not in needed]
    others = [name for name in TOOLS if name not in {*needed, *rest}]
    if others and rng.random() < 0.3:
        rest.insert(1, rng.choice(others))
    chosen = list(dict.fromkeys(needed))
    chosen += rest[: max(0, count - len(chosen))]
    return rng.sample(chosen, len(chosen))


def _wish(rng: Random, kind: Kind, tools: Mapping[str, Tool], world: World, just_used: set[str]) -> Wish:
    """A wish without results; calls that hang on a result are added when that is there."""

    def able(can: Callable[[Tool], object]) -> Tool | None:
        """One of those that can, rather not the one that was just used."""
        some = [tool for tool in tools.values() if can(tool)]
        unused = [tool for tool in some if tool.name not in just_used]
        return rng.choice(unused or some) if some else None

    if kind == "outside":
        return Wish("outside", need=_need(rng, tools))
    if kind == "ask" and (tool := able(lambda tool: tool.asked)):
        return _asking(rng, tool, world)
    if kind == "error" and (tool := able(lambda tool: tool.fail)) and tool.fail:
        return Wish("error", (Call(tool.name, tool.fail(world, rng)),))
    if kind == "parallel" and (tool := able(lambda tool: tool.label)):
        return _side_by_side(rng, tool, world)
    if kind == "chain" and (found := _chained(rng, tools, world)):
        return found
    chosen = able(lambda _: True)
    assert chosen is not None
    return Wish("call", (Call(chosen.name, chosen.draw(world, rng)),))


def _need(rng: Random, tools: Mapping[str, Tool]) -> str:
    """Something that a tool does which is not offered, or that none does."""
    missing = [tool.need for tool in TOOLS.values() if tool.name not in tools and tool.sections]
    return rng.choice(missing) if missing and rng.random() < 0.5 else rng.choice(NEEDS)


def _asking(rng: Random, tool: Tool, world: World) -> Wish:
    assert tool.asked is not None
    whole, missing = tool.draw(world, rng), rng.choice([*tool.asked])
    said = {name: value for name, value in whole.items() if name != missing}
    return Wish("ask", (Call(tool.name, whole),), tool=tool.name, missing=missing, said=said)


def _answer_to(asking: Wish) -> Wish:
    """The call that an `ask` was about, when the user has told what was missing."""
    return Wish("call", asking.calls)


def _public(wish: Wish) -> Wish:
    """An `ask` without the call that it was about."""
    return Wish("ask", tool=wish.tool, missing=wish.missing, said=wish.said) if wish.kind == "ask" else wish


def _side_by_side(rng: Random, tool: Tool, world: World) -> Wish:
    """Two calls of one tool that differ in what the results are told apart by."""
    assert tool.label is not None
    first = tool.draw(world, rng)
    for _ in range(20):
        second = {**first, tool.label: tool.draw(world, rng)[tool.label]}
        right = "error" not in run_tool(world, {tool.name: tool}, tool.name, second).result
        if right and second[tool.label] not in first.values():
            return Wish("parallel", (Call(tool.name, first), Call(tool.name, second)))
    return Wish("call", (Call(tool.name, first),))


def _chained(rng: Random, tools: Mapping[str, Tool], world: World) -> Wish | None:
    pairs = [pair for pair in CHAINS if pair[0] in tools and pair[1] in tools]
    if not pairs:
        return None
    one, two = rng.choice(pairs)
    for _ in range(10):
        first = tools[one].draw(world, rng)
        result = run_tool(world, tools, one, first).result
        if "error" not in result and (second := CHAINS[one, two](first, result, rng)):
            return Wish("chain", (Call(one, first), Call(two, second)))
    return None


def _played(wish: Wish, tools: Mapping[str, Tool], world: World) -> tuple[Wish, World]:
    """The wish with the results of its calls, and the world after them; nothing is called for an `ask`."""
    if wish.kind in WITHOUT:
        return wish, world
    results = []
    for call in wish.calls:
        result, world = run_tool(world, tools, call.name, call.arguments)
        results.append(result)
    return Wish(wish.kind, wish.calls, tuple(results)), world


def in_words(wish: Wish) -> str:
    """What a generator is told of a turn, calls and results as JSON on a line each."""
    calls = "".join(
        f"\n- {call.name} {as_json(call.arguments)} returns {as_json(result)}"
        for call, result in zip(wish.calls, wish.results, strict=True)
    )
    match wish.kind:
        case "ask":
            said = f" The user tells {as_json(wish.said)} and" if wish.said else " The user"
            return (
                f"no call. The user wants {TOOLS[wish.tool].need}.{said} forgets to tell `{wish.missing}`; "
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


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def same_call(wanted: Call, name: str, arguments: Arguments) -> bool:
    """Whether a call is the one that was wanted; small and capital letters aside, 2 and 2.0 alike, true and 1 not."""
    return wanted.name == name and _same(wanted.arguments, arguments)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, str) and isinstance(right, str):
        return left.strip().casefold() == right.strip().casefold()
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
