"""The check `standalone`: one question that does not hold its answer, understood by a reader who does not know the passage; or a
second question that refers to the first. English; knows no teacher.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from agents.checks import Options, Subject, check
from agents.checks.text.quotes import QuotableText
from agents.checks.text.second_reader import MAX_SHOWN_CHARACTERS, adds_nothing
from agents.checks.text.text_units import split_words

REFERRING_WORD = re.compile(
    r"^\W*(?:and|but|so|then|how come)\b|\b(?:one|ones|then|instead|otherwise|else|the same)\b"
    r"|(?<!\bis )(?<!\bare )(?<!\bwas )(?<!\bwere )\bthere\b(?!'s\b| (?:is|are|was|were)\b)"
    r"|\b(?:does|did|do|is|was|of|for|with|at|in|on|to|about|after|before|like|by|from) that\b",
    re.IGNORECASE,
)
"""What a second question refers to the first with, besides pronouns and `this`."""
FEW_WORDS = 3
"""A second question of so few words is an ellipsis: `Why so early?`."""
PASSAGE_MENTION = re.compile(
    r"\b(?:the|this|that|given|provided|above|following) (?:given |provided |above |following )?"
    r"(?:text|passage|document|excerpt|extract|article|paragraph|chunk|snippet)s?\b"
    r"|\b(?:mentioned|described|stated|listed|shown|discussed|said) (?:above|below|here|earlier)\b"
    r"|\baccording to (?:it|this)\b|\bthe (?:author|writer|narrator)\b",
    re.IGNORECASE,
)
"""Speaking of a text that the reader of the question does not have."""
POINTING_WORD = re.compile(r"\b(?:here|this|these|those(?! who| that)|we|us|our|ours)\b", re.IGNORECASE)
OWN_GROUP = re.compile(r"\b(?:we|us|our|ours)\b", re.IGNORECASE)
"""The asker's, unless the passage speaks so too."""
OWN_ERRAND = re.compile(r"\b(?:I|me|we) [^,;:]+ this(?= (?:right|wrong|straight)\b|[,;:])", re.IGNORECASE)
"""`this` of what the asker is about to do: I want to get this right."""
LEADING_CLAUSE = re.compile(
    r"^\W*(?:since|if|when|before|after|while|because|as|once|although|i|we|my|our)\b[^,;:]*[,;:]", re.IGNORECASE
)
"""Its pronouns may stand for what the main clause names."""
SOME_PEOPLE = re.compile(
    r"\b(?:do|did|does|have|had|will|would|must|can|could) they\b(?=.*\b(?:in|at|on|by|for|from) "
    r"(?:(?:the|that|an?) (?:[\w'-]+ ){1,3}[\w'-]+|(?-i:[A-Z][\w'-]+)))",
    re.IGNORECASE,
)
"""`they` of people at a place or an event that the question names."""
PRONOUN = re.compile(r"\b(?:he|she|him|her|his|hers|they|them|their|theirs|it|its)\b", re.IGNORECASE)
IMPERSONAL = re.compile(
    r"\bit (?=(?:takes?|took|costs?|means?|is|was|possible|necessary|important|safe|better|best|allowed|easy|hard|normal"
    r"|enough)\b.*\b(?:to|that|if|when)\b)",
    re.IGNORECASE,
)
"""`it` without a referent: how long does it take to fill a lock."""
NAMED_THING = re.compile(
    r"(?i:\b(?:the|my|your|an?|each|every|any|some|no|which|whose|two|three|four|both|all) \w+)|(?<=\s)[A-Z]\w+"
    r"|(?<=\w )(?!(?:does|was|has|always|sometimes|across|less|perhaps)\b)[a-z]{3,}s\b"
)
"""Possible referents of a later pronoun. (The third is a plural; after `what`, it is a verb.)"""


class StandaloneOptions(Options):
    min_words: int = Field(3, ge=1)
    max_words: int = Field(40, ge=1)


@check("standalone", StandaloneOptions, languages=("en",))
def standalone_check(subject: Subject, options: StandaloneOptions) -> str | None:
    """It must be one question that does not hold its answer.

    Without a passage, and among several, it must be understood by itself.
    """
    seed, fields = subject.seed.data, subject.candidate.fields
    question, answer = fields["question"], fields["answer"]
    if not question.rstrip().endswith("?"):
        return "the question does not end with a question mark"
    if question.count("?") > 1:
        return "ask one question, not several"
    count = len(split_words(question))
    if not options.min_words <= count <= options.max_words:
        return f"the question has {count} words"
    if seed["answerable"] and adds_nothing(answer, question):
        return "the answer is in the question already"
    if seed.get("follow_up"):
        if fault := _find_follow_up_fault(seed["text"], fields):
            return fault
        question = fields["first_question"]
    return _find_reader_fault(seed, fields, question)


def _find_reader_fault(seed: Mapping[str, Any], fields: Mapping[str, Any], question: str) -> str | None:
    """What of a question nobody understands who lacks its passage or gets several, in words."""
    if not seed["context"]:
        for name in ("question", "answer"):
            if match := PASSAGE_MENTION.search(fields[name]):
                return f"the {name} speaks of {match.group()!r}, which nobody sees who reads it"
    elif not seed.get("shown_passages"):
        return None
    elif match := PASSAGE_MENTION.search(f"{question}\n{fields['question']}"):
        return f"the question speaks of {match.group()!r}, which may be any of those that its reader gets"
    return _find_unnamed(question, seed.get("text", ""))


def _find_follow_up_fault(passage: str, fields: Mapping[str, Any]) -> str | None:
    """Why two questions are not a first one with an answer of the passage, and a second one that refers to it."""
    first, answer, question = fields["first_question"], fields["first_answer"], fields["question"]
    if not first.rstrip().endswith("?") or first.count("?") > 1:
        return "first_question must be one question"
    if not QuotableText(passage).find(answer):
        return f"first_answer {answer[:MAX_SHOWN_CHARACTERS]!r} is not copied from the passage"
    if adds_nothing(answer, first):
        return "first_answer is in first_question already"
    bare, referring = IMPERSONAL.sub(" ", question), (PRONOUN, POINTING_WORD, REFERRING_WORD)
    if len(split_words(question)) > FEW_WORDS and not any(word.search(bare) for word in referring):
        return "the question can be understood without the first; refer to it, with a word such as `it` or `that`"
    return None


def _find_unnamed(question: str, passage: str) -> str | None:
    """What a reader who does not know the passage cannot understand, in words."""
    bare = OWN_ERRAND.sub(" ", IMPERSONAL.sub(" ", question))
    if passage and not OWN_GROUP.search(passage):
        bare = OWN_GROUP.sub("I", bare)
    if match := POINTING_WORD.search(bare):
        return f"{match.group()!r} points at something that only the passage has; name it"
    bare = SOME_PEOPLE.sub(" ", bare)
    lead = LEADING_CLAUSE.match(bare)
    main = bare[lead.end() :] if lead else ""
    fault = _find_dangling_pronoun(bare)
    return _find_dangling_pronoun(main) if fault and NAMED_THING.search(main) else fault


def _find_dangling_pronoun(bare: str) -> str | None:
    pronoun = PRONOUN.search(bare)
    if pronoun and not NAMED_THING.search(re.sub(r"^\W*(?:what|who)\s+\w+", "", bare[: pronoun.start()], flags=re.I)):
        return f"nobody knows for what {pronoun.group()!r} stands; name it"
    return None
