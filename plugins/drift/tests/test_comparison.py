"""The statistics of drift: false alarms, sensitivity, exact tests compared with scipy, and degraded log-probabilities."""

import math
from collections import Counter
from random import Random

import pytest
from scipy.stats import fisher_exact

from plugins.drift.comparison import (
    ALARMS,
    FLOOR,
    NightComparison,
    compare_night,
    compute_fall_probability,
    compute_table_probability,
    count_rejected,
    spend_level,
)
from plugins.drift.fingerprint import ZEROED, Fingerprint, Logprobs, Night, find_degradations
from plugins.drift.probes import PROBES, TOP_TOKENS
from plugins.drift.tests.probed_endpoint import WORDS, ProbedEndpoint

TEACHER = "openai/NAME"


def draw_list(probe: int, rng: Random, noise: float, shift: float = 0.0) -> dict[str, float]:
    teacher = ProbedEndpoint.__new__(ProbedEndpoint)
    teacher.shift = shift
    exact = dict(zip(WORDS, teacher.find_distribution(probe), strict=True))
    noisy = {word: value + rng.gauss(0, noise) for word, value in exact.items()}
    return dict(sorted(noisy.items(), key=lambda one: -one[1])[:TOP_TOKENS])


def draw_night(rng: Random, noise: float = 0.0, shift: float = 0.0, loud: int = 0) -> Night:
    """The noise is of the night: all rounds of a token share half of its variance. It is five times as large in `loud` probes."""
    lists: list[list[Logprobs | None]] = []
    for probe in range(len(PROBES)):
        half = (5 if probe < loud else 1) * noise / math.sqrt(2)
        night = draw_list(probe, rng, half, shift)
        lists.append([{word: value + rng.gauss(0, half) for word, value in night.items()} for _ in range(3)])
    return Night(TEACHER, "logprobs", logprobs=lists)


def draw_words(rng: Random, moved: int = 0) -> Night:
    words = [[WORDS[min(int(rng.expovariate(0.5)) + moved, 39)] for _ in range(8)] for _ in PROBES]
    return Night(TEACHER, "words", words=words)


def follow(nights: list[Night]) -> list[NightComparison]:
    found: list[NightComparison] = []
    before: Fingerprint | None = None
    for night in nights:
        found.append(compare_night(before, night))
        before = found[-1].fingerprint
    return found


def test_levels_of_all_nights_sum_to_the_bound() -> None:
    spent = sum(map(spend_level, range(1, 200_000)))
    assert spent < ALARMS
    assert spent + 1.1 / math.log(200_000) * ALARMS / 2.1 > ALARMS * 0.99, (
        "and no more is kept back than the rest of the series"
    )


@pytest.mark.parametrize("noise", [0.0, FLOOR / 2, 0.02, 0.2])
def test_an_unchanged_teacher_is_the_same_whatever_its_noise(noise: float) -> None:
    rng = Random(3)
    found = follow([draw_night(rng, noise) for _ in range(60)])
    assert [one.verdict for one in found[:2]] == ["cannot tell"] * 2
    assert "a verdict needs 2 earlier nights, and there is 1" in found[1].why
    assert {one.verdict for one in found[2:]} == {"same"}


def test_a_probe_with_more_noise_than_the_others_is_no_change() -> None:
    rng = Random(11)
    nights = [draw_night(rng, 0.02, loud=1) for _ in range(100)]
    assert {one.verdict for one in follow(nights)[2:]} == {"same"}


@pytest.mark.parametrize("nights", [2, 5])
def test_a_changed_teacher_is_found_above_its_noise_and_begins_a_fingerprint(nights: int) -> None:
    rng = Random(4)
    noise = 0.01
    found = follow(
        [*(draw_night(rng, noise) for _ in range(nights)), *(draw_night(rng, noise, 0.15) for _ in range(3))]
    )
    assert [one.verdict for one in found[nights:]] == ["changed", "same", "same"]
    assert found[nights].fingerprint.nights == 1
    assert found[-1].fingerprint.comparisons == nights + 1, "every verdict has spent its level"


def test_words_of_an_unchanged_teacher_are_the_same_with_seeds_and_without() -> None:
    rng = Random(5)
    ignored = follow([draw_words(rng) for _ in range(60)])
    honoured = follow([draw_words(Random(6)) for _ in range(10)])
    for found in (ignored, honoured):
        assert [one.verdict for one in found[:2]] == ["cannot tell"] * 2
        assert {one.verdict for one in found[2:]} == {"same"}


def test_a_few_words_that_no_longer_repeat_show_a_change() -> None:
    nights = [draw_words(Random(7)) for _ in range(4)]
    rng = Random(8)
    moved = [[word if rng.random() > 0.1 else "word39" for word in words] for words in nights[0].words]
    last = follow([*nights, nights[0]._replace(words=moved)])[-1]
    assert (last.verdict, last.why.partition(",")[0]) == ("changed", "1 of 21 tests differ"), "only the repeats differ"
    assert follow([draw_words(Random(7)), draw_words(Random(9)), draw_words(rng, moved=3)])[-1].verdict == "changed"


def test_what_cannot_be_compared_is_no_verdict() -> None:
    rng = Random(9)
    first = compare_night(None, draw_night(rng)).fingerprint
    assert compare_night(first, draw_words(rng)).verdict == "cannot tell"
    assert "another teacher" in compare_night(first, draw_night(rng)._replace(teacher="openai/OTHER")).why
    night = draw_night(rng)
    lost = night._replace(logprobs=[*([None] * 3 for _ in range(11)), *night.logprobs[11:]])
    silent = compare_night(first, lost)
    assert (silent.verdict, silent.fingerprint) == ("cannot tell", first), "the old fingerprint remains"


def test_exact_tests_agree_with_scipy() -> None:
    for seed in range(40):
        rng = Random(seed)
        before, now = (Counter(rng.choices("ab", k=size)) for size in (rng.randint(1, 20), 8))
        table = [[before["a"], before["b"]], [now["a"], now["b"]]]
        assert compute_table_probability(before, now) == pytest.approx(fisher_exact(table).pvalue)
        hits, tries, now_hits, now_tries = 60 + seed, 100 + seed, rng.randint(0, 20), 20
        fell = [[now_hits, now_tries - now_hits], [hits, tries - hits]]
        expected = fisher_exact(fell, alternative="less").pvalue
        assert compute_fall_probability(hits, tries, now_hits, now_tries) == pytest.approx(expected)
    assert compute_table_probability({"a": 8}, {"b": 8}) == pytest.approx(2 / math.comb(16, 8))


def test_benjamini_and_hochberg_reject_as_in_their_paper() -> None:
    values = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    assert count_rejected(values, 0.05) == 4
    assert count_rejected([], 0.05) == 0


def test_degraded_log_probabilities_are_named() -> None:
    lists = [[draw_list(probe, Random(probe), 0)] * 2 for probe in range(20)]

    def change(value: object) -> list[str]:
        return find_degradations(
            [[{word: value(one) for word, one in part.items()} for part in rounds] for rounds in lists], 20
        )  # type: ignore[operator]

    assert find_degradations(lists, TOP_TOKENS) == []
    assert change(lambda one: 0.0) == [ZEROED]
    assert change(lambda one: round(one, 1)) == ["rounded to 0.1"]
    assert change(lambda one: round(one * 4) / 4) == ["rounded to 0.25"]
    assert change(lambda one: one / 3) == ["sum to more than 1"]
    cut = [[dict(list(part.items())[:5]) for part in rounds] for rounds in lists]
    assert find_degradations(cut, TOP_TOKENS) == ["cut to the top 5"]
    rng = Random(1)
    noisy = [[{word: one + rng.gauss(-1, 0.3) for word, one in part.items()} for part in rounds] for rounds in lists]
    assert find_degradations(noisy, TOP_TOKENS) == ["noisy, by over 0.1 nats between equal requests"]
