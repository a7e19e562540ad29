"""Weights from what a student fails at, and seeds that are drawn by them."""

from collections import Counter
from math import log
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.planning.seeds import RunSeeds
from agents.studies.held_out_evaluation import held_out_seeds
from core.errors import RecipeError
from core.intervals import IntervalEstimate, estimate_share, estimate_small_mean
from core.sample import iterate_labels
from flows.evaluate.student_evaluation import collect_used_requests
from flows.recipes.recipe_catalog import load_recipe_plan
from plugins.focus.hooks import HOOKS
from plugins.focus.summary import describe_focus, format_earlier, format_measured
from plugins.focus.weights import LEAST_WEIGHT, MOST_WEIGHT, FocusWeights, WeightedValue, weigh_values

KINDS = [f"kind{number}" for number in range(8)]
RECIPE = "constrained-instructions"
WRITTEN = "grounded-qa"
"""Its generator writes the questions."""


def draw_requests(rng: Random, rates: dict[str, float], number: int) -> tuple[list[dict[str, Any]], list[float]]:
    seeds = [{"kind": rng.choice(KINDS), "rules": [[{"kind": rng.choice("ab")}]]} for _ in range(number)]
    return seeds, [float(rng.random() < rates.get(seed["kind"], 0.5)) for seed in seeds]


def share(failures: Any) -> IntervalEstimate | None:
    return estimate_share(round(sum(failures)), len(failures))


def test_a_planted_weakness_gets_weight_and_a_strength_loses_it_and_the_control_does_the_opposite() -> None:
    seeds, failed = draw_requests(Random(1), {"kind3": 0.95, "kind5": 0.05}, 400)
    found, control = (
        {one.value: one.weight for one in weigh_values(seeds, failed, share, inverse=inverse)}
        for inverse in (False, True)
    )
    assert (found["kind3"] > 1.5, found["kind5"]) == (True, LEAST_WEIGHT)
    assert (control["kind3"] < 0.7, control["kind5"]) == (True, MOST_WEIGHT)
    assert all(0.75 < found[kind] < 1.3 for kind in KINDS if kind not in ("kind3", "kind5"))
    assert found["a"] == found["b"] == 1, "the other attribute makes no difference"


def test_chance_steers_little() -> None:
    """Of eight equal values with 25 requests each, half of which fail; unshrunk, the mean is 0.16."""
    rng, weights, raw = Random(2), [], []
    for _ in range(200):
        found = [one for one in weigh_values(*draw_requests(rng, {}, 200), share) if one.attribute == "kind"]
        weights += [abs(log(one.weight)) for one in found]
        raw += [abs(log(max(one.measured.value, 0.1) / 0.5)) for one in found if one.measured]
    assert sum(weights) / len(weights) < 0.05
    assert sum(raw) / len(raw) > 0.14


def test_losses_steer_as_failures_do() -> None:
    rng = Random(3)
    seeds, _ = draw_requests(rng, {}, 300)
    losses = [rng.gauss(2.0 if seed["kind"] == "kind1" else 1.0, 0.3) for seed in seeds]
    found = {one.value: one.weight for one in weigh_values(seeds, losses, estimate_small_mean)}
    assert 1.6 < found["kind1"] < 1.9
    assert all(0.7 < found[kind] < 1 for kind in KINDS if kind != "kind1")


@pytest.mark.parametrize(
    ("values", "overall", "said"),
    [
        (4, 0.0, "no request failed, so seeds are drawn as before"),
        (4, 1.0, "no request passed, so seeds are drawn as before"),
        (
            4,
            0.5,
            "no value differs from the rest beyond chance; 96 requests show differences of 20%, so seeds are drawn as",
        ),
        (0, 0.5, "no attribute of the seeds has several values that recur, so seeds are drawn as before"),
    ],
)
def test_why_nothing_is_steered_is_one_sentence(values: int, overall: float, said: str) -> None:
    equal = [
        WeightedValue(attribute="kind", value=kind, requests=15, measured=None, weight=1.0) for kind in KINDS[:values]
    ]
    found = FocusWeights(run="before", by="failures", overall=overall, values=tuple(equal), requests=("asked",) * 60)
    assert said in describe_focus(found)


def test_a_value_is_shown_with_what_was_measured_a_generation_earlier() -> None:
    rate = share([1.0] * 30 + [0.0] * 10)
    old = WeightedValue(attribute="kind", value="kind1", requests=40, measured=rate, weight=1.4)
    before = FocusWeights(run="first", by="failures", overall=0.5, values=(old,), requests=())
    assert (
        format_earlier(before, old.model_copy(update={"weight": 1.0}))
        == f"{format_measured(before, old)}, drawn at 1.4"
    )
    assert format_earlier(before, old.model_copy(update={"value": "kind2"})) == format_earlier(None, old) == ""


@pytest.mark.parametrize("table", ["{}", "{by='failures',weights='weights.json'}"])
def test_weights_are_from_a_file_or_from_the_release_before(table: str) -> None:
    with pytest.raises(RecipeError, match="give either weights, as in"):
        load_recipe_plan(RECIPE, [f"focus={table}"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["focus={by='failures'}"], r"focus\.by: is measured on a student, so add the table \[student\]"),
        (
            ["focus={by='failures',requests=10}", "student={epochs=1}"],
            r"focus\.requests: .*greater than or equal to 50",
        ),
    ],
)
def test_what_would_fail_in_the_second_generation_is_refused_in_the_first(settings: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe_plan("smoke", settings)


@pytest.mark.parametrize(("by", "faults"), [("failures", 1), ("inverse", 1), ("loss", 0)])
def test_only_losses_steer_where_the_generator_writes_the_questions(by: str, faults: int) -> None:
    plan = load_recipe_plan(WRITTEN, [f"focus={{by='{by}'}}", "student={epochs=1}"])
    assert len(HOOKS.list_seed_problems(plan, RunSeeds(plan, "0" * 16))) == faults


def weights_file(path: Path, weights: dict[str, float], requests: tuple[str, ...] = ()) -> str:
    values = tuple(
        WeightedValue(attribute="constraints", value=kind, requests=50, measured=None, weight=weight)
        for kind, weight in weights.items()
    )
    found = FocusWeights(run="before", by="failures", overall=0.5, values=values, requests=requests)
    path.write_text(found.model_dump_json())
    return f"focus.weights={path}"


def kinds_drawn(seeds: RunSeeds) -> Counter[str]:
    labels = (dict(iterate_labels(seed.data))["constraints"] for seed in seeds[:])
    return Counter(kind for found in labels for kind in found)


def test_seeds_have_the_weighted_values_more_often_and_none_is_left_out(tmp_path: Path) -> None:
    size = "samples=3000"
    plain = RunSeeds(load_recipe_plan(RECIPE, [size]), "0" * 16)
    before = kinds_drawn(plain)
    more, less = "max_words", "no_commas"
    written = weights_file(tmp_path / "weights.json", {more: 2.0, less: 0.5})
    focused = RunSeeds(load_recipe_plan(RECIPE, [size, written]), "0" * 16)
    after = kinds_drawn(focused)
    assert 1.4 < after[more] / before[more] < 2.0
    assert 0.4 < after[less] / before[less] < 0.7
    assert after.keys() == before.keys()
    again = RunSeeds(load_recipe_plan(RECIPE, [size, written]), "0" * 16)
    assert [again[index] for index in (0, 777, 2999)] == [focused[index] for index in (0, 777, 2999)]


def test_no_weight_changes_the_held_out_requests_and_those_of_the_weights_are_not_asked(tmp_path: Path) -> None:
    plan = load_recipe_plan(RECIPE, [])
    plain = held_out_seeds(plan, 20)
    request = str(plain[0].data["instruction"])
    focused = load_recipe_plan(RECIPE, [weights_file(tmp_path / "weights.json", {"max_words": 2.0}, (request,))])
    assert [seed.data for seed in held_out_seeds(focused, 20)] == [seed.data for seed in plain]
    assert request in collect_used_requests(None, focused, print)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory; `stillhouse focus RUN --out"),
        ("{}", "is no file of `stillhouse focus`: run: Field required"),
        ("3.0", "the weight of constraints = 'max_words' must be 0.5 to 2, not 3"),
    ],
)
def test_bad_weights_are_one_sentence(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    setting = weights_file(path, {"max_words": float(content) if content == "3.0" else 1.0})
    if content is None:
        path.unlink()
    elif content == "{}":
        path.write_text(content)
    with pytest.raises(RecipeError, match=r"focus\.weights") as error:
        load_recipe_plan(RECIPE, [setting])
    assert said in str(error.value)
