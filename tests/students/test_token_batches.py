"""Batches of conversations: padded, and packed into rows."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from students.token_batches import IGNORED_LABEL, build_batch, pack_rows
from tests.students.test_chat_encoding import CONVERSATIONS, encoded


def test_padding_is_neither_attended_to_nor_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    ones = [encoded(CONVERSATIONS[name], tokenizer) for name in ("one turn", "two turns")]
    batch = build_batch(ones, pad=2)
    assert batch.ids.shape == (2, max(len(one.ids) for one in ones))
    for row, one in enumerate(ones):
        size = len(one.ids)
        assert batch.ids[row, :size].tolist() == list(one.ids)
        assert batch.attention[row].tolist() == [1] * size + [0] * (batch.ids.shape[1] - size)
        labels = [token if learned else IGNORED_LABEL for token, learned in zip(one.ids, one.learned, strict=True)]
        assert batch.labels[row].tolist() == labels + [IGNORED_LABEL] * (batch.ids.shape[1] - size)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 40))
def test_packing_respects_the_capacity_and_needs_few_rows(sizes: list[int], capacity: int) -> None:
    rows = pack_rows(sizes, capacity)
    assert sorted(place for row in rows for place in row) == list(range(len(sizes)))
    filled = [sum(sizes[place] for place in row) for row in rows]
    assert all(total <= capacity or len(row) == 1 for total, row in zip(filled, rows, strict=True))
    assert all(one + other > capacity for one, other in combinations(filled, 2)), "two rows could be one"


def test_positions_restart_for_each_conversation_of_a_packed_row(tokenizer: PreTrainedTokenizerBase) -> None:
    ones = [encoded(CONVERSATIONS[name], tokenizer) for name in ("one turn", "two turns")]
    sizes = [len(one.ids) for one in ones]
    batch = build_batch(ones, pad=2, packed_to=sum(sizes))
    assert batch.ids.tolist() == [[*ones[1].ids, *ones[0].ids]]
    assert batch.owner.tolist() == [[1] * sizes[1] + [0] * sizes[0]]
    assert batch.positions is not None
    assert batch.positions.tolist() == [[*range(sizes[1]), *range(sizes[0])]]
    assert (batch.labels != IGNORED_LABEL).sum() == sum(sum(one.learned) for one in ones)
    assert build_batch(ones, pad=2, packed_to=sum(sizes) - 1).ids.shape == (2, max(sizes))
