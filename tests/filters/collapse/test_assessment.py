"""The collapse gate on the tracked reference: what it must call collapse, what it must not, and what it says of it."""

import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from core.runs.records import CollapseRecord, CollapseVerdict, MetricRecord
from filters.collapse.assessment import DIVERSITY_METRICS, assess_corpus, assess_texts
from filters.collapse.collapse_metrics import METRIC_NAMES, collision_probability
from filters.collapse.matched_samples import TokenCorpus, split_into_words
from filters.collapse.reference_corpus import ReferenceCorpus

REFERENCE = PROJECT / ENGLISH_REFERENCE


class Sides(NamedTuple):
    """Real text in two parts, and where the null of the second is kept."""

    held_out: list[str]
    reference: ReferenceCorpus
    cache: Path

    def judge(self, texts: list[str], seed: int = 1, before: Sequence[CollapseRecord] = ()) -> CollapseRecord:
        corpus = TokenCorpus.from_words(
            [words for text in texts if (words := split_into_words(text))], self.reference.vocabulary
        )
        return assess_corpus(corpus, self.reference, seed=seed, cache=self.cache, before=before)


@pytest.fixture(scope="module")
def real() -> list[str]:
    texts = [json.loads(line)["text"] for line in Path(REFERENCE).read_text(encoding="utf-8").splitlines()]
    random.Random(1).shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def sides(real: list[str], tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(real[:1000], ReferenceCorpus.from_texts(real[1000:], "real"), tmp_path_factory.mktemp("nulls"))


def by_name(record: CollapseRecord) -> dict[str, MetricRecord]:
    return {metric.name: metric for metric in record.metrics}


def deviations(record: CollapseRecord) -> dict[str, float]:
    return {metric.name: metric.z for metric in record.metrics if metric.z is not None}


def test_real_text_passes(sides: Sides) -> None:
    record = sides.judge(sides.held_out)
    assert record.verdict is CollapseVerdict.passed, record.evidence
    assert record.evidence == []
    assert list(deviations(record)) == METRIC_NAMES
    assert {metric.name for metric in record.metrics if metric.z is None} == set(DIVERSITY_METRICS)


def test_real_text_is_never_called_collapse(sides: Sides) -> None:
    """Ten draws of 100 documents, each with fourteen metrics: none at four deviations, a tenth at most at two."""
    found = [sides.judge(random.Random(trial).sample(sides.held_out, 100), seed=trial) for trial in range(10)]
    assert {record.verdict for record in found} == {CollapseVerdict.inconclusive}
    assert not any(record.evidence for record in found)
    z = np.array([list(deviations(record).values()) for record in found])
    assert (np.abs(z) > 2).mean() < 0.1
    assert np.abs(z).mean() > 0.3


@pytest.mark.parametrize("count", [45, 400])
def test_a_template_is_a_collapse_and_is_listed(sides: Sides, count: int) -> None:
    texts = [
        f"People everywhere enjoy the {i} because it is a wonderful thing to have every day." for i in range(count)
    ]
    record = sides.judge(texts)
    assert record.verdict is CollapseVerdict.collapse
    sentence = next(text for text in record.evidence if text.startswith("REPEAT"))
    assert "“people everywhere enjoy” 100.0%" in sentence
    assert "“… the … it … a”" in sentence


def test_copies_are_a_collapse(sides: Sides) -> None:
    record = sides.judge(random.Random(1).choices(sides.held_out[:500], k=1000))
    assert record.verdict is CollapseVerdict.collapse
    assert {name for name, z in deviations(record).items() if z > 4} >= {"exact_duplicates", "duplicate_8grams"}


def test_a_loss_of_rare_words_is_a_collapse(sides: Sides) -> None:
    counts = Counter(word for text in sides.held_out for word in split_into_words(text))
    common = [word for word, count in counts.most_common(600)]
    chance = random.Random(1)
    poor = [
        " ".join(word if counts[word] >= 40 else chance.choice(common) for word in split_into_words(text))
        for text in sides.held_out
    ]
    record = sides.judge(poor)
    assert record.verdict is CollapseVerdict.collapse
    sentence = next(text for text in record.evidence if text.startswith("TAIL"))
    assert "hapax_mass" in sentence
    assert "Missing: " in sentence


def test_a_steady_loss_over_generations_is_a_shift(sides: Sides) -> None:
    """Every tenth word gives way to a frequent one: rare words are fewer, and as few as they were three times before."""
    chance = random.Random(1)
    common = [
        word for word, _ in Counter(word for text in sides.held_out for word in split_into_words(text)).most_common(300)
    ]
    poorer = [
        " ".join(chance.choice(common) if chance.random() < 0.15 else word for word in split_into_words(text))
        for text in sides.held_out
    ]
    alone = sides.judge(poorer)
    assert alone.verdict is CollapseVerdict.collapse
    record = sides.judge(poorer, before=[alone] * 3)
    assert record.verdict is CollapseVerdict.shift
    assert record.evidence[0].startswith("TAIL: fewer rare words than real text, as in every earlier generation")
    rising = [alone.model_copy(update={"tail": (alone.tail or 0) - lost}) for lost in (9, 6, 3)]
    assert sides.judge(poorer, before=rising).verdict is CollapseVerdict.collapse
    other = alone.model_copy(update={"reference": "another"})
    assert sides.judge(poorer, before=[other, alone, alone]).verdict is CollapseVerdict.collapse


def test_words_of_no_language_are_a_collapse(sides: Sides) -> None:
    """They raise the share of words used once; that alone would look like riches."""
    counts = Counter(word for text in sides.held_out for word in split_into_words(text))
    texts = [
        " ".join(word if counts[word] > 3 else f"{word[::-1]}q{i}x" for word in split_into_words(text))
        for i, text in enumerate(sides.held_out)
    ]
    record = sides.judge(texts)
    assert deviations(record)["hapax_mass"] < 0
    assert record.verdict is CollapseVerdict.collapse
    assert "words of no language" in " ".join(record.evidence)


def test_rows_in_another_language_are_named_and_are_no_words_of_no_language(sides: Sides) -> None:
    """The control is the test above: English with words of no language."""
    lines = (PROJECT / "data/seeds/passages-de.jsonl").read_text(encoding="utf-8").splitlines()
    words = [word for line in lines for word in json.loads(line)["text"].split()]
    choose = random.Random(1)
    texts = [text if i % 3 else " ".join(choose.sample(words, 20)) for i, text in enumerate(sides.held_out)]
    record = sides.judge(texts)
    assert record.verdict is not CollapseVerdict.collapse, record.evidence
    assert record.evidence[-1] == "LANGUAGE: not all documents are in English; not judged: strange_words"
    assert "strange_words" not in deviations(record)
    few = [text if i % 50 else " ".join(choose.sample(words, 20)) for i, text in enumerate(sides.held_out)]
    assert "strange_words" in deviations(sides.judge(few))


def test_other_topics_are_a_shift_and_are_listed(sides: Sides) -> None:
    """A quarter of the reference's topics: as rich as real text on these, and that is what it is compared with."""
    topics = sides.reference.topics
    corpus = TokenCorpus.from_words([split_into_words(text) for text in sides.held_out], sides.reference.vocabulary)
    assigned = topics.assign(corpus)
    kept = [text for text, topic in zip(sides.held_out, assigned, strict=True) if topic < topics.topic_count // 4]
    assert len(kept) > 100
    record = sides.judge(kept)
    assert record.verdict is CollapseVerdict.inconclusive
    assert [sentence.partition(":")[0] for sentence in record.evidence] == ["COVERAGE"]
    spelled = list(sides.reference.vocabulary)
    assert any(
        f"“{topics.describe_topic(topic, spelled)}” 0.0%" in record.evidence[0]
        for topic in range(topics.topic_count // 4, topics.topic_count)
    )


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_document_length_alone_changes_no_metric(sides: Sides, share: float) -> None:
    cut = [" ".join(text.split()[: max(3, int(len(text.split()) * share))]) for text in sides.held_out]
    record = sides.judge(cut)
    assert record.verdict is CollapseVerdict.passed, record.evidence
    assert max(map(abs, deviations(record).values())) < 4


@pytest.mark.parametrize("count", [75, 600])
def test_sample_size_alone_changes_no_metric(sides: Sides, count: int) -> None:
    """Values differ with size; their ratio to the real ones does not (by under a tenth)."""
    found = by_name(sides.judge(sides.held_out[:count]))
    for name in ("hapax_mass", "heaps_slope", "tail_coverage", "distinct_4", "surprise", "reverse_surprise"):
        assert found[name].candidate == pytest.approx(found[name].reference, rel=0.1), name


def test_collision_probability_equals_that_of_scikit_bio_at_any_size() -> None:
    """`simpson_d(…, finite=True)` of scikit-bio 0.7.4 gave this; without `finite` the value would fall with size."""
    assert collision_probability(np.repeat(np.arange(5), [5, 3, 2, 1, 1])) == pytest.approx(0.21212121212121213)
    chance = np.array([0.5, 0.3, 0.2])
    draws = [collision_probability(np.random.default_rng(seed).choice(3, 20, p=chance)) for seed in range(2000)]
    assert np.mean(draws) == pytest.approx((chance**2).sum(), abs=0.01)


def test_documents_shared_with_the_reference_are_excluded_from_it(sides: Sides, real: list[str]) -> None:
    """Compared with itself, text would look unlike real text: too likely."""
    record = sides.judge(real[1000:1200])
    assert record.verdict is CollapseVerdict.inconclusive
    assert not any("FIDELITY" in sentence for sentence in record.evidence)
    assert "Nothing was compared" in sides.judge(real[1000:-20]).paragraph


def test_too_few_documents_are_inconclusive_and_never_a_pass(sides: Sides) -> None:
    small, large = sides.judge(sides.held_out[:300]), sides.judge(sides.held_out)
    assert small.verdict is CollapseVerdict.inconclusive
    assert small.headline.startswith(f"inconclusive, {small.documents} of about {small.needed:,} documents vs real; ")
    assert small.smallest_loss is None, "no power was measured at so few"
    assert large.verdict is CollapseVerdict.passed


def test_the_same_seed_gives_the_same_record_and_the_null_distribution_is_stored(sides: Sides, real: list[str]) -> None:
    texts = sides.held_out[:200]
    first, again, other = (sides.judge(texts, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    kept = sorted(sides.cache.iterdir())
    assert kept
    assert sides.judge(texts) == first
    assert sorted(sides.cache.iterdir()) == kept
    fresh = assess_texts(texts, real[1000:], name="real", seed=1)
    assert deviations(fresh) == deviations(first)


def test_a_small_reference_is_reported_with_the_number_it_needs(real: list[str]) -> None:
    """1,200 documents are enough; of 900 real ones no 1,000 can be compared."""
    record = assess_texts(real[:1200], real[1200:2100], name="mine/small.jsonl", seed=1)
    assert record.verdict is CollapseVerdict.inconclusive
    (advice,) = [one.text for one in record.advice]
    assert advice.startswith(
        "the reference mine/small.jsonl has 900 documents with a word in them: to compare 1,000 on the"
    )
    wanted = int(re.search(r"about ([\d,]+) that", advice).group(1).replace(",", ""))  # type: ignore[union-attr]
    assert wanted >= 3000
    assert "assess at least" not in advice


@pytest.mark.parametrize("texts", [["bees"] * 40, ["a b c d"] * 40, ["Bees fly home. " * 40] * 10])
def test_degenerate_text_gives_finite_metrics(sides: Sides, texts: list[str]) -> None:
    record = sides.judge(texts)
    assert record.metrics
    assert all(math.isfinite(value) for m in record.metrics for value in (m.candidate, m.reference, m.low, m.high))
    assert math.isfinite(json.loads(record.model_dump_json())["metrics"][0]["candidate"])
