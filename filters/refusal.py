"""Drops answers that are refusals or talk about being a language model. Reads the beginning of an answer only, so that
real text in which somebody is sorry, or a refusal told later in a story, stays. Knows English only.

The openers are those that two kinds of lists have in common: the refusal prefixes by which attacks on aligned models
are scored (Zou et al. 2023, arXiv 2307.15043, `test_prefixes`), and the phrases by which instruction data was cleaned
(`optional_clean.py` of ShareGPT_Vicuna_unfiltered and WizardLM_alpaca_evol_instruct_70k_unfiltered, 2023). Those lists
hold bare words too ("Sorry", "As an", "I cannot"), which real prose begins with; here each must go on to refuse.
"""

import re
from collections.abc import Sequence

from core.filter_config import RefusalFilter
from core.sample import Reason
from filters.base import Document, Drop
from filters.openers import drop_by_opener
from filters.text import STRAIGHT

MODEL = r"(?:ai|artificial intelligence|language model|chatbot)(?: language)?(?: model| assistant| system)?"
MAKER = r"(?: (?:developed|trained|created|made|built) by [\w ]+)?"
CANNOT = (
    r"(?:i|we)(?: (?:cannot|can't|can not|won't|will not|must decline|am not able|am unable|do not have|don't have"
    r"|am not allowed|am not programmed|don't feel comfortable|do not feel comfortable)"
    r"|'m (?:unable|not able|not allowed))\b"
)
DO = r"(?:assist|comply|fulfil+|help|do|answer|complete|respond to|engage in)(?: you)?(?: with| in)?"
REQUEST = r"(?:that|this|your (?:request|question)|the (?:request|question|prompt|task))\b"

OPENERS = {
    "as a language model": rf"as an? (?:\w+[ -]){{0,3}}{MODEL}{MAKER}(?:,| (?:i|my|it's)\b)",
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
"""By a name for the detail; each is matched at the very beginning of the lower-cased answer."""

FILLER = r"(?:(?:unfortunately|hello|hi|hey|oh|well|hmm|thank you|thanks|however)[^.!?\n]{0,20}?[,.!] ?)?"
"""A short courtesy that may come before."""

APOLOGY = r"(?:(?:i am|i'm) (?:very |so )?(?:sorry|afraid)[,.]?(?: but)? )?"
"""Then an apology, which alone is no refusal."""

BEGINNING = 200
"""Characters looked at; the longest opener with its filler is shorter."""

PATTERNS = [(name, re.compile(FILLER + APOLOGY + "(?:" + opener + ")")) for name, opener in OPENERS.items()]


def drop_refusals(documents: Sequence[Document], config: RefusalFilter) -> list[Drop]:
    """Drop what begins with one of `OPENERS`."""
    return drop_by_opener(documents, refusal_opener, config.type, Reason.refusal, "begins like a refusal")


def refusal_opener(text: str) -> str | None:
    """The name of the opener that `text` begins with, if it is one."""
    beginning = " ".join(text[: 2 * BEGINNING].translate(STRAIGHT).casefold().split())[:BEGINNING].lstrip("\"'*> ")
    return next((name for name, pattern in PATTERNS if pattern.match(beginning)), None)
