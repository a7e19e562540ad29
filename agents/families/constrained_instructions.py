"""Instruction following under constraints that code can check, on topics from the seeds. Knows no teacher."""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

import prompts
from agents.checks import Finding, Options, Subject, build_finding, check, first_fault
from agents.checks.text.prose_faults import find_prose_fault, find_topic_fault
from agents.checks.text.text_units import remove_invisible
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text, validate_weights
from agents.families.constraints import CONSTRAINT_KINDS, ConstraintTopic, TextConstraint, draw_constraints
from agents.reply_schema import ReplySchema
from core.sample import Candidate, Message, Seed
from core.weights.embeddings import Similarity, embed_text

TASK_TEMPLATES = (
    "Write about {topic}.",
    "Write a short note about {topic}.",
    "Tell me something about {topic}.",
    "Describe {topic}.",
)
REASONS_TEMPLATE = "Explain why people like {topic}."
LIKED_CATEGORIES = {"food", "play", "arts", "travel", "animals"}
"""Categories of topics that people can like; an essay on why people like gravity is impossible."""


class AnswerDraft(ReplySchema):
    model_config = ConfigDict(title="Draft")  # part of every request digest and of the reply cache

    answer: str = Field(min_length=1)


class ConstrainedOptions(Options):
    kinds: Annotated[dict[str, int], validate_weights("kind", CONSTRAINT_KINDS)] = Field(
        default_factory=lambda: dict.fromkeys(CONSTRAINT_KINDS, 1), min_length=1
    )
    """Of constraints, by weight."""
    constraints: tuple[Annotated[int, Field(ge=0, le=11)], ...] = Field((1, 2), min_length=1)
    """Per instruction, one of these at random."""


@check("constraints", languages=("en",))
def constraints_check(subject: Subject, _options: Options) -> list[Finding]:
    """A program checks every constraint that the instruction states, in every answer that it holds for."""
    answers = _assistant_answers(subject)
    findings = []
    for number, (turn, answer) in enumerate(zip(load_rules(subject.seed), answers, strict=True), 1):
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


@check("on_topic", TopicOptions, hint=True, languages=("en",))
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


@check("sound_prose", languages=("en",))
def sound_prose_check(subject: Subject, _options: Options) -> str | None:
    """Every answer must read as prose: finished sentences without circles or copies."""
    topic = subject.seed.data["topic"]
    asked = [message.content for message in subject.candidate.messages if message.role == "user"]
    prompt = prompts.load_prompt(ConstrainedInstructionsFamily.name, "generator")
    examples = [json.loads(example)["answer"] for example in prompt.examples]
    return first_fault([find_prose_fault(answer, topic, examples, asked) for answer in _assistant_answers(subject)])


def _assistant_answers(subject: Subject) -> list[str]:
    return [message.content for message in subject.candidate.messages if message.role == "assistant"]


def load_rules(seed: Seed, key: str = "constraints") -> list[list[TextConstraint]]:
    """The constraints that each answer must meet, a list for each turn of the user."""
    return [[TextConstraint.model_validate(constraint) for constraint in turn] for turn in seed.data[key]]


def read_topic(row: Mapping[str, Any]) -> ConstraintTopic:
    """The topic of a row of seeds. Raises KeyError, UnusableSeedRow."""
    name, words = require_text(row, "topic"), row["words"]
    if not isinstance(words, list) or not words or not all(isinstance(w, str) and w.strip() for w in words):
        raise UnusableSeedRow(f"'words' with a list of words, one at least, not {str(words)[:40]!r}")
    return ConstraintTopic(name=name, words=tuple(words))


class ConstrainedInstructionsFamily(RecipeFamily):
    name = "constrained_instructions"
    options = ConstrainedOptions
    checks = (constraints_check, on_topic_check, sound_prose_check)
    # A small teacher repeats the draft that it is shown, so `revise` leaves it out.
    revises = ("revise", "revise_shown")
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
        topic, category = read_topic(row), require_text(row, "category", "")
        rules = draw_constraints(rng, topic, options.kinds, rng.choice(options.constraints))
        tasks = [*TASK_TEMPLATES, *([REASONS_TEMPLATE] if category in LIKED_CATEGORIES else [])]
        request = " ".join([rng.choice(tasks).format(topic=topic.name), *(rule.text for rule in rules)])
        return {
            "topic": topic.name,
            "category": row.get("category", ""),
            "constraints": [[rule.model_dump(mode="json") for rule in rules]],
            "system": "",
            "requests": [request],
            "instruction": request,
        }

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return AnswerDraft

    def questions(self, seed: Seed) -> Sequence[Message]:
        return [Message(role="user", content=seed.data["instruction"])]

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        return self.candidate(seed, AnswerDraft(answer="\n".join(answers)))

    def candidate(self, seed: Seed, draft: AnswerDraft) -> Candidate:
        return Candidate(
            messages=[*self.questions(seed), Message(role="assistant", content=draft.answer.strip())], fields={}
        )
