"""Conversations under rules that code can check, whose user's words the teacher writes around the rules."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="conversations",
    about="Conversations under rules, whose user's words the teacher writes",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "conversations", part("family:ConversationsFamily")),
        Part("script", "conversations", part("script:SCRIPT")),
    ),
)
