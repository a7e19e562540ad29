import json
from collections import Counter

import pytest

from core.errors import RecipeError
from flows.recipes.recipe_catalog import load_recipe_plan
from tests.support.scripted_teacher import ScriptedTeacher, build_test_seeds

DRAW = (
    "seeds.draw={persona=['a nurse','a sailor'],difficulty={easy=3,hard=1},"
    "field={science={physics=2,biology=1},arts=1,never=0}}"
)
BASE = ["teachers.main={model='fake/writer'}", "agents.critic=false", "topology.max_revisions=1"]


def writes(*answers: str) -> ScriptedTeacher:
    left = iter(answers)
    return ScriptedTeacher(lambda _question: json.dumps({"answer": next(left, answers[-1])}))


def test_conditions_are_drawn_independently_by_weight_and_reproducibly() -> None:
    plan = load_recipe_plan("smoke", [*BASE, DRAW, "samples=2000"])
    seeds = build_test_seeds(plan)[:]
    assert seeds == build_test_seeds(plan)[:]
    counts = {name: Counter(seed.conditions[name] for seed in seeds) for name in ("persona", "difficulty", "field")}
    assert set(counts["field"]) == {"science / physics", "science / biology", "arts"}
    for name, value, share in (("persona", "a nurse", 1 / 2), ("difficulty", "hard", 1 / 4), ("field", "arts", 1 / 4)):
        deviation = (share * (1 - share) * len(seeds)) ** 0.5
        assert abs(counts[name][value] - share * len(seeds)) < 4 * deviation, "one in 16,000 by chance"
    both = Counter((seed.conditions["persona"], seed.conditions["difficulty"]) for seed in seeds)
    assert len(both) == 4, "crossed, not bound to each other"


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
def test_an_unusable_condition_is_reported(draw: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        load_recipe_plan("smoke", [*BASE, f"seeds.draw={draw}"])
