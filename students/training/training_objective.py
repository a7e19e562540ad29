"""A recipe's weighted objectives, computed from a student's predictions, its teacher's signals and its start's predictions.

Knows losses, predictions and signals; knows nothing of optimizers or the source of signals.
"""

from collections.abc import Iterator, Sequence, Set
from typing import Any, NamedTuple, Protocol

import torch
from transformers import PreTrainedModel

from core.config.students import StudentConfig
from core.errors import RunFailed
from students.captured_signals import SampledSignal, TopKSignal
from students.chat_encoding import EncodedConversation
from students.predictions import (
    EVALUATION_BATCH,
    TokenBatch,
    TokenPredictions,
    build_batch,
    compute_held_out_loss,
    predict_tokens,
)
from students.torch_teacher import DenseSignal
from students.training import loss_functions
from students.training.steps import StartReference, StepCode
from students.training_data import PreferenceAnswer

REPLAY = "replay"
"""The name of the term on replay conversations, next to the objectives."""

TeacherSignal = DenseSignal | TopKSignal | SampledSignal


class SignalSource(Protocol):
    """The source of a teacher's probabilities: a running teacher, or a file of captured signals."""

    def get_signal(self, batch: TokenBatch, encoded: Sequence[EncodedConversation]) -> TeacherSignal:
        """The teacher's signal for each learned token of the batch, ordered by conversation."""
        ...


class _LossTerms(NamedTuple):
    """The objectives of one step in nats per token, or per pair, before weighting."""

    values: dict[str, torch.Tensor]
    tokens: int
    """Learned tokens in the batch."""
    pairs: int
    """For `dpo`."""

    def weighted_sum(self, weights: dict[str, float]) -> torch.Tensor:
        return torch.stack([weights[name] * value for name, value in self.values.items()]).sum()

    def scale_to_step(self, tokens: int, pairs: int) -> "_LossTerms":
        """The batch's part of the means over a step's `tokens`, or over its `pairs`."""
        shares = {"dpo": self.pairs / max(1, pairs)}
        share = self.tokens / tokens
        return self._replace(values={name: value * shares.get(name, share) for name, value in self.values.items()})

    def without_text_losses(self, names: Set[str]) -> "_LossTerms":
        """Without `names`, the objectives that need no teacher."""
        return self._replace(values={name: value for name, value in self.values.items() if name not in names})


class HeldOutLosses(NamedTuple):
    """The losses on held-out conversations, in nats per assistant token."""

    loss: float
    kl: float | None
    """Forward KL divergence from the teacher; None without a teacher."""


class TrainingObjective:
    """A recipe's objectives, with the teacher's signals and projections that they need."""

    def __init__(
        self,
        config: StudentConfig,
        signals: SignalSource | None,
        words: int,
        projections: torch.nn.ModuleList,
        steps: Sequence[StepCode] = (),
    ) -> None:
        """`words` is the tokenizer's size. `projections` come from `build_projections`, empty without the objective `hidden`."""
        self.weights = {
            **config.objective_weights,
            **{name: weight for step in steps for name, weight in step.weights.items()},
        }
        """Of the objectives, and of the terms of steps."""
        self._steps = steps
        self._divergences = config.divergences
        self._installed = {
            extension.name: (extension, extension.value.options(**config.loss_options[extension.name]))
            for extension in config.loss_extensions
        }
        self.text_losses = config.text_losses | (self.weights.keys() - config.objective_weights.keys())
        """The terms that need no teacher and no answer of the student."""
        self._precision = config.precision
        self.projections = projections
        self._config = config.distillation
        self._signals, self._words = signals, words
        self._before: dict[EncodedConversation, float] = {}
        self.reference: StartReference | None = None
        self._replay = config.replay

    def open_autocast(self, model: PreTrainedModel) -> torch.autocast:
        """The precision of a step. Weights, gradients and the optimizer's state are always in float32."""
        return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16")

    def measure(self, model: PreTrainedModel, held_out: Sequence[EncodedConversation], pad: int) -> HeldOutLosses:
        """The held-out losses before or after training, in the precision of the weights."""
        if self._signals is None:
            return HeldOutLosses(compute_held_out_loss(model, held_out, pad), None)
        return measure_held_out(model, held_out, self._signals, pad, self._words, self._config.temperature)

    def compute_terms(
        self,
        model: PreTrainedModel,
        encoded: Sequence[EncodedConversation],
        pad: int,
        *,
        rejected: Sequence[EncodedConversation | None] = (),
        own: bool = False,
    ) -> _LossTerms:
        """The objectives of a step on `encoded`; those with a counterpart in `rejected` are pairs for `dpo`.

        `own` marks the student's own answers: they have no `sft` loss.
        """
        batch = build_batch(encoded, pad)
        opened = [] if own else [terms for step in self._steps if (terms := step.open_losses(model, batch))]
        paired = [place for place, other in enumerate(rejected) if other]
        worse = [other for other in rejected if other]
        whole = build_batch([*encoded, *worse], pad) if worse else batch
        last = not own and any(step.reads_last_states for step in self._steps)
        predictions = predict_tokens(model, whole, hidden="hidden" in self.weights, last=last)
        values: dict[str, torch.Tensor] = {}
        if worse:
            now = _conversation_log_likelihoods(predictions, len(encoded) + len(worse))
            before = [
                now.new_tensor([self._before[text] for text in side]) for side in ([encoded[i] for i in paired], worse)
            ]
            losses = loss_functions.dpo_loss(now[paired], now[len(encoded) :], *before, beta=self._config.dpo_beta)
            values["dpo"] = losses.mean()
            predictions = predictions.select_first(len(encoded))  # the other objectives see `encoded` only
        for terms in opened:
            values |= terms(predictions)
        if "sft" in self.weights and not own:
            values["sft"] = loss_functions.cross_entropy(predictions.raw, predictions.targets).mean()
        for name in () if own else sorted(self.text_losses & self._installed.keys()):
            values[name] = self._compute_installed(name, predictions.logits, predictions.targets)
        if self._signals:
            values |= self._compute_teacher_losses(predictions, self._signals.get_signal(batch, encoded))
        return _LossTerms(values, len(predictions.targets), len(worse))

    def compute_replay_loss(
        self, model: PreTrainedModel, replayed: Sequence[EncodedConversation], pad: int
    ) -> torch.Tensor:
        """The replay term on these conversations of the start, in nats per token, before weighting."""
        assert self._replay
        assert self.reference
        batch = build_batch(replayed, pad)
        if self._replay.loss == "sft":
            predictions = predict_tokens(model, batch)
            return loss_functions.cross_entropy(predictions.raw, predictions.targets).mean()
        start = self.reference.compute_log_probs(batch)  # before the student's pass, which has its adapters
        return loss_functions.compute_in_blocks(
            predict_tokens(model, batch).raw,
            lambda block, span: loss_functions.forward_kl(block.log_softmax(-1), start[span]),
        ).mean()

    def compute_kto(
        self, model: PreTrainedModel, judged: Sequence[PreferenceAnswer], divergence: float, pad: int
    ) -> torch.Tensor:
        """The `kto` loss of each answer, of shape (answers,), before weighting."""
        predictions = predict_tokens(model, build_batch([one.text for one in judged], pad))
        now = _conversation_log_likelihoods(predictions, len(judged))
        before = now.new_tensor([self._before[one.text] for one in judged])
        kept = torch.tensor([one.kept for one in judged], device=now.device)
        return loss_functions.kto_loss(now, before, kept, divergence, beta=self._config.dpo_beta)

    def estimate_divergence(self, model: PreTrainedModel, judged: Sequence[PreferenceAnswer], pad: int) -> float:
        """The student's divergence from its start in nats per answer, at least 0: the mean gain in log-likelihood of unrelated
        answers (arXiv 2402.01306).
        """
        texts = [one.unrelated for one in judged]
        gained = (now - self._before[text] for text, now in zip(texts, self._measure(model, texts, pad), strict=True))
        return max(0.0, sum(gained) / len(texts))

    def record_reference(self, model: PreTrainedModel, conversations: Sequence[EncodedConversation], pad: int) -> None:
        """Record the log-likelihoods of these answers under `model`, the reference of `dpo` and `kto`."""
        self._before.update(zip(conversations, self._measure(model, conversations, pad), strict=True))

    def _measure(
        self, model: PreTrainedModel, conversations: Sequence[EncodedConversation], pad: int
    ) -> Iterator[float]:
        """The log-likelihood of each conversation's learned tokens, without a gradient."""
        for first in range(0, len(conversations), EVALUATION_BATCH):
            part = conversations[first : first + EVALUATION_BATCH]
            with torch.no_grad(), self.open_autocast(model):
                predictions = predict_tokens(model, build_batch(part, pad))
                yield from _conversation_log_likelihoods(predictions, len(part)).tolist()

    def _compute_teacher_losses(self, predictions: TokenPredictions, signal: TeacherSignal) -> dict[str, torch.Tensor]:
        names = [name for name in self.weights if name in self._divergences]
        logits, temperature = predictions.raw[:, : self._words], self._config.temperature
        values: dict[str, torch.Tensor] = {}
        for name in names:
            if name in self._installed:
                assert not isinstance(signal, SampledSignal)
                both = outcome_log_probabilities(logits.float() / temperature, signal)
                values[name] = self._compute_installed(name, *both)
            else:
                divergence = loss_functions.select_divergence(name, self._config)
                values[name] = compute_divergences(logits, signal, temperature, divergence).mean()
        if "hidden" in self.weights and isinstance(signal, DenseSignal):
            layers = _match_layers(len(predictions.hidden), len(signal.hidden))
            pairs = zip(self.projections, predictions.hidden, layers, strict=True)
            losses = [
                loss_functions.hidden_state_loss(project(own), signal.hidden[layer]).mean()
                for project, own, layer in pairs
            ]
            values["hidden"] = torch.stack(losses).mean()
        return values

    def _compute_installed(self, name: str, student: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """The mean of an installed loss over the tokens. Raises RunFailed if it does not return one value per token."""
        extension, options = self._installed[name]
        losses = extension.value.compute(student, other, options)
        if not isinstance(losses, torch.Tensor) or losses.shape != student.shape[:1]:
            shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise RunFailed(f"{extension.title} returned {shape}; it must return a tensor of shape ({len(student)},)")
        return losses.mean()


def _conversation_log_likelihoods(predictions: TokenPredictions, conversations: int) -> torch.Tensor:
    """The summed log-probability of each conversation's learned tokens, of shape (conversations,)."""
    losses = loss_functions.cross_entropy(predictions.raw, predictions.targets)
    return losses.new_zeros(conversations).index_add(0, predictions.rows, -losses)


def compute_divergences(
    logits: torch.Tensor, signal: TeacherSignal, temperature: float, divergence: loss_functions.Divergence
) -> torch.Tensor:
    """The divergence of each token, of shape (tokens,); of a sampled signal always the forward KL divergence.

    `logits` are the student's of the teacher's words, of shape (tokens, words).
    """

    def compute(block: torch.Tensor, span: slice) -> torch.Tensor:
        tensors: dict[str, Any] = {
            name: part[span] for name, part in signal._asdict().items() if isinstance(part, torch.Tensor)
        }
        part = signal._replace(**tensors)
        block = block / temperature
        if isinstance(part, SampledSignal):
            return sampled_kl(block, part)
        return divergence(*outcome_log_probabilities(block, part))

    return loss_functions.compute_in_blocks(logits, compute)


def outcome_log_probabilities(
    logits: torch.Tensor, signal: DenseSignal | TopKSignal
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the student and the teacher for the outcomes that the signal distinguishes.

    `logits` are the student's, divided by the temperature, of shape (tokens, words). A divergence over fewer outcomes is a
    lower bound of the divergence over all words, except for `alpha_beta` (data processing inequality).
    """
    if isinstance(signal, DenseSignal):
        return logits.log_softmax(-1), signal.log_probs
    ids = signal.ids.to(logits.device)
    student = logits.gather(1, ids)
    if signal.log_probs.shape[1] > ids.shape[1]:
        rest = logits.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True)
        student = torch.cat([student, rest], 1)
    return student.log_softmax(-1), signal.log_probs.to(logits.device)


def sampled_kl(logits: torch.Tensor, signal: SampledSignal) -> torch.Tensor:
    """An unbiased estimate of the forward KL divergence over all words, of shape (tokens,); a single one can be negative."""
    ids, shares, entropy = (tensor.to(logits.device) for tensor in signal)
    return logits.logsumexp(1) - (shares * logits.gather(1, ids)).sum(1) - entropy


def _match_layers(student: int, teacher: int) -> list[int]:
    """For each layer of the student the layer of the teacher at the same share of the depth, as in TinyBERT's uniform rule
    (arXiv 1909.10351, section 3.2); the last matches the last.
    """
    return [round((layer + 1) * teacher / student) - 1 for layer in range(student)]


def build_projections(student: PreTrainedModel, teacher: PreTrainedModel) -> torch.nn.ModuleList:
    """For each layer of the student a projection of its hidden states to the teacher's width; trained, then discarded.

    For equal widths it is initialized to the identity.
    """
    own, wide = student.config.hidden_size, teacher.config.hidden_size
    layers = [torch.nn.Linear(own, wide, bias=False) for _ in range(student.config.num_hidden_layers)]
    if own == wide:
        for layer in layers:
            torch.nn.init.eye_(layer.weight)
    return torch.nn.ModuleList(layers)


def gradient_norm(loss: torch.Tensor, learner: torch.nn.Module) -> float:
    """The norm of the loss's gradient over all trainable parameters; keeps the graph."""
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return float(torch.stack([g.float().norm() for g in gradients if g is not None] or [torch.zeros(())]).norm())


@torch.no_grad()
def measure_held_out(
    model: PreTrainedModel,
    held_out: Sequence[EncodedConversation],
    signals: SignalSource,
    pad: int,
    words: int,
    temperature: float,
) -> HeldOutLosses:
    """Both losses in one pass; the divergence over the outcomes that the signals distinguish."""
    training = model.training
    model.train(False)
    loss, kl, tokens = 0.0, 0.0, 0
    for first in range(0, len(held_out), EVALUATION_BATCH):
        part = held_out[first : first + EVALUATION_BATCH]
        batch = build_batch(part, pad)
        predictions = predict_tokens(model, batch)
        signal = signals.get_signal(batch, part)
        divergence = compute_divergences(predictions.raw[:, :words], signal, temperature, loss_functions.forward_kl)
        loss += loss_functions.cross_entropy(predictions.raw, predictions.targets).sum().item()
        kl += divergence.sum().item()
        tokens += len(divergence)
    model.train(training)
    return HeldOutLosses(loss / tokens, kl / tokens)
