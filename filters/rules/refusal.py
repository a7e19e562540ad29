"""Drops answers that are refusals or talk about being a language model. Reads the beginning of an answer only, in English only,
so apologies in real text and refusals later in a story are kept.

The openers are those that two kinds of lists have in common: the refusal prefixes that score attacks on aligned models (Zou et
al. 2023, arXiv 2307.15043, `test_prefixes`), and the phrases that instruction data was cleaned with (`optional_clean.py` of
ShareGPT_Vicuna_unfiltered and WizardLM_alpaca_evol_instruct_70k_unfiltered, 2023). Those lists also contain single words
("Sorry", "As an", "I cannot") that real prose begins with; here each opener must continue as a refusal.
"""

import re
from collections.abc import Sequence

from core.config.filters import RefusalFilter
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument
from filters.rules.openers import drop_by_opener
from filters.text_normalization import STRAIGHT_QUOTES

MODEL = r"(?:ai|artificial intelligence|language model|chatbot)(?: language)?(?: model| assistant| system)?"
BUILT_BY = r"(?: (?:developed|trained|created|made|built) by [\w ]+)?"
CANNOT = (
    r"(?:i|we)(?: (?:cannot|can't|can not|won't|will not|must decline|am not able|am unable|do not have|don't have"
    r"|am not allowed|am not programmed|don't feel comfortable|do not feel comfortable)"
    r"|'m (?:unable|not able|not allowed))\b"
)
DO = r"(?:assist|comply|fulfil+|help|do|answer|complete|respond to|engage in)(?: you)?(?: with| in)?"
REQUEST = r"(?:that|this|your (?:request|question)|the (?:request|question|prompt|task))\b"

OPENERS = {
    "as a language model": rf"as an? (?:\w+[ -]){{0,3}}{MODEL}{BUILT_BY}(?:,| (?:i|my|it's)\b)",
    "I am a language model": rf"(?:i am|i'm) (?:just |only )?an? (?:\w+ ){{0,2}}{MODEL}"
    r"(?:[,.;]| (?:and|so|but|trained|developed|created|without)\b)",
    "sorry, but I cannot": r"(?:(?:i am|i'm) )?(?:\w+ )?(?:sorry|afraid)(?: (?:for|about) [\w ]+)?(?: that|[,.]| -)?"
    rf"(?: but)? {CANNOT}",
    "I apologize, but I cannot": rf"(?:i|my) apolog\w+(?: for [\w ]+)?[,.]?(?: but)? {CANNOT}",
    "I cannot do that": rf"{CANNOT} (?:to )?{DO} {REQUEST}",
    "I cannot assist": rf"{CANNOT} (?:to )?(?:assist|help) (?:you )?(?:with|in) ",
    "I cannot provide": rf"{CANNOT} (?:to )?(?:provide|generate|comply)\b",
    "I have no opinions": r"i (?:don't|do not) have (?:(?:any )?personal|access to|the ability|real-time|opinions)\b",
    "it is not appropriate": r"(?:it is|it's) not (?:appropriate|ethical|possible) for (?:me|an ai)\b",
    "my training data": r"(?:as of |based on )?my (?:last (?:knowledge )?update|knowledge cut-?off|training data)\b",
}
"""By the name in the detail; each is matched at the start of the lower-case answer."""

FILLER = r"(?:(?:unfortunately|hello|hi|hey|oh|well|hmm|thank you|thanks|however)[^.!?\n]{0,20}?[,.!] ?)?"
"""An optional courtesy before the opener."""

APOLOGY = r"(?:(?:i am|i'm) (?:very |so )?(?:sorry|afraid)[,.]?(?: but)? )?"
"""An optional apology, which alone is not a refusal."""

BEGINNING_CHARACTERS = 200
"""Characters that are read; the longest opener with its filler is shorter."""

PATTERNS = [(name, re.compile(FILLER + APOLOGY + "(?:" + opener + ")")) for name, opener in OPENERS.items()]


def drop_refusals(documents: Sequence[Document], config: RefusalFilter) -> list[DroppedDocument]:
    """Drop documents that begin with one of `OPENERS`."""
    return drop_by_opener(documents, find_refusal_opener, config.type, RejectionReason.refusal, "begins like a refusal")


def find_refusal_opener(text: str) -> str | None:
    """The name of the opener that `text` begins with, if it is one."""
    beginning = " ".join(text[: 2 * BEGINNING_CHARACTERS].translate(STRAIGHT_QUOTES).casefold().split())[
        :BEGINNING_CHARACTERS
    ].lstrip("\"'*> ")
    return next((name for name, pattern in PATTERNS if pattern.match(beginning)), None)
