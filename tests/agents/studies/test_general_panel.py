"""The general panel: what it asks for each recipe, how it judges, and what the embedded model can do."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from agents.checks.base import Subject
from agents.checks.text.prose_faults import content_word_stems
from agents.families.constrained_instructions import TASK_TEMPLATES, ConstrainedOptions
from agents.studies.general_panel import (
    CONSTRAINTS,
    FORM_KINDS,
    MAX_TOKENS,
    OPEN,
    PanelFamily,
    PanelResults,
    ask_general_panel,
    build_general_panel,
    find_short_answer_fault,
    find_token_limit,
    panel_check,
)
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.sample import Seed
from flows.recipes.recipe_catalog import list_built_in_recipes, load_recipe_plan

RECIPES = sorted(list_built_in_recipes())


@pytest.mark.whole
@pytest.mark.parametrize("name", RECIPES)
def test_no_built_in_recipe_trains_a_task_of_its_panel(name: str) -> None:
    fewer = {"reasoning": ["task.questions=400"]}  # of the same kinds, in a fifth of the time
    plan = load_recipe_plan(name, fewer.get(name, []))
    test, validation = build_general_panel(plan, 400), build_general_panel(plan, 400, "validation")
    rows = [] if plan.recipe.seeds.documents else plan.seed_rows.rows
    topics = {stem for row in rows for stem in content_word_stems(str(row.get("topic", "")))}
    texts = {str(value).casefold() for row in rows for value in row.values()}
    wordings = {text.partition("{topic}")[0] for text in TASK_TEMPLATES}
    for panel in (test, validation):
        assert len(panel.judged) == len({seed.data["question"] for seed in panel.judged}) == 400
        assert sum(seed.data["group"] == CONSTRAINTS for seed in panel.judged) >= 150
        for seed in panel.judged:
            if seed.data["group"] == CONSTRAINTS:
                if isinstance(plan.options, ConstrainedOptions):
                    kinds = {kind for kind, weight in plan.options.kinds.items() if weight}
                    assert kinds.isdisjoint(FORM_KINDS[seed.data["kind"]].trained_by)
                    assert not topics & set(content_word_stems(seed.data["topic"])), seed.data["topic"]
                assert seed.data["topic"] not in texts
                assert seed.data["question"].partition(seed.data["topic"])[0] not in wordings
            assert seed.data["question"].casefold() not in texts
    assert not {seed.data["question"] for seed in test.seeds} & {seed.data["question"] for seed in validation.seeds}
    assert not _panel_topics(test) & _panel_topics(validation)
    assert build_general_panel(plan, 64).judged == test.judged[:64], "a larger panel begins with a smaller one"


def _panel_topics(panel: object) -> set[str]:
    seeds = panel.judged
    return {
        text for seed in seeds for text in (seed.data.get("topic"), seed.data.get("params", {}).get("other")) if text
    }


def test_what_a_recipe_trains_is_left_out(tmp_path: Path) -> None:
    all_kinds = {seed.data["kind"] for seed in build_general_panel(load_recipe_plan("extraction"), 200).judged}
    assert {"products", "needle_haystack", "long_text", "fairy_tale"} <= all_kinds
    (tmp_path / "topics.jsonl").write_text(json.dumps({"topic": "Zoos", "words": ["cages", "monkeys"]}) + "\n")
    own = load_recipe_plan("smoke", [f"seeds.path={tmp_path}/topics.jsonl"])
    asked = {seed.data.get("topic") for seed in build_general_panel(own, 400).judged}
    assert "zoos" not in asked
    assert "soap" not in asked, "it is of the other part"
    assert "mirrors" in asked
    with pytest.raises(
        UsageError, match=r"smoke: the general panel has \d+ tasks that the recipe does not train, not 5000"
    ):
        build_general_panel(own, 5000)


@pytest.mark.parametrize(
    ("reply", "question", "answers", "options", "right"),
    [
        ("The capital of France is Paris.", "What is the capital of France?", ["Paris"], ["Paris", "Rome"], True),
        (
            "Rome, Paris, Berlin, Madrid",
            "What is the capital of France?",
            ["Paris"],
            ["Paris", "Rome", "Berlin"],
            False,
        ),
        ("It is comparison.", "What is the capital of France?", ["Paris"], ["Paris", "Rome"], False),
        ('The opposite of "hot" is "cold".', 'What is the opposite of "hot"?', ["cold"], ["cold", "hot", "dry"], True),
        ("Hot, not cold", 'What is the opposite of "hot"?', ["cold"], ["cold", "hot", "dry"], True),
        ("", 'What is the opposite of "hot"?', ["cold"], ["cold", "dry"], False),
        ("3 * 4 = 12\n\nThe answer is 12.", "Solve 3 * 4.", ["12"], [], True),
        ("The product of 3 and 4 is twelve.", "Solve 3 * 4.", ["12"], [], True),
        ("3 * 4 = 7", "Solve 3 * 4.", ["12"], [], False),
        ("1 * 5 = 5", "Solve 1 * 5.", ["5"], [], True),
        ("0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12", "Solve 3 * 4.", ["12"], [], False),
        ("A century has 1,00 years, or 100.", "How many years does a century have?", ["100"], [], False),
        ("There are 1,000 meters", "How many meters does a kilometer have?", ["1000"], [], True),
        ("An apple is a fruit.", "Is apple a kind of day, fruit or metal?", ["fruit"], ["day", "fruit", "metal"], True),
        (
            "A day, a fruit or a metal.",
            "Is apple a kind of day, fruit or metal?",
            ["fruit"],
            ["day", "fruit", "metal"],
            False,
        ),
    ],
)
def test_the_first_possible_answer_of_a_reply_counts(
    reply: str, question: str, answers: list[str], options: list[str], *, right: bool
) -> None:
    assert (find_short_answer_fault(reply, question, answers, options) is None) == right


@pytest.mark.slow
def test_the_embedded_model_passes_some_tasks_and_one_fixed_answer_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies are cut off at the group's limit and judged as they are; asked again, they come from the cache."""
    monkeypatch.setitem(MAX_TOKENS, OPEN, 40)
    plan = load_recipe_plan("constrained-instructions")
    panel = build_general_panel(plan, 12)

    def ask(model: TeacherConfig) -> tuple[PanelResults, int]:
        spent: list[int] = []
        found = asyncio.run(
            ask_general_panel(
                panel, model, threading.Event(), lambda _: None, cache=tmp_path, on_spent=lambda one: spent.append(one.calls)
            )
        )  # fmt: skip
        return found, spent[0]

    teacher = plan.recipe.generator_teacher
    found, calls = ask(teacher)
    assert calls == len(panel.seeds) == 14
    results = list(zip(panel.seeds, found.results, strict=True))
    assert 2 <= found.passed <= 11
    assert found.passed == sum(found.passed_by_group.values())
    assert not {result.fault for _, result in results} & {"cut off", "no answer"}
    cut = [seed.data["group"] for seed, result in results if not result.replies[0].finished]
    assert CONSTRAINTS in cut or OPEN in cut
    for seed, result in results:
        assert result.replies[0].usage.completion_tokens <= find_token_limit(seed)
    assert found.words > 20
    assert ask(teacher) == (found, 0)
    fixed = "A garden is a garden where you grow things."
    checks = [passes_check(seed.data, fixed) for seed in panel.judged]
    assert not any(checks)


def passes_check(data: dict[str, Any], answer: str) -> bool:
    """Whether an answer passes, by the panel's own check."""
    seed, family = Seed(id="test0000-000000", data=data), PanelFamily()
    subject = Subject(seed, family.build_answered(seed, [answer]), None)  # type: ignore[arg-type]
    return panel_check.run(subject, None) is None
