"""The language of a recipe: which checks and filters can judge it, and rules for German, French, Spanish and Chinese."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="languages",
    about="Data in German, French, Spanish and Chinese; which checks and filters can judge a language",
    folder=Path(__file__).parent,
    extra="languages",
    parts=(
        Part("command", "checks", part("commands:app")),
        Part("section", "language", part("codes:LanguageCode")),
        Part("filter", "local_refusal", part("refusals:LocalRefusalFilter")),
        Part("hooks", "languages", part("hooks:HOOKS")),
    ),
)
