"""Grounded question answering: a passage of the user's documents, a question, an answer, and the words of the passage that say
so; or a question that the passage leaves open, as in SQuAD 2.0 (Rajpurkar et al. 2018, arXiv 1806.03822). Knows no teacher.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from agents.checks import Options, Subject, check
from agents.checks.text.quotes import QuotableText
from agents.checks.text.second_reader import (
    MAX_SHOWN_CHARACTERS,
    ReaderAnswer,
    find_reader_answer,
    is_left_out,
    is_same_reading,
    says_no_answer,
)
from agents.checks.text.supported_by_passage import WORD, is_denial_word, normalize_spelling
from agents.checks.text.text_units import CONTRAST_WORDS, split_sentences, split_words
from agents.families.base import RecipeFamily, require_text, validate_weights
from agents.families.question_targets import (
    NO_PROSE,
    TARGET_WORDS,
    Target,
    can_carry,
    find_possible_answer,
    find_table_rows,
    find_targets,
)
from agents.families.standalone_questions import standalone_check
from agents.reply_schema import ReplySchema
from core.config.recipe import Recipe
from core.errors import RecipeProblem, UsageError
from core.project_files import read_shipped_table
from core.sample import Candidate, Message, Seed
from core.weights.embeddings import embed_text, embed_texts, require_embeddings

if TYPE_CHECKING:
    from core.weights.embeddings import Vectors

_WORDINGS: Mapping[str, Any] = read_shipped_table("data/seeds/question_wordings.toml")
QUESTION_KINDS: Mapping[str, str] = _WORDINGS["kinds"]
TABLE_KINDS = ("fact", "number", "comparison")
"""What the rows of a table can answer; no row gives a reason or a definition."""
STYLES: tuple[str, ...] = tuple(_WORDINGS["styles"])
ASKERS: tuple[str, ...] = tuple(_WORDINGS["askers"])
UNFIT_ASKERS: Mapping[str, Sequence[str]] = _WORDINGS["unfit_askers"]
"""Who does not ask in a style: nobody doubts in a hurry, and a search box learns nothing of relatives."""
OPENINGS: Mapping[str, int] = _WORDINGS["openings"]
"""How a question may begin, by weight; a style that has its own beginning leaves it free."""
OWN_BEGINNING = frozenset(("after half a sentence on why it is asked",))
INSTRUCTIONS: Sequence[str] = _WORDINGS["instructions"]
INSTRUCTIONS_OF_SEVERAL: Sequence[str] = _WORDINGS["instructions_of_several"]
QUOTING_INSTRUCTION: str = _WORDINGS["quoting_instruction"]
LAYOUTS = ("text_first", "question_first")
JOINING_KINDS = ("comparison", "list", "yes_no")
"""What can be asked over two passages."""
SECOND_PASSAGE = "\n\nSecond passage:\n"
LEFT_OUT = 0.5
"""Share of the silent samples that leave out the passage with the answer, where several are shown."""
OWN_WORDS = "in a few words of your own"
"""How an answer is asked for; earlier seeds asked for none of the writer's own."""
POOL = "passages"
"""The key under which a row has the passages of all, for `condition`."""
MAX_COMPARED_CHARACTERS = 4000
"""Characters of an answer and of a quote that are compared word by word; both are shorter if other checks pass."""


class GroundedDraft(ReplySchema):
    first_question: str = ""
    first_answer: str = ""
    question: str = Field(min_length=5)
    quotes: list[str]
    answer: str = Field(min_length=1)


class GroundedOptions(Options):
    kinds: Annotated[dict[str, int], validate_weights("kind", QUESTION_KINDS)] = Field(
        default_factory=lambda: dict(zip(QUESTION_KINDS, (4, 3, 2, 1, 2, 1, 1), strict=True)), min_length=1
    )
    """Of questions, by weight. Passages must be able to carry them."""
    styles: tuple[str, ...] = Field(STYLES, min_length=1)
    """Forms of a question, one at random."""
    askers: tuple[str, ...] = Field(ASKERS, min_length=1)
    """Who asks: one at random that suits the style."""
    unanswerable: float = Field(0.2, ge=0, le=1)
    """Share answered by `silence`: the passage only seems to answer or, in half of them with `distractors`, is left out."""
    silence: str = Field("The text does not say.", min_length=1)
    """The answer without an answer."""
    context: bool = True
    """Open book: the user's message has the passage. If `false`, the student learns the content."""
    cited: bool = True
    """Open book: quotes follow the answer."""
    distractors: Annotated[int, AfterValidator(require_embeddings)] = Field(0, ge=0, le=100)
    """Open book: the nearest passages in meaning (RAFT, arXiv 2403.10131)."""
    two_passages: Annotated[float, AfterValidator(require_embeddings)] = Field(0, ge=0, le=1)
    """Open book: share of answered questions that need the nearest passage too. Needs the check `both_passages`."""

    follow_ups: float = Field(0.0, ge=0, le=1)
    """Open book: share of answered questions that are a second one and refer to the first."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.context and self.unanswerable:
            raise ValueError(
                f"unanswerable = {self.unanswerable:g} needs context = true: without the passage nobody can tell what it "
                "leaves open; set unanswerable = 0"
            )
        for name in ("distractors", "two_passages", "follow_ups"):
            if (value := getattr(self, name)) and not self.context:
                raise ValueError(
                    f"{name} = {value:g} needs context = true: without it the user's message has no passage; leave {name} out"
                )
        return self


@check("unanswerable", languages=("en",))
def unanswerable_check(subject: Subject, _options: Options) -> str | None:
    """What the passage leaves open must be asked with a word that it does not have, near to what it has, and not answered."""
    seed, fields = subject.seed.data, subject.candidate.fields
    silent = says_no_answer(fields["answer"], seed["silence"])
    if seed["answerable"]:
        return "the passage has the answer; give it, with its quotes" if silent else None
    if fields["quotes"]:
        return "the passage must not have the answer, so give no quotes"
    if fields["answer"] != seed["silence"]:
        return f"the passage must not have the answer, so the answer must be {seed['silence']!r}"

    possible = find_possible_answer(fields["question"], seed["text"])
    if possible.sentence is not None:
        where = f"{possible.sentence[:MAX_SHOWN_CHARACTERS]!r} of the passage" if possible.sentence else "the passage"
        return f"{where} has what is asked for, every word of it, and may answer it; ask about something that it leaves out"
    return None if possible.shared else "the question is about something else; stay with what the passage is about"


class OwnWordsOptions(Options):
    longest: int = Field(10, ge=1)
    """Words in a row shared with a quote, twice that for lists. Names, digits and `only` do not count."""
    max_words: int = Field(30, ge=1)
    """Of an answer."""


@check("own_words", OwnWordsOptions, languages=("en",))
def own_words_check(subject: Subject, options: OwnWordsOptions) -> str | None:
    """The answer must answer in a few words, and not repeat its quotes, which follow it anyway."""
    seed, fields = subject.seed.data, subject.candidate.fields
    if not seed["answerable"] or OWN_WORDS not in seed.get("request", OWN_WORDS):
        return None
    if (count := len(fields["answer"].split())) > options.max_words:
        return f"the answer has {count} words; answer in at most {options.max_words}"
    longest = options.longest * (2 if seed.get("kind") == "list" else 1)
    answer = WORD.findall(normalize_spelling(fields["answer"])[:MAX_COMPARED_CHARACTERS])
    for quote in fields["quotes"]:
        quoted = WORD.findall(normalize_spelling(quote)[:MAX_COMPARED_CHARACTERS])
        run = _longest_shared_run(answer, quoted)
        if sum(not _must_be_literal(word) for word in run) > longest:
            return f"the answer repeats its quote ({' '.join(run[:12])!r}); answer in a few words of your own"
    return None


def _must_be_literal(word: str) -> bool:
    return word[0].isupper() or word[0].isdigit() or word.lower() in CONTRAST_WORDS or is_denial_word(word)


def _longest_shared_run(left: list[str], right: list[str]) -> list[str]:
    """The longest run of words that both have, ignoring case."""
    first, second = ([word.lower() for word in words] for words in (left, right))
    match = SequenceMatcher(None, first, second, autojunk=False).find_longest_match()
    return left[match.a : match.a + match.size]


@check("both_passages", calls=lambda _options: 2, roles=("verifier",), languages=("en",))
async def both_passages_check(subject: Subject, _options: Options) -> str | None:
    """A question over two passages must have quotes of both, and must be open to a reader who lacks either."""
    seed, fields = subject.seed.data, subject.candidate.fields
    if not seed.get("joined"):
        return None
    for number, part in enumerate(seed["text"].split(SECOND_PASSAGE)):
        name = f"the passage that begins {part[:40]!r}"
        if not any(QuotableText(part).find(quote) for quote in fields["quotes"]):
            return f"no quote is from {name}; ask for what both say, and quote both"
        rest = "\n\n".join(other for other in seed["shown_passages"] if other != part)
        values = {"text": rest, "question": fields["question"]}
        reading = await subject.ask("verifier", ReaderAnswer, values, which=number, temperature=0.0)
        if reading is None:
            return f"no reader's answer without {name} could be read"
        found = find_reader_answer(reading, seed["silence"])
        if found and is_same_reading(fields["answer"], found, fields["question"], 0.5):
            return f"without {name} a reader finds {found[:MAX_SHOWN_CHARACTERS]!r}; ask what needs both"
    return None


class GroundedQAFamily(RecipeFamily):
    name = "grounded_qa"
    fields = ("question", "quotes", "answer", "first_question", "first_answer", "before")
    options = GroundedOptions
    checks = (standalone_check, unanswerable_check, own_words_check, both_passages_check)
    seeded_by = ("documents", "path")
    # Answers may repeat here ("The text does not say."), so the question must be new.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 500, "examples": 4}, "verifier": {"max_tokens": 200}},
        "verifiers": [
            {"type": "quotes"},
            {"type": "supported", "share": 0.6},
            {"type": "own_words"},
            {"type": "standalone"},
            {"type": "unanswerable"},
            {"type": "read_again"},
        ],
        "filters": [{"type": "length", "min_words": 1}, {"type": "refusal"}, {"type": "novelty", "threshold": 0.75}],
    }

    def list_problems(self, recipe: Recipe, folder: Path) -> Iterable[RecipeProblem]:
        if recipe.task.get("two_passages") and all(one.type != "both_passages" for one in recipe.verifiers):
            yield RecipeProblem("task.two_passages", "needs the check `both_passages`; add it to [[verifiers]]")

    def gather_rows(
        self, rows: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """Each row with the passages of all."""
        pool = PassagePool(rows)
        return [{**row, POOL: pool} for row in (*rows, *made)]

    def condition(self, row: Mapping[str, Any], options: GroundedOptions, rng: Random) -> dict[str, Any]:
        text = unicodedata.normalize("NFC", require_text(row, "text"))
        draw = rng.random()
        left_out = options.distractors > 0 and draw < options.unanswerable * LEFT_OUT
        answerable = left_out or draw >= options.unanswerable
        joined = answerable and not left_out and rng.random() < options.two_passages
        follow_up = answerable and not left_out and not joined and rng.random() < options.follow_ups
        kind, target = _draw_target(text, {"fact": 1} if joined else options.kinds, answerable, rng)
        kind = rng.choice(JOINING_KINDS) if joined else kind
        style = rng.choice(options.styles)
        fitting = [asker for asker in options.askers if asker not in UNFIT_ASKERS.get(style, ())]
        asker = rng.choice(fitting or options.askers)
        opening = "" if style in OWN_BEGINNING else rng.choices(list(OPENINGS), list(OPENINGS.values()))[0]

        # A passage always has the same form, so that the filter `novelty` compares only the questions.
        form = Random(text)
        asked = {
            "kind": kind,
            "style": style,
            "asker": asker,
            "opening": opening,
            "headings": row.get("headings", ""),
            "focus": target.focus,
            "answerable": answerable,
            "context": options.context,
            "joined": joined,
            "follow_up": follow_up,
        }
        # The student gets as many texts with the right one as without it.
        count = max(options.distractors + left_out, joined)
        nearest = row[POOL].find_nearest(text, target.focus, count) if count else []
        shown = [*nearest, text] if nearest and not left_out else [*nearest]
        rng.shuffle(shown)
        instructions = INSTRUCTIONS_OF_SEVERAL if shown else INSTRUCTIONS
        return {
            "source": row.get("source", ""),
            "number": row.get("number", 0),
            "text": f"{text}{SECOND_PASSAGE}{nearest[0]}" if joined else text,
            **asked,
            "silence": options.silence,
            "instruction": form.choice(instructions).format(silence=options.silence),
            "layout": form.choice(LAYOUTS),
            "cited": options.cited,
            "shown_passages": shown,
            "request": _request_text({**asked, "shown_passages": shown}, options.silence),
        }

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return GroundedDraft

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        schema = super().reply_json_schema(seed)
        if seed.data["answerable"]:
            narrower = {"quotes": {**schema["properties"]["quotes"], "minItems": 1}}
        else:
            narrower = {"answer": {"type": "string", "enum": [seed.data["silence"]]}}
        properties, first = {**schema["properties"], **narrower}, ("first_question", "first_answer")
        if not seed.data.get("follow_up"):
            return {**schema, "properties": {name: part for name, part in properties.items() if name not in first}}
        properties |= {name: {"type": "string", "minLength": 2} for name in first}
        return {**schema, "properties": properties, "required": [*first, *schema["required"]]}

    def candidate(self, seed: Seed, draft: GroundedDraft) -> Candidate:
        data, question, answer = seed.data, draft.question.strip(), draft.answer.strip()
        # The passage may have other marks and line breaks than a quote of it; a quote that it does not have stays as it is.
        passage = QuotableText(data["text"])
        first_answer, *quotes = (
            passage.text[slice(*span)] if (span := passage.find(quote)) else quote
            for quote in (draft.first_answer.strip(), *draft.quotes)
        )
        first, first_answer = (draft.first_question.strip(), first_answer) if data.get("follow_up") else ("", "")
        asked, answered = question, answer
        if data["context"]:
            instruction = f"{data['instruction']} {QUOTING_INSTRUCTION}" if data["cited"] else data["instruction"]
            parts = [_write_passages(data), f"Question: {first or question}"]
            if data["layout"] == "question_first":
                parts.reverse()
            asked = "\n\n".join([instruction, *parts])
            if is_left_out(data["text"], data.get("shown_passages")):
                answered = data["silence"]
            elif data["cited"]:
                answered = "\n".join([answer, *(f"> {' '.join(quote.split())}" for quote in quotes)])
        messages = [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        if data.get("follow_up"):
            said = " ".join(first_answer.split())
            said += f"\n> {_find_sentence(passage.text, first_answer)}" if data["cited"] else ""
            messages[1:1] = [Message(role="assistant", content=said), Message(role="user", content=question)]
        before = f"{first} {first_answer}\nThen: " if first else ""
        fields = {"question": question, "quotes": quotes, "answer": answer, "before": before}
        return Candidate(messages=messages, fields={**fields, "first_question": first, "first_answer": first_answer})


def _find_sentence(passage: str, words: str) -> str:
    """The sentence of a passage that has some words, or the words."""
    sentences = (sentence for line in passage.splitlines() for sentence in split_sentences(line))
    return next((" ".join(sentence.split()) for sentence in sentences if words in sentence), words)


def _write_passages(data: Mapping[str, Any]) -> str:
    """The passages as the user's message has them."""
    numbered = (f"Text {number}:\n{passage}" for number, passage in enumerate(data.get("shown_passages", ()), 1))
    return "\n\n".join(numbered) or f"Text:\n{data['text']}"


def _draw_target(text: str, kinds: Mapping[str, int], answerable: bool, rng: Random) -> tuple[str, Target]:
    """A kind of question, and a sentence that can carry it; any sentence for a question that the passage leaves open."""
    targets, rows = find_targets(text), find_table_rows(text) if answerable else []
    row_kinds = {kind: kinds.get(kind, 0) for kind in TABLE_KINDS}
    if rows and sum(row_kinds.values()) and rng.random() < len(rows) / (len(rows) + len(targets)):
        row = rng.choice(rows)
        return rng.choices(list(row_kinds), list(row_kinds.values()))[0], Target(row, row)
    carriers = {kind: [target for target in targets if can_carry(kind, target.sentence)] for kind in kinds}
    fitting = {kind: weight for kind, weight in kinds.items() if carriers[kind]} if answerable else {}
    if not sum(fitting.values()):  # nothing is known of the passage, which may be in another language
        fitting = dict(kinds)
    kind = rng.choices(list(fitting), list(fitting.values()))[0]
    lines = [line for line in text.splitlines() if not NO_PROSE.match(line)]
    others = [sentence for line in lines for sentence in split_sentences(line)]
    fallback = [Target(one, one) for one in others if len(split_words(one)) in TARGET_WORDS]
    choices = (carriers[kind] if answerable else targets) or targets or fallback or [Target("", "")]
    return kind, rng.choice(choices)


def _request_text(asked: Mapping[str, Any], silence: str) -> str:
    """The request to the generator, in words."""
    about = f"Ask a question {QUESTION_KINDS[asked['kind']]}. Put it {asked['style']}; {asked['asker']} asks."
    about = f"{about} {asked['opening']}".rstrip()
    origin = f"The passage is from: {asked['headings']}. " if asked["headings"] else ""
    part = "row of the table, read with its header" if asked["focus"].startswith("|") else "part of the passage"
    focus = f"It is to be about this {part}: {asked['focus']}" if asked["focus"] else ""
    if not asked["answerable"]:
        focus = f"It is to be near to this part of the passage: {asked['focus']}" if asked["focus"] else ""
        task = (
            "The passage must seem to answer it and must not: ask about something that belongs to the matter and that the "
            f"passage leaves out. Give no quotes, and as the answer: {silence}"
        )
    elif asked["joined"]:
        task = (
            "It is to need the second passage too, so that neither answers it alone. Quote the words of both that answer it, "
            f"then answer it {OWN_WORDS}."
        )
    else:
        task = f"Quote the words of the passage that answer it, then answer it {OWN_WORDS}."
    if asked.get("follow_up"):
        task = (
            "It is the asker's second question, which refers to the first without naming its thing again (`it`, `that`, "
            "`And …?`). As first_question, ask about something else that the passage says of the same thing, by its name; "
            f"first_answer is copied from the passage, as short as one replies. {task}"
        )
    named = "name what it is about, say `it` or `this` of nothing that the question has not named, and never speak of a text."
    if not asked["context"]:
        alone = f"{origin}Who gets the question does not have the passage: {named}"
    elif asked["shown_passages"]:
        alone = f"{origin}Who answers the question sees the passage among others and does not know which it is: {named}"
    else:
        alone = f"{origin}Who answers the question sees the passage alone."
    return "\n".join(filter(None, [about, focus, task, alone]))


class PassagePool:
    """All different passages, by their meaning."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows

    @cached_property
    def _embedded(self) -> "tuple[list[str], Vectors]":
        texts = (row.get("text") for row in self._rows)
        passages = [unicodedata.normalize("NFC", text) for text in texts if isinstance(text, str) and text.strip()]
        return (passages := list(dict.fromkeys(passages))), embed_texts(passages)

    def find_nearest(self, passage: str, focus: str, count: int) -> list[str]:
        """The `count` passages nearest to one, nearest first, of those that neither have its `focus` nor are a part of it.

        Raises:
            UsageError: if there are fewer.
        """
        passages, vectors = self._embedded
        nearest = (passages[place] for place in (-(vectors @ embed_text(passage))).argsort(kind="stable"))
        others = (other for other in nearest if other not in passage and not (focus and focus in other))
        if len(found := list(islice(others, count))) < count:
            raise UsageError(
                f"task.distractors, task.two_passages: {count} other passages needed, one has {len(found)}; give more documents"
            )
        return found
