import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.config.students import DistillationConfig, StudentConfig
from core.errors import UsageError
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation
from students.comparison import write_untrained_student
from students.start_model import StartModel, load_start_model
from students.torch_teacher import load_teacher
from students.training.student_training import train_student
from students.vocabulary_trimming import choose_tokens, is_trimmed_from, trim_vocabulary
from tests.students.conftest import quiet, tiny_llama

SMALL = 285
"""Of the 333 tokens of the tests' tokenizer; 259 are single bytes and special tokens."""


@pytest.fixture
def start(tokenizer: PreTrainedTokenizerBase) -> StartModel:
    return StartModel(tiny_llama(len(tokenizer)), tokenizer, "a start", None, "other")


def test_the_most_used_tokens_are_kept(encoded: list[EncodedConversation], tokenizer: PreTrainedTokenizerBase) -> None:
    used = {row for one in encoded for row in one.ids}
    assert used <= set(choose_tokens(tokenizer, encoded, 332))
    words = {row for row in used if len(tokenizer.convert_ids_to_tokens(row)) > 1}
    few, none = set(choose_tokens(tokenizer, encoded, SMALL)), set(choose_tokens(tokenizer, [], SMALL))
    assert len(few & words) > len(none & words)


def test_texts_of_kept_tokens_are_tokenized_as_before(
    talk: list[Conversation], start: StartModel, encoded: list[EncodedConversation]
) -> None:
    before = [[start.tokenizer.convert_ids_to_tokens(row) for row in one.ids] for one in encoded]
    small = trim_vocabulary(start, encoded, 325).tokenizer
    kept, same = small.get_vocab(), 0
    for one, tokens in zip(talk, before, strict=True):
        found = encode_conversation(one, small, 64)
        assert isinstance(found, EncodedConversation)
        if all(token in kept for token in tokens):
            assert small.convert_ids_to_tokens(found.ids) == tokens
            same += 1
    assert same > 5


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_a_trimmed_model_has_the_same_logits_for_kept_tokens(
    tied: bool, tokenizer: PreTrainedTokenizerBase, encoded: list[EncodedConversation]
) -> None:
    kept = choose_tokens(tokenizer, encoded, 325)
    ids = next(one.ids for one in encoded if set(one.ids) <= set(kept))
    model = tiny_llama(len(tokenizer), tied=tied)
    before = model(torch.tensor([ids])).logits[..., kept]
    small = trim_vocabulary(StartModel(model, tokenizer, "", None, ""), encoded, 325)
    after = small.model(torch.tensor([[kept.index(row) for row in ids]])).logits
    assert torch.equal(before, after)
    assert (small.model.get_output_embeddings().weight is small.model.get_input_embeddings().weight) is tied


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (333, "student.vocabulary = 333: the tokenizer has only 333 tokens; leave it out"),
        (200, "student.vocabulary = 200: 259 single bytes and special tokens are always kept"),
    ],
)
def test_an_impossible_vocabulary_size_is_refused(size: int, message: str, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UsageError, match=message):
        choose_tokens(tokenizer, [], size)


def test_a_student_with_a_trimmed_vocabulary_is_trained_stored_and_recognized(
    talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"vocabulary": SMALL, "epochs": 3})
    record = train_student(talk, config, tmp_path / "student", seed=7, progress=quiet)
    assert record.loss_after < record.loss_before
    assert record.parameters == load_start_model(config).model.num_parameters() - (333 - SMALL) * 64
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert model.config.vocab_size == len(tokenizer) == SMALL
    assert json.loads((tmp_path / "student" / "student.json").read_text())["config"]["vocabulary"] == SMALL
    assert write_untrained_student(tmp_path / "student", tmp_path / "start")
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "start", dtype=torch.float32)
    assert AutoTokenizer.from_pretrained(tmp_path / "start").get_vocab() == tokenizer.get_vocab()
    assert before.config.vocab_size == SMALL
    assert not before.get_input_embeddings().weight.equal(model.get_input_embeddings().weight)


@pytest.mark.parametrize("signals", ["dense", "top_k", "sampled"])
def test_a_student_of_fewer_tokens_learns_from_probabilities(
    signals: str, talk: list[Conversation], config: StudentConfig, teacher: Path, tmp_path: Path
) -> None:
    distillation = DistillationConfig.model_validate({"teacher": str(teacher), "signals": signals})
    update = {"vocabulary": 325, "objective": "forward_kl", "distillation": distillation}
    record = train_student(talk, config.model_copy(update=update), tmp_path / "student", seed=7, progress=quiet)
    assert record.kl_after is not None
    assert record.kl_before is not None
    assert record.kl_after < 0.8 * record.kl_before


def test_a_tokenizer_with_other_merges_is_not_a_trimmed_one(
    start: StartModel, teacher: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    small = trim_vocabulary(start, [], SMALL).tokenizer
    assert is_trimmed_from(small, tokenizer)
    assert not is_trimmed_from(tokenizer, small)
    assert not is_trimmed_from(tokenizer, tokenizer)
    other = json.loads(small.backend_tokenizer.to_str())
    assert len(other["model"]["merges"]) > 2
    assert other["model"]["merges"] == [pair for pair in whole["model"]["merges"] if "".join(pair) in small.get_vocab()]
    other["model"]["merges"].reverse()
    reversed_merges = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(other)))
    assert not is_trimmed_from(reversed_merges, tokenizer)
    with pytest.raises(UsageError, match="probabilities are of different tokens"):
        load_teacher(str(teacher), reversed_merges)
