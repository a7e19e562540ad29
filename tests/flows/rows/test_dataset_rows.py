import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.errors import UsageError
from core.sample import Candidate, Message, Sample, SampleStatus, Seed, TokenUsage, ToolCall
from core.storage.sample_files import write_samples
from flows.data.dataset_formats import count_prompt_turns, format_dataset
from flows.rows.dataset_rows import read_dataset_conversations, read_dataset_documents, read_dataset_pairs
from flows.rows.row_forms import build_row_document, read_row_conversation

CALL = ToolCall(name="weather", arguments={"city": "Oslo", "days": [1, 2]})
PLAIN = [Message(role="user", content="Hi?"), Message(role="assistant", content="Hi.")]
WITH_TOOLS = [
    Message(role="user", content="Is it warm in Oslo?"),
    Message(role="assistant", content="", tool_calls=(CALL,)),
    Message(role="tool", content='{"celsius": 21}', name="weather"),
    Message(role="assistant", content="Yes, 21 degrees."),
]


def samples_file(folder: Path, *turns: list[Message]) -> Path:
    samples = [
        Sample(
            id=f"s-{i}", seed=Seed(id=f"s-{i}", data={}), state=SampleStatus.kept, candidate=Candidate(messages=messages),
            revisions=0, turns=[], critiques=[], verdicts=[], usage=TokenUsage(),
        )
        for i, messages in enumerate(turns)
    ]  # fmt: skip
    write_samples(folder / "samples" / "shard-0.parquet", samples)
    return folder


def test_a_run_is_read_back_with_and_without_tools(tmp_path: Path) -> None:
    run = samples_file(tmp_path, PLAIN, WITH_TOOLS)
    assert read_dataset_conversations(run) == [PLAIN, WITH_TOOLS]
    assert '"name": "weather"' in list(read_dataset_documents(run))[1].text


LED = [Message(role="system", content="Be short."), *PLAIN, Message(role="user", content="And?"), PLAIN[1]]


@pytest.mark.parametrize(
    ("form", "turns"),
    [
        *(
            (form, turns)
            for form in ("messages", "prompt_completion", "sharegpt")
            for turns in ([PLAIN], [PLAIN, WITH_TOOLS])
        ),
        ("sharegpt", [LED, PLAIN]),
        ("alpaca", [PLAIN]),
        ("alpaca", [LED, PLAIN]),
    ],
)
def test_rows_written_in_a_form_are_read_back(form: str, turns: list[list[Message]], tmp_path: Path) -> None:
    run = samples_file(tmp_path, *turns)
    rows = pl.read_parquet(run / "samples" / "*.parquet", columns=["id", "messages"])
    counts = [count_prompt_turns([message["role"] for message in messages]) for messages in rows["messages"].to_list()]
    rows = rows.with_columns(asked=pl.Series(counts), reasoning=pl.lit(None, pl.String), tools=pl.lit(None, pl.String))
    (part,) = format_dataset(form, [rows]).parts
    file = tmp_path / "form.parquet"
    part.write_parquet(file)
    assert read_dataset_conversations(file) == turns


def test_only_kept_rows_of_a_filtered_dataset_are_read(tmp_path: Path) -> None:
    for name, text in (("kept", "good"), ("dropped", "bad")):
        pl.DataFrame({"text": [text]}).write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "aside.jsonl").write_text('{"text": "ugly"}\n')
    assert [document.text for document in read_dataset_documents(tmp_path)] == ["good"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "x"}, "has `text` alone, of which nothing is a question or an answer"),
        ({"conversations": "x"}, "`conversations` must be a list of from and value, not str"),
        ({"conversations": [{"from": "poet", "value": "x"}]}, "known roles are "),
        ({"conversations": [{"from": "function_call", "value": "{"}]}, "`conversations`: a call cannot be read"),
        ({"conversations": [{"from": "function_call", "value": "3"}]}, "`conversations`: a call cannot be read"),
        ({"instruction": 3, "output": "x"}, "`instruction` must be text, not int"),
        ({"instruction": "x", "output": "x", "history": ["x"]}, "`history` must be a list of question and answer"),
    ],
)
def test_a_row_of_another_form_that_cannot_be_read_is_named(row: object, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(UsageError, match=f"row 1: .*{sentence}") as caught:
        read_dataset_conversations(file)
    assert "stillhouse filter" not in str(caught.value)


@pytest.mark.parametrize("turn", ['{"role": "poet", "content": "x"}', '{"content": "x"}', '"x"', "3"])
def test_a_row_that_is_not_a_conversation_is_named(turn: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"messages": [{turn}]}}\n')
    with pytest.raises(UsageError, match="row 1: `messages` must be a list of role and content"):
        read_dataset_conversations(file)


@pytest.mark.parametrize(
    "answered",
    [
        {"content": "<think>\nHm, bees.\n</think>\n\nBees fly."},
        {"content": "Bees fly.", "reasoning_content": "Hm, bees."},
        {"content": "Bees fly.", "reasoning": "Hm, bees."},
        {"content": "Bees fly.", "reasoning": "Hm, bees.", "reasoning_content": None, "images": None},
    ],
)
def test_thinking_in_any_form_is_read_and_is_no_part_of_the_answer(answered: dict[str, Any]) -> None:
    row = {"messages": [{"role": "user", "content": "Of bees?"}, {"role": "assistant", **answered}]}
    document, (asked, turn) = build_row_document(row), read_row_conversation(row)
    assert (document.text, document.answers, document.thinking) == ("Bees fly.", ("Bees fly.",), "Hm, bees.")
    assert (asked.reasoning, turn.content, turn.reasoning) == (None, "Bees fly.", "Hm, bees.")


def test_pairs_are_read_in_the_form_of_preference_trainers(tmp_path: Path) -> None:
    turns = {
        "prompt": [{"role": "user", "content": "Hi?"}],
        "chosen": [{"role": "assistant", "content": "Hi."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    texts = {"prompt": "Hi?", "chosen": "Hi.", "rejected": "No."}
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(turns) + "\n" + json.dumps(texts) + "\n")
    worse = [PLAIN[0], Message(role="assistant", content="No.")]
    assert read_dataset_pairs(file) == [(PLAIN, worse)] * 2
    file.write_text(json.dumps({"prompt": "Hi?", "chosen": "Hi."}))
    with pytest.raises(UsageError, match="row 1: needs `prompt`, `chosen` and `rejected`; it lacks rejected"):
        read_dataset_pairs(file)


def test_tags_in_a_question_or_inside_an_answer_are_text() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "<think>What is it?</think> Say."},
            {"role": "assistant", "content": "The tag <think> opens it, </think> closes it."},
        ]
    }
    assert build_row_document(row).thinking == ""
    assert [turn.content for turn in read_row_conversation(row)] == [turn["content"] for turn in row["messages"]]
