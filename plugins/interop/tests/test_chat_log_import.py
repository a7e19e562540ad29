"""Chat logs of every format become the same rows; personal data does not get through; nothing disappears uncounted."""

import json
from pathlib import Path
from typing import Any

import pytest

from plugins.interop.chat_log_import import import_chat_logs

ASKED, REPLIED = "Is my order late? Write to olga@acme-tools.de.", "delivery"
TURNS = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": REPLIED}]
COMPLETION = {"choices": [{"message": {"role": "assistant", "content": REPLIED, "refusal": None}}]}
LOGS: dict[str, dict[str, Any]] = {
    "openai": {"request": {"model": "m", "messages": TURNS[:1]}, "response": COMPLETION},
    "batch": {"custom_id": "1", "body": {"messages": TURNS[:1]}, "response": {"status_code": 200, "body": COMPLETION}},
    "messages": {"messages": TURNS},
    "langfuse": {"type": "GENERATION", "input": {"messages": TURNS[:1]}, "output": TURNS[1]},
    "opentelemetry": {
        "name": "chat m",
        "attributes": {
            "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": ASKED}]}]),
            "gen_ai.output.messages": json.dumps(
                [{"role": "assistant", "parts": [{"type": "text", "content": REPLIED}]}]
            ),
        },
    },
    "atif": {
        "schema_version": "ATIF-v1.4",
        "steps": [
            {"step_id": 1, "source": "user", "message": ASKED},
            {"step_id": 2, "source": "agent", "message": REPLIED},
        ],
    },
}


def import_rows(
    folder: Path, logs: list[Any], form: str = "conversations", *, mask: bool = True
) -> tuple[Any, list[Any]]:
    source, out = folder / "log.jsonl", folder / f"{form}-{len(list(folder.iterdir()))}.jsonl"
    source.write_text("\n".join(log if isinstance(log, str) else json.dumps(log) for log in logs), encoding="utf-8")
    report = import_chat_logs(source, out, form, mask=mask)
    return report, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", LOGS)
def test_each_format_gives_the_same_labeled_row(name: str, tmp_path: Path) -> None:
    report, (row,) = import_rows(tmp_path, [LOGS[name]], "labels")
    assert (row["text"], row["label"]) == ("Is my order late? Write to [EMAIL].", "delivery")
    assert report.masked == 1
    assert list(report.formats) == ["openai" if name == "batch" else name]


def test_personal_data_in_the_arguments_of_a_call_is_masked_and_odd_lines_are_counted(tmp_path: Path) -> None:
    arguments = '{"to": "olga\\u0040acme-tools.de", "text": "line\\nanna.smith@acme-tools.de", "a@acme-tools.de": 1}'
    call = {"id": "1", "type": "function", "function": {"name": "send", "arguments": arguments}}
    sent = {"messages": [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [call]}]}
    escaped = {
        "id": "2",
        "type": "function",
        "function": {"name": "send", "arguments": '{"to": "olga\\u0040acme-tools.de"}'},
    }
    sent["messages"][1]["tool_calls"].append(escaped)
    sent["messages"].append({"role": "user", "content": "My key is sk-proj-" + "a1b2c3d4" * 5})
    odd = [{"schema_version": "ATIF-v1.4", "steps": ["x"]}, {"name": "chat m", "attributes": ["x"]}]
    cut = '{"messages": [{"role": "user", "content": "half an emoji \\ud800"}]}'
    report, (row, other) = import_rows(tmp_path, [sent, *odd, cut])
    assert "acme-tools" not in json.dumps(row)
    assert row["messages"][-1]["content"] == "My key is [KEY]"
    assert other["messages"][0]["content"] == "half an emoji ?"
    assert (report.rows, sum(report.skipped.values())) == (2, len(odd))


def test_calls_of_tools_stay_and_their_arguments_are_masked(tmp_path: Path) -> None:
    call = {"tool_call_id": "c1", "function_name": "mail", "arguments": {"to": "olga@acme-tools.de"}}
    sent = {"results": [{"source_call_id": "c1", "content": "sent"}]}
    steps = [
        {"source": "user", "message": "Write to her."},
        {"source": "agent", "message": "", "tool_calls": [call], "observation": sent},
    ]
    _, (row,) = import_rows(tmp_path, [{"schema_version": "ATIF-v1.4", "steps": steps}])
    (made,) = row["messages"][1]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"to": "[EMAIL]"}
    assert row["messages"][2] == {"role": "tool", "content": "sent", "tool_call_id": "c1"}
