"""The text and the thinking of a completion's message, from the fields of every server. Knows no request and no tags."""

import json
from collections.abc import Mapping
from typing import Any


def read_message_text(message: Mapping[str, Any]) -> str:
    """The content of a completion's message, or its refusal."""
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, list):  # Mistral's thinking models
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return str(content)


def read_message_reasoning(message: Mapping[str, Any]) -> str:
    """The thinking that a server returns outside of the content; each server has its own field for it."""
    for field in ("reasoning_content", "reasoning"):
        if message.get(field):
            return str(message[field]).strip()
    details = message.get("reasoning_details") or []
    texts = [detail.get("text") or detail.get("summary") or "" for detail in details]
    content = message.get("content")
    for part in content if isinstance(content, list) else []:
        if part.get("type") == "thinking":
            texts += [piece["text"] for piece in part["thinking"]]
    return "".join(texts).strip()


def is_json_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
