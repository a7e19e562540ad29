"""Whether samples from seeds of gaps close them, next to samples from random seeds, and to seeds of gaps without the filter."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.features.measured_texts import LEARNED, RANDOM, Bench, BoolArray, Corpus
from benchmarks.features.planted_gaps import PROPERTIES, find_lacking, find_thresholds, truncate_to_equal_lengths
from core.config.teachers import TeacherConfig
from core.sample import Message
from filters.collapse.matched_samples import match_lengths, split_into_words
from plugins.features.feature_gaps import EXAMPLES, truncate_texts
from plugins.features.lacking_features import PooledFeatures, choose_examples, choose_gap_documents
from teachers.base import TeacherQuestion, UnlimitedAccount
from teachers.providers import open_teacher

TEACHER = "local/smollm2-135m"
LOOP_PROPERTIES = ("brackets",)
"""Each is taken out in a loop of its own. Of one, samples of the embedded teacher take half an hour on two shared cores."""
FILTERED, UNFILTERED, BY_CHANCE = "features, filtered", "features", "random"
"""What the seeds of an arm are of; `filtered` keeps the samples that show the feature of their seed."""
BATCH_OF_SAMPLES = 50
"""Samples that are stored together."""
RESAMPLES = 100
TASK = "Write a text of one or two sentences."


class GuidedSeed(NamedTuple):
    """Passages that the teacher is shown, the last one chosen for what it covers, and the feature that they share."""

    passages: list[str]
    feature: int


def measure_loop(bench: Bench) -> dict[str, Any]:
    """By property; without those that are not measured, if only stored ones are wanted."""
    rows = {}
    for name in LOOP_PROPERTIES:
        if row := bench.measure(f"loop {name}", lambda name=name: measure_closing(bench, name)):  # type: ignore[misc]
            rows[name] = row
    return rows


def measure_closing(bench: Bench, name: str) -> dict[str, Any]:
    """Documents of one half without the property get samples of the embedded teacher, an equal number from each kind of seeds. A
    gap is closed if the half with the samples no longer lacks it. Samples that repeat a passage that the teacher was shown count
    in no arm.
    """
    size = bench.size
    has = np.array([PROPERTIES[name](text) for text in bench.corpus.texts])
    half = np.random.default_rng(2).random(len(has)) < 0.5
    places = (np.flatnonzero(half & ~has), np.flatnonzero(~half))
    own, real = truncate_to_equal_lengths(bench, places)
    passages = [bench.corpus.texts[place] for place in places[1]]
    seeds = choose_seeds(own, real, passages, size.candidates)
    made = {
        BY_CHANCE: write_stored_samples(bench, "random seeds", draw_random_passages(passages, size.samples)),
        UNFILTERED: write_stored_samples(bench, f"{name} features", [seed.passages for seed in seeds]),
    }
    shown = find_shown(bench, real, made[UNFILTERED].samples, seeds)
    made[FILTERED] = made[UNFILTERED].take(shown)
    arms = {arm: made[arm].take(~made[arm].copied) for arm in (FILTERED, UNFILTERED, BY_CHANCE)}
    added = min(size.samples, *(len(arm.samples) for arm in arms.values()))
    result: dict[str, Any] = {"documents": len(own.texts), "share": float(has.mean()), "added": added, "arms": {}}
    for arm, kept in arms.items():
        samples = kept.samples[:added]
        result["arms"][arm] = {
            "made": len(made[BY_CHANCE if arm == BY_CHANCE else UNFILTERED].samples),
            "kept": len(kept.samples),
            "copied": int(made[arm].copied.sum()),
            "with the property": float(np.mean([PROPERTIES[name](sample) for sample in samples])) if samples else 0.0,
            **count_closed(bench, own, real, samples),
        }
    return result


class WrittenSamples(NamedTuple):
    """Samples of the teacher, and which of them repeat a passage that the teacher was shown."""

    samples: list[str]
    copied: BoolArray

    def take(self, wanted: BoolArray) -> "WrittenSamples":
        return WrittenSamples([self.samples[place] for place in np.flatnonzero(wanted)], self.copied[wanted])


def choose_seeds(own: Corpus, real: Corpus, passages: Sequence[str], most: int) -> list[GuidedSeed]:
    """Seeds as `stillhouse gaps --by features` chooses them. None without a gap."""
    lacking, present = find_lacking(own.get(LEARNED), real.get(LEARNED), find_thresholds(LEARNED, real))
    seeds = []
    for place, latents in choose_gap_documents(present, lacking, most):
        feature = int(latents[0])
        examples = choose_examples(present, feature, place, EXAMPLES)
        seeds.append(GuidedSeed([passages[other] for other in (*examples, place)], feature))
    return seeds


def draw_random_passages(passages: Sequence[str], count: int) -> list[list[str]]:
    """As many passages for each sample as a guided seed has."""
    generator = np.random.default_rng(3)
    return [
        [passages[place] for place in generator.choice(len(passages), EXAMPLES + 1, replace=False)]
        for _ in range(count)
    ]


def find_shown(bench: Bench, real: Corpus, samples: Sequence[str], seeds: Sequence[GuidedSeed]) -> BoolArray:
    """What the filter `features` keeps: samples in which the feature of their seed reaches its threshold."""
    thresholds = find_thresholds(LEARNED, real)
    present = bench.reader.pool(bench.reader.encode(samples)).learned.keep_present(thresholds)
    return np.array([seed.feature in present.find_latents(place) for place, seed in enumerate(seeds)], dtype=bool)


def write_stored_samples(bench: Bench, name: str, shown: Sequence[Sequence[str]]) -> WrittenSamples:
    """One text of the embedded teacher for each group of passages, stored batch by batch."""
    samples: list[str] = []
    for start in range(0, len(shown), BATCH_OF_SAMPLES):
        batch = shown[start : start + BATCH_OF_SAMPLES]
        samples += bench.measure(
            f"samples {name} {start}", lambda batch=batch, start=start: write_samples(batch, start)
        )  # type: ignore[misc]
    copied = [
        not one or any(is_copy(one, passage) for passage in group) for one, group in zip(samples, shown, strict=True)
    ]
    return WrittenSamples(samples, np.array(copied, dtype=bool))


def write_samples(shown: Sequence[Sequence[str]], first_seed: int = 0) -> list[str]:
    """One text of the embedded teacher for each group of passages, which are its own earlier answers to the same task."""

    async def write() -> list[str]:
        config = TeacherConfig(model=TEACHER, max_concurrent=8)
        slots = asyncio.Semaphore(config.max_concurrent)
        async with open_teacher(config) as teacher:

            async def ask(number: int, passages: Sequence[str]) -> str:
                messages = [
                    message
                    for passage in passages
                    for message in (Message(role="user", content=TASK), Message(role="assistant", content=passage))
                ]
                question = TeacherQuestion(
                    messages=[*messages, Message(role="user", content=TASK)], contract="Text", json_schema=None,
                    temperature=0.8, top_p=0.95, max_tokens=64, seed=number,
                )  # fmt: skip
                async with slots:
                    reply = await teacher.reply(question, number, UnlimitedAccount())
                return " ".join(reply.text.split())

            return await asyncio.gather(*(ask(number, passages) for number, passages in enumerate(shown, first_seed)))

    return asyncio.run(write())


def is_copy(sample: str, passage: str) -> bool:
    """Whether half of the sample's runs of five words are in the passage."""
    own, other = (
        {tuple(words[start : start + 5]) for start in range(len(words) - 4)}
        for words in (split_into_words(sample), split_into_words(passage))
    )
    return bool(own) and len(own & other) >= len(own) / 2


def count_closed(bench: Bench, own: Corpus, real: Corpus, samples: Sequence[str]) -> dict[str, Any]:
    """Gaps that each dictionary finds before, those that the samples close, cut to the lengths of the dataset, and those that
    they open; with a 95 % interval of the closed ones over samples that are drawn again from these.
    """
    encoded = bench.reader.encode(samples)
    lengths = np.array([len(text.ids) for text in encoded], dtype=np.int64)
    cuts, _ = match_lengths(lengths, own.tokens) if samples else (lengths, lengths)
    added = bench.reader.pool(truncate_texts(encoded, cuts))
    generator = np.random.default_rng(7)
    draws = [generator.integers(0, len(samples), len(samples)) for _ in range(RESAMPLES)] if samples else []
    counted: dict[str, Any] = {}
    for arm, samples_of_arm in ((LEARNED, added.learned), (RANDOM, added.random)):
        reference, before, thresholds = real.get(arm), own.get(arm), find_thresholds(arm, real)
        found = _find_gaps(before, reference, thresholds)
        joined = join_documents(before, samples_of_arm)
        left = _find_gaps(joined, reference, thresholds)
        counted[arm] = {"found": len(found), "closed": len(found - left), "opened": len(left - found)}
        if arm == LEARNED and draws:
            kept = np.arange(len(before))
            closed = [
                len(found - _find_gaps(joined.take(np.concatenate([kept, len(before) + draw])), reference, thresholds))
                for draw in draws
            ]
            counted[arm]["interval"] = [int(np.percentile(closed, 2.5)), int(np.percentile(closed, 97.5))]
    return counted


def _find_gaps(own: PooledFeatures, reference: PooledFeatures, thresholds: npt.NDArray[np.float64]) -> set[int]:
    return set(find_lacking(own, reference, thresholds)[0].places.tolist())


def join_documents(one: PooledFeatures, other: PooledFeatures) -> PooledFeatures:
    """The documents of both."""
    rows = [
        (side.find_latents(place), side.values[side.starts[place] : side.starts[place + 1]])
        for side in (one, other)
        for place in range(len(side))
    ]
    return PooledFeatures.from_documents(rows, one.size)


def check_loop(loop: dict[str, Any]) -> None:
    """Raises RuntimeError if random seeds close as many gaps as seeds of features with the filter."""
    for name, row in loop.items():
        closed = {arm: row["arms"][arm][LEARNED]["closed"] for arm in (FILTERED, BY_CHANCE)}
        if closed[BY_CHANCE] >= closed[FILTERED]:
            raise RuntimeError(
                f"{name}: random seeds close {closed[BY_CHANCE]} gaps, seeds of features {closed[FILTERED]}"
            )
