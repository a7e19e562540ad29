"""Small references: is replaced text found with 1,500 to 4,000 documents, or is the verdict inconclusive?

Declared before the measurement.

Sources   four, on which no limit was set: Python's manual (python3.13-doc), the help of an office (libreoffice-help-en-us), Perl's
          manual (perl-doc), quotations (fortunes).
Seeds     1 to 5: each draws other training documents, another reference and other candidates, and writes other text.
Sizes     references of 1,500, 2,000, 2,500, 3,000 and 4,000 documents; candidates of 2,000.
Arms      text of the generator of `benchmarks.collapse.generators`, trained on 10,000 real documents (quotations: 5,000) and then
          on its own text alone: generations 1, 2 and 4.
Controls  fresh: other real documents of the source. verified: generation 2 of a model that trains on all text so far and adds the
          most real-looking half of twice as much.
Goal      generation 2 and 4: at each size of the reference at least 95 % are called collapse or inconclusive. Fresh text: at most
          1 % is called collapse. Verified text: the same. Generation 1 has no goal: text of one model of real text may be released.

Trials are lines of JSON in `<folder>/small_references`; existing ones are not repeated.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.collapse.corpora import Reader, split_passages
from benchmarks.collapse.generators import Texts, generate_texts
from benchmarks.collapse.other_corpora import extract_package
from benchmarks.collapse.references import read_fortunes, read_paragraphs
from benchmarks.collapse.tables import FOLDER, UPPER, VERDICTS, Row, decide_row, format_share, format_table
from benchmarks.collapse.trials import RealCorpus, run_trial
from benchmarks.machine import describe_measurement
from core.intervals import wilson_bound
from core.runs.records import CollapseVerdict
from core.storage.atomic_files import write_atomically

SEEDS = (1, 2, 3, 4, 5)
REFERENCE_SIZES = (1_500, 2_000, 2_500, 3_000, 4_000)
CANDIDATES = 2_000
TRAIN = {"python": 10_000, "office": 10_000, "perl": 10_000, "quotations": 5_000}
WRITTEN = {"replace": {1: 1, 2: 2, 4: 1}, "verified": {2: 2}}
"""Number of disjoint candidates by generation, by regime."""
FRESH_PARTS = 4
"""Disjoint candidates of real text; quotations have enough documents for one."""
FOUND = (CollapseVerdict.collapse, CollapseVerdict.inconclusive)
POD_CODE = re.compile(r"[A-Z]<+\s?([^<>|]*)(?:\|[^<>]*)?>+")


def read_perl_manual(folder: Path) -> Iterator[str]:
    """Passages of up to two sentences from the paragraphs of Perl's POD pages, without code."""
    for page in sorted(extract_package("perl-doc", folder, "*/pod/*.pod").rglob("*.pod")):
        for block in re.split(r"\n\s*\n", page.read_text(encoding="utf-8", errors="replace")):
            if block[:1].strip() and not block.startswith("="):
                yield from split_passages(" ".join(POD_CODE.sub(r"\1", POD_CODE.sub(r"\1", block)).split()))


SOURCES: dict[str, Reader] = {
    "python": read_paragraphs("python3.13-doc", "*.html"),
    "office": read_paragraphs("libreoffice-help-en-us", "*.html"),
    "perl": read_perl_manual,
    "quotations": read_fortunes,
}


def run_source(name: str, seed: int, folder: Path) -> Iterator[Row]:
    """All arms and controls of one source and seed."""
    real = RealCorpus.load(f"small-{name}", folder, SOURCES[name])
    order = np.random.default_rng([seed, TRAIN[name]]).permutation(len(real.texts))
    train, rest = real.texts.take(order[: TRAIN[name]]), order[TRAIN[name] :]
    fresh = real.texts.take(rest[max(REFERENCE_SIZES) :])
    arms: list[tuple[dict[str, Any], Texts, int]] = [({"kind": "fresh", "generation": 0}, fresh, FRESH_PARTS)]
    for regime, wanted in WRITTEN.items():
        for generation, texts in enumerate(generate_texts(train, regime, max(wanted), seed), 1):
            if generation in wanted:
                arms.append(({"kind": regime, "generation": generation}, texts, wanted[generation]))
    for size in REFERENCE_SIZES:
        run = partial(run_trial, reference=real.reference(rest[:size]), folder=folder, reference_size=size)
        for about, texts, parts in arms:
            places = np.random.default_rng([seed, size, about["generation"]]).permutation(len(texts))
            for part in range(min(parts, len(texts) // CANDIDATES)):
                candidate = texts.take(places[part * CANDIDATES : (part + 1) * CANDIDATES])
                yield run(candidate, **about, part=part)


def run_missing(folder: Path) -> list[Row]:
    """All trials with their verdicts; the missing ones are run."""
    rows: list[Row] = []
    (folder / "small_references").mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for name in SOURCES:
            path = folder / "small_references" / f"{name}-{seed}.jsonl"
            if not path.exists():
                with write_atomically(path) as partial_path, partial_path.open("w", encoding="utf-8") as file:
                    for trial in run_source(name, seed, folder):
                        file.write(json.dumps({"source": name, "seed": seed, **trial}) + "\n")
            rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{**row, "verdict": decide_row(row)} for row in rows]


def table() -> str:
    rows = run_missing(FOLDER)
    return ""
