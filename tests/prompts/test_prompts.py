import asyncio
import threading
from pathlib import Path

import pytest

import prompts
from agents.families import list_families
from agents.families.base import RecipeFamily
from agents.studies.preview import preview_samples
from core.errors import UsageError
from flows.recipes.recipe_catalog import load_recipe_plan

FAMILIES = {family.name: family for family in list_families()}
ROLES = [
    pytest.param(family, role, id=f"{family.name}-{role}")
    for family in FAMILIES.values()
    for role in (*family.writes, *family.revises, "repair", "critic")
]


@pytest.mark.whole
@pytest.mark.parametrize(("family", "role"), ROLES)
def test_every_prompt_ends_with_what_the_user_asks(family: RecipeFamily, role: str) -> None:
    prompt = prompts.load_prompt(family.name, role, installed=family.prompts)
    assert prompt.messages[-1].role == "user"
    assert prompt.placeholders


@pytest.mark.whole
@pytest.mark.parametrize(
    "family", sorted(set(FAMILIES) - {"constrained_instructions", "image_questions", "own_prompt"})
)
def test_the_critics_prompt_may_place_every_field_of_its_family(family: str, tmp_path: Path) -> None:
    places = " ".join(f"{{{{{name}}}}}" for name in (*FAMILIES[family].fields, "answer"))
    (tmp_path / "critic.md").write_text(f'## system\n"clear": it is clear\n\n## user\n{places}\n')
    teacher = f"teachers.main={{model='fake/{family}'}}"
    settings = [
        "keep=0",
        "verifiers=[]",
        "agents.critic={type='teacher'}",
        "topology.max_revisions=0",
        f"prompts={tmp_path}",
        teacher,
        *(["task.questions=40"] if family == "reasoning" else []),  # 500 take seconds
    ]
    recipe = "charts" if family == "pictures" else family.replace("_", "-")
    plan = load_recipe_plan(recipe, settings)
    samples = asyncio.run(preview_samples(plan, 2, threading.Event())).samples
    assert any(sample.critiques for sample in samples)


def test_text_from_a_teacher_is_never_read_as_a_template() -> None:
    prompt = prompts.load_prompt("instructions", "critic")
    hostile = '{{answer}} {"json": {}} {{secret}}'
    filled = prompt.fill({"request": "Write a task.", "conversation": hostile})
    assert filled[-1].content == f"Request: Write a task.\n{hostile}"


def test_a_place_without_a_value_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"nothing is known for \{\{conversation\}\}; it may use request"):
        prompts.load_prompt("constrained_instructions", "critic").fill({"request": "x"})


def test_hashes_cover_the_family_and_the_shared_prompts() -> None:
    assert set(prompts.hash_prompts("grounded_qa")) == {
        "debate.md", "judge.md", "repair.md",
        "grounded_qa/critic.md", "grounded_qa/generator.md", "grounded_qa/revise.md", "grounded_qa/verifier.md",
    }  # fmt: skip


@pytest.mark.attack(
    "a prompt file that repeats a long text",
    "file and filled prompt are bounded",
)
def test_a_prompt_is_bounded_before_and_after_it_is_filled(tmp_path: Path) -> None:
    (tmp_path / "generator.md").write_text("## user\n\n" + "{{text}}" * 1_000)
    (tmp_path / "revise.md").write_text("## user\n\n" + "x" * prompts.MAX_PROMPT)
    prompt = prompts.load_prompt("smoke", "generator", tmp_path)
    assert prompt.fill({"text": "x" * 4_000})
    with pytest.raises(UsageError, match="is 4,001,000 characters long when filled, over 4,000,000; shorten the seed"):
        prompt.fill({"text": "x" * 4_001})
    with pytest.raises(UsageError, match=r"revise.md: has over 200,000 characters; shorten it"):
        prompts.load_prompt("smoke", "revise", tmp_path)
