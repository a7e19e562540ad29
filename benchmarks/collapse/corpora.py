"""Real English text of eight kinds, from Debian and Python packages: fetched into a folder, not tracked.

bible        verses of the King James Bible (bible-kjv-text, read by bible-kjv)
packages     paragraphs of Debian's package descriptions (apt's own list, Translation-en)
anarchism    passages of An Anarchist FAQ (anarchism)
dictionary   definitions of the GNU Collaborative International Dictionary of English (dict-gcide)
kernel       paragraphs of the documentation of the Linux kernel (linux-doc-6.12)
database     paragraphs of the manual of PostgreSQL (postgresql-doc-17)
glosses      definitions and examples of WordNet (wordnet-base)
reviews      sentences of reviews of films and products, of editorials and of tweets (vaderSentiment, from PyPI)

Knows no measurement. Needs apt-get and pip with a network, and dpkg-deb.
"""

import gzip
import html
import json
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from core.storage.atomic_files import write_atomically

FEWEST_WORDS, MOST_WORDS = 8, 80
MOST_DOCUMENTS = 60_000
PACKAGES = (
    "bible-kjv-text", "bible-kjv", "anarchism", "dict-gcide", "linux-doc-6.12", "postgresql-doc-17", "wordnet-base",
)  # fmt: skip


Reader = Callable[[Path], Iterable[str]]


def load_corpus(name: str, folder: Path, reader: Reader | None = None) -> list[str]:
    """The documents of the corpus, shuffled once; created in `folder` if missing. `reader`: of a corpus that is not one of
    `CORPUS_READERS`.
    """
    path = folder / f"{name}.jsonl"
    if not path.exists():
        texts = list(_select_different((reader or CORPUS_READERS[name])(folder)))
        random.Random(0).shuffle(texts)
        with write_atomically(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\n" for text in texts[:MOST_DOCUMENTS])
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _select_different(texts: Iterable[str]) -> Iterator[str]:
    """Texts of the right length, without exact duplicates. Near-duplicates stay: a model learns set phrases, and a corpus without
    them would make every model look repetitive.
    """
    seen = set()
    for text in texts:
        words = " ".join(re.findall(r"\w+", text.lower()))
        if FEWEST_WORDS <= words.count(" ") + 1 <= MOST_WORDS and words not in seen:
            seen.add(words)
            yield text


def _unpack_package(package: str, folder: Path) -> Path:
    out = folder / "unpacked" / package
    if not out.exists():
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, capture_output=True)
        archive = next(folder.glob(f"{package}_*.deb"))
        out.parent.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(out)], check=True)
    return out


def read_bible(folder: Path) -> Iterator[str]:
    """One document per verse, in order of the books."""
    for _, verse in read_verses(folder):
        yield verse


def read_verses(folder: Path) -> Iterator[tuple[str, str]]:
    """Each verse with the name of its book."""
    program = _unpack_package("bible-kjv", folder) / "usr/bin/bible"
    data = _unpack_package("bible-kjv-text", folder) / "usr/lib"
    done = subprocess.run(
        [str(program), "-f", "-p", str(data), "gen1:1-rev22:21"], check=True, capture_output=True, text=True
    )
    for line in done.stdout.splitlines():
        if found := re.match(r"(\w+)\d+:\d+ (.+)", line.replace("\x1b", "")):
            yield found[1], found[2]


def load_testaments(folder: Path) -> dict[str, list[str]]:
    """The verses of each Testament, shuffled."""
    verses = list(read_verses(folder))
    first = next(i for i, (book, _) in enumerate(verses) if book.startswith("Mat"))
    found = {"old_testament": verses[:first], "new_testament": verses[first:]}
    texts = {name: list(_select_different(verse for _, verse in part)) for name, part in found.items()}
    for part in texts.values():
        random.Random(0).shuffle(part)
    return texts


def read_package_descriptions(folder: Path) -> Iterator[str]:
    """Paragraphs of long descriptions, in the order of apt's list; without bullet lists and code."""
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["apt-get", "update", "-q", "-o", "Acquire::Languages=en", "-o", f"Dir::State::lists={lists}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    found = next(lists.glob("*_trixie_main_i18n_Translation-en*"))
    text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(found)], check=True, capture_output=True).stdout
    for entry in text.decode().split("\n\n"):
        body = entry.partition("Description-en: ")[2].partition("\n")[2]
        for paragraph in re.split(r"\n \.\n", body):
            lines = paragraph.split("\n")
            if not any(re.match(r"  |\s*[-*+•]", line) for line in lines):
                yield " ".join(paragraph.split())


def read_anarchism_faq(folder: Path) -> Iterator[str]:
    """Passages of up to three sentences from the paragraphs of its pages."""
    for page in sorted((_unpack_package("anarchism", folder) / "usr/share/doc/anarchism/html").glob("*.html")):
        source = re.sub(r"(?s)<(script|style).*?</\1>", " ", page.read_text(encoding="utf-8", errors="replace"))
        for block in re.split(r"(?i)</?(?:p|h\d|li|div|blockquote|td|ul|br)\b[^>]*>", source):
            yield from split_passages(_strip_tags(block))


def _strip_tags(source: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", source)).split())


def split_passages(text: str) -> Iterator[str]:
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z\"“])", text)
    for i in range(0, len(sentences), 2):
        yield " ".join(sentences[i : i + 2])


def read_dictionary(folder: Path) -> Iterator[str]:
    """Definitions: the parts of an entry, without their sources and marks."""
    data = gzip.decompress((_unpack_package("dict-gcide", folder) / "usr/share/dictd/gcide.dict.dz").read_bytes())
    for block in re.split(r"\n\s*\n", data.decode("utf-8", errors="replace")):
        text = " ".join(re.sub(r"\[[^\]]*\]|\{|\}|\\[^\\\n]*\\", " ", block).split())
        text = re.sub(r"^(?:\(\w+\)|\d+\.)\s*", "", text)
        if text[:1].isupper() and text[-1:] in ".!?":
            yield text


def read_kernel_documentation(folder: Path) -> Iterator[str]:
    """Paragraphs of all pages, without translations."""
    pages = _unpack_package("linux-doc-6.12", folder) / "usr/share/doc/linux-doc-6.12/html"
    return _read_paragraphs(page for page in sorted(pages.rglob("*.html")) if "translations" not in page.parts)


def read_database_manual(folder: Path) -> Iterator[str]:
    pages = _unpack_package("postgresql-doc-17", folder) / "usr/share/doc/postgresql-doc-17/html"
    return _read_paragraphs(sorted(pages.glob("*.html")))


def _read_paragraphs(pages: Iterable[Path]) -> Iterator[str]:
    """Passages of up to two sentences from the paragraphs of the pages; a paragraph contains no code block or list."""
    for page in pages:
        source = page.read_text(encoding="utf-8", errors="replace")
        for found in re.finditer(r"(?s)<p>(.*?)(?:</p>|<pre|<div|<ul|<ol|<table)", source):
            yield from split_passages(_strip_tags(found[1]))


def read_glosses(folder: Path) -> Iterator[str]:
    """Definitions with their examples, of nouns, verbs, adjectives and adverbs."""
    data = _unpack_package("wordnet-base", folder) / "usr/share/wordnet"
    for part in ("noun", "verb", "adj", "adv"):
        for line in (data / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if not line.startswith(" "):
                yield line.partition(" | ")[2].strip()


def read_reviews(folder: Path) -> Iterator[str]:
    """Sentences that people rated (Hutto and Gilbert 2014): of films, products, editorials, and tweets."""
    out = folder / "unpacked" / "vaderSentiment"
    if not out.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
            "-d",
            str(folder),
        ]
        subprocess.run([*command, "vaderSentiment==3.3.2"], check=True, capture_output=True)
        _extract(folder / "vaderSentiment-3.3.2.tar.gz", out)
        _extract(out / "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", out)
    for path in sorted(out.glob("hutto_ICWSM_2014/*_GroundTruth.txt")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            yield html.unescape(line.split("\t")[-1]).strip()


def _extract(archive: Path, out: Path) -> None:
    with tarfile.open(archive) as files:
        files.extractall(out, filter="data")


CORPUS_READERS: dict[str, Reader] = {
    "bible": read_bible,
    "packages": read_package_descriptions,
    "anarchism": read_anarchism_faq,
    "dictionary": read_dictionary,
    "kernel": read_kernel_documentation,
    "database": read_database_manual,
    "glosses": read_glosses,
    "reviews": read_reviews,
}
