from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.config.students import LoraConfig, StudentConfig
from core.errors import UsageError
from students.chat_encoding import Conversation, EncodedConversation
from students.predictions import build_batch, predict_tokens
from students.training.student_training import train_student
from tests.students.conftest import quiet


def student_with(config: StudentConfig, talk: list[Conversation], out: Path, **lora: Any) -> Path:
    adjusted = config.model_copy(update={"lora": LoraConfig(rank=4, **lora), "learning_rate": 0.02})
    record = train_student(talk, adjusted, out, seed=7, progress=quiet)
    assert record.loss_after < record.loss_before - 0.5
    return out


def test_only_the_targets_change_and_the_rest_is_the_start(
    talk: list[Conversation], config: StudentConfig, tiny_folder: Path, tmp_path: Path
) -> None:
    student = student_with(config, talk, tmp_path / "student", targets=("q_proj", "down_proj"))
    before, after = load_file(tiny_folder / "model.safetensors"), load_file(student / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name, weight in after.items() if not weight.equal(before[name].bfloat16())}
    assert changed == {"q_proj", "down_proj"}
    assert "on q_proj, down_proj, merged here" in (student / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft 0.21 asks for it
def test_start_and_adapter_together_equal_the_student(
    talk: list[Conversation],
    config: StudentConfig,
    tiny_folder: Path,
    encoded: list[EncodedConversation],
    tmp_path: Path,
) -> None:
    student = student_with(config, talk, tmp_path / "student")
    start = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    apart = PeftModel.from_pretrained(start, str(student / "adapter"))
    whole = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32)
    assert not any("lora" in name for name, _ in whole.named_parameters())
    batch = build_batch(encoded, 0)
    one, other = (predict_tokens(model, batch).logits for model in (apart, whole))
    assert (one - other).abs().max() < 0.02 * one.abs().max(), "the student is rounded to bfloat16"


@pytest.mark.parametrize(
    ("lora", "complaint"),
    [
        (
            {"targets": ("q_proj", "c_attn")},
            "c_attn: no such matrix in a LlamaForCausalLM; there are down_proj, gate_proj",
        ),
        ({"rank": 32}, "is not a low rank for k_proj, a matrix of 64 x 32"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_before_anything_is_written(
    lora: dict[str, Any], complaint: str, talk: list[Conversation], config: StudentConfig, tmp_path: Path
) -> None:
    adjusted = config.model_copy(update={"lora": LoraConfig(**lora)})
    with pytest.raises(UsageError, match=complaint):
        train_student(talk, adjusted, tmp_path / "student", seed=7, progress=quiet)
    assert not list(tmp_path.iterdir())
