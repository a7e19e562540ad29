"""A row as `distill --show-row` prints it is the row that the training learns from."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from core.config.students import StudentConfig
from core.sample import Message, ToolCall
from students.chat_encoding import Conversation
from students.training.student_training import train_student
from students.training_row import TrainingRow, build_training_row
from tests.flows.commands.test_commands import called
from tests.students.conftest import quiet
from tests.students.test_chat_encoding import THOUGHT, dialog

SEED = 7


def odd_conversations(talk: list[Conversation]) -> list[Conversation]:
    """With thinking, a tool call, two turns, and an answer that does not fit."""
    call = Message(role="assistant", content="", tool_calls=(ToolCall(name="find", arguments={"what": "bees"}),))
    result = Message(role="tool", content="A bee.")
    return [
        *talk,
        [*dialog("user: Bees?"), THOUGHT],
        [*dialog("user: Find bees."), call, result, Message(role="assistant", content="Found.")],
        dialog("user: Hi", "assistant: Hello.", "user: And?", "assistant: Nothing."),
        dialog("user: " + "long " * 99, "assistant: Yes"),
    ]


def shown(
    rows: list[Conversation], config: StudentConfig, rejected: list[Conversation] | None = None
) -> list[TrainingRow]:
    return [build_training_row(number, rows, config, SEED, rejected or []) for number in range(1, len(rows) + 1)]


def test_shown_rows_have_the_loss_of_the_first_step(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    rows = odd_conversations(talk)
    settings = config.model_copy(update={"precision": "float32", "max_tokens": 150, "epochs": 1})
    train_student(rows, settings, tmp_path / "student", seed=SEED, progress=quiet)
    line = json.loads((tmp_path / "student" / "training_log.jsonl").read_text().splitlines()[0])
    model = AutoModelForCausalLM.from_pretrained(config.start)
    losses = []
    for row in shown(rows, settings):
        if not row.use.startswith("learned in step 1 "):
            continue
        (text,) = row.rows
        ids = torch.tensor([[token for span in text.spans for token in span.ids]])
        learned = torch.tensor([span.learned for span in text.spans for _ in span.ids])
        nats = functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        losses += nats[learned[1:]].tolist()
    assert len(losses) == line["tokens"]
    assert sum(losses) / len(losses) == pytest.approx(line["loss"], rel=1e-5)


def test_every_row_says_what_becomes_of_it(talk: list[Conversation], config: StudentConfig) -> None:
    rows = odd_conversations(talk)
    *others, last = shown(rows, config.model_copy(update={"held_out": 0.25, "max_tokens": 150}))
    assert sum(row.use == "held out" for row in others) == 4
    assert sum(row.use.startswith("learned in step ") for row in others) == len(others) - 4
    assert all(row.rows[0].learned and not row.rows[0].cut for row in others)
    learned = ["".join(span.text for span in row.rows[0].spans if span.learned) for row in others[-3:]]
    assert learned[0] == "<think>\nBees?\nThey hum.\n</think>\n\nI like bees.<|im_end|>"
    assert '"what": "bees"' in learned[1]
    assert learned[1].endswith("</tool_call><|im_end|>Found.<|im_end|>")
    assert learned[2] == "Hello.<|im_end|>Nothing.<|im_end|>"
    assert last.use == "left out: the assistant's part lies behind max_tokens; raise it or shorten the prompt"
    assert (last.rows[0].tokens, last.rows[0].learned) == (150, 0)
    assert last.rows[0].cut > 0


def test_both_answers_of_a_pair_are_shown(talk: list[Conversation], config: StudentConfig) -> None:
    worse = [[*one[:-1], Message(role="assistant", content=f"No {place}.")] for place, one in enumerate(talk)]
    settings = config.model_copy(update={"objective": "dpo", "max_tokens": 150})
    for place, row in enumerate(shown(talk, settings, worse)):
        found = ["".join(span.text for span in text.spans if span.learned) for text in row.rows]
        assert found == [f"{talk[place][-1].content}<|im_end|>", f"No {place}.<|im_end|>"]


def test_the_command_marks_learned_tokens_and_trains_nothing(
    talk: list[Conversation], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"messages": [m.model_dump(mode="json") for m in one]}) for one in talk))
    words = ["distill", str(file), "--show-row", "2", "--set", f"start={tiny_folder}"]
    code, out, _ = called(capsys, *words)
    assert code == 0
    assert out.endswith("Write about rivers.<|im_end|>\n<|im_start|>assistant\n⟦I like rivers and rivers.<|im_end|>⟧\n")
    code, out, _ = called(capsys, *words, "--json")
    row = TrainingRow.model_validate_json(out)
    assert (code, row.number, row.rows[0].cut) == (0, 2, 0)
    assert called(capsys, *words[:3], "13", *words[4:])[::2] == (
        2, f"error: --show-row 13: {file} has 12 conversations\n",
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
