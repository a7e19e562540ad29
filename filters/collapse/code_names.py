"""How many different names code uses and calls, from its tokens. Parses nothing, so broken code counts too."""

import keyword
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from filters.collapse.diversity import TokenSample, compute_effective_number

DEFINING_WORDS = ("def", "class")
"""A name after one of these is defined, not called."""


class CodeNames(NamedTuple):
    """Effective numbers of names."""

    identifiers: float | None
    """None without any."""
    called_names: float | None


def measure_code_names(draw: TokenSample, spelled: Sequence[str]) -> CodeNames:
    """`spelled`: the tokens by their numbers in `draw`."""
    named = np.fromiter(
        (token.isidentifier() and not keyword.iskeyword(token) for token in spelled), bool, len(spelled)
    )
    opening = np.fromiter((token == "(" for token in spelled), bool, len(spelled))
    defining = np.fromiter((token in DEFINING_WORDS for token in spelled), bool, len(spelled))
    owner = np.repeat(np.arange(len(draw.lengths)), draw.lengths)
    called = named[draw.ids[:-1]] & opening[draw.ids[1:]] & (owner[:-1] == owner[1:])
    called[1:] &= ~(defining[draw.ids[:-2]] & (owner[:-2] == owner[1:-1]))
    return CodeNames(
        *(
            compute_effective_number(np.bincount(ids).tolist()) or None
            for ids in (draw.ids[named[draw.ids]], draw.ids[:-1][called])
        )
    )
