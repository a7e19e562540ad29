import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import LlamaForCausalLM

from core.config.students import DistillationConfig
from core.errors import UsageError
from students.captured_signals import (
    CapturedSignals,
    SampledSignal,
    SampledTokens,
    SignalIdentity,
    TopKSignal,
    build_model_capture,
    build_signal_identity,
    capture_signals,
    decode_shares,
    encode_sampled,
    encode_top_k,
    sample_tokens,
)
from students.chat_encoding import EncodedConversation
from students.predictions import build_batch, compute_held_out_loss
from students.torch_teacher import TorchTeacher, teacher_digest
from students.training.training_objective import SignalSource, measure_held_out
from tests.students.conftest import opinionated, quiet


def is_of(words: int, seed: int = 1, /, **settings: object) -> SignalIdentity:
    config = DistillationConfig.model_validate({"signals": "top_k", **settings})
    return build_signal_identity(config, tokenizer="t", teacher="m", words=words, seed=seed)


def captured(
    model: LlamaForCausalLM, encoded: list[EncodedConversation], path: Path, *, seed: int = 1, **settings: object
) -> CapturedSignals:
    what = is_of(model.config.vocab_size, seed, **settings)
    capture_signals(build_model_capture(model, what, 0), encoded, what, path, progress=quiet)
    return CapturedSignals(path, what)


def dense(model: LlamaForCausalLM, encoded: list[EncodedConversation], temperature: float = 1.0) -> torch.Tensor:
    """What is captured is computed in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        teacher = TorchTeacher(model, model.config.vocab_size, temperature)
        return teacher.get_signal(build_batch(encoded, 0), encoded).log_probs


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kept_tokens_come_back_with_the_rest_as_one(
    temperature: float, model: LlamaForCausalLM, encoded: list[EncodedConversation], tmp_path: Path
) -> None:
    signals = captured(model, encoded, tmp_path / "signals", top_k=8, temperature=temperature)
    some = [encoded[5], encoded[0]]
    log_probs = dense(model, some, temperature)
    signal = signals.get_signal(build_batch(some, 0), some)
    assert isinstance(signal, TopKSignal)
    assert len(signal.ids) == sum(sum(one.learned) for one in some) == len(log_probs)
    assert signal.log_probs[:, :8] == pytest.approx(log_probs.gather(1, signal.ids), abs=0.02)
    assert signal.log_probs.exp().sum(1).tolist() == pytest.approx([1] * len(log_probs), abs=1e-5)
    assert (signal.log_probs[:, 8].exp() > 0.5).all(), "an untrained model spreads its probability"


def shares_of_words(found: SampledTokens, words: int) -> torch.Tensor:
    return torch.zeros(len(found.ids), words, dtype=torch.float64).scatter_add(1, found.ids, found.shares.double())


@pytest.mark.parametrize("spread", [0.0, 2.0, 6.0])
def test_draws_give_the_gradient_of_all_probabilities_in_expectation(spread: float) -> None:
    torch.manual_seed(0)
    log_probs = (spread * torch.randn(1, 40)).log_softmax(-1)
    found = sample_tokens(log_probs.expand(4000, -1), 12, torch.Generator().manual_seed(3))
    shares = shares_of_words(found, 40)
    assert shares.sum(1).numpy() == pytest.approx(np.ones(4000), abs=1e-6)
    exact = log_probs.exp()[0].double()
    assert ((shares.mean(0) - exact).abs() < 4.5 * shares.std(0) / 4000**0.5 + 1e-6).all()
    assert all(len(set(row)) == 12 for row in found.ids.tolist())


def test_no_unbiased_estimate_with_as_many_tokens_has_less_variance() -> None:
    """The likeliest are certain; each other has an equal share of the rest. Draws with replacement vary much more."""
    torch.manual_seed(1)
    log_probs = (2.5 * torch.randn(1, 40)).log_softmax(-1)
    found = sample_tokens(log_probs.expand(3000, -1), 12, torch.Generator().manual_seed(4))
    exact = log_probs.exp()[0].double()
    number = int(found.certain[0].sum())
    assert 0 < number < 12
    assert found.shares[0, :number].tolist() == pytest.approx(exact.sort(descending=True).values[:number].tolist())
    share = found.shares[0, -1].item()
    rest = exact[exact < share]
    varied = (shares_of_words(found, 40) - exact).square().sum(1).mean().item()
    assert len(rest) == 40 - number
    assert varied == pytest.approx((rest * (share - rest)).sum().item(), rel=0.1)
    assert varied < 0.5 * (exact * (1 - exact)).sum().item() / 12


@pytest.mark.parametrize("spread", [0.0, 2.0, 9.0])
def test_stored_shares_decode_to_all_shares(spread: float) -> None:
    """From uniform probabilities, of which none is certain, to those of a single word; one word is impossible."""
    logits = spread * torch.randn(300, 40, generator=torch.Generator().manual_seed(0))
    logits[:, 7] = -torch.inf
    log_probs = logits.log_softmax(-1)
    found = sample_tokens(log_probs, 12, torch.Generator().manual_seed(5))
    arrays = encode_sampled(log_probs, 12, torch.Generator().manual_seed(5))
    assert (arrays["ids"] == found.ids.numpy()).all()
    shares = decode_shares(arrays["certain"], 12, arrays["shares"])
    assert shares == pytest.approx(found.shares.numpy(), abs=2e-3)
    assert shares.sum(1) == pytest.approx(np.ones(300), abs=1e-6)
    assert shares.min() >= -1e-6
    entropy = torch.special.entr(log_probs.exp()).sum(1)
    assert arrays["entropy"] == pytest.approx(entropy.numpy(), abs=2e-3)


def test_renormalized_top_k_would_make_a_student_overconfident() -> None:
    """Why the rest is kept, and what the test before would not let through."""
    log_probs = (2 * torch.randn(1, 40, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    with_rest = torch.from_numpy(encode_top_k(log_probs, 3)["log_probs"].astype(np.float32))
    without = with_rest[:, :3].log_softmax(1)
    assert without[0, 0].exp() > 1.05 * log_probs.max().exp()
    assert with_rest[0, 0].exp().item() == pytest.approx(log_probs.max().exp().item(), rel=1e-3)


def test_sampled_signals_round_trip(
    model: LlamaForCausalLM, encoded: list[EncodedConversation], tmp_path: Path
) -> None:
    signals = captured(model, encoded, tmp_path / "signals", signals="sampled", draws=50)
    some = [encoded[7], encoded[2]]
    signal = signals.get_signal(build_batch(some, 0), some)
    assert isinstance(signal, SampledSignal)
    assert len(signal.ids) == sum(sum(one.learned) for one in some)
    assert signal.shares.sum(1).tolist() == pytest.approx([1] * len(signal.ids), abs=1e-5)
    alone = signals.get_signal(build_batch([some[1]], 0), [some[1]])
    assert isinstance(alone, SampledSignal)
    size = len(alone.ids)
    assert signal.ids[-size:].equal(alone.ids)
    assert signal.shares[-size:].equal(alone.shares)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tokenizer": "other"}, "another tokenizer"),
        ({"teacher": "other"}, "another teacher"),
        ({"kept": 9}, "another kept"),
        ({"temperature": 2.0}, "another temperature"),
        ({"kind": "sampled"}, "another kind"),
        ({"words": 401}, "another words"),
    ],
)
def test_signals_with_another_identity_are_refused(
    change: dict[str, object], named: str, model: LlamaForCausalLM, encoded: list[EncodedConversation], tmp_path: Path
) -> None:
    what = is_of(model.config.vocab_size)
    capture_signals(build_model_capture(model, what, 0), encoded, what, tmp_path / "signals", progress=quiet)
    CapturedSignals(tmp_path / "signals", what)
    with pytest.raises(UsageError, match=named):
        CapturedSignals(tmp_path / "signals", what._replace(**change))  # type: ignore[arg-type]


def test_signals_of_another_text_are_refused(
    model: LlamaForCausalLM, encoded: list[EncodedConversation], tmp_path: Path
) -> None:
    signals = captured(model, encoded[:10], tmp_path / "signals")
    signals.check(encoded[:10])
    with pytest.raises(UsageError, match="2 of 12 conversations are not among the 10"):
        signals.check(encoded)
    longer = EncodedConversation((*encoded[0].ids, 5), (*encoded[0].learned, True))
    marked = EncodedConversation(encoded[0].ids, (*encoded[0].learned[:-1], not encoded[0].learned[-1]))
    for other in (longer, marked):
        with pytest.raises(UsageError, match="1 of 1 conversations"):
            signals.check([other])


def test_damaged_or_foreign_files_are_refused(
    model: LlamaForCausalLM, encoded: list[EncodedConversation], tmp_path: Path
) -> None:
    captured(model, encoded, tmp_path / "signals")
    whole = (tmp_path / "signals").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text").write_text(json.dumps({"a": 1}))
    save_file({"a": np.zeros(3)}, tmp_path / "weights")
    for name in ("cut", "text", "weights"):
        with pytest.raises(UsageError, match="remove it"):
            CapturedSignals(tmp_path / name, is_of(model.config.vocab_size))


def test_all_three_signals_have_about_the_same_divergence(
    model: LlamaForCausalLM, encoded: list[EncodedConversation], tmp_path: Path
) -> None:
    words = model.config.vocab_size
    student = opinionated(LlamaForCausalLM(model.config), 1)
    opinionated(model, 2)
    sources: dict[str, SignalSource] = {
        "dense": TorchTeacher(model, words, 1.0),
        "all": captured(model, encoded, tmp_path / "all", top_k=words),
        "top_k": captured(model, encoded, tmp_path / "top_k", top_k=8),
        "sampled": captured(model, encoded, tmp_path / "sampled", signals="sampled", draws=255),
    }
    both = {name: measure_held_out(student, encoded, source, 0, words, 1.0) for name, source in sources.items()}
    assert {one.loss for one in both.values()} == {compute_held_out_loss(student, encoded, 0)}
    found = {name: one.kl for name, one in both.items() if one.kl is not None}
    assert found["dense"] > 0.5
    assert found["all"] == pytest.approx(found["dense"], rel=0.02)
    assert found["sampled"] == pytest.approx(found["dense"], rel=0.1)
    assert found["top_k"] < found["dense"]


def test_teachers_are_distinguished_by_their_files(tiny_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny_folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert teacher_digest(str(copy)) == teacher_digest(str(tiny_folder))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert teacher_digest(str(copy)) != teacher_digest(str(tiny_folder))
    with pytest.raises(UsageError, match="cannot find 'no/such-model'"):
        teacher_digest("no/such-model")
