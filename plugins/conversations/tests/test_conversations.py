"""What the teacher writes around drawn rules, on conversations that a careful reader wrote behind an endpoint, some with a
planted fault; and the same with the rules, answers or turns of others.
"""

import asyncio
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.families.constrained_instructions import load_rules
from agents.families.constraints import (
    CONSTRAINT_KINDS,
    SHAPE_KINDS,
    ConstraintTopic,
    TextConstraint,
    are_contradictory,
)
from agents.reply_schema import InvalidReply
from agents.studies.preview import preview_samples
from core.errors import RecipeError
from core.project_files import PROJECT
from core.sample import Sample, SampleStatus
from core.storage.recording import read_recording
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.conversations.checks import (
    RuleReading,
    find_follow_up_fault,
    find_rule_fault,
    find_silence,
)
from plugins.conversations.family import MOVES, STARTS, draw_contradiction
from tests.agents.checks.rows import check_each
from tests.support.scripted_teacher import build_test_seeds

RECORDED = Path(__file__).with_name("recorded.jsonl")
PLANTED = {
    "border crossings": ("asked", "Write without digits."),
    "traveling with children": ("asked", "Write 25 words or more."),
    "the silk road": (
        "asked",
        "turn 2: the user's words do not clearly ask for this rule, with all it says: Do not use any",
    ),
    "naming a baby": ("asked", "Use exactly two sentences."),
    "migrating geese": ("takes_up", "turn 3"),
    "earthworms": ("points_out", "lower case"),
    "digital photos": ("asked", "also ask for no_digits"),
}
"""By topic, the check that sees the fault of the first draft, and of what its words speak."""


@pytest.fixture(scope="module")
def samples() -> Sequence[Sample]:
    count = len(list(read_recording(RECORDED)))
    settings = [f"seeds={{recording='{RECORDED}'}}", f"teachers.main={{model='fake/replay:{RECORDED}'}}", "cache_mb=0"]
    plan = load_recipe_plan("conversations", [*settings, f"samples={count}", "keep=0", "agents.critic=false"])
    return asyncio.run(preview_samples(plan, count, threading.Event())).samples


def test_planted_faults_are_found_and_no_good_draft_is_sent_back(samples: Sequence[Sample]) -> None:
    assert len(samples) == 23
    assert all(sample.state is SampleStatus.kept for sample in samples)
    found = {
        sample.seed.data["topic"]: (verdict.check, verdict.evidence)
        for sample in samples
        for verdict in sample.verdicts
        if not verdict.passed
    }
    assert found.keys() == PLANTED.keys()
    for topic, (check, words) in PLANTED.items():
        assert found[topic][0] == check
        assert words in found[topic][1]


class Turn:
    def __init__(self, sample: Sample, number: int, read: Any) -> None:
        turns = [message.content for message in sample.candidate.messages if message.role != "system"]
        self.rules, self.read = load_rules(sample.seed, "asked")[number], read
        self.user, self.answer = turns[2 * number : 2 * number + 2]
        self.before = turns[2 * number - 1] if number else ""
        self.known = " ".join(
            [sample.seed.data["topic"], *turns[: 2 * number : 2], *(rule.text for rule in self.rules)]
        )
        self.contradicts = sample.seed.data["contradicts"] and number == len(load_rules(sample.seed, "asked")) - 1


@pytest.fixture(scope="module")
def turns(samples: Sequence[Sample]) -> list[Turn]:
    readings = [RuleReading.model_validate_json(row.replies[-1].reply) for row in read_recording(RECORDED)]
    return [
        Turn(sample, number, read.rules)
        for sample, reading in zip(samples, readings, strict=True)
        for number, read in enumerate(reading.turns)
    ]


def test_the_rules_of_another_turn_are_not_found_in_a_users_words(turns: list[Turn]) -> None:
    assert not any(find_rule_fault(turn.rules, turn.read, None) for turn in turns)
    pairs = [(one, other) for one in turns for other in turns if one is not other and other.rules]
    refused = sum(bool(find_rule_fault(other.rules, one.read, None)) for one, other in pairs)
    assert refused / len(pairs) > 0.97


def test_a_turn_takes_up_its_own_answer_and_seldom_another(turns: list[Turn]) -> None:
    later = [turn for turn in turns if turn.before]
    assert not any(find_follow_up_fault(turn.user, turn.before, turn.known) for turn in later)
    pairs = [(turn, other) for turn in later for other in turns if other.answer != turn.before]
    refused = sum(bool(find_follow_up_fault(turn.user, other.answer, turn.known)) for turn, other in pairs)
    assert refused / len(pairs) > 0.6


def test_only_an_answer_that_names_both_rules_points_them_out(turns: list[Turn]) -> None:
    ends, others = [turn for turn in turns if turn.contradicts], [turn for turn in turns if not turn.contradicts]
    assert len(ends) >= 3
    assert not any(find_silence(turn.answer, turn.rules) for turn in ends)
    assert all(find_silence(other.answer, turn.rules) for turn in ends for other in ends if other is not turn)
    assert all(find_silence(other.answer, turn.rules) for turn in ends for other in others)


@pytest.mark.parametrize(
    ("answer", "rules"),
    [
        ("A frog cannot fly.", [("include_words", {"words": ["frog"]}), ("avoid_word", {"word": "frog"})]),
        (
            "If you wait, both fronts pass. You cannot see them.",
            [("start_with", {"word": "If"}), ("avoid_word", {"word": "If"})],
        ),
        ("In spring either field is green.", [("start_with", {"word": "In"}), ("avoid_word", {"word": "In"})]),
        (
            "1. Frogs are great in number.\n2. They cannot fly.\n3. Both live here.",
            [("numbered", {"n": 3}), ("no_digits", {})],
        ),
    ],
)
def test_an_answer_that_tries_one_rule_points_out_nothing(answer: str, rules: list[tuple[str, dict[str, Any]]]) -> None:
    stated = [TextConstraint(kind=kind, params=params, text=kind) for kind, params in rules]
    assert find_silence(answer, stated)
    assert not find_silence(f"{answer} The two rules exclude each other: digits, frog, 3.", stated)


@check_each(range(300))
def test_drawn_contradictions_have_two_rules_that_no_answer_meets(seed: int) -> None:
    left, right = draw_contradiction(Random(seed), ConstraintTopic("bees", ("bee", "hive", "wax")))
    assert left.text != right.text
    same_group = CONSTRAINT_KINDS[left.kind].group == CONSTRAINT_KINDS[right.kind].group
    assert same_group or are_contradictory(left, right)


def test_the_page_counts_what_is_drawn() -> None:
    page = (PROJECT / "plugins/conversations/README.md").read_text(encoding="utf-8")
    options = load_recipe_plan("conversations", []).options
    topic = ConstraintTopic("bees", ("bee", "hive", "wax"))
    pairs = {tuple(rule.kind for rule in draw_contradiction(Random(seed), topic)) for seed in range(500)}
    assert f"|rules|{sum(weight > 0 for weight in options.kinds.values())} kinds" in page
    assert f"|later turns|{len(MOVES)} moves from {len(STARTS)} parts of the answer|" in page
    assert f"|contradictions|{len(pairs)} pairs|" in page


def test_each_turn_holds_what_was_asked_before_it_to_stay() -> None:
    plan = load_recipe_plan("conversations", ["samples=600"])
    contradicting = 0
    for seed in build_test_seeds(plan)[:]:
        data, asked = seed.data, load_rules(seed, "asked")
        assert data["instruction"].count("\nTurn ") == len(asked) == len(data["constraints"])
        lines = data["instruction"].split("\nTurn ")
        stay = {rule.text for rule in asked[0] if f"every answer: {rule.text}" in lines[0]}
        assert not any(rule.kind in SHAPE_KINDS for rule in asked[0] if rule.text in stay), "a shape is of one answer"
        contradicting += data["contradicts"]
        for number, (line, rules) in enumerate(zip(lines[1:], asked, strict=True)):
            if data["contradicts"] and number == len(asked) - 1:
                assert data["constraints"][-1] == []
                continue
            texts = {rule.text for rule in rules}
            assert stay <= texts
            assert all(text in line for text in texts - stay)
            assert not any(are_contradictory(one, other) for one in rules for other in rules if one is not other)
            stay |= {rule.text for rule in rules if f"from now on: {rule.text}" in line}
    assert 0.08 < contradicting / 600 < 0.17  # of 0.125, at three standard errors


def test_no_move_and_no_part_of_an_answer_comes_twice_in_a_conversation() -> None:
    for seed in build_test_seeds(load_recipe_plan("conversations", ["samples=100", "task.turns=[6]"]))[:]:
        later = re.findall(r"in which the user (.*); starts from (.*):$", seed.data["instruction"], re.MULTILINE)
        assert [len(set(drawn)) for drawn in zip(*later, strict=True)] == [5, 5]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("task.kinds={max_words=-1}", "needs at least one kind .* {'max_words': -1}"),
        ("task.constraints=[]", "at least 1 item"),
        ("task.constraints=[-1]", "greater than or equal to 0, not -1"),
    ],
)
def test_rules_that_cannot_be_drawn_are_refused(setting: str, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        load_recipe_plan("conversations", [setting])


def test_a_reply_with_a_turn_too_many_or_a_system_prompt_of_its_own_is_no_draft() -> None:
    plan = load_recipe_plan("conversations", ["samples=40", "task.turns=[2]", "task.system=0"])
    seed, family = build_test_seeds(plan)[0], plan.family
    kind = family.reply_type(seed)
    exchange = {"user": "What of it?", "assistant": "This."}
    for reply, fault in (
        ({"exchanges": [exchange] * 3}, "3 where 2"),
        ({"system": "x", "exchanges": [exchange] * 2}, "system"),
    ):
        with pytest.raises(InvalidReply, match=fault):
            family.candidate(seed, kind.model_validate_json(json.dumps(reply)))
