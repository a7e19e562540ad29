"""The forms in which a dataset is written, as trainers read them: TRL, axolotl, LLaMA-Factory. Knows rows, not files.

A row has `messages` as in a samples file, `asked` (how many of them are the prompt), and `reasoning` and `tools` (JSON
text) where there are any; a pair has `prompt`, `chosen` and `rejected` in the place of `messages`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import polars as pl

Turn = Mapping[str, Any]
"""A message as a samples file has it; `tool_calls` is JSON text."""
ASKING = ("system", "user")
SLICE = 1000
"""Rows that are Python objects at once, where a form cannot be made by expressions."""
COLUMNS = {
    "id": "the sample's id, the same as in the run's `samples/`",
    "messages": "the conversation: a list of `{role, content}`, the form that chat models are trained on",
    "prompt": "the conversation up to its last question: a list of `{role, content}`",
    "completion": "what the assistant says to it, in the same form",
    "chosen": "the answer to prefer, in the same form",
    "rejected": "the other answer to the same prompt, in the same form",
    "difference": "what tells them apart: the checks that the rejected answer failed, with evidence, or the critic's scores",
    "chosen_id": "the sample that gave the chosen answer",
    "rejected_id": "the sample that gave the other; `/n` behind it says that it is that sample's revision n, from 0",
    "instruction": "the last question",
    "input": "always empty: the question has all of it",
    "output": "the answer",
    "system": "the system prompt, empty where there is none",
    "history": "the turns before: a list of question and answer",
    "conversations": "the conversation: a list of `{from, value}`, from `system`, `human`, `gpt`, `function_call`, `tool`",
    "reasoning": "how the answer was found, where the teacher wrote it down",
    "tools": "the tools that the assistant may call, as JSON: a list of functions with their JSON schemas",
}
"""Of all forms, with what each column holds, for the dataset's card."""
OPTIONAL = ("reasoning", "tools", "system", "history")
"""Columns that are left out where no row has anything in them."""


class Written(NamedTuple):
    """A dataset in one form."""

    parts: list["pl.DataFrame"]
    left_out: int
    """Rows that the form cannot hold."""
    texts: frozenset[str]
    """Columns of JSON text. Their values have shapes of their own (a call's arguments), which Parquet cannot hold."""


def written(name: str, parts: Sequence["pl.DataFrame"]) -> Written:
    """`parts` (train, validation) in the form `name`, all with the same columns. `preference` takes pairs for rows."""
    structured = any(_has_tools(rows) for rows in parts)
    made = [_with_schemas(FORMS[name](rows, structured)) for rows in parts]
    empty = [name for name in OPTIONAL if name in made[0].columns and not any(_any(rows[name]) for rows in made)]
    texts = [name for name in TURN_COLUMNS if structured and name in made[0].columns]
    made = [rows.drop(empty) for rows in made]
    tools = ["tools"] if "tools" in made[0].columns else []
    return Written(made, sum(map(len, parts)) - sum(map(len, made)), frozenset([*texts, *tools]))


TURN_COLUMNS = ("messages", "prompt", "completion", "chosen", "rejected")


def _has_tools(rows: "pl.DataFrame") -> bool:
    """Whether any turn calls a tool or is one's answer."""
    import polars as pl

    turn = pl.element().struct
    used = turn.field("tool_calls").is_not_null() | turn.field("name").is_not_null()
    found = [pl.col(name).list.eval(used).list.any().any() for name in TURN_COLUMNS if name in rows.columns]
    return bool(rows.select(pl.any_horizontal(found)).item())


def _any(column: "pl.Series") -> bool:
    """Whether anything stands in it, empty texts and lists aside."""
    import polars as pl

    if isinstance(column.dtype, pl.List):
        return bool((column.list.len() > 0).any())
    return bool((column.is_not_null() & (column != "")).any())


def asked(roles: Sequence[str]) -> int:
    """How many of a conversation's turns are its prompt: all up to the last question. What the assistant and its tools say
    after it is the answer, so that no trainer takes a user's words for something to learn.
    """
    return max((place for place, role in enumerate(roles, 1) if role in ASKING), default=0)


def openai_turn(turn: Turn) -> dict[str, Any]:
    """A turn as chat templates read it, calls as in OpenAI's API, with no key that it does not need: templates ask whether
    `tool_calls` is there, and an empty one breaks them.
    """
    plain = {key: turn[key] for key in ("role", "content", "name") if turn.get(key) is not None}
    if not turn.get("tool_calls"):
        return plain
    calls = [{"type": "function", "function": call} for call in json.loads(turn["tool_calls"])]
    return {**plain, "tool_calls": calls}


def _turns(messages: "pl.Series", *, structured: bool) -> "pl.Series":
    """`{role, content}` of each; where any turn of the dataset has more, each turn as JSON text."""
    import polars as pl

    if structured:
        return _mapped(messages, lambda turns: [_json(openai_turn(turn)) for turn in turns], pl.List(pl.String))
    plain = pl.struct(pl.element().struct.field("role", "content"))
    return messages.to_frame().select(pl.all().list.eval(plain)).to_series()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _mapped(column: "pl.Series", of: Callable[[Any], Any], dtype: Any) -> "pl.Series":
    """`of` each value, a slice at a time."""
    import polars as pl

    slices = (column.slice(start, SLICE).to_list() for start in range(0, len(column), SLICE))
    made = [pl.Series(column.name, [of(value) for value in values], dtype=dtype) for values in slices]
    return pl.concat([pl.Series(column.name, [], dtype=dtype), *made])


def _with_schemas(rows: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return rows.with_columns(_mapped(rows["tools"], _tool_schemas, pl.String)) if "tools" in rows.columns else rows


def _tool_schemas(tools: str | None) -> str | None:
    """Tools as JSON text, each as `{type, function}`; None where there are none."""
    given = json.loads(tools) if tools else None
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        return None
    return _json([tool if "function" in tool else {"type": "function", "function": tool} for tool in given])


def _beside(rows: "pl.DataFrame") -> list[str]:
    return [name for name in ("reasoning", "tools") if name in rows.columns]


def _messages(rows: "pl.DataFrame", structured: bool) -> "pl.DataFrame":
    return rows.select("id", _turns(rows["messages"], structured=structured), *_beside(rows))


def _prompt_completion(rows: "pl.DataFrame", structured: bool) -> "pl.DataFrame":
    import polars as pl

    rows = rows.filter((pl.col("asked") > 0) & (pl.col("asked") < pl.col("messages").list.len()))
    halves = rows.select(
        prompt=pl.col("messages").list.head("asked"), completion=pl.col("messages").list.slice("asked")
    )
    return rows.select("id", *(_turns(half, structured=structured) for half in halves), *_beside(rows))


def _preference(rows: "pl.DataFrame", structured: bool) -> "pl.DataFrame":
    talk = [_turns(rows[name], structured=structured) for name in ("prompt", "chosen", "rejected")]
    return rows.select(*talk, "difference", "chosen_id", "rejected_id", *_beside(rows))


def _alpaca(rows: "pl.DataFrame", _structured: bool) -> "pl.DataFrame":
    import polars as pl

    if "tools" in rows.columns:
        rows = rows.filter(pl.col("tools").is_null()).drop("tools")
    texts = dict.fromkeys(("instruction", "input", "output", "system"), pl.String)
    return _rewritten(rows, as_alpaca, pl.Struct({**texts, "history": pl.List(pl.List(pl.String))}))


def as_alpaca(turns: Sequence[Turn]) -> dict[str, Any] | None:
    """As LLaMA-Factory's documentation has it, of which the first three keys are Stanford's; None where the conversation is
    not question and answer in turn, or has tools.
    """
    led = bool(turns) and turns[0]["role"] == "system"
    talk = turns[led:]
    roles = [turn["role"] for turn in talk]
    if roles != ["user", "assistant"] * (len(talk) // 2) or not talk or any(turn["tool_calls"] for turn in talk):
        return None
    *history, (question, answer) = zip(talk[::2], talk[1::2], strict=True)
    return {
        "instruction": question["content"],
        "input": "",
        "output": answer["content"],
        "system": turns[0]["content"] if led else "",
        "history": [[before["content"], after["content"]] for before, after in history],
    }


def _sharegpt(rows: "pl.DataFrame", _structured: bool) -> "pl.DataFrame":
    import polars as pl

    talk = pl.List(pl.Struct({"from": pl.String, "value": pl.String}))
    return _rewritten(rows, as_sharegpt, pl.Struct({"conversations": talk}))


SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def as_sharegpt(turns: Sequence[Turn]) -> dict[str, Any] | None:
    """`conversations`; calls are a turn of their own, so that one with words beside them has no form here."""
    said = [_said(turn) for turn in turns]
    return {"conversations": said} if all(said) else None


def _said(turn: Turn) -> dict[str, str] | None:
    if not turn["tool_calls"]:
        return {"from": SPEAKERS[turn["role"]], "value": turn["content"]}
    calls = json.loads(turn["tool_calls"])
    value = _json(calls[0] if len(calls) == 1 else calls)
    return None if turn["content"] else {"from": "function_call", "value": value}


def of_alpaca(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The turns of a row that `as_alpaca` or another writes; an `input` is told under its instruction, as in LLaMA-Factory.

    Raises:
        ValueError: if a column is no text, or `history` is no list of question and answer.
    """
    texts = {name: row.get(name) or "" for name in ("system", "instruction", "input", "output")}
    history = row.get("history") or []
    if wrong := next((name for name, text in texts.items() if not isinstance(text, str)), None):
        raise ValueError(f"`{wrong}` must be text, not {type(texts[wrong]).__name__}")
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise ValueError("`history` must be a list of question and answer")
    asked = "\n".join(filter(None, (texts["instruction"], texts["input"])))
    talk = [*history, (asked, texts["output"])]
    turns = [
        {"role": role, "content": text} for pair in talk for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*([{"role": "system", "content": texts["system"]}] if texts["system"] else []), *turns]


ROLES = {speaker: role for role, speaker in SPEAKERS.items()} | {
    "user": "user", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant", "observation": "tool",
}  # fmt: skip
"""By who speaks, in the words of ShareGPT and of LLaMA-Factory."""


def of_sharegpt(said: Any) -> list[dict[str, Any]]:
    """The turns of `conversations`; a `tool` is the one that was called last.

    Raises:
        ValueError: if a turn has no known speaker, or a call cannot be read.
    """
    turns: list[dict[str, Any]] = []
    called = None
    if not isinstance(said, list):
        raise ValueError(f"`conversations` must be a list of from and value, not {type(said).__name__}")  # noqa: TRY004
    for turn in said:
        speaker, value = (turn.get("from"), turn.get("value")) if isinstance(turn, dict) else (None, None)
        if speaker == "function_call" and isinstance(value, str):
            calls = _calls_in(value)
            called = calls[-1].get("name")
            turns.append({"role": "assistant", "content": "", "tool_calls": _json(calls)})
        elif speaker in ROLES:
            name = {"name": called} if ROLES[speaker] == "tool" else {}
            turns.append({"role": ROLES[speaker], "content": value, **name})
        else:
            known = ", ".join([*ROLES, "function_call"])
            raise ValueError(
                f"`conversations` must be a list of from and value, from one of {known}; not {str(turn)[:60]}"
            )
    return turns


def _calls_in(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) for call in calls):
        raise ValueError(f"`conversations`: a call cannot be read: {text[:60]}")
    return calls


def _rewritten(
    rows: "pl.DataFrame", of: Callable[[Sequence[Turn]], dict[str, Any] | None], struct: "pl.Struct"
) -> "pl.DataFrame":
    """The columns of `struct` from each conversation, without rows that have none."""
    made = _mapped(rows["messages"], of, struct)
    kept = made.is_not_null()
    return (
        rows.filter(kept)
        .select("id")
        .hstack(made.filter(kept).struct.unnest())
        .hstack(rows.filter(kept).select(_beside(rows)))
    )


FORMS: Mapping[str, Callable[["pl.DataFrame", bool], "pl.DataFrame"]] = {
    "messages": _messages,
    "prompt_completion": _prompt_completion,
    "preference": _preference,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
}


def features(form: Written) -> list[dict[str, Any]]:
    """The columns as the hub declares them, so that `datasets` (4.7 or newer) decodes JSON text by itself; empty where
    nothing needs it.
    """
    schema = form.parts[0].schema
    return [_feature(name, dtype, json_text=name in form.texts) for name, dtype in schema.items()] if form.texts else []


def _feature(name: str, dtype: Any, *, json_text: bool) -> dict[str, Any]:
    kind = _kind(dtype, json_text=json_text)
    return {"name": name, "dtype": kind} if isinstance(kind, str) else {"name": name, **kind}


def _kind(dtype: Any, *, json_text: bool) -> Any:
    import polars as pl

    if isinstance(dtype, pl.List):
        return {"list": _kind(dtype.inner, json_text=json_text)}
    if isinstance(dtype, pl.Struct):
        return [_feature(field.name, field.dtype, json_text=False) for field in dtype.fields]
    return "json" if json_text else "string"


def lines(rows: "pl.DataFrame", texts: frozenset[str]) -> Iterator[str]:
    """Each row as a line of JSON, with what the columns `texts` hold in the place of its text."""
    for part in rows.iter_slices(SLICE):
        for row in part.iter_rows(named=True):
            yield _json({key: _decoded(value) if key in texts else value for key, value in row.items()}) + "\n"


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [json.loads(one) for one in value]
    return None if value is None else json.loads(value)
