"""New instructions with answers, from existing instructions: similar to several (Self-Instruct) or evolved from one
(Evol-Instruct). Knows no teacher.

Wang et al. 2023, "Self-Instruct" (arXiv 2212.10560); Xu et al. 2023, "WizardLM" (arXiv 2304.12244).
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

from pydantic import ConfigDict, Field
from rapidfuzz.distance import Indel

from agents.checks import Options, Subject, check, first_fault
from agents.checks.text.prose_faults import VAGUE_WORDS, strip_ending
from agents.checks.text.text_units import (
    ENGLISH,
    fold_to_plain_letters,
    max_word_count,
    min_word_count,
    remove_invisible,
    split_sentences,
    split_words,
)
from agents.families.base import RecipeFamily
from agents.families.own_prompt import Exchange, Text, join_exchanges
from agents.families.task_draws import (
    EVOLUTION_WAYS,
    FORM_LABEL,
    SYSTEM_LABEL,
    InstructionsOptions,
    TaskDraw,
    answer_shape_check,
    count_later_turns,
)
from agents.reply_schema import InvalidReply, ReplySchema
from core.sample import CONDITIONS_KEY, Candidate, Seed

NEW_OF_A_KIND = "Write a new task unlike all of these:\n{shown}"
"""The request for a new task whose kind is drawn, which may be the kind of one that is shown."""
MEDIA = (
    r"(?:images?|pictures?|photos?|photographs?|screenshots?|illustrations?|infographics?|animations?|logos?|gifs?|graphs?|plots?"
    r"|charts?|diagrams?|flowcharts?|videos?|audio|recordings?|podcasts?|files?|pdfs?|spreadsheets?|attachments?|maps?)"
)
"""Things that a text model can neither see nor produce (Self-Instruct, appendix A.2, leaves such tasks out)."""
CLAUSE_START = r"(?:^|[.!?;:,\n(]|\b(?:and|or|then|please|you (?:can|may|must|should))\b)[\s\"'“‘(*_#-]*"
HANDLING = (
    r"(?:add|analy[sz]e|answer|attach|build|convert|count|create|crop|describe|design|edit|examine|export|fill in|find|generate"
    r"|give|include|insert|label|look at|make|open|play|plot|print|produce|provide|read|record|render|save|scan|see|send|show"
    r"|study|summari[sz]e|take|transcribe|turn|use|view|watch)"
)
MENTION = r"(?:about|for|how|that|the word|what|when|where|whether|which|who|why|without)\b"
"""After one of these, a medium is spoken of and not handled: `Make a rule for naming files`."""
BEYOND_TEXT = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{CLAUSE_START}(?P<thing>draw|sketch|paint|illustrate|plot|upload|download|click|browse|listen to|record yourself"
        r"|watch (?:the|this)(?: \w+)?)\b",
        rf"{CLAUSE_START}{HANDLING}\b(?:\s+(?!{MENTION})[^\s.!?;:,]+){{0,5}}?[\s\"'“‘*-]+(?P<thing>{MEDIA})\b(?![-’']\w\w)",
        rf"\b(?:this|these|attached|enclosed|following|given|in the|on the|from the)\s+(?P<thing>{MEDIA})\b(?![-’']\w\w)",
        rf"\bthe\s+(?P<thing>{MEDIA})\s+(?:above|attached|below|contains?|depicts?|says?|shows?)\b",
        rf"\byou (?:are|were|will be) (?:given|shown)\s+(?:[^\s.!?]+\s+){{0,3}}?(?P<thing>{MEDIA})\b",
    )
)
"""Each asks for one of `MEDIA` or for what is done with it. A task that only mentions one, such as `Explain what a map is`, can
be answered in text."""
QUOTATION = re.compile(
    r"```.*?(?:```|$)|`[^`\n]+`|\"[^\"]+\"|“[^”]+”|(?<!\w)'[^'\n]+'(?!\w)|(?<!\w)‘[^’\n]+’(?!\w)", re.DOTALL
)
MIN_QUOTED_WORDS = 2
"""Words of quoted material; one word in quotation marks may still be what is asked for: `Describe the "picture"`."""
PROMPT_TALK = re.compile(
    r"\b(given|rewritten|original|new|above|previous|evolved|created|seed)[\s-]+(task|prompt|instruction)s?\b"
    r"|\b(task|prompt|instruction)s? (above|shown|given)\b|#\w+ prompt#",
    re.I,
)
APOLOGY = re.compile(r"\b(sorry|apologi[sz]e|apologies|as an ai)\b", re.I)
REFUSAL_PHRASE = re.compile(
    r"\bas an? (?:artificial intelligence|(?:large )?language model)\b|^\W*i (?:do not|don't) know\b|\bunfortunately,? i can"
    r"|\bi (?:must|have to) decline\b|\bi(?:'d| would) rather not\b|\bi(?:'m| am) (?:not able|unable|not allowed) to\b"
    r"|\bi (?:can ?not|can't|won't|will not) (?:help|assist|answer|comply|do|write|provide|complete|fulfil?l)\b",
)
"""In an answer's first sentence, folded."""
HELP_REFUSED = re.compile(r"\bi (?:can ?not|can't|won't|will not) (?:help|assist|comply)\b")
"""In the first sentence, folded, of an answer of any length."""
MAX_APOLOGY_WORDS = 80
"""A shorter answer with an apology is taken for a refusal (WizardLM, section 3.2, "Elimination Evolving"), except in a text that
the task asks for: a message may end with `Sorry!`."""
WRITING_TASK = re.compile(
    r"\b(?:write|draft|compose|reply|respond|rewrite|rephrase|correct|shorten|translate|continue|message|note|notice|letter"
    r"|e-?mail|sms|speech|dialogue|story|poem|apolog\w+|say sorry)\b",
    re.IGNORECASE,
)
"""A task for a text that someone else is to read."""
MODEL_APOLOGY = re.compile(r"\bas an ai\b", re.IGNORECASE)
MIN_WRITTEN_WORDS = 4
"""Words with content in the sentences of a written text that do not apologize."""
STOP_WORDS = frozenset(ENGLISH["task_stop_words"].split())
REWRITING_WAYS = {"constrain", "deepen", "concretize", "reason"}
"""The ways whose request is to keep the task and change it, so that the wording may stay."""
LENGTHENING_WAYS = REWRITING_WAYS - {"concretize"}
"""Those that add something to the task."""
MIN_CONCRETE_WORDS = 2
"""New content words of a concrete task: one could be a single synonym."""
EMPTY_ADDITIONS = VAGUE_WORDS | frozenset(ENGLISH["empty_additions"].split())
"""Words that add no condition, in addition to stop words: `Please answer carefully`."""
EMPTY = frozenset(ENGLISH["empty_words"].split())
"""Words without content, in addition to stop words."""
FILLERS = frozenset(ENGLISH["fillers"].split())
"""Words without content among other fillers."""


class InstructionDraft(ReplySchema):
    model_config = ConfigDict(title="Draft")  # part of every request digest and of the reply cache

    instruction: Text
    answer: Text


class TaskDialogueDraft(ReplySchema):
    """A task with a system message before it, or with later turns."""

    system: Text = ""
    instruction: Text
    answer: Text
    later: list[Exchange] = Field(default_factory=list)


class NovelOptions(Options):
    threshold: float = Field(0.7, gt=0, le=1)
    """ROUGE-L from which two tasks are the same (Self-Instruct, section 2.2)."""


@check("novel", NovelOptions, languages=("en",))
def novel_check(subject: Subject, options: NovelOptions) -> str | None:
    """The task must differ from its parent and from those shown.

    A new task (`new`, `broaden`) is compared by ROUGE-L. A rewritten task keeps wording by request, so it must have content words
    that its parent lacks, and except for `concretize` be longer than its parent.
    """
    seed = subject.seed.data
    task, parent = subject.candidate.fields["instruction"], seed["parent"]
    if seed.get("way") in REWRITING_WAYS:
        return _rewriting_fault(task, parent, seed["way"])
    others = [parent, *seed["examples"]]
    near, score = _nearest_task(task, others)
    parts = split_sentences(remove_invisible(task))
    if len(parts) > 1:  # two old tasks, or one repeated, are not a new task
        near, score = max(
            (near, score),
            min((_nearest_task(part, others) for part in parts), key=_neighbor_score),
            key=_neighbor_score,
        )
    return f"it is too near to this task: {near!r} (ROUGE-L {score:.2f})" if score >= options.threshold else None


def _rewriting_fault(task: str, parent: str, way: str) -> str | None:
    """How a rewritten task fails to add to its parent, or None."""
    if _joined_parts(task) == _joined_parts(parent):
        return f"it is the task that it came from: {parent!r}"
    words, parent_words = _word_parts(task), _word_parts(parent)
    if way in LENGTHENING_WAYS and len(words) <= len(parent_words):
        return f"it is no longer than the task that it came from, which it must add to: {parent!r}"
    known = {strip_ending(word) for word in parent_words}
    added = {strip_ending(word) for word in words if word not in STOP_WORDS | EMPTY_ADDITIONS} - known
    least = 1 if way in LENGTHENING_WAYS else MIN_CONCRETE_WORDS
    return None if len(added) >= least else f"it adds nothing to the task that it came from: {parent!r}"


def _neighbor_score(near: tuple[str, float]) -> float:
    return near[1]


def _nearest_task(task: str, others: Sequence[str]) -> tuple[str, float]:
    return max(((other, _rouge_similarity(task, other)) for other in others), key=_neighbor_score)


def _rouge_similarity(left: str, right: str) -> float:
    """ROUGE-L of two tasks, by words and by the parts of hyphenated words; 1 if their letters are the same."""
    if _joined_parts(left) == _joined_parts(right):
        return 1.0
    return max(Indel.normalized_similarity(cut(left), cut(right)) for cut in (_normalized_words, _word_parts))


class AskableOptions(Options):
    min_words: int = Field(3, ge=1)
    max_words: int = Field(200, ge=1)


@check("askable", AskableOptions, languages=("en",))
def askable_check(subject: Subject, options: AskableOptions) -> str | None:
    """The task must be for text alone, of a fit length, and not speak of its prompt.

    Quoted material, and a phrase that the seed's own task has too, is no fault.
    """
    task = remove_invisible(subject.candidate.fields["instruction"]).replace("_", " ")
    least, most = min_word_count(task), max_word_count(task)
    asked, parent = (
        QUOTATION.sub(_keep_short_quotation, text) for text in (task, remove_invisible(subject.seed.data["parent"]))
    )
    coded = subject.seed.conditions.get(FORM_LABEL) == "code"  # a program may read files and draw charts
    beyond, talk = (
        _find_foreign(patterns, asked, parent) for patterns in (() if coded else BEYOND_TEXT, (PROMPT_TALK,))
    )
    return first_fault(
        [
            None if least >= options.min_words else f"the task has {least} words",
            None if most <= options.max_words else f"the task has {most} words",
            f"a model of text cannot work with {beyond['thing']!r}" if beyond else None,
            f"the task speaks of {talk.group()!r}; it must stand alone" if talk else None,
        ]
    )


def _keep_short_quotation(quotation: re.Match[str]) -> str:
    return " " if len(split_words(quotation.group())) >= MIN_QUOTED_WORDS else quotation.group()


def _find_foreign(patterns: Sequence[re.Pattern[str]], task: str, parent: str) -> re.Match[str] | None:
    """The first match in `task`, as written or in plain letters, that is not a phrase of `parent` too."""
    known = " ".join(_word_parts(parent))
    for text in (task, fold_to_plain_letters(task)):
        for pattern in patterns:
            for match in pattern.finditer(text):
                if f" {' '.join(_word_parts(match.group()))} " not in f" {known} ":
                    return match
    return None


@check("answered", languages=("en",))
def answered_check(subject: Subject, _options: Options) -> str | None:
    """The answer must not be an apology, the task again, or empty words; later answers must not refuse."""
    first, *later = [message.text for message in subject.candidate.messages if message.role == "assistant"] or [""]
    task, plain_later = subject.candidate.fields["instruction"], map(_fold_answer, later)
    if any(REFUSAL_PHRASE.search(next(iter(split_sentences(plain)), "")) for plain in plain_later):
        return "a later answer refuses"
    return _find_answer_fault(task, first)


def _fold_answer(answer: str) -> str:
    return fold_to_plain_letters(answer).replace("’", "'")


def _find_answer_fault(task: str, answer: str) -> str | None:
    words, plain = _normalized_words(answer), _fold_answer(answer)
    first_sentence = next(iter(split_sentences(plain)), "")
    short = len(words) < MAX_APOLOGY_WORDS and (_apologizes(task, plain) or REFUSAL_PHRASE.search(first_sentence))
    if short or HELP_REFUSED.search(first_sentence):
        return "the answer refuses"
    if set(words) <= STOP_WORDS | EMPTY | (FILLERS if len(words) > 1 else frozenset()):
        return "the answer says nothing"

    # Does the answer only repeat the task, apart from words without content?
    answer_words, task_words = (f" {' '.join(_word_parts(text))} " for text in (answer, task))
    if task_words in answer_words:
        added = set(answer_words.replace(task_words.rstrip(), "").split())
        repeats = added <= STOP_WORDS | EMPTY | FILLERS
    else:
        repeats = _joined_parts(answer) == _joined_parts(task)
    return "the answer is the task again" if repeats else None


def _apologizes(task: str, plain: str) -> bool:
    """Whether an answer in plain letters apologizes, and not within a text that the task asks for."""
    if not APOLOGY.search(plain) or MODEL_APOLOGY.search(plain) or not WRITING_TASK.search(task):
        return bool(APOLOGY.search(plain))
    rest = " ".join(sentence for sentence in split_sentences(plain) if not APOLOGY.search(sentence))
    return len({*_word_parts(rest)} - STOP_WORDS - EMPTY - FILLERS) < MIN_WRITTEN_WORDS


@lru_cache(maxsize=1024)  # a new task is compared with tasks that others were compared with
def _normalized_words(text: str) -> tuple[str, ...]:
    return tuple(split_words(fold_to_plain_letters(text)))


@lru_cache(maxsize=1024)
def _word_parts(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", fold_to_plain_letters(text)))


def _joined_parts(text: str) -> str:
    return "".join(_word_parts(text))


class InstructionsFamily(RecipeFamily):
    name = "instructions"
    fields = ("instruction",)
    options = InstructionsOptions
    writes = ("generator", "conversation")
    checks = (novel_check, askable_check, answered_check, answer_shape_check)
    # Different instructions can share a short answer, so the instruction must be new.
    defaults: ClassVar[Mapping[str, Any]] = {
        "agents": {"generator": {"max_tokens": 3000, "examples": 3}},
        "verifiers": [{"type": "askable"}, {"type": "novel"}, {"type": "answered"}, {"type": "answer_shape"}],
        "filters": [{"type": "refusal"}, {"type": "exact"}, {"type": "novelty"}],
    }

    def gather_rows(
        self, rows: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """Each row with all tasks, because a new task needs several examples."""
        tasks, own = tuple(map(_row_instruction, rows)), tuple(map(_row_instruction, made))
        return [
            {"task": task, "category": row.get("category", ""), "tasks": tasks, "made": own}
            for task, row in zip((*tasks, *own), (*rows, *made), strict=True)
        ]

    def condition(self, row: Mapping[str, Any], options: InstructionsOptions, rng: Random) -> dict[str, Any]:
        ways = dict(options.ways)
        if _is_concrete(row["task"]) and sum(ways.values()) > ways.get("concretize", 0):
            ways.pop("concretize", None)
        way = rng.choices(list(ways), list(ways.values()))[0]
        examples: list[str] = []
        if way == "new":
            examples = rng.sample(row["tasks"], min(options.shown, len(row["tasks"])))
            examples += rng.sample(row["made"], min(options.shown_made, len(row["made"])))
            rng.shuffle(examples)
        shown = "\n".join(f"{number}. {task}" for number, task in enumerate(examples, 1))
        wording = NEW_OF_A_KIND if way == "new" and options.types else EVOLUTION_WAYS[way]
        request = wording.replace("{shown}", shown).replace("{parent}", row["task"])
        type_name, drawn = TaskDraw(options, way, rng).draw_all()
        return {
            "way": way,
            "category": row["category"],
            "parent": row["task"],
            "examples": examples,
            **({"type": type_name} if type_name else {}),
            **({CONDITIONS_KEY: drawn} if drawn else {}),
            "request": request,
        }

    def prompt_role(self, seed: Seed) -> str:
        return "conversation" if self.reply_type(seed) is TaskDialogueDraft else "generator"

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return TaskDialogueDraft if SYSTEM_LABEL in seed.conditions or count_later_turns(seed) else InstructionDraft

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        schema = super().reply_json_schema(seed)
        if self.reply_type(seed) is InstructionDraft:
            return schema
        turns, properties = count_later_turns(seed), dict(schema["properties"])
        properties["later"] = {**properties["later"], "minItems": turns, "maxItems": turns}
        if not turns:
            del properties["later"]
        if SYSTEM_LABEL not in seed.conditions:
            del properties["system"]
        return {**schema, "properties": properties, "required": list(properties)}

    def candidate(self, seed: Seed, draft: InstructionDraft | TaskDialogueDraft) -> Candidate:
        later = draft.later if isinstance(draft, TaskDialogueDraft) else []
        system = draft.system if isinstance(draft, TaskDialogueDraft) else ""
        if len(later) != count_later_turns(seed):
            raise InvalidReply(f"later: {len(later)} turns where {count_later_turns(seed)} are needed")
        if bool(system) != (SYSTEM_LABEL in seed.conditions):
            raise InvalidReply(f"system: {'is empty' if not system else 'was not asked for'}")
        first = Exchange(user=draft.instruction, assistant=draft.answer)
        return Candidate(messages=join_exchanges([first, *later], system), fields={"instruction": draft.instruction})


def _is_concrete(task: str) -> bool:
    """Whether a task already has material, a number or a name, so that it cannot be asked for a concrete case."""
    numbered = re.search(r"\d", task) or QUOTATION.search(task) or ":" in task
    return bool(numbered or re.search(r"[a-z,;] [A-Z][a-z]", task))


def _row_instruction(row: Mapping[str, Any]) -> str:
    """What a row asks: its `instruction`, or the first turn of the user in its `messages`.

    Raises:
        KeyError: where it has neither.
    """
    if "messages" not in row:
        task = row["instruction"]
    else:
        task = next((m["content"] for m in row["messages"] if m["role"] == "user"), "")
    if not isinstance(task, str) or not task.strip():
        raise KeyError("instruction")
    return task.strip()
