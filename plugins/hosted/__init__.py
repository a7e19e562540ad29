"""Anthropic's Messages and Gemini's generateContent, sent by their vendors' client libraries; batches of OpenAI and Anthropic."""

from typing import Any

from core.plugins import Part, Plugin


def _load_anthropic() -> Any:
    from plugins.hosted.parts import ANTHROPIC

    return ANTHROPIC


def _load_gemini() -> Any:
    from plugins.hosted.parts import GEMINI

    return GEMINI


def _load_openai_batches() -> Any:
    from plugins.hosted.parts import OPENAI_BATCHES

    return OPENAI_BATCHES


def _load_anthropic_batches() -> Any:
    from plugins.hosted.parts import ANTHROPIC_BATCHES

    return ANTHROPIC_BATCHES


PLUGIN = Plugin(
    name="hosted",
    about="Teachers behind the protocols of Anthropic and Gemini, and batches at OpenAI and Anthropic",
    extra="hosted",
    parts=(
        Part("protocol", "anthropic", _load_anthropic),
        Part("protocol", "gemini", _load_gemini),
        Part("batches", "openai", _load_openai_batches),
        Part("batches", "anthropic", _load_anthropic_batches),
    ),
)
