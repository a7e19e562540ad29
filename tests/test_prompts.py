from pathlib import Path

import pytest

import prompts
from agents.families import FAMILIES
from core.errors import UsageError

ROLES = [(family, role) for family in FAMILIES for role in ("generator", "revise", "repair", "critic")]


@pytest.mark.parametrize(("family", "role"), ROLES)
def test_every_prompt_ends_with_what_the_user_asks(family: str, role: str) -> None:
    prompt = prompts.load(family, role)
    assert prompt.messages[-1].role == "user"
    assert prompt.places


def test_text_from_a_teacher_is_never_read_as_a_template() -> None:
    prompt = prompts.load("constrained_instructions", "critic")
    hostile = '{{answer}} {"json": {}} {{secret}}'
    filled = prompt.fill({"instruction": hostile, "answer": "{{instruction}}"})
    assert filled[-1].content == f"Request: {hostile}\nAnswer: {{{{instruction}}}}"


def test_a_place_without_a_value_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"nothing is known for \{\{answer\}\}; it may use instruction"):
        prompts.load("constrained_instructions", "critic").fill({"instruction": "x"})


def test_a_missing_prompt_names_those_that_are_there() -> None:
    with pytest.raises(UsageError, match=r"there are critic\.md, generator\.md"):
        prompts.load("arithmetic", "poet")


def test_a_prompt_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "generator.md").write_text("\ufeff## system\nBe terse.\n\n## user\nSay {{topic}}.\n")
    prompt = prompts.load("constrained_instructions", "generator", tmp_path)
    assert [(message.role, message.content) for message in prompt.messages] == [
        ("system", "Be terse."),
        ("user", "Say {{topic}}."),
    ]


def test_hashes_cover_the_family_and_the_shared_prompts() -> None:
    assert set(prompts.hashes("arithmetic")) == {
        "debate.md", "judge.md", "repair.md",
        "arithmetic/critic.md", "arithmetic/generator.md", "arithmetic/revise.md", "arithmetic/verifier.md",
    }  # fmt: skip
