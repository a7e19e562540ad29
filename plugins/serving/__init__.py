"""`serve`, `chat` and `route`: a student behind OpenAI's chat protocol or in the terminal, with the teacher where it is not
trusted; and `decisions`: students that answer typed questions about a text.
"""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.serving.commands import app

    return app


def _load_decisions() -> Any:
    from plugins.serving.decisions.family import DecisionsFamily

    return DecisionsFamily


def _load_script() -> Any:
    from plugins.serving.decisions.script import SCRIPT

    return SCRIPT


def _load_hooks() -> Any:
    from plugins.serving.hooks import ServingHooks

    return ServingHooks()


PLUGIN = Plugin(
    name="serving",
    about="Students that answer: a chat server, the terminal, a cascade with the teacher, typed questions about a text",
    folder=Path(__file__).parent,
    parts=(
        Part("command", "route", _load_commands),
        Part("command", "serve", _load_commands),
        Part("command", "chat", _load_commands),
        Part("command", "decisions", _load_commands),
        Part("family", "decisions", _load_decisions),
        Part("script", "decisions", _load_script),
        Part("hooks", "serving", _load_hooks),
    ),
)
