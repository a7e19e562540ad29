"""Whether documents leak into rows: used and held-back documents are compared by an exact test. Knows no file and no recipe.

The test is that of Amin et al. (2026, Phantoms and Disclosures, arXiv 2606.16952): what rows have of held-back documents is
chance ("phantom disclosures"), and without a leak they have as much of the used ones. Its form is ours:

    s(d)  rows that have something of a group of `GROUPS` that only document d has
    T     sum of the ranks of s(d) over used documents (Wilcoxon; ties share a mean rank), in standard deviations of all splits
    p     (1 + splits whose largest T of the groups is at least as large) / (1 + 9,999 splits), drawn as the run's own split was
          (Phipson and Smyth 2010)

If no row depends on a document, each split is as likely as the run's own, so p is at most 0.01 in at most 1 % of runs, however
rows repeat each other and whatever the teacher knows. The unit is the document: the leak of a single one is listed, and proves
nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from core.sample import FrozenModel
from plugins.disclosure.held_back import Bools, draw_splits
from plugins.disclosure.matching import Match, find_matches

Ints = npt.NDArray[np.int64]

SPLITS = 9_999
CERTAIN = 0.01
IDENTIFIERS = ("email", "number", "code")
GROUPS = {
    "phrases": ("phrase",),
    "addresses, numbers or codes": IDENTIFIERS,
    "names": ("name",),
    "phrases, names, addresses, numbers or codes": (*IDENTIFIERS, "name", "phrase"),
}
"""Compared on their own, since names are common by chance and would hide a few addresses; and together."""
QUOTED = {"addresses, numbers or codes in answers": IDENTIFIERS}
"""What counts where rows quote on purpose."""


class DisclosureRecord(FrozenModel):
    """What the rows of a run have of its documents. Has no text and no name of a document: releases contain it."""

    rows: int
    quotes: bool
    """Whether rows quote on purpose, so that only identifiers in answers count, and each of them."""
    limit: float
    group: str
    """Of what documents have; the one with the largest T. The numbers below are of it."""
    used: int
    """Documents."""
    held_back: int
    used_found: int
    """Of the used documents: those that a row has something of."""
    held_back_found: int
    used_rows: int
    """Rows with something of a used document."""
    held_back_rows: int
    p: float
    mixed: int
    """Rows made of a held-back document: the comparison means nothing if there are any."""

    @property
    def excess(self) -> float:
        """Share of rows with something of a used document, beyond what the held-back ones explain by chance."""
        return max(0.0, self.used_rows - self.held_back_rows * self.used / self.held_back) / max(1, self.rows)

    @property
    def leaks(self) -> bool:
        return self.excess > self.limit and (self.quotes or self.p <= CERTAIN)

    @property
    def verdict(self) -> str:
        """Without a full stop."""
        return (
            f"{'documents leak' if self.leaks else 'no leak is certain'}: {self.group} of {self.used_found} of {self.used} used "
            f"documents in {self.used_rows:,} of {self.rows:,} rows, of {self.held_back_found} of {self.held_back} held-back "
            f"ones in {self.held_back_rows:,} ({100 * self.excess:.1f} % of rows beyond chance, limit {100 * self.limit:g} %; "
            f"p = {self.p:.4f})"
        )


def measure_disclosure(
    rows: Sequence[str],
    documents: Mapping[str, Sequence[str]],
    held_back: frozenset[str],
    *,
    share: float,
    seed: int,
    quotes: bool = False,
    limit: float = 0.0,
    mixed: int = 0,
) -> tuple[DisclosureRecord, list[Match]]:
    """The record, and the matches of rows with used documents by their places in order of names. `documents`: passages by name;
    `share`: of the documents, those that the rule held back.
    """
    names = sorted(documents)
    matches = find_matches(rows, ("\n".join(documents[name]) for name in names), identifiers=quotes)
    held = np.array([name in held_back for name in names])
    splits = draw_splits([len(documents[name]) for name in names], share, SPLITS, seed)
    record = compare_halves(matches, len(rows), held, splits, quotes=quotes, limit=limit, mixed=mixed)
    return record, [match for match in matches if not held[match.document]]


def compare_halves(
    matches: Sequence[Match],
    rows: int,
    held: Bools,
    splits: Bools,
    *,
    quotes: bool = False,
    limit: float = 0.0,
    mixed: int = 0,
) -> DisclosureRecord:
    """`held`: by document, whether it is held back; `splits`: others that the rule could have drawn."""
    groups = QUOTED if quotes else GROUPS
    chosen = [[one for one in matches if not set(kinds).isdisjoint(one.kinds)] for kinds in groups.values()]
    counts = [np.bincount([one.document for one in group], minlength=len(held)) for group in chosen]
    place, p = _compare(np.stack([_rank(group) for group in counts], axis=1), held, splits)
    found = counts[place] > 0
    return DisclosureRecord(
        rows=rows, quotes=quotes, limit=limit, group=[*groups][place], used=int((~held).sum()), held_back=int(held.sum()),
        used_found=int(found[~held].sum()), held_back_found=int(found[held].sum()),
        used_rows=len({one.row for one in chosen[place] if not held[one.document]}),
        held_back_rows=len({one.row for one in chosen[place] if held[one.document]}), p=p, mixed=mixed,
    )  # fmt: skip


def _compare(ranks: npt.NDArray[np.float64], held: Bools, splits: Bools) -> tuple[int, float]:
    """The group with the largest T, and p. `ranks`: by document and group."""
    drawn, own = (~splits) @ ranks, (~held) @ ranks
    middle, spread = drawn.mean(axis=0), np.maximum(drawn.std(axis=0), 1e-9)
    drawn, own = (drawn - middle) / spread, (own - middle) / spread
    return int(own.argmax()), (1 + int((drawn.max(axis=1) >= own.max() - 1e-9).sum())) / (1 + len(splits))


def _rank(counts: Ints) -> npt.NDArray[np.float64]:
    """Ranks from 1, ties with their mean rank."""
    _, places, sizes = np.unique(counts, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[places]
