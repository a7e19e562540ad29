"""Tiny random encoders of Transformers in folders, made from their configurations."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    LongformerConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SHAPE = {
    "vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 300, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SHAPE),
    "distilbert": DistilBertConfig(
        vocab_size=600, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=300
    ),
    "longformer": LongformerConfig(**SHAPE, attention_window=8),
    "modernbert": ModernBertConfig(
        **SHAPE, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
        local_attention=16, global_attn_every_n_layers=2,
    ),
    "mpnet": MPNetConfig(**SHAPE),
    "roberta": RobertaConfig(**SHAPE),
}  # fmt: skip


def save_tiny_encoder(folder: Path, name: str, texts: Sequence[str]) -> Path:
    """An encoder of `CONFIGS` with random weights, and a tokenizer of the words of `texts`, the same each time. (The trainer of
    WordPiece numbers its tokens in another order in each process.)
    """
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=SHAPE["vocab_size"], special_tokens=SPECIAL_TOKENS)
    )
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(CONFIGS[name])
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
