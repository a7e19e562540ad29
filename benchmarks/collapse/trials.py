"""What the gate finds of texts whose nature is known: real ones, collapsed ones, and real ones that were changed.

Each trial is one line of JSON in `<folder>/trials/<corpus>-<kind>.jsonl`, so that limits can be looked at without
measuring again. Trials that are there are not made again. Judges nothing itself: `tables` does.
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

from benchmarks.collapse.corpora import MAKERS, corpus
from benchmarks.collapse.generators import REGIMES, Generator, Texts, generations
from filters.collapse import assess, examine, measure
from filters.draws import Corpus, tokens
from filters.reference import Reference

Ints = npt.NDArray[np.int64]

TRAIN = 10_000
GENERATIONS = 4
SIZES = (500, 2_000, 4_000)
SEEDS = (1, 2)
PARTS = {(500, 1): 1, **{(size, generation): 1 for size in (2_000, 4_000) for generation in (1, 2, 3, 4)}}
"""How many disjoint candidates are taken, by size and generation."""
MORE = {
    **{(regime, 500, 1): 5 for regime in ("filtered", "truncated")},
    ("replace", 2_000, 2): 5,
    ("replace", 4_000, 1): 2,
    ("verified", 500, 4): 5,
    ("verified", 2_000, 4): 5,
    ("verified", 4_000, 4): 2,
}
"""The same for what the goals name."""


class Real(NamedTuple):
    """A corpus in numbers."""

    name: str
    texts: Texts
    vocabulary: dict[str, int]

    @classmethod
    def load(cls, name: str, folder: Path) -> "Real":
        vocabulary: dict[str, int] = {}
        found = Corpus.of([tokens(text) for text in corpus(name, folder)], vocabulary)
        return cls(name, Texts(found.ids, found.lengths), vocabulary)

    def reference(self, places: Ints) -> Reference:
        return Reference.learn(as_corpus(self.texts.take(places)), dict(self.vocabulary), self.name)


def as_corpus(texts: Texts) -> Corpus:
    """The documents that have a word."""
    there = texts.lengths > 0
    return Corpus(texts.ids, (np.cumsum(texts.lengths) - texts.lengths)[there], texts.lengths[there])


def sample(texts: Texts, count: int, random: np.random.Generator) -> Texts:
    return texts.take(random.permutation(len(texts))[:count])


def trial(candidate: Texts, reference: Reference, folder: Path, **about: Any) -> dict[str, Any]:
    found = examine(as_corpus(candidate), reference, seed=len(candidate), cache=folder / "nulls")
    if found is None:
        return {**about, "n": len(candidate), "documents": 0}
    seen = found.evidence
    return {
        **about, "n": len(candidate), "documents": seen.documents, "topics": round(seen.topics, 2),
        **{name: {key: round(value, 5) for key, value in getattr(seen, name).items()} for name in ("z", "change", "real")},
    }  # fmt: skip


def real_trials(real: Real, folder: Path) -> Iterator[dict[str, Any]]:
    """Real against real: the corpus is parted anew into a reference and candidates that share no document."""
    plans = ((500, 5_000, 25, 6), (2_000, 10_000, 8, 6), (10_000, 30_000, 3, 1))
    for size, most, candidates, splits in plans:
        for split in range(splits):
            order = np.random.default_rng([size, split]).permutation(len(real.texts))
            count = min(candidates, max(1, (len(order) - most) // size))
            size_here = min(size, len(order) - 2 * size) if len(order) < 3 * size else size
            reference = real.reference(order[count * size_here :][:most])
            for k in range(count):
                places = order[k * size_here : (k + 1) * size_here]
                yield trial(real.texts.take(places), reference, folder, kind="real", size=size, split=split, part=k)


def regime_trials(real: Real, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Every regime, generation by generation, at several sizes; the generator never sees the reference."""
    train, reference = _parted(real)
    for regime in REGIMES:
        for generation, texts in enumerate(generations(train, regime, GENERATIONS, seed), 1):
            random = np.random.default_rng([seed, generation])
            order = random.permutation(len(texts))
            for size in SIZES:
                for part in range(MORE.get((regime, size, generation), PARTS.get((size, generation), 0))):
                    candidate = texts.take(order[part * size : (part + 1) * size])
                    about = {"kind": regime, "generation": generation, "seed": seed, "size": size, "part": part}
                    yield trial(candidate, reference, folder, **about)


def _parted(real: Real) -> tuple[Texts, Reference]:
    """What generators are trained on, and a reference that shares nothing with it."""
    places = np.arange(len(real.texts))
    return real.texts.take(places[:TRAIN]), real.reference(places[TRAIN:][:30_000])


def changed_trials(real: Real, folder: Path) -> Iterator[dict[str, Any]]:
    """Real text that was changed: what must not be called collapse, and what must."""
    train, reference = _parted(real)
    for size in SIZES:
        for seed in range(3):
            random = np.random.default_rng([seed, size])
            fresh = sample(train, size, random)
            for kind, change in CHANGES.items():
                if kind == "spelled" and size == SIZES[-1]:
                    continue
                texts = change(fresh, train, reference, random)
                yield trial(texts, reference, folder, kind=kind, size=size, seed=seed)


def shortened(texts: Texts, train: Texts, reference: Reference, random: np.random.Generator) -> Texts:
    """Every document cut to three fifths."""
    lengths = np.maximum(texts.lengths * 6 // 10, 1)
    return Texts(as_corpus(texts).draw(np.arange(len(texts)), lengths).ids, lengths)


def reweighted(texts: Texts, train: Texts, reference: Reference, random: np.random.Generator) -> Texts:
    """Real documents, each topic of the reference taken with a weight between a tenth and ten times."""
    topics = reference.topics.assign(as_corpus(train))
    weights = 10 ** random.uniform(-1, 1, reference.topics.groups)
    chance = weights[topics]
    places = random.choice(len(train), len(texts), replace=False, p=chance / chance.sum())
    return train.take(np.sort(places))


def dropped(texts: Texts, train: Texts, reference: Reference, random: np.random.Generator) -> Texts:
    """Real documents of half of the topics."""
    topics = reference.topics.assign(as_corpus(train))
    kept = random.permutation(reference.topics.groups)[: reference.topics.groups // 2]
    there = np.flatnonzero(np.isin(topics, kept))
    return train.take(random.permutation(there)[: len(texts)])


def templated(texts: Texts, train: Texts, reference: Reference, random: np.random.Generator) -> Texts:
    """Three tenths of the documents get one of five real openings of three words."""
    corpus_ = as_corpus(texts)
    ids = texts.ids.copy()
    begins = [int(start) for start, length in zip(corpus_.starts, corpus_.lengths, strict=True) if length >= 3]
    models = [ids[start : start + 3].copy() for start in begins[:5]]
    for start in random.permutation(begins)[: len(texts) * 3 // 10]:
        ids[start : start + 3] = models[int(random.integers(5))]
    return Texts(ids, texts.lengths)


def doubled(texts: Texts, train: Texts, reference: Reference, random: np.random.Generator) -> Texts:
    """As many documents, drawn with replacement from half of them."""
    return texts.take(random.integers(0, len(texts) // 2, len(texts)))


def spelled(texts: Texts, train: Texts, reference: Reference, random: np.random.Generator) -> Texts:
    """What a model of four letters writes that was trained on real documents: many words of no language."""
    words = list(reference.vocabulary)
    letters = sorted({letter for word in words for letter in word} | {" "})
    number = {letter: i for i, letter in enumerate(letters)}
    part = as_corpus(train)
    lines = [" ".join(words[i] for i in part.ids[start : start + length])
             for start, length in zip(part.starts[: len(texts)], part.lengths[: len(texts)], strict=True)]  # fmt: skip
    ids = np.array([number[letter] for line in lines for letter in line], dtype=np.int64)
    model = Generator.fit(Texts(ids, np.array(list(map(len, lines)))))
    written = model.write(len(texts), random, longest=250)
    ends = np.cumsum(written.lengths)
    made = ["".join(letters[i] for i in written.ids[end - length : end]).split()
            for end, length in zip(ends, written.lengths, strict=True)]  # fmt: skip
    found = Corpus.of(made, reference.vocabulary)
    return Texts(found.ids, found.lengths)


CHANGES: dict[str, Callable[[Texts, Texts, Reference, np.random.Generator], Texts]] = {
    "shortened": shortened,
    "reweighted": reweighted,
    "dropped": dropped,
    "templated": templated,
    "doubled": doubled,
    "spelled": spelled,
}


def mixed_trials(real: Real, folder: Path) -> Iterator[dict[str, Any]]:
    """Ten thousand documents, a fifth of them collapsed, the rest real ones that the reference does not have."""
    train, reference = _parted(real)
    for seed in SEEDS[:1]:
        for regime in ("replace", "truncated"):
            last = list(generations(train, regime, GENERATIONS, seed))[-1]
            random = np.random.default_rng([seed, 20])
            texts = sample(last, 2_000, random).plus(sample(train, 8_000, random))
            yield trial(texts, reference, folder, kind=f"mixed_{regime}", size=10_000, seed=seed)


def other_trials(real: Real, folder: Path) -> Iterator[dict[str, Any]]:
    """Real text of another kind: each other corpus; of the bible, each Testament against the other."""
    _, reference = _parted(real)
    for name in sorted(set(MAKERS) - {real.name}):
        vocabulary = reference.vocabulary
        found = Corpus.of([tokens(text) for text in corpus(name, folder)[:12_000]], vocabulary)
        other = Texts(found.ids, found.lengths)
        for size in SIZES[1:2]:
            for seed in range(2):
                texts = sample(other, size, np.random.default_rng([seed, size]))
                yield trial(texts, reference, folder, kind=f"other_{name}", size=size, seed=seed)


def shown_trials(real: Real, folder: Path) -> Iterator[dict[str, Any]]:
    """The diversity numbers that do not gate, over generations."""
    train, reference = _parted(real)
    for regime in ("replace",):
        for generation, texts in enumerate(generations(train, regime, GENERATIONS, 1), 1):
            record = assess(
                as_corpus(sample(texts, 4_000, np.random.default_rng(1))), reference, seed=1, cache=folder / "nulls"
            )
            values = {m.name: (round(m.candidate, 4), round(m.reference, 4)) for m in record.metrics}
            yield {"kind": regime, "generation": generation, "values": values}


def cost_trials(real: Real, folder: Path) -> Iterator[dict[str, Any]]:
    """CPU seconds of `measure`, from texts, with the null there and without."""
    texts = corpus(real.name, folder)
    with TemporaryDirectory() as cache:
        for size in (1_250, 2_500, 5_000, 10_000):
            for null in ("computed", "read"):
                began = time.process_time()
                measure(texts[:size], texts[TRAIN:], name=real.name, seed=1, cache=Path(cache))
                yield {"kind": null, "size": size, "seconds": round(time.process_time() - began, 2)}


KINDS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "real": real_trials,
    **{f"regimes{seed}": partial(regime_trials, seed=seed) for seed in SEEDS},
    "changed": changed_trials,
    "mixed": mixed_trials,
    "other": other_trials,
    "shown": shown_trials,
    "cost": cost_trials,
}


def run(names: list[str], kinds: list[str], folder: Path) -> None:
    """Make the trials that are not there."""
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        for name in names:
            path = folder / "trials" / f"{name}-{kind}.jsonl"
            if path.exists():
                continue
            unfinished = path.with_suffix(".partial")
            with unfinished.open("w", encoding="utf-8") as file:
                for one in KINDS[kind](Real.load(name, folder), folder):
                    file.write(json.dumps({"corpus": name, **one}) + "\n")
                    file.flush()
            unfinished.rename(path)


def main() -> None:
    """`python -m benchmarks.collapse.trials FOLDER [KIND ...]`"""
    folder = Path(sys.argv[1])
    run(list(MAKERS), sys.argv[2:] or list(KINDS), folder)


if __name__ == "__main__":
    main()
