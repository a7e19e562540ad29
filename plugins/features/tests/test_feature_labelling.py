"""Passages for labels: those without a feature lack it as far as they are shown, and those with it show where it is."""

import json
import shutil
from pathlib import Path

import pytest

from plugins.features.feature_gaps import find_dataset_feature_gaps
from plugins.features.feature_labels import FeatureEvidence
from plugins.features.tests.conftest import write_rows, write_texts


def write_long_texts(seed: int, *, brackets: bool) -> list[str]:
    """The texts of the other tests after 170 words. With brackets, in half of them; all go on then, with brackets at the end."""
    texts = [f"{'tea ' * 170}{text}" for text in write_texts(120, seed, brackets=brackets)]
    return [f"{text} {'tea ' * 30}(last)." for text in texts] if brackets else texts


@pytest.fixture
def evidence(dictionary: str, tmp_path: Path) -> list[FeatureEvidence]:
    """Of long texts with brackets, compared with shorter ones without any."""
    folder = Path(shutil.copytree(dictionary, tmp_path / "dictionary"))
    record = json.loads((folder / "reader.json").read_text())
    (folder / "reader.json").write_text(json.dumps({**record, "context": 2_000}))
    real = write_rows(tmp_path / "real.jsonl", write_long_texts(1, brackets=True))
    poor = write_rows(tmp_path / "poor.jsonl", write_long_texts(2, brackets=False))
    found: list[FeatureEvidence] = []
    find_dataset_feature_gaps(Path(poor), real, folder, None, 10, explain=found.extend)
    return found


def test_the_evidence_of_a_label_is_where_the_feature_is(evidence: list[FeatureEvidence]) -> None:
    first = evidence[0]
    # Half of the texts have brackets, a few of them outside of the passage.
    assert min(sum("(" in text for text in side) for side in (first.active, first.held_out_active)) >= 8
    assert max(sum("(" in text for text in side) for side in (first.inactive, first.held_out_inactive)) <= 3
    sides = [side for one in evidence for side in one[1:]]
    assert {len(side) for side in sides} == {10}
    plain = [text.replace("«", "").replace("»", "") for side in sides for text in side]
    assert not any("last)" in text for text in plain), "a passage has brackets after the part that was compared"
    # Passages without the feature are from the same parts of their texts, and as long.
    assert all(text.startswith("…") and 250 <= len(text) <= 502 for text in plain)
