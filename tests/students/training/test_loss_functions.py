import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import stillhouse
from core import extensions
from core.config.losses import TRAINING_LOG_FIELDS
from core.config.students import StudentConfig
from core.errors import RunFailed
from students.captured_signals import SampledSignal, TopKSignal
from students.chat_encoding import Conversation
from students.torch_teacher import DenseSignal
from students.training import loss_functions
from students.training.loss_functions import forward_kl
from students.training.student_training import train_student
from students.training.training_objective import outcome_log_probabilities, sampled_kl
from tests.students.conftest import quiet
from tests.students.training.test_training_objective import log_of, with_settings

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
    dense = LOSSES[name](*outcome_log_probabilities(logits, DenseSignal(teacher, 1.0, ())))
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_in_blocks_are_those_of_all_tokens_at_once(dtype: torch.dtype) -> None:
    """With their gradients, at 3 tokens per block; the last block has one."""
    logits = torch.randn(7, 350_000).to(dtype).requires_grad_()
    targets, weights = torch.randint(350_000, (7,)), torch.rand(7)
    found = loss_functions.cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad((weights * found).sum(), logits, retain_graph=True)
    whole = functional.cross_entropy(logits.float(), targets, reduction="none")
    (expected,) = torch.autograd.grad((weights * whole).sum(), logits)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(gradient, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=0)
    assert torch.autograd.grad((weights * found).sum(), logits)[0].equal(gradient), "its graph can be used again"
    with torch.no_grad():
        torch.testing.assert_close(loss_functions.cross_entropy(logits, targets), whole)


def test_outcomes_of_zero_teacher_probability_do_not_count() -> None:
    teacher = torch.tensor([[0.0, -math.inf]])
    assert loss_functions.forward_kl(FAIR, teacher).item() == pytest.approx(math.log(2))


@pytest.fixture
def from_teacher(config: StudentConfig, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> StudentConfig:
    """A short training with a teacher; what the test registers is forgotten after it."""
    monkeypatch.setattr(extensions, "_registered", {kind: {} for kind in extensions.BASES})
    return with_settings(config, distillation={"teacher": str(teacher)}, epochs=1)


class Scale(stillhouse.LossOptions):
    factor: float = 1.0


def scaled_divergence(student: torch.Tensor, teacher: torch.Tensor, options: Scale) -> torch.Tensor:
    return options.factor * forward_kl(student, teacher)


@pytest.mark.parametrize("signals", ["dense", "top_k"])
def test_a_loss_that_needs_a_teacher_gets_what_a_built_in_divergence_gets(
    signals: str, talk: list[Conversation], from_teacher: StudentConfig, tmp_path: Path
) -> None:
    stillhouse.register(stillhouse.loss("scaled", Scale, needs_teacher=True)(scaled_divergence))
    distillation = {"signals": signals, "top_k": 20}
    settings: dict[str, dict[str, Any]] = {
        "plain": {"objective": "forward_kl"},
        "scaled": {"objective": "scaled"},
        "double": {"objective": "scaled", "loss_options": {"scaled": {"factor": 2.0}}},
    }
    losses = {}
    for name, changes in settings.items():
        adjusted = with_settings(from_teacher, distillation=distillation, **changes)
        train_student(talk, adjusted, tmp_path / name, seed=7, progress=quiet)
        losses[name] = [line["loss"] for line in log_of(tmp_path / name)]
        assert {key for line in log_of(tmp_path / name) for key in line} <= {*TRAINING_LOG_FIELDS}
    assert losses["scaled"] == pytest.approx(losses["plain"], rel=1e-4)
    assert losses["double"][0] == pytest.approx(2 * losses["plain"][0], rel=1e-4)


def test_it_counts_as_a_divergence_in_what_a_recipe_may_say(from_teacher: StudentConfig) -> None:
    stillhouse.register(stillhouse.loss("scaled", Scale, needs_teacher=True)(scaled_divergence))
    stillhouse.register(stillhouse.loss("plain")(lambda logits, targets, options: logits.sum(1)))
    assert with_settings(from_teacher, objective="scaled").asks_teacher
    assert not with_settings(from_teacher, objective="plain").asks_teacher
    assert with_settings(from_teacher, objective="scaled", distillation={"lmbda": 0.5}).divergences == {"scaled"}
    with pytest.raises(ValueError, match="generated answers need a divergence"):
        with_settings(from_teacher, objective="plain", distillation={"lmbda": 0.5})
    with pytest.raises(ValueError, match="scaled: cannot be computed from sampled signals"):
        with_settings(from_teacher, objective="scaled", distillation={"signals": "sampled"})


@pytest.mark.parametrize("result", [torch.zeros(()), 3.0])
def test_a_loss_of_another_shape_ends_the_training_in_one_sentence(
    result: Any, talk: list[Conversation], from_teacher: StudentConfig, tmp_path: Path
) -> None:
    stillhouse.register(stillhouse.loss("flat")(lambda logits, targets, options: result))
    with pytest.raises(
        RunFailed, match=r"the loss 'flat' of this program returned .+; it must return a tensor of shape"
    ):
        train_student(talk, with_settings(from_teacher, objective="flat"), tmp_path / "flat", seed=7, progress=quiet)
