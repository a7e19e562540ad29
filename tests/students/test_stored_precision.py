import copy
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from students.chat_encoding import Conversation, EncodedConversation, encode_conversation, find_pad_id
from students.output.gguf_export import read_student
from students.predictions import compute_held_out_loss
from students.stored_precision import round_weights
from tests.students.conftest import opinionated, saved, tiny_llama


def test_rounded_weights_have_exactly_the_loss_of_the_stored_ones(
    talk: list[Conversation], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = opinionated(tiny_llama(len(tokenizer)), 1)
    stored, _ = read_student(saved(copy.deepcopy(model).bfloat16(), tokenizer, tmp_path))
    encoded = [encode_conversation(conversation, tokenizer, 256) for conversation in talk]
    used = [one for one in encoded if isinstance(one, EncodedConversation)]
    round_weights(model)
    losses = [compute_held_out_loss(one, used, find_pad_id(tokenizer)) for one in (model, stored)]
    assert losses[0] == losses[1]
