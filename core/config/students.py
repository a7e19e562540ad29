"""The `[student]` tables of a recipe: the small model and its training."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from core.addresses import normalize_base_url
from core.config.base import RecipeTable
from core.config.losses import BUILT_IN_LOSSES, LOSS_EXTENSIONS, Loss
from core.config.student_steps import (
    EMBEDDED_STARTS,
    STUDENT_ARCHITECTURES,
    StepConfig,
    StudentStep,
    describe_unknown_architecture,
    list_step_extensions,
)
from core.extensions import EXTENSION_ERROR, Extension
from core.plugins import UnusablePlugin
from core.secrets import validate_variable_name
from core.shared_options import DEFAULT_PANEL
from core.weights.gguf_files import ImageLimits

ObjectiveName = Literal[
    "sft", "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "alpha_beta", "hidden", "dpo", "kto"
]  # fmt: skip
DIVERGENCES = frozenset({"forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "alpha_beta"})
"""The objectives that compare the student's next-token probabilities with its teacher's."""


class DistillationConfig(RecipeTable):
    """For objectives that need a teacher: `hidden` compares hidden states, the others next-token probabilities."""

    teacher: str = "embedded"
    """`embedded`, a folder, a hub name, or for `top_k` a vLLM endpoint (`http://…/v1#MODEL`), with the student's
    tokenizer."""
    api_key_env: str = "OPENAI_API_KEY"
    """Variable with an endpoint's key."""
    signals: Literal["dense", "top_k", "sampled"] = "dense"
    """`dense` runs the teacher during training. `top_k` and `sampled` (for `forward_kl`) store some probabilities
    before."""
    cache: str | None = None
    """The file of captured signals. Default: `NAME.signals` next to the student."""
    top_k: int = Field(8, ge=1)
    """Tokens stored per position, 4 bytes each, and 2 bytes for all others."""
    draws: int = Field(13, ge=1, le=255)
    """`sampled`: tokens drawn per position, 2 bytes each."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits of both."""
    beta: float = Field(0.5, ge=0, le=1)
    """`jsd`: the teacher's share of the mixture. 0 is `forward_kl`, 1 `reverse_kl`."""
    skew: float = Field(0.1, gt=0, lt=1)
    """`skew_kl`, `skew_rkl`: the weight of the first distribution in the mixture (DistiLLM)."""
    alpha_beta: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.2, 0.7)
    """Of ABKD (arXiv 2505.04560); [1, 0] is `forward_kl`, [0, 1] `reverse_kl`."""
    dpo_beta: float = Field(0.1, gt=0)
    """`dpo`, `kto`: the penalty on departing from the start, TRL's `beta`."""
    lmbda: float = Field(0.0, ge=0, le=1)
    """Share of the steps on answers that the student writes, without `sft`."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest answer that it writes."""

    @field_validator("teacher")
    @classmethod
    def _normalize_teacher(cls, teacher: str) -> str:
        url, hash_sign, model = teacher.partition("#")
        return f"{normalize_base_url(url)}{hash_sign}{model}" if "://" in url else teacher

    @field_validator("api_key_env")
    @classmethod
    def _check_variable_name(cls, name: str) -> str:
        return validate_variable_name(name)

    @field_validator("alpha_beta")
    @classmethod
    def _check_alpha_beta(cls, alpha_beta: tuple[float, float]) -> tuple[float, float]:
        if not any(alpha_beta):
            raise ValueError("both are 0, so nothing is compared; raise one of them")
        return alpha_beta

    @model_validator(mode="after")
    def _check_endpoint_signals(self) -> Self:
        if self.uses_endpoint and (self.signals, self.temperature) != ("top_k", 1.0):
            raise ValueError(
                f"teacher = {self.teacher!r}: an endpoint returns its most likely tokens only, at temperature 1; use "
                'signals = "top_k" and leave out temperature'
            )
        return self

    @property
    def uses_endpoint(self) -> bool:
        """Whether the teacher is an endpoint."""
        return self.teacher.startswith(("http://", "https://"))


class LoraConfig(RecipeTable):
    """Train low-rank updates and merge them (LoRA, arXiv 2106.09685), with less memory and about ten times the learning
    rate (Schulman et al. 2025, LoRA Without Regret).
    """

    rank: int = Field(16, ge=1)
    """Of each update."""
    alpha: int = Field(32, ge=1)
    """Updates are multiplied by `alpha / rank`."""
    targets: tuple[str, ...] = ()
    """Matrices, by the last part of their names (`["q_proj", "v_proj"]`). Default: all of the layers."""


class ReplayConfig(RecipeTable):
    """Also learn from conversations that the start, or its whole embedded teacher, writes first (Magpie, arXiv 2406.08464),
    to forget less.
    """

    share: float = Field(2.0, gt=0, le=8)
    """Replay conversations per conversation in a step. At least 128 and at most `most` differ."""
    weight: float = Field(1.0, gt=0)
    """Of the replay term, a mean over its own tokens."""
    loss: Literal["kl", "sft"] = "kl"
    """`kl`: forward KL divergence from the start. `sft`: cross-entropy of its answers."""
    most: int = Field(512, ge=8)
    """The most conversations to learn from."""
    max_tokens: int = Field(64, ge=16)
    """Longer answers of the start are cut off."""
    temperature: float = Field(0.7, gt=0)
    """Of its answers. Requests are sampled at 1."""
    cache: str | None = None
    """The file of replay conversations. Default: `NAME.replay.jsonl` next to the student."""


class StudentEvaluationConfig(RecipeTable):
    """Compare how many answers of teacher, start and student to held-out requests pass the checks, for families whose seeds
    alone determine the request.
    """

    requests: int = Field(40, ge=1, le=100_000)
    """Per model, after the last seed that a run can use."""
    panel: int = Field(DEFAULT_PANEL, ge=0, le=10_000)
    """Tasks of the general panel per model. A loss shows what the student forgot."""


class StudentConfig(RecipeTable):
    start: str = "layers"
    """`layers` of the embedded teacher, `random`, or a folder or hub name of a supported model."""
    objective: ObjectiveName | str | dict[str, float] = "sft"
    """`sft`: texts. `dpo`: pairs. `kto`: refused answers. Others: [a teacher](#studentdistillation). A table weights several."""
    loss_options: dict[str, dict[str, Any]] = Field({}, validate_default=True)
    """Of installed losses (`{ focal = { gamma = 2.0 } }`)."""
    distillation: DistillationConfig = DistillationConfig()
    layers: int = Field(16, ge=1, le=30)
    """`start = "layers"` takes those of the teacher's 30 that perform best alone."""
    hidden_size: int = Field(192, ge=16, multiple_of=16)
    """For `start = "random"`."""
    vocabulary: int | None = Field(None, ge=1)
    """Tokens to keep: bytes, special tokens, then the most frequent of the training texts. Default: all."""
    epochs: int = Field(2, ge=1)
    """Four overfit a few dozen conversations."""
    learning_rate: float = Field(2e-4, gt=0)
    """The peak, after a warm-up over a tenth of the steps."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """`cosine` falls to a tenth, `wsd` only at the end."""
    decay: float = Field(0.1, gt=0, le=0.9)
    """`wsd`: the share of the steps in which the rate falls."""
    batch_size: int = Field(8, ge=1)
    """Conversations."""
    accumulate: int = Field(1, ge=1)
    """Batches per optimizer step, to save memory."""
    precision: Literal["bf16", "float32"] = "bf16"
    """`float32` may be faster without bf16 instructions."""
    evaluate_steps: int | None = Field(None, ge=1)
    """Steps between measurements of the held-out loss. Default: an epoch."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without a lower held-out loss before training stops. The best weights are kept."""
    replay: ReplayConfig | None = None
    average: float | None = Field(None, ge=0, le=1)
    """Share of training in the weights (WiSE-FT). Default: 1."""
    steps: tuple[StepConfig, ...] = ()
    """What plugins change, in this order: see `stillhouse plugins`."""
    lora: LoraConfig | None = None
    max_tokens: int = Field(256, ge=16)
    """A longer conversation is truncated."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of the kept samples, at least one, that it never trains on."""
    checkpoint_steps: int = Field(50, ge=1)
    """A killed training resumes from the last checkpoint."""
    evaluation: StudentEvaluationConfig | None = None
    core_hour_price: float = Field(0.05, ge=0, allow_inf_nan=False)
    """For the cost of its answers. The default is an assumption: a cloud vCPU on demand, in USD."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log there. Needs the extra `tracking`."""

    @field_validator("evaluation", "replay", "average", "lora", mode="before")
    @classmethod
    def _turn_off(cls, setting: object) -> object:
        """`false` is no such setting."""
        return None if setting is False else setting

    @field_validator("steps", mode="before")
    @classmethod
    def _leave_steps_out(cls, steps: object) -> object:
        """`false` is no steps."""
        return () if steps is False else steps

    @field_validator("objective", mode="before")
    @classmethod
    def _check_objectives(cls, objective: Any) -> Any:
        weights = {objective: 1.0} if isinstance(objective, str) else objective
        if not isinstance(weights, Mapping) or not weights:
            raise ValueError("must be an objective's name or a table of weights by name")
        for name in weights:
            _find_loss(str(name))
        for name, weight in weights.items():
            if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < math.inf:
                raise ValueError(f"{name} = {weight!r}: a weight must be a number above 0; leave the objective out")
        return objective

    @field_validator("loss_options")
    @classmethod
    def _check_loss_options(cls, options: dict[str, dict[str, Any]], info: ValidationInfo) -> dict[str, dict[str, Any]]:
        """With every default, for each loss of the objective that is not built-in."""
        objective = info.data.get("objective", {})
        names = [objective] if isinstance(objective, str) else list(objective)
        losses = {name: extension.value for name in names if (extension := _find_loss(name))}
        if strange := sorted(options.keys() - losses.keys()):
            raise ValueError(
                f"{strange[0]}: the objective has no installed loss of this name; it has {', '.join(losses) or 'none'}"
            )
        return {name: _resolve_loss_options(one, options.get(name, {})) for name, one in losses.items()}

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        """Raises ValueError for the first keys that do not go together."""
        faults = chain(self._find_loss_faults(), self._find_start_faults(), self._find_step_faults())
        if fault := next(faults, None):
            raise ValueError(fault)
        return self

    def _find_loss_faults(self) -> Iterator[str]:
        names, distillation = set(self.objective_weights), self.distillation
        dense, generates = distillation.signals == "dense", f"lmbda = {distillation.lmbda:g}: generated answers"
        if not dense and "hidden" in names:
            yield f"hidden states are not captured, and signals = {distillation.signals!r}; use signals = 'dense'"
        if distillation.signals == "sampled" and (biased := sorted(self.divergences - {"forward_kl"})):
            yield f"{', '.join(biased)}: cannot be computed from sampled signals; use forward_kl, or top_k or dense"
        if distillation.lmbda and not self.divergences:
            yield f"{generates} need a divergence as objective"
        if distillation.lmbda and not dense:
            yield f"{generates} have no captured signals; use signals = 'dense'"
        for name in sorted(names & {"dpo", "kto"}):
            if distillation.lmbda:
                yield f"lmbda = {distillation.lmbda:g}: {name} learns from given answers only; leave one of them out"
            if self.patience:
                yield (
                    f"patience = {self.patience}: the held-out loss does not measure how well preferences are learned; leave out "
                    f"patience or {name}"
                )
        if "kto" in names and names <= {"kto", "dpo"}:
            yield "kto does not teach the texts of kept answers; add sft, as in { sft = 1.0, kto = 1.0 }"
        if "kto" in names and self.image_limits:
            yield "kto: refused answers have no images, but a step of the training reads images; leave out kto or that step"

    def _find_start_faults(self) -> Iterator[str]:
        needing = [name for name in ("lora", "replay", "average") if getattr(self, name)]
        if needing and self.start == "random":
            off = " and ".join(f"{name} = false" for name in needing)
            yield (
                f"{' and '.join(needing)}: the weights of start = 'random' are untrained, and these keys need trained ones; "
                f"leave out what the recipe has, and set {off} where a base has it"
            )

    def _find_step_faults(self) -> Iterator[str]:
        for step in self.steps:
            if [one.type for one in self.steps].count(step.type) > 1:
                yield f"steps: {step.type} is named more than once"
            if step.needs_trained_start and self.start == "random":
                yield f"steps: {step.type}: the weights of start = 'random' are untrained; leave the step out"
            if problem := step.find_problem(self):
                yield f"steps: {step.type}: {problem}"

    @property
    def objective_weights(self) -> dict[str, float]:
        """The weight of each objective, by name."""
        if isinstance(self.objective, str):
            return {self.objective: 1.0}
        return {name: weight for name, weight in self.objective.items()}  # the keys as plain strings

    @property
    def learns_refused(self) -> bool:
        """Whether an objective needs answers that were refused."""
        return bool(self.objective_weights.keys() & {"dpo", "kto"})

    @property
    def asks_teacher(self) -> bool:
        """Whether an objective needs a teacher's probabilities or hidden states."""
        return "hidden" in self.objective_weights or bool(self.divergences)

    @property
    def loss_extensions(self) -> list[Extension[Loss]]:
        """The losses of the objective that are not built-in."""
        return [extension for name in self.objective_weights if (extension := _find_loss(name))]

    @property
    def step_extensions(self) -> list[Extension[type[StudentStep]]]:
        return list_step_extensions(self.steps)

    @property
    def changes_start(self) -> bool:
        """Whether a step gives the student other weights or another form than its start has."""
        return any(step.changes_start for step in self.steps)

    @property
    def chooses_weights(self) -> bool:
        """Whether a step chooses the weights of a run's student after the training."""
        return any(step.chooses_weights for step in self.steps)

    @property
    def image_limits(self) -> ImageLimits | None:
        """How a step reads images; None if the student reads text alone."""
        return next((limits for step in self.steps if (limits := step.image_limits)), None)

    @property
    def divergences(self) -> frozenset[str]:
        """The losses of the objective that compare the student's next-token probabilities with its teacher's."""
        installed = [extension.name for extension in self.loss_extensions if extension.value.needs_teacher]
        return frozenset({*(DIVERGENCES & self.objective_weights.keys()), *installed})

    @property
    def text_losses(self) -> frozenset[str]:
        """The losses of the objective that need only given answers, without a teacher."""
        installed = [extension.name for extension in self.loss_extensions if not extension.value.needs_teacher]
        return frozenset({*({"sft", "kto"} & self.objective_weights.keys()), *installed})


def _resolve_loss_options(loss: Loss, options: dict[str, Any]) -> dict[str, Any]:
    """The options with every default. Raises PydanticCustomError with the first fault."""
    try:
        return loss.options(**options).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        fault = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].lower()
        known = f"its options are {', '.join(loss.options.model_fields) or 'none'}"
        sentence = f"{loss.name}.{key}: {fault}; {known}"
        raise PydanticCustomError(EXTENSION_ERROR, "{sentence}", {"sentence": sentence}) from None


def _find_loss(name: str) -> Extension[Loss] | None:
    """The loss of this name if it is not built-in.

    Raises:
        PydanticCustomError: if there is none, or its package cannot be used.
    """
    try:
        return LOSS_EXTENSIONS.find(name) if name in BUILT_IN_LOSSES else LOSS_EXTENSIONS.require(name)
    except UnusablePlugin as error:
        raise PydanticCustomError(EXTENSION_ERROR, "{sentence}", {"sentence": str(error)}) from None


def find_start_fault(config: StudentConfig) -> str | None:
    """Why the model in the folder `config.start` cannot become the student, None if it can or there is none."""
    file = Path(config.start) / "config.json"
    if config.start in EMBEDDED_STARTS or not file.is_file():
        return None
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        return "has a config.json that is no JSON object"
    return find_start_settings_fault(settings, config)


def find_start_settings_fault(settings: Mapping[str, Any], config: StudentConfig) -> str | None:
    """Why a model with these settings cannot become the student, in words; None if it can, as far as settings tell."""
    if settings.get("model_type") not in STUDENT_ARCHITECTURES:
        return describe_unknown_architecture(settings.get("model_type"))
    return next((fault for step in config.steps if (fault := step.find_start_fault(settings))), None)


def find_bitnet_fault(settings: Mapping[str, Any]) -> str | None:
    """What llama.cpp's `bitnet` does not compute: it has square query matrices, no output matrix and SiLU."""
    if not settings.get("tie_word_embeddings"):
        return "an output matrix besides the embedding"
    head, heads, width = (settings.get(name) for name in ("head_dim", "num_attention_heads", "hidden_size"))
    if head and heads and head * heads != width:
        return "heads whose channels are not its hidden_size"
    return find_shared_settings_fault(settings)


def find_shared_settings_fault(settings: Mapping[str, Any], rope_types: Collection[str] = ("default",)) -> str | None:
    """What llama.cpp does not compute, of the settings that all architectures have; it computes positions of `rope_types`."""
    if (rope := _find_rope_type(settings)) not in rope_types:
        return f"positions of the type {rope!r}"
    if settings.get("attention_bias") or settings.get("mlp_bias"):
        return "biases"
    if (activation := settings.get("hidden_act", "silu")) != "silu":
        return f"the activation {activation!r}"
    return None


def _find_rope_type(settings: Mapping[str, Any]) -> Any:
    """The type of the rotary positions, under transformers' present or former name; of layers without a window, if two differ."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling")
    if isinstance(rope, Mapping) and isinstance(rope.get("full_attention"), Mapping):
        rope = rope["full_attention"]
    return rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, Mapping) else "default"
