"""Makes the changed teachers of `drift.json`: the embedded one's weights as Q8_0 and Q4_0, and after 1, 4 and 16 steps.

    nice -n 10 python -m plugins.drift.benchmarks.changed_models CONVERSATIONS.jsonl FOLDER

A line of the conversations has the messages of a `request` and its `reply`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from core.config.students import StudentConfig
from students.gguf_export import export_gguf
from students.start_model import load_start_model

STEPS = (1, 4, 16)
ROWS, TOKENS, CHARACTERS = 2, 64, 600
"""Conversations of a step; tokens of a conversation, and characters of its reply."""


def format_conversations(file: Path, tokenizer: Any) -> list[str]:
    texts = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        reply = row["reply"] if isinstance(row["reply"], str) else json.dumps(row["reply"])
        messages = [*row["request"]["messages"][-1:], {"role": "assistant", "content": reply[:CHARACTERS]}]
        texts.append(tokenizer.apply_chat_template(messages, tokenize=False))
    return texts


def make_changed_models() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("conversations", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    torch.manual_seed(1)
    start = load_start_model(StudentConfig(start="layers", layers=30))
    model, tokenizer = start.model, start.tokenizer  # in float32

    def save(name: str, *forms: str) -> None:
        model.save_pretrained(given.folder / name)
        tokenizer.save_pretrained(given.folder / name)
        for form in forms:
            export_gguf(given.folder / name, form)

    save("s0", "q8_0", "q4_0")
    texts = format_conversations(given.conversations, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0)
    model.train()
    for step in range(max(STEPS)):
        optimizer.zero_grad()
        for row in range(ROWS):
            ids = torch.tensor([tokenizer(texts[(ROWS * step + row) % len(texts)])["input_ids"][:TOKENS]])
            (model(input_ids=ids, labels=ids).loss / ROWS).backward()
        optimizer.step()
        if step + 1 in STEPS:
            save(f"s{step + 1}", "q8_0")


if __name__ == "__main__":
    make_changed_models()
