"""Whether documents leak into rows: used and held-back documents are compared by an exact test. Knows no file and no recipe.

The test is that of Amin et al. (2026, Phantoms and Disclosures, arXiv 2606.16952): what rows have of held-back documents is chance
("phantom disclosures"), and without a leak they have as much of the used ones. Its form is ours:

    s(d)  rows that have a phrase or an identifier which only document d has
    T     sum over used documents of the rank of s(d) among all documents (Wilcoxon; ties share their mean rank)
    p     (1 + splits with T at least as large) / (1 + 9,999 splits), drawn as the run's own split was (Phipson and Smyth 2010)

If no row depends on a document, each split is as likely as the run's own, so p is at most 0.01 in at most 1 % of runs, however rows
repeat each other and whatever the teacher knows. The unit is the document: the leak of a single one is listed, and proves nothing.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from core.sample import FrozenModel
from plugins.disclosure.held_back import draw_splits
from plugins.disclosure.matching import Match, find_matches

SPLITS = 9_999
CERTAIN = 0.01


class DisclosureRecord(FrozenModel):
    """What the rows of a run have of its documents. Has no text and no name of a document: releases contain it."""

    rows: int
    quotes: bool
    """Whether rows quote on purpose, so that only identifiers in answers count, and each of them."""
    limit: float
    used: int
    """Documents."""
    held_back: int
    used_found: int
    """Of the used documents: those that a row has a part of."""
    held_back_found: int
    used_rows: int
    """Rows with a part of a used document."""
    held_back_rows: int
    p: float
    mixed: int
    """Rows made of a held-back document: the comparison means nothing if there are any."""

    @property
    def excess(self) -> float:
        """Share of rows with parts of used documents, beyond what chance explains by the held-back ones."""
        return max(0.0, self.used_rows - self.held_back_rows * self.used / self.held_back) / max(1, self.rows)

    @property
    def leaks(self) -> bool:
        return self.excess > self.limit and (self.quotes or self.p <= CERTAIN)

    @property
    def verdict(self) -> str:
        """Without a full stop."""
        what = "identifiers in answers" if self.quotes else "phrases or identifiers"
        share = f"{100 * self.excess:.1f} % of rows beyond chance, limit {100 * self.limit:g} %; p = {self.p:.4f}"
        return (
            f"{'documents leak' if self.leaks else 'no leak is certain'}: {what} of {self.used_found} of {self.used} used documents "
            f"in {self.used_rows:,} of {self.rows:,} rows, of {self.held_back_found} of {self.held_back} held-back ones in "
            f"{self.held_back_rows:,} ({share})"
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
    """The record, and the matches of rows with used documents by their places. `documents`: passages by name; `share`: of the
    documents, those that the rule held back.
    """
    names = sorted(documents)
    held = np.array([name in held_back for name in names])
    matches = find_matches(rows, ("\n".join(documents[name]) for name in names), identifiers=quotes)
    counts = np.bincount([match.document for match in matches], minlength=len(names))
    splits = draw_splits([len(documents[name]) for name in names], share, SPLITS, seed)
    ranks = _rank(counts)
    reached = (~splits) @ ranks >= (~held) @ ranks - 1e-9
    in_used = [match for match in matches if not held[match.document]]
    record = DisclosureRecord(
        rows=len(rows), quotes=quotes, limit=limit, used=int((~held).sum()), held_back=int(held.sum()),
        used_found=int((counts[~held] > 0).sum()), held_back_found=int((counts[held] > 0).sum()),
        used_rows=len({match.row for match in in_used}),
        held_back_rows=len({match.row for match in matches if held[match.document]}),
        p=(1 + int(reached.sum())) / (1 + SPLITS), mixed=mixed,
    )  # fmt: skip
    return record, in_used


def _rank(counts: np.typing.NDArray[np.int64]) -> np.typing.NDArray[np.float64]:
    """Ranks from 1, ties with their mean rank."""
    _, places, sizes = np.unique(counts, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - (sizes - 1) / 2)[places]
