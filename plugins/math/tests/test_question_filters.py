"""Questions of reasoning-gym with another right answer, a wrong stated one or faulty text are refused, and fair ones are not."""

import pytest
from reasoning_gym import create_dataset

from plugins.math.checks.number_sequences import find_continuation_fault
from plugins.math.families.question_filters import (
    QUESTION_FILTERS,
    find_question_fault,
    syllogism_answers,
)
from plugins.math.families.reasoning import ProceduralQuestion, draw_fair_questions, task_settings


@pytest.mark.parametrize(
    ("premises", "conclusion", "answers"),
    [
        (("All humans are parents", "No parents are engineers"), "Some humans are not engineers", (False, True)),
        (("Some students are humans", "No humans are butterflies"), "Some students are not butterflies", (True, True)),
        (("No animals are writers", "All writers are reptiles"), "Some animals are reptiles", (False, False)),
        (("All ants are dolphins", "Some dolphins are not spiders"), "Some ants are not spiders", (False, False)),
    ],
)
def test_a_conclusion_may_follow_only_where_somebody_exists(
    premises: tuple[str, str], conclusion: str, answers: tuple[bool, bool]
) -> None:
    assert syllogism_answers(premises, conclusion) == answers


def entry(source: str, question: str, answer: str, /, **metadata: object) -> dict[str, object]:
    return {"question": question, "answer": answer, "metadata": {"source_dataset": source, **metadata}}


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        (entry("syllogism", "", "Yes", premise1="All humans are parents", premise2="No parents are engineers",
               conclusion="Some humans are not engineers"), "assumes_existence"),
        (entry("syllogism", "", "Yes", premise1="All ants are dolphins", premise2="Some dolphins are not spiders",
               conclusion="Some ants are not spiders"), "wrong_conclusion"),
        (entry("syllogism", "", "No", premise1="All ants are dolphins", premise2="Some dolphins are not spiders",
               conclusion="Some ants are not spiders"), None),
        (entry("leg_counting", "", "390", animals={"cricket": 11, "starfish": 12}), "unclear_legs"),
        (entry("leg_counting", "", "46", animals={"cricket": 6, "shrimp": 1}), "unclear_legs"),
        (entry("leg_counting", "", "50", animals={"cricket": 6, "woodlouse": 1}), "unclear_legs"),
        (entry("aiw", "", "4", task_type="colleagues"), "muddled_circles"),
        (entry("aiw", "", "4", task_type="friends"), None),
        (entry("zebra_puzzles", "1. Bob is in the first house.\n2. The dog owner is Eric.", "bob"), "stated_name"),
        (entry("zebra_puzzles", "1. Bob is in the third house.\n2. The cat lover is in the first house.", "eric"), None),
        (entry("count_primes", "", "7", start=2, end=18), "few_primes"),
        (entry("count_primes", "", "1", start=147, end=149), "few_primes"),
        (entry("count_primes", "", "4", start=83, end=102), None),
        (entry("number_sequence", "", "-256", sequence=[-2, -4, -8, -16, -32, -64, -128, -256]), "plain_doubling"),
        (entry("number_sequence", "", "-350", sequence=[-5, -10, -25, -60, -145, -350]), None),
        (entry("leg_counting", "", "74", animals={"cricket": 11, "cow": 2}), None),
        (entry("caesar_cipher", "", "", clear_text="TWENTY YEARS AGO ITS SUBSCRIPTION LIST CONTAINED BUT A FEW HUNDRED "
               "THOUSAND AND THEN MR"), "cut_sentence"),
        (entry("caesar_cipher", "", "", clear_text="THEY COMMENCED WORK AT ONCE"), None),
        (entry("letter_counting", "", "3", target_letter="b", span=["Redistribution", "is", "subject"]), None),
        (entry("letter_counting", "", "4", target_letter="s", span=["Mr", "Smith", "mused"]), "mixed_case"),
        (entry("family_relationships", "", "father-in-law", person1="Margaret"), "undirected_relation"),
        (entry("family_relationships", "", "aunt", person1="River"), "unstated_gender"),
        (entry("family_relationships", "", "daughter", person1="Margaret"), "stated_relation"),
        (entry("family_relationships", "", "husband", person1="Henry"), "stated_relation"),
        (entry("family_relationships", "", "grandmother", person1="Margaret"), None),
        (entry("calendar_arithmetic", "from Sunday, December 18, 2022 to Tuesday, March 28, 2022", "72", task="x"),
         "impossible_weekday"),
        (entry("calendar_arithmetic", "from Sunday, December 18, 2022 to Tuesday, March 28, 2023", "72", task="x"), None),
        (entry("calendar_arithmetic", "the day for 04/01/2022.", "Friday", task="x"), "ambiguous_date"),
        (entry("calendar_arithmetic", "the day for 04/21/2022.", "Thursday", task="x"), None),
        (entry("simple_geometry", "", "331", missing_angle_raw=331.0), "no_convex_polygon"),
    ],
)  # fmt: skip
def test_an_unfair_question_is_refused_for_its_reason(made: dict[str, dict[str, str]], fault: str | None) -> None:
    assert find_question_fault(made["metadata"]["source_dataset"], None, made) == fault


@pytest.mark.parametrize("task", QUESTION_FILTERS)
def test_a_fair_question_is_drawn_again_from_its_place(task: str) -> None:
    first = ProceduralQuestion(task, task_settings(task, {}), 7, 400, 0)
    rows = [row for row, _ in zip(draw_fair_questions(first), range(5), strict=False)]
    assert len({row["question"] for row in rows}) == 5
    dataset = create_dataset(task, seed=7, size=400, **task_settings(task, {}))
    for row in rows:
        assert find_question_fault(task, dataset, dataset[row["made"]["place"]]) is None


@pytest.mark.parametrize(
    ("terms", "answer", "fault"),
    [
        # A capable model was asked these.
        ([-2, -4, -8, -16, -32, -64, -128], -256, None),
        ([10, 10, 30, 50, 110, 210, 430], 850, None),
        ([-2, -1, -1, -1, -1], -1, "constant"),
        ([-4, 15, 24, 29], 31, "rounds"),
        ([-5, -10, -25, -60], -145, "unconfirmed"),  # steps that double less 5 give -135
        ([-8, -16, -40, -96], -232, "unconfirmed"),
        # Neighbors of them.
        ([-5, -10, -25, -60, -145], -350, None),
        ([1, 4, 9, 16], 25, None),
        ([1, 2, 4, 8], 16, None),
        ([1, 2, 4, 8], 15, "unconfirmed"),  # the cubic
        ([2, 3, 5, 8], 13, "ambiguous"),  # sums of the two before, or steps that grow by one: 12
        ([2, 3, 5, 8, 13], 21, None),
        ([3, 7, 4, 8, 5], 9, None),
        ([16, 8, 4, 2], 1, None),
    ],
)
def test_a_sequence_determines_its_next_number_or_not(terms: list[int], answer: int, fault: str | None) -> None:
    assert find_continuation_fault(terms, answer) == fault
