"""Searches on a scripted teacher with a planted better prompt and a planted trap of sameness; resuming, budgets and bad input."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config.toml_text import parse_toml
from core.errors import LimitReached, ProviderError, UsageError
from core.project_files import PROJECT
from core.stop_signal import RunStopped
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import CommandSession
from plugins.improve.improved_recipe import list_kept_overrides, write_improved_recipe
from plugins.improve.improvement import ImproveOptions, prepare_improvement, run_improvement
from plugins.improve.measurement import MeasuredDraft, list_texts, measure_rate, read_drafts
from plugins.improve.prompt_parts import Example, find_part_fault
from plugins.improve.results import HeldOutComparison, Improvement, estimate_rate_gain, format_improvement
from plugins.improve.search_names import SearchName
from plugins.improve.tests.planted import install_script, load_planted, write_recipe
from tests.support.http_serving import QueueingServer, QuietHandler, serve

OPTIONS = ImproveOptions("examples", "main", train=32, held_out=60, calls=600, floor=True)
FEW = 220
"""Drafts after which the search of examples has another winner."""


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
    unusable = [one for one in found.proposals if "{{topic}}" in one.text]
    assert [(one.refused, one.rate) for one in unusable] == [("its placeholders must be none", None)]
    assert "{{topic}}" not in found.model_dump_json(include={"candidate"})


def test_a_reflection_that_is_cut_off_is_not_used(folder: Path) -> None:
    class CutOff(QuietHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
            reflects = asked.startswith("A teacher model")
            text = "```\nWrite sound" if reflects else json.dumps({"answer": f"It is odd, {asked[:40]}."})
            choice = {"index": 0, "finish_reason": "length" if reflects else "stop"}
            body = {
                "choices": [choice | {"message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 20, "completion_tokens": 10},
            }
            self.send_body(200, json.dumps(body).encode())

    with serve(QueueingServer(("127.0.0.1", 0), CutOff)) as server:
        url = f'teachers.main={{model="openai/m", base_url="http://localhost:{server.server_address[1]}/v1"}}'
        found = improve(folder, OPTIONS._replace(search="gepa", calls=64), url)
    assert [one.refused for one in found.proposals] == ["it was cut off at 1,000 tokens"]
    assert found.candidates == 1
    assert found.spent.calls == 32 + (64 - 32) // 4, "drafts that a reflection reads again are not counted twice"


def test_a_search_by_reflection_asks_no_examples_and_keeps_what_a_proposal_brought(folder: Path) -> None:
    found = improve(folder, OPTIONS._replace(search="gepa", calls=64), 'teachers.main.extra={text="Write."}')
    assert found.declared.examples == 0
    assert all(one.rate is not None and one.rate_before is not None for one in found.proposals)


def test_texts_of_a_reply_are_compared_rather_than_its_answer_alone() -> None:
    replies = [
        json.dumps({"question": f"Q{n}?", "quotes": ["a b"], "answer": "The text does not say."}) for n in (1, 2)
    ]
    assert [sorted(list_texts(reply)) for reply in replies] == [
        sorted([f"Q{n}?", "a b", "The text does not say."]) for n in (1, 2)
    ]
    assert list_texts("no JSON") == ["no JSON"]


def test_tokens_alone_decide_no_gain_where_no_pair_of_drafts_differs() -> None:
    def build(tokens: int, number: int) -> list[MeasuredDraft]:
        one = {"fault": "", "evidence": "", "answer": "a", "asked": "q", "reply": "a", "cached_tokens": 0}
        return [
            MeasuredDraft(
                candidate="c", seed=str(seed), passed=True, prompt_tokens=tokens, completion_tokens=seed % 3, **one
            )
            for seed in range(number)
        ]

    for number, certain in ((23, False), (200, True)):
        gain = estimate_rate_gain(build(2280, number), build(2120, number))
        assert gain is not None
        assert gain.value == pytest.approx(1000 / 2121 - 1000 / 2281, rel=0.01)
        assert (gain.low > 0) is certain, number


def test_an_endpoint_that_refuses_every_second_call_is_an_error_and_its_drafts_are_asked_again(folder: Path) -> None:
    answered = 0

    class Stopping(QuietHandler):
        def do_POST(self) -> None:
            nonlocal answered
            self.rfile.read(int(self.headers["Content-Length"]))
            answered += 1
            message = {"role": "assistant", "content": json.dumps({"answer": f"It is odd {answered}."})}
            body = {
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 20, "completion_tokens": 10},
            }
            self.send_body(400 if answered > 16 and answered % 2 else 200, json.dumps(body).encode())

    with serve(QueueingServer(("127.0.0.1", 0), Stopping)) as server:
        url = f'teachers.main={{model="openai/m", base_url="http://localhost:{server.server_address[1]}/v1"}}'
        with pytest.raises(ProviderError, match=r"for \d+ of 32 drafts; the same command resumes"):
            improve(folder, OPTIONS._replace(search="random", train=32), url)
    drafts = list(read_drafts(folder / "out" / "search" / "drafts.jsonl"))
    assert 32 <= len(drafts) < 16 + 32
    assert "provider" not in {one.fault for one in drafts}


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
    """Stop at each 60th draft."""
    if len(list(read_drafts(folder / "drafts.jsonl"))) % 60 == 0:
        session.stop.set()


def test_seeds_that_the_teacher_refuses_do_not_pass_and_the_search_completes(folder: Path) -> None:
    found = improve(folder, OPTIONS._replace(search="random", calls=150), "teachers.main.extra={unavailable=0.1}")
    drafts = list(read_drafts(folder / "out" / "search" / "drafts.jsonl"))
    assert found.complete
    assert 0 < sum(one.fault == "provider" for one in drafts) < 0.3 * len(drafts)
    asked = found.spent.calls
    again = improve(folder, OPTIONS._replace(search="random", calls=150), "teachers.main.extra={unavailable=0.1}")
    assert again.spent.calls == asked, "a refused seed is not asked again"


def test_a_teacher_that_answers_nothing_is_an_error_and_nothing_is_stored(folder: Path) -> None:
    with pytest.raises(ProviderError, match="the same command resumes"):
        improve(folder, OPTIONS, "teachers.main.extra={unavailable=1.0}")
    assert not list(read_drafts(folder / "out" / "search" / "drafts.jsonl"))


class WithoutUsage(QuietHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": json.dumps({"answer": "It is sound."})}
        body = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        self.send_body(200, json.dumps(body).encode())


def test_an_endpoint_without_usage_is_refused_before_the_search(folder: Path) -> None:
    with serve(QueueingServer(("127.0.0.1", 0), WithoutUsage)) as server:
        url = f'teachers.main={{model="openai/m", base_url="http://localhost:{server.server_address[1]}/v1"}}'
        with pytest.raises(UsageError, match=r"openai/m: reports 0 tokens \(usage\) of 16 drafts"):
            improve(folder, OPTIONS, url)


def test_a_reflection_that_fails_last_is_raised_and_asked_once(folder: Path) -> None:
    plan = load_planted(folder / "recipe", ["teachers.main.extra={reflects=false}"])
    task = prepare_improvement(plan, OPTIONS._replace(search="gepa"), folder / "out")
    last = task.declared.model_copy(update={"calls": 36, "examples": 0})  # the start, and the drafts of one reflection
    with pytest.raises(ProviderError, match="no reply to a reflection"):
        run_improvement(task._replace(declared=last), CommandSession())
    stored = Improvement.model_validate_json((folder / "out" / "improve.json").read_bytes())
    assert (stored.complete, stored.start is None) == (False, False)
    drafts = len(list(read_drafts(folder / "out" / "search" / "drafts.jsonl")))
    assert stored.spent.calls == drafts + 1


@pytest.mark.parametrize("text", ["Fine.\u2028# Note", "Fine.\x0c## Title", "Fine.\n# Note"])
def test_a_text_with_a_line_that_a_prompt_file_takes_for_a_heading_is_refused(text: str) -> None:
    assert find_part_fault("old", text) == "a line begins with # or ##, which begins a message"
    assert not Example(asked="Write.", reply=text).usable
    assert Example(asked="Write.", reply=text.replace("#", "")).usable


def test_the_minutes_of_the_budget_are_kept(folder: Path) -> None:
    with pytest.raises(LimitReached, match=r"budget.minutes = 0 is reached"):
        improve(folder, OPTIONS, "budget.minutes=0")


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


def test_a_second_winner_has_a_wider_interval_and_replaces_the_recipe_that_nobody_changed(
    place: Path, folder: Path, whole: Improvement
) -> None:
    first = improve(folder, OPTIONS._replace(calls=FEW))
    second = improve(folder)
    assert first.candidate is not None
    assert second.candidate is not None
    assert second.held_out is not None
    assert whole.held_out is not None
    assert first.candidate != second.candidate == whole.candidate
    assert (second.held_out.number, whole.held_out.number) == (2, 1)
    assert second.held_out.gain.value == whole.held_out.gain.value
    assert second.held_out.gain.low < whole.held_out.gain.low
    plan, better = load_planted(folder / "recipe"), folder / "better"
    for found in (first.candidate, second.candidate, second.candidate):
        write_improved_recipe(str(folder / "recipe"), plan, found, better)
        written = parse_toml((better / "recipe.toml").read_text())
        assert written["agents"]["generator"]["temperature"] == found.temperature
        assert all(
            one.reply in (better / "prompts" / "generator.md").read_text()
            for one in found.prompts["generator"].examples
        )
    (better / "recipe.toml").write_text((better / "recipe.toml").read_text() + "# mine\n")
    write_improved_recipe(str(folder / "recipe"), plan, second.candidate, better)
    with pytest.raises(UsageError, match="was changed after an earlier winner was written there"):
        write_improved_recipe(str(folder / "recipe"), plan, first.candidate, better)
    assert (better / "recipe.toml").read_text().endswith("# mine\n")
    with pytest.raises(UsageError, match="exists already"):
        write_improved_recipe(str(place / "recipe"), plan, second.candidate, place / "recipe")


def test_overrides_that_undo_the_improvement_are_left_out(whole: Improvement) -> None:
    assert whole.candidate is not None
    temperature = f"agents.generator.temperature={whole.candidate.temperature}"
    asked = ["samples=30", "prompts=mine", "agents.generator.temperature=0.1"]
    assert list_kept_overrides(asked, whole.candidate) == ["samples=30"]
    tables = ["agents={critic=false}"]
    assert list_kept_overrides(tables, whole.candidate) == [*tables, temperature]


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


def test_recorded_rounds_with_a_capable_model_are_judged_as_their_page_says() -> None:
    folder = PROJECT / "plugins" / "improve" / "benchmarks"
    sides: dict[str, dict[str, MeasuredDraft]] = {}
    for draft in read_drafts(folder / "grounded-qa" / "drafts.jsonl"):
        sides.setdefault(draft.candidate, {})[draft.seed] = draft
    start, first, second = sides.values()
    held_out = list(start)[20:]
    page = (folder / "improve.md").read_text()
    for before, after in ((start, first), (first, second)):
        both = [[side[seed] for seed in held_out] for side in (before, after)]
        compared = HeldOutComparison.from_drafts(both[0], both[1], [{}] * len(held_out), floor=True)
        gain = compared.gain.format(lambda value: f"{value:+.3g}")
        assert f"| {compared.winner.rate:.3f} | {gain} | {compared.winner.tokens:,.0f} | no |" in page
        assert not compared.accepted
        assert compared.refused is None
