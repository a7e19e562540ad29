"""Anthropic's Messages and Gemini's generateContent, sent by their vendors' client libraries; batches of OpenAI and Anthropic."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="hosted",
    about="Teachers behind the protocols of Anthropic and Gemini, and batches at OpenAI and Anthropic",
    extra="hosted",
    parts=(
        Part("protocol", "anthropic", part("parts:ANTHROPIC")),
        Part("protocol", "gemini", part("parts:GEMINI")),
        Part("batches", "openai", part("parts:OPENAI_BATCHES")),
        Part("batches", "anthropic", part("parts:ANTHROPIC_BATCHES")),
    ),
)
