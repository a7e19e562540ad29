"""The page of this plugin."""

import re

import pytest

from core.config.hosted_models import find_thinking_habit
from core.plugins import FOLDER


@pytest.mark.parametrize(
    ("row", "models"),
    [
        ("Claude 4.6 to 4.8", ["claude-opus-4-6", "claude-sonnet-4-8"]),
        (
            "Claude 5 and later, Fable, Mythos",
            ["claude-sonnet-5", "claude-fable-5", "claude-opus-5-5", "claude-mythos-5"],
        ),
        ("Gemini 2.5", ["gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"]),
        ("Gemini 3 and later", ["gemini-3-pro", "gemini-3.5-flash"]),
    ],
)
def test_the_table_of_hosted_models_says_which_think_unasked(row: str, models: list[str]) -> None:
    page = (FOLDER / "hosted/README.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| {re.escape(row)} \|(.*)$", page, re.MULTILINE)
    words = {"asked": "", "default": "on by default", "always": "always on"}
    found = {find_thinking_habit("gemini" if "gemini" in model else "anthropic", model) for model in models}
    assert {habit for habit, said in words.items() if said and said in line} == found - {"asked"}
