"""The forms of a row: its text, its conversation or its pair, in the columns of other programs too. Knows rows, not files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from core.sample import Message
from core.storage.image_files import IMAGE_COLUMNS
from core.storage.sample_files import unflatten_message
from core.thinking import find_thinking_tag, split_thinking
from filters.base import Document
from flows.data.dataset_formats import SHAREGPT_SPEAKERS
from flows.rows.column_names import CONVERSATION_COLUMNS, PAIR_COLUMNS, QUESTION_ANSWER_COLUMNS, TEXT_COLUMNS

MEASURED_COLUMNS = (*CONVERSATION_COLUMNS, *IMAGE_COLUMNS)
"""Columns whose bytes limit the rows of Parquet in a batch."""
FILTER_COLUMNS = ("id", "score", *MEASURED_COLUMNS)
"""Columns of Parquet that filters read."""
KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool"})
IMAGE_OF_COLUMN = "column:images"
"""Marks the place in a message of an image that is in the row's column `images` or `image`."""
THINKING_KEYS = ("reasoning_content", "reasoning")
"""Keys of a turn with the thinking before it: of chat templates and this program's datasets; of its samples and OpenRouter."""
ROLES = {role: role for role in sorted(KNOWN_ROLES)} | {speaker: role for role, speaker in SHAREGPT_SPEAKERS.items()} | {
    "developer": "system", "chatgpt": "assistant", "model": "assistant", "observation": "tool", "function": "tool",
}  # fmt: skip
"""Roles by the names that ShareGPT, LLaMA-Factory, Gemini and OpenAI's older and newer API give them."""
CALL_SPEAKER = "function_call"
"""The role of a turn that is a call, in ShareGPT's form."""


def build_row_document(row: Mapping[str, Any], name: str = "") -> Document:
    """The document of a row for filters and metrics: `text`, or all turns by role, with its `score` if it has one. The
    document's id is `name`.

    Raises:
        ValueError: with the fault of the row.
    """
    row = _drop_empty_columns(row)
    score = row.get("score")
    score = score if isinstance(score, int | float) else None
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str):
            raise ValueError(f"`text` must be text, not {type(text).__name__}")
        return Document(name, text, score=score)
    turns = read_row_turns(row)

    def join_turns(*roles: str) -> str:
        return "\n".join(turn.text for turn in turns if turn.role in roles)

    answers = tuple(turn.content for turn in turns if turn.role == "assistant")
    return Document(
        name,
        join_turns("assistant"),
        asked=join_turns("user"),
        around=join_turns("system", "tool"),
        score=score,
        answers=answers,
        thinking="\n".join(turn.thinking for turn in turns if turn.thinking),
    )


def _drop_empty_columns(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without null columns, which rows of several forms in one table have; `text` is "" if nothing else is left."""
    if None not in row.values() or all(row.get(column, "") is not None for column in TEXT_COLUMNS):
        return row
    filled = {key: value for key, value in row.items() if value is not None}
    return {**filled, "text": ""} if "text" in row and not filled.keys() & TEXT_COLUMNS else filled


class RowTurn(NamedTuple):
    """A turn of a row's conversation."""

    role: str
    text: str
    """The content with the tool calls."""
    content: str
    thinking: str = ""


def read_row_turns(row: Mapping[str, Any]) -> list[RowTurn]:
    """The turns of a row as `read_row_conversation` reads them, without the cost of full validation for turns of plain text.

    Raises:
        ValueError: with the fault of the row.
    """
    turns = []
    for turn in _read_row_turns(row):
        role, content = turn.get("role"), turn.get("content")
        if (
            role in KNOWN_ROLES
            and isinstance(content, str)
            and not any(turn.get(key) for key in ("tool_calls", CALL_SPEAKER, *THINKING_KEYS))
            and not find_thinking_tag(content)
        ):
            turns.append(RowTurn(str(role), content, content))
        else:
            turns.append(_build_row_turn(_build_message(turn)))
    return turns


def _build_row_turn(message: Message) -> RowTurn:
    return RowTurn(message.role, message.text, message.content, message.reasoning or "")


def read_row_conversation(row: Mapping[str, Any]) -> list[Message]:
    """The conversation of a row in any form except pairs, with its `system` first unless it begins with such a turn.

    Raises:
        ValueError: with the fault of the row.
    """
    return [_build_message(turn) for turn in _read_row_turns(row)]


def has_conversation(row: Mapping[str, Any], messages: Sequence[Message]) -> bool:
    try:
        return read_row_conversation(row) == list(messages)
    except ValueError:
        return False


class ConversationPair(NamedTuple):
    """Two answers to one prompt."""

    chosen: list[Message]
    rejected: list[Message]


def read_row_pair(row: Mapping[str, Any]) -> ConversationPair:
    """`prompt` with `chosen` and with `rejected`, as preference trainers read them.

    Raises:
        ValueError: with the fault of the row.
    """
    if missing := [column for column in PAIR_COLUMNS if column not in row]:
        raise ValueError(f"needs `prompt`, `chosen` and `rejected`; it lacks {', '.join(missing)}")
    prompt = _add_system_turn(row, _read_column_turns(row["prompt"], "prompt"))
    sides = ([*prompt, *_read_column_turns(row[side], side, "assistant")] for side in ("chosen", "rejected"))
    return ConversationPair(*([_build_message(turn) for turn in turns] for turns in sides))


def _read_row_turns(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    row = _drop_empty_columns(row)
    return _add_system_turn(row, _read_form(row))


def _add_system_turn(row: Mapping[str, Any], turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns with the column `system` first, unless they begin with such a turn."""
    system = row.get("system")
    if not system or _begins_with_system(turns):
        return turns
    if not isinstance(system, str):
        raise ValueError(f"`system` must be text, not {type(system).__name__}")  # noqa: TRY004
    return [{"role": "system", "content": system}, *turns]


def has_system_column(row: Mapping[str, Any]) -> bool:
    """Whether the system prompt of a row's conversation is in the column `system`."""
    return bool(row.get("system")) and not _begins_with_system(_read_form(_drop_empty_columns(row)))


def _begins_with_system(turns: Sequence[Mapping[str, Any]]) -> bool:
    return bool(turns) and ROLES.get(str(turns[0].get("role"))) == "system"


def _read_form(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns of a row without empty columns, except its `system`."""
    for column in ("messages", "conversations"):
        if column in row:
            return _read_turn_list(row[column], column)
    if "instruction" in row and "output" in row:
        return _parse_alpaca_row(row)
    for question, answer in QUESTION_ANSWER_COLUMNS:
        if question in row and answer in row:
            return [*_read_column_turns(row[question], question), *_read_column_turns(row[answer], answer, "assistant")]
    raise ValueError(describe_unknown_form(row))


def describe_unknown_form(columns: Iterable[str]) -> str:
    """Why a row with these columns has no text that is read."""
    columns = dict.fromkeys(columns)
    if columns.keys() & TEXT_COLUMNS == {"text"}:
        return "has `text` alone, of which nothing is a question or an answer; give `messages`, or `prompt` and `completion`"
    if columns.keys() >= set(PAIR_COLUMNS):
        return (
            "has `chosen` and `rejected`: pairs are read by `distill` with --set 'loss=\"dpo\"' and `evaluate --data`; "
            "to read one answer, name it: --columns user=prompt,assistant=chosen"
        )
    return (
        "needs `text`, or `messages`, or `conversations`, or a question and its answer (`prompt` and `completion` or `response`, "
        "`question` and `answer`, `instruction` and `output`); name other columns, as in --columns user=ASKED,assistant=SAID; it "
        f"has {', '.join(columns) or 'nothing'}"
    )


def _read_turn_list(value: Any, column: str) -> list[dict[str, Any]]:
    """The turns of a conversation by role and content or by speaker and value, whichever the turns have."""
    turns = _read_column_turns(value, column, role=None)
    named = all(turn.get("role") is not None and turn["role"] != CALL_SPEAKER for turn in turns)
    return turns if named else _parse_speaker_turns(turns, column)


def _name_turn_keys(column: str) -> str:
    return "from and value" if column == "conversations" else "role and content"


def _read_column_turns(value: Any, column: str, role: str | None = "user") -> list[dict[str, Any]]:
    """The turns in a row's column: a list of turns, each also as JSON text, or the text of one turn by `role`."""
    turns = [{"role": role, "content": value}] if role and isinstance(value, str) else value
    if not isinstance(turns, list):
        text = "text or " if role else ""
        raise ValueError(f"`{column}` must be {text}a list of {_name_turn_keys(column)}, not {type(turns).__name__}")  # noqa: TRY004
    objects = []
    for turn in turns:
        try:
            parsed = json.loads(turn) if isinstance(turn, str) else turn
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`{column}` must be a list of role and content: {error}") from None
        if isinstance(parsed, list) and all(isinstance(pair, tuple) for pair in parsed):
            parsed = dict(parsed)  # pyarrow reads a map as pairs
        if not isinstance(parsed, dict):
            raise ValueError(  # noqa: TRY004
                f"`{column}` must be a list of role and content; a turn is {type(parsed).__name__}, not an object"
            )
        objects.append(parsed)
    return objects


def _build_message(turn: dict[str, Any]) -> Message:
    """A turn of a samples file (calls as JSON text), or in the form for trainers (a list of `function`, or one `function_call` of
    OpenAI's older API), with its thinking in any form.
    """
    try:
        role = turn.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise ValueError(f"the role {role!r} is none of {', '.join(ROLES)}")
        turn = _read_turn_content({**turn, "role": ROLES[role]})
        calls = turn.get("tool_calls") or ([turn[CALL_SPEAKER]] if turn.get(CALL_SPEAKER) else None)
        if isinstance(calls, list):
            calls = json.dumps([_read_call(call.get("function", call)) for call in calls])
        flat = {key: turn.get(key) for key in ("role", "content", "name", "reasoning", "images")}
        if calls and flat["content"] is None:
            flat["content"] = ""
        return unflatten_message({**flat, "tool_calls": calls})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fault = str(error)
    raise ValueError(f"`messages` must be a list of role and content: {fault}")


def _read_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call whose arguments are an object, or its JSON text as in OpenAI's API."""
    arguments = call["arguments"]
    return {"name": call["name"], "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments}


def _read_turn_content(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with its thinking as `reasoning`, and with `images` and text from a content in parts."""
    content = turn.get("content")
    if isinstance(content, list):
        unknown = [part.get("type") for part in content if part.get("type") not in ("text", "image", "image_url")]
        if unknown:
            raise ValueError(f"a part of type {unknown[0]!r}; known are text, image and image_url")
        texts = [part["text"] for part in content if part["type"] == "text"]
        images = [
            part["image_url"]["url"] if part["type"] == "image_url" else IMAGE_OF_COLUMN
            for part in content
            if part["type"] != "text"
        ]
        turn = {**turn, "content": "\n".join(texts), "images": images}
    if turn.get("role") != "assistant":
        return {**turn, "reasoning": None}
    thinking = next((turn[key] for key in THINKING_KEYS if turn.get(key)), None)
    if thinking is None and isinstance(content, str):
        split = split_thinking(content)
        turn, thinking = {**turn, "content": split.answer}, split.reasoning or None
    return {**turn, "reasoning": thinking}


def _parse_alpaca_row(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns of a row in the Alpaca form; `input` follows its instruction on a new line, as in LLaMA-Factory.

    Raises:
        ValueError: if a column is not text, or `history` is not a list of question and answer.
    """
    texts = {name: row.get(name) or "" for name in ("instruction", "input", "output")}
    history = row.get("history") or []
    if wrong := next((name for name, text in texts.items() if not isinstance(text, str)), None):
        raise ValueError(f"`{wrong}` must be text, not {type(texts[wrong]).__name__}")
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise ValueError("`history` must be a list of question and answer")
    asked = "\n".join(filter(None, (texts["instruction"], texts["input"])))
    pairs = [*history, (asked, texts["output"])]
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _parse_speaker_turns(conversation: Sequence[Mapping[str, Any]], column: str) -> list[dict[str, Any]]:
    """The turns of ShareGPT; a tool's turn gets the name of the last called tool.

    Raises:
        ValueError: if a turn has no known speaker, or a call cannot be read.
    """
    turns: list[dict[str, Any]] = []
    called = None
    for turn in conversation:
        speaker, value = (
            (turn["from"], turn.get("value"))
            if turn.get("from") is not None
            else (turn.get("role"), turn.get("content"))
        )
        if speaker == CALL_SPEAKER and isinstance(value, str):
            try:
                parsed = json.loads(value)
            except (ValueError, RecursionError):
                parsed = None
            calls = parsed if isinstance(parsed, list) else [parsed]
            if not calls or not all(isinstance(call, dict) for call in calls):
                raise ValueError(f"`{column}`: a call cannot be read: {value[:60]}")
            called = calls[-1].get("name")
            turns.append({"role": "assistant", "content": "", "tool_calls": json.dumps(calls, ensure_ascii=False)})
        elif isinstance(speaker, str) and speaker in ROLES:
            name = {"name": called} if ROLES[speaker] == "tool" else {}
            turns.append({"role": ROLES[speaker], "content": value, **name})
        else:
            known = ", ".join([*ROLES, CALL_SPEAKER])
            raise ValueError(
                f"`{column}` must be a list of {_name_turn_keys(column)}: known roles are {known}; not {str(turn)[:60]}"
            )
    return turns
