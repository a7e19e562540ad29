"""A start with fewer tokens: those that the data use most and whatever merges them, under the same cuts of a text.

Knows byte-level BPEs and the rows of embeddings; knows nothing of training.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from core.errors import UsageError
from students.data import Encoded
from students.start import Start


def trimmed(start: Start, data: Iterable[Encoded], size: int) -> Start:
    """`start` with `size` tokens: single bytes and special tokens, then those that `data` use most, then the first of the
    rest. In place: the model's rows of other tokens are gone.

    A text of `data` is cut as before where all of its tokens are kept; any other text that could be encoded still can.

    Raises:
        UsageError: if there are not more tokens than that, or it is less than every text needs.
    """
    kept = chosen(start.tokenizer, data, size)
    made_from = f"{start.made_from}, with {len(kept):,} of its {len(start.tokenizer):,} tokens"
    return with_tokens(start, kept)._replace(made_from=made_from)


def with_tokens(start: Start, kept: Sequence[int]) -> Start:
    """`start` with these of its tokens, in this order. In place."""
    tokenizer = smaller_tokenizer(start.tokenizer, kept)
    keep_rows(start.model, kept)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(start.model.config, name, getattr(tokenizer, name))
    return start._replace(tokenizer=tokenizer)


def with_tokens_of(start: Start, smaller: PreTrainedTokenizerBase) -> Start:
    """`start` with the tokens of `smaller`, which was trimmed from its own tokenizer. In place."""
    return with_tokens(start, _rows_of(smaller, start.tokenizer))


def trimmed_from(smaller: PreTrainedTokenizerBase, whole: PreTrainedTokenizerBase) -> bool:
    """Whether `smaller` has some tokens of `whole`, in their order, and cuts texts as these allow."""
    always = {token.content for token in whole.added_tokens_decoder.values()}
    if not (smaller.is_fast and whole.is_fast and always <= smaller.get_vocab().keys() < whole.get_vocab().keys()):
        return False
    if _cuts(whole)["model"]["type"] != "BPE":
        return False
    made = smaller_tokenizer(whole, _rows_of(smaller, whole))
    return all(_cuts(made)[part] == _cuts(smaller)[part] for part in ("model", "pre_tokenizer", "normalizer"))


def _rows_of(smaller: PreTrainedTokenizerBase, whole: PreTrainedTokenizerBase) -> list[int]:
    new, old = smaller.get_vocab(), whole.get_vocab()
    return [old[token] for token in sorted(new, key=new.__getitem__)]


def chosen(tokenizer: PreTrainedTokenizerBase, data: Iterable[Encoded], size: int) -> list[int]:
    """The ids to keep, rising. With a token go all that its merges make on the way, so that it can still be made: every text
    is merged by rank, so leaving merges out changes nothing of those that remain.
    """
    bpe = _model(tokenizer)
    if size >= len(tokenizer):
        raise UsageError(
            f"student.vocabulary = {size}: the tokenizer has no more than {len(tokenizer):,}; leave it out"
        )
    vocabulary: dict[str, int] = bpe["vocab"]
    ranks = {pair: rank for rank, pair in enumerate(map(tuple, bpe["merges"]))}
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    kept = {row for token, row in vocabulary.items() if len(token) == 1 or token in special}
    kept |= tokenizer.added_tokens_decoder.keys()
    if size < len(kept):
        raise UsageError(f"student.vocabulary = {size}: {len(kept)} single bytes and special tokens are always kept")
    tokens = {row: token for token, row in vocabulary.items()}
    used = Counter(token for one in data for token in one.ids)
    for row in sorted(tokens.keys() - kept, key=lambda row: (-used[row], row)):
        needed = {vocabulary[part] for part in parts_of(tokens[row], ranks)} - kept
        if row in needed and len(kept) + len(needed) <= size:
            kept |= needed
        if len(kept) == size:
            break
    return sorted(kept)


def parts_of(token: str, ranks: dict[tuple[str, ...], int]) -> set[str]:
    """What merging makes of the bytes of `token` on its way, `token` among it unless no text becomes it."""
    pieces, made = list(token), set()
    while len(pieces) > 1:
        pairs = list(pairwise(pieces))
        best = min(range(len(pairs)), key=lambda place: (ranks.get(pairs[place], len(ranks)), place))
        if pairs[best] not in ranks:
            break
        pieces[best : best + 2] = ["".join(pairs[best])]
        made.add(pieces[best])
    return made


def smaller_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerBase:
    """The tokenizer with only these ids, numbered anew in this order, and with the merges that they allow."""
    whole = _cuts(tokenizer)
    new = {row: place for place, row in enumerate(kept)}
    model = whole["model"]
    model["vocab"] = {token: new[row] for token, row in model["vocab"].items() if row in new}
    there = model["vocab"].keys()
    model["merges"] = [[a, b] for a, b in model["merges"] if a in there and b in there and a + b in there]
    whole["added_tokens"] = [{**token, "id": new[token["id"]]} for token in whole["added_tokens"]]
    whole["post_processor"] = None  # adds nothing in `students.data`, and may hold old ids
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)),
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
    )


def _cuts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def _model(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    model: dict[str, Any] = _cuts(tokenizer)["model"]
    if model["type"] != "BPE":
        raise UsageError(f"student.vocabulary: the tokenizer is a {model['type']}; only a BPE can be trimmed")
    return model


def keep_rows(model: Any, kept: Sequence[int]) -> None:
    """Leave the embedding, and the output's matrix, with these rows in this order."""
    rows = torch.tensor(kept)
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    tied = output.weight is embedding.weight
    embedding.weight = nn.Parameter(embedding.weight.detach()[rows].clone())
    output.weight = embedding.weight if tied else nn.Parameter(output.weight.detach()[rows].clone())
    embedding.num_embeddings = output.out_features = len(kept)
    model.config.vocab_size = len(kept)
