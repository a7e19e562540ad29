"""How far a student's predictions are from those of its start, on answers that the start wrote.

Knows two models with one vocabulary, and conversations; knows nothing of a panel.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from students.chat_encoding import Conversation, EncodedConversation, encode_untruncated, find_pad_id
from students.losses.start_reference import measure_divergences
from students.output.gguf_export import read_student
from students.predictions import predict_tokens
from students.token_batches import TokenBatch

DIVERGENCE_BATCH = 4
"""Conversations of a forward pass: the probabilities of 500 tokens over 49,152 words take 100 MB for each model."""


def measure_answer_divergence(start: Path, student: Path, conversations: Sequence[Conversation]) -> list[float]:
    """The KL divergence of `student` from `start` in nats, the mean over the tokens of each conversation's assistant turns.

    A conversation that cannot be encoded is left out.

    Raises:
        UsageError: if a model cannot be read.
    """
    before, tokenizer = read_student(start)
    after, _ = read_student(student)
    encoded = [encode_untruncated(conversation, tokenizer) for conversation in conversations]
    used = [one for one in encoded if isinstance(one, EncodedConversation)]

    def compute_start(batch: TokenBatch) -> torch.Tensor:
        return predict_tokens(before, batch).logits.log_softmax(-1)

    values = measure_divergences(after, compute_start, used, find_pad_id(tokenizer), DIVERGENCE_BATCH)
    return [float(tokens.mean()) for tokens in values]
