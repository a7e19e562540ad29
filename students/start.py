"""What a student begins as: layers of the embedded teacher, a small random Llama, or a model that is there already.

Knows weights and tokenizers; knows nothing of training data.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging

from core.embedded import EMBEDDED, embedded_weights
from core.errors import UsageError
from core.student_config import StudentConfig
from students.width import BLOCK, Kept, cut

TEACHER = "HuggingFaceTB/SmolLM2-135M-Instruct"
LICENCE = "apache-2.0"

PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Of a Llama layer: what llama.cpp calls it, and what transformers does."""

TEACHER_LAYERS = 30
REMOVED_FIRST = (
    17, 6, 5, 4, 25, 7, 26, 16, 18, 14, 15, 12, 13, 19, 3, 20, 9, 2, 10, 23, 22, 28, 8, 11, 27, 21, 1, 24, 29,
)  # fmt: skip
"""The teacher's layers, first the one it misses least: each is the layer whose absence, after all before it, raises the
loss least (SLEB, arXiv 2402.09025), as `python -m students.prune` measures it on 32 answers of its own. In nats per
assistant token, before any training, on those answers: 24 layers 2.37, 20 3.11, 16 4.06, 12 5.60, 8 7.08. On 40 other
answers, not used for an order, greedy removal (in orders that differ a little from this one above 12 layers) against
even spacing (arXiv 2010.13002): 2.5 against 4.6 with 24, 4.1 against 12.4 with 16, 7.1 against 17.9 with 8.
The first layer always stays."""

CONTROL = 3
"""The token type of llama.cpp for tokens that structure a text and are never part of it."""


class Start(NamedTuple):
    """A student before training."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    made_from: str
    """Where its weights come from, in words."""
    base: str | None
    """The model that had them; None if they are new."""
    licence: str
    """Of `base` or, if the weights are new, of the tokenizer; `other` where it isn't known here."""
    kept: Kept | None = None
    """What it was made of, if it was wider."""


def load_start(config: StudentConfig) -> Start:
    """The student as `config.start` describes it, in float32; with `width`, as wide as the teacher still. Random weights are
    drawn from torch's global generator.

    Raises:
        UsageError: if the teacher's package is not installed, or the named model cannot be loaded.
    """
    match config.start:
        case "layers" | "width":
            return from_layers(config.layers)
        case "random":
            return from_random(config.hidden_size, config.layers)
        case name:
            return from_pretrained(name)


def from_layers(count: int) -> Start:
    """The teacher with `count` of its own layers; embedding (tied to the output) and last norm are copied."""
    teacher = teacher_file(teacher_path())
    config = teacher_config(teacher)
    chosen = best_layers(count)
    made_from = f"{len(chosen)} of the {config.num_hidden_layers} layers of {TEACHER}"
    config.num_hidden_layers = len(chosen)
    with no_init_weights():
        model = LlamaForCausalLM(config)
    model.tie_weights()
    model.load_state_dict(dict(teacher_weights(teacher, chosen)))
    return Start(model, teacher_tokenizer(teacher), made_from, TEACHER, LICENCE)


def narrowed(start: Start, kept: Kept) -> Start:
    """`start` with a part of its channels, neurons and heads."""
    made_from = f"{start.made_from}, {len(kept.channels)} of {start.model.config.hidden_size} channels wide"
    return start._replace(model=cut(start.model, kept), made_from=made_from, kept=kept)  # type: ignore[arg-type]


def from_random(hidden_size: int, layers: int) -> Start:
    """A new Llama in the teacher's proportions (feed-forward 8/3 of the width, heads of 64 where they fit)."""
    teacher = teacher_file(teacher_path())
    config = teacher_config(teacher)
    head = next(size for size in (64, 32, 16) if hidden_size % size == 0)
    config.update(
        {
            "hidden_size": hidden_size,
            "intermediate_size": max(BLOCK, hidden_size * 8 // 3 // BLOCK * BLOCK),
            "num_hidden_layers": layers,
            "num_attention_heads": hidden_size // head,
            "num_key_value_heads": hidden_size // head,
            "head_dim": head,
        }
    )
    made_from = f"a random Llama of {layers} layers, {hidden_size} wide, with the tokenizer of {TEACHER}"
    return Start(LlamaForCausalLM(config), teacher_tokenizer(teacher), made_from, None, LICENCE)


def from_pretrained(name: str) -> Start:
    """A folder, or a name on the hub, as transformers loads it; HF_HUB_OFFLINE=1 keeps it off the network."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise UsageError(
            f"student.start: transformers cannot load {name!r}: {reason}; use layers, random, a folder or a hub name"
        ) from None
    return Start(model, tokenizer, f"{name}, all of its layers", name, "other")


def best_layers(count: int) -> list[int]:
    """The `count` layers of the teacher that do best without the rest, in order: `REMOVED_FIRST` says which go."""
    removed = REMOVED_FIRST[: max(0, TEACHER_LAYERS - count)]
    return [layer for layer in range(TEACHER_LAYERS) if layer not in removed]


def teacher_path() -> Path:
    """Where the embedded teacher's weights are."""
    if path := embedded_weights():
        return path
    raise UsageError(
        "student.start: the embedded teacher is not installed; run `make install`, or start from a folder or a hub name"
    )


@cache
def teacher_file(path: Path) -> gguf.GGUFReader:
    """Its table of contents takes seconds to read, and a student and its teacher beside it both come from it."""
    return gguf.GGUFReader(path)


def teacher_config(teacher: gguf.GGUFReader) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=_field(teacher, "llama.vocab_size"),
        hidden_size=_field(teacher, "llama.embedding_length"),
        intermediate_size=_field(teacher, "llama.feed_forward_length"),
        num_hidden_layers=_field(teacher, "llama.block_count"),
        num_attention_heads=_field(teacher, "llama.attention.head_count"),
        num_key_value_heads=_field(teacher, "llama.attention.head_count_kv"),
        max_position_embeddings=_field(teacher, "llama.context_length"),
        rms_norm_eps=_field(teacher, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _field(teacher, "llama.rope.freq_base")},
        bos_token_id=_field(teacher, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_field(teacher, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_field(teacher, "tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=True,
    )


def _field(teacher: gguf.GGUFReader, name: str) -> Any:
    return teacher.fields[name].contents()


def teacher_weights(teacher: gguf.GGUFReader, layers: list[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the chosen layers under transformers' names and new numbers; only these are dequantised."""
    tensors = {tensor.name: tensor for tensor in teacher.tensors}
    heads = {
        "attn_q": _field(teacher, "llama.attention.head_count"),
        "attn_k": _field(teacher, "llama.attention.head_count_kv"),
    }

    def read(name: str) -> np.ndarray:
        tensor = tensors[f"{name}.weight"]
        return np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)

    embedding = torch.from_numpy(read("token_embd"))
    yield "model.embed_tokens.weight", embedding
    yield "lm_head.weight", embedding
    yield "model.norm.weight", torch.from_numpy(read("output_norm"))
    for place, layer in enumerate(layers):
        for theirs, ours in PARTS.items():
            weight = read(f"blk.{layer}.{theirs}")
            if theirs in heads:
                weight = unpermuted(weight, heads[theirs])
            yield f"model.layers.{place}.{ours}.weight", torch.from_numpy(weight)


def unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's order of the query and key rows: it interleaves the two halves that transformers rotates."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def teacher_tokenizer(teacher: gguf.GGUFReader) -> PreTrainedTokenizerFast:
    """The teacher's own byte-level BPE.

    Built here because transformers 5.24 leaves out the digit split of llama.cpp's `smollm` rule when it reads a GGUF,
    and then cuts the number after an empty line or after two spaces otherwise than the teacher does.
    """
    pre = _field(teacher, "tokenizer.ggml.pre")
    if pre != "smollm":
        raise UsageError(f"{EMBEDDED}: splits text by the rule {pre!r}; only 'smollm' is known here")
    tokens = _field(teacher, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _field(teacher, "tokenizer.ggml.merges")]
    bpe = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    types = _field(teacher, "tokenizer.ggml.token_type")
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        chat_template=_field(teacher, "tokenizer.chat_template"),
        model_max_length=_field(teacher, "llama.context_length"),
        clean_up_tokenization_spaces=False,
        **{ours: tokens[_field(teacher, f"tokenizer.ggml.{theirs}_token_id")] for ours, theirs in named.items()},
    )
