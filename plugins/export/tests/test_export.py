"""Mixtures of number formats on a small real model, and the comparison of a file with its student."""

import asyncio
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFValueType, Keys
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from plugins.export.file_check import FileCheck, check_file
from plugins.export.modelfile import build_modelfile
from students.embedded_teacher import QuickGgufReader, read_teacher_weights
from students.gguf_export import export_gguf
from tests.flows.commands.test_commands import called
from tests.students.conftest import TEMPLATE, conversations, saved, tiny_llama, tiny_tokenizer
from tests.support.llama_cpp import llama_cpp

LOWEST_CORRELATION = 0.99
"""Of logits by torch, with the weights that gguf reads from the file, and by llama.cpp, which rounds activations to 8 bits: the
median over positions, since this model is random, and rounding moves single positions to 0.986.
"""


def wide_llama(vocabulary: int, width: int = 256) -> LlamaForCausalLM:
    """Random, with norms that differ by column, as those of trained models do."""
    torch.manual_seed(0)
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2}
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, **shape
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2 if parameter.ndim == 2 else torch.exp(torch.randn_like(parameter))
    return model


@pytest.fixture
def libgguf() -> Any:
    return pytest.importorskip("libgguf", reason="needs the extra `export`")


@pytest.fixture(scope="module")
def student(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(wide_llama(len(tokenizer)), tokenizer, tmp_path_factory.mktemp("wide") / "student")


def read_types(file: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in QuickGgufReader(file).tensors if len(tensor.shape) > 1}


@pytest.mark.parametrize(
    ("kind", "most", "raised", "embedding"),
    [
        ("q4_k_m", "Q4_K", "Q6_K", "Q6_K"), ("q5_k_m", "Q5_K", "Q6_K", "Q6_K"), ("q6_k", "Q6_K", "Q6_K", "Q6_K"),
        ("iq4_nl", "IQ4_NL", "IQ4_NL", "Q6_K"),
    ],
)  # fmt: skip
def test_each_form_has_llama_cpps_types_and_computes_what_the_student_does(
    kind: str, most: str, raised: str, embedding: str, student: Path, tokenizer: PreTrainedTokenizerBase, libgguf: Any
) -> None:
    """In a model of two layers, llama.cpp gives the last one's values and outputs more bits."""
    file = export_gguf(student, kind).path
    types = read_types(file)
    more = {"blk.1.attn_v.weight", "blk.1.ffn_down.weight"}
    assert {name for name, stored in types.items() if stored != most} - more - {"token_embd.weight"} == set()
    assert [types[name] for name in (*sorted(more), "token_embd.weight")] == [raised, raised, embedding]
    for tensor in QuickGgufReader(file).tensors:
        if tensor.name == "blk.0.ffn_up.weight":
            ours = libgguf.dequantize_rows(tensor.data, tensor.tensor_type)
            assert np.array_equal(ours, gguf.dequantize(tensor.data, tensor.tensor_type))

    ids = tokenizer("".join(message.content for talk in conversations() for message in talk))["input_ids"][:80]
    model = LlamaForCausalLM.from_pretrained(student)
    model.load_state_dict(dict(read_teacher_weights(QuickGgufReader(file), [0, 1])))
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    with llama_cpp(file) as loaded:
        found = [
            np.corrcoef(expected[n - 1], loaded.logprobs(ids[:n], expected.shape[1]))[0, 1] for n in range(1, 80, 16)
        ]
    assert np.median(found) > LOWEST_CORRELATION, found


@pytest.mark.parametrize(
    ("kind", "most", "raised"),
    [("q4_k_m", "Q5_0", "Q8_0"), ("q5_k_m", "Q5_1", "Q8_0"), ("q6_k", "Q8_0", "Q8_0"), ("iq4_nl", "IQ4_NL", "IQ4_NL")],
)
def test_rows_that_do_not_divide_into_blocks_get_llama_cpps_fallbacks(
    kind: str, most: str, raised: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, libgguf: Any
) -> None:
    """576, the width of SmolLM2-135M, is no multiple of 256 either; its feed-forward width is."""
    narrow = saved(wide_llama(len(tokenizer), 64), tokenizer, tmp_path / "student")
    types = read_types(export_gguf(narrow, kind).path)
    assert (types["blk.0.attn_q.weight"], types["blk.1.attn_v.weight"]) == (most, raised)
    assert types["token_embd.weight"] == "Q8_0"


# The check of a file


def test_the_command_exports_checks_and_writes_a_modelfile(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], libgguf: Any
) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"messages": [message.model_dump(include={"role", "content"}) for message in talk]} for talk in conversations()
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = called(capsys, "export", str(student), "--type", "q5_k_m", "--data", str(rows), "--json")
    found = json.loads(out)
    assert (code, found["notes"], found["check"]["faults"], found["check"]["rows"]) == (0, [], [], 8)
    assert found["check"]["tokens"] > 50
    assert 5.5 < found["bits"] < 6.6
    assert "FROM ./student-q5_k_m.gguf\n" in (student / "Modelfile").read_text()
    code, _, err = called(capsys, "export", str(tmp_path))
    assert (code, "there is no student: neither it nor" in err) == (2, True)
    code, _, err = called(capsys, "export", str(student), "--type", "q4_k")
    assert (code, "--type q4_k: did you mean 'q4_k_m'?" in err) == (2, True)


def change_file(file: Path, values: dict[str, Any]) -> Path:
    reader, changed = gguf.GGUFReader(file), file.with_name("changed.gguf")
    kinds = {str: GGUFValueType.STRING, bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32}
    details = {key: MetadataDetails(kinds[type(value)], value) for key, value in values.items()}
    writer = gguf.GGUFWriter(changed, reader.fields[Keys.General.ARCHITECTURE].contents())
    copy_with_new_metadata(reader, writer, details, [])
    return changed


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {Keys.Tokenizer.CHAT_TEMPLATE: TEMPLATE.replace("You are small.", "You are large.")},
            "its chat template makes 'e large.<|im_end|>",
        ),
        (
            {Keys.Tokenizer.ADD_BOS: True, Keys.Tokenizer.BOS_ID: 0},
            "it splits a prompt into the tokens ['<|pad|>', '<|im_start|>'",
        ),
        ({Keys.Tokenizer.ADD_BOS: True}, None),  # llama.cpp drops the template's own
    ],
)
def test_a_file_that_reads_other_prompts_is_found(
    values: dict[str, Any], fault: str | None, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "student")
    file = change_file(export_gguf(folder, "q8_0").path, values)
    faults = asyncio.run(check_file(folder, file, conversations()[:2])).faults
    assert bool(faults) == (fault is not None)
    assert all(found.startswith(str(fault)) for found in faults)


def test_a_file_with_another_tokenizer_or_without_an_end_is_found(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "student")
    other = tiny_tokenizer("Write about the moon, and write about the sun. " * 9)
    file = export_gguf(saved(tiny_llama(len(other)), other, tmp_path / "other"), "q8_0").path
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token": "<|pad|>"}))
    split, *_, unstopped = asyncio.run(check_file(folder, file, conversations()[:2])).faults
    assert split.startswith("it splits a prompt into the tokens [")
    assert unstopped == "it writes on after '<|pad|>', which ends the student's turns"


def test_an_exact_file_has_the_students_loss_without_rows_too(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = saved(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "student")
    file = export_gguf(folder, "f32").path
    checked = asyncio.run(check_file(folder, file, []))
    assert (checked.faults, checked.rows, checked.same_choices) == ([], 1, checked.tokens)
    assert checked.file_loss == pytest.approx(checked.student_loss, rel=1e-3)
    assert "the same first choice at" in FileCheck.format(checked)


def test_a_modelfile_makes_the_prompts_of_the_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    assert build_modelfile("student-q8_0.gguf", tokenizer, 2048) == (
        "FROM ./student-q8_0.gguf\n"
        'TEMPLATE """{{- range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        '{{ end }}{{ end }}<|im_start|>assistant\n"""\n'
        'SYSTEM """You are small."""\nPARAMETER stop "<|im_end|>"\nPARAMETER temperature 0\nPARAMETER repeat_penalty 1\n'
        "PARAMETER num_ctx 2048\n"
    )


@pytest.mark.parametrize("piece", ["{{ loop.index }}", "{{ '{{' }}", "{{ message['content'] | upper }}"])
def test_no_modelfile_is_written_for_a_template_that_ollama_cannot_express(
    piece: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    template = tokenizer.chat_template
    tokenizer.chat_template = template.replace("{{ message['content'] }}", "{{ message['content'] }}" + piece)
    try:
        assert build_modelfile("student-q8_0.gguf", tokenizer, 2048) is None
    finally:
        tokenizer.chat_template = template
