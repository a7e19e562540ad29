"""Reads chat logs as rows for seeds, labels or training, with personal data masked. Knows no teacher and no student.

Formats, found row by row:
- `openai`: a request with its response (`request` and `response`, each also as `body`), as proxies and batch files have them
- `messages`: `messages`, with the reply in them or in `response`
- `langfuse`: an observation with `input` and `output`
- `opentelemetry`: a span with `gen_ai.input.messages` and `gen_ai.output.messages` (semantic conventions 1.37)
- `atif`: a trajectory (`schema_version` begins with ATIF)
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from core.config.filters import PersonalDataFilter
from core.errors import UsageError
from core.installation import format_install_command
from core.sample import Message, join_conversation, json_digest
from core.secrets import find_keys
from core.storage.atomic_files import write_atomically
from filters.masks import TextMask, mask_value
from filters.rules.personal_data import PLACEHOLDERS, find_personal_data
from flows.rows.dataset_rows import find_dataset_files, read_batch_lines, read_dataset_batches

Turn = dict[str, Any]
ATIF_ROLES = {"system": "system", "user": "user", "agent": "assistant"}
KEY_PLACEHOLDER = "[KEY]"
MALFORMED = (AttributeError, TypeError, KeyError, ValueError, RecursionError)
"""What a line raises whose fields are not what its format says: logs come from anybody, in forms of many tools."""
REPLY_KEYS, FAULT_KEYS = {"content", "tool_calls"}, {"choices", "body", "error"}
"""Keys of an assistant's message, and of what surrounds or replaces one. An object with none of them is the reply itself."""
THINKING_PARTS = ("reasoning", "thinking")
"""Types of parts of a turn that are no part of the answer."""
MAX_LABEL_CHARACTERS = 200
"""A longer reply is no label."""


class ImportReport(NamedTuple):
    """Counts of rows: read = rows + repeats + the skipped ones."""

    rows: int
    formats: dict[str, int]
    """Of the rows, by format."""
    repeats: int
    masked: int
    """Rows in which personal data or keys were replaced."""
    skipped: dict[str, int]
    """Lines that are no row, by reason."""


class UnreadableLog(ValueError):
    """A line that is no chat; the text is the reason."""


def import_chat_logs(source: Path, out: Path, rows: str, *, mask: bool) -> ImportReport:
    """Write the chats of `source` to the JSONL file `out`, each once.

    Args:
        source: a JSONL file or a folder.
        out: must not exist.
        rows: `conversations` (`messages`), `texts` (`text`: up to the user's last words), `labels` (`text` up to
            the last reply, and this as `label`).
        mask: whether personal data and API keys are replaced.

    Raises:
        UsageError: if there is nothing to read, `out` exists, or masking needs an extra.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; choose another --out")
    if mask and not all(map(find_spec, ("email_validator", "phonenumbers", "stdnum"))):
        raise UsageError(
            f"masking personal data needs the extra `pii`: run {format_install_command('pii')}, or use --no-mask"
        )
    files = find_dataset_files(source)
    formats, skipped = Counter[str](), Counter[str]()
    seen: set[str] = set()
    repeats = masked = 0
    with write_atomically(out) as partial, partial.open("w", encoding="utf-8") as lines:
        for place, row in _read_lines(files):
            try:
                if row is None:
                    raise UnreadableLog("is not JSON")
                kind, turns = _parse_chat_log(row)
                made = ROW_FORMS[rows](turns)
                clean = _mask_personal_data(made) if mask else made
                digest = json_digest(clean)
            except UnreadableLog as reason:
                skipped[str(reason)] += 1
                continue
            except MALFORMED:
                skipped["has a field of an unexpected form"] += 1
                continue
            if digest in seen:
                repeats += 1
                continue
            seen.add(digest)
            masked += clean != made
            formats[kind] += 1
            lines.write(json.dumps({"id": digest, **clean, "source": place}, ensure_ascii=False) + "\n")
        if not seen:
            reasons = "; ".join(f"{count} {reason}" for reason, count in skipped.most_common(3)) or "it is empty"
            raise UsageError(f"{source}: has no chat that can be read: {reasons}")
    return ImportReport(len(seen), dict(formats), repeats, masked, dict(skipped))


def _read_lines(files: Sequence[Path]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for batch in read_dataset_batches(files):
        for line in read_batch_lines(batch):
            yield f"{files[batch.file].name}:{line.number}", line.row


def _parse_chat_log(row: Mapping[str, Any]) -> tuple[str, list[Turn]]:
    """The format of a line, and its turns with role and content (and calls, as OpenAI has them).

    Raises:
        UnreadableLog: if it is of no known format, or has no text.
    """
    found = next(((kind, turns) for kind, read in READERS.items() if (turns := read(row)) is not None), None)
    if found is None:
        raise UnreadableLog("is of no known format: needs messages, request, input or steps")
    kind, turns = found
    kept = [turn for turn in map(_clean_turn, turns) if turn["content"] or turn.get("tool_calls")]
    if not any(turn["role"] == "user" for turn in kept):
        raise UnreadableLog("has no text of a user")
    return kind, kept


def _mask_personal_data(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with placeholders in the place of personal data and API keys, in every text."""
    config = PersonalDataFilter(type="pii")
    masks: dict[TextMask, None] = {}
    for text in _iter_texts(row):
        masks |= dict.fromkeys(
            TextMask(match.text, PLACEHOLDERS[match.kind]) for match in find_personal_data(text, config)
        )
        masks |= dict.fromkeys(TextMask(key, KEY_PLACEHOLDER) for key in find_keys(text))
    masked: dict[str, Any] = mask_value(dict(row), list(masks))
    return masked


def _iter_texts(value: Any) -> Iterator[str]:
    """All texts and keys, also of JSON within a text: its escapes hide where a word begins."""
    if isinstance(value, str):
        yield value
        if value.lstrip().startswith(("{", "[")):
            with suppress(ValueError, RecursionError):
                yield from _iter_texts(json.loads(value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _iter_texts(str(key))
            yield from _iter_texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _iter_texts(item)


# Formats


def _read_openai(row: Mapping[str, Any]) -> list[Turn] | None:
    request = _unwrap(row.get("request") or row.get("kwargs") or row.get("body"))
    if not isinstance(request, Mapping) or not isinstance(request.get("messages"), list):
        return None
    return [*request["messages"], *_read_reply(row.get("response"))]


def _read_messages(row: Mapping[str, Any]) -> list[Turn] | None:
    messages = _unwrap(row.get("messages"))
    if not isinstance(messages, list):
        return None
    return [*messages, *_read_reply(row.get("response"))]


def _read_langfuse(row: Mapping[str, Any]) -> list[Turn] | None:
    given = _unwrap(row.get("input"))
    if isinstance(given, Mapping) and isinstance(given.get("messages"), list):
        given = given["messages"]
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not all(isinstance(turn, Mapping) for turn in given):
        return None
    output = row.get("output")
    if isinstance(output, Mapping) and not output.keys() & (
        REPLY_KEYS | FAULT_KEYS
    ):  # a reply in JSON is stored parsed
        output = json.dumps(output, ensure_ascii=False)
    return [*map(dict, given), *_read_reply(output)]


def _read_opentelemetry(row: Mapping[str, Any]) -> list[Turn] | None:
    attributes = row.get("attributes", row)
    if isinstance(attributes, list):  # OTLP JSON: a list of key and value
        attributes = {one.get("key"): next(iter((one.get("value") or {"": None}).values())) for one in attributes}
    if not isinstance(attributes, Mapping):
        return None
    sides = [_unwrap(attributes.get(f"gen_ai.{side}.messages")) for side in ("input", "output")]
    if not isinstance(sides[0], list):
        return None
    return [
        {"role": turn.get("role"), "content": turn.get("content", turn.get("parts"))}
        for side in sides
        if isinstance(side, list)
        for turn in side
        if isinstance(turn, Mapping)
    ]


def _read_atif(row: Mapping[str, Any]) -> list[Turn] | None:
    if not str(row.get("schema_version", "")).startswith("ATIF") or not isinstance(row.get("steps"), list):
        return None
    turns: list[Turn] = []
    for step in row["steps"]:
        calls = [
            {
                "id": call.get("tool_call_id"),
                "type": "function",
                "function": {
                    "name": call.get("function_name"),
                    "arguments": json.dumps(call.get("arguments") or {}, ensure_ascii=False),
                },
            }
            for call in step.get("tool_calls") or ()
        ]
        turn: Turn = {"role": ATIF_ROLES.get(step.get("source"), "user"), "content": step.get("message")}
        turns.append({**turn, "tool_calls": calls} if calls else turn)
        for result in (step.get("observation") or {}).get("results") or ():
            turns.append(
                {"role": "tool", "content": result.get("content"), "tool_call_id": result.get("source_call_id")}
            )
    return turns


READERS: Mapping[str, Callable[[Mapping[str, Any]], list[Turn] | None]] = {
    "atif": _read_atif,
    "opentelemetry": _read_opentelemetry,
    "openai": _read_openai,
    "messages": _read_messages,
    "langfuse": _read_langfuse,
}


def _unwrap(value: Any) -> Any:
    """The value behind JSON text, and behind `body`."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return _unwrap(value["body"]) if isinstance(value, Mapping) and "body" in value else value


def _read_reply(response: Any) -> list[Turn]:
    """The assistant's turn of a response: a completion, a message, or text, also text that is JSON; none where there is none."""
    reply = _unwrap(response)
    if isinstance(reply, Mapping) and isinstance(reply.get("choices"), list):
        choice = next((choice for choice in reply["choices"] if isinstance(choice, Mapping)), {})
        reply = choice.get("message", choice.get("text"))
    elif isinstance(response, str) and not (isinstance(reply, Mapping) and reply.keys() & (REPLY_KEYS | FAULT_KEYS)):
        reply = response
    if isinstance(reply, Mapping) and reply.keys() & REPLY_KEYS:
        return [{"role": "assistant", **reply}]
    return [{"role": "assistant", "content": reply}] if isinstance(reply, str) and reply.strip() else []


def _clean_turn(turn: Any) -> Turn:
    """Role, content as text, and what belongs to calls of tools."""
    if not isinstance(turn, Mapping):
        raise UnreadableLog("has a turn that is no object")
    role = {"developer": "system", "function": "tool"}.get(str(turn.get("role")), str(turn.get("role")))
    if role not in ("system", "user", "assistant", "tool"):
        raise UnreadableLog(f"has a turn of the role {role[:20]!r}")
    kept = {key: turn[key] for key in ("tool_calls", "tool_call_id", "name") if turn.get(key)}
    return {"role": role, "content": _join_content(turn.get("content")), **kept}


def _join_content(content: Any) -> str:
    if isinstance(content, list):
        said = (part for part in content if isinstance(part, Mapping) and part.get("type") not in THINKING_PARTS)
        texts = (part.get("text") or part.get("content") for part in said)
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


# Rows


def _make_conversation(turns: list[Turn]) -> dict[str, Any]:
    return {"messages": turns}


def _make_text(turns: list[Turn]) -> dict[str, Any]:
    """The conversation up to the last turn of the user."""
    last = max(place for place, turn in enumerate(turns) if turn["role"] == "user")
    return {"text": _join_turns(turns[: last + 1])}


def _join_turns(turns: Sequence[Turn]) -> str:
    said = [Message(role=turn["role"], content=turn["content"], name=turn.get("name")) for turn in turns]
    return join_conversation([turn for turn in said if turn.content])


def _make_labeled(turns: list[Turn]) -> dict[str, Any]:
    last = turns[-1]
    if last["role"] != "assistant" or not last["content"].strip():
        raise UnreadableLog("has no reply")
    label = last["content"].strip()
    if len(label) > MAX_LABEL_CHARACTERS:
        raise UnreadableLog(f"has a reply of more than {MAX_LABEL_CHARACTERS} characters, which is no label")
    return {"text": _join_turns(turns[:-1]), "label": label}


ROW_FORMS: Mapping[str, Callable[[list[Turn]], dict[str, Any]]] = {
    "conversations": _make_conversation,
    "texts": _make_text,
    "labels": _make_labeled,
}
