"""The general panel: tasks that a recipe does not train, asked of a model before and after training, to see what is forgotten.

Tasks are requests for a text of some form that code can check, and questions with one short answer. Each names the kinds of
constraint and of question that would train it. Knows no student: any model is asked, as in a held-out evaluation.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice, zip_longest
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, ClassVar, Literal, NamedTuple

from agents.checks import Options, Subject, check
from agents.checks.base import refuse_to_ask
from agents.checks.registry import BoundCheck
from agents.checks.text.prose_faults import find_topic_fault
from agents.checks.text.quantities import COUNTS
from agents.checks.text.text_units import (
    fold_to_plain_letters,
    min_word_count,
    nonempty_lines,
    read_sentences,
    remove_invisible,
    split_words,
)
from agents.families.base import RecipeFamily
from agents.families.constrained_instructions import ConstrainedOptions
from agents.families.constraints import CONSTRAINT_KINDS, ConstraintTopic
from agents.planning.run_plan import RunPlan
from agents.reply_schema import ReplySchema
from agents.studies.held_out_evaluation import (
    HeldOutResult,
    build_question,
    evaluate_held_out,
    find_unusable_reply,
    judge_answer,
)
from core.config.agents import GeneratorConfig, VerifierConfig
from core.config.recipe import BudgetConfig
from core.config.teachers import TeacherConfig
from core.errors import UsageError
from core.project_files import SHIPPED, read_shipped_table
from core.sample import NOTHING_SPENT, Candidate, Message, Seed, Spending
from core.stop_signal import UserStop
from teachers.base import TeacherQuestion

CONSTRAINTS, REASONING, OPEN = "constraints", "reasoning", "open"
"""The groups of a panel's tasks; answers to open questions are not judged."""
PanelPart = Literal["test", "validation"]
"""Of `validation`, settings of a student may be chosen; no task, topic or question of it is in `test`."""
PANEL_FOLDER = SHIPPED / "data" / "panel"
PANEL_ANSWERS = PANEL_FOLDER / "answers.json"
"""The text of answers by the digest of what an answer depends on (`flows.evaluate.panel_evaluation`) and that of the question."""
PANEL_SEED = 20
GROUP_ORDER = (CONSTRAINTS, REASONING, CONSTRAINTS, REASONING, REASONING, CONSTRAINTS, REASONING, REASONING)
"""The groups of judged tasks in turn. Answers to questions cost a fifth of the tokens of a text."""
MAX_TOKENS = {REASONING: 20, OPEN: 112}
"""Tokens of an answer; `FormKind.tokens` for texts. An answer that is cut off there is judged as it is. Of 320 answers of the
embedded model, none to a question of another kind than `products` had its first possible answer behind 16 tokens."""
OPEN_QUESTIONS = 24
"""Open questions of a panel, fewer for fewer tasks than `TASKS_PER_OPEN_QUESTION` times as many."""
TASKS_PER_OPEN_QUESTION = 8


# Forms of texts


@dataclass(frozen=True)
class FormKind:
    """A request for a text of some form on a topic (`data/panel/forms.toml`), and the program that checks it."""

    check: Callable[[str, Mapping[str, Any]], str | None]
    """The fault in words, or None."""
    draw: Callable[[Random, ConstraintTopic], dict[str, Any]]
    wordings: Sequence[str]
    """With `{topic}`, and the parameters by name."""
    tokens: int
    """Where an answer is cut off."""
    trained_by: Collection[str] = ()
    """Kinds of constraint in recipes that train this form. Empty: no recipe can."""


def _draw_two(rng: Random, topic: ConstraintTopic) -> dict[str, Any]:
    first, second = rng.sample(topic.words, 2)
    return {"words": [first, second], "first": first, "second": second}


def _draw_speakers(rng: Random, _topic: ConstraintTopic) -> dict[str, Any]:
    first, second = rng.choice((("Anna", "Ben"), ("Maria", "Tom"), ("Sam", "Lucy")))
    return {"names": [first, second], "a": first, "b": second}


def _check_sentences(text: str, p: Mapping[str, Any]) -> str | None:
    count = len(read_sentences(text).pieces)
    return None if count >= p["n"] else f"it has {count} sentences, at least {p['n']} are needed"


def _check_items(text: str, p: Mapping[str, Any]) -> str | None:
    count = sum(bool(re.match(r"\s*(?:[-*•]|\d+[.):])\s*\S", line)) for line in text.splitlines())
    return None if count >= p["n"] else f"its list has {count} items, at least {p['n']} are needed"


def _check_paragraphs(text: str, p: Mapping[str, Any]) -> str | None:
    count = sum(min_word_count(part) >= 8 for part in re.split(r"\n\s*\n", text.strip()))
    return None if count >= p["n"] else f"it has {count} paragraphs, at least {p['n']} are needed"


def _check_letter(text: str, _p: Mapping[str, Any]) -> str | None:
    return None if re.match(r"\W*(?:dear|hi|hello)\b", text, re.IGNORECASE) else "it does not begin with a greeting"


def _check_email(text: str, _p: Mapping[str, Any]) -> str | None:
    return None if re.search(r"^\W*subject\W", text, re.IGNORECASE | re.MULTILINE) else "it has no subject line"


def _check_poem(text: str, _p: Mapping[str, Any]) -> str | None:
    lines = [line for line in nonempty_lines(text) if len(split_words(line)) > 1]
    short = sum(len(split_words(line)) <= 12 for line in lines)
    return (
        None
        if short >= 4 and short >= 0.8 * len(lines)
        else f"{short} of its {len(lines)} lines are short, as of a poem"
    )


def _check_dialogue(text: str, p: Mapping[str, Any]) -> str | None:
    missing = [name for name in p["names"] if not re.search(rf"^\W*{name}\W*:", text, re.MULTILINE)]
    return f"no line of {' or '.join(missing)}" if missing else None


def _check_compare(text: str, p: Mapping[str, Any]) -> str | None:
    return find_topic_fault(text, p["other"]) or _check_sentences(text, {"n": 2})


def _check_opening(text: str, p: Mapping[str, Any]) -> str | None:
    begins = fold_to_plain_letters(text).lstrip("\"'“‘*# ").startswith(p["opening"].casefold())
    return None if begins else f"it does not begin with {p['opening']!r}"


def _check_steps(text: str, _p: Mapping[str, Any]) -> str | None:
    missing = [number for number in (1, 2) if not re.search(rf"\bstep {number}\b", text, re.IGNORECASE)]
    return f"it has no Step {missing[0]}" if missing else None


def _check_speech(text: str, _p: Mapping[str, Any]) -> str | None:
    spoken = re.findall(r'"([^"]+)"|“([^”]+)”', text)
    return None if any(len(split_words("".join(part))) > 2 for part in spoken) else "nobody speaks in quotation marks"


def _draw_nothing(_rng: Random, _topic: ConstraintTopic) -> dict[str, Any]:
    return {}


def _as_constraint(name: str, **params: Any) -> tuple[Any, Any]:
    kind = CONSTRAINT_KINDS[name]
    return kind.check, lambda rng, topic: {**kind.draw(rng, topic), **params}


_PROGRAMS: Mapping[str, tuple[Any, Any]] = {
    "long_text": _as_constraint("min_words", n=50),
    "two_paragraphs": _as_constraint("exact_paragraphs", n=2),
    "two_words": (CONSTRAINT_KINDS["include_two_words"].check, _draw_two),
    "repeated_word": _as_constraint("mention_times"),
    "figure": _as_constraint("include_number"),
    "three_tips": _as_constraint("numbered", n=3),
    "advice": _as_constraint("second_person"),
    "memory": _as_constraint("first_person"),
    "list": (_check_items, lambda rng, _topic: {"n": rng.choice((3, 4))}),
    "paragraphs": (_check_paragraphs, lambda _rng, _topic: {"n": 2}),
    "letter": (_check_letter, _draw_nothing),
    "email": (_check_email, _draw_nothing),
    "poem": (_check_poem, _draw_nothing),
    "dialogue": (_check_dialogue, _draw_speakers),
    "compare": (_check_compare, _draw_nothing),
    "fairy_tale": (_check_opening, lambda _rng, _topic: {"opening": "Once upon a time"}),
    "steps": (_check_steps, _draw_nothing),
    "speech": (_check_speech, _draw_nothing),
}
"""The check of each form, and what draws its parameters."""
FORM_KINDS = {
    name: FormKind(*_PROGRAMS[name], **form) for name, form in read_shipped_table("data/panel/forms.toml").items()
}


# Answers

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")
NUMBER_WORDS = {word: str(value) for word, value in COUNTS.items() if 2 <= value <= 20}
"""Without `one`, which most often is no number."""


def find_short_answer_fault(reply: str, question: str, answers: Sequence[str], options: Iterable[str]) -> str | None:
    """The fault of a reply to a question with one known answer; None if the first of the possible answers in it is right.

    Possible answers are `options`, or all numbers if the answer is one; if the right one is not in the question, only those that
    are not in it either. So a reply that lists everything is right as often as a guess.
    """
    if NUMBER.fullmatch(answers[0]):
        mentions = _list_numbers(reply, question, answers[0])
    else:
        possible = {fold_to_plain_letters(option) for option in (*options, *answers)}
        asked, right = fold_to_plain_letters(question), {fold_to_plain_letters(answer) for answer in answers}
        if not any(_find_words(answer, asked) for answer in right):
            possible = {option for option in possible if not _find_words(option, asked)}
        text = fold_to_plain_letters(reply)
        places = [
            (match.start(), -len(option), option) for option in possible for match in _find_words(option, text)[:1]
        ]
        mentions = [option for _, _, option in sorted(places)]
        answers = tuple(right)
    if not mentions:
        return "it gives no answer"
    return None if mentions[0] in answers else f"it answers {mentions[0]!r}, not {answers[0]!r}"


def _find_words(words: str, text: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", text))


def _list_numbers(reply: str, question: str, answer: str) -> list[str]:
    """The numbers of a reply in order, those of the question left out; where its first line has `=`, those behind that."""
    text = re.sub(
        r"[^\W\d_]+", lambda word: NUMBER_WORDS.get(word.group().lower(), word.group()), remove_invisible(reply)
    )
    line = next(iter(nonempty_lines(text)), "")
    tail = line.rpartition("=")[2]
    numbers = [match.group().replace(",", "") for match in NUMBER.finditer(tail if NUMBER.search(tail) else text)]
    numbers = [number.removesuffix(".0") for number in numbers]
    asked = {match.group() for match in NUMBER.finditer(question)}
    return [number for number in numbers if answer in asked or number not in asked]


@check("general_panel")
def panel_check(subject: Subject, _options: Options) -> str | None:
    """The answer must have the form that is asked for and a word of its topic, or be the known answer."""
    data, answer = subject.seed.data, subject.candidate.answer
    if data["group"] == REASONING:
        return find_short_answer_fault(answer, data["question"], data["answers"], data["options"])
    if data["group"] == CONSTRAINTS:
        shown = remove_invisible(answer)
        return FORM_KINDS[data["kind"]].check(shown, data["params"]) or find_topic_fault(shown, data["topic"])
    return None


# The tasks of a panel, as seeds of one family


class PanelAnswer(ReplySchema):
    answer: str


class PanelFamily(RecipeFamily):
    """Serves the panel only; no recipe can name it."""

    name: ClassVar[str] = "general_panel"
    checks = (panel_check,)

    def condition(self, row: Mapping[str, Any], options: Any, rng: Random) -> dict[str, Any]:
        return dict(row)

    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        return PanelAnswer

    def questions(self, seed: Seed) -> Sequence[Message]:
        return [Message(role="user", content=seed.data["question"])]

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        return self.candidate(seed, PanelAnswer(answer=answers[0]))

    def candidate(self, seed: Seed, draft: PanelAnswer) -> Candidate:
        messages = [*self.questions(seed), Message(role="assistant", content=draft.answer)]
        return Candidate(messages=messages, fields={})


class GeneralPanel(NamedTuple):
    """The tasks of a panel, as seeds of a plan: judged ones first, then open questions."""

    plan: RunPlan
    seeds: list[Seed]

    @property
    def judged(self) -> list[Seed]:
        return [seed for seed in self.seeds if seed.data["group"] != OPEN]


class PanelResults(NamedTuple):
    """A model's answers, in the order of the panel's seeds."""

    panel: GeneralPanel
    results: list[HeldOutResult]

    @property
    def judged(self) -> list[HeldOutResult]:
        return self.results[: len(self.panel.judged)]

    @property
    def open(self) -> list[HeldOutResult]:
        return self.results[len(self.panel.judged) :]

    @property
    def passed(self) -> int:
        return sum(result.fault is None for result in self.judged)

    @property
    def passed_by_group(self) -> dict[str, int]:
        pairs = list(zip(self.panel.judged, self.judged, strict=True))
        return {
            group: sum(result.fault is None for seed, result in pairs if seed.data["group"] == group)
            for group in (CONSTRAINTS, REASONING)
        }

    @property
    def words(self) -> float:
        """Median words of the answers to the open questions."""
        return float(median(len(split_words(result.answer)) for result in self.open))


def build_general_panel(plan: RunPlan, tasks: int, part: PanelPart = "test") -> GeneralPanel:
    """The first `tasks` judged tasks of a part, by `GROUP_ORDER` and in turn of all kinds, and up to `OPEN_QUESTIONS` open
    ones. A larger panel begins with the tasks of a smaller one.

    Raises:
        UsageError: if there are fewer tasks, or the recipe's seeds cannot be read.
    """
    used = _list_used_texts(plan)
    left = {CONSTRAINTS: _list_forms(plan, part, used), REASONING: _list_questions(plan, part, used)}
    judged: list[Mapping[str, Any]] = []
    for place in range(tasks):  # once a group has no more tasks, all are of the other
        first = GROUP_ORDER[place % len(GROUP_ORDER)]
        task = next(left[first], None) or next(left[REASONING if first == CONSTRAINTS else CONSTRAINTS], None)
        judged += [task] if task else []
    if len(judged) < tasks:
        raise UsageError(
            f"{plan.recipe.name}: the general panel has {len(judged)} tasks that the recipe does not train, not {tasks}"
        )
    most = min(OPEN_QUESTIONS, -(-tasks // TASKS_PER_OPEN_QUESTION))
    asked = (row for row in _read_rows("open.jsonl", part) if row["question"].casefold() not in used)
    rows = [*judged, *({"group": OPEN, **row} for row in islice(asked, most))]
    seeds = [Seed(id=f"{part[:5]:0<5}000-{index:06d}", data=row) for index, row in enumerate(rows)]
    return GeneralPanel(_build_panel_plan(plan), seeds)


def find_token_limit(seed: Seed) -> int:
    """The tokens at which an answer to a task is cut off."""
    group = seed.data["group"]
    return FORM_KINDS[seed.data["kind"]].tokens if group == CONSTRAINTS else MAX_TOKENS[group]


def check_panel_tasks(plan: RunPlan) -> None:
    """Raises UsageError if the recipe asks for a panel with more tasks than there are."""
    student = plan.recipe.student
    if student and student.evaluation and student.evaluation.panel:
        build_general_panel(plan, student.evaluation.panel)


async def ask_general_panel(
    panel: GeneralPanel, model: TeacherConfig, stop: UserStop, on_progress: Callable[[int], None], *,
    cache: Path | None = None, budget: BudgetConfig | None = None, journal: Path | None = None,
    elsewhere: Spending = NOTHING_SPENT, on_spent: Callable[[Spending], None] = lambda _spent: None,
) -> PanelResults:  # fmt: skip
    """Ask `model` each task once. Arguments and errors as of `evaluate_held_out`."""
    results = await evaluate_held_out(
        panel.plan, model, panel.seeds, stop, on_progress, cache=cache, budget=budget, journal=journal,
        elsewhere=elsewhere, on_spent=on_spent, cut_at=find_token_limit,
    )  # fmt: skip
    return PanelResults(panel, results)


def list_panel_questions(panel: GeneralPanel, model: TeacherConfig) -> list[TeacherQuestion]:
    """What `ask_general_panel` asks."""
    recipe, family = panel.plan.recipe, panel.plan.family
    return [
        build_question(recipe, model, seed, family.questions(seed) or [], max_tokens=find_token_limit(seed))
        for seed in panel.seeds
    ]


async def judge_panel_answers(panel: GeneralPanel, answers: Sequence[str]) -> PanelResults:
    """The results of `ask_general_panel` where a model gives these answers, in the order of the panel's seeds."""
    (bound,), results = panel.plan.checks, []
    for seed, answer in zip(panel.seeds, answers, strict=True):
        candidate = panel.plan.family.build_answered(seed, [answer])
        find = partial(bound.check.findings, Subject(seed, candidate, refuse_to_ask), bound.options)
        check, evidence = find_unusable_reply(answer, None) or await judge_answer(find) or (None, "")
        results.append(HeldOutResult(seed.index, seed.data["question"], answer, check, evidence, (), candidate))
    return PanelResults(panel, results)


def _build_panel_plan(plan: RunPlan) -> RunPlan:
    """The recipe's teachers with the panel's family, check and sampling: the most likely token, so that only a change of the
    weights changes an answer.
    """
    generator = GeneratorConfig(temperature=0, reasoning=plan.recipe.agents.generator.reasoning)
    agents = plan.recipe.agents.model_copy(update={"generator": generator, "critic": None})
    checks = (BoundCheck(panel_check, Options(), VerifierConfig(type=panel_check.name)),)
    own = replace(plan, family=PanelFamily(), options=Options(), checks=checks, draws={}, first_seed=0)
    return own.with_recipe(seed=PANEL_SEED, agents=agents, tools=(), difficulty=None)


def _list_used_texts(plan: RunPlan) -> set[str]:
    """The texts of the recipe's own seeds, such as topics and questions."""
    if plan.recipe.seeds.documents is not None or plan.recipe.seeds.source is not None:
        return set()
    rows = plan.seed_rows.rows
    return {value.casefold() for row in rows for value in row.values() if isinstance(value, str)}


def _list_trained_kinds(plan: RunPlan) -> set[str]:
    """Kinds of constraint and of question that the recipe trains."""
    options = plan.options
    if isinstance(options, ConstrainedOptions):
        return {name for name, weight in options.kinds.items() if weight > 0}
    return set(plan.family.list_trained_questions(options, lambda: plan.seed_rows.rows))


def _list_forms(plan: RunPlan, part: PanelPart, used: set[str]) -> Iterator[Mapping[str, Any]]:
    """Each form with each topic of the part: all forms in turn, with another topic each time."""
    trained = _list_trained_kinds(plan)
    kinds = [name for name, kind in FORM_KINDS.items() if trained.isdisjoint(kind.trained_by)]
    topics = [
        ConstraintTopic(row["topic"], tuple(row["words"]))
        for row in _read_rows("topics.jsonl", part)
        if row["topic"].casefold() not in used
    ]
    Random(PANEL_SEED).shuffle(kinds)
    for turn in range(len(topics)):
        for place, name in enumerate(kinds):
            topic, other = topics[(turn + place) % len(topics)], topics[(turn + place + 1) % len(topics)]
            kind, rng = FORM_KINDS[name], Random(f"{name}/{topic.name}")
            params = {"other": other.name, **kind.draw(rng, topic)}
            question = kind.wordings[turn % len(kind.wordings)].format(topic=topic.name, **params)
            yield {"group": CONSTRAINTS, "kind": name, "topic": topic.name, "params": params, "question": question}


def _list_questions(plan: RunPlan, part: PanelPart, used: set[str]) -> Iterator[Mapping[str, Any]]:
    """All kinds of question in turn."""
    trained, by_kind = _list_trained_kinds(plan), dict[str, list[dict[str, Any]]]()
    answers: dict[str, list[str]] = {}
    for row in _read_rows("questions.jsonl"):
        answers.setdefault(row["kind"], []).extend(row["answers"])
        if row["part"] == part and row["kind"] not in trained and row["question"].casefold() not in used:
            by_kind.setdefault(row["kind"], []).append(row)
    for turn in zip_longest(*by_kind.values()):
        for row in filter(None, turn):
            options = row.get("options") or sorted(set(answers[row["kind"]]))
            yield {"group": REASONING, **row, "options": options}


@cache
def _read_rows(name: str, part: PanelPart | None = None) -> Sequence[dict[str, Any]]:
    rows = [json.loads(line) for line in (PANEL_FOLDER / name).read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if part is None or row["part"] == part]
