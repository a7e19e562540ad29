"""Searches on a scripted teacher with a planted better prompt and a planted trap of sameness; resuming, budgets and bad input."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config.toml_text import parse_toml
from core.errors import LimitReached, UsageError
from core.stop_signal import RunStopped
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import CommandSession
from plugins.improve.improved_recipe import write_improved_recipe
from plugins.improve.improvement import ImproveOptions, prepare_improvement, run_improvement
from plugins.improve.measurement import measure_rate, read_drafts
from plugins.improve.results import Improvement, format_improvement
from plugins.improve.search_names import SearchName
from plugins.improve.tests.planted import install_script, load_planted, write_recipe

OPTIONS = ImproveOptions("examples", "main", train=32, held_out=60, calls=600, floor=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        install_script(made / "site", patch)
        write_recipe(made / "recipe")
        yield made


@pytest.fixture(scope="module")
def whole(place: Path) -> Improvement:
    """The search of examples that others are compared with, in the folder `whole`."""
    return improve(place, out="whole")


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """A folder of a test, with the shared recipe."""
    (tmp_path / "recipe").symlink_to(place / "recipe")
    return tmp_path


def improve(folder: Path, options: ImproveOptions = OPTIONS, *overrides: str, out: str = "out") -> Improvement:
    """In a folder with a folder `recipe`."""
    plan = load_planted(folder / "recipe", overrides)
    return run_improvement(prepare_improvement(plan, options, folder / out), CommandSession())


def list_asked(found: Improvement) -> list[str]:
    assert found.candidate is not None
    return [one.asked for one in found.candidate.prompts["generator"].examples]


def test_a_planted_order_of_examples_is_found_and_the_trap_is_refused(whole: Improvement) -> None:
    found = whole
    assert found.held_out is not None
    assert found.held_out.accepted
    assert "key" in list_asked(found)[0]
    assert "trap" not in list_asked(found)[-1]
    assert found.held_out.gain.low > 0
    assert found.held_out.winner.passed.value > 0.75 > 0.5 > found.held_out.start.passed.value
    assert found.refused > 0, "a candidate that falls into the trap was measured"
    assert found.complete
    assert found.calls <= OPTIONS.calls
    assert "accepted: +" in format_improvement(found)


def test_without_the_floor_the_trap_is_accepted_and_its_sameness_is_shown(folder: Path) -> None:
    found = improve(folder, OPTIONS._replace(floor=False))
    assert found.held_out is not None
    assert found.held_out.accepted
    assert "trap" in list_asked(found)[-1]
    assert found.held_out.winner.passed.value == 1
    assert found.held_out.diversity.ratios["texts"].high <= 0.2
    assert found.refused == 0


def test_reflection_finds_the_planted_text_from_the_findings(folder: Path) -> None:
    found = improve(folder, OPTIONS._replace(search="gepa", calls=300))
    assert found.held_out is not None
    assert found.held_out.accepted
    assert found.candidate is not None
    assert found.candidate.prompts["generator"].system == "Write sound prose."
    assert "Write sound prose." in [one.text for one in found.proposals]
    assert found.spent.calls > found.calls + 2 * OPTIONS.held_out, "reflections are journaled too"


@pytest.mark.parametrize("floor", [True, False])
def test_a_reflected_trap_is_refused_by_the_floor_alone(folder: Path, floor: bool) -> None:
    settings = 'teachers.main.extra={text="Give one answer."}'
    found = improve(folder, OPTIONS._replace(search="gepa", calls=300, floor=floor), settings)
    accepted = found.held_out is not None and found.held_out.accepted
    assert accepted is not floor
    assert ("Give one answer." in [one.text for one in found.proposals]) is True


def test_a_proposal_that_loses_a_placeholder_is_not_asked(folder: Path) -> None:
    settings = 'teachers.main.extra={text="Write sound prose on {{topic}}."}'
    found = improve(folder, OPTIONS._replace(search="gepa", calls=300), settings)
    assert {one.refused for one in found.proposals} == {"its placeholders must be none"}
    assert found.held_out is None


def test_the_control_uses_as_many_drafts_and_the_same_seeds(folder: Path, whole: Improvement) -> None:
    control = improve(folder, OPTIONS._replace(search="random"))
    assert OPTIONS.calls - OPTIONS.train < control.calls <= OPTIONS.calls
    assert control.start == whole.start


@pytest.mark.parametrize("search", ["examples", "gepa"])
def test_a_stopped_search_resumes_to_the_result_of_one_that_was_not(folder: Path, search: SearchName) -> None:
    options = OPTIONS._replace(search=search, calls=300)
    whole = improve(folder, options, out="whole")
    plan = load_planted(folder / "recipe")
    task = prepare_improvement(plan, options, folder / "stopped")
    session, stops = CommandSession(), 0
    session.show_progress = lambda describe: stop_after(session, task.search_folder)  # type: ignore[method-assign]
    while stops < 50:
        session.stop = threading.Event()
        try:
            resumed = run_improvement(task, session)
            break
        except RunStopped:
            stops += 1
    assert stops > 1
    assert resumed.model_dump(exclude={"spent"}) == whole.model_dump(exclude={"spent"})
    drafts = list(read_drafts(task.search_folder / "drafts.jsonl"))
    assert len({(one.candidate, one.seed) for one in drafts}) == len(drafts), "no draft is asked twice"


def stop_after(session: CommandSession, folder: Path) -> None:
    """Stop at each 100th draft."""
    if len(list(read_drafts(folder / "drafts.jsonl"))) % 100 == 0:
        session.stop.set()


def test_a_budget_that_ends_in_the_middle_keeps_what_was_measured(folder: Path, whole: Improvement) -> None:
    with pytest.raises(LimitReached, match=r"budget.calls = 150 is reached: .* a higher budget resumes"):
        improve(folder, OPTIONS, "budget.calls=150")
    stopped = Improvement.model_validate_json((folder / "out" / "improve.json").read_bytes())
    assert (stopped.complete, stopped.held_out, stopped.spent.calls <= 150) == (False, None, True)
    assert stopped.start is not None
    assert stopped.verdict == "stopped: no verdict yet"
    kept = len(list(read_drafts(folder / "out" / "search" / "drafts.jsonl")))
    resumed = improve(folder, OPTIONS)
    assert resumed.model_dump(exclude={"spent"}) == whole.model_dump(exclude={"spent"})
    assert kept > 100


def test_an_improved_recipe_has_the_prompts_of_the_winner_and_all_seeds(folder: Path, whole: Improvement) -> None:
    found = whole
    plan = load_recipe_plan("constrained-instructions")
    assert found.candidate is not None
    write_improved_recipe("constrained-instructions", plan, found.candidate, folder / "better")
    data = parse_toml((folder / "better" / "recipe.toml").read_text())
    assert {"samples", "keep", "seeds"}.isdisjoint(data)
    better = load_recipe_plan(str(folder / "better"))
    assert better.prompt("generator").examples == tuple(found.candidate.replies)
    assert (better.recipe.samples, better.recipe.seeds) == (plan.recipe.samples, plan.recipe.seeds)
    assert better.recipe.agents.generator.temperature == found.candidate.temperature


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        (
            OPTIONS._replace(teacher="mian"),
            [],
            "--teacher mian: planted has no teacher of this name; did you mean 'main'",
        ),
        (
            OPTIONS._replace(held_out=120),
            [],
            "planted: has 140 seeds, and 168 are needed: 32 to train, 16 for examples",
        ),
        (OPTIONS._replace(calls=70), [], "--calls 70: start and one candidate need 80 drafts; give more"),
        (OPTIONS, ["verifiers=[]"], "planted: has no check, so no draft can be scored; add a table"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(
    folder: Path, options: ImproveOptions, overrides: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        improve(folder, options, *overrides)
    assert not (folder / "out").exists()


def test_a_folder_with_another_search_is_refused(place: Path, whole: Improvement) -> None:
    assert whole.complete
    with pytest.raises(UsageError, match=r"has another search \(planted: search examples with 600 first drafts"):
        improve(place, OPTIONS._replace(search="random"), out="whole")


def test_the_rate_leaves_out_the_prefix_that_the_teacher_has_cached(place: Path, whole: Improvement) -> None:
    assert whole.complete
    drafts = list(read_drafts(place / "whole" / "search" / "drafts.jsonl"))[:10]
    cached = [one.model_copy(update={"cached_tokens": 10 * (place > 2)}) for place, one in enumerate(drafts)]
    whole = sum(one.prompt_tokens + one.completion_tokens for one in drafts)
    passed = sum(one.passed for one in drafts)
    assert measure_rate(drafts) == pytest.approx(1000 * passed / whole)
    assert measure_rate(cached) == pytest.approx(1000 * passed / (whole - 100)), (
        "also of the first, which filled the cache"
    )
    assert json.loads(drafts[0].model_dump_json())["fault"] in ("", "sound_word")
