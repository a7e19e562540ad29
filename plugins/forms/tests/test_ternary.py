"""Ternary students: their arithmetic, their training, and their files in llama.cpp; with full students as control."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from core.config.students import StudentConfig
from core.errors import UsageError
from core.runs.student_records import StudentRecord
from plugins.forms.ternary import (
    FORGETTING_WARNING,
    ActivationRounding,
    TernaryLinear,
    TernaryRounding,
    build_bitnet,
    compute_codes,
    compute_scale,
    compute_ternary,
    insert_ternary,
    round_to_ternary,
    settle_ternary,
)
from students.architecture import find_ternary_weights_fault
from students.chat_encoding import Conversation, EncodedConversation
from students.gguf_export import export_gguf, read_student
from students.predictions import compute_held_out_loss
from students.start_model import load_start_model
from students.training.checkpoint import locate_checkpoint
from students.training.student_training import train_student
from tests.flows.commands.test_commands import called
from tests.students.conftest import conversations, quiet, saved
from tests.students.test_gguf_export import lowest_correlation, many_ids
from tests.students.training.test_student_training import (
    assert_same_student,
    kill_after_first_checkpoint,
    with_settings,
)
from tests.support.llama_cpp import llama_cpp

WIDTH = 256
"""The narrowest ternary student."""
TERNARY = [{"type": "ternary"}]


def wide_llama(vocabulary: int, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    shared = {"num_key_value_heads": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-5, **ids}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **{**sizes, **shared, **settings}))


@pytest.fixture(scope="module")
def wide_folder(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that fits."""
    return saved(wide_llama(len(tokenizer)), tokenizer, tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def ternary(wide_folder: Path) -> StudentConfig:
    return StudentConfig.model_validate({
        "start": str(wide_folder), "steps": TERNARY, "epochs": 24, "learning_rate": 1e-3, "batch_size": 4, "max_tokens": 64,
        "checkpoint_steps": 20,
    })  # fmt: skip


class TrainedTernary:
    """A ternary student that has learned the tests' conversations."""

    def __init__(self, config: StudentConfig, folder: Path) -> None:
        self.lines: list[str] = []
        self.folder = folder
        self.record: StudentRecord = train_student(
            conversations(), config, folder, seed=7, progress=self.lines.append, held_out=conversations()
        )
        self.matrices = {
            name: weight.float()
            for name, weight in load_file(folder / "model.safetensors").items()
            if name.endswith("_proj.weight")
        }


@pytest.fixture(scope="module")
def trained(ternary: StudentConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainedTernary:
    return TrainedTernary(ternary, tmp_path_factory.mktemp("trained") / "student")


def list_matrices(model: nn.Module) -> dict[str, nn.Linear]:
    """Those of the layers."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and "layers" in name
    }


# Arithmetic


def test_codes_and_scale_are_those_computed_by_hand() -> None:
    weight = torch.tensor([[1.0, -3.0, 0.5, 0.0], [-0.5, 2.0, -0.25, 0.75]])
    assert compute_scale(weight) == 1.0, "8 / 8"
    assert compute_codes(weight, compute_scale(weight)).tolist() == [[1, -1, 0, 0], [0, 1, 0, 1]], (
        "0.5 is rounded to even"
    )
    assert compute_scale(torch.zeros(2, 2)).item() == torch.tensor(1e-5).bfloat16().item()
    uneven = torch.tensor([0.1, -0.3, 0.7003])
    assert compute_scale(uneven).bfloat16().float() == compute_scale(uneven), "as it is stored"
    assert TernaryRounding.apply(uneven).unique().tolist() == [-0.3671875, 0, 0.3671875], "of 0.3668"


def test_the_gradient_reaches_latent_weights_whose_stored_value_is_zero() -> None:
    torch.manual_seed(0)
    matrix = TernaryLinear(WIDTH, 8, bias=False)
    inputs = torch.randn(16, WIDTH, requires_grad=True)
    matrix(inputs).square().sum().backward()
    zeros = compute_ternary(matrix.weight) == 0
    assert 0.2 < zeros.float().mean() < 0.5
    assert matrix.weight.grad is not None
    assert (matrix.weight.grad[zeros] != 0).all()

    stored = TernaryRounding.apply(matrix.weight).detach().requires_grad_()
    read = ActivationRounding.apply(inputs).detach().requires_grad_()
    nn.functional.linear(read, stored).square().sum().backward()
    assert matrix.weight.grad.equal(stored.grad), "the gradient of the ternary weights, straight through"
    assert inputs.grad.equal(read.grad)


# A model's layers


def test_the_layers_compute_their_ternary_form_and_settle_to_it(tokenizer: PreTrainedTokenizerBase) -> None:
    model = build_bitnet(wide_llama(len(tokenizer)))
    before = dict(model.named_parameters())
    insert_ternary(model)
    assert dict(model.named_parameters()).keys() == before.keys()
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    matrices = list_matrices(model)
    assert len(matrices) == 2 * 7
    assert {type(matrix) for matrix in matrices.values()} == {TernaryLinear}
    assert type(model.lm_head) is nn.Linear
    computed = {name: TernaryRounding.apply(matrix.weight) for name, matrix in matrices.items()}
    settle_ternary(model)
    for name, matrix in list_matrices(model).items():
        assert type(matrix) is nn.Linear
        assert matrix.weight.equal(computed[name])
        assert matrix.weight.bfloat16().float().equal(matrix.weight), "nothing is lost when it is stored"
        assert len(matrix.weight.unique()) == 3
    assert find_ternary_weights_fault(model) is None


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"hidden_size": 320}, "has hidden_size = 320; ternary rows are stored in blocks of 256, so it would have to be 256 "),
        ({"intermediate_size": 128}, "has intermediate_size = 128; ternary rows are stored in blocks of 256, so it "),
        ({"tie_word_embeddings": False}, "has an output matrix besides the embedding, which llama.cpp's bitnet does not compute"),
        ({"head_dim": 32}, "has heads whose channels are not its hidden_size"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
         "has positions of the type 'llama3'"),
    ],
)  # fmt: skip
def test_a_start_that_fits_no_bitnet_is_refused(
    settings: dict[str, Any], fault: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    start = saved(wide_llama(len(tokenizer), **settings), tokenizer, tmp_path)
    with pytest.raises(UsageError) as caught:
        load_start_model(StudentConfig.model_validate({"start": str(start), "steps": TERNARY}))
    assert str(caught.value).startswith(f"student.start: {str(start)!r} {fault}")
    load_start_model(StudentConfig(start=str(start)))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"start": "layers"}, "the embedded teacher's layers are 576 wide"),
        (
            {"start": "random"},
            "hidden_size = 192 is no multiple of 256, the block in which ternary rows are stored; use 256",
        ),
        ({"start": "random", "hidden_size": 640}, "use 512 or 768"),
        ({"start": "x", "lora": {}}, "merged low-rank updates are not ternary; leave lora out"),
        ({"start": "random", "steps": [*TERNARY, {"type": "hybrid"}], "hidden_size": 256}, "a BitNet is no hybrid"),
        ({"start": "x", "average": 0.5}, "average: the average of ternary weights and their start is not ternary"),
    ],
)
def test_what_ternary_rules_out_is_refused_with_the_recipe(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match="steps: ternary: ") as caught:
        StudentConfig.model_validate({"steps": TERNARY, **settings})
    assert fault in str(caught.value)


# A training


def test_a_trained_student_is_ternary_and_its_record_is_of_the_stored_weights(
    trained: TrainedTernary, encoded: list[EncodedConversation]
) -> None:
    assert trained.record.loss_after < trained.record.loss_before - 2
    assert len(trained.matrices) == 2 * 7
    assert {len(weight.unique()) for weight in trained.matrices.values()} == {3}
    sizes = [(weight.unique()[0], weight.unique()[2]) for weight in trained.matrices.values()]
    assert all(low == -high for low, high in sizes)
    zeros = torch.cat([(weight == 0).flatten() for weight in trained.matrices.values()]).float().mean().item()
    [record] = [step for step in trained.record.step_records if step.type == "ternary"]
    assert record.values["zeros"] == pytest.approx(zeros)
    model, _ = read_student(trained.folder)
    assert compute_held_out_loss(model, encoded, 0) == pytest.approx(trained.record.loss_after, abs=1e-5)

    log = [json.loads(line) for line in (trained.folder / "training_log.jsonl").read_text().splitlines()]
    assert len(log) == trained.record.steps == 72
    assert record.values["flips"] == pytest.approx(sum(line["flips"] for line in log))
    assert record.values["last_flips"] == pytest.approx(sum(line["flips"] for line in log[-7:]) / 7)
    assert log[-1]["held_out"] == pytest.approx(trained.record.loss_after, abs=0.02), "with activations of 8 bits"
    assert record.values["flips"] > 0.2
    assert record.note in trained.lines[-1]
    assert "| matrices of the layers | -s, 0 or s, one s each; " in (trained.folder / "README.md").read_text()
    assert f"student: {FORGETTING_WARNING}" in trained.lines


def test_without_training_the_ternary_form_is_far_worse(
    trained: TrainedTernary,
    ternary: StudentConfig,
    tokenizer: PreTrainedTokenizerBase,
    talk: list[Conversation],
    encoded: list[EncodedConversation],
    tmp_path: Path,
) -> None:
    """Else the training would do nothing. The control is a full student of the same form, as well trained."""
    start = saved(build_bitnet(wide_llama(len(tokenizer))), tokenizer, tmp_path / "start")
    full = with_settings(ternary, start=str(start), steps=[])
    record = train_student(talk, full, tmp_path / "full", seed=7, progress=quiet, held_out=talk)
    assert not record.step_records
    assert record.loss_after < record.loss_before - 2
    model, _ = read_student(tmp_path / "full")
    round_to_ternary(model)
    rounded = compute_held_out_loss(model, encoded, 0)
    assert trained.record.loss_after < 0.2
    assert rounded > trained.record.loss_after + 0.3, "0.72 and 0.07 in a trial"
    with pytest.raises(UsageError) as caught:
        export_gguf(tmp_path / "full", "tq2_0")
    assert str(caught.value) == (
        f"export: {tmp_path / 'full'}: --type tq2_0 stores weights -s, 0 and s only, and self_attn.q_proj of layer 0 has others; "
        "train with the step ternary, or use --type q8_0 or q4_0"
    )
    assert not list((tmp_path / "full").glob("*.gguf*"))


def test_a_killed_ternary_training_resumes_to_the_same_weights(
    ternary: StudentConfig, talk: list[Conversation], tmp_path: Path
) -> None:
    config = with_settings(ternary, epochs=10, checkpoint_steps=7, precision="float32")
    train_student(talk, config, tmp_path / "undisturbed", seed=7, progress=quiet)
    out = tmp_path / "student"
    kill_after_first_checkpoint(config, out)
    state = torch.load(locate_checkpoint(out) / "state.pt", weights_only=True)
    latent = state["learner"]["student.model.layers.0.mlp.up_proj.weight"]
    assert len(latent.unique()) > 1000, "the checkpoint has the latent weights"
    train_student(talk, config, out, seed=7, progress=quiet)
    assert_same_student(out, tmp_path / "undisturbed")


# Files


def test_tq2_0_holds_the_stored_weights_bit_for_bit(trained: TrainedTernary) -> None:
    exported = export_gguf(trained.folder, "tq2_0")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(exported.path).tensors}
    pairs = {"attn_q": "self_attn.q_proj", "attn_output": "self_attn.o_proj", "ffn_down": "mlp.down_proj"}
    pairs |= {"attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
    pairs |= {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
    for theirs, ours in pairs.items():
        for layer in range(2):
            tensor = tensors[f"blk.{layer}.{theirs}.weight"]
            assert tensor.tensor_type.name == "TQ2_0"
            stored = gguf.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(stored, trained.matrices[f"model.layers.{layer}.{ours}.weight"].numpy())
    matrices = sum(weight.numel() for weight in trained.matrices.values())
    assert (
        sum(tensor.n_bytes for tensor in tensors.values() if tensor.tensor_type.name == "TQ2_0") == matrices * 66 / 256
    )
    assert tensors["token_embd.weight"].tensor_type.name == "Q8_0"
    assert tensors["blk.0.attn_sub_norm.weight"].tensor_type.name == "F32"
    assert exported.bytes < export_gguf(trained.folder, "q4_0").bytes


@pytest.mark.parametrize(("form", "least"), [("f32", 0.999999), ("tq2_0", 0.999)])
def test_llama_cpp_computes_the_ternary_student(
    form: str, least: float, trained: TrainedTernary, tokenizer: PreTrainedTokenizerBase
) -> None:
    """llama.cpp reads activations in 8 bits where matrices are TQ2_0, and the embedding is Q8_0."""
    model, _ = read_student(trained.folder)
    other, _ = read_student(trained.folder)
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight.neg_()
    ids = many_ids(tokenizer)
    with llama_cpp(export_gguf(trained.folder, form).path) as loaded:
        assert least < lowest_correlation(model, loaded, ids)  # type: ignore[arg-type]
        assert lowest_correlation(other, loaded, ids) < 0.99, "a matrix with other signs"  # type: ignore[arg-type]
        prompt = tokenizer("<|im_start|>user\nWrite about bees.<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        assert loaded.greedy(prompt, 12) == greedy(model, prompt, 12)


@torch.no_grad()
def greedy(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    """The most likely next tokens, of which none ends the text."""
    ids = list(prompt)
    for _ in range(count):
        logits = model(torch.tensor([ids])).logits[0, -1]
        logits[2] = -torch.inf
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :]


def test_a_random_ternary_student_by_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"messages": [turn.model_dump(include={"role", "content"}) for turn in one]} for one in conversations()]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        "start=random",
        'steps=[{type="ternary"}]',
        "layers=1",
        "hidden_size=256",
        "vocabulary=400",
        "learning_rate=3e-3",
    ]
    settings += ["epochs=3", "batch_size=4", "max_tokens=64"]
    words = [word for one in settings for word in ("--set", one)]
    code, _, err = called(capsys, "distill", "rows.jsonl", "--out", "small", *words)
    assert code == 0, err
    assert "a random Llama of 1 layers, 256 wide" in err
    assert "as a BitNet of ternary weights" in err
    assert "zeros, " in err
    code, _, err = called(capsys, "export", "small", "--type", "tq2_0")
    assert code == 0, err
    assert Path("small/student-tq2_0.gguf").is_file()
    with llama_cpp(Path("small/student-tq2_0.gguf")) as loaded:
        assert len(loaded.greedy([5, 6, 7], 4)) == 4

    code, _, err = called(capsys, "distill", "rows.jsonl", "--out", "other", *words, "--set", "hidden_size=300")
    assert code == 2
    assert err.startswith("error: ")
    code, _, err = called(capsys, "distill", "rows.jsonl", "--out", "other", "--set", 'steps=[{type="ternary"}]')
    assert code == 2
    assert "the embedded teacher's layers are 576 wide" in err
    assert not Path("other").exists()
