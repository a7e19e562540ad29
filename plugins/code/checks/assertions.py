"""Tests as data: each assert becomes a call and an expected value, read here and never run. Knows no sandbox.

A solution that runs in one process with its tests can read them, patch them or end the process; here it sees only arguments.
"""

import ast
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from plugins.code.checks import call_harness
from plugins.code.checks.function_calls import MAX_SHOWN_CHARACTERS, CallOutcome, FunctionCall, short_repr
from plugins.code.checks.object_tests import OBJECT_FORM, NoObjectTest, describe_calls, find_object, read_object_test

ASSERT_FORM = (
    "each test is `assert f(ARGUMENTS) == VALUE` with literal arguments and a literal value; for floats "
    "`assert f(ARGUMENTS) == pytest.approx(VALUE)` or `assert round(f(ARGUMENTS), 2) == VALUE`"
)
MAX_CHARACTERS, MAX_TESTS, MAX_DEPTH = 20_000, 40, 60
"""Python that people write is nested some 25 nodes deep; what follows the nesting is recursive."""
MAX_DIGITS = 4_000
"""Of an integer: Python writes none of more than 4,300."""
MAX_NUMBER_BITS = math.floor(MAX_DIGITS * math.log2(10))
"""Bits of a number with `MAX_DIGITS` digits."""
MAX_RELATIVE_TOLERANCE = 0.01
"""The widest tolerance, relative to the value or to 1, whichever is larger: a test that takes any number tests nothing."""
MODULES = {"pytest", "math", "solution"}
"""What tests may import; the imports are skipped, since nothing of the tests is run."""


class InvalidTests(ValueError):
    """Tests that cannot be parsed; the text names the line and what is allowed."""


class TestCase(NamedTuple):
    line: int
    text: str
    """The call as it is written."""
    function: str
    call: FunctionCall
    expected: Any
    tolerance: float | None = None
    """The largest difference from an expected number; with None it must be equal and of the same type."""
    strict: bool = False
    """Whether it must be nearer than that."""
    places: int | None = None
    """The number is first rounded to this number of decimals."""
    of_object: bool = False
    """Whether the call makes an object of a class and calls its methods."""

    @property
    def last_step(self) -> str:
        """What is done with an object last, as `object_tests` names it; "" for a function."""
        return next(iter(self.call.arguments[1])) if self.of_object else ""

    @property
    def short_text(self) -> str:
        """The call, cut where it is long."""
        return self.text if len(self.text) <= MAX_SHOWN_CHARACTERS else f"{self.text[:MAX_SHOWN_CHARACTERS]}…"

    def fault(self, outcome: CallOutcome) -> str | None:
        """What is wrong with an outcome, in a sentence."""
        if outcome.fault:
            return f"`{self.short_text}` {outcome.fault}"
        got = call_harness.decode_value(outcome.value)
        if self.tolerance is None and self.places is None:
            correct = outcome.value == call_harness.encode_value(self.expected)
        elif outcome.value[0] not in ("int", "float"):
            correct = False
        else:
            try:
                if self.places is not None:
                    correct = round(got, self.places) == self.expected
                else:
                    apart, allowed = abs(got - self.expected), self.tolerance or 0.0
                    correct = apart < allowed or (apart == allowed and not self.strict)
            except OverflowError:  # an integer beyond all floats
                correct = False
        if correct:
            return None
        alike = "; the types must be the same too" if got == self.expected else ""
        wanted = f"line {self.line} of the tests wants {short_repr(self.expected)}"
        return f"`{self.short_text}` returns {short_repr(got)}, and {wanted}{alike}"


def parse_python(source: str, what: str) -> ast.Module:
    """Python source as a tree; warnings are suppressed.

    Raises:
        InvalidTests: if it is not valid Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as error:
        raise InvalidTests(f"{what}: line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidTests(f"{what}: cannot be read as Python: {error or type(error).__name__}") from None
    # Python reads a hexadecimal number of any length, but does not write it in decimal.
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value.bit_length() > MAX_NUMBER_BITS:
            raise InvalidTests(f"{what}: line {node.lineno}: a number has more than {MAX_DIGITS:,} digits; compute it")
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in ast.iter_child_nodes(parent)]
    if level:
        raise InvalidTests(f"{what}: nested more than {MAX_DEPTH} levels deep; write it flatter")
    return tree


def parse_test_cases(tests: str) -> list[TestCase]:
    """The cases of a text of tests, in their order.

    Raises:
        InvalidTests: naming the line that is of another form.
    """
    if len(tests) > MAX_CHARACTERS:
        raise InvalidTests(f"the tests have {len(tests):,} characters; at most {MAX_CHARACTERS:,} are allowed")
    cases = []
    for statement, of_object in _iter_asserts(parse_python(tests, "the tests").body):
        try:
            case = _parse_test(statement.test, statement.lineno)
            cases.append(
                case._replace(text=describe_calls(case.call, case.function), of_object=True) if of_object else case
            )
        except (_FormMismatch, ValueError, TypeError, RecursionError, MemoryError, OverflowError):
            raise _form_error(statement, OBJECT_FORM if of_object else ASSERT_FORM) from None
    if len(cases) > MAX_TESTS:
        raise InvalidTests(f"there are {len(cases)} asserts; at most {MAX_TESTS} are allowed")
    functions = sorted({case.function for case in cases})
    if len(functions) > 1 or len({case.of_object for case in cases}) > 1:
        raise InvalidTests(f"the tests call {' and '.join(functions)}; they must all call one function")
    return cases


def _iter_asserts(body: Sequence[ast.stmt], inside: bool = False) -> Iterator[tuple[ast.Assert, bool]]:
    """The asserts of the tests and of their test functions, and whether each tests an object. Imports, docstrings and `pass` are
    skipped.
    """
    if inside and find_object(body):
        try:
            yield from ((statement, True) for statement in read_object_test(body))
        except NoObjectTest as error:
            raise _form_error(error.args[0], OBJECT_FORM) from None
        return
    for statement in body:
        match statement:
            case ast.Assert():
                yield statement, False
            case ast.FunctionDef(
                name=name,
                args=ast.arguments(posonlyargs=[], args=[], vararg=None, kwonlyargs=[], kwarg=None),
                decorator_list=[],
            ) if not inside and name.startswith("test"):
                yield from _iter_asserts(statement.body, inside=True)
            case ast.Import(names=names) if all(name.name in MODULES and not name.asname for name in names):
                pass
            case ast.ImportFrom(module=module, names=names) if module in MODULES:
                if any(name.asname for name in names):
                    raise _form_error(statement)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                raise _form_error(statement)


def _form_error(node: ast.stmt, form: str = ASSERT_FORM) -> InvalidTests:
    try:
        text = ast.unparse(node).splitlines()[0]
    except (ValueError, RecursionError):
        text = "it"
    return InvalidTests(f"line {node.lineno} of the tests, `{text[:80]}`, has another form: {form}")


class _FormMismatch(Exception):
    pass


def _parse_test(test: ast.expr, line: int) -> TestCase:
    if isinstance(test, ast.Call) and not _is_name(test.func, "isclose", "math.isclose"):
        return _exact_case(test, line, True)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _exact_case(test.operand, line, False)
    if isinstance(test, ast.Call) and len(test.args) == 2:
        return _close_case(
            test.args[:1],
            test.args[1:2],
            line,
            _named_number(test, "rel_tol", 1e-9),
            _named_number(test, "abs_tol", 0.0),
        )
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        raise _FormMismatch
    operator, left, right = test.ops[0], test.left, test.comparators[0]
    if isinstance(operator, ast.Lt | ast.LtE):
        # `abs(f(…) - VALUE) < TOLERANCE`, or `<=`
        if not isinstance(left, ast.Call) or not _is_name(left.func, "abs") or len(left.args) != 1:
            raise _FormMismatch
        difference = left.args[0]
        if not isinstance(difference, ast.BinOp) or not isinstance(difference.op, ast.Sub):
            raise _FormMismatch
        close = _close_case([difference.left], [difference.right], line, 0.0, _literal_number(right))
        return close._replace(strict=isinstance(operator, ast.Lt))
    if isinstance(operator, ast.Is) and ast.unparse(right) in ("None", "True", "False"):
        return _exact_case(left, line, _literal_value(right))
    if isinstance(operator, ast.Eq):
        return _parse_equality(left, right, line)
    raise _FormMismatch


def _parse_equality(left: ast.expr, right: ast.expr, line: int) -> TestCase:
    if isinstance(left, ast.Call) and isinstance(right, ast.Call) and _is_name(right.func, "approx", "pytest.approx"):
        if len(right.args) != 1:
            raise _FormMismatch
        relative = 0.0 if any(keyword.arg == "abs" for keyword in right.keywords) else 1e-6
        return _close_case(
            [left], right.args, line, _named_number(right, "rel", relative), _named_number(right, "abs", 1e-12)
        )
    if not isinstance(left, ast.Call):
        left, right = right, left
    try:
        return _exact_case(left, line, _literal_value(right))
    except (_FormMismatch, ValueError):
        # `round(f(…), PLACES) == VALUE`
        expected = _literal_number(right)
        if not isinstance(left, ast.Call) or not _is_name(left.func, "round") or len(left.args) != 2 or left.keywords:
            raise _FormMismatch from None
        places = _literal_value(left.args[1])
        if type(places) is not int or not 1 <= places <= 12:
            raise _FormMismatch from None
        return TestCase(line, *_parse_call(left.args[0]), expected, places=places)


def _exact_case(call: ast.expr, line: int, expected: Any) -> TestCase:
    text, function, read = _parse_call(call)
    call_harness.encode_value(expected)
    return TestCase(line, text, function, read, expected)


def _close_case(
    left: Sequence[ast.expr], right: Sequence[ast.expr], line: int, relative: float, absolute: float
) -> TestCase:
    expected = _literal_number(right[0]) if right else None
    if expected is None or not left:
        raise _FormMismatch
    tolerance = max(relative * abs(expected), absolute)
    if not 0 <= tolerance <= MAX_RELATIVE_TOLERANCE * max(1.0, abs(expected)):
        raise _FormMismatch
    return TestCase(line, *_parse_call(left[0]), expected, tolerance=tolerance)


def _parse_call(node: ast.expr) -> tuple[str, str, FunctionCall]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise _FormMismatch
    arguments = tuple(map(_literal_value, node.args))
    named = {keyword.arg: _literal_value(keyword.value) for keyword in node.keywords if keyword.arg is not None}
    if len(named) != len(node.keywords):
        raise _FormMismatch
    call_harness.encode_value([arguments, named])
    return ast.unparse(node), node.func.id, FunctionCall(arguments, named)


def _named_number(call: ast.Call, name: str, default: float) -> float:
    return next((_literal_number(keyword.value) for keyword in call.keywords if keyword.arg == name), default)


def _literal_number(node: ast.expr) -> Any:
    value = _literal_value(node)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _FormMismatch
    return value


def _literal_value(node: ast.expr) -> Any:
    """Raises ValueError if `node` is not a literal."""
    value = ast.literal_eval(node)
    try:
        call_harness.encode_value(value)
    except call_harness.UnsupportedValue:
        raise _FormMismatch from None
    return value


def _is_name(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in names


STUB_SOLUTIONS: dict[str, Callable[[Sequence[TestCase]], bool]] = {
    "returns one value whatever it is given": lambda cases: len({_value_key(case.expected) for case in cases}) == 1,
    "returns its first argument unchanged": lambda cases: all(_echoes_argument(case) for case in cases),
}
"""What must not pass, and whether it would."""


def count_distinct_calls(cases: Sequence[TestCase]) -> int:
    """How many different calls there are."""
    return len({_value_key([case.call.arguments, dict(case.call.named)]) for case in cases})


def find_passing_stub(cases: Sequence[TestCase]) -> str | None:
    """Which stub would pass."""
    return next((stub for stub, passes in STUB_SOLUTIONS.items() if passes(cases)), None)


def _echoes_argument(case: TestCase) -> bool:
    given = [*case.call.arguments, *case.call.named.values()][:1]
    return bool(given) and _value_key(given[0]) == _value_key(case.expected)


def _value_key(value: Any) -> str:
    return str(call_harness.encode_value(value))
