import ast
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from plugins.code.checks import call_harness
from plugins.code.checks.function_calls import FunctionCall
from plugins.code.checks.probe_inputs import draw_probes

EMPTY = ast.parse("")
scalars = st.one_of(st.booleans(), st.integers(-50, 50), st.floats(-9, 9), st.text("abA 1\n", max_size=6), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text("xyz", max_size=3), inner, max_size=3),
        st.sets(st.integers(0, 9), max_size=4),
    ),
    max_leaves=8,
)


def probes_of(arguments: list[Any], solution: str = "", most: int = 80) -> list[Any]:
    calls = [FunctionCall((argument,), {}) for argument in arguments]
    return [probe.arguments[0] for probe in draw_probes(calls, ast.parse(solution), most, "seed")]


@given(st.lists(st.tuples(values, values), min_size=1, max_size=4))
@example([(None, [([], [])]), (None, set())])
@settings(max_examples=60, deadline=None)
def test_probes_are_new_plain_calls_with_the_types_of_the_tests(given_arguments: list[tuple[Any, Any]]) -> None:
    calls = [FunctionCall(arguments[:1], {"named": arguments[1]}) for arguments in given_arguments]
    probes = draw_probes(calls, EMPTY, 20, "seed")
    assert probes == draw_probes(calls, EMPTY, 20, "seed")
    keys = [
        str(call_harness.encode_value([list(call.arguments), dict(call.named)], ordered=True))
        for call in [*calls, *probes]
    ]
    assert len(set(keys[len(calls) :])) == len(probes) <= 20
    assert not set(keys[: len(calls)]) & set(keys[len(calls) :])
    for i, part in ((0, "arguments"), ("named", "named")):
        kinds = {type(getattr(call, part)[i]) for call in calls}
        assert {type(getattr(probe, part)[i]) for probe in probes} <= kinds


def test_numbers_stay_where_the_tests_and_the_solution_have_some() -> None:
    assert set(probes_of([3, 40])) <= set(range(3, 42))
    assert set(probes_of([3, 40], "def f(n):\n    return n if n < 1 else 0")) >= {0, 1, 2}
