"""A row of a file with the texts that a person corrected, in its own form. Knows no review."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.sample import Message
from core.storage.sample_files import flatten_message
from core.thinking import join_thinking
from flows.data.dataset_formats import build_openai_turn
from flows.rows.column_names import QUESTION_ANSWER_COLUMNS
from flows.rows.row_forms import THINKING_KEYS, has_conversation, has_system_column, read_row_conversation


def correct_row(row: Mapping[str, Any], edited: Sequence[Message]) -> dict[str, Any]:
    """The row with the texts of `edited`, in its own form and with all other columns.

    Raises:
        ValueError: if the form cannot hold them.
    """
    before, texts = read_row_conversation(row), iter(edited)

    def correct_turns(turns: Any) -> Any:
        return [_correct_turn(turn, next(texts)) for turn in turns] if isinstance(turns, list) else next(texts).content

    changed = dict(row)
    if len(before) != len(edited):
        raise ValueError("the correction has another number of turns")
    if has_system_column(row):
        changed["system"], before = next(texts).content, before[1:]
    pairs = (pair for pair in QUESTION_ANSWER_COLUMNS if all(row.get(column) is not None for column in pair))
    if row.get("messages") is not None:
        changed["messages"] = correct_turns(row["messages"])
    elif row.get("conversations") is not None:
        changed["conversations"] = [
            {**turn, "value" if "value" in turn else "content": new.content} if new != old else turn
            for turn, old, new in zip(row["conversations"], before, texts, strict=True)
        ]
    elif row.get("instruction") is not None and row.get("output") is not None:
        changed |= _correct_alpaca_columns(row, before, texts)
    else:
        changed |= {column: correct_turns(row[column]) for column in next(pairs)}
    if not has_conversation(changed, edited):
        raise ValueError("its form cannot hold the correction; convert the file to `messages` first")
    return changed


def _correct_turn(turn: Any, new: Message) -> Any:
    """A turn of a list, which may be JSON text, with the new content, thinking and calls; unchanged if they are the same."""
    old = dict(json.loads(turn) if isinstance(turn, str) else turn)
    if read_row_conversation({"messages": [old]}) == [new]:
        return turn
    flat = flatten_message(new.model_dump(mode="json"))
    thinking_key = next((key for key in THINKING_KEYS if key in old), None)
    if new.reasoning and thinking_key is None:
        flat["content"] = join_thinking(new.reasoning, new.content)
    written = build_openai_turn({**flat, "reasoning": None})
    if isinstance(old.get("tool_calls"), str):
        written["tool_calls"] = flat["tool_calls"]
    changed = {**old, **written}
    if thinking_key is not None:
        changed |= {key: None for key in THINKING_KEYS if key in old} | {thinking_key: new.reasoning}
    return json.dumps(changed, ensure_ascii=False) if isinstance(turn, str) else changed


def _correct_alpaca_columns(
    row: Mapping[str, Any], before: Sequence[Message], texts: Iterator[Message]
) -> dict[str, Any]:
    """The columns of `instruction` and `output`. A changed question is written whole to `instruction`."""
    changed: dict[str, Any] = {}
    if row.get("history"):
        changed["history"] = [[next(texts).content, next(texts).content] for _ in row["history"]]
    question, answer = next(texts), next(texts)
    if question != before[-2]:
        changed |= {"instruction": question.content} | ({"input": ""} if row.get("input") else {})
    return {**changed, "output": join_thinking(answer.reasoning or "", answer.content)}
