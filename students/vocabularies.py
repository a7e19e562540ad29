"""A tokenizer as llama.cpp reads it: its tokens, their types, and the rules by which it splits and merges texts.

Knows the JSON of `tokenizers` and GGUF's keys; knows no model.
"""

import json
from typing import Any, NamedTuple

import gguf
from gguf import TokenType
from transformers import PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from students.chat_encoding import find_stop_ids

WORDS, BYTES, DIGITS = "ByteLevel", "bytes", "Digits"
"""`ByteLevel` with GPT-2's regular expression and without it; `Digits`, one by one."""


class _TextSplit(NamedTuple):
    """How a byte-level BPE cuts a text into pieces before it merges bytes."""

    steps: tuple[str, ...]
    ignores_merges: bool = False
    """A piece that is a token is not made by merges."""


TEXT_SPLITS = {
    "gpt-2": _TextSplit((WORDS,)),
    "smollm": _TextSplit((DIGITS, WORDS)),
    **{name: _TextSplit((GGUF_PRE_TOKENIZER_SPLITS[name], BYTES)) for name in ("dbrx", "qwen2", "qwen35", "gpt-4o")},
    **{name: _TextSplit((GGUF_PRE_TOKENIZER_SPLITS[name], BYTES), True) for name in ("llama-bpe", "tekken")},
}
"""llama.cpp's names of pre-tokenizers, and the equal steps of `tokenizers`. Those of `smollm` are also Granite 3's, of `dbrx`
OLMo 2's, Phi-4's and SmolLM3's, of `qwen2` Qwen3's, of `gpt-4o` Phi-4-mini's, of `llama-bpe` Llama 3's. llama.cpp's `gpt-4o`
and `tekken` tell small letters from capitals only among a to z."""

SPACE = "▁"
"""A space, in the tokens of SentencePiece."""
ADDED_SCORE = -1000.0
BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))


class _GgufVocabulary(NamedTuple):
    """Tokens by id, their types, and what llama.cpp merges by."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    """In order; of a byte-level BPE."""
    split: str
    """llama.cpp's name of the pre-tokenizer of a byte-level BPE."""
    scores: list[float] | None = None
    """Of SentencePiece's tokens: the highest is merged first. None for a byte-level BPE."""


def find_tokenizer_fault(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why llama.cpp cannot have the tokenizer, in words; None if it can."""
    if not tokenizer.is_fast:
        return f"the tokenizer is a {type(tokenizer).__name__}, without a tokenizer.json; llama.cpp needs its merges"
    whole = _read_tokenizer(tokenizer)
    if whole["model"]["type"] != "BPE":
        return f"the tokenizer is a {whole['model']['type']}; llama.cpp needs a BPE"
    if _has_sentencepiece_form(whole):
        return _find_sentencepiece_fault(whole)
    split = _describe_split(whole)
    if _find_split(split) is None:
        steps = ", ".join(split.steps) + (", tokens without merges" if split.ignores_merges else "")
        return f"the tokenizer splits texts by {steps}; only the splits of {', '.join(TEXT_SPLITS)} are supported"
    composes = split.steps[-1] == BYTES and whole["normalizer"] == {"type": "NFC"}
    if whole["normalizer"] and not composes:
        return "the tokenizer is not a byte-level BPE without a normalizer; llama.cpp needs one"
    return None


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int) -> _GgufVocabulary:
    """The tokens of the model's `rows` embeddings; tokens beyond them are left out, as an image's of a model without images.

    The tokenizer must be without a fault.
    """
    whole = _read_tokenizer(tokenizer)
    bpe = whole["model"]
    tokens, types = [f"[UNUSED{row}]" for row in range(rows)], [int(TokenType.UNUSED)] * rows
    for token, row in bpe["vocab"].items():
        if row < rows:
            tokens[row], types[row] = token, TokenType.NORMAL
    for added in whole["added_tokens"]:
        if (row := added["id"]) < rows:
            tokens[row] = added["content"]
            types[row] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    if _has_sentencepiece_form(whole):
        return _read_sentencepiece(tokens, types, bpe)
    split = _find_split(_describe_split(whole))
    assert split
    return _GgufVocabulary(tokens, types, [" ".join(pair) for pair in _list_pairs(bpe)], split)


def _read_sentencepiece(tokens: list[str], types: list[int], bpe: dict[str, Any]) -> _GgufVocabulary:
    """A token's score is its rank among the merges, as in SentencePiece's own models."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(_list_pairs(bpe)):
        ranks.setdefault("".join(pair), rank)
    scores = []
    for row, token in enumerate(tokens):
        if token in BYTE_TOKENS:
            types[row] = TokenType.BYTE
        elif token == bpe["unk_token"]:
            types[row] = TokenType.UNKNOWN
        elif types[row] == TokenType.USER_DEFINED:
            tokens[row] = token.replace(SPACE, " ")
        made = types[row] == TokenType.NORMAL
        scores.append(-float(ranks.get(token, len(ranks))) if made else ADDED_SCORE)
    return _GgufVocabulary(tokens, types, [], "default", scores)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, vocabulary: _GgufVocabulary) -> None:
    """Write tokens, rules and chat template. The template writes the beginning of a text, so llama.cpp adds none."""
    writer.add_tokenizer_model("gpt2" if vocabulary.scores is None else "llama")
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.tokens)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    ends = find_stop_ids(tokenizer)
    end = ends[-1] if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    writer.add_eos_token_id(end)
    for turn_end in ends:
        if turn_end != end:
            writer.add_eot_token_id(turn_end)
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    writer.add_chat_template(tokenizer.chat_template)


def _read_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return whole


def _has_sentencepiece_form(whole: dict[str, Any]) -> bool:
    """Whether it merges characters, of which a space is `▁`, and falls back to bytes, as Gemma's does."""
    escapes = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return bool(whole["model"]["byte_fallback"]) and whole["normalizer"] == escapes


def _find_sentencepiece_fault(whole: dict[str, Any]) -> str | None:
    """SentencePiece and llama.cpp merge two neighbours wherever the result is a token, `tokenizers` only listed pairs."""
    bpe = whole["model"]
    splitter = whole["pre_tokenizer"]
    if splitter and (splitter["type"], splitter.get("pattern")) != ("Split", {"String": " "}):
        return f"the tokenizer splits texts by {splitter['type']}; llama.cpp splits no text of SentencePiece's tokens"
    if not bpe["vocab"].keys() >= BYTE_TOKENS:
        return "the tokenizer has no token for some bytes; llama.cpp needs all 256"
    tokens = bpe["vocab"].keys() - {token["content"] for token in whole["added_tokens"]} - BYTE_TOKENS
    pairs = set(_list_pairs(bpe))
    for token in sorted(tokens):
        for cut in range(1, len(token)):
            pair = (token[:cut], token[cut:])
            if pair not in pairs and tokens >= set(pair):
                return (
                    f"the tokenizer does not merge {pair[0]!r} and {pair[1]!r} to its token {token!r}; llama.cpp would"
                )
    return None


def _list_pairs(bpe: dict[str, Any]) -> list[tuple[str, str]]:
    """The merges in order; older files have a string with a space for each."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in bpe["merges"])
    return [(left, right) for left, right in pairs]


def _describe_split(whole: dict[str, Any]) -> _TextSplit:
    splitter = whole["pre_tokenizer"]
    if splitter is None:
        return _TextSplit(("nothing",), bool(whole["model"].get("ignore_merges")))
    steps = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    return _TextSplit(tuple(map(_describe_step, steps)), bool(whole["model"].get("ignore_merges")))


def _describe_step(step: dict[str, Any]) -> str:
    match step["type"]:
        case "ByteLevel":
            return WORDS if step.get("use_regex", True) else BYTES
        case "Digits" if step["individual_digits"]:
            return DIGITS
        case "Split" if (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True)):
            return str(step["pattern"].get("Regex", step["type"]))  # all characters match, so both keep every piece
        case kind:
            return str(kind)


def _find_split(wanted: _TextSplit) -> str | None:
    """llama.cpp's name of a split."""
    return next((name for name, split in TEXT_SPLITS.items() if split == wanted), None)
