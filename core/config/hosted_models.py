"""How hosted models think, by the families in their names: what a request may ask for. Knows no request and no teacher.

A model that is not listed counts as one of the newest of its vendor.
"""

import re
from typing import Literal, NamedTuple

ThinkingHabit = Literal["asked", "default", "always"]
"""Whether a model thinks only if asked to, unless it is switched off, or always."""

OPENAI_REASONING_MODELS = re.compile(r"(?:ft:)?(?:o[1-9]|gpt-(?:[5-9]|[1-9]\d))(?!.*-chat)")
"""Models of api.openai.com that reject sampling parameters and log probabilities
(https://platform.openai.com/docs/guides/latest-model, "Parameter compatibility"); `gpt-5-chat-latest` accepts them."""
CLAUDE_NAME = re.compile(r"claude-(?:(\d)(?:-(\d))?-)?([a-z]+)(?:-(\d{1,2})(?:-(\d{1,2}))?)?(?!\d)")
"""`claude-opus-4-5-20251101`, `claude-sonnet-5`; before version 4 `claude-3-7-sonnet-20250219`."""
GEMINI_NAME = re.compile(r"gemini-(\d+)(?:\.(\d+))?-(pro|flash-lite|flash)")
OPEN_REASONING_MODELS = re.compile(r"deepseek-(?:reasoner|r1)|gpt-oss|qwq|.*[-:]thinking\b", re.IGNORECASE)
"""Open models that cannot answer without thinking."""
ALWAYS_THINKING_CLAUDE = ("fable", "mythos")


class ClaudeThinking(NamedTuple):
    """https://platform.claude.com/docs/en/build-with-claude/thinking, "Configuring thinking", and the migration guides."""

    habit: ThinkingHabit
    adaptive: bool
    """Takes `{"type": "adaptive"}` with an effort; else a budget in tokens. Since Claude 4.6."""
    off: str | None = None
    """The type of `thinking` that switches it off; None if it is off without the key, or cannot be switched off."""
    forced_tools: bool = True
    """Whether `tool_choice` may force a tool, if the model does not think."""


class GeminiThinking(NamedTuple):
    """https://ai.google.dev/gemini-api/docs/thinking."""

    habit: ThinkingHabit
    lowest: int | str
    """The smallest budget in tokens; the lowest level since Gemini 3, which has levels."""


GEMINI_2_5 = {
    "pro": GeminiThinking("always", 128),
    "flash": GeminiThinking("default", 0),
    "flash-lite": GeminiThinking("asked", 0),
}


def find_claude_thinking(model: str) -> ClaudeThinking:
    """How a model with the Messages API thinks; other vendors' models, which some gateways serve, take budgets."""
    name = CLAUDE_NAME.search(model)
    if not name:
        return ClaudeThinking("asked", adaptive=False, off="disabled")
    family = name[3]
    version = int(name[1] or name[4] or 99), int(name[2] or name[5] or 0)
    forced = version < (5, 1)
    if family in ALWAYS_THINKING_CLAUDE or (family == "opus" and version >= (5, 5)):
        return ClaudeThinking("always", adaptive=True, forced_tools=forced)
    if version < (5, 0):
        return ClaudeThinking("asked", adaptive=version >= (4, 6))
    off = "between_tools" if family == "sonnet" and version >= (5, 5) else "disabled"
    return ClaudeThinking("default", adaptive=True, off=off, forced_tools=forced)


def find_gemini_thinking(model: str) -> GeminiThinking | None:
    """How a Gemini model thinks; None if it cannot."""
    name = GEMINI_NAME.search(model)
    if not name:
        return None if "gemma" in model else GeminiThinking("always", "LOW")
    version = int(name[1]), int(name[2] or 0)
    if version < (2, 5):
        return None
    if version < (3, 0):
        return GEMINI_2_5[name[3]]
    # Gemini 3.8 Flash has no MINIMAL any more, and no Pro had it.
    return GeminiThinking("always", "MINIMAL" if name[3] != "pro" and version < (3, 8) else "LOW")


def find_thinking_habit(provider: str, model: str) -> ThinkingHabit:
    """Whether a model of `anthropic/…`, `gemini/…` or `openai/…` thinks without being asked. A gateway's name for it may have its
    vendor before a slash (`openai/gpt-5-mini`).
    """
    name = model.rpartition("/")[2]
    if provider == "anthropic" or name.startswith("claude-"):
        return find_claude_thinking(name.replace(".", "-")).habit
    if provider == "gemini" or name.startswith("gemini-"):
        thinking = find_gemini_thinking(name)
        return thinking.habit if thinking else "asked"
    return "always" if OPENAI_REASONING_MODELS.match(name) or OPEN_REASONING_MODELS.match(name) else "asked"
