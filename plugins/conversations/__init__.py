"""Conversations under rules that code can check, whose user's words the teacher writes around the rules."""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_family() -> Any:
    from plugins.conversations.family import ConversationsFamily

    return ConversationsFamily


def _load_script() -> Any:
    from plugins.conversations.script import SCRIPT

    return SCRIPT


PLUGIN = Plugin(
    name="conversations",
    about="Conversations under rules, whose user's words the teacher writes",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "conversations", _load_family),
        Part("script", "conversations", _load_script),
    ),
)
