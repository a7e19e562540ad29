from collections import Counter
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.families.constrained_instructions import constraints_check
from agents.families.constraints import (
    APART,
    CONSTRAINT_KINDS,
    ConstraintTopic,
    TextConstraint,
    are_contradictory,
    draw_constraints,
)
from agents.families.task_draws import FORM_LABEL
from agents.planning.seeds import RunSeeds
from core.sample import SampleStatus
from flows.recipes.recipe_catalog import load_recipe_plan
from teachers.fake.fake_teacher import FakeTeacher
from tests.agents.checks.rows import Case, check_each, findings_of, rows_of, subject_of
from tests.support.forked import FORKS
from tests.support.scripted_teacher import build_test_seeds, produce_scripted

ROWS = [
    ("max_words", {"n": 3}, "One two three.", "One two three four."),
    ("max_words", {"n": 3}, "It's well-made, really.", "It is well made really."),
    ("min_words", {"n": 3}, "One two three.", "One two."),
    ("words_between", {"low": 2, "high": 3}, "One two.", "One two three four."),
    ("exact_sentences", {"n": 2}, "One. Two!", "One. Two! Three?"),
    ("exact_sentences", {"n": 1}, "It costs 3.50 today.", "It is 3. 50 is more."),
    ("exact_sentences", {"n": 1}, 'He said "go."', "This one has no end"),
    ("max_sentence_words", {"n": 2}, "One two. Three four.", "One two. Three four five."),
    ("exact_paragraphs", {"n": 2}, "One.\n\nTwo.", "One.\nTwo."),
    ("include_words", {"words": ["bee"]}, "A Bee flies.", "A beetle flies."),
    ("include_words", {"words": ["box"]}, "Two boxes.", "A boxer."),
    ("include_two_words", {"words": ["bee", "hive"]}, "The bee left the hive.", "The bee left."),
    ("mention_times", {"word": "bee", "n": 2}, "Bee by bee.", "One bee."),
    ("avoid_word", {"word": "bee"}, "A beetle.", "Bees fly."),
    ("include_words", {"words": ["ice cream"]}, "Two ice creams.", "Ice and cream."),
    ("include_words", {"words": ["well-being"]}, "Her well-being.", "Being well."),
    ("mention_times", {"word": "mother's day", "n": 2}, "Mother's Day is no mother’s day.", "Mother's day."),
    ("avoid_word", {"word": "ice cream"}, "Cream on ice.", "Two **ice** creams."),
    ("avoid_word", {"word": "well-being"}, "All being well.", "Their well-being."),
    ("avoid_word", {"word": "mother's day"}, "A day of mothers.", "It is Mother’s Day."),
    ("avoid_letter", {"letter": "q"}, "No such letter.", "Quite so."),
    ("include_number", {}, "It has 4 legs.", "It has four legs."),
    ("no_digits", {}, "It has four legs.", "It has 4 legs."),
    ("start_with", {"word": "Many"}, "many bees fly.", "So many bees."),
    ("end_with", {"ending": "Try it today."}, "It is good. Try it today.", "Try it today. Or not."),
    ("end_in_language", {"language": "French"}, "That was all. Merci beaucoup!", "Merci. That was all."),
    ("end_question", {}, "Do you?", "Do you? Yes."),
    ("ask_question", {}, "Do you? Yes.", "You do."),
    ("end_exclamation", {}, "Go!", "Go! Now."),
    ("no_commas", {}, "One and two.", "One, two."),
    ("no_exclamation", {}, "Go.", "Go!"),
    ("lowercase", {}, "all small.", "Not small."),
    ("uppercase", {}, "ALL LARGE 3.", "ALL but this."),
    ("bullets", {"n": 2}, "- one\n- two", "- one\nand\n- two"),
    ("bullets", {"n": 2}, "* one\n\n* two", "-one\n-two"),
    ("numbered", {"n": 2}, "1. one\n2. two", "1. one\n3. two"),
    ("in_quotes", {}, '"All of it."', 'Only "this".'),
    ("json_keys", {"keys": ["a", "b"]}, '{"b": 1, "a": 2}', '{"a": 1}'),
    ("json_keys", {"keys": ["a"]}, '{"a": {}}', '["a"]'),
    ("bold_word", {}, "The **most** of it.", "The ** most ** of it."),
    ("heading", {}, "# Bees\nThey fly.", "# Bees"),
    ("postscript", {}, "They fly.\nP.S. They sting.", "P.S. They sting.\nThey fly."),
    ("second_person", {}, "Your bees.", "Youth."),
    ("first_person", {}, "I keep bees.", "It is India."),
    ("words_in_order", {"words": ["bee", "hive"]}, "Bees leave the hive, and a bee returns.", "The hive of a bee."),
    ("words_in_order", {"words": ["bee", "hive"]}, "A bee of the hive.", "A beetle in a hive."),
    ("table", {"columns": 2, "rows": 1}, "So:\n\n| a | b |\n|---|:-:|\n| c | d |\n\nEnd.", "| a | b |\n|---|---|"),
    ("table", {"columns": 2, "rows": 1}, "a | b\n-|-\nc \\| d | e", "| a | b |\n|---|---|\n| c | d | e |"),
    ("table", {"columns": 2, "rows": 2}, "|a|b|\n|-|-|\n|c||\n||d|", "```\n|a|b|\n|-|-|\n|c|d|\n|e|f|\n```"),
    ("sections", {"n": 2}, "# One\nText.\n# Two\nMore.", "# One\nText.\n# Two"),
    ("sections", {"n": 2}, "## One\n\nText.\n\n## Two\n\nMore.", "Before.\n# One\nText.\n# Two\nMore."),
    ("section_titles", {"titles": ["For", "Against"]}, "## For\nA.\n## **Against**\nB.", "## Against\nA.\n## For\nB."),
    ("sorted_bullets", {"n": 3}, "- Ants\n- **Bees**\n- cats", "- Bees\n- Ants\n- Cats"),
    ("sorted_bullets", {"n": 3}, "- Äpfel\n- Birnen\n- Zwiebeln", "- Birnen\n- Äpfel\n- Zwiebeln"),
    ("long_min_words", {"n": 4}, "One two three four.", "One two three."),
    ("first_person", {}, "i lay everything out, and i have never missed it.", "a smaller bag, i.e. one for world war i trips."),
    ("first_person", {}, "packing light, i leave my books.", "i) one bag. ii) one pair of shoes, as in part i there."),
    ("first_person", {}, "I left, and i lost it.", "The variable i counts Bees."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "params", "met", "broken"), ROWS)
def test_a_checker_distinguishes_met_from_broken(kind: str, params: dict[str, object], met: str, broken: str) -> None:
    constraint = TextConstraint(kind=kind, params=params, text="")
    assert constraint.fault(met) is None
    assert constraint.fault(broken)


SAID = {
    "French": "Les abeilles vivent dans une ruche et font du miel. Elles ne dorment pas en hiver.",
    "Spanish": "Las abejas viven en una colmena y hacen la miel. No duermen en el invierno.",
    "Portuguese": "As abelhas vivem em uma colmeia e fazem o mel. Elas não dormem no inverno.",
    "Italian": "Le api vivono in una casa di legno e fanno il miele. Non dormono mai in inverno.",
    "German": "Die Bienen leben in einem Stock und machen den Honig. Sie schlafen im Winter nicht.",
    "English": "Bees live in a hive and make honey. They do not sleep in the winter, as you know.",
}


def test_a_text_is_in_one_language_alone() -> None:
    for wanted in SAID.keys() - {"English"}:
        rule = TextConstraint(kind="language", params={"language": wanted}, text="")
        assert [name for name, text in SAID.items() if not rule.fault(text)] == [wanted]
        assert rule.fault(f"{SAID[wanted]} {SAID['English']}")


@pytest.mark.parametrize(
    ("language", "text"),
    [("French", "C'est qu'il n'est d'un rien ici."), ("Italian", "Dell'acqua c'è l'altro mare blu freddo.")],
)
def test_a_curly_apostrophe_is_read_as_a_straight_one(language: str, text: str) -> None:
    rule = TextConstraint(kind="language", params={"language": language}, text="")
    assert not rule.fault(text)
    assert not rule.fault(text.replace("'", "’"))


@check_each(CONSTRAINT_KINDS)
def test_no_kind_is_met_by_an_empty_answer(kind: str) -> None:
    constraint = draw_constraints(Random(1), ConstraintTopic("bees", ("bee", "hive", "wax")), {kind: 1}, 1)[0]
    assert constraint.fault(" \n")


@check_each(range(200))
def test_drawn_constraints_never_share_a_group_and_are_stated_in_full(seed: int) -> None:
    drawn = draw_constraints(
        Random(seed), ConstraintTopic("bees", ("bee", "hive", "wax")), dict.fromkeys(CONSTRAINT_KINDS, 1), 4
    )
    groups = [CONSTRAINT_KINDS[constraint.kind].group for constraint in drawn]
    assert len(set(groups)) == len(groups) == 4
    for constraint in drawn:
        assert not any(mark in constraint.text for mark in ("{n", "{w", "{l", "{e", "{q", "{k"))


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (("json_keys", {"keys": ["title", "text"]}), ("no_commas", {}), True),
        (("numbered", {"n": 3}), ("no_digits", {}), True),
        (("avoid_letter", {"letter": "z"}), ("end_in_language", {"language": "Italian"}), True),
        (("avoid_letter", {"letter": "k"}), ("end_in_language", {"language": "German"}), True),
        (("avoid_letter", {"letter": "z"}), ("end_in_language", {"language": "German"}), False),
        (("avoid_letter", {"letter": "k"}), ("end_in_language", {"language": "French"}), False),
        (("bullets", {"n": 3}), ("no_commas", {}), False),
    ],
)
def test_constraints_that_no_text_meets_contradict(
    one: tuple[str, dict[str, object]], other: tuple[str, dict[str, object]], apart: bool
) -> None:
    first, second = (TextConstraint(kind=kind, params=params, text="") for kind, params in (one, other))
    assert are_contradictory(first, second) == are_contradictory(second, first) == apart


def test_every_row_of_the_table_bars_a_pair_that_could_be_drawn_and_that_no_other_row_bars() -> None:
    barred = [frozenset((one, other)) for some, others in APART for one in some for other in others]
    assert len(barred) == len(set(barred))
    for one, other in barred:
        assert CONSTRAINT_KINDS[one].group != CONSTRAINT_KINDS[other].group, "one of a group is drawn anyway"


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("One. Two!", {"exact_sentences": {"n": 2}, "long_max_words": {"n": 60}}),
        ("La mer est bleue dans le port !", {"language": {"language": "French"}, "end_exclamation": {}}),
        ("La mer est bleue dans le port.", {"language": {"language": "French"}, "no_exclamation": {}}),
        ("MANY BEES FLY!", {"uppercase": {}, "start_with": {"word": "Many"}, "end_exclamation": {}}),
        ("do bees fly? gracias.", {"lowercase": {}, "ask_question": {}, "end_in_language": {"language": "Spanish"}}),
        ("- Do bees fly?\n- They do.", {"bullets": {"n": 2}, "ask_question": {}}),
        ("|a|b|\n|-|-|\n|c|d|", {"table": {"columns": 2, "rows": 1}, "no_exclamation": {}}),
    ],
)
def test_rules_that_one_text_meets_are_drawn_together(text: str, rules: dict[str, dict[str, object]]) -> None:
    stated = [TextConstraint(kind=kind, params=params, text="") for kind, params in rules.items()]
    assert [rule.fault(text) for rule in stated] == [None] * len(stated)
    assert not any(are_contradictory(one, other) for one, other in combinations(stated, 2))
    kinds, topic = dict.fromkeys(rules, 1), ConstraintTopic("bees", ("bee",))
    groups = {CONSTRAINT_KINDS[kind].group for kind in kinds}
    assert len(draw_constraints(Random(1), topic, kinds, 9)) == len(groups)


def test_weights_decide_what_is_drawn() -> None:
    topic = ConstraintTopic("bees", ("bee", "hive", "wax"))
    kinds = [draw_constraints(Random(i), topic, {"max_words": 9, "no_commas": 1}, 1)[0].kind for i in range(400)]
    # 400 draws at .9: the standard error is .015, four of them .06.
    assert abs(kinds.count("max_words") / 400 - 0.9) < 0.06


@pytest.mark.attack(
    "many abbreviations or marks, for `exact_sentences`, `max_sentence_words`",
    "linear-time sentence splitting",
)
@pytest.mark.parametrize("text", ["P.S. ", ". ", "? ", "A. ", "Dr. ", '"A." ', "a.B.", "e.g. "])
@pytest.mark.parametrize("kind", ["exact_sentences", "max_sentence_words"])
def test_sentences_are_read_in_time_linear_in_the_text(kind: str, text: str) -> None:
    """200,000 characters took many minutes while each mark read the sentence again from its beginning."""
    TextConstraint(kind=kind, params={"n": 2}, text="").fault(text * (200_000 // len(text)))


@pytest.mark.parametrize(("kind", "params"), [("table", {"columns": 2, "rows": 2}), ("sections", {"n": 2})])
@pytest.mark.parametrize(
    "text", ["|-" + " " * 200_000 + "x", "# a" + " " * 200_000 + "b", "a | b\n" + "-|" * 100_000 + "x"]
)
def test_tables_and_sections_are_read_in_time_linear_in_the_text(kind: str, params: dict[str, int], text: str) -> None:
    """100,000 spaces took half a minute while the end of a line was searched from each of them."""
    TextConstraint(kind=kind, params=params, text="").fault(text)


GOLDEN = rows_of("constraints")
ALL_KINDS = f"{{{','.join(f'{kind}=1' for kind in CONSTRAINT_KINDS)}}}"


def turns_of(case: Case) -> list[list[dict[str, Any]]]:
    return case.get("turns") or [[{"kind": case["kind"], "params": case["params"], "text": case["rule"]}]]


@check_each(GOLDEN)
def test_a_rule_is_kept_or_broken(case: Case) -> None:
    answers = case.get("answers") or [case["answer"]]
    found = findings_of(constraints_check, subject_of({"constraints": turns_of(case)}, answers))
    assert all(finding.passed for finding in found) == case["passes"], found


def test_no_rule_forbids_what_its_topic_needs() -> None:
    plan = load_recipe_plan(
        "constrained-instructions", ["samples=1500", "task.constraints=[3]", f"task.kinds={ALL_KINDS}"]
    )
    for seed in build_test_seeds(plan)[:]:
        [drawn] = seed.data["constraints"]
        barred = [r["params"].get("word") or r["params"]["letter"] for r in drawn if r["kind"].startswith("avoid_")]
        assert not any(word.lower() in seed.data["topic"].lower() for word in barred), (seed.data["topic"], barred)
        assert not {"exact_sentences", "end_in_language"} <= {rule["kind"] for rule in drawn}


FAKE = ["teachers.main={model='fake/instructions'}", "agents.critic=false", "topology.max_revisions=0"]


def lcs(left: list[str], right: list[str]) -> int:
    """The textbook table, as the oracle of ROUGE-L."""
    rows = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left, 1):
        for j, b in enumerate(right, 1):
            rows[i][j] = rows[i - 1][j - 1] + 1 if a == b else max(rows[i - 1][j], rows[i][j - 1])
    return rows[-1][-1]


def rouge(left: str, right: str) -> float:
    a, b = (["".join(c for c in word if c.isalnum()) for word in text.lower().split()] for text in (left, right))
    return 2 * lcs(a, b) / (len(a) + len(b))


def test_what_is_kept_passes_the_papers_tests(tmp_path: Path) -> None:
    plan = load_recipe_plan("instructions", [*FAKE, "samples=150"])
    samples = produce_scripted(plan, FakeTeacher(plan.recipe.teachers["main"], "instructions"), tmp_path)
    details = Counter(sample.detail for sample in samples if sample.state == SampleStatus.dropped)
    assert set(details) == {"askable", "novel", "answered", "answer_shape"}
    for sample in samples:
        if sample.state == SampleStatus.kept:
            task, shown = sample.candidate.messages[0].content, sample.seed.data["examples"]
            assert max(rouge(task, other) for other in [sample.seed.data["parent"], *shown]) < 0.7
            coded = sample.seed.conditions.get(FORM_LABEL) == "code"  # a program may draw
            assert coded or not task.startswith("Draw")
            assert "sorry" not in sample.answer


def test_a_run_bootstraps_from_what_it_kept_and_a_resumed_one_from_the_same(tmp_path: Path) -> None:
    """Four shards in a row, killed in the third; nothing about it depends on where it was killed."""
    settings = [*FAKE, "samples=40", "shard_size=10", "task.ways={new=1}", "teachers.main.max_concurrent=4"]

    def run(runs: Path, **environment: str) -> int:
        program = FORKS.start("tests.support.produce_run", str(runs), "instructions", *settings, **environment)
        program.communicate()
        return program.wait()

    assert run(tmp_path / "whole") == 0
    assert run(tmp_path / "killed", KILL_AT="14") == -9
    assert run(tmp_path / "killed") == 0
    whole, killed = (sorted((tmp_path / name).glob("*/shards/*.parquet")) for name in ("whole", "killed"))
    assert [file.read_bytes() for file in whole] == [file.read_bytes() for file in killed]
    from core.storage.sample_files import read_samples

    first, last = read_samples(whole[0]), read_samples(whole[3])
    made = {sample.candidate.messages[0].content for sample in first if sample.state == SampleStatus.kept}
    assert all(len(sample.seed.data["examples"]) == 6 for sample in first)
    assert all(len(sample.seed.data["examples"]) == 8 for sample in last)
    assert any(made & set(sample.seed.data["examples"]) for sample in last)


def test_a_datasets_conversations_are_seeds(tmp_path: Path) -> None:
    import polars as pl

    rows = [{"id": str(i), "messages": [{"role": "user", "content": f"Say {i}."}]} for i in range(8)]
    pl.DataFrame(rows).write_parquet(tmp_path / "train.parquet")
    plan = load_recipe_plan("instructions", [*FAKE, f"seeds.path={tmp_path}/train.parquet", "task.ways={deepen=1}"])
    assert {seed.data["parent"] for seed in RunSeeds(plan, "0" * 16)[:50]} == {f"Say {i}." for i in range(8)}
