import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from students.signals.captured_signals import SampledSignal, TopKSignal
from students.signals.torch_teacher import DenseSignal
from students.training import loss_functions
from students.training.training_objective import outcome_log_probabilities, sampled_kl

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "trl_losses.json").read_text())
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES: dict[str, Loss] = {
    "forward_kl": loss_functions.forward_kl,
    "reverse_kl": loss_functions.reverse_kl,
    "jsd": partial(loss_functions.jsd, beta=0.3),
    "skew_kl": partial(loss_functions.skew_kl, skew=0.1),
    "skew_rkl": partial(loss_functions.skew_rkl, skew=0.1),
    "alpha_beta": partial(loss_functions.alpha_beta_divergence, alpha=0.2, beta=0.7),
    "alpha_beta, no beta": partial(loss_functions.alpha_beta_divergence, alpha=0.6, beta=0.0),
    "alpha_beta, no alpha": partial(loss_functions.alpha_beta_divergence, alpha=0.0, beta=0.6),
}
HALF, FAIR = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5]]).log()
"""A student and a teacher who have two words."""


def golden(name: str) -> torch.Tensor:
    """The learned tokens' logits."""
    return torch.tensor(GOLDEN[name], dtype=torch.float64)[torch.tensor(GOLDEN["learned"])]


@pytest.mark.parametrize(
    "case", GOLDEN["jsd"], ids=lambda case: f"beta {case['beta']}, temperature {case['temperature']}"
)
def test_divergences_are_those_of_trl(case: dict[str, float]) -> None:
    student, teacher = ((golden(name) / case["temperature"]).log_softmax(-1) for name in ("student", "teacher"))
    loss = loss_functions.jsd(student, teacher, beta=case["beta"]).mean().item()
    assert loss == pytest.approx(case["loss"], abs=1e-6)
    assert case["loss"] > 0.05


def test_the_divergence_of_the_likeliest_tokens_and_the_rest_is_that_of_trl() -> None:
    student, teacher = golden("student"), golden("teacher").log_softmax(-1)
    values, ids = teacher.topk(GOLDEN["top_k"]["kept"])
    rest = (1 - values.exp().sum(1, keepdim=True)).log()
    found = (
        loss_functions.forward_kl(*outcome_log_probabilities(student, TopKSignal(ids, torch.cat([values, rest], 1))))
        .mean()
        .item()
    )
    assert found == pytest.approx(GOLDEN["top_k"]["loss"], abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["dpo"])
def test_dpo_is_that_of_trl(case: dict[str, float]) -> None:
    named = (case[name] for name in ("chosen_now", "rejected_now", "chosen_before", "rejected_before"))
    loss = loss_functions.dpo_loss(
        *(torch.tensor(value, dtype=torch.float64) for value in named), beta=case["beta"]
    ).item()
    assert loss == pytest.approx(case["loss"], abs=1e-6)
    assert abs(loss - math.log(2)) > 0.01


MIXED = 0.3 * 0.5 + 0.7 * 0.25, 0.3 * 0.5 + 0.7 * 0.75
BY_HAND = {
    "forward_kl": 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75),
    "reverse_kl": 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5),
    "jsd": 0.3 * (0.5 * math.log(0.5 / MIXED[0]) + 0.5 * math.log(0.5 / MIXED[1]))
    + 0.7 * (0.25 * math.log(0.25 / MIXED[0]) + 0.75 * math.log(0.75 / MIXED[1])),
    "skew_kl": 0.5 * math.log(0.5 / 0.275) + 0.5 * math.log(0.5 / 0.725),
    "skew_rkl": 0.25 * math.log(0.25 / 0.475) + 0.75 * math.log(0.75 / 0.525),
    "alpha_beta": -sum(
        p**0.2 * q**0.7 - 2 / 9 * p**0.9 - 7 / 9 * q**0.9 for p, q in ((0.5, 0.25), (0.5, 0.75))
    )
    / 0.14,
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_divergences_have_the_values_computed_by_hand(name: str) -> None:
    assert LOSSES[name](HALF, FAIR).item() == pytest.approx(BY_HAND[name], rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_divergence_is_zero_for_equals_alone(name: str) -> None:
    torch.manual_seed(0)
    one, other = (torch.randn(5, 7, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    assert LOSSES[name](one, one) == pytest.approx(torch.zeros(5), abs=1e-12)
    assert (LOSSES[name](one, other) > 1e-3).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name: str) -> None:
    torch.manual_seed(0)
    logits, teacher = (torch.randn(3, 5, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x.log_softmax(-1), teacher.log_softmax(-1)), logits)


def test_gradients_of_the_other_losses_equal_finite_differences() -> None:
    torch.manual_seed(0)
    values = [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(partial(loss_functions.dpo_loss, beta=0.3), values)
    states = [torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(loss_functions.hidden_state_loss, states)


@pytest.mark.parametrize(("alpha", "beta", "limit"), [(1.0, 0.0, "forward_kl"), (0.0, 1.0, "reverse_kl")])
def test_alpha_beta_has_both_kl_divergences_as_limits(alpha: float, beta: float, limit: str) -> None:
    exact = loss_functions.alpha_beta_divergence(HALF, FAIR, alpha=alpha, beta=beta).item()
    near = loss_functions.alpha_beta_divergence(
        HALF.double(), FAIR.double(), alpha=alpha or 1e-5, beta=beta or 1e-5
    ).item()
    assert exact == pytest.approx(BY_HAND[limit], rel=1e-5)
    assert near == pytest.approx(exact, rel=1e-3)


def test_hidden_states_are_compared_by_direction_only() -> None:
    states = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert loss_functions.hidden_state_loss(5 * states, states).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert loss_functions.hidden_state_loss(states.flip(1), states).tolist() == pytest.approx([1, 1, 0], abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_all_tokens_kept_are_all_probabilities(name: str) -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(4, 30), torch.randn(4, 30).log_softmax(-1)
    values, ids = teacher.topk(30)
    dense = LOSSES[name](*outcome_log_probabilities(logits, DenseSignal(teacher, ())))
    assert LOSSES[name](*outcome_log_probabilities(logits, TopKSignal(ids, values))) == pytest.approx(dense, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in LOSSES if not name.startswith("alpha_beta")])
def test_fewer_outcomes_never_raise_a_divergence(name: str) -> None:
    torch.manual_seed(0)
    logits, teacher = 3 * torch.randn(50, 30), (3 * torch.randn(50, 30)).log_softmax(-1)
    found = []
    for kept in (1, 4, 12, 30):
        values, ids = teacher.topk(kept)
        rest = (1 - values.double().exp().sum(1, keepdim=True)).clamp_min(1e-12).log().float()
        signal = TopKSignal(ids, values if kept == 30 else torch.cat([values, rest], 1))
        found.append(LOSSES[name](*outcome_log_probabilities(logits, signal)).mean().item())
    assert found == sorted(found)
    assert found[0] < found[-1] * 0.9


def test_shares_that_are_the_probabilities_give_the_divergence() -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(4, 30), torch.randn(4, 30).log_softmax(-1)
    entropy = -(teacher.exp() * teacher).sum(1)
    exact = SampledSignal(torch.arange(30).expand(4, 30), teacher.exp(), entropy)
    assert sampled_kl(logits, exact) == pytest.approx(
        loss_functions.forward_kl(logits.log_softmax(-1), teacher), abs=1e-5
    )


def test_outcomes_of_zero_teacher_probability_do_not_count() -> None:
    teacher = torch.tensor([[0.0, -math.inf]])
    assert loss_functions.forward_kl(FAIR, teacher).item() == pytest.approx(math.log(2))
