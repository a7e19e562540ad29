"""Near-duplicates, repetition and collapse in four languages: false alarms on human text, and what is found of planted faults.

STILLHOUSE_CORPORA=FOLDER python -m plugins.languages.benchmarks.repeated_texts > plugins/languages/benchmarks/repeated-texts.md

Declared before the run. Goal: at most 1 % of human rows, pairs and datasets are called, in each language and of each text; 95 %
of planted repetition is found. Human text: the help of LibreOffice, the same pages in each language, and descriptions of Debian's
packages. Controls: the same in English, and what must not be found: passages of which half is new. The control of the units is
the words between spaces. Seeds are fixed. Knows no limit of a filter or the gate. Needs apt-get with a network, and dpkg-deb.
"""

import html
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random

from rapidfuzz.distance import Indel

from benchmarks.collapse.kind_trials import generate_documents
from benchmarks.collapse.other_corpora import extract_package, join_wrapped_lines, read_descriptions
from benchmarks.machine import describe_measurement
from core.config.filters import MinHashFilter, RepetitionFilter
from core.runs.records import CollapseRecord, CollapseVerdict
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.collapse.assessment import assess_corpus
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.repetition import assess_repetition
from filters.collapse.text_kinds import PROSE, TEXT_KINDS, find_kind
from filters.text_normalization import normalize_words
from plugins.languages.benchmarks.planted_rules import format_share, tabulate
from plugins.languages.codes import NAMES

FOLDER = Path(os.environ.get("STILLHOUSE_CORPORA", "corpora"))
LANGUAGES_READ = ("de", "fr", "es", "zh", "en")
"""English is the control."""
HELP = {"de": "de", "fr": "fr", "es": "es", "zh": "zh-cn", "en": "en-us"}
DESCRIPTIONS = {"de": "de", "fr": "fr", "es": "es", "zh": "zh*CN"}
LEAST_UNITS, MOST_UNITS = {"zh": 20}, {"zh": 200}
"""Words of a row, where not 8 to 80: characters."""
SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
PASSAGE_SENTENCES = 12
PLANTED = 300
"""Rows or passages with a planted fault, of each sort."""
SAME_TEXT = 0.7
"""Edit similarity of the characters from which two human rows repeat each other: a pair below it is a false alarm."""
DATASET = 500
MOST_DATASETS = 25
OPENINGS = {
    "de": "Hier ist der Text:",
    "fr": "Voici le texte :",
    "es": "Aquí está el texto:",
    "zh": "以下是正文：",
    "en": "Here is the text:",
}


# Human text


def read_help(language: str) -> Iterator[list[str]]:
    """The paragraphs of each page."""
    place = extract_package(f"libreoffice-help-{HELP[language]}", FOLDER, "*.html")
    for page in sorted(place.rglob("*.html")):
        found = re.findall(r'(?s)<p id="[^"]*" class="paragraph"[^>]*>(.*?)</p>', page.read_text(encoding="utf-8"))
        yield [" ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split()) for text in found]


def is_row(text: str, language: str) -> bool:
    """Whether a text has the length of a row and is in its language, as far as its script shows."""
    units = len(normalize_words(text))
    fits = LEAST_UNITS.get(language, 8) <= units <= MOST_UNITS.get(language, 80)
    return fits and (language != "zh" or TEXT_KINDS["characters"].matches(text))


@cache
def load_rows(language: str, source: str) -> list[str]:
    """Different human rows in random order."""
    if source == "help":
        texts: Iterator[str] = (text for page in read_help(language) for text in page)
    else:
        read = read_descriptions(DESCRIPTIONS[language])
        texts = (join_wrapped_lines(read) if language == "zh" else read)(FOLDER)
    rows = list(dict.fromkeys(text for text in texts if is_row(text, language)))
    Random(language).shuffle(rows)
    return rows


@cache
def load_passages(language: str) -> list[list[str]]:
    """Twelve consecutive sentences of a page of the help, each passage once."""
    found: dict[str, list[str]] = {}
    for page in read_help(language):
        sentences = [part for text in page if is_row(text, language) for part in SENTENCE.split(text) if part]
        for start in range(0, len(sentences) - PASSAGE_SENTENCES + 1, PASSAGE_SENTENCES):
            passage = sentences[start : start + PASSAGE_SENTENCES]
            found.setdefault(" ".join(passage), passage)
    passages = list(found.values())
    Random(language).shuffle(passages)
    return passages


SOURCES = [(language, source) for language in LANGUAGES_READ for source in ("help", "descriptions")
           if source == "help" or language in DESCRIPTIONS]  # fmt: skip


def number_documents(texts: Sequence[str]) -> list[Document]:
    return [Document(str(number), text) for number, text in enumerate(texts)]


# Rows


def count_false_duplicates(rows: Sequence[str]) -> tuple[int, int]:
    """Rows that `minhash` drops, and those of them that are not like the row that they are said to repeat."""
    dropped = apply_filters(number_documents(rows), [MinHashFilter(type="minhash")]).dropped
    pairs = [(rows[int(one.id)], rows[int(one.duplicate_of or "")]) for one in dropped]
    return len(pairs), sum(Indel.normalized_similarity(*map(str.casefold, pair)) < SAME_TEXT for pair in pairs)


def count_repetitive(rows: Sequence[str]) -> int:
    return len(apply_filters(number_documents(rows), [RepetitionFilter(type="repetition")]).dropped)


def join_sentences(sentences: Sequence[str], language: str) -> str:
    return ("" if language == "zh" else " ").join(sentences)


def replace_sentences(language: str, count: int) -> list[tuple[str, str]]:
    """Passages, each with a copy of which `count` sentences are those of other pages."""
    random, passages = Random(f"{language} {count}"), load_passages(language)
    pairs = []
    for passage in random.sample(passages, PLANTED):
        other, places = random.choice(passages), random.sample(range(PASSAGE_SENTENCES), count)
        changed = [other[i] if i in places else sentence for i, sentence in enumerate(passage)]
        pairs.append((join_sentences(passage, language), join_sentences(changed, language)))
    return pairs


def change_word(text: str, language: str) -> str:
    """The text with another word, or character, in its middle."""
    words = list(text) if language == "zh" else text.split()
    middle = len(words) // 2
    return join_sentences([*words[:middle], words[0], *words[middle + 1 :]], language)


def count_found_pairs(pairs: Sequence[tuple[str, str]]) -> int:
    """Pairs whose second text is dropped as a near-duplicate of the first."""
    config = MinHashFilter(type="minhash")
    return sum(len(apply_filters(number_documents(pair), [config]).dropped) for pair in pairs)


def count_by_spaces(pairs: Sequence[tuple[str, str]]) -> int:
    """As `count_found_pairs`, by five words between spaces: the control of the units."""

    def cut(text: str) -> set[tuple[str, ...]]:
        words = text.casefold().split()
        return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}

    sets = [(cut(one), cut(other)) for one, other in pairs]
    return sum(len(one & other) >= 0.8 * len(one | other) for one, other in sets)


def loop_last_sentence(text: str, language: str) -> str:
    last = [part for part in SENTENCE.split(text) if part][-1]
    return join_sentences([text, *[last] * 4], language)


def loop_phrase(text: str, language: str) -> str:
    words = list(text) if language == "zh" else text.split()
    phrase = words[-10:] if language == "zh" else words[-5:]
    return join_sentences([text, *[join_sentences(phrase, language)] * 8], language)


def repeat_text(text: str, language: str) -> str:
    return join_sentences([text, text], language)


LOOPS: dict[str, Callable[[str, str], str]] = {
    "last sentence five times": loop_last_sentence, "last words nine times": loop_phrase, "text twice": repeat_text,
}  # fmt: skip


# Datasets, without a reference


def duplicate_rows(language: str, rows: Sequence[str]) -> list[str]:
    random = Random(language)
    return [random.choice(rows[: len(rows) // 2]) for _ in rows]


def copy_halves(language: str, rows: Sequence[str]) -> list[str]:
    """The second half are rows of the first with another end: the last word, or two characters."""
    half = len(rows) // 2
    copies = []
    for row, other in zip(rows[:half], rows[half : 2 * half], strict=True):
        own = row[:-2] if language == "zh" else row.rpartition(" ")[0]
        copies.append(own + other[-2:] if language == "zh" else f"{own} {other.split()[-1]}")
    return [*rows[:half], *copies]


def loop_rows(language: str, rows: Sequence[str]) -> list[str]:
    """A quarter of the rows are three times their text."""
    return [join_sentences([row] * 3, language) if number % 4 == 0 else row for number, row in enumerate(rows)]


def begin_rows_alike(language: str, rows: Sequence[str]) -> list[str]:
    """Seven tenths of the rows begin with one phrase."""
    return [
        join_sentences([OPENINGS[language], row], language) if number % 10 < 7 else row
        for number, row in enumerate(rows)
    ]


RowChange = Callable[[str, Sequence[str]], list[str]]
COLLAPSES: dict[str, RowChange] = {
    "human": lambda _language, rows: list(rows), "drawn twice": duplicate_rows, "half near copies": copy_halves,
    "a quarter in loops": loop_rows, "seven tenths begin alike": begin_rows_alike,
}  # fmt: skip
"""The first is not changed."""


def mix_with_english(rows: Sequence[str]) -> list[str]:
    """Each row after two English ones."""
    english = load_rows("en", "help")
    return [text for number, row in enumerate(rows) for text in (*english[2 * number : 2 * number + 2], row)]


def assess_rows(texts: Sequence[str], kind: str | None = None) -> bool:
    """Whether a dataset is called a collapse without a reference."""
    record = assess_repetition(number_documents(texts), seed=1, kind=TEXT_KINDS[kind] if kind else None)
    return record.verdict is CollapseVerdict.collapse


# Datasets, with a reference

CANDIDATE, REFERENCE = 1_000, 4_000
GATE_DATASETS = 8
REPLACED = re.compile(r"[a-z]{7,}")


def replace_long_words(texts: Sequence[str], random: Random) -> list[str]:
    """Texts in which one of five long words is a word of no language."""
    return [
        REPLACED.sub(lambda word: f"{word[0][::-1]}q" if random.random() < 0.2 else word[0], text) for text in texts
    ]


def judge_with_reference(texts: Sequence[str], reference: ReferenceCorpus) -> CollapseRecord:
    return assess_corpus(reference.number_texts(texts), reference, seed=1, cache=FOLDER / "nulls")


def count_verdicts(records: Sequence[CollapseRecord]) -> str:
    collapse = sum(record.verdict is CollapseVerdict.collapse for record in records)
    named = sum(any("not judged" in sentence for sentence in record.evidence) for record in records)
    return f"{collapse} of {len(records)}; {named} name what is not judged"


# The page


def format_rows() -> str:
    lines = []
    for language, source in SOURCES:
        rows = load_rows(language, source)
        dropped, wrong = count_false_duplicates(rows)
        lines.append([
            NAMES.get(language, language), source, f"{len(rows):,}", str(dropped), format_share(wrong, len(rows)),
            format_share(count_repetitive(rows), len(rows)),
        ])  # fmt: skip
    return tabulate(
        "language | text | rows | `minhash` drops | of them no repeat: false alarms | `repetition`: false alarms", lines
    )


def format_pairs() -> str:
    lines = []
    for language in LANGUAGES_READ:
        pairs = {count: replace_sentences(language, count) for count in (1, 6)}
        words = [(one, change_word(one, language)) for one, _ in pairs[1]]
        lines.append([
            NAMES.get(language, language),
            *(format_share(count_found_pairs(some), len(some)) for some in (words, pairs[1], pairs[6])),
            *(format_share(count_by_spaces(some), len(some)) for some in (words, pairs[1])),
        ])  # fmt: skip
    return tabulate(
        "language | one word changed: found | one of 12 sentences replaced: found | control, 6 of 12 replaced: dropped "
        "| by spaces: one word | by spaces: one sentence", lines
    )  # fmt: skip


def format_loops() -> str:
    lines = []
    for language in LANGUAGES_READ:
        rows = load_rows(language, "help")[:PLANTED]
        counts = [count_repetitive([plant(row, language) for row in rows]) for plant in LOOPS.values()]
        lines.append([NAMES.get(language, language), *(format_share(count, len(rows)) for count in counts)])
    return tabulate(f"language | {' | '.join(LOOPS)}", lines)


def format_datasets() -> str:
    """Collapse without a reference, of datasets as they are, as dialogues, and of rows among English ones."""
    lines = []
    for language in LANGUAGES_READ:
        rows = load_rows(language, "help")
        parts = [rows[i : i + DATASET] for i in range(0, len(rows) - DATASET + 1, DATASET)][:MOST_DATASETS]
        few = [part[: DATASET // 3] for part in parts]
        cells: dict[str, list[str]] = {
            "alone": [],
            "as turns of dialogues": [],
            "one row of three, others in English": [],
        }
        for change in COLLAPSES.values():
            for form, chosen, kind in zip(cells, (parts, parts, few), (None, "dialogue", None), strict=True):
                made = [change(language, part) for part in chosen]
                made = [mix_with_english(part) for part in made] if chosen is few else made
                cells[form].append(f"{sum(assess_rows(one, kind) for one in made)} of {len(made)}")
        lines += [[NAMES.get(language, language), form, *found] for form, found in cells.items()]
    return tabulate(f"language | form | {' | '.join(COLLAPSES)}", lines)


def format_gate() -> str:
    """The gate with a reference of the same language, and with an English one."""
    english = load_rows("en", "help")
    real = ReferenceCorpus.from_texts(english[-2 * REFERENCE :], "help", PROSE)
    lines = []
    for language in LANGUAGES_READ:
        rows = load_rows(language, "help")
        size = CANDIDATE if len(rows) >= 3 * REFERENCE else CANDIDATE // 2
        kind = find_kind(rows)
        count = min(GATE_DATASETS, (len(rows) - 4 * size) // size)
        own = ReferenceCorpus.from_texts(rows[count * size :][: 2 * REFERENCE], "help", kind)
        parts = [rows[i * size : (i + 1) * size] for i in range(count)]
        doubled = [duplicate_rows(language, part) for part in parts]
        made = [
            made[:size]
            for regime, _, made in generate_documents(rows[: count * size], kind.name, seed=1)
            if regime in ("truncated", "filtered")
        ]
        mixed = [mix_with_english(part[:333]) for part in parts] if language != "en" else []
        invented = [replace_long_words(part, Random(1)) for part in parts] if language == "en" else []
        lines.append([
            NAMES.get(language, language), kind.name, f"{size:,}",
            *(count_verdicts([judge_with_reference(one, own) for one in some]) for some in (parts, doubled, made)),
            *(count_verdicts([judge_with_reference(one, real) for one in some]) if some else "–" for some in (mixed, invented)),
        ])  # fmt: skip
    return tabulate(
        "language | kind | rows | human | drawn twice | generated: truncated, filtered | human, one row of three, others in "
        "English; English reference | control: English with words of no language", lines
    )  # fmt: skip


def print_repetition_page() -> None:
    parts = [
        "# Near-duplicates, repetition and collapse in four languages",
        f"{describe_measurement()} `STILLHOUSE_CORPORA=FOLDER python -m plugins.languages.benchmarks.repeated_texts`",
        "Human text: the help of LibreOffice, the same pages in each language, and descriptions of Debian's packages. English is "
        "the control. 95 % intervals. Goal: false alarms at most 1 %, planted repetition found in 95 %.",
        "## Human rows", format_rows(),
        "## Planted near-duplicates", f"{PLANTED} passages of {PASSAGE_SENTENCES} sentences. *By spaces*: shingles of five words "
        "between spaces, the control of the units.", format_pairs(),
        "## Planted loops", f"{PLANTED} rows, judged by `repetition`.", format_loops(),
        "## Datasets, without a reference", f"{DATASET} rows of the help each: called a collapse.", format_datasets(),
        "## Datasets, with a reference", "Called a collapse, of the help.", format_gate(),
    ]  # fmt: skip
    sys.stdout.write("\n\n".join(part.strip() for part in parts) + "\n")


if __name__ == "__main__":
    print_repetition_page()
