"""The forms of a dataset that trainers read: TRL, axolotl, LLaMA-Factory. Knows rows, not files.

A row has `messages` as in a samples file, `asked` (the number of them that are the prompt), and optional `reasoning`, `tools`
(JSON text) and `pass_rate`. A pair has `prompt`, `chosen` and `rejected` instead of `messages`. The thinking of a message is
left out, put before its content, or written as its `reasoning_content`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.agents import PASS_RATE
from core.config.recipe import DatasetThinking
from core.runs.records import ThinkingRecord
from core.storage.image_files import IMAGES_COLUMN, is_stored_image
from core.storage.sample_files import TURN_COLUMNS, complete_turn_fields, has_turn_field
from core.thinking import THINK_CLOSING, THINK_OPENING, THINKING_TAG

if TYPE_CHECKING:
    import polars as pl

FlatTurn = Mapping[str, Any]
"""A message of a samples file; `tool_calls` is JSON text."""
VOTES = "votes"
IMAGE_SEED_COLUMNS = ("kind", "source")
PROMPT_ROLES = ("system", "user")
ROWS_PER_SLICE = 1000
"""Rows converted to Python objects at a time, for forms that expressions cannot build."""
COLUMN_MEANINGS = {
    "id": "the sample's id, the same as in the run's `samples/`",
    "messages": "the conversation: a list of `{role, content}`, the form that chat models are trained on",
    "prompt": "the conversation up to its last question: a list of `{role, content}`",
    "completion": "the assistant's answer, in the same form",
    "chosen": "the answer to prefer, in the same form",
    "rejected": "the other answer to the same prompt, in the same form",
    "difference": "the difference: the checks that the rejected answer failed, with evidence, or the critic's scores",
    "chosen_id": "the sample of the chosen answer",
    "rejected_id": "the sample of the rejected answer; a suffix `/n` means its revision n, from 0",
    "instruction": "the last question",
    "input": "always empty: the question is complete",
    "output": "the answer",
    "system": "the system prompt, or empty",
    "history": "the earlier turns: a list of question and answer",
    "conversations": "the conversation: a list of `{from, value}`, from `system`, `human`, `gpt`, `function_call`, `tool`",
    "images": "the images of the conversation, in the order of its parts of the type `image`",
    "reasoning": "the reasoning behind the answer, if the teacher wrote it",
    "kind": "the kind of question that was asked for",
    "source": "the file or row that the images are from",
    VOTES: "how many votes of the teacher each answer of each question has",
    "pass_rate": "the share of a weaker teacher's attempts at the question that passed: 1 is easy, 0 is hard",
    "tools": "the tools that the assistant may call, as JSON: a list of functions with their JSON schemas",
}
"""The meaning of each column of any form, for the dataset card."""
OPTIONAL_COLUMNS = ("images", "reasoning", "tools", "kind", "source", VOTES, "pass_rate", "system", "history")
"""Columns that are omitted if they are empty in all rows."""


class FormattedDataset(NamedTuple):
    """A dataset in one form."""

    parts: list["pl.DataFrame"]
    left_out: int
    """Rows that the form cannot hold."""
    texts: frozenset[str]
    """Columns of JSON text, whose values vary in shape (arguments of calls), which Parquet cannot hold."""


def format_dataset(name: str, parts: Sequence["pl.DataFrame"], thinking: DatasetThinking = False) -> FormattedDataset:
    """`parts` (train, validation) in the form `name`, with equal columns. The rows of `preference` are pairs."""
    import polars as pl

    parts = [complete_turn_fields(rows) for rows in parts]
    if name == "prompt_completion":
        parts = list(map(_remove_prompt_thinking, parts))
    parts = [_place_thinking(rows, thinking) for rows in parts]
    # Turns become JSON text if any turn calls a tool, is the result of a tool, or has images.
    present = {
        field
        for rows in parts
        for column in TURN_COLUMNS
        if column in rows.columns
        for field in ("tool_calls", "name", "images", "reasoning")
        if has_turn_field(rows, column, field)
    }
    pictured = present - {"reasoning"} == {"images"} and all(map(_has_stored_images_alone, parts))
    structured = bool(present - {"reasoning"}) and not pictured
    turns = TurnForm(structured, "reasoning" in present, pictured)
    if pictured:
        parts = [rows.with_columns(_list_image_names(rows)) for rows in parts]
    formatted = []
    for rows in parts:
        form = FORM_BUILDERS[name](rows, turns)
        if "tools" in form.columns:
            form = form.with_columns(_map_in_slices(form["tools"], _convert_tool_schemas, pl.String))
        formatted.append(form)
    empty = [
        name
        for name in OPTIONAL_COLUMNS
        if name in formatted[0].columns and not any(_has_values(rows[name]) for rows in formatted)
    ]
    texts = [name for name in TURN_COLUMNS if structured and name in formatted[0].columns]
    formatted = [rows.drop(empty) for rows in formatted]
    tools = ["tools"] if "tools" in formatted[0].columns else []
    left_out = sum(map(len, parts)) - sum(map(len, formatted))
    return FormattedDataset(formatted, left_out, frozenset([*texts, *tools]))


class TurnForm(NamedTuple):
    """How a dataset stores its turns."""

    structured: bool
    """As JSON text, since they differ in shape."""
    reasoned: bool
    """With `reasoning_content`."""
    pictured: bool = False
    """With content in parts, of which those of the type `image` are in the order of the column `images`."""


def _place_thinking(rows: "pl.DataFrame", thinking: DatasetThinking) -> "pl.DataFrame":
    """The rows without thinking, with thinking before the content of its message in tags as by `join_thinking`, or in a field of
    its own; tags in it are escaped, since chat templates write the field between tags.
    """
    import polars as pl

    turn = pl.element().struct
    content = turn.field("content")
    reasoning = turn.field("reasoning").str.replace_all(THINKING_TAG.pattern, "(${1}${2})")
    fields = {"reasoning": reasoning if thinking == "field" else pl.lit(None, pl.String)}
    if thinking == "tags":
        ambiguous = (turn.field("role") == "assistant") & content.str.contains(THINKING_TAG.pattern)
        thought = pl.coalesce(reasoning, pl.when(ambiguous).then(pl.lit("")))
        tagged = pl.concat_str(pl.lit(f"{THINK_OPENING}\n"), thought, pl.lit(f"\n{THINK_CLOSING}\n\n"), content)
        fields["content"] = pl.coalesce(tagged, content)
    return rows.with_columns(
        pl.col(column).list.eval(turn.with_fields(**fields)) for column in TURN_COLUMNS if column in rows.columns
    )


def _remove_prompt_thinking(rows: "pl.DataFrame") -> "pl.DataFrame":
    """The rows without the thinking of the turns before the last question, which a chat does not return to the model."""
    import polars as pl

    plain = pl.element().struct.with_fields(reasoning=pl.lit(None, pl.String))
    prompt = pl.col("messages").list.head("asked").list.eval(plain)
    return rows.with_columns(messages=prompt.list.concat(pl.col("messages").list.slice("asked")))


def measure_thinking(parts: Sequence["pl.DataFrame"], form: DatasetThinking) -> ThinkingRecord | None:
    """The conversations of all parts that have thinking, and its length; None if there are none."""
    import polars as pl

    words = pl.element().struct.field("reasoning").str.count_matches(r"\S+")
    per_row = pl.concat(rows.select(pl.col("messages").list.eval(words).list.sum()).to_series() for rows in parts)
    thought = per_row.filter(per_row > 0)
    mean = thought.mean()
    if not isinstance(mean, float):
        return None
    return ThinkingRecord(rows=len(per_row), thought=len(thought), mean_words=round(mean, 1), form=form)


def _has_values(column: "pl.Series") -> bool:
    """Whether the column has a value other than null, an empty text or an empty list."""
    import polars as pl

    if isinstance(column.dtype, pl.List):
        return bool((column.list.len() > 0).any())
    if column.dtype != pl.String:
        return bool(column.is_not_null().any())
    return bool((column.is_not_null() & (column != "")).any())


def count_prompt_turns(roles: Sequence[str]) -> int:
    """The number of a conversation's turns that are its prompt: all up to the last question. The turns of the assistant and its
    tools after it are the answer, so no trainer learns to write a user's words.
    """
    return max((place for place, role in enumerate(roles, 1) if role in PROMPT_ROLES), default=0)


def build_openai_turn(turn: FlatTurn) -> dict[str, Any]:
    """A turn for chat templates, with calls and images as in OpenAI's API and without unneeded keys: templates test for the key
    `tool_calls`, and an empty value breaks them.
    """
    plain = {key: turn[key] for key in ("role", "content", "name") if turn.get(key) is not None}
    if turn.get("reasoning"):
        plain["reasoning_content"] = turn["reasoning"]
    if turn.get("images"):
        images = [{"type": "image_url", "image_url": {"url": url}} for url in turn["images"]]
        plain["content"] = [{"type": "text", "text": turn["content"]}, *images]
    if not turn.get("tool_calls"):
        return plain
    calls = [{"type": "function", "function": call} for call in json.loads(turn["tool_calls"])]
    return {**plain, "tool_calls": calls}


def _convert_turns(messages: "pl.Series", form: TurnForm) -> "pl.Series":
    """`{role, content}` of each turn, and `reasoning_content`, null where there is none; if any turn of the dataset has more,
    each turn as JSON text.
    """
    import polars as pl

    if form.structured:
        return _map_in_slices(
            messages, lambda turns: [_dump_json(build_openai_turn(turn)) for turn in turns], pl.List(pl.String)
        )
    if form.pictured:
        part = pl.Struct({"type": pl.String, "text": pl.String})
        reasoning = {"reasoning_content": pl.String} if form.reasoned else {}
        dtype = pl.List(pl.Struct({"role": pl.String, "content": pl.List(part), **reasoning}))
        return _map_in_slices(
            messages, lambda turns: [_split_turn(turn, reasoned=form.reasoned) for turn in turns], dtype
        )
    reasoned = [pl.element().struct.field("reasoning").alias("reasoning_content")] if form.reasoned else []
    plain = pl.struct(pl.element().struct.field("role", "content"), *reasoned)
    return messages.to_frame().select(pl.all().list.eval(plain)).to_series()


def _has_stored_images_alone(rows: "pl.DataFrame") -> bool:
    """Whether every image of the rows is a file of its run."""
    return all(is_stored_image(name) for names in _list_image_names(rows).to_list() for name in names)


def _list_image_names(rows: "pl.DataFrame") -> "pl.Series":
    """The images of each row's conversation, in order; of a pair those of its prompt."""
    import polars as pl

    column = "messages" if "messages" in rows.columns else "prompt"
    names = _map_in_slices(
        rows[column], lambda turns: [name for turn in turns for name in turn["images"] or ()], pl.List(pl.String)
    )
    return names.alias(IMAGES_COLUMN)


def _split_turn(turn: FlatTurn, *, reasoned: bool) -> dict[str, Any]:
    """A turn whose content is a list of parts: an image first, then the text about it."""
    images = [{"type": "image", "text": None} for _ in turn["images"] or ()]
    parts = {"role": turn["role"], "content": [*images, {"type": "text", "text": turn["content"]}]}
    return {**parts, "reasoning_content": turn["reasoning"]} if reasoned else parts


def _dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _map_in_slices(column: "pl.Series", convert: Callable[[Any], Any], dtype: Any) -> "pl.Series":
    """`convert` applied to each value, one slice at a time."""
    import polars as pl

    slices = (column.slice(start, ROWS_PER_SLICE).to_list() for start in range(0, len(column), ROWS_PER_SLICE))
    converted = [pl.Series(column.name, [convert(value) for value in values], dtype=dtype) for values in slices]
    return pl.concat([pl.Series(column.name, [], dtype=dtype), *converted])


def _convert_tool_schemas(tools: str | None) -> str | None:
    """Tools as JSON text, each as `{type, function}`; None without tools."""
    schemas = json.loads(tools) if tools else None
    if not isinstance(schemas, list) or not all(isinstance(tool, dict) for tool in schemas):
        return None
    return _dump_json([tool if "function" in tool else {"type": "function", "function": tool} for tool in schemas])


def _list_optional_columns(rows: "pl.DataFrame") -> list[str]:
    return [
        name
        for name in (IMAGES_COLUMN, "reasoning", "tools", *IMAGE_SEED_COLUMNS, VOTES, PASS_RATE)
        if name in rows.columns
    ]


def _build_messages_form(rows: "pl.DataFrame", turns: TurnForm) -> "pl.DataFrame":
    return rows.select("id", _convert_turns(rows["messages"], turns), *_list_optional_columns(rows))


def _build_prompt_completion_form(rows: "pl.DataFrame", turns: TurnForm) -> "pl.DataFrame":
    import polars as pl

    rows = rows.filter((pl.col("asked") > 0) & (pl.col("asked") < pl.col("messages").list.len()))
    halves = rows.select(
        prompt=pl.col("messages").list.head("asked"), completion=pl.col("messages").list.slice("asked")
    )
    return rows.select("id", *(_convert_turns(half, turns) for half in halves), *_list_optional_columns(rows))


def _build_preference_form(rows: "pl.DataFrame", turns: TurnForm) -> "pl.DataFrame":
    converted = [_convert_turns(rows[name], turns) for name in ("prompt", "chosen", "rejected")]
    return rows.select(*converted, "difference", "chosen_id", "rejected_id", *_list_optional_columns(rows))


def _build_alpaca_form(rows: "pl.DataFrame", _turns: TurnForm) -> "pl.DataFrame":
    import polars as pl

    if "tools" in rows.columns:
        rows = rows.filter(pl.col("tools").is_null()).drop("tools")
    texts = dict.fromkeys(("instruction", "input", "output", "system"), pl.String)
    return _rewrite_conversations(
        rows, _convert_to_alpaca, pl.Struct({**texts, "history": pl.List(pl.List(pl.String))})
    )


def _convert_to_alpaca(turns: Sequence[FlatTurn]) -> dict[str, Any] | None:
    """The keys of LLaMA-Factory's documentation, of which the first three are Stanford's; None for a conversation with tools or
    images, or one that does not alternate question and answer.
    """
    has_system = bool(turns) and turns[0]["role"] == "system"
    spoken = turns[has_system:]
    roles = [turn["role"] for turn in spoken]
    if roles != ["user", "assistant"] * (len(spoken) // 2) or not spoken:
        return None
    if any(turn.get("tool_calls") or turn.get("images") for turn in spoken):
        return None
    *history, (question, answer) = zip(spoken[::2], spoken[1::2], strict=True)
    return {
        "instruction": question["content"],
        "input": "",
        "output": answer["content"],
        "system": turns[0]["content"] if has_system else "",
        "history": [[before["content"], after["content"]] for before, after in history],
    }


def _build_sharegpt_form(rows: "pl.DataFrame", _turns: TurnForm) -> "pl.DataFrame":
    import polars as pl

    turns = pl.List(pl.Struct({"from": pl.String, "value": pl.String}))
    return _rewrite_conversations(rows, _convert_to_sharegpt, pl.Struct({"conversations": turns}))


IMAGE_FILE_FORMS = ("sharegpt",)
"""Forms whose trainers open files of images: their JSON lines have paths in the place of `data:` URLs."""
SHAREGPT_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def _convert_to_sharegpt(turns: Sequence[FlatTurn]) -> dict[str, Any] | None:
    """`conversations`, with a token for each image before the text about it; None if a turn has both text and calls, which are
    separate turns in this form.
    """
    converted = []
    for turn in turns:
        if not turn["tool_calls"]:
            value = "<image>\n" * len(turn.get("images") or ()) + turn["content"]
            converted.append({"from": SHAREGPT_SPEAKERS[turn["role"]], "value": value})
        elif turn["content"]:
            return None
        else:
            calls = json.loads(turn["tool_calls"])
            converted.append({"from": "function_call", "value": _dump_json(calls[0] if len(calls) == 1 else calls)})
    return {"conversations": converted}


def _rewrite_conversations(
    rows: "pl.DataFrame", convert: Callable[[Sequence[FlatTurn]], dict[str, Any] | None], struct: "pl.Struct"
) -> "pl.DataFrame":
    """The columns of `struct` built from each conversation, without rows that the form cannot hold."""
    converted = _map_in_slices(rows["messages"], convert, struct)
    kept = converted.is_not_null()
    return (
        rows.filter(kept)
        .select("id")
        .hstack(converted.filter(kept).struct.unnest())
        .hstack(rows.filter(kept).select(_list_optional_columns(rows)))
    )


FORM_BUILDERS: Mapping[str, Callable[["pl.DataFrame", TurnForm], "pl.DataFrame"]] = {
    "messages": _build_messages_form,
    "prompt_completion": _build_prompt_completion_form,
    "preference": _build_preference_form,
    "alpaca": _build_alpaca_form,
    "sharegpt": _build_sharegpt_form,
}


def build_hub_features(form: FormattedDataset) -> list[dict[str, Any]]:
    """The columns as declared on the hub: `datasets` (4.7 or newer) then decodes JSON text. Empty without JSON text
    or images.
    """
    schema = form.parts[0].schema
    return (
        [_build_hub_feature(name, dtype, json_text=name in form.texts) for name, dtype in schema.items()]
        if form.texts or IMAGES_COLUMN in schema
        else []
    )


def count_images(form: FormattedDataset) -> int:
    """The number of different images of the column `images`."""
    import polars as pl

    if IMAGES_COLUMN not in form.parts[0].columns:
        return 0
    return pl.concat([rows[IMAGES_COLUMN] for rows in form.parts]).explode().drop_nulls().n_unique()


def _build_hub_feature(name: str, dtype: Any, *, json_text: bool) -> dict[str, Any]:
    kind = {"list": "image"} if name == IMAGES_COLUMN else _convert_hub_type(dtype, json_text=json_text)
    return {"name": name, "dtype": kind} if isinstance(kind, str) else {"name": name, **kind}


def _convert_hub_type(dtype: Any, *, json_text: bool) -> Any:
    import polars as pl

    if isinstance(dtype, pl.List):
        return {"list": _convert_hub_type(dtype.inner, json_text=json_text)}
    if isinstance(dtype, pl.Struct):
        return [_build_hub_feature(field.name, field.dtype, json_text=False) for field in dtype.fields]
    numbers = {pl.Float64: "float64", pl.Int64: "int64"}
    return numbers.get(dtype, "json" if json_text else "string")


def format_json_lines(
    rows: "pl.DataFrame", texts: frozenset[str], format_image: Callable[[str], str] = str
) -> Iterator[str]:
    """Each row as a line of JSON; the JSON text of the columns `texts` is decoded, and `format_image` gives the URL of an image
    of this name.
    """
    for part in rows.iter_slices(ROWS_PER_SLICE):
        for row in part.iter_rows(named=True):
            if IMAGES_COLUMN in row:
                row[IMAGES_COLUMN] = [format_image(name) for name in row[IMAGES_COLUMN]]
            for key in texts & row.keys():
                if isinstance(row[key], list):
                    row[key] = [json.loads(text) for text in row[key]]
                elif row[key] is not None:
                    row[key] = json.loads(row[key])
            yield _dump_json(row) + "\n"
