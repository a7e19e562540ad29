import json
from collections import Counter
from pathlib import Path

import pytest

from agents.teachers.base import Question
from core.errors import RecipeError
from flows.recipes import load, sources
from tests.scripted import Scripted, produced, seeds_of

DRAW = (
    "seeds.draw={persona=['a nurse','a sailor'],difficulty={easy=3,hard=1},"
    "field={science={physics=2,biology=1},arts=1,never=0}}"
)
BASE = ["teachers.main={model='fake/writer'}", "agents.critic=false", "topology.max_revisions=1"]


def writes(*answers: str) -> Scripted:
    left = iter(answers)
    return Scripted(lambda _question: json.dumps({"answer": next(left, answers[-1])}))


def test_draws_are_crossed_by_weight_and_the_same_each_time() -> None:
    plan = load("smoke", [*BASE, DRAW, "samples=2000"])
    seeds = seeds_of(plan)[:]
    assert seeds == seeds_of(plan)[:]
    counts = {name: Counter(seed.drawn[name] for seed in seeds) for name in ("persona", "difficulty", "field")}
    assert set(counts["field"]) == {"science / physics", "science / biology", "arts"}
    for name, value, share in (("persona", "a nurse", 1 / 2), ("difficulty", "hard", 1 / 4), ("field", "arts", 1 / 4)):
        deviation = (share * (1 - share) * len(seeds)) ** 0.5
        assert abs(counts[name][value] - share * len(seeds)) < 4 * deviation, "one in 16,000 by chance"
    both = Counter((seed.drawn["persona"], seed.drawn["difficulty"]) for seed in seeds)
    assert len(both) == 4, "crossed, not bound to each other"


def test_what_is_drawn_is_told_to_the_generator_also_when_it_revises(tmp_path: Path) -> None:
    plan = load("smoke", [*BASE, DRAW, "samples=1", "task.kinds={no_digits=1}", 'verifiers=[{type="constraints"}]'])
    teacher = writes("Bees have 4 wings.", "Bees fly.")
    (sample,) = produced(plan, teacher, tmp_path)
    assert sample.revisions == 1
    for question in teacher.asked:
        lines = question.messages[-1].content.splitlines()[-3:]
        assert lines == [f"{name.capitalize()}: {value}" for name, value in sample.seed.drawn.items()]


def test_a_prompt_of_ones_own_places_what_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "generator.md").write_text("## user\nYou are {{persona}}. {{instruction}}\n")
    plan = load("smoke", [*BASE, f"prompts={folder}", "seeds.draw={persona=['a nurse']}", "samples=1"])
    teacher = writes("Bees fly.")
    produced(plan, teacher, tmp_path)
    assert teacher.asked[0].messages[0].content.startswith("You are a nurse.")
    assert "Persona:" not in teacher.asked[0].messages[0].content


def test_values_come_from_a_file_that_is_part_of_the_runs_identity(tmp_path: Path) -> None:
    file = tmp_path / "personas.txt"
    file.write_text("a nurse\n\na sailor\n")
    plan = load("smoke", [*BASE, f"seeds.draw={{persona='{file}'}}"])
    assert {seed.drawn["persona"] for seed in seeds_of(plan)[:]} == {"a nurse", "a sailor"}
    before = sources(plan)
    file.write_text("a nurse\n")
    assert sources(plan) != before


def test_a_value_may_hold_what_ends_a_line_in_unicode(tmp_path: Path) -> None:
    file = tmp_path / "personas.txt"
    file.write_text("\ufeffa nurse\r\n\r\na\u2028sailor\r\n", encoding="utf-8")
    plan = load("smoke", [*BASE, f"seeds.draw={{persona='{file}'}}"])
    assert {seed.drawn["persona"] for seed in seeds_of(plan)[:]} == {"a nurse", "a\u2028sailor"}


@pytest.mark.parametrize(
    ("draw", "problem"),
    [
        ("{x=[]}", "seeds.draw.x: has nothing to draw"),
        ("{x={a=0}}", "seeds.draw.x: has nothing to draw"),
        ("{x={a={b=-1}}}", "seeds.draw.x: 'a / b' needs a weight of 0 or more, not -1"),
        ("{x={a=nan}}", "'a' needs a weight of 0 or more, not nan"),
        ("{x={a=inf}}", "'a' needs a weight of 0 or more, not inf"),
        ("{x={a=true}}", "needs a weight of 0 or more, not True"),
        ("{x='nowhere.txt'}", "nowhere.txt: cannot be read"),
        ("{'Not A Name'=['a']}", "should match pattern"),
    ],
)
def test_a_draw_that_cannot_be_made_is_told(draw: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load("smoke", [*BASE, f"seeds.draw={draw}"])


def examples_shown(question: Question) -> tuple[str, ...]:
    return tuple(message.content for message in question.messages[1:-1] if message.role == "assistant")


@pytest.mark.parametrize("count", [0, 2, 50])
def test_examples_are_drawn_afresh_for_each_sample(count: int, tmp_path: Path) -> None:
    settings = [*BASE, f"agents.generator.examples={count}", "samples=12", "verifiers=[]"]
    teacher = writes("Bees fly.")
    produced(load("smoke", settings), teacher, tmp_path)
    shown = [examples_shown(question) for question in teacher.asked]
    pool = load("smoke", BASE).prompt("generator").examples
    assert {len(one) for one in shown} == {min(count, len(pool))}
    assert all(set(one) <= set(pool) for one in shown)
    assert len(set(shown)) > (6 if count else 0)
    assert all(question.messages[0].role == "system" for question in teacher.asked)
