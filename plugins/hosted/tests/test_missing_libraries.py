"""What a machine without the vendors' libraries is told."""

import sys

import pytest

from core.config.recipe import Recipe
from teachers.providers import find_teacher_problems


@pytest.mark.parametrize(("provider", "library"), [("anthropic", "anthropic"), ("gemini", "google.genai")])
def test_a_missing_extra_is_named_before_the_run(provider: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "seeds": {"path": "x"}, "teachers": {"main": {"model": f"{provider}/m"}}}
    )
    assert find_teacher_problems(recipe) == []
    monkeypatch.setitem(sys.modules, library, None)
    (problem,) = find_teacher_problems(recipe)
    assert str(problem).startswith(
        "teachers.main.model: its client library is not installed: run `make install-all`, or "
    )
