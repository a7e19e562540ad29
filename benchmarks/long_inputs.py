"""What a model with sliding windows still finds in a long input, by distance: the embedded teacher, with windows in most layers.

The user gives a text of plain sentences with a few facts in it ("box red."); the assistant lists the facts in another order. Only
the list is learned. The control has windows in all layers, so that a fact from far away could only be passed on from layer to
layer, 450 tokens far in 30 layers: the benchmark fails if it knows more than `CONTROL_MOST` of these.

    python -m benchmarks.long_inputs [--rows N] [--held-out N]
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.machine import describe_measurement
from core.config.students import StudentConfig
from core.intervals import estimate_share
from core.sample import Message
from flows.terminal.console import SESSION
from flows.terminal.text_format import format_percent
from plugins.forms.windows import add_start_windows
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id
from students.gguf_export import read_student
from students.predictions import build_batch, predict_tokens
from students.start_model import TEACHER_LAYERS, start_from_layers
from students.training.student_training import train_student

ROWS, HELD_OUT, FACTS = 480, 60, 8
SENTENCES, MANY_SENTENCES = 24, 144
"""Besides the facts: in training and in the first test, and in the second."""
WINDOW, FULL_EVERY, FAR = 16, 4, 64
"""Tokens; beyond `FAR` a fact counts as far away."""
LEAST, CONTROL_MOST = 0.95, 0.15
"""Of the answers from far away, of the trained students; guessing one of 16 colours is right in 6 %, without the five
that a window shows in the list in 8 %."""
START, CUT = "full attention, without training", "windows, without training"
WINDOWS, CONTROL = "windows, trained", "windows in all layers, trained (control)"
FULL_LAYERS = {WINDOWS: FULL_EVERY, CONTROL: TEACHER_LAYERS + 1}
THINGS = "box cup door lamp ring boat coat desk fork gate hat key map nail pen road".split()
COLOURS = "red blue green black white brown gray pink orange purple yellow gold silver violet cream amber".split()
FILLERS = (
    "Rain fell on the town.", "A dog ran home.", "The bread was warm.", "She sat down.", "They sang all day.",
    "He read a book.", "The river was calm.", "We had some tea.",
)  # fmt: skip
BINS = (0, FAR, 2 * FAR, 4 * FAR, 8 * FAR, 1 << 20)
"""Edges of the distances in tokens, from a fact to its answer."""


class Answers(NamedTuple):
    """The colours that a model names."""

    distances: np.ndarray
    """Tokens from the fact to the answer, of shape (answers,)."""
    right: np.ndarray
    """Whether each is the fact's, of shape (answers,)."""

    def far(self) -> np.ndarray:
        return self.right[self.distances > FAR]


class Outcome(NamedTuple):
    trained: Answers
    """In texts as long as those of the training."""
    longer: Answers


def build_conversation(seed: str, sentences: int = SENTENCES) -> Conversation:
    """Facts at random places of a text, and their list in another order."""
    rng = random.Random(seed)
    facts = dict(zip(rng.sample(THINGS, FACTS), rng.sample(COLOURS, FACTS), strict=True))
    text = [rng.choice(FILLERS) for _ in range(sentences)]
    for thing, colour in facts.items():
        text.insert(rng.randrange(1, len(text) + 1), f"{thing} {colour}.")
    listed = " ".join(f"{thing} {colour}." for thing, colour in rng.sample(sorted(facts.items()), FACTS))
    return [Message(role="user", content=" ".join(text)), Message(role="assistant", content=f"Facts: {listed}")]


@torch.no_grad()
def measure_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]
) -> Answers:
    """The list up to each colour is given; the answer is the model's likeliest token."""
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


def table(rows: int = ROWS, held_out: int = HELD_OUT) -> str:
    """Raises RuntimeError if an arm misses its number, or the control reaches more than its own."""
    found = measure_arms(rows, held_out)
    text = format_table(found, rows)
    if faults := find_faults(found):
        raise RuntimeError("\n".join([text, "", *faults]))
    return text


def measure_arms(rows: int, held_out: int) -> dict[str, Outcome]:
    train = [build_conversation(f"train {place}") for place in range(rows)]
    other = [build_conversation(f"held out {place}") for place in range(held_out)]
    longer = [build_conversation(f"longer {place}", MANY_SENTENCES) for place in range(held_out // 3)]

    def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Outcome:
        return Outcome(measure_answers(model, tokenizer, other), measure_answers(model, tokenizer, longer))

    start = start_from_layers(TEACHER_LAYERS)
    cut = add_start_windows(start, WINDOW, FULL_EVERY)
    found = {START: measure(start.model, start.tokenizer), CUT: measure(cut.model, cut.tokenizer)}
    with tempfile.TemporaryDirectory() as name:
        for arm, full_every in FULL_LAYERS.items():
            config = StudentConfig.model_validate(
                {
                    "start": "layers", "layers": TEACHER_LAYERS, "vocabulary": 512, "epochs": 1, "learning_rate": 3e-4,
                    "batch_size": 4, "max_tokens": 1024,
                    "steps": [{"type": "windows", "window": WINDOW, "full_every": full_every}],
                }
            )  # fmt: skip
            train_student(
                train, config, Path(name) / arm, seed=1, progress=SESSION.print_unless_stopped, held_out=other[:8]
            )
            found[arm] = measure(*read_student(Path(name) / arm))
    return found


def find_faults(found: Mapping[str, Outcome]) -> list[str]:
    """What the numbers do not show, in words."""
    windows, control = (float(found[arm].trained.far().mean()) for arm in (WINDOWS, CONTROL))
    faults = []
    if windows < LEAST:
        faults.append(f"{WINDOWS}: {windows:.0%} from far away, {LEAST:.0%} needed")
    if control > CONTROL_MOST:
        faults.append(f"{CONTROL}: {control:.0%} from far away, at most {CONTROL_MOST:.0%} allowed")
    return faults


def format_table(found: Mapping[str, Outcome], rows: int) -> str:
    edges = list(pairwise(BINS))
    names = [f"{low + 1} to {high}" if high < BINS[-1] else f"over {low}" for low, high in edges]
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.long_inputs`",
        "",
        f"The embedded teacher, {TEACHER_LAYERS} layers; windows of {WINDOW} tokens in all but every {FULL_EVERY}th layer, or in "
        f"all (control); trained once on {rows} conversations, one seed. Share of right answers by the tokens from the fact to "
        f"the answer, in texts of {SENTENCES} sentences, as in training, and of {MANY_SENTENCES}.",
        "",
        f"| | sentences | {' | '.join(names)} | beyond {FAR}, with 95 % |",
        f"|---|---:|{'---:|' * (len(names) + 1)}",
    ]
    for arm, outcome in found.items():
        for sentences, answers in zip((SENTENCES, MANY_SENTENCES), outcome, strict=True):
            cells = []
            for low, high in edges:
                inside = answers.right[(answers.distances > low) & (answers.distances <= high)]
                cells.append(format_percent(float(inside.mean())) if len(inside) else "")
            far = answers.far()
            interval = estimate_share(int(far.sum()), len(far))
            cells.append(interval.format(format_percent) if interval else "")
            lines.append(f"| {arm} | {sentences} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    options = parser.parse_args()
    sys.stdout.write(f"{table(options.rows, options.held_out)}\n")


if __name__ == "__main__":
    main()
