"""Gaps of features: planted ones are found, chance finds none, and thresholds come from the reference alone."""

import json
import re
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from benchmarks.features.measured_texts import LEARNED, RANDOM
from benchmarks.features.planted_gaps import check_control
from benchmarks.features.subset_scores import partial_rank_correlation
from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from core.sample import text_digest
from filters.collapse.matched_samples import split_into_words
from filters.ragged_arrays import RaggedArray, compute_offsets
from flows.data.curated_run import read_finished_samples, read_kept_samples
from plugins.features.coverage_gaps import select_by_holm
from plugins.features.lacking_features import (
    PooledFeatures,
    choose_gap_documents,
    compute_thresholds,
    find_feature_gaps,
    find_strongest_documents,
)
from plugins.features.row_selection import count_covered, cover_greedily
from plugins.features.tests.conftest import WORDS, write_rows, write_texts
from tests.flows.commands.test_commands import called
from tests.support.http_serving import QuietHandler, serve
from tests.support.produce_run import produce_run
from tests.support.scripted_endpoint import Endpoint

LATENTS = 200
PLANTED = 7


def draw_features(documents: int, seed: int) -> PooledFeatures:
    """Documents with about ten features each, of which `PLANTED` is in a quarter."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(documents):
        latents = np.unique(random.zipf(1.3, 10) % LATENTS)
        latents = latents[latents != PLANTED]
        if random.random() < 0.25:
            latents = np.sort(np.append(latents, PLANTED))
        rows.append((latents.astype(np.int64), random.uniform(1, 2, latents.size).astype(np.float32)))
    return PooledFeatures.from_documents(rows, LATENTS)


def find(own: PooledFeatures, reference: PooledFeatures) -> list[int]:
    thresholds = compute_thresholds(reference)
    found = find_feature_gaps(own.keep_present(thresholds), reference.keep_present(thresholds), thresholds)
    return [int(latent) for latent in found.lacking.places]


def without(features: PooledFeatures, latent: int) -> PooledFeatures:
    places = [place for place in range(len(features)) if latent not in features.find_latents(place)]
    return features.take(np.array(places))


def test_a_removed_feature_is_the_gap_and_a_shuffled_one_is_not() -> None:
    own, reference = draw_features(600, 1), draw_features(600, 2)
    assert find(own, reference) == []
    poor = without(own, PLANTED)
    assert find(poor, reference) == [PLANTED]
    # The same entries in other documents: every document has as many features, and no feature is lacking.
    mixed = np.random.default_rng(3).permutation(np.concatenate([poor.latents, reference.latents]))
    half = poor.latents.size
    sides = ((mixed[:half], poor), (mixed[half:], reference))
    shuffled = [PooledFeatures(latents, side.values, side.starts, LATENTS) for latents, side in sides]
    assert find(*shuffled) == []


def test_thresholds_know_the_reference_only_and_doubling_changes_no_share() -> None:
    reference = draw_features(600, 2)
    thresholds = compute_thresholds(reference)
    doubled = reference.take(np.repeat(np.arange(len(reference)), 2))
    assert np.array_equal(compute_thresholds(doubled), thresholds)
    found = [find_feature_gaps(without(side, PLANTED), side, thresholds).lacking for side in (reference, doubled)]
    assert found[0].places.tolist() == found[1].places.tolist() == [PLANTED]
    assert found[0].real == pytest.approx(found[1].real)
    # A latent in fewer than one of 200 documents has none.
    rare = PooledFeatures.from_documents(
        [(np.array([1]), np.ones(1, np.float32))] + [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * 599, 2
    )
    assert np.isinf(compute_thresholds(rare)).all()


def test_seeds_show_the_gap_and_the_strongest_come_first() -> None:
    own, reference = draw_features(600, 1), draw_features(600, 2)
    thresholds = compute_thresholds(reference)
    present = reference.keep_present(thresholds)
    lacking = find_feature_gaps(without(own, PLANTED).keep_present(thresholds), present, thresholds).lacking
    chosen = choose_gap_documents(present, lacking, 20)
    assert len(chosen) == 20
    assert all(latents.tolist() == [PLANTED] and PLANTED in present.find_latents(place) for place, latents in chosen)
    strongest = find_strongest_documents(present, PLANTED, 5)
    values = [present.values[present.starts[p] :][present.find_latents(p).tolist().index(PLANTED)] for p in strongest]
    assert values == sorted(values, reverse=True)
    assert values[0] == present.values[present.latents == PLANTED].max()


def test_real_text_split_at_random_has_no_gaps() -> None:
    """Words as features depend on each other as real features do. At most 1 % of the splits may show a gap: 3 of 60 have a
    probability of 0.02.
    """
    lines = Path(PROJECT / ENGLISH_REFERENCE).read_text(encoding="utf-8").splitlines()[:800]
    numbers: dict[str, int] = {}
    rows = []
    for line in lines:
        words = {numbers.setdefault(word, len(numbers)) for word in split_into_words(json.loads(line)["text"])}
        latents = np.array(sorted(words), dtype=np.int64)
        rows.append((latents, np.ones(latents.size, np.float32)))
    features = PooledFeatures.from_documents(rows, len(numbers))
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(60):
        order = random.permutation(len(features))
        alarms += bool(find(features.take(order[:400]), features.take(order[400:])))
    assert alarms <= 2


def test_holm_rejects_what_bonferroni_does_and_more() -> None:
    """At 1 % over ten tests the limits are 0.001, 0.00111, 0.00125, ... (Holm 1979)."""
    logs = np.log([0.0011, 0.02, 0.0009, 0.00124])
    assert sorted(select_by_holm(logs, 10).tolist()) == [0, 2, 3]
    assert select_by_holm(np.log([0.002, 0.0011]), 10).size == 0


def build_items(rows: list[list[int]]) -> RaggedArray:
    return RaggedArray(
        np.array([item for row in rows for item in row]), compute_offsets(np.array(list(map(len, rows))))
    )


def test_the_greedy_subset_covers_at_least_what_theory_says() -> None:
    """At least 1 - 1/e of what the best subset covers (Nemhauser et al. 1978)."""
    random = np.random.default_rng(0)
    for _ in range(20):
        items = build_items([sorted(set(random.integers(0, 30, 6).tolist())) for _ in range(9)])
        chosen = cover_greedily(items, 30, 3)
        best = max(count_covered(items, np.array(places)) for places in combinations(range(9), 3))
        assert len(set(chosen.tolist())) == 3
        assert count_covered(items, chosen) >= 0.632 * best


def found(phi: float) -> dict[str, float]:
    return {"gaps": 1, "phi": phi}


def test_a_random_dictionary_that_finds_as_much_fails_the_benchmark() -> None:
    rows = {name: {LEARNED: found(0.9), RANDOM: found(0.2)} for name in ("brackets", "digits")}
    check_control(rows)
    rows = {name: {LEARNED: found(0.9), RANDOM: found(0.6)} for name in rows}
    with pytest.raises(RuntimeError, match="the random dictionary finds 2 planted gaps, the autoencoder 2"):
        check_control(rows)


def test_coverage_that_only_follows_its_rival_predicts_nothing_given_it() -> None:
    generator = np.random.default_rng(0)
    types, noise = generator.normal(size=500), generator.normal(size=(2, 500))
    outcome = types + 0.3 * noise[0]
    follows, own = types + 0.3 * noise[1], types + 0.5 * noise[0]
    table = np.stack([outcome, follows, own, types], axis=1)
    assert abs(partial_rank_correlation(table, 1, 3)) < 0.1
    assert partial_rank_correlation(table, 2, 3) > 0.8


SAMPLES = 150
IMITATED = 0.5


class Imitation(QuietHandler):
    """Replies with a text of its own, in half of the cases with brackets as those that it is shown."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        draw = Random(text_digest(json.dumps([body["messages"], body["seed"]])))
        words = draw.choices(WORDS, k=draw.randrange(8, 16))
        if "(" in str(body["messages"]) and draw.random() < IMITATED:
            words[3] = f"({words[3]})"
        content = json.dumps({"answer": " ".join(words) + "."})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        reply = {"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}
        self.send_body(200, json.dumps(reply).encode())


def write_recipe(folder: Path) -> None:
    """The folder of the page."""
    blocks = re.findall(
        r"^```(\w+)\n(.*?)^```$", (PROJECT / "plugins" / "features" / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    [recipe] = [text for _, text in blocks if text.startswith("# mine/recipe.toml")]
    [check] = [text for language, text in blocks if language == "python"]
    [prompt] = [text for language, text in blocks if language == "markdown"]
    (folder / "prompts").mkdir(parents=True)
    for name, text in {"recipe.toml": recipe, "checks.py": check, "prompts/generator.md": prompt}.items():
        (folder / name).write_text(text)


def test_a_planted_gap_closes_in_the_second_generation_with_the_filter(
    folder: Path, dictionary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    poor = [json.loads(line)["text"] for line in (folder / "poor.jsonl").read_text().splitlines()]
    write_rows(tmp_path / "real.jsonl", write_texts(120, 1, brackets=True))
    (tmp_path / "features").symlink_to(dictionary)

    def find_gaps(added: Iterable[str], *options: str) -> list[dict[str, Any]]:
        write_rows(tmp_path / "own.jsonl", [*poor, *added])
        words = ["own.jsonl", "--reference", "real.jsonl", "--features", "features"]
        code, out, err = called(capsys, "feature-gaps", *words, *options, "--json")
        assert code == 0, err
        gaps: list[dict[str, Any]] = json.loads(out)["gaps"]
        return gaps

    before = find_gaps([], "--out", "seeds.jsonl")
    largest = before[0]["feature"]
    write_recipe(tmp_path / "mine")
    with serve(Endpoint(("127.0.0.1", 0), Imitation)) as endpoint:
        teacher = f"teachers.main={{model='openai/NAME',base_url='http://{endpoint.address}/v1'}}"
        settings = ["seeds.path=seeds.jsonl", f"samples={SAMPLES}", teacher]
        run, missing = produce_run(str(tmp_path / "runs"), "mine", settings)
    assert not missing.sentences

    kept, verified = list(read_kept_samples(run)), list(read_finished_samples(run))
    assert 0.3 * SAMPLES <= len(kept) <= 0.7 * SAMPLES
    shown, of_all = (sum("(" in one.answer for one in samples) / len(samples) for samples in (kept, verified))
    assert shown >= of_all + 0.2  # seeds also ask for features that are active near brackets
    after = find_gaps(sample.answer for sample in kept)
    assert largest not in {gap["feature"] for gap in after}
    assert len(after) <= len(before) / 2
    unfiltered = find_gaps(sample.answer for sample in verified[: len(kept)])
    assert len(unfiltered) > len(after)
