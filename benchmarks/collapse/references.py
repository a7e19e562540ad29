"""Which references suit the families: a capable model's replies, and real code of other projects, compared with each candidate.

A reference suits a family if good replies and real data of other origin are not called collapsed, and if few findings appear
that mean nothing. Prose candidates are Debian packages (`benchmarks.collapse.corpora`), the replies are tracked recordings.
"""

import html
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.collapse.corpora import CORPUS_READERS, load_corpus
from benchmarks.collapse.other_corpora import extract_package
from benchmarks.collapse.tables import FOLDER, format_table
from benchmarks.machine import describe_measurement
from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from core.runs.collapse_facts import Z_LIMIT
from core.runs.records import CollapseRecord
from filters.collapse.assessment import assess_corpus
from filters.collapse.reference_corpus import ReferenceCorpus
from filters.collapse.text_kinds import TEXT_KINDS
from flows.data.reference_files import (
    MIN_FUNCTION_WORDS,
    count_passage_words,
    load_reference,
    split_into_functions,
)

RECORDINGS = PROJECT / "benchmarks" / "recordings"
CHAT_RECIPES = ("conversations", "instructions")
PROSE_RECIPES = (*CHAT_RECIPES, "grounded-qa", "reasoning", "tool-calls")
MAX_REFERENCE = 12_000
FEWEST_WORDS, MOST_WORDS = 8, 120
PROJECTS = ("aiohttp", "jinja2", "networkx", "pandas", "prefect", "rich", "sklearn", "sympy")
"""Installed packages whose functions are real code of other origin than the standard library."""
PROJECT_FUNCTIONS = 1_200
TAG = re.compile(r"<[^>]+>")
HTML_PARAGRAPH = re.compile(r"<p\b[^>]*>(.*?)</p>", re.DOTALL)


class Candidate(NamedTuple):
    source: str
    licence: str
    read: Callable[[Path], Iterator[str]]


def read_paragraphs(package: str, pattern: str) -> Callable[[Path], Iterator[str]]:
    """The paragraphs of a package's pages."""

    def read(folder: Path) -> Iterator[str]:
        for page in sorted(extract_package(package, folder, pattern).rglob("*")):
            if page.is_file() and not page.is_symlink():
                for paragraph in HTML_PARAGRAPH.findall(page.read_text(encoding="utf-8", errors="replace")):
                    yield " ".join(html.unescape(TAG.sub(" ", paragraph)).split())

    return read


def read_fortunes(folder: Path) -> Iterator[str]:
    for file in sorted(extract_package("fortunes", folder, "*/fortunes/*").rglob("fortunes/*")):
        if file.is_file() and not file.suffix and not file.is_symlink():
            for quote in file.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
                yield " ".join(re.sub(r"\s+--.*", "", quote, flags=re.DOTALL).split())


def read_tracked(_folder: Path) -> Iterator[str]:
    for line in (PROJECT / ENGLISH_REFERENCE).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["text"]


CANDIDATES = {
    "english": Candidate("Jane Austen, tracked", "public domain", read_tracked),
    "python-docs": Candidate("Python's documentation", "PSF-2.0", read_paragraphs("python3.13-doc", "*.html")),
    "django-docs": Candidate("Django's documentation", "BSD-3", read_paragraphs("python-django-doc", "*.html")),
    "gnome-help": Candidate("GNOME's user help", "CC-BY-SA-3.0", read_paragraphs("gnome-user-docs", "*/C/*.page")),
    "fortunes": Candidate("quotations", "unclear", read_fortunes),
}
OTHER_SOURCES = {
    "packages": ("Debian's package descriptions", "mixed, free"),
    "anarchism": ("An Anarchist FAQ", "GFDL or GPL"),
    "dictionary": ("GCIDE", "GPL"),
    "glosses": ("WordNet's glosses", "WordNet, permissive"),
    "reviews": ("reviews in vaderSentiment", "MIT package, texts unclear"),
    "kernel": ("Linux kernel documentation", "GPL-2.0"),
}
"""Those of `benchmarks.collapse.corpora`."""


def load_candidate(name: str) -> list[str]:
    texts = list(CANDIDATES[name].read(FOLDER)) if name in CANDIDATES else load_corpus(name, FOLDER)
    kept = [text for text in dict.fromkeys(texts) if FEWEST_WORDS <= text.count(" ") + 1 <= MOST_WORDS]
    random.Random(0).shuffle(kept)
    return kept[:MAX_REFERENCE]


def read_replies(recipes: Sequence[str]) -> list[str]:
    """The answers of the last drafts of all recorded samples."""
    replies = []
    for name in recipes:
        for file in (RECORDINGS / f"{name}.jsonl", RECORDINGS / "earlier" / f"{name}.jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                drafts = [reply["reply"] for reply in json.loads(line)["replies"] if reply["agent"] == "generator"]
                replies += [text for draft in drafts[-1:] if (text := _extract_answer(draft))]
    return replies


def _extract_answer(draft: str) -> str:
    try:
        fields = json.loads(draft)
    except ValueError:
        return ""
    turns = [turn.get("reply") for turn in fields.get("turns", [])]
    parts = (
        fields.get("answers") or turns or [fields.get("solution") or fields.get("reasoning") or fields.get("answer")]
    )
    return "\n".join(filter(None, parts))


def read_project_functions(name: str) -> list[str]:
    spec = find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(name)
    functions = [
        function
        for place in spec.submodule_search_locations
        for file in sorted(Path(place).rglob("*.py"))
        if not any(part.startswith("test") for part in file.parts)
        for function in split_into_functions(file.read_text(encoding="utf-8", errors="replace"))
        if count_passage_words(function) >= MIN_FUNCTION_WORDS
    ]
    functions = list(dict.fromkeys(functions))
    random.Random(0).shuffle(functions)
    return functions[:PROJECT_FUNCTIONS]


def summarize(record: CollapseRecord) -> list[str]:
    """Verdict, documents, words or tokens per thousand that the reference lacks, and the metrics beyond four deviations."""
    new = next(((m.candidate, m.reference) for m in record.metrics if m.name == "new_words"), (0.0, 0.0))
    beyond = [f"{m.name} {m.z:+.0f}" for m in record.metrics if m.z is not None and abs(m.z) >= Z_LIMIT]
    return [record.verdict, f"{record.documents:,}", f"{new[0]:.0f} ({new[1]:.0f})", ", ".join(beyond) or "none"]


def table() -> str:
    head = ["reference", "licence", "replies", "verdict", "compared", "new words", "metrics beyond four deviations"]
    rows, cache = [], FOLDER / "nulls"
    replies = {"chat": read_replies(CHAT_RECIPES), "all prose": read_replies(PROSE_RECIPES)}
    for name in (*CANDIDATES, *(name for name in OTHER_SOURCES if name in CORPUS_READERS)):
        source, licence = CANDIDATES[name][:2] if name in CANDIDATES else OTHER_SOURCES[name]
        real = ReferenceCorpus.from_texts(load_candidate(name), name)
        for which, texts in replies.items():
            record = compare(texts, real, cache)
            rows.append([source, licence, f"{which}, {len(texts)}", *summarize(record)])
    head_code = ["data", "verdict", "compared", "new tokens", head[-1]]
    return f"""{describe_measurement()}, by `python -m benchmarks references`. Recorded replies of a capable model, which
nothing is wrong with ([recordings](recordings/README.md)), compared with each reference. New words: per thousand, those that the
rest of the reference lacks; in parentheses, of the reference itself.

{format_table(head, rows)}

Real code of other projects, and recorded solutions, compared with the functions of the standard library, as Python tokens, by the
rule for a reference of one's own. For a named reference only likely text counts.

{format_table(head_code, compare_code(cache))}"""


def compare_code(cache: Path) -> Iterator[list[str]]:
    library = load_reference("python", FOLDER, FOLDER)
    real = ReferenceCorpus.from_texts(library.texts, library.name, TEXT_KINDS["code"], library.origins)
    sources = {"solutions of the recipe `code`": read_replies(["code"])}
    sources |= {f"functions of {name}": read_project_functions(name) for name in PROJECTS}
    for title, texts in sources.items():
        yield [title, *summarize(compare(texts, real, cache))]


def compare(texts: Sequence[str], real: ReferenceCorpus, cache: Path) -> CollapseRecord:
    """As `assess_texts`; words of the texts are not added to the reference, which more texts are compared with."""
    real = real._replace(vocabulary=dict(real.vocabulary), outlines=dict(real.outlines))
    return assess_corpus(real.number_texts(texts), real, seed=7, cache=cache)
