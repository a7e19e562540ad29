"""The benchmark of memories: a query needs what is beyond the window, and no arm sees later words."""

import pytest
import torch

from benchmarks.recall import ARMS, FILLER_LENGTH, KEYS, WINDOW, RecallModel, draw_rows


def test_what_a_query_needs_is_beyond_the_window() -> None:
    rows = draw_rows(8, 4, torch.Generator().manual_seed(0))
    assert FILLER_LENGTH > 2 * WINDOW
    for words, targets in zip(rows.words.tolist(), rows.targets.tolist(), strict=True):
        stored = dict(zip(words[:8:2], words[1:8:2], strict=True))
        asked = [place for place, target in enumerate(targets) if target >= 0]
        assert asked == [28, 30, 32, 34]
        assert [targets[place] for place in asked] == [stored[words[place]] for place in asked]
        assert all(KEYS <= stored[key] < 2 * KEYS for key in stored)


@pytest.mark.parametrize("name", ARMS)
@torch.no_grad()
def test_no_arm_sees_later_words(name: str) -> None:
    torch.manual_seed(0)
    model = RecallModel(ARMS[name]())
    words = draw_rows(2, 4, torch.Generator().manual_seed(0)).words
    changed = words.clone()
    changed[:, 20:] = 40
    before, after = model(words), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=1e-5, rtol=0)
    assert (before[:, 20:] - after[:, 20:]).abs().max() > 0.01
