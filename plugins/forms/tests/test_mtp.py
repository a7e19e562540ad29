"""A block for multi-token prediction: trained, stored, exported, and how many of its drafts llama.cpp accepts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase
from transformers.modeling_layers import MtpModel

from core.config.students import StudentConfig
from core.sample import Message
from plugins.forms.mtp import add_mtp_block, load_mtp_block, predict_ahead
from plugins.forms.tests.test_hybrid import tiny_hybrid
from students.chat_encoding import Conversation, EncodedConversation, encode_conversation
from students.gguf_export import export_gguf, read_student
from students.predictions import build_batch, predict_tokens
from students.start_model import StartModel
from students.training.student_training import train_student
from teachers.local_llama import draft_settings
from tests.students.conftest import quiet, saved
from tests.support.llama_cpp import llama_cpp

TEXT = (
    "The bees left their hive early in the morning and flew over the wide green fields. The farmer had waited for them all "
    "spring, and he laughed aloud when they came home."
)
ANSWERED = 40
"""Tokens that are decoded."""
CONFIG = StudentConfig.model_validate(
    {
        "start": "random", "layers": 4, "hidden_size": 64, "steps": [{"type": "hybrid"}, {"type": "mtp"}],
        "epochs": 70, "batch_size": 2,
        "max_tokens": 256, "learning_rate": 5e-3, "precision": "float32", "checkpoint_steps": 30, "evaluate_steps": 70,
    }
)  # fmt: skip


def remembered() -> list[Conversation]:
    return [
        [Message(role="user", content=question), Message(role="assistant", content=TEXT)]
        for question in ("What happened?", "And then?")
    ]


@pytest.fixture(scope="module")
def monkeypatch_module() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", autouse=True)
def small_tokenizer(tokenizer: PreTrainedTokenizerBase, monkeypatch_module: pytest.MonkeyPatch) -> None:
    """New hybrids have the tests' tokenizer in place of the embedded teacher's."""

    def build(_config: StudentConfig) -> StartModel:
        return StartModel(tiny_hybrid(len(tokenizer), new=True), tokenizer, "a tiny hybrid", None, "apache-2.0")

    monkeypatch_module.setattr("students.training.training_setup.load_start_model", build)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mtp") / "student"
    train_student(remembered(), CONFIG, out, seed=1, progress=quiet, held_out=remembered())
    return out


def read_log(student: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (student / "training_log.jsonl").read_text().splitlines()]


def test_the_block_learns_next_to_the_student(student: Path) -> None:
    log = read_log(student)
    assert set(log[0]) == {"step", "loss", "lr", "tokens", "sft", "mtp"}
    assert log[0]["loss"] == pytest.approx(log[0]["sft"] + 0.3 * log[0]["mtp"], abs=1e-4)
    assert log[-1]["sft"] < 0.1 < 4 < log[0]["sft"]
    assert log[-1]["mtp"] < 0.2 < 4 < log[0]["mtp"]


def test_the_folder_is_loaded_by_transformers_which_drafts_with_it(
    student: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    weights = load_file(student / "model.safetensors")
    assert {name for name in weights if name.startswith("mtp.") and name.count(".") == 2} == {
        "mtp.fc.weight",
        "mtp.norm.weight",
        "mtp.pre_fc_norm_embedding.weight",
        "mtp.pre_fc_norm_hidden.weight",
    }
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    loaded = MtpModel.from_pretrained(model)
    assert loaded.layers[0].eh_proj.weight.equal(weights["mtp.fc.weight"].float())
    assert loaded.layers[0].mtp_block.mlp.up_proj.weight.equal(weights["mtp.layers.0.mlp.up_proj.weight"].float())
    other, _ = read_student(student)
    load_mtp_block(other, student)
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    hidden = model.model(ids).last_hidden_state
    positions = torch.arange(ids.shape[1] - 1)[None]
    theirs = loaded.forward_layer(0, hidden[:, :-1], positions, None, input_ids=ids[:, 1:])
    torch.testing.assert_close(other.mtp(hidden[:, :-1], ids[:, 1:]), theirs)


@torch.no_grad()
def test_the_block_sees_no_later_token_and_predicts_the_one_after_the_next(
    student: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model, _ = read_student(student)
    load_mtp_block(model, student)

    encoded = [encode_conversation(one, tokenizer, 256) for one in remembered()]
    batch = build_batch([one for one in encoded if isinstance(one, EncodedConversation)], 0)
    predictions = predict_tokens(model, batch, last=True)
    assert predictions.last is not None
    ahead = predict_ahead(model, batch, predictions.last)
    assert ahead.targets.equal(predictions.targets)
    assert (ahead.logits.argmax(1) == predictions.targets).float().mean() > 0.95
    first = build_batch([one for one in encoded if isinstance(one, EncodedConversation)][:1], 0)
    alone = predict_ahead(model, first, predictions.select_first(1).last)  # type: ignore[arg-type]
    assert alone.targets.equal(predictions.targets[predictions.rows == 0])

    changed = batch.ids.clone()
    changed[:, -1] = 5
    again = predict_tokens(model, batch._replace(ids=changed), last=True).last
    assert again is not None
    assert ahead.logits.equal(predict_ahead(model, batch, again).logits), "the last token of the longest row is its end"


def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    def stop(line: str) -> None:
        if "step 8/" in line:
            raise Interrupted

    monkeypatch.setattr("students.training.training_loop.PROGRESS_SECONDS", 0.0)
    short = CONFIG.model_copy(update={"epochs": 12, "checkpoint_steps": 5, "evaluate_steps": None})
    out, undisturbed = tmp_path / "student", tmp_path / "undisturbed"
    train_student(remembered(), short, undisturbed, seed=1, progress=quiet, held_out=remembered())
    with pytest.raises(Interrupted):
        train_student(remembered(), short, out, seed=1, progress=stop, held_out=remembered())
    lines: list[str] = []
    train_student(remembered(), short, out, seed=1, progress=lines.append, held_out=remembered())
    assert any("resumes after step 5" in line for line in lines)
    assert (out / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


# llama.cpp


class DraftResult(NamedTuple):
    tokens: list[int]
    drafted: int
    accepted: int


def decode(file: Path, prompt: list[int], drafted: int = 0) -> DraftResult:
    body = {
        "prompt": prompt, "n_predict": ANSWERED, "temperature": 0, "ignore_eos": True, "return_tokens": True,
    }  # fmt: skip
    with llama_cpp(file, draft_settings("mtp", drafted) if drafted else {}) as server:
        found = server.post("/completion", body)
    timings = found["timings"]
    return DraftResult(found["tokens"], timings.get("draft_n", 0), timings.get("draft_n_accepted", 0))


def change_block(student: Path, out: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """The student with another block, exported."""
    model, tokenizer = read_student(student)
    add_mtp_block(model)
    saved(model.bfloat16(), tokenizer, out)
    weights = load_file(student / "model.safetensors")
    changed = {
        name: change(name, weight).contiguous() if name.startswith("mtp.") else weight
        for name, weight in weights.items()
    }
    save_file(changed, out / "model.safetensors", {"format": "pt"})
    return export_gguf(out, "f32").path


def swap_halves(name: str, weight: torch.Tensor) -> torch.Tensor:
    """The projection takes the embedding for the hidden state and the other way round."""
    return torch.cat(weight.chunk(2, 1)[::-1], 1) if name == "mtp.fc.weight" else weight


def randomize(_name: str, weight: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn_like(weight) * 0.05


@pytest.fixture(scope="module")
def prompt(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What happened?"}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return ids


def test_llama_cpp_accepts_the_drafts_of_a_trained_block_only(student: Path, prompt: list[int], tmp_path: Path) -> None:
    path = export_gguf(student, "f32").path
    reader = gguf.GGUFReader(path)
    fields = {name: reader.fields[f"qwen35.{name}"].contents() for name in ("block_count", "nextn_predict_layers")}
    assert fields == {"block_count": 5, "nextn_predict_layers": 1}
    plain = decode(path, prompt)
    assert plain.drafted == 0
    for count, least in (
        (1, 0.9),
        (2, 0.5),
    ):  # the block's second draft follows from its own first, which was not trained
        found = decode(path, prompt, count)
        assert found.tokens == plain.tokens
        assert found.drafted > 10
        assert found.accepted > least * found.drafted
    for change, most in ((randomize, 0.2), (swap_halves, 0.5)):  # the latter can still guess what often follows a token
        found = decode(change_block(student, tmp_path / change.__name__, change), prompt, 1)
        assert found.tokens == plain.tokens
        assert found.drafted > 10
        assert found.accepted < most * found.drafted, change.__name__


@torch.no_grad()
def test_llama_cpp_accepts_as_many_drafts_as_torch(student: Path, prompt: list[int], tmp_path: Path) -> None:
    """Of a block that is right now and then."""

    def blur(name: str, weight: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(len(name))
        return weight + 0.7 * weight.float().std() * torch.randn_like(weight) if weight.ndim == 2 else weight

    path = change_block(student, tmp_path / "blurred", blur)
    found = decode(path, prompt, 1)
    model, _ = read_student(tmp_path / "blurred")
    load_mtp_block(model, tmp_path / "blurred")
    ids = torch.tensor([prompt + found.tokens])
    states = model.model(ids).last_hidden_state
    drafts = model.lm_head(model.mtp(states[:, :-1], ids[:, 1:]))[0].argmax(-1)  # of token `place + 2`
    place, drafted, accepted = len(prompt), 0, 0  # the last token that is certain
    while place + 1 < ids.shape[1] - 1:
        drafted += 1
        right = int(drafts[place - 1]) == int(ids[0, place + 1])
        accepted += right
        place += 2 if right else 1
    assert 0 < accepted < drafted
    assert abs(found.accepted - accepted) <= 1, "the last draft may be of a token that is not decoded"
    assert abs(found.drafted - drafted) <= 2
