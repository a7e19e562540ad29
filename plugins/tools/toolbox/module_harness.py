"""The program that runs a module of tools inside the sandbox: it describes the tools, and calls them one after the other.

It runs as a file of its own with the standard library. The module's state lives as long as this process: `make_world`, then
each call.
"""

import collections.abc
import enum
import json
import os
import random
import signal
import sys
import types
import typing
from typing import Any

MAX_TEXT = 20_000
"""Characters of one result that leave the sandbox."""
WORLD = "world"
"""The first parameter of a tool that works on the sample's world."""
OPTIONAL_FUNCTIONS = ("make_world", "describe_world")
SIMPLE_TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class UnusableFunction(Exception):
    """A function that cannot be a tool; the text begins with a verb."""


def _load_module(source: str, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    return module


def _list_functions(module: types.ModuleType) -> dict[str, Any]:
    """The functions that are tools: those of `__all__`, or all public functions that the module itself defines."""
    names = getattr(module, "__all__", None)
    if names is not None:
        return {name: getattr(module, name) for name in names if name not in OPTIONAL_FUNCTIONS}
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, types.FunctionType) and value.__module__ == module.__name__ and not name.startswith("_")
        and name not in OPTIONAL_FUNCTIONS
    }  # fmt: skip


def _describe_tool(name: str, function: Any) -> dict[str, Any]:
    """A function's name, description and JSON schema. Raises UnusableFunction."""
    import inspect

    summary, notes = _read_docstring(inspect.getdoc(function) or "")
    if not summary:
        raise UnusableFunction("has no docstring; its first paragraph is the tool's description")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise UnusableFunction(f"has type hints that cannot be read: {error}") from None
    properties, required = {}, []
    for parameter in list_parameters(function):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UnusableFunction(f"has the parameter `{parameter}`; a tool's arguments are passed by name")
        if parameter.name not in hints:
            raise UnusableFunction(f"has no type hint for `{parameter.name}`")
        schema = _build_schema(hints[parameter.name], parameter.name)
        if parameter.name in notes:
            schema = {**schema, "description": notes[parameter.name]}
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        properties[parameter.name] = schema
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": name, "description": summary, "parameters": parameters}


def list_parameters(function: Any) -> list[Any]:
    """The parameters that an assistant fills in."""
    import inspect

    parameters = list(inspect.signature(function).parameters.values())
    return parameters[1:] if parameters and parameters[0].name == WORLD else parameters


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph, and the lines of the section `Args:` by parameter."""
    notes: dict[str, str] = {}
    section = current = ""
    for line in text.splitlines():
        if line.strip() in ("Args:", "Arguments:", "Parameters:"):
            section = "args"
        elif line.strip() and not line.startswith(" "):
            section = ""
        elif section and line.strip():
            name, colon, note = line.strip().partition(":")
            if colon and name.split("(")[0].strip().isidentifier() and not line.startswith("        "):
                current = name.split("(")[0].strip()
                notes[current] = note.strip()
            elif current:
                notes[current] = f"{notes[current]} {line.strip()}".strip()
    return " ".join(text.split("\n\n")[0].split()), notes


def _build_schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type hint. Raises UnusableFunction for types that JSON does not have."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in SIMPLE_TYPES:
        return {"type": SIMPLE_TYPES[hint]}
    if origin is typing.Annotated:
        notes = [note for note in arguments[1:] if isinstance(note, str)]
        return {**_build_schema(arguments[0], where), **({"description": notes[0]} if notes else {})}
    if origin is typing.Literal:
        kinds = {SIMPLE_TYPES.get(type(value)) for value in arguments}
        return {**({"type": kinds.pop()} if len(kinds) == 1 else {}), "enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_build_schema(one, where) for one in arguments]}
    if origin in (list, collections.abc.Sequence, collections.abc.Iterable) or (
        origin is tuple and arguments[1:] == (...,)
    ):
        return {"type": "array", "items": _build_schema(arguments[0], where)}
    if origin in (dict, collections.abc.Mapping) and arguments[0] is str:
        return {"type": "object", "additionalProperties": _build_schema(arguments[1], where)}
    if typing.is_typeddict(hint):
        fields = typing.get_type_hints(hint, include_extras=True)
        properties = {name: _build_schema(inner, f"{where}.{name}") for name, inner in fields.items()}
        required = [name for name in fields if name in hint.__required_keys__]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    shown = getattr(hint, "__name__", str(hint)) if not isinstance(hint, enum.EnumMeta) else f"the enum {hint.__name__}"
    raise UnusableFunction(
        f"has the type {shown} for `{where}`; use str, int, float, bool, list[…], dict[str, …], Literal[…], a TypedDict, or "
        "`| None`"
    )


def _takes_world(function: Any) -> bool:
    """Whether the first parameter is the world."""
    if isinstance(function, types.FunctionType) and not vars(function):
        code = function.__code__
        return code.co_varnames[: min(code.co_argcount, 1)] == (WORLD,)
    import inspect  # slow to import, and a plain function says it itself

    return list(inspect.signature(function).parameters)[:1] == [WORLD]


def call_tool(function: Any, world: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a call returns or raises, as text."""
    try:
        value = function(world, **arguments) if _takes_world(function) else function(**arguments)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        return {"text": text[:MAX_TEXT], "failed": False}
    except BaseException as error:
        return {"text": _describe_tool_error(error)[:MAX_TEXT], "failed": True}


def _describe_tool_error(error: BaseException) -> str:
    """The message of an error that the module raises on purpose; another one with its type."""
    try:
        message = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
        if message and (
            isinstance(error, ValueError | LookupError) or type(error).__module__ not in ("builtins", "json")
        ):
            return message
        return f"{type(error).__name__}: {message}".rstrip(": ")
    except BaseException:
        return type(error).__name__


def _run_module_steps(text: str) -> None:
    """Do the work of this sandbox; print a line for each step, after the token. A step out of time ends the process."""
    work = json.loads(text)
    output, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)

    def report(step: dict[str, Any]) -> None:
        os.write(output, f"{work['token']}{json.dumps(step)}\n".encode())

    random.seed(work["seed"])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, work["seconds"])
    world = None
    try:
        module = _load_module(work["module"], work["name"])
        functions = _list_functions(module)
        if not work["describe"] and hasattr(module, "make_world"):
            world = module.make_world(work["seed"])
    except BaseException as error:
        report({"fault": f"{type(error).__name__}: {error}"[:500]})
        return
    report({"ready": True})
    if work["describe"]:
        for name, function in functions.items():
            try:
                report(_describe_tool(name, function) if work["derive"] else {"name": name})
            except UnusableFunction as error:
                report({"name": name, "fault": str(error)})
        return
    if work["world"]:
        shown = (
            call_tool(module.describe_world, world, {})
            if hasattr(module, "describe_world")
            else {"text": "", "failed": False}
        )
        report(shown)
    for name, arguments in work["calls"]:
        signal.setitimer(signal.ITIMER_REAL, work["seconds"])
        report(call_tool(functions[name], world, arguments))
