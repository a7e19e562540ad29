"""The collapse gate on the tracked reference: what it must call collapse, what it must not, and what it says of it."""

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from core.recipe import PROJECT, CollapseConfig
from core.run import CollapseRecord, CollapseVerdict, MetricRecord
from filters.collapse import FEWEST_REAL, SHOWN, assess, measure
from filters.draws import Corpus, tokens
from filters.families import NAMES, collision
from filters.reference import Reference

REFERENCE = PROJECT / CollapseConfig().reference


class Sides(NamedTuple):
    """Real text in two parts, and where the null of the second is kept."""

    held_out: list[str]
    reference: Reference
    cache: Path

    def judge(self, texts: list[str], seed: int = 1, before: Sequence[CollapseRecord] = ()) -> CollapseRecord:
        corpus = Corpus.of([words for text in texts if (words := tokens(text))], self.reference.vocabulary)
        return assess(corpus, self.reference, seed=seed, cache=self.cache, before=before)


@pytest.fixture(scope="module")
def real() -> list[str]:
    texts = [json.loads(line)["text"] for line in Path(REFERENCE).read_text(encoding="utf-8").splitlines()]
    random.Random(1).shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def sides(real: list[str], tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(real[:1000], Reference.of(real[1000:], "real"), tmp_path_factory.mktemp("nulls"))


def by_name(record: CollapseRecord) -> dict[str, MetricRecord]:
    return {metric.name: metric for metric in record.metrics}


def deviations(record: CollapseRecord) -> dict[str, float]:
    return {metric.name: metric.z for metric in record.metrics if metric.z is not None}


def test_the_reference_is_what_its_readme_says(real: list[str]) -> None:
    assert len(real) == len(set(real)) == 4400
    assert all(10 <= len(text.split()) <= 40 and text[0].isupper() and text[-1] in ".!?" for text in real)


def test_real_text_passes(sides: Sides) -> None:
    record = sides.judge(sides.held_out)
    assert record.verdict is CollapseVerdict.passed, record.evidence
    assert record.evidence == []
    assert list(deviations(record)) == NAMES
    assert {metric.name for metric in record.metrics if metric.z is None} == set(SHOWN)


def test_real_text_is_never_called_collapse(sides: Sides) -> None:
    """Twenty draws of 100 documents, each with fourteen metrics: none at four deviations, a tenth at most at two."""
    found = [sides.judge(random.Random(trial).sample(sides.held_out, 100), seed=trial) for trial in range(20)]
    assert {record.verdict for record in found} == {CollapseVerdict.under_powered}
    assert not any(record.evidence for record in found)
    z = np.array([list(deviations(record).values()) for record in found])
    assert (np.abs(z) > 2).mean() < 0.1
    assert np.abs(z).mean() > 0.3


@pytest.mark.parametrize("count", [45, 400])
def test_a_template_is_collapse_and_is_named(sides: Sides, count: int) -> None:
    texts = [
        f"People everywhere enjoy the {i} because it is a wonderful thing to have every day." for i in range(count)
    ]
    record = sides.judge(texts)
    assert record.verdict is CollapseVerdict.collapse
    told = next(sentence for sentence in record.evidence if sentence.startswith("REPEAT"))
    assert "“people everywhere enjoy” 100.0%" in told
    assert "“… the … it … a”" in told


def test_one_opening_among_many_is_enough(sides: Sides) -> None:
    texts = ["It was certainly " + text if i % 4 == 0 else text for i, text in enumerate(sides.held_out)]
    record = sides.judge(texts)
    assert record.verdict is CollapseVerdict.collapse
    assert "“it was certainly” 2" in " ".join(record.evidence)


def test_copies_are_collapse(sides: Sides) -> None:
    record = sides.judge(random.Random(1).choices(sides.held_out[:500], k=1000))
    assert record.verdict is CollapseVerdict.collapse
    assert {name for name, z in deviations(record).items() if z > 4} >= {"exact_duplicates", "duplicate_8grams"}


def test_a_loss_of_rare_words_is_collapse(sides: Sides) -> None:
    counts = Counter(word for text in sides.held_out for word in tokens(text))
    common = [word for word, count in counts.most_common(600)]
    chance = random.Random(1)
    poor = [
        " ".join(word if counts[word] >= 40 else chance.choice(common) for word in tokens(text))
        for text in sides.held_out
    ]
    record = sides.judge(poor)
    assert record.verdict is CollapseVerdict.collapse
    told = next(sentence for sentence in record.evidence if sentence.startswith("TAIL"))
    assert "hapax_mass" in told
    assert "Missing: " in told


def test_a_loss_that_earlier_generations_had_as_well_is_a_shift_that_says_so(sides: Sides) -> None:
    """Every tenth word gives way to a frequent one: rare words are fewer, and as few as they were three times before."""
    chance = random.Random(1)
    common = [word for word, _ in Counter(word for text in sides.held_out for word in tokens(text)).most_common(300)]
    poorer = [
        " ".join(chance.choice(common) if chance.random() < 0.15 else word for word in tokens(text))
        for text in sides.held_out
    ]
    alone = sides.judge(poorer)
    assert alone.verdict is CollapseVerdict.collapse
    told = sides.judge(poorer, before=[alone] * 3)
    assert told.verdict is CollapseVerdict.shift
    assert told.evidence[0].startswith("TAIL: it has fewer rare words than real text, as every generation before it")
    rising = [alone.model_copy(update={"tail": (alone.tail or 0) - lost}) for lost in (9, 6, 3)]
    assert sides.judge(poorer, before=rising).verdict is CollapseVerdict.collapse
    other = alone.model_copy(update={"reference": "another"})
    assert sides.judge(poorer, before=[other, alone, alone]).verdict is CollapseVerdict.collapse


def test_words_of_no_language_are_collapse_though_they_are_rare(sides: Sides) -> None:
    """They raise the share of words used once; that alone would look like riches."""
    counts = Counter(word for text in sides.held_out for word in tokens(text))
    texts = [
        " ".join(word if counts[word] > 3 else f"{word[::-1]}q{i}x" for word in tokens(text))
        for i, text in enumerate(sides.held_out)
    ]
    record = sides.judge(texts)
    assert deviations(record)["hapax_mass"] < 0
    assert record.verdict is CollapseVerdict.collapse
    assert "words of no language" in " ".join(record.evidence)


def test_other_topics_are_a_shift_that_names_them(sides: Sides) -> None:
    """A quarter of the reference's topics: as rich as real text on these, and that is what it is compared with."""
    topics = sides.reference.topics
    corpus = Corpus.of([tokens(text) for text in sides.held_out], sides.reference.vocabulary)
    assigned = topics.assign(corpus)
    kept = [text for text, topic in zip(sides.held_out, assigned, strict=True) if topic < topics.groups // 4]
    assert len(kept) > 100
    record = sides.judge(kept)
    assert record.verdict is CollapseVerdict.under_powered
    assert [sentence.partition(":")[0] for sentence in record.evidence] == ["COVERAGE"]
    spelled = list(sides.reference.vocabulary)
    assert any(
        f"“{topics.name(topic, spelled)}” 0.0%" in record.evidence[0]
        for topic in range(topics.groups // 4, topics.groups)
    )


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_length_alone_moves_nothing(sides: Sides, share: float) -> None:
    cut = [" ".join(text.split()[: max(3, int(len(text.split()) * share))]) for text in sides.held_out]
    record = sides.judge(cut)
    assert record.verdict is CollapseVerdict.passed, record.evidence
    assert max(map(abs, deviations(record).values())) < 4


@pytest.mark.parametrize("count", [75, 300, 600])
def test_size_alone_moves_nothing(sides: Sides, count: int) -> None:
    """Values differ with size; their ratio to the real ones does not (by under a tenth)."""
    found = by_name(sides.judge(sides.held_out[:count]))
    for name in ("hapax_mass", "heaps_slope", "tail_coverage", "distinct_4", "surprise", "reverse_surprise"):
        assert found[name].candidate == pytest.approx(found[name].reference, rel=0.1), name


def test_the_chance_of_two_alike_is_that_of_scikit_bio_at_any_size() -> None:
    """`simpson_d(…, finite=True)` of scikit-bio 0.7.4 gave this; without `finite` the value would fall with size."""
    assert collision(np.repeat(np.arange(5), [5, 3, 2, 1, 1])) == pytest.approx(0.21212121212121213)
    chance = np.array([0.5, 0.3, 0.2])
    draws = [collision(np.random.default_rng(seed).choice(3, 20, p=chance)) for seed in range(2000)]
    assert np.mean(draws) == pytest.approx((chance**2).sum(), abs=0.01)


def test_documents_that_the_reference_has_are_no_reference(sides: Sides, real: list[str]) -> None:
    """Compared with itself, text would look unlike real text: too likely."""
    record = sides.judge(real[1000:1200])
    assert record.verdict is CollapseVerdict.under_powered
    assert not any("FIDELITY" in sentence for sentence in record.evidence)
    assert "Nothing was compared" in sides.judge(real[1000:-20]).note


@pytest.mark.parametrize("texts", [[], ["One document of a few words."], ["", " ", "…"] * 20])
def test_too_few_documents_are_a_note_and_no_numbers(real: list[str], texts: list[str]) -> None:
    record = measure(texts, real[:500], name="real", seed=1)
    assert (record.documents, record.tokens, record.metrics) == (0, 0, [])
    assert record.verdict is CollapseVerdict.under_powered
    assert "Nothing was compared" in record.note
    assert (
        f"500 of the reference have, of which 500 are not in the dataset too, and {FEWEST_REAL} are needed"
        in record.evidence[0]
    )
    assert measure(real[:50], texts, name="none", seed=1).metrics == []


@pytest.mark.parametrize("texts", [["bees"] * 40, ["a b c d"] * 40, ["Bees fly home. " * 40] * 10])
def test_degenerate_text_gives_numbers(sides: Sides, texts: list[str]) -> None:
    record = sides.judge(texts)
    assert record.metrics
    assert all(math.isfinite(value) for m in record.metrics for value in (m.candidate, m.reference, m.low, m.high))
    assert math.isfinite(json.loads(record.model_dump_json())["metrics"][0]["candidate"])


def test_under_powered_is_never_a_pass(sides: Sides) -> None:
    small, large = sides.judge(sides.held_out[:300]), sides.judge(sides.held_out)
    assert small.verdict is CollapseVerdict.under_powered
    assert small.note.startswith("UNDER-POWERED, which is no pass")
    assert "keeps or raises them" in large.note


def test_the_same_seed_gives_the_same_record_and_the_null_is_kept(sides: Sides, real: list[str]) -> None:
    texts = sides.held_out[:200]
    first, again, other = (sides.judge(texts, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    kept = sorted(sides.cache.iterdir())
    assert kept
    assert sides.judge(texts) == first
    assert sorted(sides.cache.iterdir()) == kept
    fresh = measure(texts, real[1000:], name="real", seed=1)
    assert deviations(fresh) == deviations(first)
