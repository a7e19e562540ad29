"""Labeled texts that no model wrote, from the packages of a Debian machine: for `benchmarks.decisions`.

- `sections`: the synopsis of a Debian package, and its archive section (`apt-cache dumpavail`), one package per source package.
- `descriptions`: the long description of each such package, for which apt fetches the descriptions of its archives.
- `snippets`: three lines of a source file, and its language by the file's ending (installed libraries, `/usr/share`,
  `/usr/include`).

Each has 5,000 rows: 500 of each of 10 classes, drawn at random among texts that occur once.
"""

import re
import subprocess
import sysconfig
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

CLASSES, ROWS_PER_CLASS = 10, 500
MIN_WORDS = 4
MAX_WORDS = {"sections": 40, "descriptions": 120, "snippets": 40}

APT_HELPER = "/usr/lib/apt/apt-helper"

LANGUAGES = {
    ".cmake": "CMake", ".h": "C", ".js": "JavaScript", ".json": "JSON", ".pl": "Perl", ".pm": "Perl", ".py": "Python",
    ".pyx": "Cython", ".pxd": "Cython", ".rst": "reStructuredText", ".sql": "SQL", ".vim": "Vim script", ".xml": "XML",
    ".yaml": "YAML",
}  # fmt: skip
FILES_PER_LANGUAGE, SNIPPETS_PER_FILE = 600, 12
LONGEST_LINE, LARGEST_SOURCE = 200, 500_000
"""Characters of a line (others are generated), bytes of a file."""


class LabeledText(NamedTuple):
    text: str
    label: str


def read_sections() -> Iterator[LabeledText]:
    """Synopses of the packages that apt knows."""
    for record in iter_packages():
        if text := record.get("Description") or record.get("Description-en"):
            yield LabeledText(text, record["Section"].rpartition("/")[2])


def iter_packages() -> Iterator[dict[str, str]]:
    """The fields of one package for each source package that has a section."""
    dump = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    seen = set()
    for record in dump.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Source|Section|Description(?:-\w+)?): (.*)$", record, re.MULTILINE))
        source = (fields.get("Source") or fields.get("Package") or "").split(" ")[0]
        if "Section" in fields and source not in seen:
            seen.add(source)
            yield fields


def read_descriptions() -> Iterator[LabeledText]:
    """Long descriptions of the packages that apt knows, the synopsis first."""
    with tempfile.TemporaryDirectory() as folder:
        apt = [
            "-o",
            "APT::Sandbox::User=root",
            "-o",
            f"Dir::State::lists={folder}",
            "-o",
            "Acquire::Languages=en",
            "-o",
            "Acquire::Languages::=en",
        ]
        subprocess.run(["apt-get", *apt, "update"], check=True, stdout=subprocess.DEVNULL)
        long = {}
        for file in Path(folder).glob("*_i18n_Translation-en*"):
            records = subprocess.run(
                [APT_HELPER, "cat-file", str(file)], capture_output=True, text=True, check=True
            ).stdout
            for record in records.split("\n\n"):
                found = re.search(r"^Description-md5: (\w+)\nDescription-en: (.*(?:\n .*)*)", record, re.MULTILINE)
                if found:
                    long[found[1]] = re.sub(r"\n (\.\n)?", " ", found[2])
    for record in iter_packages():
        if record.get("Description-md5") in long:
            yield LabeledText(long[record["Description-md5"]], record["Section"].rpartition("/")[2])


def read_snippets() -> Iterator[LabeledText]:
    """Three consecutive lines of source files, at most `SNIPPETS_PER_FILE` of a file."""
    roots = [Path(sysconfig.get_paths()["purelib"]), Path("/usr/share"), Path("/usr/include")]
    files = defaultdict(list)
    for root in roots:
        for file in sorted(root.rglob("*")):
            if (language := LANGUAGES.get(file.suffix)) and file.is_file() and file.stat().st_size <= LARGEST_SOURCE:
                files[language].append(file)
    for language, found in files.items():
        rng = Random(language)
        for file in rng.sample(found, min(len(found), FILES_PER_LANGUAGE)):
            text = file.read_text(encoding="utf-8", errors="replace")
            lines = [line.strip() for line in text.splitlines() if line.strip() and len(line) <= LONGEST_LINE]
            starts = range(max(0, len(lines) - 2))
            for start in rng.sample(starts, min(len(starts), SNIPPETS_PER_FILE)):
                yield LabeledText(" ".join(lines[start : start + 3]), language)


SOURCES: dict[str, Callable[[], Iterable[LabeledText]]] = {
    "sections": read_sections,
    "descriptions": read_descriptions,
    "snippets": read_snippets,
}


def draw_labeled_texts(source: str, seed: int = 7) -> list[LabeledText]:
    """The rows of a dataset, in random order.

    Raises:
        RuntimeError: if this machine has too few texts.
    """
    rows = list(SOURCES[source]())
    repeats = Counter(row.text.casefold() for row in rows)
    texts = defaultdict(list)
    for row in rows:
        words = row.text.split()
        if repeats[row.text.casefold()] == 1 and len(words) >= MIN_WORDS:
            texts[row.label].append(" ".join(words[: MAX_WORDS[source]]))
    largest = sorted(texts, key=lambda label: (-len(texts[label]), label))[:CLASSES]
    if len(largest) < CLASSES or len(texts[largest[-1]]) < ROWS_PER_CLASS:
        raise RuntimeError(
            f"{source}: this machine has too few texts: { ({label: len(texts[label]) for label in largest}) }"
        )
    rng = Random(seed)
    drawn = [LabeledText(text, label) for label in sorted(largest) for text in rng.sample(texts[label], ROWS_PER_CLASS)]
    rng.shuffle(drawn)
    return drawn
