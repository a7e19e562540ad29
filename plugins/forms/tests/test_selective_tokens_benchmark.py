"""The parts of the benchmark of selective loss that decide. The benchmark itself trains for half an hour."""

import random
from pathlib import Path

from benchmarks.selective_tokens import (
    ALL,
    CHANCE,
    TOP,
    SelectiveStudent,
    choose_tokens,
    configure_selective_arm,
    format_selective_students,
)
from students.chat_encoding import EncodedConversation

ROWS = [
    EncodedConversation((7, 8, 1, 2, 3), (False, False, True, True, True)),
    EncodedConversation((7, 4, 5), (False, True, True)),
]


def count_learned(rows: list[EncodedConversation]) -> int:
    return sum(sum(row.learned) for row in rows)


def test_the_tokens_with_the_largest_excess_are_learned_and_all_are_read() -> None:
    found = choose_tokens(ROWS, [0.1, 2.0, -1.0, 0.5, 3.0])
    assert [row.learned for row in found] == [(False, False, False, True, False), (False, True, True)]
    assert [row.ids for row in found] == [row.ids for row in ROWS]


def test_the_control_learns_as_many_tokens_of_the_answers() -> None:
    rng = random.Random(1)
    drawn = [choose_tokens(ROWS, [rng.random() for _ in range(5)]) for _ in range(20)]
    assert {count_learned(rows) for rows in drawn} == {3}
    assert len({tuple(row.learned for row in rows) for rows in drawn}) > 1
    assert all(not any(row.learned[:1]) for rows in drawn for row in rows)


def test_the_end_of_the_interval_decides() -> None:
    whole = SelectiveStudent(learned=10, loss=1.0, own=1.5, passed=[True] * 50 + [False] * 50)
    fewer = SelectiveStudent(learned=6, loss=1.1, own=1.4, passed=[True] * 40 + [False] * 60)
    table = format_selective_students({f"{ALL}1": whole, f"{TOP}1": fewer}, 45)
    assert "top minus all, 1 seeds: -10.0 (-16.0 to -4.0) points: not shown to be within 10; own -0.100 nats" in table


def test_arms_differ_in_a_step_that_training_knows() -> None:
    whole, top, chance = (configure_selective_arm(*one) for one in ((ALL, None), (TOP, Path("r")), (CHANCE, None)))
    assert not whole.step_extensions
    for one in (top, chance):
        assert whole.model_copy(update={"steps": one.steps}) == one
        assert [found.name for found in one.step_extensions] == ["selective_tokens"]
