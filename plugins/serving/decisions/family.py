"""Decisions: typed questions about a text (yes or no, one of several labels, several of them, a score, a span), answered by the
teacher. Knows no teacher.

Two ways: the user's unlabeled texts, which the generator labels; or drawn answers, for which the generator writes a text, some of
them hard negatives and some ambiguous on purpose. Each text gets votes of the verifier's teacher, which stay in the sample's
turns.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    create_model,
    model_validator,
)

from agents.checks import Options, Subject, check
from agents.checks.base import Votes
from agents.families.base import RecipeFamily, UnusableSeedRow, require_text, validate_weights
from agents.reply_schema import Finding, InvalidReply, ReplySchema, get_reply_tokens, parse_reply
from core.errors import ProviderError
from core.sample import CONDITIONS_KEY, REPAIR_STRIDE, Candidate, Message, Sample, Seed, join_conversation
from plugins.serving.decisions.label_probabilities import TOP_LOGPROBS, read_label_probabilities
from plugins.serving.decisions.questions import (
    NONE_OF_THESE,
    PROMPTS,
    Answer,
    DecisionQuestion,
    check_question_names,
    parse_questions,
)
from plugins.serving.decisions.written_texts import draw_answer, draw_other_answer, draw_scene, format_text_request

CASES = {"plain": 5, "hard_negative": 3, "ambiguous": 2}
"""Kinds of generated texts, by weight."""
_MESSAGES = TypeAdapter(list[Message])
LEAST_OF_AMBIGUOUS = 0.25
"""The least probability of an ambiguous text's answer: as one of four votes."""
NO_VOTE = "no vote could be read"
INSTRUCTION = "Answer these questions about the text with one JSON object and nothing else."


class WrittenCase(ReplySchema):
    text: str = Field(min_length=3)


class DecisionOptions(Options):
    questions: tuple[DecisionQuestion, ...] = Field(min_length=1)
    """Quotas and generated texts go by the first."""
    cases: Annotated[dict[str, int], validate_weights("case", CASES)] = Field(
        default_factory=lambda: dict(CASES), min_length=1
    )
    """Generated texts, by weight. `hard_negative` looks like another answer, `ambiguous` has two defensible ones."""
    topics: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Generated texts: a subject each, one at random."""
    about: str = Field("a message to a company", min_length=1)
    """Generated texts: what they are."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        check_question_names(self.questions)
        return self


class VoteOptions(Votes):
    by: Literal["votes", "probabilities"] = "votes"
    """`probabilities`: one reply's token probabilities, one vote to `several_of` and `span`."""
    votes: int = Field(4, ge=1, le=15)
    """In addition to the generator's label. Not with `probabilities`."""
    agree: int | None = Field(None, ge=1, le=15)
    """For generated, unambiguous texts. Default: more than half of the readable."""
    min_agreement: float = Field(0.0, ge=0, le=1)
    """Labeled texts: share of votes for the generator's label."""


@check(
    "votes",
    VoteOptions,
    calls=lambda options: options.votes if options.by == "votes" else 1,
    roles=("vote",),
    reads_logprobs=lambda options: options.by == "probabilities",
)
async def votes_check(subject: Subject, options: VoteOptions) -> Finding:
    """Independent votes must support the answers of a generated text: more than half, or one if it is ambiguous.

    Its probability must be over a half too, or over a quarter.
    """
    shares = await (_count_votes if options.by == "votes" else _read_probabilities)(subject, options)
    if isinstance(shares, str):
        return Finding(check="votes", passed=False, evidence=shares)
    faults = [share for share in shares if not _supports(share.value, subject, options)]
    # A question whose answer the votes support is no fault of a refused text.
    evidence = ", ".join(f"{share.name}: {share.words}" for share in faults or shares)
    return Finding(check="votes", passed=not faults, evidence=evidence)


def _supports(share: float, subject: Subject, options: VoteOptions) -> bool:
    """Whether a share of votes, or a probability, is enough for an answer."""
    wanted = {
        "given": options.min_agreement,
        "ambiguous": LEAST_OF_AMBIGUOUS if options.by == "probabilities" else 1 / options.votes,
    }.get(subject.seed.data["case"], options.agree and options.agree / options.votes)
    return share > 0.5 if wanted is None else share >= wanted


class AnswerShare(NamedTuple):
    """How far a teacher supports a sample's answer to a question."""

    name: str
    value: float
    words: str


async def _count_votes(subject: Subject, options: VoteOptions) -> list[AnswerShare] | str:
    """The shares of votes, or why there are none. A given text gets all votes, since a student learns their shares; a written one
    only those that can still change the finding or the label.
    """
    reply_type, values = _describe_vote(subject)
    questions = parse_questions(subject.seed.data["questions"])
    answers, given = subject.candidate.fields["answers"], subject.seed.data["case"] == "given"
    votes = [answers] if given else []
    for which in range(options.votes):
        reply = await subject.ask("vote", reply_type, values, which=which, temperature=options.temperature)
        votes += [reply.model_dump()] if reply is not None else []
        if not given and _is_decided(questions, votes, options.votes - 1 - which, subject, options):
            break
    if len(votes) == given:
        return NO_VOTE
    found = []
    for one in questions:
        own = answers[one.name]
        others = [one.to_class(vote[one.name]) for vote in votes if not one.is_same_answer(vote[one.name], own)]
        share = 1 - len(others) / len(votes)
        instead = "".join(f", {count} for {name[:80]!r}" for name, count in Counter(others).most_common(2))
        found.append(AnswerShare(one.name, share, f"{share:.0%} of {len(votes)} votes for its answer{instead}"))
    return found


def _is_decided(
    questions: Sequence[DecisionQuestion], votes: Sequence[Mapping[str, Any]], left: int, subject: Subject, options: VoteOptions
) -> bool:  # fmt: skip
    """Whether no outcome of the votes that are `left`, readable or not, changes the finding, or the label of a text that passes:
    a tie is the drawn answer's.
    """
    if not votes:
        return False
    all_pass = True
    for one in questions:
        own = one.to_class(subject.candidate.fields["answers"][one.name])
        counts = Counter(one.to_class(vote[one.name]) for vote in votes)
        agreeing, most = counts[own], len(votes) + left
        if not _supports((agreeing + left) / most, subject, options):
            return True
        *others, top = sorted(count for name, count in counts.items() if name != own) or [0]
        leads = agreeing >= top + left or top > max([agreeing, *others]) + left
        all_pass &= leads and _supports(agreeing / most, subject, options)
    return all_pass


async def _read_probabilities(subject: Subject, _options: VoteOptions) -> list[AnswerShare] | str:
    """The probabilities of the answers, or why there are none. Raises ProviderError if the teacher returns none for any reply."""
    reply_type, values = _describe_vote(subject)
    reply = await subject.ask("vote", reply_type, values, which=0, temperature=0, top_logprobs=TOP_LOGPROBS)
    if reply is None:
        return NO_VOTE
    tokens, vote, answers = get_reply_tokens(reply), reply.model_dump(), subject.candidate.fields["answers"]
    if not any(token.likeliest for token in tokens):
        raise ProviderError(
            'votes: the teacher returns no token probabilities, which by = "probabilities" needs; set by = "votes"'
        )
    found = []
    for one in parse_questions(subject.seed.data["questions"]):
        answer = answers[one.name]
        if not one.has_single_class:
            same = one.is_same_answer(vote[one.name], answer)
            found.append(AnswerShare(one.name, float(same), "the same answer" if same else "another answer"))
        elif probabilities := read_label_probabilities(one, tokens):
            share, likeliest = probabilities[one.to_class(answer)], max(probabilities, key=probabilities.__getitem__)
            instead = "" if likeliest == one.to_class(answer) else f", {likeliest!r} {probabilities[likeliest]:.2f}"
            found.append(AnswerShare(one.name, share, f"its answer has the probability {share:.2f}{instead}"))
        else:
            return f"{one.name}: no probability of an answer can be read from the tokens of the vote"
    return found


def _describe_vote(subject: Subject) -> tuple[type[ReplySchema], dict[str, str]]:
    """The type of a vote, and the values of its prompt."""
    data = subject.seed.data
    values = {"text": subject.candidate.fields["text"], "wording": data["wording"]}
    return build_answers_type(json.dumps(data["questions"])), values


@check("decision_rules")
def decision_rules_check(subject: Subject, _options: Options) -> str | None:
    """Answers must fit their questions, and spans must be copied from the text."""
    fields, data = subject.candidate.fields, subject.seed.data
    for question in parse_questions(data["questions"]):
        try:
            answer = question.parse_answer(fields["answers"].get(question.name))
        except ValueError as fault:
            return str(fault)
        if question.type == "span" and str(answer) not in fields["text"]:
            return f"{question.name}: {answer!r} is not in the text, word for word"
    return None


@lru_cache(maxsize=64)
def build_answers_type(questions_json: str) -> type[ReplySchema]:
    """The reply with an answer to each question, given as JSON."""
    fields: dict[str, Any] = {}
    for question in parse_questions(json.loads(questions_json)):
        kind = Annotated[Any, AfterValidator(question.parse_answer), WithJsonSchema(question.json_schema)]
        fields[question.name] = (kind, ...)
    made: type[ReplySchema] = create_model("DecisionAnswers", __base__=ReplySchema, **fields)
    return made


class DecisionsFamily(RecipeFamily):
    name = "decisions"
    options = DecisionOptions
    prompts = PROMPTS
    checks = (decision_rules_check, votes_check)
    fields = ("text", "answers")
    writes = ("generator", "write")
    revises = ("revise", "rewrite")
    seeded_by = ("path", "documents", "itself")
    # Short texts on few subjects resemble each other, and labels repeat: only exact repeats are dropped.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {
            "generator": {"max_tokens": 600, "temperature": 0.7},
            "critic": False,
            "verifier": {"max_tokens": 200},
        },
        "verifiers": [{"type": "decision_rules"}, {"type": "votes"}],
        "filters": [{"type": "exact"}],
    }

    def rows(self, options: DecisionOptions, seed: int) -> Sequence[Mapping[str, Any]]:
        """One for each answer to the first question, so that generated texts are balanced."""
        classes = options.questions[0].classes
        return [{"label": label} for label in classes]

    def condition(self, row: Mapping[str, Any], options: DecisionOptions, rng: Random) -> dict[str, Any]:
        shared = {
            "questions": [question.model_dump(mode="json") for question in options.questions],
            "wording": "\n".join(f"- {question.wording}" for question in options.questions),
        }
        if "text" in row or "messages" in row:
            return {"text": _read_text(row), "case": "given", **shared}
        targets = {question.name: draw_answer(question, rng) for question in options.questions}
        first = options.questions[0]
        if "label" in row:
            if row["label"] not in first.classes:
                raise UnusableSeedRow(f"'label' with one of {', '.join(first.classes)}, not {str(row['label'])[:40]!r}")
            targets[first.name] = [row["label"]] if first.type == "several_of" else first.from_class(row["label"])
        case = rng.choices(list(options.cases), list(options.cases.values()))[0]
        other = draw_other_answer(first, targets[first.name], rng)
        case = case if other is not None else "plain"
        asked = [(question, targets[question.name]) for question in options.questions]
        subject = rng.choice(options.topics or ("",)) if targets[first.name] != NONE_OF_THESE else ""
        return {
            "label": row.get("label", first.to_class(targets[first.name])),
            "case": case,
            "targets": targets,
            "request": format_text_request(options.about, asked, case, other, rng),
            CONDITIONS_KEY: draw_scene(row.get("topic", subject), case, rng),
            **shared,
        }

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        # Each seed is checked against all prompts of revisions, also against that of the other kind of seeds.
        return dict.fromkeys({"text", "request"} - seed.data.keys(), "")

    def prompt_role(self, seed: Seed) -> str:
        return "generator" if seed.data["case"] == "given" else "write"

    def revision_role(self, seed: Seed) -> str:
        return "revise" if seed.data["case"] == "given" else "rewrite"

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return build_answers_type(json.dumps(seed.data["questions"])) if seed.data["case"] == "given" else WrittenCase

    def questions(self, seed: Seed) -> Sequence[Message] | None:
        if seed.data["case"] != "given":
            return None
        return [Message(role="user", content=format_decision_prompt(seed.data["text"], seed.data["wording"]))]

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        reply = parse_reply(self.reply_type(seed), answers[0])
        return self.candidate(seed, reply)

    def candidate(self, seed: Seed, draft: Any) -> Candidate:
        data = seed.data
        if data["case"] == "given":
            text, given = data["text"], draft.model_dump()
        else:
            text, given = draft.text.strip(), data["targets"]
        try:
            answers = {one.name: one.parse_answer(given[one.name]) for one in parse_questions(data["questions"])}
        except ValueError as fault:
            raise InvalidReply(str(fault)) from None
        asked = Message(role="user", content=format_decision_prompt(text, data["wording"]))
        reply = Message(role="assistant", content=json.dumps(answers, ensure_ascii=False))
        return Candidate(messages=[asked, reply], fields={"text": text, "question": text, "answers": answers})

    def conclude(self, sample: Sample) -> Candidate:
        """With the answers that most votes give, and the number of votes for each. Of an ambiguous text or a given one, most
        votes may deny the answer that was drawn or drafted.
        """
        candidate, votes, known = sample.candidate, collect_votes(sample), collect_probabilities(sample)
        drafted, text = candidate.fields["answers"], candidate.fields["text"]
        questions = parse_questions(sample.seed.data["questions"])
        answers = {
            one.name: one.from_class(max(known[one.name], key=known[one.name].__getitem__))
            if one.name in known
            else find_voted(one, drafted[one.name], votes[one.name], text)
            for one in questions
        }
        counts = [
            {"question": one.name, "answer": answer, "votes": count}
            for one in questions
            for answer, count in Counter(map(one.to_class, votes[one.name])).most_common()
        ]
        *asked, reply = candidate.messages
        if answers != drafted:  # thinking leads to the other answer
            content = json.dumps(answers, ensure_ascii=False)
            reply = reply.model_copy(update={"content": content, "reasoning": None})
        fields = {**candidate.fields, "answers": answers, "drafted": drafted, "label_votes": counts}
        return candidate.model_copy(update={"messages": [*asked, reply], "fields": fields})


def find_voted(question: DecisionQuestion, drafted: Answer, votes: Sequence[Answer], text: str) -> Answer:
    """The answer with the most votes; of equally many the drafted one, else the first. A span must be in the text."""
    usable = [vote for vote in votes if question.type != "span" or str(vote) in text]
    counts = [sum(question.is_same_answer(vote, other) for other in usable) for vote in usable]
    own = sum(question.is_same_answer(drafted, vote) for vote in usable)
    return drafted if own >= max(counts, default=0) else usable[counts.index(max(counts))]


def format_decision_prompt(text: str, wording: str) -> str:
    """The user's turn that a generative student is trained on."""
    return f"Text:\n{text}\n\n{INSTRUCTION}\n{wording}"


def collect_probabilities(sample: Sample) -> dict[str, dict[str, float]]:
    """The probability of each class, for the questions about a sample's text whose votes are probabilities."""
    found = {}
    for turn in sample.turns:
        if turn.agent == "verifier" and turn.revision == sample.revisions and turn.tokens:
            for one in parse_questions(sample.seed.data["questions"]):
                probabilities = one.has_single_class and read_label_probabilities(one, turn.tokens)
                if probabilities:
                    found[one.name] = probabilities
    return found


def collect_votes(sample: Sample) -> dict[str, list[Answer]]:
    """The votes on each question about a sample's text, in order: of a given text, the generator's label first. Votes of earlier
    revisions are of other texts or labels and left out.
    """
    questions = parse_questions(sample.seed.data["questions"])
    contract = build_answers_type(json.dumps(sample.seed.data["questions"]))
    replies: dict[int, Any] = {}
    for turn in sample.turns:
        if turn.agent == "verifier" and turn.revision == sample.revisions:
            try:  # a later attempt is the repair of an earlier one
                replies[turn.attempt // REPAIR_STRIDE] = parse_reply(contract, turn.reply)
            except InvalidReply:
                continue
    votes = [reply.model_dump() for _, reply in sorted(replies.items())]
    if sample.seed.data["case"] == "given":
        fields = sample.candidate.fields
        votes.insert(0, fields.get("drafted", fields["answers"]))
    return {one.name: [one.parse_answer(vote[one.name]) for vote in votes] for one in questions}


def _read_text(row: Mapping[str, Any]) -> str:
    """The text of a row, or its conversation as text."""
    if "text" in row:
        return require_text(row, "text")
    try:
        text = join_conversation(_MESSAGES.validate_python(row["messages"]))
    except ValidationError:
        raise UnusableSeedRow("'messages' with turns that have 'role' and 'content'") from None
    if not text.strip():
        raise UnusableSeedRow("'messages' with a turn that is no system prompt")
    return text
