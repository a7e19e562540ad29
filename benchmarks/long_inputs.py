"""What a student with sliding windows still finds in a long input, by distance: new small models that are asked for facts.

The user gives a text of plain sentences with a few facts in it ("box red."); the assistant lists the facts in another order. Only
the list is learned. A fact further back than the windows of all layers reach can come from a layer with full attention only, so
the arm without such a layer is the control: the benchmark fails if it knows more than `CONTROL_MOST` of these.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.machine import describe_measurement
from core.config.students import StudentConfig
from core.intervals import estimate_share
from core.sample import Message
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id
from students.output.gguf_export import read_student
from students.predictions import predict_tokens
from students.token_batches import build_batch
from students.training.student_training import train_student

ROWS, HELD_OUT, EPOCHS, FACTS, SENTENCES = 6000, 200, 6, 8, 24
LAYERS, WIDTH, VOCABULARY, WINDOW = 2, 96, 512, 24
REACH = LAYERS * (WINDOW - 1)
"""Tokens that windows alone carry something on."""
FULL_LEAST, SHARE_LEAST, CONTROL_MOST = 0.95, 0.95, 0.15
"""Of the answers beyond the reach: with full attention; with windows and a full layer, as a share of it; without a full layer,
where guessing one of 16 colours is right in 6 %."""
FULL, WINDOWS, WITHOUT_SINKS, CONTROL = "full attention", "windows with sinks", "windows without sinks", "windows only"
ARMS: dict[str, dict[str, Any]] = {
    FULL: {},
    WINDOWS: {"attention": {"window": WINDOW, "full_every": LAYERS}},
    WITHOUT_SINKS: {"attention": {"window": WINDOW, "full_every": LAYERS, "sinks": False}},
    CONTROL: {"attention": {"window": WINDOW, "full_every": LAYERS + 1}},
}
THINGS = "box cup door lamp ring boat coat desk fork gate hat key map nail pen road".split()
COLOURS = "red blue green black white brown gray pink orange purple yellow gold silver violet cream amber".split()
FILLERS = (
    "Rain fell on the town.", "A dog ran home.", "The bread was warm.", "She sat down.", "They sang all day.",
    "He read a book.", "The river was calm.", "We had some tea.",
)  # fmt: skip
BINS = (0, REACH // 2, REACH, 2 * REACH, 4 * REACH, 1 << 20)
"""Edges of the distances in tokens, from a fact to its answer."""


class Answers(NamedTuple):
    """The colours that a model names."""

    distances: np.ndarray
    """Tokens from the fact to the answer, of shape (answers,)."""
    right: np.ndarray
    """Whether each is the fact's, of shape (answers,)."""

    def beyond_reach(self) -> np.ndarray:
        return self.right[self.distances > REACH]


def build_conversation(seed: str) -> Conversation:
    """Facts at random places of a text, and their list in another order."""
    rng = random.Random(seed)
    facts = dict(zip(rng.sample(THINGS, FACTS), rng.sample(COLOURS, FACTS), strict=True))
    text = [rng.choice(FILLERS) for _ in range(SENTENCES)]
    for thing, colour in facts.items():
        text.insert(rng.randrange(1, len(text) + 1), f"{thing} {colour}.")
    listed = " ".join(f"{thing} {colour}." for thing, colour in rng.sample(sorted(facts.items()), FACTS))
    return [Message(role="user", content=" ".join(text)), Message(role="assistant", content=f"Facts: {listed}")]


@torch.no_grad()
def measure_answers(student: Path, conversations: Sequence[Conversation]) -> Answers:
    """The list up to each colour is given; the answer is the model's likeliest token."""
    model, tokenizer = read_student(student)
    colours = {tokenizer(f" {colour}", add_special_tokens=False)["input_ids"][0] for colour in COLOURS}
    assert len(colours) == len(COLOURS), "each colour begins with another token"
    model.train(False)
    distances: list[int] = []
    right: list[bool] = []
    for conversation in conversations:
        encoded = encode_conversation(conversation, tokenizer, 4096)
        assert isinstance(encoded, EncodedConversation)
        predictions = predict_tokens(model, build_batch([encoded], find_pad_id(tokenizer)))
        first: dict[int, int] = {}
        learned = [place for place, mark in enumerate(encoded.learned) if mark]
        for place, token in enumerate(encoded.ids):
            if token in colours and not encoded.learned[place]:
                first[token] = place
        for row, place in enumerate(learned):
            if (token := encoded.ids[place]) in colours:
                distances.append(place - 1 - first[token])  # the token before predicts it
                right.append(bool(predictions.logits[row].argmax() == token))
    return Answers(np.array(distances), np.array(right))


def table(rows: int = ROWS, held_out: int = HELD_OUT, epochs: int = EPOCHS) -> str:
    """Raises RuntimeError if an arm misses its number, or the control reaches more than its own."""
    found = measure_arms(rows, held_out, epochs)
    text = format_table(found, rows, epochs)
    if faults := find_faults(found):
        raise RuntimeError("\n".join([text, "", *faults]))
    return text


def measure_arms(rows: int, held_out: int, epochs: int) -> dict[str, Answers]:
    train = [build_conversation(f"train {place}") for place in range(rows)]
    other = [build_conversation(f"held out {place}") for place in range(held_out)]
    found = {}
    with tempfile.TemporaryDirectory() as name:
        for arm, changes in ARMS.items():
            config = StudentConfig.model_validate(
                {
                    "start": "random", "layers": LAYERS, "hidden_size": WIDTH, "vocabulary": VOCABULARY, "epochs": epochs,
                    "learning_rate": 3e-3, "batch_size": 16, "max_tokens": 1024, "precision": "float32", **changes,
                }
            )  # fmt: skip
            train_student(
                train, config, Path(name) / arm, seed=1, progress=SESSION.print_unless_stopped, held_out=other[:20]
            )
            found[arm] = measure_answers(Path(name) / arm, other)
    return found


def find_faults(found: Mapping[str, Answers]) -> list[str]:
    """What the numbers do not show, in words."""
    rates = {arm: float(answers.beyond_reach().mean()) for arm, answers in found.items()}
    faults = []
    if rates[FULL] < FULL_LEAST:
        faults.append(
            f"{FULL}: {rates[FULL]:.0%} beyond the reach, {FULL_LEAST:.0%} needed: the models are undertrained"
        )
    if rates[WINDOWS] < SHARE_LEAST * rates[FULL]:
        faults.append(
            f"{WINDOWS}: {rates[WINDOWS]:.0%} beyond the reach, {SHARE_LEAST:.0%} of {rates[FULL]:.0%} needed"
        )
    if rates[CONTROL] > CONTROL_MOST:
        faults.append(
            f"{CONTROL}: {rates[CONTROL]:.0%} beyond the reach, at most {CONTROL_MOST:.0%} allowed: answers do not need the text"
        )
    return faults


def format_table(found: Mapping[str, Answers], rows: int, epochs: int) -> str:
    edges = list(pairwise(BINS))
    names = [f"{low + 1} to {high}" if high < BINS[-1] else f"over {low}" for low, high in edges]
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.long_inputs`",
        "",
        f"New models of {LAYERS} layers, {WIDTH} wide, {rows:,} conversations, {epochs} epochs, one seed; windows of {WINDOW} "
        "tokens in all layers but the last, or in all (control). Share of right answers by the tokens from the fact to the "
        f"answer; windows alone reach {REACH}.",
        "",
        f"| | {' | '.join(names)} | beyond {REACH}, with 95 % |",
        f"|---|{'---:|' * (len(names) + 1)}",
    ]
    for arm, answers in found.items():
        cells = []
        for low, high in edges:
            inside = answers.right[(answers.distances > low) & (answers.distances <= high)]
            cells.append(format_percent(float(inside.mean())) if len(inside) else "")
        beyond = answers.beyond_reach()
        interval = estimate_share(int(beyond.sum()), len(beyond))
        cells.append(interval.format(format_percent) if interval else "")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    sys.stdout.write(f"{table(options.rows, options.held_out, options.epochs)}\n")


if __name__ == "__main__":
    main()
