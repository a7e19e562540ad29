"""The findings of the collapse assessment, by name: what each is called, and whether it is a collapse. Measures nothing."""

from collections.abc import Iterable
from typing import NamedTuple


class CollapseFinding(NamedTuple):
    sentence: str
    """The beginning of its evidence."""
    words: str
    """In a headline. For repetition, each metric has its own (`core.runs.verdict_words.REPETITION_WORDS`)."""
    is_collapse: bool = False


COLLAPSE_FINDINGS = {
    "tail": CollapseFinding("TAIL: rare words are being lost", "rare words are missing", is_collapse=True),
    "repetition": CollapseFinding("REPEAT: text is repeated", "text is repeated", is_collapse=True),
    "structure": CollapseFinding(
        "STRUCTURE: few structures, filled with different words", "few different structures", is_collapse=True
    ),
    "likely": CollapseFinding(
        "FIDELITY: only likely text, as from low-temperature decoding or filtering by likelihood",
        "only likely text",
        is_collapse=True,
    ),
    "strange": CollapseFinding(
        "TAIL: words of no language in place of rare words",
        "words of no language instead of rare words",
        is_collapse=True,
    ),
    "steady": CollapseFinding(
        "TAIL: fewer rare words than real text, as in every earlier generation; the loss has stopped growing",
        "fewer rare words, no longer falling",
    ),
    "uncertain": CollapseFinding(
        "TAIL: fewer rare words than real text; the loss may be that of replaced text", "rare words may be missing"
    ),
    "other_kind": CollapseFinding(
        "COVERAGE: another kind of text than the reference, on other topics and in other words", "another kind of text"
    ),
    "topics": CollapseFinding("COVERAGE: the topics differ from those of the reference", "other topics"),
    "unlike": CollapseFinding("FIDELITY: unlike real text on the same topics", "unlike the reference"),
}
"""Those of collapse first; next to them, the others go without saying."""


def has_collapse(findings: Iterable[str]) -> bool:
    """Whether one of these findings is a collapse. One that only a later version knows is none."""
    return any(COLLAPSE_FINDINGS[name].is_collapse for name in findings if name in COLLAPSE_FINDINGS)
