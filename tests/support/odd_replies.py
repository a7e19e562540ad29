"""Replies with parts of other types, for the readers of every protocol: a reply, or InvalidCompletion and nothing else."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from core.config.teachers import TeacherConfig
from teachers.base import TeacherReply
from teachers.openai_chat import InvalidCompletion


class TestedReader(NamedTuple):
    __test__ = False

    recorded: Any
    """A response with the object `{"answer": "x"}`."""
    read: Callable[[str], TeacherReply]


def bind_reader(
    parse: Callable[..., TeacherReply], model: str, structured: str, *size: Any
) -> Callable[[str], TeacherReply]:
    table = {"model": model, "structured": structured}
    return lambda text: parse(text, *size, TeacherConfig.model_validate(table))


ODD = [None, True, 5, -1, 1e308, "", "refusal", "x", [], ["x"], {}, {"x": 1}, [[None]], "\ud800"]


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from list_paths(child, (*path, key))


def change(reply: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(reply)
    part = changed
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return changed


def check_reading(reader: Callable[[str], TeacherReply], text: str) -> None:
    try:
        reply = reader(text)
    except InvalidCompletion:
        return
    assert isinstance(reply, TeacherReply)
    reply.model_dump_json()


def check_one_odd_part(reader: TestedReader) -> None:
    assert json.loads(reader.read(json.dumps(reader.recorded)).text) == {"answer": "x"}
    for path in list_paths(reader.recorded):
        for value in ODD:
            check_reading(reader.read, json.dumps(change(reader.recorded, path, value)))


def check_several_odd_parts(reader: TestedReader, data: st.DataObject) -> None:
    reply = reader.recorded
    for _ in range(data.draw(st.integers(1, 4))):
        reply = change(reply, data.draw(st.sampled_from(list(list_paths(reply)))), data.draw(st.sampled_from(ODD)))
    check_reading(reader.read, json.dumps(reply))


def check_levels_and_digits(reader: TestedReader) -> None:
    for odd in ('{"a":' * 900 + "1" + "}" * 900, "[" * 5_000, "1e999", "1" * 5_000, "NaN"):
        for path in list_paths(reader.recorded):
            check_reading(reader.read, json.dumps(change(reader.recorded, path, "ODD")).replace('"ODD"', odd))
