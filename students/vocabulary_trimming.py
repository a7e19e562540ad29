"""A start with a smaller vocabulary: the tokens that the data use most, with the merges that make them.

Knows byte-level BPEs and the rows of embeddings; knows nothing of training.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.config.students import StudentConfig
from core.errors import UsageError
from students.chat_encoding import EncodedConversation
from students.start_model import StartModel
from students.vocabularies import BYTE_TOKENS


def trim_vocabulary(start: StartModel, data: Iterable[EncodedConversation], size: int) -> StartModel:
    """`start` with `size` tokens: single bytes and special tokens, then those most used in `data`, then the first others.

    In place: the model's rows of other tokens are removed. A text of `data` is tokenized as before if all of its tokens
    are kept; every other text can still be encoded.

    Raises:
        UsageError: if the vocabulary is not larger than `size`, or `size` is less than every text needs.
    """
    rows = start.model.config.vocab_size  # Gemma's tokenizer has a token more, of images
    kept = [row for row in choose_tokens(start.tokenizer, data, size) if row < rows]
    made_from = f"{start.made_from}, with {len(kept):,} of its {len(start.tokenizer):,} tokens"
    return keep_tokens(start, kept)._replace(made_from=made_from)


def keep_tokens(start: StartModel, kept: Sequence[int]) -> StartModel:
    """`start` with only the tokens `kept`, in this order. In place."""
    tokenizer = shrink_tokenizer(start.tokenizer, kept)
    _keep_embedding_rows(start.model, kept)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(start.model.config, name, getattr(tokenizer, name))
    return start._replace(tokenizer=tokenizer)


def keep_tokens_of_tokenizer(start: StartModel, smaller: PreTrainedTokenizerBase) -> StartModel:
    """`start` with the tokens of `smaller`, which was trimmed from its own tokenizer. In place."""
    return keep_tokens(start, _find_token_rows(smaller, start.tokenizer))


def is_trimmed_from(smaller: PreTrainedTokenizerBase, whole: PreTrainedTokenizerBase) -> bool:
    """Whether `smaller` is `whole` with fewer tokens, in the same order, and otherwise equal."""
    always = {token.content for token in whole.added_tokens_decoder.values()}
    if not (smaller.is_fast and whole.is_fast and always <= smaller.get_vocab().keys() < whole.get_vocab().keys()):
        return False
    if not isinstance(whole.backend_tokenizer.model, BPE):
        return False
    made = _read_tokenizer(shrink_tokenizer(whole, _find_token_rows(smaller, whole)))
    given = _read_tokenizer(smaller)
    return all(made[part] == given[part] for part in ("model", "pre_tokenizer", "normalizer"))


def _find_token_rows(smaller: PreTrainedTokenizerBase, whole: PreTrainedTokenizerBase) -> list[int]:
    new, old = smaller.get_vocab(), whole.get_vocab()
    return [old[token] for token in sorted(new, key=new.__getitem__)]


def choose_tokens(tokenizer: PreTrainedTokenizerBase, data: Iterable[EncodedConversation], size: int) -> list[int]:
    """The ids to keep, sorted. A token is kept with all intermediate tokens of its merges, so that it can still be made.

    Texts are merged by rank, so omitting merges does not change the remaining ones.
    """
    bpe = _read_tokenizer(tokenizer)["model"]
    if bpe["type"] != "BPE":
        raise UsageError(f"student.vocabulary: the tokenizer is a {bpe['type']}; only a BPE can be trimmed")
    if size >= len(tokenizer):
        raise UsageError(f"student.vocabulary = {size}: the tokenizer has only {len(tokenizer):,} tokens; leave it out")
    vocabulary: dict[str, int] = bpe["vocab"]
    ranks = {pair: rank for rank, pair in enumerate(map(tuple, bpe["merges"]))}
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    always = BYTE_TOKENS if bpe["byte_fallback"] else {token for token in vocabulary if len(token) == 1}
    kept = {row for token, row in vocabulary.items() if token in always or token in special}
    kept |= tokenizer.added_tokens_decoder.keys()
    if size < len(kept):
        raise UsageError(f"student.vocabulary = {size}: {len(kept)} single bytes and special tokens are always kept")
    tokens = {row: token for token, row in vocabulary.items()}
    used = Counter(token for conversation in data for token in conversation.ids)
    for row in sorted(tokens.keys() - kept, key=lambda row: (-used[row], row)):
        parts = _find_merge_parts(tokens[row], ranks).union(tokens[row])  # with the characters that they merge
        needed = {vocabulary[part] for part in parts & vocabulary.keys()} - kept
        if row in needed and len(kept) + len(needed) <= size:
            kept |= needed
        if len(kept) == size:
            break
    return sorted(kept)


def _find_merge_parts(token: str, ranks: dict[tuple[str, ...], int]) -> set[str]:
    """All tokens that merging the bytes of `token` makes, including `token` itself if any text can become it."""
    pieces, made = list(token), set()
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(range(len(pairs)), key=lambda place: (ranks.get(pairs[place], len(ranks)), place))
        if pairs[best] not in ranks:
            break
        pieces[best : best + 2] = ["".join(pairs[best])]
        made.add(pieces[best])
    return made


def shrink_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """The tokenizer with only the ids `kept`, renumbered in this order, and with the merges that they allow."""
    whole = _read_tokenizer(tokenizer)
    new = {row: place for place, row in enumerate(kept)}
    model = whole["model"]
    model["vocab"] = {token: new[row] for token, row in model["vocab"].items() if row in new}
    tokens = model["vocab"].keys()
    model["merges"] = [[a, b] for a, b in model["merges"] if a in tokens and b in tokens and a + b in tokens]
    whole["added_tokens"] = [{**token, "id": new[token["id"]]} for token in whole["added_tokens"] if token["id"] in new]
    whole["post_processor"] = None  # `students.chat_encoding` adds no special tokens, and it may hold old ids
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)),
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    )


def _read_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return settings


def _keep_embedding_rows(model: Any, kept: Sequence[int]) -> None:
    """Reduce the embedding and the output matrix to these rows, in this order."""
    rows = torch.tensor(kept)
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output.weight is embedding.weight
    embedding.weight = nn.Parameter(embedding.weight.detach()[rows].clone())
    output.weight = embedding.weight if tied else nn.Parameter(output.weight.detach()[rows].clone())
    embedding.num_embeddings = output.out_features = len(kept)
    if embedding.padding_idx is not None:
        embedding.padding_idx = list(kept).index(embedding.padding_idx)
    model.config.vocab_size = len(kept)


def shape_start(start: StartModel, config: StudentConfig, trim: Callable[[StartModel, int], StartModel]) -> StartModel:
    """`start`, as `load_start_model` returns it, with its final vocabulary, partly in place. `trim` keeps a number of tokens.
    Steps come after it.
    """
    if config.vocabulary:
        start = trim(start, config.vocabulary)
    return start
