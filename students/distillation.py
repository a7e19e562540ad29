"""What a step learns from: the weighed objectives of a recipe, over a student's predictions and its teacher's signals.

Knows losses, predictions and signals; knows nothing of optimizers, or of how signals come to be.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from core.student_config import DIVERGENCES, StudentConfig
from students import objectives
from students.data import Batch, Encoded, batched
from students.evaluate import EVALUATION_BATCH, Predicted, held_out_loss, predicted
from students.signals import Sampled, TopK
from students.teacher import Dense

Signal = Dense | TopK | Sampled


class Signals(Protocol):
    """Where a teacher's probabilities come from: a teacher that runs beside the student, or a file of captured ones."""

    def signal(self, batch: Batch, encoded: Sequence[Encoded]) -> Signal:
        """Of each learned token of the batch, conversation after conversation, in order."""
        ...


class Terms(NamedTuple):
    """The objectives of one step in nats per token, or per pair, not weighed yet."""

    values: dict[str, torch.Tensor]
    tokens: int
    """Learned ones in the batch."""
    conversations: int
    """Pairs, for `dpo`."""

    def total(self, weights: dict[str, float]) -> torch.Tensor:
        return torch.stack([weights[name] * value for name, value in self.values.items()]).sum()

    def part_of(self, tokens: int, conversations: int) -> "Terms":
        """What this batch adds to the means over so many tokens, or over so many pairs."""
        shares = {"dpo": self.conversations / conversations}
        share = self.tokens / tokens
        return self._replace(values={name: value * shares.get(name, share) for name, value in self.values.items()})

    def taught(self) -> "Terms":
        """Without what the text alone teaches."""
        return self._replace(values={name: value for name, value in self.values.items() if name != "sft"})


class Measured(NamedTuple):
    """Of held-out conversations, in nats per assistant token."""

    loss: float
    kl: float | None
    """Forward KL divergence from the teacher; None where no teacher is asked."""


class Lesson:
    """The objectives of a recipe, and what they need beside the student."""

    def __init__(
        self, config: StudentConfig, signals: Signals | None, words: int, projections: torch.nn.ModuleList
    ) -> None:
        """`words` are the tokenizer's. `projections` are as `projections` makes them, empty unless `hidden` is learned."""
        self.weights = config.weights
        self._precision = config.precision
        self._packed_to = config.max_tokens if config.packing else 0
        self.projections = projections
        self._config = config.distillation
        self._signals, self._words = signals, words
        self._before: dict[Encoded, float] = {}

    @property
    def teaches(self) -> bool:
        """Whether there is anything to learn but the text."""
        return set(self.weights) != {"sft"}

    def precision(self, model: PreTrainedModel) -> torch.autocast:
        """In which a step is computed. Weights, their gradients and the optimizer's state are in float32 always."""
        return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16")

    def measured(self, model: PreTrainedModel, held_out: Sequence[Encoded], pad: int) -> Measured:
        """Before or after training, in the precision of the weights."""
        if self._signals is None:
            return Measured(held_out_loss(model, held_out, pad), None)
        return measured(model, held_out, self._signals, pad, self._words, self._config.temperature)

    def terms(
        self,
        model: PreTrainedModel,
        encoded: Sequence[Encoded],
        pad: int,
        *,
        rejected: Sequence[Encoded] = (),
        own: bool = False,
    ) -> Terms:
        """Of a step on `encoded`, each paired with one of `rejected` if `dpo` is learned. Answers that are the student's own
        teach by the teacher's judgement alone.
        """
        batch = batched([*encoded, *rejected], pad, packed_to=self._packed_to)
        said = predicted(model, batch, hidden="hidden" in self.weights)
        values: dict[str, torch.Tensor] = {}
        if rejected:
            values["dpo"] = self._preferred(said, encoded, rejected)
            batch = batched(encoded, pad, packed_to=self._packed_to)
            said = _first(said, len(encoded))
        if "sft" in self.weights and not own:
            values["sft"] = functional.cross_entropy(said.logits, said.targets)
        if self._signals:
            values |= self._compared(said, self._signals.signal(batch, encoded))
        return Terms(values, len(said.targets), len(encoded))

    def refer_to(self, model: PreTrainedModel, conversations: Sequence[Encoded], pad: int) -> None:
        """Remember how likely `model` finds these answers, as what `dpo` departs from."""
        parts = range(0, len(conversations), EVALUATION_BATCH)
        batches = [conversations[first : first + EVALUATION_BATCH] for first in parts]
        with torch.no_grad(), self.precision(model):
            found = [log_likelihoods(predicted(model, batched(some, pad)), len(some)).tolist() for some in batches]
        for some, values in zip(batches, found, strict=True):
            self._before.update(zip(some, values, strict=True))

    def _preferred(self, said: Predicted, chosen: Sequence[Encoded], rejected: Sequence[Encoded]) -> torch.Tensor:
        now = log_likelihoods(said, len(chosen) + len(rejected))
        before = now.new_tensor([self._before[one] for one in (*chosen, *rejected)])
        pairs = (*torch.split(now, len(chosen)), *torch.split(before, len(chosen)))
        return objectives.dpo(*pairs, beta=self._config.dpo_beta).mean()

    def _compared(self, said: Predicted, signal: Signal) -> dict[str, torch.Tensor]:
        names = [name for name in self.weights if name in DIVERGENCES]
        logits = said.logits[:, : self._words] / self._config.temperature
        values: dict[str, torch.Tensor] = {}
        if isinstance(signal, Sampled):
            values = {name: sampled_kl(logits, signal).mean() for name in names}
        elif names:
            student, teacher = outcomes(logits, signal)
            values = {name: objectives.divergence(name, self._config)(student, teacher).mean() for name in names}
        if "hidden" in self.weights and isinstance(signal, Dense):
            values["hidden"] = self._matched(said.hidden, signal.hidden)
        return values

    def _matched(self, student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
        pairs = zip(self.projections, student, matching_layers(len(student), len(teacher)), strict=True)
        return torch.stack(
            [objectives.hidden(project(own), teacher[layer]).mean() for project, own, layer in pairs]
        ).mean()


def _first(said: Predicted, conversations: int) -> Predicted:
    """Of the first conversations of a batch only."""
    within = said.rows < conversations
    return Predicted(
        said.logits[within], said.targets[within], said.rows[within], tuple(layer[within] for layer in said.hidden)
    )


def log_likelihoods(said: Predicted, conversations: int) -> torch.Tensor:
    """Of all learned tokens of each conversation of a batch together, of shape (conversations,)."""
    losses = functional.cross_entropy(said.logits, said.targets, reduction="none")
    return losses.new_zeros(conversations).index_add(0, said.rows, -losses)


def outcomes(logits: torch.Tensor, signal: Dense | TopK) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the student and the teacher for the outcomes that the signal tells apart.

    `logits` are the student's, divided by the temperature, of shape (tokens, words). A divergence over fewer outcomes is at
    most that over all words, for all but `alpha_beta` (data processing inequality).
    """
    if isinstance(signal, Dense):
        return logits.log_softmax(-1), signal.log_probs
    ids = signal.ids.to(logits.device)
    student = logits.gather(1, ids)
    if signal.log_probs.shape[1] > ids.shape[1]:
        rest = logits.scatter(1, ids, -torch.inf).logsumexp(1, keepdim=True)
        student = torch.cat([student, rest], 1)
    return student.log_softmax(-1), signal.log_probs.to(logits.device)


def sampled_kl(logits: torch.Tensor, signal: Sampled) -> torch.Tensor:
    """An unbiased estimate of the forward KL divergence over all words, of shape (tokens,); a single one can be negative."""
    ids, shares, entropy = (tensor.to(logits.device) for tensor in signal)
    return logits.logsumexp(1) - (shares * logits.gather(1, ids)).sum(1) - entropy


def matching_layers(student: int, teacher: int) -> list[int]:
    """For each layer of the student the layer of the teacher at the same share of the depth, as in TinyBERT's uniform rule
    (arXiv 1909.10351, section 3.2); the last matches the last.
    """
    return [round((layer + 1) * teacher / student) - 1 for layer in range(student)]


def projections(student: PreTrainedModel, teacher: PreTrainedModel) -> torch.nn.ModuleList:
    """For each layer of the student what makes its hidden states as wide as the teacher's; learned along, then thrown away.

    Where they are as wide already, it begins by changing nothing.
    """
    own, wide = student.config.hidden_size, teacher.config.hidden_size
    layers = [torch.nn.Linear(own, wide, bias=False) for _ in range(student.config.num_hidden_layers)]
    if own == wide:
        for layer in layers:
            torch.nn.init.eye_(layer.weight)
    return torch.nn.ModuleList(layers)


def gradient_norm(loss: torch.Tensor, learner: torch.nn.Module) -> float:
    """Of the loss with respect to all that learns; the graph stays."""
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return float(torch.stack([g.float().norm() for g in gradients if g is not None] or [torch.zeros(())]).norm())


@torch.no_grad()
def measured(
    model: PreTrainedModel, held_out: Sequence[Encoded], signals: Signals, pad: int, words: int, temperature: float
) -> Measured:
    """Both in one pass; the divergence over the outcomes that the signals tell apart."""
    training = model.training
    model.train(False)
    loss, kl, tokens = 0.0, 0.0, 0
    for first in range(0, len(held_out), EVALUATION_BATCH):
        some = held_out[first : first + EVALUATION_BATCH]
        batch = batched(some, pad)
        said = predicted(model, batch)
        logits = said.logits[:, :words] / temperature
        signal = signals.signal(batch, some)
        found = (
            sampled_kl(logits, signal)
            if isinstance(signal, Sampled)
            else objectives.forward_kl(*outcomes(logits, signal))
        )
        loss += functional.cross_entropy(said.logits, said.targets, reduction="sum").item()
        kl += found.sum().item()
        tokens += len(found)
    model.train(training)
    return Measured(loss / tokens, kl / tokens)
