"""Subsets of texts: what coverage predicts of a model that is trained on them, and what selections cover."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks.features.measured_texts import CLUSTER_COUNT, LEARNED, RANDOM, WORDS, Bench, BoolArray, Corpus, Ints
from benchmarks.features.planted_gaps import find_thresholds
from core.config.students import StudentConfig
from core.sample import Message
from filters.collapse.collapse_metrics import LanguageModel
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.ragged_arrays import RaggedArray
from flows.terminal.console import SESSION
from plugins.features.lacking_features import PooledFeatures
from plugins.features.row_selection import cover_greedily, match_random_lengths
from students.chat_encoding import Conversation
from students.comparison import measure_folder_loss
from students.training.student_training import train_student


class SubsetScore(NamedTuple):
    outcome: float
    """Negative loss on held-out documents of a model of the subset."""
    covered: dict[str, float]


class Subsets(NamedTuple):
    """Subsets of the documents, what each covers, and the held-out documents."""

    places: list[Ints]
    covered: list[dict[str, float]]
    rest: Ints
    words: TokenCorpus


def draw_subsets(bench: Bench) -> Subsets:
    """Subsets of equal numbers of words, chosen in several ways, with coverage by features and its rivals."""
    corpus, size = bench.corpus, bench.size
    numbers: dict[str, int] = {}
    words = TokenCorpus.from_words([split_into_words(text) for text in corpus.texts], numbers)
    held = np.random.default_rng(4).random(len(corpus.texts)) < 0.35
    pool, rest = np.flatnonzero(~held), np.flatnonzero(held)
    present, held_out = {}, corpus.take(rest)
    for arm in corpus.arms:
        thresholds = find_thresholds(arm, held_out)
        known = held_out.get(arm).keep_present(thresholds).count_documents() >= 3
        present[arm] = (corpus.get(arm).keep_present(thresholds), known)
    chosen = [choose_subset(number, pool, words.lengths, corpus, size.subset_words) for number in range(size.subsets)]
    return Subsets(
        chosen, [measure_coverage(places, words, present, size.subset_words) for places in chosen], rest, words
    )


def measure_prediction(bench: Bench) -> dict[str, Any]:
    """The outcome is how well a bigram model of the subset predicts held-out text."""
    subsets, most = draw_subsets(bench), bench.size.subset_words
    held = subsets.words.truncate(subsets.rest, subsets.words.lengths[subsets.rest])
    scores = []
    for places, covered in zip(subsets.places, subsets.covered, strict=True):
        own = cut_words(subsets.words, places, most)
        model = LanguageModel.fit(own.ids, own.lengths, 2)
        scores.append(SubsetScore(-float(np.mean(model.negative_log_likelihood(held.ids, held.lengths))), covered))
    return correlate_scores(scores)


def measure_students(bench: Bench) -> dict[str, Any]:
    """The outcome is the held-out loss of a small new student of the subset. Each student is stored when it is trained."""
    subsets = draw_subsets(bench)
    texts = bench.corpus.texts
    held_out = [build_conversation(texts[place]) for place in subsets.rest[: bench.size.held_out]]
    scores = []
    chosen = list(zip(subsets.places, subsets.covered, strict=True))[: bench.size.students]
    for number, (places, covered) in enumerate(chosen):
        rows = [build_conversation(texts[place]) for place in places]
        loss = bench.measure(f"student {number}", lambda rows=rows: train_and_measure(bench, rows, held_out))  # type: ignore[misc]
        scores.append(SubsetScore(-loss, covered))
    return correlate_scores(scores)


def build_conversation(text: str) -> Conversation:
    return [Message(role="user", content="Write a sentence."), Message(role="assistant", content=text)]


def train_and_measure(bench: Bench, rows: list[Conversation], held_out: list[Conversation]) -> float:
    """Held-out nats per token of a student with new weights, the same for every subset."""
    size = bench.size
    config = StudentConfig.model_validate({
        "start": "random", "hidden_size": size.student_width, "layers": 4, "epochs": size.student_epochs,
        "learning_rate": 2e-3, "max_tokens": 96, "batch_size": 16,
    })  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "student"
        train_student(rows, config, out, seed=0, progress=SESSION.print_unless_stopped, held_out=held_out)
        loss = measure_folder_loss(out, held_out, 96).nats_per_token
    assert loss is not None
    return loss


def cut_words(words: TokenCorpus, places: Ints, most: int) -> TokenCorpus:
    """The documents at `places` up to `most` words together."""
    lengths = words.lengths[places]
    lengths = np.clip(most - (np.cumsum(lengths) - lengths), 0, lengths)
    return words.truncate(places[lengths > 0], lengths[lengths > 0])


def choose_subset(number: int, pool: Ints, lengths: Ints, corpus: Corpus, most: int) -> Ints:
    """Documents up to `most` words: random, repeated, long, short, or of few topics, by `number`."""
    generator = np.random.default_rng([4, number])
    order = generator.permutation(pool)
    match number % 5:
        case 1:
            few = order[: generator.integers(15, 120)]
            order = np.concatenate([generator.permutation(few) for _ in range(40)])
        case 2:
            order = order[np.argsort(-lengths[order] * np.exp(generator.normal(0, 0.5, len(order))))]
        case 3:
            order = order[np.argsort(lengths[order] * np.exp(generator.normal(0, 0.5, len(order))))]
        case 4 if corpus.clusters is not None:
            allowed = generator.choice(CLUSTER_COUNT, generator.integers(1, CLUSTER_COUNT), replace=False)
            order = order[np.isin(corpus.clusters.latents[order], allowed)]
    total = np.cumsum(lengths[order])
    return order[: int(np.searchsorted(total, most)) + 1]


def measure_coverage(
    places: Ints, words: TokenCorpus, present: Mapping[str, tuple[PooledFeatures, BoolArray]], most: int
) -> dict[str, float]:
    """What a subset covers, by measure."""
    different = np.unique(places)
    covered = {}
    for arm, (features, known) in present.items():
        shown = features.take(different).count_documents() > 0
        covered[arm] = float(shown[known].mean()) if known.any() else 0.0
    own = cut_words(words, places, most)
    covered["word types"] = float(np.unique(own.ids).size)
    pairs = own.ids[:-1] * (int(words.ids.max()) + 1) + own.ids[1:]
    covered["distinct-2"] = float(np.unique(pairs).size) / max(1, pairs.size)
    return covered


def correlate_scores(scores: Sequence[SubsetScore]) -> dict[str, Any]:
    """Spearman's correlation of each measure with the outcome, alone and given the number of word types, with a 95 % interval of
    1,000 bootstrap samples.
    """
    names = list(scores[0].covered)
    table = np.array([[score.outcome, *(score.covered[name] for name in names)] for score in scores])
    types = 1 + names.index("word types")
    generator = np.random.default_rng(5)
    draws = [generator.integers(0, len(table), len(table)) for _ in range(1_000)]
    result = {}
    for column, name in enumerate(names, 1):
        alone = rank_correlation(table[:, 0], table[:, column])
        partial, interval = None, None
        if column != types:
            partial = partial_rank_correlation(table, column, types)
            values = [partial_rank_correlation(table[draw], column, types) for draw in draws]
            interval = [float(np.nanpercentile(values, 2.5)), float(np.nanpercentile(values, 97.5))]
        result[name] = {"spearman": alone, "given word types": partial, "interval": interval}
    return result


def rank_correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    return float(spearmanr(one, other).statistic)


def partial_rank_correlation(table: npt.NDArray[np.float64], column: int, given: int) -> float:
    a, b, c = (rank_correlation(table[:, x], table[:, y]) for x, y in ((0, column), (0, given), (column, given)))
    return (a - b * c) / max(1e-12, float(np.sqrt((1 - b * b) * (1 - c * c))))


def measure_selection(bench: Bench) -> dict[str, Any]:
    """Equal numbers of documents, chosen in four ways: words, and the surprise of held-out text for a bigram model of them."""
    corpus, size = bench.corpus, bench.size
    numbers: dict[str, int] = {}
    words = TokenCorpus.from_words([split_into_words(text) for text in corpus.texts], numbers)
    generator = np.random.default_rng(6)
    held = generator.random(len(corpus.texts)) < 0.35
    pool, rest = np.flatnonzero(~held), np.flatnonzero(held)
    chosen, candidates = {}, corpus.take(pool)
    for arm in (LEARNED, RANDOM, WORDS):
        present = candidates.get(arm).keep_present(find_thresholds(arm, candidates))
        chosen[arm] = pool[cover_greedily(RaggedArray(present.latents, present.starts), present.size, size.selected)]
    inside = np.searchsorted(pool, chosen[LEARNED])
    chosen["random, equal lengths"] = pool[match_random_lengths(words.lengths[pool], inside, generator)]
    chosen["random"] = generator.choice(pool, size.selected, replace=False)
    held_out = words.truncate(rest, words.lengths[rest])
    result = {}
    for name, places in chosen.items():
        own = words.truncate(places, words.lengths[places])
        model = LanguageModel.fit(own.ids, own.lengths, 2)
        loss = float(np.mean(model.negative_log_likelihood(held_out.ids, held_out.lengths)))
        result[name] = {"words": int(own.lengths.sum()), "types": int(np.unique(own.ids).size), "loss": loss}
    return result
