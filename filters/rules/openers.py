"""Drops answers that begin with an assistant's phrases instead of the answer: "Sure! Here is …", "Great question!", "I'd be happy
to help". A student learns these phrases first. Reads the beginning only, in English only.

The phrases are our own list of openers of chat models from 2023 to 2026. Each continues in a way that prose does not, so that "Of
course, nobody came" and "Sure of himself, he left" are kept.

Also drops answers that are refusals or talk about being a language model; apologies in real text and refusals later in a story
are kept. Their openers are those that two kinds of lists have in common: the refusal prefixes that score attacks on aligned
models (Zou et al. 2023, arXiv 2307.15043, `test_prefixes`), and the phrases that instruction data was cleaned with
(`optional_clean.py` of ShareGPT_Vicuna_unfiltered and WizardLM_alpaca_evol_instruct_70k_unfiltered, 2023). Those lists also
contain single words ("Sorry", "As an", "I cannot") that real prose begins with; here each opener must continue as a refusal.
"""

import re
from collections.abc import Callable, Sequence

from core.config.filters import BoilerplateFilter, RefusalFilter
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument
from filters.text_normalization import STRAIGHT_QUOTES

OFFER = (
    r"(?:here(?: is| are|'s)|below (?:is|are)|i(?:'d| would| will|'ll| can) (?:\w+ )?(?:be|help|do|try|provide|give|write|explain"
    r"|create|assist)|let me|let's|the following)\b"
)
THING = r"(?:an?|the|some|my|your|one|two|three|four|five|six|seven|eight|nine|ten|\d+)\b"
BOILERPLATE = {
    "assent": rf"(?:sure(?: thing)?|certainly|of course|absolutely|definitely|no problem|okay|ok|alright|gladly)"
    rf"(?:!|[,.:;-]? {OFFER})",
    "praise of the question": r"(?:(?:that's|that is|what|this is) )?(?:an? )?(?:great|good|excellent|wonderful|fantastic"
    r"|interesting|fascinating|thoughtful) question[!.,]",
    "joy to help": r"(?:i'd|i would|i'll|i will|i am|i'm) (?:be )?(?:\w+ )?(?:happy|glad|delighted|pleased|excited) to"
    r" (?:help|assist|answer|provide|share|explain|write)\b",
    "thanks for the question": r"(?:thank you|thanks) (?:so much )?for (?:your (?:question|message|request|inquiry|interest)"
    r"|asking|reaching out|sharing)\b",
    "announcement": rf"(?:here(?: is| are|'s)|below (?:is|are)) {THING}[^.!?\n]{{0,120}}:(?:\s|$)",
    "as requested": r"as (?:requested|you (?:have )?(?:requested|asked)|per your request)[,:]",
    "hope it finds you well": r"i hope this (?:message|email|letter) finds you\b",
}
"""By the name in the detail; each is matched at the start of the lower-case answer."""

BOILERPLATE_CHARACTERS = 240
"""Characters that are read; the longest opener is shorter."""
BOILERPLATE_PATTERNS = [(name, re.compile(opener)) for name, opener in BOILERPLATE.items()]


def drop_boilerplate(documents: Sequence[Document], config: BoilerplateFilter) -> list[DroppedDocument]:
    """Drop documents that begin with one of `BOILERPLATE`."""
    return _drop_by_opener(
        documents, find_boilerplate_opener, config.type, RejectionReason.boilerplate, "begins with boilerplate"
    )


def find_boilerplate_opener(text: str) -> str | None:
    """The name of the opener that `text` begins with, if it is one."""
    lines = text[: 2 * BOILERPLATE_CHARACTERS].translate(STRAIGHT_QUOTES).casefold().lstrip("\"'*>#- \t\n")
    beginning = re.sub(r"[^\S\n]+", " ", lines)[:BOILERPLATE_CHARACTERS]
    return next((name for name, pattern in BOILERPLATE_PATTERNS if pattern.match(beginning)), None)


MODEL = r"(?:ai|artificial intelligence|language model|chatbot)(?: language)?(?: model| assistant| system)?"
BUILT_BY = r"(?: (?:developed|trained|created|made|built) by [\w ]+)?"
CANNOT = (
    r"(?:i|we)(?: (?:cannot|can't|can not|won't|will not|must decline|am not able|am unable|do not have|don't have"
    r"|am not allowed|am not programmed|don't feel comfortable|do not feel comfortable)"
    r"|'m (?:unable|not able|not allowed))\b"
)
DO = r"(?:assist|comply|fulfil+|help|do|answer|complete|respond to|engage in)(?: you)?(?: with| in)?"
REQUEST = r"(?:that|this|your (?:request|question)|the (?:request|question|prompt|task))\b"

REFUSALS = {
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

REFUSAL_CHARACTERS = 200
"""Characters that are read; the longest opener with its filler is shorter."""

REFUSAL_PATTERNS = [(name, re.compile(FILLER + APOLOGY + "(?:" + opener + ")")) for name, opener in REFUSALS.items()]


def drop_refusals(documents: Sequence[Document], config: RefusalFilter) -> list[DroppedDocument]:
    """Drop documents that begin with one of `REFUSALS`."""
    return _drop_by_opener(
        documents, find_refusal_opener, config.type, RejectionReason.refusal, "begins like a refusal"
    )


def find_refusal_opener(text: str) -> str | None:
    """The name of the opener that `text` begins with, if it is one."""
    beginning = " ".join(text[: 2 * REFUSAL_CHARACTERS].translate(STRAIGHT_QUOTES).casefold().split())[
        :REFUSAL_CHARACTERS
    ].lstrip("\"'*> ")
    return next((name for name, pattern in REFUSAL_PATTERNS if pattern.match(beginning)), None)


def _drop_by_opener(
    documents: Sequence[Document],
    opener_of: Callable[[str], str | None],
    filter_type: str,
    reason: RejectionReason,
    words: str,
) -> list[DroppedDocument]:
    """Drop documents for which `opener_of` returns an opener. The detail is `words` and the opener."""
    matches = [(document.id, opener) for document in documents if (opener := opener_of(document.text))]
    return [
        DroppedDocument(id=name, filter=filter_type, reason=reason, detail=f"{words}: {opener}")
        for name, opener in matches
    ]
