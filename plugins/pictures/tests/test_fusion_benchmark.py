"""The parts of the benchmark of late fusion that decide. The benchmark itself trains for half an hour."""

from random import Random

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from benchmarks.late_fusion import (
    EARLY,
    LATE,
    LIMITS,
    UNTRAINED,
    ChartEncoder,
    FusedStudent,
    LateReader,
    check_fusion,
    compare_answers,
    read_chart,
)
from benchmarks.seeing import STYLES, draw_chart, draw_conversation
from plugins.pictures.seeing.embedder import ImageEmbedder, collect_patches, embed_images
from plugins.pictures.seeing.evaluation import BLIND, SEEING, SHUFFLED
from students.chat_encoding import EncodedConversation, encode_conversation
from students.predictions import IMAGE_READER, build_batch
from tests.students.conftest import tiny_llama


@pytest.mark.parametrize("learns", [False, True])
def test_the_encoder_sees_the_chart_and_learns_only_where_it_should(
    learns: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    """From the patches of a conversation come the pixels that the encoder was trained on."""
    encoded = encode_conversation(draw_conversation(Random(3), STYLES, [0]), tokenizer, 512, LIMITS)
    assert isinstance(encoded, EncodedConversation)
    batch, model = build_batch([encoded], 0), tiny_llama(len(tokenizer))
    reader, seen = LateReader(ChartEncoder(), 64, learns), list[torch.Tensor]()
    reader.encoder.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    setattr(model, IMAGE_READER, reader)
    embed_images(model, batch.ids, collect_patches(batch.images)).square().sum().backward()
    rng = Random(3)
    pixels = read_chart(draw_chart(rng, rng.choice(STYLES))) / 255
    torch.testing.assert_close(seen[0][0], pixels)
    assert reader.project.weight.grad is not None
    assert all((one.grad is not None) == learns for one in reader.encoder.parameters())


def test_both_ways_to_read_a_chart_are_equally_large() -> None:
    early, late = ImageEmbedder(LIMITS, 96), LateReader(ChartEncoder(), 96)
    sizes = [sum(one.numel() for one in reader.parameters()) for reader in (early, late)]
    assert abs(sizes[0] - sizes[1]) < 0.01 * 520_000  # of a whole student


def student(parameters: int, right: int) -> FusedStudent:
    answers = {SEEING: [True] * right + [False] * (100 - right), BLIND: [False] * 100, SHUFFLED: [False] * 100}
    return FusedStudent(
        parameters=parameters, trained=parameters, steps=1, loss=1.0, seconds=1.0,
        right={"in the styles of the training": answers},
    )  # fmt: skip


def test_unequal_or_blind_students_fail_the_benchmark() -> None:
    check_fusion({(EARLY, 0.0): student(1000, 40), (LATE, 0.0): student(1009, 90), (UNTRAINED, 0.0): student(1009, 0)})
    with pytest.raises(RuntimeError, match="students of 1,000 to 1,011 parameters"):
        check_fusion({(EARLY, 0.0): student(1000, 40), (LATE, 0.0): student(1011, 90)})
    with pytest.raises(RuntimeError, match=r"late, jitter 0: .* is not shown to see"):
        check_fusion({(EARLY, 0.0): student(1000, 40), (LATE, 0.0): student(1000, 20)})


def test_answers_are_compared_chart_by_chart() -> None:
    """Ten charts of 100 that only the second reads decide; the same number of other charts on both sides does not."""
    first, second = [True] * 50 + [False] * 50, [True] * 60 + [False] * 40
    assert compare_answers(first, second).high < 0
    assert compare_answers(first, first[::-1]).low < 0 < compare_answers(first, first[::-1]).high
