"""Replies that keep drawn rules in four languages, and planted faults in them: what the rules of the language find and refuse.
The control: English rules on the same texts.

python -m plugins.languages.benchmarks.planted_rules > plugins/languages/benchmarks/languages.md

The requests were drawn by code. A large general model wrote the replies by hand, and read each with its rules. Another one
answered 30 requests a language and knew no rule (`tests/recorded`). The faults are edits of strings (`faults.py`). Human text is
translated messages of programs in /usr/share/locale. Asks no teacher.
"""

import gettext
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from agents.checks.text.prose_faults import find_prose_fault, find_topic_fault
from agents.families.constraints import CONSTRAINT_KINDS, TextConstraint
from core.config.filters import LanguageFilter, LengthFilter, MinHashFilter, RefusalFilter, RepetitionFilter
from core.intervals import estimate_share
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.rules.language import drop_other_languages
from plugins.languages.benchmarks.faults import plant_faults
from plugins.languages.codes import NAMES
from plugins.languages.constrained import find_local_topic_fault
from plugins.languages.refusals import LocalRefusalFilter
from plugins.languages.rules import LANGUAGES, state_rule

REPLIES = Path(__file__).with_name("replies.jsonl")
RECORDED = Path(__file__).parents[1] / "tests" / "recorded"
LOCALES = {"de": "de", "fr": "fr", "es": "es", "zh": "zh_CN"}
LEAST_WORDS, LEAST_CHARACTERS = 8, 20
"""Of a message that is prose."""
MOST_MESSAGES = 2_000

WRITER = (
    "replies to drawn requests, written by hand by a large general model, which wrote the rules too. 95 % intervals. Before two "
    "repairs that this page led to, the rules refused 1 of 176 sound replies (Spanish sentences without capitals) and missed 4 "
    "faults (a table whose second line has too few cells, which English rules missed too)."
)
OTHER_WRITER = (
    "replies of a model that knew no rule, with two or three rules each. They led to two repairs: a forbidden `ñ` was read as "
    "`n` and never found, and `on_topic` refused `Le thé` for `une tasse de thé`."
)


class RuleJudgment(NamedTuple):
    language: str
    kind: str
    sound: bool
    refused: bool
    refused_by_english: bool
    text: str


def judge_rules(replies: Sequence[dict[str, Any]]) -> Iterator[RuleJudgment]:
    """Each rule on the reply that keeps it, and on the faults planted in this reply."""
    for reply in replies:
        for asked in reply["rules"]:
            rule = state_rule(Random(0), asked["kind"], asked["params"], reply["language"])
            english = TextConstraint(kind=rule.kind, params=rule.params, text="")
            texts = [reply["answer"], *plant_faults(rule.kind, rule.params, reply["answer"], reply["language"])]
            for place, text in enumerate(texts):
                refused, by_english = bool(rule.fault(text)), bool(english.fault(text))
                yield RuleJudgment(reply["language"], rule.kind, place == 0, refused, by_english, text)


def read_recorded() -> list[dict[str, Any]]:
    """The replies of the other writer, in the form of `replies.jsonl`."""
    lines = [line for name in LANGUAGES for line in (RECORDED / f"{name}.jsonl").read_text("utf-8").splitlines()]
    found = []
    for row in map(json.loads, lines):
        (rules,) = row["seed"]["constraints"]
        seed = {name: row["seed"][name] for name in ("language", "topic", "words")}
        found.append({**seed, "rules": rules, "answer": json.loads(row["replies"][0]["reply"])["answer"]})
    return found


def format_share(hits: int, tries: int) -> str:
    share = estimate_share(hits, tries)
    return f"{hits} of {tries} ({share.low:.1%} to {share.high:.1%})" if share else "none"


def tabulate(head: str, rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        [f"| {head} |", "|---" * head.count("|") + "|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    )


def format_rules(judged: Sequence[RuleJudgment]) -> str:
    rows = []
    for language in (*LANGUAGES, ""):
        own = [one for one in judged if language in ("", one.language)]
        sound, faulty = ([one for one in own if one.sound is wanted] for wanted in (True, False))
        rows.append([
            NAMES.get(language, "all"),
            format_share(sum(one.refused for one in faulty), len(faulty)),
            format_share(sum(one.refused for one in sound), len(sound)),
            format_share(sum(one.refused_by_english for one in faulty), len(faulty)),
            format_share(sum(one.refused_by_english for one in sound), len(sound)),
        ])  # fmt: skip
    head = (
        "language | planted faults found | sound refused | English rules: faults found | English rules: sound refused"
    )
    missed = Counter(f"{one.kind} ({one.language})" for one in judged if not one.sound and not one.refused)
    wrong = Counter(f"{one.kind} ({one.language})" for one in judged if one.sound and one.refused_by_english)
    kinds = len({one.kind for one in judged})
    return (
        f"Rules of {kinds} of {len(CONSTRAINT_KINDS)} kinds, by language.\n\n{tabulate(head, rows)}\n"
        f"Not found: {_list_counts(missed)}.\n\nSound, and refused by English rules: {_list_counts(wrong)}.\n"
    )


def _list_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" if count > 1 else name for name, count in counts.most_common()) or "nothing"


def format_readers(replies: Sequence[dict[str, Any]]) -> str:
    """Topic, language and prose of whole replies; the fault is another reply's topic, or its language."""
    rows = []
    by_language = defaultdict(list)
    for reply in replies:
        by_language[reply["language"]].append(reply)
    for language, own in by_language.items():
        shifted = [*own[1:], own[0]]
        foreign = by_language[LANGUAGES[(LANGUAGES.index(language) + 1) % len(LANGUAGES)]]
        topics = [(one["topic"], one["words"], language) for one in own]
        rows.append([
            NAMES[language],
            _share_off_topic(shifted, topics),
            _share_off_topic(own, topics),
            format_share(sum(_is_foreign(r["answer"], language) for r in foreign), len(foreign)),
            format_share(sum(_is_foreign(r["answer"], language) for r in own), len(own)),
            format_share(sum(bool(find_topic_fault(r["answer"], r["topic"])) for r in own), len(own)),
            format_share(sum(bool(find_prose_fault(r["answer"], r["topic"])) for r in own), len(own)),
        ])  # fmt: skip
    head = (
        "language | `on_topic`: another topic found | sound refused | `in_language`: another language found | sound refused "
        "| English `on_topic`: sound refused | English `sound_prose`: sound refused"
    )
    return tabulate(head, rows)


def _share_off_topic(replies: Sequence[dict[str, Any]], topics: Sequence[tuple[str, Sequence[str], str]]) -> str:
    found = [find_local_topic_fault(reply["answer"], *topic) for reply, topic in zip(replies, topics, strict=True)]
    return format_share(sum(map(bool, found)), len(found))


def _is_foreign(text: str, language: str) -> bool:
    config = LanguageFilter(type="language", languages=(language,))
    return bool(drop_other_languages([Document("", text.lower())], config))


def read_messages(language: str) -> list[str]:
    """Translated messages that are prose, each once, without those that are equal to the English ones."""
    found = dict[str, None]()
    for file in sorted(Path("/usr/share/locale", LOCALES[language], "LC_MESSAGES").glob("*.mo")):
        with file.open("rb") as opened:
            catalog = gettext.GNUTranslations(opened)._catalog  # type: ignore[attr-defined]
        for source, text in catalog.items():
            plain = " ".join(str(text).split())
            long = (
                len(re.findall("[\u4e00-\u9fff]", plain)) >= LEAST_CHARACTERS
                if language == "zh"
                else (len(plain.split()) >= LEAST_WORDS)
            )
            if source and long and plain != source and not re.search(r"[%<{|=\\@]|--|  ", str(text)):
                found[plain] = None
    return Random(language).sample(list(found), min(MOST_MESSAGES, len(found)))


def format_human_text() -> str:
    rows = []
    for language in LANGUAGES:
        documents = [Document(str(i), text) for i, text in enumerate(read_messages(language))]
        dropped = [
            len(apply_filters(documents, [config]).dropped)
            for config in (
                LengthFilter(type="length"), RepetitionFilter(type="repetition"), LocalRefusalFilter(type="local_refusal"),
                RefusalFilter(type="refusal"), MinHashFilter(type="minhash"),
            )
        ]  # fmt: skip
        foreign = sum(_is_foreign(document.text, language) for document in documents)
        rows.append([NAMES[language], *(format_share(n, len(documents)) for n in (*dropped, foreign))])
    return tabulate(
        "language | `length` | `repetition` | `local_refusal` | `refusal` | `minhash` | `in_language`", rows
    )


def print_page() -> None:
    replies = [json.loads(line) for line in REPLIES.read_text(encoding="utf-8").splitlines()]
    judged, recorded = list(judge_rules(replies)), read_recorded()
    count = Counter(reply["language"] for reply in replies)
    parts = [
        "# Rules of four languages: planted faults and sound replies",
        "`python -m plugins.languages.benchmarks.planted_rules`",
        f"{', '.join(f'{n} {NAMES[name]}' for name, n in count.items())} {WRITER}",
        "## Rules", format_rules(judged),
        "## Topic, language and prose", format_readers(replies),
        "## Another writer", f"{len(recorded)} {OTHER_WRITER}",
        format_rules(list(judge_rules(recorded))), format_readers(recorded),
        "## False alarms on human text",
        f"Translated messages of programs, at most {MOST_MESSAGES:,} a language. Of the pairs that `minhash` drops, the first "
        "five of each language were read: all repeat.",
        format_human_text(),
    ]  # fmt: skip
    sys.stdout.write("\n\n".join(part.strip() for part in parts) + "\n")


if __name__ == "__main__":
    print_page()
