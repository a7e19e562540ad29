"""Checks of conversations whose user's words a teacher wrote: they ask for the drawn rules, a later turn takes up the answer
before it, and rules that exclude each other are pointed out. Knows no family.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import Any

from rapidfuzz.distance import Indel

from agents.checks import Finding, Options, Subject, build_finding, check, first_fault
from agents.checks.text.prose_faults import content_word_stems
from agents.families.constrained_instructions import load_rules
from agents.families.constraints import CONSTRAINT_KINDS, THANKS, WORDINGS, ConstraintTopic, TextConstraint
from agents.reply_schema import ReplySchema
from core.sample import Message, label_turns


class ReadRule(ReplySchema):
    """A rule that a reader finds in the user's words: a kind of constraint, and its parameters in order."""

    kind: str
    values: list[str]

    def constraint(self) -> TextConstraint | None:
        """None if there is no such kind, or the values are not its parameters."""
        if self.kind not in CONSTRAINT_KINDS:
            return None
        left, params = list(self.values), dict[str, Any]()
        drawn = CONSTRAINT_KINDS[self.kind].draw(Random(0), ConstraintTopic("", ("a", "b", "c")))
        try:
            for name, example in drawn.items():
                if isinstance(example, list):
                    params[name], left = left, []
                else:
                    params[name] = type(example)(left.pop(0))
        except (IndexError, ValueError):
            return None
        known = params.get("language", "French") in THANKS
        return TextConstraint(kind=self.kind, params=params, text="") if known else None


class ReadTurn(ReplySchema):
    rules: list[ReadRule]
    """Those that hold for the answer to this turn."""


class RuleReading(ReplySchema):
    """The rules that a reader of the system prompt and the user's turns finds; the reader sees no answer."""

    turns: list[ReadTurn]


@check("asked", calls=lambda _options: 1, roles=("verifier",), languages=("en",))
async def asked_check(subject: Subject, _options: Options) -> Finding:
    """Who reads the user's words alone must find every rule with its parameters, in each turn in which it holds, and no rule that
    the answer breaks.
    """
    messages = subject.candidate.messages
    answers = [message.content for message in messages if message.role == "assistant"]
    shown = {"turns": format_requests(messages)}
    reading = await subject.ask("verifier", RuleReading, shown, which=0, temperature=0.0)
    if reading is None or len(reading.turns) != len(answers):
        return build_finding("asked", "no reading of the user's words, turn by turn, could be read", "")
    faults = []
    for number, rules in enumerate(load_rules(subject.seed, "asked"), 1):
        open_end = subject.seed.data["contradicts"] and number == len(answers)
        fault = find_rule_fault(rules, reading.turns[number - 1].rules, None if open_end else answers[number - 1])
        faults.append(fault and f"turn {number}: {fault}")
    return build_finding("asked", first_fault(faults), "a reader finds every rule in the user's words")


def format_requests(messages: Sequence[Message]) -> str:
    """What a reader of the requests sees: the system prompt and the user's turns, numbered."""
    lines, turn = [], 0
    for message in messages:
        turn += message.role == "user"
        lines += [f"Turn {turn}: {message.content}"] if message.role == "user" else []
        lines += [label_turns([message])] if message.role == "system" else []
    return "\n".join(lines)


def find_rule_fault(rules: Sequence[TextConstraint], read: Sequence[ReadRule], answer: str | None) -> str | None:
    """A rule that a reader did not find, or found without its being asked for, if the answer breaks it; None for no fault."""
    found = [(one, one.constraint()) for one in read]
    demands = {demand for _, rule in found if rule for demand in _list_demands(rule)}
    for rule in rules:
        if not set(_list_demands(rule)) <= demands:
            return f"the user's words do not clearly ask for this rule, with all it says: {rule.text}"
    wanted = {demand for rule in rules for demand in _list_demands(rule)}
    for one, extra in found:
        if extra and answer is not None and not set(_list_demands(extra)) <= wanted and (fault := extra.fault(answer)):
            asks = f"the user's words also ask for {' '.join([one.kind, *one.values])}, no rule of this turn"
            return f"{asks}, and the answer does not follow: {fault}"
    return None


def _list_demands(rule: TextConstraint) -> list[tuple[str, ...]]:
    """What a rule demands, in a form that two readers share."""
    kind = rule.kind.removeprefix("long_").replace("include_two_words", "include_words")
    texts = [str(value).casefold().strip(" \"'.!") for value in rule.list_values()]
    if kind == "include_words":
        return [(kind, text) for text in texts]
    return [(kind, *(sorted(texts) if kind == "json_keys" else texts))]


@check("reacts", languages=("en",))
def reacts_check(subject: Subject, _options: Options) -> list[Finding]:
    """Each later turn must take up a word of the answer before it; an answer to rules that exclude each other must name both."""
    turns = [message.content for message in subject.candidate.messages if message.role != "system"]
    asked, topic = load_rules(subject.seed, "asked"), subject.seed.data["topic"]
    faults = []
    for number in range(1, len(asked)):
        before = turns[: 2 * number]
        known = " ".join([topic, *before[::2], *(rule.text for rule in asked[number])])
        foreign = any(rule.kind == "language" for rule in asked[number - 1])
        fault = None if foreign else find_follow_up_fault(turns[2 * number], before[-1], known)
        faults.append(fault and f"turn {number + 1}: {fault}")
    findings = [build_finding("takes_up", first_fault(faults), "each later turn takes up the answer before it")]
    if subject.seed.data["contradicts"]:
        fault = find_silence(turns[-1], asked[-1])
        findings.append(build_finding("points_out", fault, "the answer says that both rules cannot be kept"))
    return findings


def find_follow_up_fault(request: str, answer: str, known: str) -> str | None:
    """The fault of a later turn without a content word of the answer before it, in any spelling, that is not in `known`."""
    asked, said = ({*content_word_stems(text)} - {*content_word_stems(known)} for text in (request, answer))
    if asked & said or any(is_misspelling(one, other) for one in asked for other in said):
        return None
    return "it takes up nothing of the answer before; let it name a word or detail of it"


def is_misspelling(word: str, of: str) -> bool:
    return min(len(word), len(of)) >= MIN_MISSPELLED and Indel.normalized_similarity(word, of) >= MISSPELLING


MIN_MISSPELLED = 5
MISSPELLING = 0.85
"""Least similarity (InDel) of a word and its misspelling: `scroling` and `scrolling` have 0.94."""
EXCLUSION = re.compile(
    r"\b(?:cannot|can not|can['’]t) (?:\w+ ){0,2}both\b|\b(?:contradict|conflict|exclud|clash)\w*"
    r"|\b(?:incompatible|impossible|at odds|rules? (?:each other )?out|cancel each other|one or the other)\b",
    re.IGNORECASE,
)
SMALL_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def find_silence(answer: str, rules: Sequence[TextConstraint]) -> str | None:
    """The fault of an answer that does not say that two rules exclude each other, and name both."""
    unnamed = [rule.text for rule in rules if not _is_named(rule, answer)]
    if EXCLUSION.search(answer) and not unnamed:
        return None
    what = f"naming this one: {unnamed[0]}" if unnamed else "in plain words"
    return f"the last answer must say that two rules of its turn cannot both be kept, {what}"


def _is_named(rule: TextConstraint, answer: str) -> bool:
    if pattern := WORDINGS["named"].get(rule.kind):
        return bool(re.search(pattern, answer, re.IGNORECASE))
    forms = [[str(one), *(SMALL_NUMBERS[one:][:1] if isinstance(one, int) else [])] for one in rule.list_values()]
    return all(any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", answer, re.I) for form in some) for some in forms)
