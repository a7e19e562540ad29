"""Simulated runs with planted leaks: how often the test of `disclosure` and, as a control, the filter `pii` raise an alarm.

python -m plugins.disclosure.benchmarks.planted_leaks     # arms and goals: disclosure.json

Knows no teacher: rows are real sentences that no document has.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from agents.checks.text.text_units import split_sentences
from agents.sources.documents import read_documents
from core.config.filters import PersonalDataFilter
from core.intervals import estimate_share
from core.project_files import PROJECT
from filters.rules.personal_data import find_personal_data
from plugins.disclosure.disclosure import SPLITS, compare_halves
from plugins.disclosure.held_back import draw_held_back, draw_splits
from plugins.disclosure.matching import Match, find_matches

DECLARED = json.loads((Path(__file__).parent / "disclosure.json").read_text(encoding="utf-8"))
JUDGED = 40
"""Runs of an arm that the filter judges."""
AT_ONCE = 20
"""Runs whose rows are compared with the documents together."""
FIRST = "Ada Bela Cora Dario Elin Femi Gita Hugo Ines Jonas Kira Lev Mona Nils Olga Pavel Quin Rosa Sven Tova".split()
LAST = "Brandt Castell Dorn Ekberg Falk Grauer Holm Ivens Jarnik Kessel".split()


class Corpus(NamedTuple):
    documents: Mapping[str, Sequence[str]]
    """Passages by name."""
    pool: Sequence[str]
    """Sentences that no document has."""
    secrets: Mapping[str, Sequence[str]]
    """Name, address and code of each document."""
    rows: int


class PlantedArm(NamedTuple):
    name: str
    leak: str
    """`phrases`, `identifiers`, `one document`, `invented` or ``."""
    share: float


def build_corpus(texts: Sequence[Sequence[str]], rows: int) -> Corpus:
    """Of the sentences of each document."""
    documents, pool, secrets = {}, list[str](), {}
    for number, sentences in enumerate(texts):
        name = f"{number:03d}.txt"
        person = f"{FIRST[number % 20]} {LAST[number // 20 % 10]}"
        secrets[name] = (person, f"{person.lower().replace(' ', '.')}@post{number}.net", f"RK-{4107 + 37 * number}-Z")
        own = [sentence for place, sentence in enumerate(sentences) if place % 4 != 3]
        pool += sentences[3::4]
        own.insert(len(own) // 2, "Then ask for {} at {} with order {}.".format(*secrets[name]))
        documents[name] = [" ".join(own[at : at + 8]) for at in range(0, len(own), 8)]
    return Corpus(documents, pool, secrets, rows)


def read_corpora() -> dict[str, Corpus]:
    texts: dict[str, list[str]] = {}
    for chunk in read_documents(PROJECT / "data/documents").chunks:
        parts = (part for part in chunk.text.splitlines() if part.strip())
        texts.setdefault(chunk.source, []).extend(sentence for part in parts for sentence in split_sentences(part))
    lines = (PROJECT / "data/reference/english.jsonl").read_text(encoding="utf-8").splitlines()
    novels = [json.loads(line)["text"] for line in lines]
    blocks = [novels[at : at + 55] for at in range(0, 80 * 55, 55)]
    own = [*texts.values()]
    return {
        "documents": build_corpus(own, 200), "documents, 400 rows": build_corpus(own, 400),
        "novels": build_corpus(blocks, 400),
    }  # fmt: skip


def write_rows(corpus: Corpus, arm: PlantedArm, used: Sequence[str], rng: Random) -> Iterator[tuple[str, bool]]:
    """The rows of a run, and which of them leak or have something invented."""
    planted = set(rng.sample(range(corpus.rows), round(corpus.rows * arm.share)))
    one = rng.choice(used)
    for number in range(corpus.rows):
        first, second = rng.sample(corpus.pool, 2)
        middle = _write_leak(corpus, arm.leak, one if arm.leak == "one document" else rng.choice(used), rng)
        yield f"{first} {middle} {second}" if number in planted else f"{first} {second}", number in planted


def _write_leak(corpus: Corpus, leak: str, document: str, rng: Random) -> str:
    if leak == "invented":
        return f"Write to {rng.choice(FIRST).lower()}{rng.randrange(10**6)}@mailbox.org about it."
    if leak == "identifiers":
        return f"Ask for {rng.choice(corpus.secrets[document])} about it."
    words = rng.choice(corpus.documents[document]).split()
    start = rng.randrange(max(1, len(words) - 12))
    return " ".join(words[start : start + rng.randint(8, 12)])


def run_arm(corpus: Corpus, arm: PlantedArm, runs: int) -> tuple[int, int, int, int]:
    """Alarms of the test; runs that the filter judged, its alarms, and of the planted rows the percentage that it finds."""
    names = sorted(corpus.documents)
    sizes = {name: len(corpus.documents[name]) for name in names}
    config, alarms, found, flagged, planted = PersonalDataFilter(type="pii"), 0, 0, 0, 0
    for start in range(0, runs, AT_ONCE):
        numbers = range(start, min(runs, start + AT_ONCE))
        held = [draw_held_back(sizes, 0.5, run) for run in numbers]
        written = [
            row
            for run, back in zip(numbers, held, strict=True)
            for row in write_rows(corpus, arm, sorted(sizes.keys() - back), Random(f"{arm}/{run}"))
        ]
        matches: list[list[Match]] = [[] for _ in numbers]
        for one in find_matches([row for row, _ in written], (" ".join(corpus.documents[name]) for name in names)):
            matches[one.row // corpus.rows].append(one)
        for run, back, own in zip(numbers, held, matches, strict=True):
            splits = draw_splits([*sizes.values()], 0.5, SPLITS, run)
            alarms += compare_halves(own, corpus.rows, np.array([name in back for name in names]), splits).leaks
        for run in numbers[: max(0, JUDGED - start)]:
            rows = written[(run - start) * corpus.rows : (run - start + 1) * corpus.rows]
            marks = [bool(find_personal_data(row, config)) for row, _ in rows]
            found += any(marks)
            flagged += sum(mark and leaks for mark, (_, leaks) in zip(marks, rows, strict=True))
            planted += sum(leaks for _, leaks in rows)
    return alarms, min(JUDGED, runs), found, round(100 * flagged / planted) if planted else 0


def print_table() -> None:
    arms = [PlantedArm("no leak", "", 0.0), PlantedArm("invented, 5 %", "invented", 0.05)]
    arms += [
        PlantedArm(f"{leak}, {share:.0%}".replace("%", " %"), leak, share)
        for leak in ("phrases", "identifiers")
        for share in DECLARED["shares"]
    ]
    arms.append(PlantedArm("one document, 5 %", "one document", 0.05))
    sys.stdout.write(
        "| corpus | planted | runs | alarms (95 %) | pii: alarms | planted rows it finds |\n|---|---|---:|---:|---:|---:|\n"
    )
    for name, corpus in read_corpora().items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        for arm in arms:
            runs = DECLARED["runs"]["no leak" if not arm.leak else "others"]
            alarms, judged, found, percent = run_arm(corpus, arm, runs)
            interval = estimate_share(alarms, runs)
            assert interval
            shown = interval.format(lambda value: f"{100 * value:.1f} %")
            rows = f"{percent} %" if arm.share else ""
            sys.stdout.write(f"| {name} | {arm.name} | {runs:,} | {shown} | {found} of {judged} | {rows} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    print_table()
