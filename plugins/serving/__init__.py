"""`serve`, `chat` and `route`: a student behind OpenAI's chat protocol or in the terminal, with the teacher where it is not
trusted; and `decisions`: students that answer typed questions about a text.
"""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="serving",
    about="Students that answer: a chat server, the terminal, a cascade with the teacher, typed questions about a text",
    folder=Path(__file__).parent,
    parts=(
        Part("command", "route", part("commands:app")),
        Part("command", "serve", part("commands:app")),
        Part("command", "chat", part("commands:app")),
        Part("command", "decisions", part("commands:app")),
        Part("family", "decisions", part("decisions.family:DecisionsFamily")),
        Part("script", "decisions", part("decisions.script:SCRIPT")),
        Part("hooks", "serving", part("hooks:HOOKS")),
    ),
)
