"""How far a student's predictions are from those of its start, on answers that the start wrote.

Knows two models with one vocabulary, and conversations; knows nothing of a panel.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from students.chat_encoding import Conversation, EncodedConversation, encode_untruncated, find_pad_id
from students.losses.loss_functions import forward_kl
from students.output.gguf_export import read_student
from students.predictions import predict_tokens
from students.token_batches import build_batch

DIVERGENCE_BATCH = 4
"""Conversations of a forward pass: the probabilities of 500 tokens over 49,152 words take 100 MB for each model."""


@torch.no_grad()
def measure_answer_divergence(start: Path, student: Path, conversations: Sequence[Conversation]) -> list[float]:
    """The KL divergence of `student` from `start` in nats, the mean over the tokens of each conversation's assistant turns.

    Forward: the expectation is over the start's predictions, so that words which it found likely and the student forgot count
    most. A conversation that cannot be encoded is left out.

    Raises:
        UsageError: if a model cannot be read.
    """
    before, tokenizer = read_student(start)
    after, _ = read_student(student)
    before.train(False)
    after.train(False)
    encoded = [encode_untruncated(conversation, tokenizer) for conversation in conversations]
    used = [one for one in encoded if isinstance(one, EncodedConversation)]
    means: list[float] = []
    for first in range(0, len(used), DIVERGENCE_BATCH):
        batch = build_batch(used[first : first + DIVERGENCE_BATCH], find_pad_id(tokenizer))
        wanted, found = predict_tokens(before, batch), predict_tokens(after, batch)
        apart = forward_kl(found.logits.log_softmax(-1), wanted.logits.log_softmax(-1))
        means += [float(apart[wanted.rows == row].mean()) for row in range(len(batch.ids))]
    return means
