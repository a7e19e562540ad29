"""Replies of a capable model to requests of extraction and of grounded questions in four languages, and faults planted in them:
what the checks of the language find, and which sound replies they refuse.

python -m plugins.languages.benchmarks.planted_answers > plugins/languages/benchmarks/answers.md

Declared before the first reply was read:
- 30 replies for each language and family, to requests that `stillhouse generate` drew with seed 7, without a revision and without
  these checks. The writers did not see the checks. Who wrote the checks wrote no reply.
- Goal: of the planted faults (another number, date, time, name, choice, quote, or language), the checks find 90 % or more in each
  family; of the sound replies they refuse 5 % or fewer.
- Control: the checks for English, on the same replies and faults. An English check that refuses most sound replies finds faults
  too, so both shares are printed.
- A refused reply is read. If the reply breaks its request, it counts as unsound, is listed, and its faults are left out.
After 60 of 120 questions were judged, the fault `name` was extended to answers without a name, and `denial` was added.
Faults are edits of the reply, without any function of the checks (`PLANTERS`). Asks no teacher, so `read_again` is left out.
"""

import asyncio
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from agents.checks import Check, Subject
from agents.checks.base import refuse_to_ask
from agents.checks.json_schema import schema_check
from agents.checks.text.quotes import quotes_check
from agents.checks.text.supported_by_passage import SupportedOptions, supported_check
from agents.checks.text.value_in_text import occurs_check
from agents.families.extraction import complete_check
from agents.families.grounded_qa import own_words_check, unanswerable_check
from agents.families.standalone_questions import standalone_check
from agents.reply_schema import InvalidReply, parse_reply
from core.config.filters import MinHashFilter, RepetitionFilter
from core.project_files import PROJECT
from core.sample import Seed
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from plugins.languages.benchmarks.planted_rules import format_share, tabulate
from plugins.languages.codes import NAMES
from plugins.languages.localize import localize
from plugins.languages.refusals import LocalRefusalFilter
from plugins.languages.rules import LANGUAGES

REPLIES = Path(__file__).with_name("answers.jsonl")
SEEDS = PROJECT / "data" / "seeds"
FIRST = {
    "extraction": (
        "First judgment, without French: 419 of 423 faults found, 2 of 90 sound replies refused. Repaired then: numbers of dates "
        "counted as amounts, `四万三千`, a quarter past the hour in Spanish. French was judged after that. "
        "Later repairs of numbers and times changed no verdict."
    ),
    "grounded_qa": (
        "First judgment, Spanish and Chinese: 134 of 136 faults found. After a repair of times, with German and French: 384 of "
        "401 found, 0 of 120 sound replies refused. Repaired then: short words that counted as denials, German names after a "
        "verb, short answers in another script, and a planted date that was none."
    ),
}
UNSOUND: Mapping[tuple[str, str, int], str] = {}
"""Replies that break their request, by family, language and number, with the fault that a reader found."""
ENGLISH_CHECKS: Mapping[str, Sequence[Check]] = {
    "extraction": (schema_check, complete_check, occurs_check),
    "grounded_qa": (quotes_check, supported_check, own_words_check, standalone_check, unanswerable_check),
}
SHARED_CHECKS: Mapping[str, Check] = {"extraction": schema_check, "grounded_qa": quotes_check}
MONTHS = {
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
}
PEOPLE = {
    "de": ["Helga Brandt", "Mareike Voss", "Josef Anders", "Kessler", "Ruth Kaminski", "Thoma", "Emil Hartwig", "Peter Lorenz"],
    "fr": ["Hélène Bernard", "Mireille Vasseur", "Joseph André", "Cassel", "Ruth Caminade", "Thomas", "Émile Hardouin",
           "Pierre Laurent"],
    "es": ["Elena Bravo", "Marisa Vega", "José Andrade", "Casals", "Rut Caminero", "Tomás", "Emilio Hidalgo", "Pedro Lorente"],
    "zh": ["何兰", "吴美珍", "安德和", "凯胜", "康如意", "托马", "韩艾民", "罗培德"],
}  # fmt: skip
"""A name of each passage, in the order of the passages."""

DENIED = {"de": "Nicht ", "fr": "Pas ", "es": "Nunca ", "zh": "没有"}
DENIALS = {
    "de": re.compile(
        r"(?i)\b(?:nicht|kein\w*|ohne|nie\w*|nur|erst|verbot\w*|nein|ja|geschlossen|kostenlos|sonst|vor)\b"
    ),
    "fr": re.compile(
        r"(?i)\b(?:pas|oui|ne|n|sans|jamais|rien|que|seulement|interdit\w*|ferm\w*|gratuit\w*|sinon|avant)\b"
    ),
    "es": re.compile(r"(?i)\b(?:no|sí|sin|nunca|nada|solo|hasta|cerrad\w*|prohib\w*|gratis|antes)\b"),
    "zh": re.compile("[不没无非未只才免禁闭停仅否是能]|义务|以前"),
}
"""Words with which a statement may deny or limit something."""


class Reply(NamedTuple):
    family: str
    language: str
    number: int
    data: dict[str, Any]
    """Of the seed."""
    draft: dict[str, Any]


class AnswerJudgment(NamedTuple):
    reply: Reply
    fault: str
    """"" for the reply as it is."""
    refused: str
    """By which check, and why; "" if it passes."""
    refused_by_english: str


@cache
def read_rows(name: str, language: str) -> Sequence[dict[str, Any]]:
    lines = (SEEDS / f"{name}-{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_replies() -> list[Reply]:
    """The replies, with what their seeds share put back: the schema, or the passage."""
    replies = []
    for line in REPLIES.read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        data, language = one["data"], one["language"]
        common = {"language": language, "instruction": "", "layout": "system", "shown": ""}
        if one["family"] == "extraction":
            row = next(row for row in read_rows("extraction", language) if row["topic"] == data["topic"])
            more = {"schema": row["schema"], "least": 1}
        else:
            row = next(row for row in read_rows("passages", language) if row["source"] == data["source"])
            silence = localize("grounded_qa", language).options().silence  # type: ignore[attr-defined]
            more = {"text": row["text"], "context": True, "cited": True, "silence": silence, "layout": "text_first"}
        replies.append(Reply(one["family"], language, one["number"], {**common, **more, **data}, one["draft"]))
    return replies


# Planted faults

Fault = tuple[str, dict[str, Any]]


def iter_draft_values(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
    else:
        for key, below in inner:
            yield from iter_draft_values(below, (*path, key))


def set_value(draft: dict[str, Any], path: Sequence[str | int], value: Any) -> dict[str, Any]:
    made = deepcopy(draft)
    inner: Any = made["values"]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return made


def plant_values(reply: Reply, others: Sequence[Reply], rng: Random) -> Iterator[Fault]:
    """One fault of each kind in the values of an extraction, where it has a value of the kind."""
    leaves = [*iter_draft_values(reply.draft["values"])]
    taken = [value for _, value in leaves]
    choices = {name for name, part in iter_choices(reply.data["schema"])}
    kinds: dict[str, list[tuple[tuple[str | int, ...], Any]]] = defaultdict(list)
    for path, value in leaves:
        if path[-1] in choices or isinstance(value, bool):
            kinds["choice"].append((path, value))
        elif isinstance(value, int | float):
            kinds["number"].append((path, value))
        elif isinstance(value, str):
            form = (
                "date"
                if re.fullmatch(r"\d{4}-\d\d-\d\d", value)
                else "time"
                if re.fullmatch(r"\d\d:\d\d", value)
                else "name"
            )
            kinds[form].append((path, value))
    for kind, found in kinds.items():
        path, value = rng.choice(found)
        wrong = [one for one in CHANGES[kind](path, value, reply, others, rng) if one not in taken]
        if wrong:
            yield kind, set_value(reply.draft, path, rng.choice(wrong))
    foreign = rng.choice([one for one in others if one.language != reply.language and one.data["topic"] != ""])
    yield "language", {**deepcopy(reply.draft), "text": foreign.draft["text"]}


def iter_choices(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, part in schema.get("properties", {}).items():
        if "enum" in part:
            yield name, part
        yield from iter_choices(part.get("items", part))


Change = Callable[[Sequence[str | int], Any, Reply, Sequence[Reply], Random], Sequence[Any]]


def _change_number(_path: Sequence[str | int], value: Any, *_: Any) -> Sequence[Any]:
    swapped = int(str(value)[::-1]) if isinstance(value, int) and not str(value).endswith("0") else value + 11
    return [value + 1, value + 10, value * 10, swapped, value + 3]


def _change_date(_path: Sequence[str | int], value: Any, *_: Any) -> Sequence[Any]:
    day = date.fromisoformat(value)
    return [(day + timedelta(days=days)).isoformat() for days in (1, -1, 31, 365, -10)]


def _change_time(_path: Sequence[str | int], value: Any, *_: Any) -> Sequence[Any]:
    hour, minute = map(int, value.split(":"))
    return [f"{(hour + 1) % 24:02}:{minute:02}", f"{hour:02}:{(minute + 15) % 60:02}"]


def _change_name(
    path: Sequence[str | int], value: Any, reply: Reply, others: Sequence[Reply], _rng: Random
) -> Sequence[Any]:
    """The value of the same field of another reply in the language."""
    fits = (
        other
        for one in others
        if one.language == reply.language and one.number != reply.number
        for place, other in iter_draft_values(one.draft["values"])
        if place[-1] == path[-1] or (isinstance(path[-1], int) and place[:-1] == tuple(path[:-1]))
    )
    return [other for other in fits if isinstance(other, str) and other not in value and value not in other]


def _change_choice(path: Sequence[str | int], value: Any, reply: Reply, *_: Any) -> Sequence[Any]:
    if isinstance(value, bool):
        return [not value]
    allowed = next(part["enum"] for name, part in iter_choices(reply.data["schema"]) if name == path[-1])
    return [one for one in allowed if one != value]


CHANGES: Mapping[str, Change] = {
    "number": _change_number, "date": _change_date, "time": _change_time, "name": _change_name, "choice": _change_choice,
}  # fmt: skip


def plant_answers(reply: Reply, others: Sequence[Reply], rng: Random) -> Iterator[Fault]:
    """One fault of each kind in an answered question, where it has words of the kind."""
    draft, language = reply.draft, reply.language
    foreign = [one for one in others if one.number == reply.number and one.language != language]
    other = rng.choice(foreign).draft
    yield (
        "language",
        {
            **draft,
            "question": other["question"],
            "answer": other["answer"] if reply.data["answerable"] else draft["answer"],
        },
    )
    if not reply.data["answerable"]:
        return
    answer, quote = draft["answer"], draft["quotes"][0]
    if digits := re.search(r"\d+", answer):
        wrong = str(int(digits[0]) + rng.choice([1, 3, 10]))
        yield "number", {**draft, "answer": answer.replace(digits[0], wrong, 1)}
    if month := next((name for name in MONTHS.get(language, "").split() if re.search(rf"\b{name}\b", answer)), None):
        wrong = rng.choice([name for name in MONTHS[language].split() if name != month])
        yield "date", {**draft, "answer": answer.replace(month, wrong)}
    elif language == "zh" and (found := re.search(r"(\d+)月", answer)):
        yield "date", {**draft, "answer": answer.replace(found[0], f"{int(found[1]) % 12 + 1}月", 1)}
    people = PEOPLE[language]
    named = next((name for name in people if name in answer), None)
    wrong = rng.choice([name for name in people if name != named and name not in reply.data["text"]])
    yield (
        "name",
        {**draft, "answer": answer.replace(named, wrong) if named else f"{wrong}{'。' if language == 'zh' else '.'}"},
    )
    if not DENIALS[language].search(f"{answer} {' '.join(draft['quotes'])} {draft['question']}"):
        yield "denial", {**draft, "answer": f"{DENIED[language]}{answer[:1].lower()}{answer[1:]}"}
    yield "quote", {**draft, "quotes": [_change_quote(quote, language, rng), *draft["quotes"][1:]]}


def _change_quote(quote: str, language: str, rng: Random) -> str:
    """A quote that lacks a word in its middle, or two of whose words have changed places."""
    parts = list(quote) if language == "zh" else quote.split()
    at = rng.randrange(1, len(parts) - 1)
    if rng.random() < 0.5 or parts[at] == parts[at - 1]:
        del parts[at]
    else:
        parts[at - 1 : at + 1] = parts[at], parts[at - 1]
    return ("" if language == "zh" else " ").join(parts)


PLANTERS = {"extraction": plant_values, "grounded_qa": plant_answers}


# Judgments


async def judge(reply: Reply, draft: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """Which check refuses a draft, and why; "" if none does."""
    family = localize(reply.family, reply.language)
    seed = Seed(id=f"run-{reply.number}", data=reply.data)
    try:
        candidate = family.candidate(seed, parse_reply(family.reply_type(seed), dict(draft)))
    except InvalidReply as error:
        return f"reply: {error}"
    subject = Subject(seed, candidate, refuse_to_ask)
    for one in checks:
        options = SupportedOptions(share=0.6) if one is supported_check else one.options()
        for finding in await one.findings(subject, options):
            if not finding.passed:
                return f"{one.name}: {finding.evidence}"
    return ""


def judge_replies(replies: Sequence[Reply]) -> list[AnswerJudgment]:
    judged = []
    for reply in replies:
        others = [one for one in replies if one.family == reply.family]
        rng = Random(f"{reply.family} {reply.language} {reply.number}")
        checks = localize(reply.family, reply.language).checks
        own = (SHARED_CHECKS[reply.family], *(one for one in checks if one.name != "read_again"))
        for fault, draft in [("", reply.draft), *PLANTERS[reply.family](reply, others, rng)]:
            ours = asyncio.run(judge(reply, draft, own))
            judged.append(
                AnswerJudgment(reply, fault, ours, asyncio.run(judge(reply, draft, ENGLISH_CHECKS[reply.family])))
            )
    return judged


def is_sound(one: AnswerJudgment) -> bool:
    return (one.reply.family, one.reply.language, one.reply.number) not in UNSOUND


def tabulate_judgments(
    judged: Sequence[AnswerJudgment], key: Callable[[AnswerJudgment], str], names: Sequence[str], head: str
) -> str:
    rows = []
    for name in names:
        own = [one for one in judged if name in ("all", key(one))]
        sound, faulty = [one for one in own if not one.fault], [one for one in own if one.fault]
        cells = [
            format_share(sum(bool(getattr(one, by)) for one in part), len(part))
            for by in ("refused", "refused_by_english")
            for part in (faulty, sound)
        ]
        rows.append([name, *cells])
    return tabulate(
        f"{head} | faults found | sound refused | English checks: faults found | English checks: sound refused", rows
    )


def print_answers_page() -> None:
    everything = judge_replies(read_replies())
    judged = [one for one in everything if is_sound(one)]
    parts = [
        "# Extraction and grounded questions in four languages",
        "`python -m plugins.languages.benchmarks.planted_answers`",
    ]
    for family in PLANTERS:
        own = [one for one in judged if one.reply.family == family]
        parts += [
            f"## {family}",
            FIRST[family],
            tabulate_judgments(
                own, lambda one: NAMES[one.reply.language], [*(NAMES[one] for one in LANGUAGES), "all"], "language"
            ),
            tabulate_judgments(
                [one for one in own if one.fault],
                lambda one: one.fault,
                sorted({one.fault for one in own} - {""}),
                "fault",
            ),
            list_judgments("Sound, and refused", [one for one in own if not one.fault and one.refused], refused=True),
            list_judgments(
                "Faults that were not found", [one for one in own if one.fault and not one.refused], refused=False
            ),
            _list_unsound(family),
        ]
    parts += [
        "## Filters on these replies",
        "Of extractions the texts, of questions the question.",
        format_filters(read_replies()),
    ]
    sys.stdout.write("\n\n".join(part.strip() for part in parts) + "\n")


def format_filters(replies: Sequence[Reply]) -> str:
    rows = []
    for family in PLANTERS:
        for language in LANGUAGES:
            own = [one for one in replies if (one.family, one.language) == (family, language)]
            texts = [one.draft["text" if family == "extraction" else "question"] for one in own]
            documents = [Document(str(at), text) for at, text in enumerate(texts)]
            counts = [
                len(apply_filters(documents, [config]).dropped)
                for config in (
                    RepetitionFilter(type="repetition"), LocalRefusalFilter(type="local_refusal"), MinHashFilter(type="minhash"),
                )
            ]  # fmt: skip
            rows.append([family, NAMES[language], *(format_share(count, len(texts)) for count in counts)])
    return tabulate("family | language | `repetition` drops | `local_refusal` drops | `minhash` drops", rows)


def list_judgments(head: str, judged: Sequence[AnswerJudgment], *, refused: bool) -> str:
    lines = [
        f"- {one.reply.language} {one.reply.number}{'' if refused else f', {one.fault}'}{f': {one.refused}' if refused else ''}"
        for one in judged
    ]
    return "\n".join([f"{head}: {'' if lines else 'none'}".rstrip(), "", *lines])


def _list_unsound(family: str) -> str:
    lines = [f"- {language} {number}: {why}" for (name, language, number), why in UNSOUND.items() if name == family]
    return "\n".join(
        [f"Replies that break their request, left out above: {'' if lines else 'none'}".rstrip(), "", *lines]
    )


if __name__ == "__main__":
    print_answers_page()
