"""The tables of a recipe that say what the student is and how it learns: `[student]`."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from core.config import Config

Objective = Literal[
    "sft", "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "alpha_beta", "hidden", "dpo"
]  # fmt: skip
DIVERGENCES = frozenset({"forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "alpha_beta"})
"""The objectives that compare the student's next-token probabilities with its teacher's."""


class DistillationConfig(Config):
    """What a student learns of its teacher's probabilities, for objectives that ask for them."""

    teacher: str = "embedded"
    """Whose they are: `embedded`, the weights of the embedded teacher; a folder or hub name that `transformers` loads; or an
    endpoint that tells `prompt_logprobs`, as vLLM does (`http://…/v1`, or `http://…/v1#MODEL` where it serves several), for
    `top_k`. Its tokenizer must be the student's."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds an endpoint's key."""
    signals: Literal["dense", "top_k", "sampled"] = "dense"
    """`dense`: the teacher runs beside the student and all of its probabilities count. The others are captured once and
    kept on disk. `top_k`: the likeliest tokens, and what is left as one. `sampled`: the likeliest tokens, and others drawn to
    stand for what is left, an unbiased estimate of all, for `forward_kl` only."""
    cache: str | None = None
    """The file of captured signals; where it is there, it must be of these texts, tokenizer, teacher and settings. When
    absent, `NAME.signals` beside the student."""
    top_k: int = Field(8, ge=1)
    """Tokens kept of each position: 4 bytes each and 2 for what is left, so 34 by default."""
    draws: int = Field(13, ge=1, le=255)
    """Tokens kept of each position, for `sampled`: 2 bytes each, 2 for each that is certain to be kept, and 3."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits of both before a divergence; the loss is not multiplied by its square."""
    beta: float = Field(0.5, ge=0, le=1)
    """For `jsd`: the teacher's share of the mixture; 0 is `forward_kl` and 1 `reverse_kl`, as in TRL."""
    skew: float = Field(0.1, gt=0, lt=1)
    """For `skew_kl` and `skew_rkl`: how much of the first distribution is mixed into the second (DistiLLM)."""
    alpha_beta: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.2, 0.7)
    """For `alpha_beta`, as in ABKD (arXiv 2505.04560); [1, 0] is `forward_kl` and [0, 1] `reverse_kl`."""
    dpo_beta: float = Field(0.1, gt=0)
    """For `dpo`: how much a departure from the start costs; `beta` of TRL's `DPOConfig`."""
    lmbda: float = Field(0.0, ge=0, le=1)
    """Share of the steps in which the student answers the prompts itself and is compared with its teacher on that; `sft`
    rests there."""
    max_new_tokens: int = Field(128, ge=1)
    """The longest answer of the student's own."""

    @field_validator("alpha_beta")
    @classmethod
    def _a_divergence(cls, alpha_beta: tuple[float, float]) -> tuple[float, float]:
        if not any(alpha_beta):
            raise ValueError("both are 0, which compares nothing; raise one of them")
        return alpha_beta

    @model_validator(mode="after")
    def _an_endpoint_tells(self) -> Self:
        if self.by_endpoint and (self.signals, self.temperature) != ("top_k", 1.0):
            raise ValueError(
                f"teacher = {self.teacher!r}: an endpoint tells its likeliest tokens only, at temperature 1; use "
                'signals = "top_k" and leave out temperature'
            )
        return self

    @property
    def by_endpoint(self) -> bool:
        """Whether the teacher is asked where it is served."""
        return self.teacher.startswith(("http://", "https://"))


class LoraConfig(Config):
    """Learn small corrections to the start's matrices instead of the matrices (LoRA, arXiv 2106.09685): less memory, and a
    start that has much to lose keeps it. The learning rate wants to be about ten times
    higher (Schulman et al. 2025, LoRA Without Regret).
    """

    rank: int = Field(16, ge=1)
    """Of a correction."""
    alpha: int = Field(32, ge=1)
    """A correction is multiplied by this and divided by the rank."""
    targets: tuple[str, ...] = ()
    """Which matrices, by the last part of their names (`["q_proj", "v_proj"]`); absent, all of the layers."""


class SparsityConfig(Config):
    """Weights of the start's layers that are set to zero before the training and stay zero in it. Give `share` or `pattern`."""

    method: Literal["wanda", "magnitude"] = "wanda"
    """Which go first: those that are small times what they are given on training conversations (Wanda, arXiv 2306.11695), for
    each output; or those that are small, in each matrix."""
    share: float | None = Field(None, gt=0, lt=1)
    """How many."""
    pattern: Literal["2:4", "4:8"] | None = None
    """So many of so many in a row stay, as some GPUs want it."""
    conversations: int = Field(64, ge=1)
    """For `wanda`: those of the training that are measured, all at once."""

    @model_validator(mode="after")
    def _says_how_many(self) -> Self:
        if (self.share is None) == (self.pattern is None):
            raise ValueError('give one of share, as in { share = 0.5 }, and pattern, as in { pattern = "2:4" }')
        return self


class StudentConfig(Config):
    start: str = "layers"
    """`layers`: some layers of the embedded teacher. `width`: the same, and `hidden_size` of its channels, with neurons and
    heads in proportion, those that are most active on training conversations (Minitron, arXiv 2407.14679). `random`: a small
    new Llama with its tokenizer. Otherwise a folder or hub name that `transformers` loads."""
    objective: Objective | dict[Objective, float] = "sft"
    """What is learned, by name or as a table of weights (`{ sft = 0.5, forward_kl = 0.5 }`). `sft`: the assistant's words.
    Six divergences from a teacher's probabilities, `hidden`: its hidden states, `dpo`: which of two answers is better."""
    distillation: DistillationConfig = DistillationConfig()
    layers: int = Field(16, ge=1, le=30)
    """How many layers the student has; with `start = "layers"` or `"width"`, those of the teacher's 30 that do best on their
    own."""
    hidden_size: int = Field(192, ge=16, multiple_of=16)
    """For `start = "random"` and `"width"`."""
    vocabulary: int | None = Field(None, ge=1)
    """How many of the start's tokens to keep: single bytes and special ones, then those that the training conversations use
    most. Absent keeps all. A small student is mostly vocabulary: 8192 of 49,152 tokens make one of 6.8M parameters where it
    would have 17M."""
    epochs: int = Field(2, ge=1)
    """A few dozen conversations are overfitted by four."""
    learning_rate: float = Field(2e-4, gt=0)
    """The peak, after a rise over the first tenth of the steps."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """How the learning rate goes on. `cosine`: it falls to a tenth by half a cosine. `wsd` (warm-up, stable, decay): it stays
    and falls to a tenth in the end, so that a longer training has the same first part. `constant`: it stays."""
    decay: float = Field(0.1, gt=0, le=0.9)
    """For `wsd`: the share of the steps in which the rate falls."""
    batch_size: int = Field(8, ge=1)
    """Conversations that are computed at once."""
    accumulate: int = Field(1, ge=1)
    """Batches that a step of the optimizer learns from: as from one batch of all of them, in the memory of one."""
    packing: bool = False
    """Put the conversations of a batch one after the other into rows of up to `max_tokens`, instead of padding each to the
    longest. None sees another, so the student is the same, to rounding; it costs less where lengths differ."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Of the arithmetic in a step. `float32` may be faster on processors without bf16 instructions."""
    evaluate_steps: int | None = Field(None, ge=1)
    """The held-out loss is measured after every so many steps, and after the last. Absent: after every epoch."""
    patience: int | None = Field(None, ge=1)
    """Stop when so many evaluations in a row have not lowered the held-out loss, and keep the weights that had the lowest.
    Absent: learn in all epochs and keep the last."""
    lora: LoraConfig | None = None
    """Train adapters on the start, merge them into the student, and keep them beside it. Absent: train all weights."""
    sparsity: SparsityConfig | None = None
    """Set weights of the start to zero, for good."""
    max_tokens: int = Field(256, ge=16)
    """A conversation longer than this is cut."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of the kept samples that the student never trains on, at least one."""
    checkpoint_steps: int = Field(50, ge=1)
    """A killed training goes on from the last checkpoint."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Who hears each line of the training's log as it comes, beside `training_log.jsonl`; needs the extra `tracking`."""

    @field_validator("objective", mode="before")
    @classmethod
    def _known_weights(cls, objective: Any) -> Any:
        weights = {objective: 1.0} if isinstance(objective, str) else objective
        if not isinstance(weights, Mapping) or not weights:
            raise ValueError("must be an objective's name or a table of weights by name")
        known = get_args(Objective)
        if unknown := sorted(str(name) for name in weights if name not in known):
            raise ValueError(f"{', '.join(unknown)}: no such objective; there are {', '.join(known)}")
        for name, weight in weights.items():
            if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < math.inf:
                raise ValueError(f"{name} = {weight!r}: a weight must be a number above 0; leave out what has none")
        return objective

    @model_validator(mode="after")
    def _signals_suffice(self) -> Self:
        names, told = set(self.weights), self.distillation
        if told.signals != "dense" and "hidden" in names:
            raise ValueError(f"hidden states are not captured, and signals = {told.signals!r}; use signals = 'dense'")
        if told.signals == "sampled" and (biased := sorted(names & DIVERGENCES - {"forward_kl"})):
            raise ValueError(
                f"{', '.join(biased)}: not to be had from sampled signals; use forward_kl, or top_k or dense"
            )
        if told.lmbda and not names & DIVERGENCES:
            raise ValueError(f"lmbda = {told.lmbda:g}: answers of the student's own need a divergence to learn from")
        if told.lmbda and told.signals != "dense":
            raise ValueError(f"lmbda = {told.lmbda:g}: nothing is captured of answers to come; use signals = 'dense'")
        if told.lmbda and "dpo" in names:
            raise ValueError(f"lmbda = {told.lmbda:g}: dpo learns from given answers only; leave one of them out")
        return self

    @model_validator(mode="after")
    def _has_weights_to_change(self) -> Self:
        for name in ("lora", "sparsity"):
            if getattr(self, name) and self.start == "random":
                raise ValueError(
                    f"{name}: the weights of start = 'random' are new, so there is nothing in them to build on; leave it out"
                )
        if self.lora and self.sparsity:
            raise ValueError("lora fills the zeros of sparsity when it is merged; leave one of them out")
        return self

    @model_validator(mode="after")
    def _stops_by_what_it_learns(self) -> Self:
        if self.patience and "dpo" in self.weights:
            raise ValueError(
                f"patience = {self.patience}: the held-out loss does not tell how well preferences are learned; leave out "
                "patience or dpo"
            )
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Of each objective, by name."""
        if isinstance(self.objective, str):
            return {self.objective: 1.0}
        return {name: weight for name, weight in self.objective.items()}  # the keys as plain strings

    @property
    def asks_teacher(self) -> bool:
        """Whether any objective needs a teacher's probabilities or hidden states."""
        return not {"hidden", *DIVERGENCES}.isdisjoint(self.weights)
