"""The self-test on real text, which must pass, and on text of two kinds whose parts are not alike."""

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.config.recipe import ENGLISH_REFERENCE
from core.project_files import PROJECT
from filters.collapse.reference_corpus import ReferenceCorpus
from plugins.references.self_test import (
    SelfTestResult,
    choose_sample_size,
    run_self_test,
    split_into_samples,
)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(5, 30), st.integers(0, 99))
def test_samples_are_disjoint_and_of_whole_groups(sizes: list[int], documents: int, seed: int) -> None:
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    samples = list(split_into_samples(groups, documents, np.random.default_rng(seed)))
    places = np.concatenate([np.zeros(0, dtype=int), *samples])
    assert len(np.unique(places)) == len(places)
    assert all(documents / 2 <= len(sample) <= documents for sample in samples)
    owners = [np.unique(groups[sample]) for sample in samples]
    assert len(np.unique(np.concatenate([np.zeros(0, dtype=int), *owners]))) == sum(map(len, owners))


def test_real_text_passes_its_own_test(tmp_path: Path) -> None:
    texts = [json.loads(line)["text"] for line in (PROJECT / ENGLISH_REFERENCE).read_text().splitlines()][:1200]
    reference = ReferenceCorpus.from_texts(texts, "real")
    size = choose_sample_size(len(texts), None)
    found = list(run_self_test(reference, size, seed=7, cache=tmp_path, pairs=8))
    result = SelfTestResult(size, found)
    assert (size, result.alarms, sum(result.verdicts.values())) == (300, 0, 8)
    assert min(sample.documents for sample in found) > 250
    assert len(list(tmp_path.iterdir())) == 1, "one null distribution for all samples"
    # The sample's own documents are not part of what it is compared with: half of its rare words are new.
    assert not any("topics" in sample.reasons for sample in found)
