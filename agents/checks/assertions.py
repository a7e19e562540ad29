"""Tests as data: each assert becomes a call and an expected value, read here and never run. Knows no sandbox.

A solution that runs beside its tests can read them, patch them or end the process; of these it sees the arguments alone.
"""

import ast
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from agents.checks import harness
from agents.checks.calls import SHOWN, Call, Outcome, shown

FORM = (
    "each test is `assert f(ARGUMENTS) == VALUE` with literal arguments and a literal value; for floats "
    "`assert f(ARGUMENTS) == pytest.approx(VALUE)` or `assert round(f(ARGUMENTS), 2) == VALUE`"
)
MAX_CHARACTERS, MAX_TESTS, MAX_DEPTH = 20_000, 40, 60
"""Python that people write is nested some 25 nodes deep; what follows the nesting is recursive."""
LOOSEST = 0.01
"""The widest tolerance, relative to the value or to 1, whichever is larger: a test that takes any number tests nothing."""
MODULES = {"pytest", "math", "solution"}
"""What tests may import; the imports are skipped, since nothing of the tests is run."""


class BadTests(ValueError):
    """Tests that cannot be read; the text says which line and what is allowed."""


class Case(NamedTuple):
    line: int
    text: str
    """The call as it is written."""
    function: str
    call: Call
    expected: Any
    tolerance: float | None = None
    """How far a number may be from the expected one; with None it must be equal and of the same type."""
    strict: bool = False
    """Whether it must be nearer than that."""
    places: int | None = None
    """To so many decimals the number is rounded first."""

    @property
    def shown(self) -> str:
        """The call, cut where it is long."""
        return self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]}…"

    def fault(self, outcome: Outcome) -> str | None:
        """What is wrong with an outcome, in a sentence."""
        if outcome.fault:
            return f"`{self.shown}` {outcome.fault}"
        if self._meets(outcome.value):
            return None
        got = harness.read(outcome.value)
        alike = "; the types must be the same too" if got == self.expected else ""
        wanted = f"line {self.line} of the tests wants {shown(self.expected)}"
        return f"`{self.shown}` returns {shown(got)}, and {wanted}{alike}"

    def _meets(self, value: Any) -> bool:
        if self.tolerance is None and self.places is None:
            return bool(value == harness.written(self.expected))
        if value[0] not in ("int", "float"):
            return False
        number = harness.read(value)
        try:
            if self.places is not None:
                return bool(round(number, self.places) == self.expected)
            apart, allowed = abs(number - self.expected), self.tolerance or 0.0
            return bool(apart < allowed or (apart == allowed and not self.strict))
        except OverflowError:  # an integer beyond all floats
            return False


def parsed(source: str, what: str) -> ast.Module:
    """Python source as a tree, without a word of warning about it.

    Raises:
        BadTests: if it is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        raise BadTests(f"{what}: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadTests(f"{what}: cannot be read as Python: {error or type(error).__name__}") from None
    if _deeper_than(tree, MAX_DEPTH):
        raise BadTests(f"{what}: nested more than {MAX_DEPTH} levels deep; write it flatter")
    return tree


def _deeper_than(tree: ast.AST, most: int) -> bool:
    level = [tree]
    for _ in range(most):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return bool(level)


def cases_of(tests: str) -> list[Case]:
    """The cases of a text of tests, in their order.

    Raises:
        BadTests: naming the line that is of another form.
    """
    if len(tests) > MAX_CHARACTERS:
        raise BadTests(f"the tests have {len(tests):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    cases = [_case(statement) for statement in _asserts(parsed(tests, "the tests").body)]
    if len(cases) > MAX_TESTS:
        raise BadTests(f"there are {len(cases)} asserts; at most {MAX_TESTS} are allowed")
    functions = sorted({case.function for case in cases})
    if len(functions) > 1:
        raise BadTests(f"the tests call {' and '.join(functions)}; they must all call one function")
    return cases


def _asserts(body: Sequence[ast.stmt], inside: bool = False) -> Iterator[ast.Assert]:
    for statement in body:
        if isinstance(statement, ast.Assert):
            yield statement
        elif isinstance(statement, ast.FunctionDef) and not inside and _only_groups(statement):
            yield from _asserts(statement.body, inside=True)
        elif not _says_nothing(statement):
            raise _wrong(statement)


def _only_groups(function: ast.FunctionDef) -> bool:
    arguments = function.args
    bare = not (arguments.args or arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg)
    return function.name.startswith("test") and bare and not function.decorator_list


def _says_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import):
        return all(name.name in MODULES and not name.asname for name in statement.names)
    if isinstance(statement, ast.ImportFrom):
        return statement.module in MODULES and not any(name.asname for name in statement.names)
    text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return text or isinstance(statement, ast.Pass)


def _wrong(node: ast.stmt) -> BadTests:
    try:
        text = ast.unparse(node).splitlines()[0]
    except RecursionError:
        text = "it"
    return BadTests(f"line {node.lineno} of the tests, `{text[:80]}`, has another form: {FORM}")


class _NotOfTheForm(Exception):
    pass


def _case(statement: ast.Assert) -> Case:
    try:
        return _read(statement.test, statement.lineno)
    except (_NotOfTheForm, ValueError, TypeError, RecursionError, MemoryError, OverflowError):
        raise _wrong(statement) from None


def _read(test: ast.expr, line: int) -> Case:
    if isinstance(test, ast.Call) and not _is_name(test.func, "isclose", "math.isclose"):
        return _exact(test, line, True)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _exact(test.operand, line, False)
    if isinstance(test, ast.Call) and len(test.args) == 2:
        return _close(test.args[:1], test.args[1:2], line, _named(test, "rel_tol", 1e-9), _named(test, "abs_tol", 0.0))
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        raise _NotOfTheForm
    operator, left, right = test.ops[0], test.left, test.comparators[0]
    if isinstance(operator, ast.Lt | ast.LtE):
        return _within(left, right, line, isinstance(operator, ast.Lt))
    if isinstance(operator, ast.Is) and ast.unparse(right) in ("None", "True", "False"):
        return _exact(left, line, _literal(right))
    if isinstance(operator, ast.Eq):
        return _equality(left, right, line)
    raise _NotOfTheForm


def _equality(left: ast.expr, right: ast.expr, line: int) -> Case:
    if isinstance(left, ast.Call) and isinstance(right, ast.Call) and _is_name(right.func, "approx", "pytest.approx"):
        if len(right.args) != 1:
            raise _NotOfTheForm
        relative = 0.0 if any(keyword.arg == "abs" for keyword in right.keywords) else 1e-6
        return _close([left], right.args, line, _named(right, "rel", relative), _named(right, "abs", 1e-12))
    if not isinstance(left, ast.Call):
        left, right = right, left
    try:
        return _exact(left, line, _literal(right))
    except (_NotOfTheForm, ValueError):
        return _rounded(left, right, line)


def _exact(call: ast.expr, line: int, expected: Any) -> Case:
    text, function, read = _call(call)
    harness.written(expected)
    return Case(line, text, function, read, expected)


def _rounded(left: ast.expr, right: ast.expr, line: int) -> Case:
    expected = _number(right)
    if not isinstance(left, ast.Call) or not _is_name(left.func, "round") or len(left.args) != 2 or left.keywords:
        raise _NotOfTheForm
    places = _literal(left.args[1])
    if type(places) is not int or not 1 <= places <= 12:
        raise _NotOfTheForm
    return Case(line, *_call(left.args[0]), expected, places=places)


def _within(left: ast.expr, right: ast.expr, line: int, strict: bool) -> Case:
    """`abs(f(…) - VALUE) < TOLERANCE`, or `<=`."""
    if not isinstance(left, ast.Call) or not _is_name(left.func, "abs") or len(left.args) != 1:
        raise _NotOfTheForm
    difference = left.args[0]
    if not isinstance(difference, ast.BinOp) or not isinstance(difference.op, ast.Sub):
        raise _NotOfTheForm
    return _close([difference.left], [difference.right], line, 0.0, _number(right))._replace(strict=strict)


def _close(left: Sequence[ast.expr], right: Sequence[ast.expr], line: int, relative: float, absolute: float) -> Case:
    expected = _number(right[0]) if right else None
    if expected is None or not left:
        raise _NotOfTheForm
    tolerance = max(relative * abs(expected), absolute)
    if not 0 <= tolerance <= LOOSEST * max(1.0, abs(expected)):
        raise _NotOfTheForm
    return Case(line, *_call(left[0]), expected, tolerance=tolerance)


def _call(node: ast.expr) -> tuple[str, str, Call]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _NotOfTheForm
    arguments = tuple(map(_literal, node.args))
    named = {keyword.arg: _literal(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    if len(named) != len(node.keywords):
        raise _NotOfTheForm
    harness.written([arguments, named])
    return ast.unparse(node), node.func.id, Call(arguments, named)


def _named(call: ast.Call, name: str, default: float) -> float:
    return next((_number(keyword.value) for keyword in call.keywords if keyword.arg == name), default)


def _number(node: ast.expr) -> Any:
    value = _literal(node)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _NotOfTheForm
    return value


def _literal(node: ast.expr) -> Any:
    """Raises ValueError where it is none."""
    value = ast.literal_eval(node)
    _check_plain(value)
    return value


def _check_plain(value: Any) -> None:
    try:
        harness.written(value)
    except harness.Untellable:
        raise _NotOfTheForm from None


def _is_name(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in names


STUBS: dict[str, Callable[[Sequence[Case]], bool]] = {
    "returns one value whatever it is given": lambda cases: len({_key(case.expected) for case in cases}) == 1,
    "returns its first argument unchanged": lambda cases: all(_echoes(case) for case in cases),
}
"""What must not pass, and whether it would."""


def distinct(cases: Sequence[Case]) -> int:
    """How many different calls there are."""
    return len({_key([case.call.arguments, dict(case.call.named)]) for case in cases})


def vacuous(cases: Sequence[Case]) -> str | None:
    """Which stub would pass."""
    return next((stub for stub, passes in STUBS.items() if passes(cases)), None)


def _echoes(case: Case) -> bool:
    given = [*case.call.arguments, *case.call.named.values()][:1]
    return bool(given) and _key(given[0]) == _key(case.expected)


def _key(value: Any) -> str:
    return str(harness.written(value))
