"""What half of the embedded teacher's weights loses before any training: pruned by Wanda, and with the others fitted.

Measured and held-out conversations are the teacher's own (`data/replay`). The control fits the weights on the same tokens in
random order; the benchmark fails if it is as good.

    python -m benchmarks.pruning [--conversations N] [--held-out N]
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.machine import describe_measurement
from flows.terminal.console import SESSION
from plugins.forms.reconstruction import prune_and_reconstruct
from plugins.forms.sparsity import Pruning, compute_zero_share, prune_weights
from students.chat_encoding import EncodedConversation, find_pad_id
from students.predictions import build_batch, compute_held_out_loss
from students.replay import PACKAGED_REPLAY, read_held_out_replay
from students.start_model import start_from_layers

LAYERS, CONVERSATIONS, HELD_OUT = 30, 80, 32
WANDA, FITTED, CONTROL = "Wanda", "Wanda, `reconstruct = true`", "the same on tokens in random order (control)"
MARGIN = 0.1
"""Nats per token by which the control must be worse."""


class Outcome(NamedTuple):
    zeros: float
    loss: float
    """Held-out nats per token of an answer."""
    seconds: float
    """Of processor time."""


def table(conversations: int = CONVERSATIONS, held_out: int = HELD_OUT) -> str:
    """Raises RuntimeError if the control reaches the fitted weights."""
    found = read_held_out_replay(PACKAGED_REPLAY, conversations + held_out)
    measured, other = found[held_out:], found[:held_out]
    start = start_from_layers(LAYERS)
    dense = compute_held_out_loss(start.model, other, find_pad_id(start.tokenizer))
    outcomes = {arm: measure_arm(arm, measured, other) for arm in (WANDA, FITTED, CONTROL)}
    fitted, control = (outcomes[arm].loss for arm in (FITTED, CONTROL))
    if control < fitted + MARGIN:
        raise RuntimeError(
            f"tokens in random order reach {control:.2f} nats, text {fitted:.2f}: what is fitted is not text"
        )
    tokens = sum(len(conversation.ids) for conversation in measured)
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.pruning`",
        "",
        f"The embedded teacher, {LAYERS} layers; inputs measured on {len(measured)} of its own conversations "
        f"({tokens:,} tokens), loss on the answers of {len(other)} others, before any training. Unpruned: {dense:.3f} nats "
        "per token. Won back: the part of what Wanda loses.",
        "",
        "| half of the weights pruned by | zeros | nats per token | won back | CPU s |",
        "|---|---:|---:|---:|---:|",
    ]
    plain = outcomes[WANDA].loss
    for arm, outcome in outcomes.items():
        back = "" if arm == WANDA else f"{(plain - outcome.loss) / (plain - dense):.0%}"
        lines.append(f"| {arm} | {outcome.zeros:.1%} | {outcome.loss:.3f} | {back} | {outcome.seconds:.0f} |")
    return "\n".join(lines)


def measure_arm(arm: str, measured: Sequence[EncodedConversation], held_out: Sequence[EncodedConversation]) -> Outcome:
    start, config = start_from_layers(LAYERS), Pruning(share=0.5)
    pad = find_pad_id(start.tokenizer)
    batch = build_batch(shuffle_tokens(measured) if arm == CONTROL else measured, pad)
    began = time.process_time()
    if arm == WANDA:
        prune_weights(start.model, batch, config)
    else:
        prune_and_reconstruct(start.model, batch, config, SESSION.print_unless_stopped)
    seconds = time.process_time() - began
    loss = compute_held_out_loss(start.model, held_out, pad)
    return Outcome(compute_zero_share(start.model), loss, seconds)


def shuffle_tokens(conversations: Sequence[EncodedConversation]) -> list[EncodedConversation]:
    """Conversations of the same lengths, with all tokens in random order."""
    tokens = [token for conversation in conversations for token in conversation.ids]
    random.Random(1).shuffle(tokens)
    given = iter(tokens)
    return [one._replace(ids=tuple(next(given) for _ in one.ids)) for one in conversations]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=CONVERSATIONS)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    options = parser.parse_args()
    sys.stdout.write(f"{table(options.conversations, options.held_out)}\n")


if __name__ == "__main__":
    main()
