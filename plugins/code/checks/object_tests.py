"""Tests of a class as calls of one function: a test function that makes an object and calls its methods becomes, for each of its
asserts, a call of the class with all that comes before. Knows no result and no sandbox.

`box = Box(3)`, `box.put('a')`, `assert box.take() == 'a'` is read as `Box([{'put': (('a',), {})}], {'take': ((), {})}, 3)`, which
the function of `write_driver` carries out. A step is a dict, so that a generated input changes its values and not its method.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plugins.code.checks.function_calls import FunctionCall

DRIVER = "drive_object"
OBJECT_FORM = (
    "a test of a class is a function `test_…` with a line `NAME = CLASS(ARGUMENTS)`, then lines `NAME.METHOD(ARGUMENTS)`, "
    "`assert NAME.METHOD(ARGUMENTS) == VALUE`, `assert NAME.ATTRIBUTE == VALUE`, or `with pytest.raises(ERROR):` and one call"
)
ATTRIBUTE, RAISES = ".", "!"
"""Marks of a step that reads an attribute, and of one that returns the name of the exception that its call raises."""


class NoObjectTest(Exception):
    """A statement of another form; the argument is the statement."""


def write_driver(name: str) -> str:
    """The program's last lines: the function that makes an object, takes its steps, and returns the result of the last."""
    return f'''

def {DRIVER}(steps, last, *given, **named):
    thing = {name}(*given, **named)
    result = None
    for step in [*steps, last]:
        for key, (arguments, keywords) in step.items():
            part = getattr(thing, key.strip("{ATTRIBUTE}{RAISES}"))
            if key[0] == "{ATTRIBUTE}":
                result = part
            elif key[0] == "{RAISES}":
                try:
                    result = (part(*arguments, **keywords), None)[1]
                except Exception as error:
                    result = type(error).__name__
            else:
                result = part(*arguments, **keywords)
    return result
'''


def find_object(body: Sequence[ast.stmt]) -> ast.Call | None:
    """The call that makes the object, if these are the statements of a test of a class."""
    match [line for line in body if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))]:
        case [ast.Assign(targets=[ast.Name()], value=ast.Call(func=ast.Name()) as made), *_]:
            return made
    return None


def read_object_test(body: Sequence[ast.stmt]) -> Iterator[ast.Assert]:
    """The asserts of a test of a class, each with the call of the class in the place of the call of a method.

    Raises:
        NoObjectTest: with the first statement of another form.
    """
    steps: list[ast.expr] = []
    made, thing = find_object(body), ""
    assert made is not None, "the caller has found it"
    for line in body:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if value is made and _are_literal(
                [*made.args, *(keyword.value for keyword in made.keywords)]
            ):
                thing = name
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr(value=ast.Call() as call) if step := _read_step(call, thing):
                steps.append(step)
            case ast.With(
                items=[ast.withitem(ast.Call(func=ast.Attribute(attr="raises"), args=[ast.Name(id=error)]))],
                body=[ast.Expr(value=ast.Call() as call)],
            ) if step := _read_step(call, thing, RAISES):
                raised = ast.Compare(_call_class(made, steps, step), [ast.Eq()], [ast.Constant(error)])
                yield ast.copy_location(ast.Assert(ast.fix_missing_locations(raised)), line)
                steps.append(step)
            case ast.Assert():
                replaced = _MethodCalls(made, steps, thing)
                test = replaced.visit(line.test)
                if replaced.last is None:
                    raise NoObjectTest(line)
                yield ast.copy_location(ast.Assert(ast.fix_missing_locations(test)), line)
                steps.append(replaced.last)
            case _:
                raise NoObjectTest(line)


class _MethodCalls(ast.NodeTransformer):
    def __init__(self, made: ast.Call, steps: Sequence[ast.expr], thing: str) -> None:
        self.made, self.steps, self.thing = made, steps, thing
        self.last: ast.expr | None = None

    def generic_visit(self, node: ast.AST) -> ast.AST:
        step = _read_step(node, self.thing)
        if step is None:
            return super().generic_visit(node)
        self.last = step
        return _call_class(self.made, self.steps, step)


def _read_step(node: ast.AST, thing: str, mark: str = "") -> ast.expr | None:
    """A call of a method of the object `thing`, or an attribute of it, as a step."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method), args=given, keywords=named):
            key = f"{mark}{method}"
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            key, given, named = f"{ATTRIBUTE}{attribute}", [], []
        case _:
            return None
    if name != thing or not all(keyword.arg for keyword in named):
        return None
    if not _are_literal([*given, *(keyword.value for keyword in named)]):
        return None
    keywords = ast.Dict([ast.Constant(keyword.arg) for keyword in named], [keyword.value for keyword in named])
    return ast.Dict([ast.Constant(key)], [ast.Tuple([ast.Tuple(given, ast.Load()), keywords], ast.Load())])


def _are_literal(values: Sequence[ast.expr]) -> bool:
    try:
        ast.literal_eval(ast.Tuple([*values], ast.Load()))
    except (ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True


def _call_class(made: ast.Call, steps: Sequence[ast.expr], last: ast.expr) -> ast.Call:
    return ast.Call(made.func, [ast.List([*steps], ast.Load()), last, *made.args], made.keywords)


def describe_calls(call: FunctionCall, name: str) -> str:
    """A call of the class `name` as the lines of a test, the last one with its result."""
    steps, last, *given = call.arguments
    thing = name.lower()
    lines = [f"{thing} = {FunctionCall(tuple(given), call.named).text(name)}"]
    for step in [*steps, last]:
        lines += [_describe_step(thing, key, values) for key, values in step.items()]
    return "; ".join(lines)


def _describe_step(thing: str, key: str, values: tuple[tuple[Any, ...], Mapping[str, Any]]) -> str:
    name = f"{thing}.{key.strip(ATTRIBUTE + RAISES)}"
    return name if key[0] == ATTRIBUTE else FunctionCall(*values).text(name)


def forget_steps(call: FunctionCall) -> FunctionCall:
    """The last step alone, on a new object."""
    return FunctionCall(([], *call.arguments[1:]), call.named)
