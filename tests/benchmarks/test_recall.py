import pytest
import torch

from benchmarks.recall import (
    ARMS,
    FILLER_LENGTH,
    KEYS,
    WINDOW,
    DeepMemory,
    RecallModel,
    draw_rows,
    train_arm,
)


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


@torch.no_grad()
def test_a_deep_memory_without_steps_stores_nothing() -> None:
    """What was read more than a convolution before changes what it returns only if it learns."""
    x = torch.randn(1, 24, 48, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, :4] *= -1
    for largest, changes in ((0.1, True), (0.0, False)):
        torch.manual_seed(0)
        memory = DeepMemory(largest)
        kept = memory.keep.weight.zero_()  # the decay depends on what is read too
        assert not kept.any()
        difference = float((memory(x) - memory(other))[:, 12:].abs().max())
        assert (difference > 1e-4) is changes


def test_a_few_steps_are_measured() -> None:
    score = train_arm(ARMS["full attention"], 3)
    assert score.steps == 3
    assert all(0 <= share <= 1 for share in score.recall.values())
