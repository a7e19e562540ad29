"""Instruction following under constraints that code can check, on topics from the seeds: one turn or several, with or
without a system prompt whose rules apply to every answer; and how a user words the requests. Knows no teacher.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import ConfigDict, Field, field_validator

import prompts
from agents.checks import Finding, Options, Subject, build_finding, check, first_fault
from agents.checks.text.prose_faults import find_prose_fault, find_topic_fault
from agents.checks.text.text_units import remove_invisible
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text
from agents.families.constraints import CONSTRAINT_KINDS, ConstraintTopic, TextConstraint, draw_constraints
from agents.reply_schema import InvalidReply, ReplySchema
from core.errors import suggest_name
from core.project_files import read_shipped_table
from core.sample import Candidate, Message, Seed
from core.weights.embeddings import Similarity, embed_text

REASONS_TEMPLATE = "Explain why people like {topic}."
LIKED_CATEGORIES = {"food", "play", "arts", "travel", "animals"}
"""Categories of topics that people can like; an essay on why people like gravity is impossible."""


class AnswerDraft(ReplySchema):
    model_config = ConfigDict(title="Draft")  # part of every request digest and of the reply cache

    answer: str = Field(min_length=1)


class ConversationDraft(ReplySchema):
    model_config = ConfigDict(title="Conversation")  # part of every request digest and of the reply cache

    answers: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """One for each turn of the user."""


class ConstrainedOptions(Options):
    kinds: dict[str, int] = Field(default_factory=lambda: dict.fromkeys(CONSTRAINT_KINDS, 1), min_length=1)
    """Of constraints, by weight."""
    constraints: tuple[int, ...] = (1, 2)
    """Per instruction, one of these at random."""
    turns: tuple[Annotated[int, Field(ge=1, le=6)], ...] = Field((1,), min_length=1)
    """Of the user, one of these at random. Each adds a constraint; earlier ones still apply."""
    system: float = Field(0.0, ge=0, le=1)
    """Share with a system prompt, whose rule holds for every answer."""
    styles: dict[str, int] = Field(default_factory=dict)
    """Wordings of requests, by weight: plain, polite, terse, chatty or curious. Default: all plain, in few wordings."""
    purposes: float = Field(0.0, ge=0, le=1)
    """With `styles`: share whose user says what the text is for."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(kinds) - set(CONSTRAINT_KINDS)):
            raise ValueError(f"unknown kinds {', '.join(unknown)}; {suggest_name(unknown[0], CONSTRAINT_KINDS)}")
        return kinds

    @field_validator("styles")
    @classmethod
    def _known_styles(cls, styles: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(styles) - set(REQUEST_STYLES)):
            raise ValueError(f"unknown styles {', '.join(unknown)}; {suggest_name(unknown[0], REQUEST_STYLES)}")
        if styles and (min(styles.values()) < 0 or not sum(styles.values())):
            raise ValueError("needs at least one style with a weight above 0, and none below")
        return styles


@check("constraints")
def constraints_check(subject: Subject, _options: Options) -> list[Finding]:
    """A program checks every constraint that the instruction states, in every answer that it holds for."""
    answers = _assistant_answers(subject)
    findings = []
    for number, (turn, answer) in enumerate(zip(_constraints_by_turn(subject.seed), answers, strict=True), 1):
        where = f"answer {number}: " if len(answers) > 1 else ""
        for constraint in turn:
            fault = constraint.fault(answer)
            findings.append(
                build_finding(constraint.kind, fault and f"{where}{fault}", f"{where}meets: {constraint.text}")
            )
    return findings


class TopicOptions(Options):
    similarity: Similarity | None = Field(None, gt=0, lt=1)
    """`topic_similarity` from which text without a word of its topic passes. Needs the extra `embeddings`. Default: it
    fails."""


@check("on_topic", TopicOptions, hint=True)
def on_topic_check(subject: Subject, options: TopicOptions) -> str | None:
    """The answers must have a word of their topic, or be near it in meaning.

    Where a teacher is the critic, it is given what is missing and decides: a short answer may be apt without such a word.

    On 87 answers that are on their topics, 41 of them without a word of it, and on each of them with every other's topic
    (`tests/agents/checks/golden/topic_pairs.jsonl`): by words alone, 41 answers are refused and 1.8 % of the pairs with another
    topic pass; with `similarity` at 0.28, 2 are refused and 7.4 % pass.
    """
    seed, answers = subject.seed.data, _assistant_answers(subject)
    texts = {f"answer {number}": answer for number, answer in enumerate(answers, 1)}
    if options.similarity is not None:
        texts = {"answer 1": answers[0], "all answers together": "\n".join(answers)}
    faults = []
    for where, text in texts.items():
        fault = find_topic_fault(text, seed["topic"])
        if fault and options.similarity is not None:
            near = topic_similarity(text, seed["topic"], seed.get("words", ()))
            fault = None if near >= options.similarity else f"{fault}, and its meaning is not near it ({near:.2f})"
        faults.append(fault and (f"{where}: {fault}" if len(answers) > 1 else fault))
    return first_fault(faults)


def topic_similarity(answer: str, topic: str, words: Sequence[str]) -> float:
    """The highest cosine of the sentence embedding of `answer` with that of `topic` with its `words`, or of one word alone.

    Raises:
        UsageError: if the extra `embeddings` is not installed.
    """
    said = embed_text(remove_invisible(answer))
    return max(float(embed_text(text) @ said) for text in (f"{topic}: {', '.join(words)}" if words else topic, *words))


@check("sound_prose")
def sound_prose_check(subject: Subject, _options: Options) -> str | None:
    """Every answer must read as prose: finished sentences without circles or copies."""
    topic = subject.seed.data["topic"]
    asked = [message.content for message in subject.candidate.messages if message.role == "user"]
    prompt = prompts.load_prompt(ConstrainedInstructionsFamily.name, "generator")
    examples = [json.loads(example)["answer"] for example in prompt.examples]
    return first_fault([find_prose_fault(answer, topic, examples, asked) for answer in _assistant_answers(subject)])


def _assistant_answers(subject: Subject) -> list[str]:
    return [message.content for message in subject.candidate.messages if message.role == "assistant"]


def _constraints_by_turn(seed: Seed) -> list[list[TextConstraint]]:
    """The constraints that each answer must meet, a list for each turn."""
    return [[TextConstraint.model_validate(constraint) for constraint in turn] for turn in seed.data["constraints"]]


class ConstrainedInstructionsFamily(RecipeFamily):
    name = "constrained_instructions"
    options = ConstrainedOptions
    checks = (constraints_check, on_topic_check, sound_prose_check)
    writes = ("generator", "conversation")
    revises = ("revise", "revise_shown", "revise_conversation")
    reviewed_revisions: ClassVar[Mapping[str, str]] = {"revise": "revise_shown"}
    # The answers are short prose, and no two of them need to be similar.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 600}},
        "verifiers": [{"type": "constraints"}, {"type": "on_topic"}],
        "filters": [
            {"type": "length"},
            {"type": "refusal"},
            {"type": "repetition"},
            {"type": "exact", "of": "answer"},
            {"type": "minhash", "of": "answer"},
        ],
    }

    def condition(self, row: Mapping[str, Any], options: ConstrainedOptions, rng: Random) -> dict[str, Any]:
        name, words = require_text(row, "topic"), row["words"]
        if not isinstance(words, list) or not words or not all(isinstance(w, str) and w.strip() for w in words):
            raise UnusableSeedRow(f"'words' with a list of words, one at least, not {str(words)[:40]!r}")
        topic = ConstraintTopic(name=name, words=tuple(words))

        rules: list[TextConstraint] = []
        if options.system and rng.random() < options.system:
            rules = draw_constraints(rng, topic, options.kinds, 1)
        system = " ".join(rule.text for rule in rules)
        added = draw_constraints(rng, topic, options.kinds, rng.choice(options.constraints), rules)
        category = require_text(row, "category", "")
        lasting_rules, wordings = [[*rules, *added]], []
        if not options.styles:
            wordings.append(_draw_plain_wording(rng, topic.name, category, later=False))
        turns = rng.choice(options.turns) if options.turns != (1,) else 1
        for _ in range(turns - 1):
            added = draw_constraints(rng, topic, options.kinds, 1, lasting_rules[-1])
            lasting_rules.append([*lasting_rules[-1], *added])
            if not options.styles:
                wordings.append(_draw_plain_wording(rng, topic.name, category, later=True))
        wordings = wordings or _draw_styled_wordings(rng, topic.name, options, lasting_rules)
        stated = [lasting_rules[0][len(rules) :], *(now[len(then) :] for then, now in pairwise(lasting_rules))]
        requests = [_request_text(wording, new) for wording, new in zip(wordings, stated, strict=True)]

        # The generator gets the request alone, or all turns of the conversation.
        instruction = f"{requests[0]} {system}".strip()
        if len(requests) > 1:
            every = [f"Rule for every answer: {system}"] if system else []
            instruction = "\n".join([*every, *(f"Turn {n}: {request}" for n, request in enumerate(requests, 1))])
        return {
            "topic": topic.name,
            "category": row.get("category", ""),
            "constraints": [[constraint.model_dump(mode="json") for constraint in turn] for turn in lasting_rules],
            "system": system,
            "requests": requests,
            "instruction": instruction,
        }

    def prompt_role(self, seed: Seed) -> str:
        return "generator" if len(seed.data["requests"]) == 1 else "conversation"

    def revision_role(self, seed: Seed) -> str:
        # A small teacher repeats the draft that it is shown, so the prompt for one turn leaves it out; see `reviewed_revisions`.
        return "revise" if len(seed.data["requests"]) == 1 else "revise_conversation"

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return AnswerDraft if len(seed.data["requests"]) == 1 else ConversationDraft

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        schema, turns = super().reply_json_schema(seed), len(seed.data["requests"])
        if turns == 1:
            return schema
        answers = {**schema["properties"]["answers"], "minItems": turns, "maxItems": turns}
        return {**schema, "properties": {"answers": answers}}

    def questions(self, seed: Seed) -> Sequence[Message]:
        system = [Message(role="system", content=seed.data["system"])] if seed.data["system"] else []
        return [*system, *(Message(role="user", content=request) for request in seed.data["requests"])]

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        return self.candidate(seed, ConversationDraft(answers=list(answers)))

    def candidate(self, seed: Seed, draft: AnswerDraft | ConversationDraft) -> Candidate:
        requests, system = seed.data["requests"], seed.data["system"]
        answers = [draft.answer] if isinstance(draft, AnswerDraft) else draft.answers
        if len(answers) != len(requests):
            raise InvalidReply(f"answers: {len(answers)} for {len(requests)} turns")
        messages = [Message(role="system", content=system)] if system else []
        for request, answer in zip(requests, answers, strict=True):
            messages.append(Message(role="user", content=request))
            messages.append(Message(role="assistant", content=answer.strip()))
        return Candidate(messages=messages, fields={})


def _draw_styled_wordings(
    rng: Random, topic: str, options: ConstrainedOptions, rules: Sequence[Sequence[TextConstraint]]
) -> list[str]:
    """The requests of a conversation without their rules, in one style; each fits the kinds of rules that hold for its answer."""
    style = rng.choices(list(options.styles), list(options.styles.values()))[0]
    kinds = [{rule.kind for rule in turn} for turn in rules]
    first = _draw_first_request(rng, style, topic, options.purposes, kinds[0])
    return [first, *_draw_later_requests(rng, style, topic, kinds[1:])]


def _draw_plain_wording(rng: Random, topic: str, category: str, *, later: bool) -> str:
    if later:
        return f"{rng.choice(PLAIN_FOLLOW_UPS).format(topic=topic)} {PLAIN_REMINDER}"
    tasks = (*PLAIN_TASKS, REASONS_TEMPLATE) if category in LIKED_CATEGORIES else PLAIN_TASKS
    return rng.choice(tasks).format(topic=topic)


def _request_text(task: str, constraints: Sequence[TextConstraint]) -> str:
    return " ".join([task, *(constraint.text for constraint in constraints)])


class RequestStyle(NamedTuple):
    """Wordings of one style; `{topic}` is replaced by the topic."""

    first: tuple[str, ...]
    later: tuple[str, ...]
    reminders: tuple[str, ...]
    """Sentences of a later request that keep the earlier rules in force."""


_WORDINGS: Mapping[str, Any] = read_shipped_table("data/seeds/request_wordings.toml")
REQUEST_STYLES = {
    name: RequestStyle(**{key: tuple(texts) for key, texts in style.items()})
    for name, style in _WORDINGS["styles"].items()
}
PLAIN_TASKS = REQUEST_STYLES["plain"].first
PLAIN_FOLLOW_UPS = tuple(_WORDINGS["plain_follow_ups"])
[PLAIN_REMINDER] = REQUEST_STYLES["plain"].reminders
PURPOSES = tuple(_WORDINGS["purposes"])
UNFIT_KINDS: Mapping[str, Collection[str]] = _WORDINGS["unfit_kinds"]


def _draw_first_request(rng: Random, style: str, topic: str, purposes: float, kinds: Collection[str] = ()) -> str:
    """A first request in one of `REQUEST_STYLES` for an answer under rules of these kinds, in a share of `purposes` with the
    purpose of the text.
    """
    request = _fill(rng.choice(_list_fitting(REQUEST_STYLES[style].first, kinds)), topic)
    stated = rng.random() < purposes and "json_keys" not in kinds
    return f"{request} {rng.choice(_list_fitting(PURPOSES, kinds))}" if stated else request


def _draw_later_requests(rng: Random, style: str, topic: str, kinds: Sequence[Collection[str]]) -> list[str]:
    """Later requests of the same user, different while there are wordings, each with a reminder of the earlier rules. `kinds`
    are the kinds of rules that hold for each.
    """
    wordings, requests, used = REQUEST_STYLES[style], [], set[str]()
    for held in kinds:
        fitting = _list_fitting(wordings.later, held)
        wording = rng.choice([one for one in fitting if one not in used] or fitting)
        used.add(wording)
        requests.append(f"{_fill(wording, topic)} {rng.choice(wordings.reminders)}")
    return requests


def _list_fitting(wordings: Sequence[str], kinds: Collection[str]) -> Sequence[str]:
    return [wording for wording in wordings if not {*UNFIT_KINDS.get(wording, ())} & {*kinds}] or wordings


def _fill(wording: str, topic: str) -> str:
    filled = wording.format(topic=topic)
    return filled[0].upper() + filled[1:]
