"""Trials of the collapse gate on texts of known nature: real, collapsed, and changed real text.

Each trial is one line of JSON in `<folder>/trials/<corpus>-<kind>.jsonl`, so that limits can be studied without measuring again.
Existing trials are not repeated. Decides nothing: `tables` does.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.collapse.corpora import CORPUS_READERS, Reader, load_corpus, load_testaments
from benchmarks.collapse.generators import REGIMES, Generator, Texts, generate_texts
from filters.collapse.assessment import REFERENCE_SAMPLES, assess_corpus, assess_texts, compare_with_reference
from filters.collapse.collapse_metrics import TAIL_COUNT
from filters.collapse.diversity import TokenSample, count_documents_by_word
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.collapse.reference_corpus import ReferenceCorpus

Ints = npt.NDArray[np.int64]

TRAIN = 10_000
GENERATIONS = 4
SIZES = (500, 2_000, 4_000)
SEEDS = (1, 2)
PARTS = {(500, 1): 1, **{(size, generation): 1 for size in (2_000, 4_000) for generation in (1, 2, 3, 4)}}
"""Number of disjoint candidates, by size and generation."""
EXTRA_PARTS = {
    **{(regime, 500, 1): 5 for regime in ("filtered", "truncated")},
    ("replace", 2_000, 2): 5,
    ("replace", 4_000, 1): 2,
    ("verified", 500, 4): 5,
    ("verified", 2_000, 4): 5,
    ("verified", 4_000, 4): 2,
}
"""Number of disjoint candidates where a rate is to be known better, by regime, size and generation."""
SMALL_REFERENCE = 3_000
SMALL_PAIRS = (
    (1_000, 500, 16), (1_000, 2_000, 2),
    (3_000, 500, 14), (3_000, 1_000, 10), (3_000, 2_000, 6),
    (5_000, 500, 14), (5_000, 1_000, 10), (5_000, 2_000, 6),
)  # fmt: skip
"""Documents of the reference, of a candidate, and the largest number of disjoint candidates."""
SMALL_PARTS = {
    ("replace", 10_000, 1): 2, ("replace", 10_000, 2): 5, ("replace", 5_000, 2): 2, ("replace", 3_000, 2): 1,
    ("truncated", 10_000, 1): 1, ("filtered", 10_000, 1): 1,
}  # fmt: skip
"""Number of disjoint candidates of 2,000 documents, by regime, training documents and generation."""
LATE_GENERATIONS = (6, 8, 10)
"""Of replacement: text that lost most of its words must not pass as another kind of text."""
LOST_SHARES = (0.1, 0.2, 0.3)
"""Shares of the hapax mass that are removed from real text."""
GRID = (500, 1_000, 2_000, 5_000, 20_000)
"""Documents of the reference and of the candidate."""
GRID_PARTS = {500: 5, 1_000: 4, 2_000: 3, 5_000: 2, 20_000: 1}
"""Number of disjoint candidates, by their size."""


class RealCorpus(NamedTuple):
    """A corpus in numbers."""

    name: str
    texts: Texts
    vocabulary: dict[str, int]

    @classmethod
    def load(cls, name: str, folder: Path, reader: Reader | None = None) -> "RealCorpus":
        vocabulary: dict[str, int] = {}
        texts = load_corpus(name, folder, reader)
        found = TokenCorpus.from_words([split_into_words(text) for text in texts], vocabulary)
        return cls(name, Texts(found.ids, found.lengths), vocabulary)

    def reference(self, places: Ints) -> ReferenceCorpus:
        return ReferenceCorpus.from_corpus(convert_to_corpus(self.texts.take(places)), dict(self.vocabulary), self.name)


def convert_to_corpus(texts: Texts) -> TokenCorpus:
    """The documents that have a word."""
    there = texts.lengths > 0
    return TokenCorpus(texts.ids, (np.cumsum(texts.lengths) - texts.lengths)[there], texts.lengths[there])


def draw_texts(texts: Texts, count: int, random: np.random.Generator) -> Texts:
    return texts.take(random.permutation(len(texts))[:count])


def run_trial(candidate: Texts, reference: ReferenceCorpus, folder: Path, **about: Any) -> dict[str, Any]:
    found = compare_with_reference(convert_to_corpus(candidate), reference, seed=len(candidate), cache=folder / "nulls")
    if found is None:
        return {**about, "n": len(candidate), "documents": 0}
    seen = found.evidence
    return {
        **about, "n": len(candidate), "documents": seen.documents, "topics": round(seen.topics, 2),
        "loss_deviation": round(seen.loss_deviation, 5),
        **{name: {key: round(value, 5) for key, value in getattr(seen, name).items()} for name in ("z", "change", "real")},
    }  # fmt: skip


def real_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Real text against real text: random splits of the corpus into a reference and disjoint candidates."""
    plans = ((500, 5_000, 25, 6), (2_000, 10_000, 8, 6), (10_000, 30_000, 3, 1))
    for size, most, candidates, splits in plans:
        for split in range(splits):
            order = np.random.default_rng([size, split]).permutation(len(real.texts))
            count = min(candidates, max(1, (len(order) - most) // size))
            size_here = min(size, len(order) - 2 * size) if len(order) < 3 * size else size
            reference = real.reference(order[count * size_here :][:most])
            for k in range(count):
                places = order[k * size_here : (k + 1) * size_here]
                yield run_trial(real.texts.take(places), reference, folder, kind="real", size=size, split=split, part=k)


def regime_trials(real: RealCorpus, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Every regime, generation by generation, at several sizes; the generator never sees the reference."""
    train, reference = _split_corpus(real)
    for regime in REGIMES:
        for generation, texts in enumerate(generate_texts(train, regime, GENERATIONS, seed), 1):
            random = np.random.default_rng([seed, generation])
            order = random.permutation(len(texts))
            for size in SIZES:
                for part in range(EXTRA_PARTS.get((regime, size, generation), PARTS.get((size, generation), 0))):
                    candidate = texts.take(order[part * size : (part + 1) * size])
                    about = {"kind": regime, "generation": generation, "seed": seed, "size": size, "part": part}
                    yield run_trial(candidate, reference, folder, **about)


def _split_corpus(real: RealCorpus) -> tuple[Texts, ReferenceCorpus]:
    """Training documents of the generators, and a disjoint reference."""
    places = np.arange(len(real.texts))
    return real.texts.take(places[:TRAIN]), real.reference(places[TRAIN:][:30_000])


def changed_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Changed real text: changes that must not be a collapse, and changes that must."""
    train, reference = _split_corpus(real)
    for size in SIZES:
        for seed in range(3):
            random = np.random.default_rng([seed, size])
            fresh = draw_texts(train, size, random)
            for kind, change in CHANGES.items():
                if kind == "spelled" and size == SIZES[-1]:
                    continue
                texts = change(fresh, train, reference, random)
                yield run_trial(texts, reference, folder, kind=kind, size=size, seed=seed)


def shorten_texts(texts: Texts, train: Texts, reference: ReferenceCorpus, random: np.random.Generator) -> Texts:
    """Every document truncated to three fifths."""
    lengths = np.maximum(texts.lengths * 6 // 10, 1)
    return Texts(convert_to_corpus(texts).take_sample(np.arange(len(texts)), lengths).ids, lengths)


def reweight_topics(texts: Texts, train: Texts, reference: ReferenceCorpus, random: np.random.Generator) -> Texts:
    """Real documents, with topics of the reference weighted between a tenth and ten times."""
    topics = reference.topics.assign(convert_to_corpus(train))
    weights = 10 ** random.uniform(-1, 1, reference.topics.topic_count)
    probability = weights[topics]
    places = random.choice(len(train), len(texts), replace=False, p=probability / probability.sum())
    return train.take(np.sort(places))


def drop_topics(texts: Texts, train: Texts, reference: ReferenceCorpus, random: np.random.Generator) -> Texts:
    """Real documents of half of the topics."""
    topics = reference.topics.assign(convert_to_corpus(train))
    kept = random.permutation(reference.topics.topic_count)[: reference.topics.topic_count // 2]
    candidates = np.flatnonzero(np.isin(topics, kept))
    return train.take(random.permutation(candidates)[: len(texts)])


def add_templates(texts: Texts, train: Texts, reference: ReferenceCorpus, random: np.random.Generator) -> Texts:
    """Three tenths of the documents get one of five real openings of three words."""
    corpus_ = convert_to_corpus(texts)
    ids = texts.ids.copy()
    begins = [int(start) for start, length in zip(corpus_.starts, corpus_.lengths, strict=True) if length >= 3]
    models = [ids[start : start + 3].copy() for start in begins[:5]]
    for start in random.permutation(begins)[: len(texts) * 3 // 10]:
        ids[start : start + 3] = models[int(random.integers(5))]
    return Texts(ids, texts.lengths)


def double_texts(texts: Texts, train: Texts, reference: ReferenceCorpus, random: np.random.Generator) -> Texts:
    """The same number of documents, sampled with replacement from half of them."""
    return texts.take(random.integers(0, len(texts) // 2, len(texts)))


def spell_words(texts: Texts, train: Texts, reference: ReferenceCorpus, random: np.random.Generator) -> Texts:
    """The output of a 4-gram letter model of real documents: many words of no language."""
    words = list(reference.vocabulary)
    letters = sorted({letter for word in words for letter in word} | {" "})
    number = {letter: i for i, letter in enumerate(letters)}
    part = convert_to_corpus(train)
    lines = [" ".join(words[i] for i in part.ids[start : start + length])
             for start, length in zip(part.starts[: len(texts)], part.lengths[: len(texts)], strict=True)]  # fmt: skip
    ids = np.array([number[letter] for line in lines for letter in line], dtype=np.int64)
    model = Generator.fit(Texts(ids, np.array(list(map(len, lines)))))
    written = model.write(len(texts), random, longest=250)
    ends = np.cumsum(written.lengths)
    made = ["".join(letters[i] for i in written.ids[end - length : end]).split()
            for end, length in zip(ends, written.lengths, strict=True)]  # fmt: skip
    found = TokenCorpus.from_words(made, reference.vocabulary)
    return Texts(found.ids, found.lengths)


CHANGES: dict[str, Callable[[Texts, Texts, ReferenceCorpus, np.random.Generator], Texts]] = {
    "shortened": shorten_texts,
    "reweighted": reweight_topics,
    "dropped": drop_topics,
    "templated": add_templates,
    "doubled": double_texts,
    "spelled": spell_words,
}


def mixed_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Ten thousand documents: a fifth collapsed, the rest real and not in the reference."""
    train, reference = _split_corpus(real)
    for seed in SEEDS[:1]:
        for regime in ("replace", "truncated"):
            last = list(generate_texts(train, regime, GENERATIONS, seed))[-1]
            random = np.random.default_rng([seed, 20])
            texts = draw_texts(last, 2_000, random).plus(draw_texts(train, 8_000, random))
            yield run_trial(texts, reference, folder, kind=f"mixed_{regime}", size=10_000, seed=seed)


def other_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Real text of another kind: each other corpus."""
    _, reference = _split_corpus(real)
    for name in sorted(set(CORPUS_READERS) - {real.name}):
        vocabulary = reference.vocabulary
        found = TokenCorpus.from_words(
            [split_into_words(text) for text in load_corpus(name, folder)[:12_000]], vocabulary
        )
        other = Texts(found.ids, found.lengths)
        for size in SIZES[1:2]:
            for seed in range(2):
                texts = draw_texts(other, size, np.random.default_rng([seed, size]))
                yield run_trial(texts, reference, folder, kind=f"other_{name}", size=size, seed=seed)


def small_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """A reference of 3,000 documents and candidates of 2,000: written, changed, with fewer rare words, and of another kind."""
    random = np.random.default_rng(SMALL_REFERENCE)
    order = random.permutation(len(real.texts))
    train, places = real.texts.take(order[:TRAIN]), order[TRAIN:][:SMALL_REFERENCE]
    reference, size = real.reference(places), 2_000
    run = partial(run_trial, reference=reference, folder=folder, reference_size=SMALL_REFERENCE, size=size)
    for (regime, count, generation), parts in SMALL_PARTS.items():
        written = list(generate_texts(train.take(np.arange(count)), regime, generation, seed=count))[-1]
        shuffled = random.permutation(len(written))
        for part in range(parts):
            about = {"train": count, "generation": generation, "part": part}
            yield run(written.take(shuffled[part * size : (part + 1) * size]), kind=f"small_{regime}", **about)
    for seed in range(2):
        fresh = train.take(np.arange(seed * size, (seed + 1) * size))
        for kind, change in CHANGES.items():
            if kind != "spelled" or seed == 0:
                yield run(change(fresh, train, reference, random), kind=f"small_{kind}", seed=seed)
        for share in LOST_SHARES:
            yield run(lose_rare_words(fresh, share, size, random), kind="small_lost", share=share, seed=seed)
    yield from _small_other_trials(real, reference, folder)


def _small_other_trials(real: RealCorpus, reference: ReferenceCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Each other corpus; of the bible, each Testament against the other."""
    sides = dict.fromkeys(sorted(set(CORPUS_READERS) - {real.name}), reference)
    others = {name: load_corpus(name, folder)[:2_000] for name in sides}
    if real.name == "bible":
        testaments = load_testaments(folder)
        for name, texts in testaments.items():
            rest = next(other for key, other in testaments.items() if key != name)
            sides[name] = ReferenceCorpus.from_texts(rest[:SMALL_REFERENCE], f"without {name}")
            others[name] = texts[:2_000]
    for name, compared in sides.items():
        found = TokenCorpus.from_words([split_into_words(text) for text in others[name]], compared.vocabulary)
        about = {"kind": f"small_other_{name}", "size": 2_000, "reference_size": SMALL_REFERENCE}
        yield run_trial(Texts(found.ids, found.lengths), compared, folder, **about)


def late_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Late generations of replacement, with a reference of 3,000 documents and candidates of 2,000."""
    random = np.random.default_rng(SMALL_REFERENCE)
    order = random.permutation(len(real.texts))
    train, reference = real.texts.take(order[: TRAIN // 2]), real.reference(order[TRAIN:][:SMALL_REFERENCE])
    for generation, texts in enumerate(generate_texts(train, "replace", max(LATE_GENERATIONS), seed=1), 1):
        if generation in LATE_GENERATIONS:
            about = {"kind": "small_replace", "train": TRAIN // 2, "generation": generation, "size": 2_000}
            yield run_trial(
                draw_texts(texts, 2_000, random), reference, folder, reference_size=SMALL_REFERENCE, **about
            )


def small_real_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Real text against small references of the same corpus."""
    largest = max(count for count, _, _ in SMALL_PAIRS)
    order = np.random.default_rng(largest).permutation(len(real.texts))
    others = order[largest:]
    references = {count: real.reference(order[:count]) for count in sorted({count for count, _, _ in SMALL_PAIRS})}
    for count, size, most in SMALL_PAIRS:
        for part in range(min(most, len(others) // size)):
            texts = real.texts.take(others[part * size : (part + 1) * size])
            about = {"kind": "small_real", "size": size, "reference_size": count, "part": part}
            yield run_trial(texts, references[count], folder, **about)


def size_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """Every size of reference with every size of candidate: real text, real text without a fifth of its hapax mass, and text of
    a generator in its first and second generation.
    """
    random = np.random.default_rng(sum(GRID))
    order = random.permutation(len(real.texts))
    train, rest = real.texts.take(order[:TRAIN]), order[TRAIN:]
    first = Generator.fit(Generator.fit(train).write(TRAIN, random))
    written = {1: Generator.fit(train).write(max(GRID), random), 2: first.write(max(GRID), random)}
    for count in GRID:
        if count > len(rest):
            continue
        reference, others = real.reference(rest[:count]), np.concatenate([order[:TRAIN], rest[count:]])
        for size in GRID:
            for part in range(min(GRID_PARTS[size], len(others) // size)):
                about = {"size": size, "reference_size": count, "part": part}
                fresh = real.texts.take(others[part * size : (part + 1) * size])
                compared = min(size, count // REFERENCE_SAMPLES)
                lost = lose_rare_words(fresh, 0.2, compared, random)
                yield run_trial(fresh, reference, folder, kind="sizes_real", **about)
                yield run_trial(lost, reference, folder, kind="sizes_lost", share=0.2, **about)
                for generation, texts in written.items():
                    candidate = draw_texts(texts, size, random)
                    yield run_trial(candidate, reference, folder, kind="sizes_replace", generation=generation, **about)


def lose_rare_words(texts: Texts, share: float, compared: int, random: np.random.Generator) -> Texts:
    """Real text without a random share of its rare words, so that its hapax mass falls by `share`.

    A word is rare if at most two of `compared` documents have it. Removing a share q of these words leaves 1 - q of the hapaxes
    and 1 - q r of the (word, document) pairs, where r is the share of pairs with a rare word: q = share / (1 - r + share r).
    """
    holders = count_documents_by_word(TokenSample(texts.ids, texts.lengths))
    rare = np.flatnonzero((holders > 0) & (holders <= TAIL_COUNT * max(1, len(texts) / compared)))
    mass = holders[rare].sum() / holders.sum()
    lost = rare[random.random(len(rare)) < share / (1 - mass + share * mass)]
    kept = ~np.isin(texts.ids, lost)
    owner = np.repeat(np.arange(len(texts)), texts.lengths)
    return Texts(texts.ids[kept], np.bincount(owner[kept], minlength=len(texts)))


def shown_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """The diversity metrics, which do not affect the verdict, over generations."""
    train, reference = _split_corpus(real)
    for regime in ("replace",):
        for generation, texts in enumerate(generate_texts(train, regime, GENERATIONS, 1), 1):
            record = assess_corpus(
                convert_to_corpus(draw_texts(texts, 4_000, np.random.default_rng(1))),
                reference,
                seed=1,
                cache=folder / "nulls",
            )
            values = {m.name: (round(m.candidate, 4), round(m.reference, 4)) for m in record.metrics}
            yield {"kind": regime, "generation": generation, "values": values}


def cost_trials(real: RealCorpus, folder: Path) -> Iterator[dict[str, Any]]:
    """CPU seconds of `assess_texts`, from texts, with and without a stored null distribution."""
    texts = load_corpus(real.name, folder)
    with TemporaryDirectory() as cache:
        for size in (1_250, 2_500, 5_000, 10_000):
            for null in ("computed", "read"):
                began = time.process_time()
                assess_texts(texts[:size], texts[TRAIN:], name=real.name, seed=1, cache=Path(cache))
                yield {"kind": null, "size": size, "seconds": round(time.process_time() - began, 2)}


KINDS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "real": real_trials,
    **{f"regimes{seed}": partial(regime_trials, seed=seed) for seed in SEEDS},
    "changed": changed_trials,
    "mixed": mixed_trials,
    "other": other_trials,
    "small": small_trials,
    "small_real": small_real_trials,
    "late": late_trials,
    "sizes": size_trials,
    "shown": shown_trials,
    "cost": cost_trials,
}


def run_trials(names: list[str], kinds: list[str], folder: Path) -> None:
    """Run the missing trials."""
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        for name in names:
            path = folder / "trials" / f"{name}-{kind}.jsonl"
            if path.exists():
                continue
            unfinished = path.with_suffix(".partial")
            with unfinished.open("w", encoding="utf-8") as file:
                for trial in KINDS[kind](RealCorpus.load(name, folder), folder):
                    file.write(json.dumps({"corpus": name, **trial}) + "\n")
                    file.flush()
            unfinished.rename(path)


def main() -> None:
    """`python -m benchmarks.collapse.trials FOLDER [KIND ...]`"""
    folder = Path(sys.argv[1])
    run_trials(list(CORPUS_READERS), sys.argv[2:] or list(KINDS), folder)


if __name__ == "__main__":
    main()
