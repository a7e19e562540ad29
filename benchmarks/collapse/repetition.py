"""How often repetition is found in human text, where it must not be, and in repeated and collapsed text, where it should be.

Needs no reference: each trial is one dataset on its own. `data/reference` has the first human text; the others are fetched by
`benchmarks.collapse.corpora`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.collapse.corpora import CORPUS_READERS, load_corpus
from benchmarks.collapse.generators import Texts, generate_texts
from benchmarks.collapse.tables import FOLDER, UPPER, WORDS, format_table
from benchmarks.machine import describe_measurement
from core.config.recipe import ENGLISH_REFERENCE
from core.intervals import wilson_bound
from core.project_files import PROJECT
from core.runs.collapse_facts import MIN_REPETITION_DOCUMENTS
from core.runs.records import CollapseVerdict
from filters.base import Document
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.collapse.repetition import assess_repetition

SIZES = (50, MIN_REPETITION_DOCUMENTS, 2_000)
MOST_TRIALS = 25
"""Disjoint datasets of one size from one corpus."""
TRAIN = 4_000
GENERATIONS = 4
REPETITIVE_REGIMES = ("filtered", "truncated", "replace")
SEEDS = (1, 2, 3)


class RepetitionTrial(NamedTuple):
    corpus: str
    kind: str
    size: int
    verdict: CollapseVerdict


def load_human_texts() -> dict[str, list[str]]:
    """The texts of each corpus, in random order."""
    lines = (PROJECT / ENGLISH_REFERENCE).read_text(encoding="utf-8").splitlines()
    novels = [str(json.loads(line)["text"]) for line in lines]
    np.random.default_rng(0).shuffle(novels)
    return {"novels": novels, **{name: load_corpus(name, FOLDER) for name in CORPUS_READERS}}


def decide_texts(texts: Sequence[str]) -> CollapseVerdict:
    return assess_repetition([Document(str(number), text) for number, text in enumerate(texts)], seed=1).verdict


def run_human_trials(name: str, texts: Sequence[str]) -> Iterator[RepetitionTrial]:
    for size in SIZES:
        for part in range(min(MOST_TRIALS, len(texts) // size)):
            yield RepetitionTrial(name, "human", size, decide_texts(texts[part * size : (part + 1) * size]))


Change = Callable[[Sequence[str], np.random.Generator], Sequence[str]]


def duplicate_texts(texts: Sequence[str], random: np.random.Generator) -> Sequence[str]:
    return [texts[i] for i in random.integers(0, len(texts) // 2, len(texts))]


def copy_some_texts(texts: Sequence[str], random: np.random.Generator) -> Sequence[str]:
    copies = len(texts) // 8
    return [*texts[copies:], *texts[-copies:]]


def loop_texts(texts: Sequence[str], random: np.random.Generator) -> Sequence[str]:
    looping = set(random.permutation(len(texts))[: len(texts) // 4].tolist())
    return [f"{text} {text} {text}" if i in looping else text for i, text in enumerate(texts)]


def begin_texts_alike(texts: Sequence[str], random: np.random.Generator) -> Sequence[str]:
    alike = set(random.permutation(len(texts))[: len(texts) * 7 // 10].tolist())
    return [f"Here is the {text}" if i in alike else text for i, text in enumerate(texts)]


CHANGES: dict[str, tuple[str, Change]] = {
    "duplicated": ("sampled with replacement from half", duplicate_texts),
    "copied": ("an eighth are copies", copy_some_texts),
    "looped": ("a quarter repeat themselves twice", loop_texts),
    "templated": ("seven tenths begin with the same words", begin_texts_alike),
}


def run_changed_trials(name: str, texts: Sequence[str]) -> Iterator[RepetitionTrial]:
    for size in SIZES:
        for seed in SEEDS:
            random = np.random.default_rng([seed, size])
            chosen = [texts[i] for i in random.permutation(len(texts))[:size]]
            for kind, (_, change) in CHANGES.items():
                yield RepetitionTrial(name, kind, size, decide_texts(change(chosen, random)))


def run_generated_trials(name: str, texts: Sequence[str]) -> Iterator[RepetitionTrial]:
    """Text of a model trained on its own text, generation by generation."""
    vocabulary: dict[str, int] = {}
    found = TokenCorpus.from_words([split_into_words(text) for text in texts[:TRAIN]], vocabulary)
    spelled = list(vocabulary)
    for regime in REPETITIVE_REGIMES:
        for seed in SEEDS:
            for generation, written in enumerate(
                generate_texts(Texts(found.ids, found.lengths), regime, GENERATIONS, seed), 1
            ):
                parts = np.split(written.ids, np.cumsum(written.lengths)[:-1])
                lines = [" ".join(spelled[i] for i in part) for part in parts]
                for size in SIZES[1:]:
                    yield RepetitionTrial(name, f"{regime} {generation}", size, decide_texts(lines[:size]))


def table() -> str:
    """Run all trials and format their counts."""
    trials = [
        trial
        for name, texts in load_human_texts().items()
        for run in (run_human_trials, run_changed_trials, run_generated_trials)
        for trial in run(name, texts)
    ]
    return "\n\n".join(
        [
            f"{describe_measurement()} `STILLHOUSE_CORPORA=FOLDER python -m benchmarks repetition`",
            "Verdicts of collapse without a reference, by the limits in `filters/collapse/repetition.py`. The corpora are those "
            "of the collapse gate, and the tracked novels.",
            "### Human text, which must not be called repeated",
            format_alarm_rates(trials),
            "### Repeated text, and text of a model trained on its own text",
            format_detection_rates(trials),
            "Replacement at temperature 1 loses rare words without repeating itself: only a reference shows that.",
        ]
    )


def format_alarm_rates(trials: Sequence[RepetitionTrial]) -> str:
    human = [trial for trial in trials if trial.kind == "human"]
    rows = []
    for size in (*SIZES, None):
        chosen = [trial for trial in human if size in (None, trial.size)]
        alarms = sum(trial.verdict is CollapseVerdict.collapse for trial in chosen)
        upper = f"{100 * wilson_bound(alarms, len(chosen), UPPER):.2f} %"
        rows.append((f"{size:,}" if size else "all", len(chosen), alarms, upper))
    return format_table(["documents", "datasets", "collapse", "upper end, 95 %"], rows)


def format_detection_rates(trials: Sequence[RepetitionTrial]) -> str:
    named = {kind: words for kind, (words, _) in CHANGES.items()}
    named |= {
        f"{regime} {generation}": f"{WORDS[regime]}, generation {generation}"
        for regime in REPETITIVE_REGIMES
        for generation in range(1, GENERATIONS + 1)
    }
    names = list(dict.fromkeys(trial.corpus for trial in trials))
    rows = []
    for kind, words in named.items():
        for size in SIZES:
            chosen = [trial for trial in trials if (trial.kind, trial.size) == (kind, size)]
            if chosen:
                by_corpus = [[trial for trial in chosen if trial.corpus == name] for name in names]
                rows.append((words, f"{size:,}", *map(_count_found, by_corpus), _count_found(chosen)))
    return format_table(["what was made", "documents", *names, "collapse"], rows)


def _count_found(trials: Sequence[RepetitionTrial]) -> str:
    return f"{sum(trial.verdict is CollapseVerdict.collapse for trial in trials)} of {len(trials)}"
