"""Probes: further inputs for a function, made from the arguments of its tests. Knows no result and no sandbox.

They stay near what the tests use: same types, numbers between the smallest and the largest or next to a number of the
solution, lengths near theirs or next to such a number, strings of the same characters, equal row lengths and order where
all tests have them. An input from anywhere would often be one that the task does not allow, and what a function does there
is no fault of its tests.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from plugins.code.checks import call_harness
from plugins.code.checks.function_calls import FunctionCall

MAX_TRIES_FACTOR = 8
"""Tries for each wanted probe; a function without arguments, or with one of type bool, has few."""
MAX_CONSTANT = 10**6
MAX_TEXT_CHARACTERS, MAX_ITEMS = 2_000, 200
"""The longest strings and collections that grow further; beyond, a probe would measure time."""
REUSE, SECOND_CHANGE, LENGTH = 0.2, 0.4, 0.1
"""Probabilities of a value from another test in the place of a changed one, of one more change, and of a length next to a
number of the solution."""

ValuePath = tuple[Any, ...]
"""Where a value is inside an argument: the parameter, then a tuple's index, a dict's key, or `*` for an item of a list."""


class InputDomain(NamedTuple):
    """What the tests of a function give it, and the constants of its solution."""

    values: Mapping[ValuePath, list[Any]]
    numbers: Sequence[int]
    """Of the solution: a condition changes its side next to one of them."""
    characters: str
    """Of the solution's strings."""

    def contains(self, call: FunctionCall) -> bool:
        """Whether its numbers are between those of the tests, and it is empty only where a test is: beyond, a task may not allow
        it.
        """
        for name, argument in _list_arguments(call):
            for path, value in _iter_values(argument, (name,)):
                seen = self.values.get(path, [])
                if type(value) in (int, float):
                    numbers = [item for item in seen if type(item) in (int, float)]
                    if not numbers or not min(numbers) <= value <= max(numbers):
                        return False
                elif not value and isinstance(value, str | list | set | frozenset | dict) and value not in seen:
                    return False
        return True


def draw_probes(calls: Sequence[FunctionCall], tree: ast.Module, most: int, seed: str) -> list[FunctionCall]:
    """At most `most` different calls in none of `calls`, drawn by `seed`: first those in the domain of the tests, of these and of
    the others those that change least.
    """
    if not calls:
        return []
    rng, domain = Random(seed), read_domain(calls, tree)
    seen = {_call_key(call) for call in calls}
    probes: list[FunctionCall] = []
    for turn in range(MAX_TRIES_FACTOR * most):
        if len(probes) == most:
            break
        probe = _change_call(rng.choice(calls), domain, rng)
        while rng.random() < SECOND_CHANGE * turn / (MAX_TRIES_FACTOR * most):
            probe = _change_call(probe, domain, rng)
        try:
            key = _call_key(probe)
        except (call_harness.UnsupportedValue, ValueError):  # a number with too many digits
            continue
        if key not in seen:
            seen.add(key)
            probes.append(probe)
    return sorted(probes, key=lambda probe: not domain.contains(probe))


def _call_key(call: FunctionCall) -> str:
    return str(call_harness.encode_value([list(call.arguments), dict(call.named)], ordered=True))


def read_domain(calls: Sequence[FunctionCall], tree: ast.Module) -> InputDomain:
    values: dict[ValuePath, list[Any]] = defaultdict(list)
    for call in calls:
        for name, argument in _list_arguments(call):
            for path, value in _iter_values(argument, (name,)):
                values[path].append(value)
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    numbers = [value for value in _read_integers(tree) if abs(value) <= MAX_CONSTANT]
    return InputDomain(values, numbers, "".join(value for value in constants if isinstance(value, str))[:200])


def _read_integers(tree: ast.Module) -> list[int]:
    """The integers of a program; to Python -40 is the minus of 40."""
    nodes = list(ast.walk(tree))
    minuses = [node for node in nodes if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)]
    signs = {id(node.operand): -1 for node in minuses}
    return [
        signs.get(id(node), 1) * node.value
        for node in nodes
        if isinstance(node, ast.Constant) and type(node.value) is int
    ]


def _list_arguments(call: FunctionCall) -> list[tuple[Any, Any]]:
    return [*enumerate(call.arguments), *call.named.items()]


def _iter_values(value: Any, path: ValuePath) -> Iterator[tuple[ValuePath, Any]]:
    yield path, value
    if isinstance(value, list | set | frozenset):
        for item in value:
            yield from _iter_values(item, (*path, "*"))
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _iter_values(item, (*path, i))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _iter_values(item, (*path, f"={key}"))


def _change_call(call: FunctionCall, domain: InputDomain, rng: Random) -> FunctionCall:
    arguments = _list_arguments(call)
    if not arguments:
        return call
    name, value = rng.choice(arguments)
    changed = change_value(value, (name,), domain, rng)
    if isinstance(name, int):
        return FunctionCall((*call.arguments[:name], changed, *call.arguments[name + 1 :]), call.named)
    return FunctionCall(call.arguments, {**call.named, name: changed})


def change_value(value: Any, path: ValuePath, domain: InputDomain, rng: Random) -> Any:
    """A value of the same type near `value`; sometimes one that another test has at this place."""
    pool = domain.values.get(path, [])
    if pool and rng.random() < REUSE:
        return rng.choice(pool)
    match value:
        case bool():
            return not value
        case int():
            return _change_integer(value, pool, domain, rng)
        case float():
            return _change_float(value, pool, rng)
        case str():
            return _change_text(value, pool, domain, rng)
        case list():
            return _change_list(value, path, pool, domain, rng)
        case tuple() if value:  # a record: its length stays
            i = rng.randrange(len(value))
            return (*value[:i], change_value(value[i], (*path, i), domain, rng), *value[i + 1 :])
        case dict() if value:
            return _change_dict(value, path, domain, rng)
        case set() | frozenset():
            items = _change_items(sorted(value, key=repr), (*path, "*"), domain, rng)
            return type(value)(item for item in items if _is_hashable(item))
    return value


def _is_hashable(value: Any) -> bool:
    """Whether a set can contain it; a tuple with a list in it is none such."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _change_integer(value: int, pool: Sequence[Any], domain: InputDomain, rng: Random) -> int:
    seen = [item for item in pool if type(item) is int] or [value]
    low, high = min(seen), max(seen)
    near = [value + 1, value - 1]
    inside = [number for number in near if low <= number <= high + 1]
    between = rng.randint(low, high) if high - low < 10**15 else rng.choice(seen)
    boundaries = [number + step for number in domain.numbers for step in (-1, 0, 1)]
    return rng.choice([between, between, rng.choice(inside or near), rng.choice(boundaries or [between])])


def _change_float(value: float, pool: Sequence[Any], rng: Random) -> float:
    seen = [float(item) for item in pool if type(item) in (int, float) and abs(item) < 1e15] or [value]
    return rng.choice([round(rng.uniform(min(seen), max(seen)), 2), float(round(rng.uniform(min(seen), max(seen))))])


def _change_text(value: str, pool: Sequence[Any], domain: InputDomain, rng: Random) -> str:
    length = _draw_length(domain, rng) if value else None
    if length is not None:
        return (value * (length // len(value) + 1))[:length]
    characters = "".join(item for item in pool if isinstance(item, str))[:MAX_TEXT_CHARACTERS]
    own = rng.choice(characters) if characters else "a"
    other = rng.choice(domain.characters) if domain.characters and rng.random() < 0.3 else own
    at = rng.randrange(len(value)) if value else 0
    to = rng.randrange(at, len(value)) + 1 if value else 0
    separator = rng.choice([mark for mark in ("\n", " ", ",", ";") if mark in value] or [""])
    parts = value.split(separator) if separator else list(value)
    changes: list[Callable[[], str]] = [
        lambda: value[:at] + value[at + 1 :],
        lambda: value[:at] + other + value[at:],
        lambda: value[:at] + other + value[at + 1 :],
        lambda: value[:to] + value[at:to] + value[to:],
        lambda: value[:at] + value[at:to][::-1] + value[to:],
        lambda: value[at:to],
        lambda: value + separator + rng.choice([item for item in pool if isinstance(item, str)] or [own]),
        lambda: separator.join(_change_order(parts, rng)),
        lambda: separator.join(_change_order(parts, rng)),
        lambda: "",
    ]
    if any(character.islower() for character in characters) and any(character.isupper() for character in characters):
        changes.append(lambda: value[:at] + value[at:to].swapcase() + value[to:])
    return rng.choice(changes)()[:MAX_TEXT_CHARACTERS]


def _draw_length(domain: InputDomain, rng: Random) -> int | None:
    """Sometimes a length next to a number of the solution, as its conditions on a length have."""
    lengths = [number + step for number in domain.numbers for step in (-1, 0, 1) if 0 <= number + step <= MAX_ITEMS]
    return rng.choice(lengths) if lengths and rng.random() < LENGTH else None


def _change_order(items: Sequence[Any], rng: Random) -> list[Any]:
    """The items with one missing, doubled, or in the place of another."""
    if not items:
        return []
    i, j = rng.randrange(len(items)), rng.randrange(len(items))
    changed = list(items)
    match rng.randrange(3):
        case 0:
            del changed[i]
        case 1 if len(items) < MAX_ITEMS:
            changed.insert(j, items[i])
        case _:
            changed[i], changed[j] = changed[j], changed[i]
    return changed


def _change_list(value: list[Any], path: ValuePath, pool: Sequence[Any], domain: InputDomain, rng: Random) -> list[Any]:
    lists = [item for item in pool if isinstance(item, list)]
    length = _draw_length(domain, rng) if value else None
    if length is not None:
        changed = (value * (length // len(value) + 1))[:length]
    elif _are_rectangular(lists):
        return _change_rows(value, (*path, "*"), domain, rng)
    else:
        changed = _change_items(value, (*path, "*"), domain, rng)
    for backwards in (False, True):
        if _are_sorted(lists, backwards):
            return sorted(changed, reverse=backwards)
    return changed


def _change_items(items: Sequence[Any], path: ValuePath, domain: InputDomain, rng: Random) -> list[Any]:
    changed, pool = list(items), domain.values.get(path, [])
    match rng.randrange(6):
        case 0 | 1 if items:
            i = rng.randrange(len(items))
            changed[i] = change_value(items[i], path, domain, rng)
        case 2 if pool and len(items) < MAX_ITEMS:
            changed.insert(rng.randint(0, len(items)), rng.choice(pool))
        case 3 if rng.random() < 0.3:
            return []
        case 4 if items:
            i = rng.randrange(len(items))
            return changed[i : rng.randint(i, len(items))]
        case _:
            return _change_order(items, rng)
    return changed


def _are_rectangular(lists: Sequence[list[Any]]) -> bool:
    """Whether each of the lists has rows of one length, as a matrix has, and one of them more than one row."""
    tables = [rows for rows in lists if rows]
    if not any(len(rows) > 1 for rows in tables):
        return False
    if not all(isinstance(row, list | str) for rows in tables for row in rows):
        return False
    if all(isinstance(row, str) and " " in row for rows in tables for row in rows):
        return False
    return all(len({len(row) for row in rows}) == 1 for rows in tables) and any(len(rows[0]) > 1 for rows in tables)


def _are_sorted(lists: Sequence[list[Any]], backwards: bool) -> bool:
    """Whether all lists are in order, and at least two of them long enough to show it."""
    try:
        ordered = all(items == sorted(items, reverse=backwards) for items in lists)
    except TypeError:
        return False
    return ordered and sum(len({repr(item) for item in items}) > 2 for items in lists) >= 2


def _change_rows(rows: list[Any], path: ValuePath, domain: InputDomain, rng: Random) -> list[Any]:
    if not rows or not rows[0]:
        pool = domain.values.get(path, [])
        return [rng.choice(pool)] if pool else rows
    width = len(rows[0])
    column = rng.randrange(width)
    match rng.randrange(6):
        case 0:
            return _change_order(rows, rng)
        case 1 if width > 1:
            return [row[:column] + row[column + 1 :] for row in rows]
        case 2 if width < MAX_ITEMS:
            return [row[:column] + row[column : column + 1] + row[column:] for row in rows]
        case _:
            i, cell = rng.randrange(len(rows)), path
            row = rows[i]
            if isinstance(row, str):
                cells = "".join(item for item in domain.values.get(cell, []) if isinstance(item, str))
                new: Any = row[:column] + rng.choice(cells) + row[column + 1 :]
            else:
                changed = change_value(row[column], (*cell, "*"), domain, rng)
                new = [*row[:column], changed, *row[column + 1 :]]
            return [*rows[:i], new, *rows[i + 1 :]]


def _change_dict(value: dict[Any, Any], path: ValuePath, domain: InputDomain, rng: Random) -> dict[Any, Any]:
    key = rng.choice(list(value))
    changed = dict(value)
    match rng.randrange(4):
        case 0:
            del changed[key]
        case 1:
            other = rng.choice([item for item in domain.values.get(path, []) if isinstance(item, dict)] or [value])
            changed.update(other)
        case _:
            changed[key] = change_value(value[key], (*path, f"={key}"), domain, rng)
    return changed
