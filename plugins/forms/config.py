"""The tables of the steps. Knows no torch."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from core.config.student_steps import TERNARY_BLOCK, StudentStep
from core.config.students import StudentConfig
from plugins.forms.start_faults import HYBRID_PERIOD, find_ternary_fault, find_windows_fault, name_multiples


def _has_step(student: StudentConfig, name: str) -> bool:
    return any(step.type == name for step in student.steps)


class TernaryStep(StudentStep):
    """Train matrices of -s, 0 and s (BitNet b1.58), for `export --type tq2_0`. For random starts and Llamas of fitting
    sizes.
    """

    type: Literal["ternary"]
    changes_start: ClassVar[bool] = True
    changes_form: ClassVar[bool] = True
    row_multiple: ClassVar[int] = TERNARY_BLOCK

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.lora:
            return "merged low-rank updates are not ternary; leave lora out"
        if student.start == "layers":
            return (
                f"the embedded teacher's layers are 576 wide, and ternary rows are stored in blocks of {TERNARY_BLOCK}; use "
                f'start = "random", or a Llama whose sizes are multiples of {TERNARY_BLOCK}'
            )
        if student.start == "random" and student.hidden_size % TERNARY_BLOCK:
            return (
                f"hidden_size = {student.hidden_size} is no multiple of {TERNARY_BLOCK}, the block in which ternary rows are "
                f"stored; use {name_multiples(student.hidden_size)}"
            )
        if student.average is not None:
            return "average: the average of ternary weights and their start is not ternary; leave one of them out"
        if student.image_limits:
            return "a BitNet has no embedder of images; leave one of them out"
        others = {
            "sparsity": "ternary weights choose their own zeros in training",
            "windows": "a BitNet has none",
            "hybrid": "a BitNet is no hybrid",
            "average_choice": "the average of ternary weights and their start is not ternary",
        }
        for step in student.steps:
            if why := others.get(step.type):
                return f"{step.type}: {why}; leave one of them out"
        return None

    def find_start_fault(self, settings: Mapping[str, Any]) -> str | None:
        return find_ternary_fault(settings)

    def load(self) -> Any:
        from plugins.forms.ternary import TernaryCode

        return TernaryCode()


class HybridStep(StudentStep):
    """In three of four layers a gated-delta memory of constant size (Qwen3.5)."""

    type: Literal["hybrid"]
    makes_start: ClassVar[bool] = True

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.start != "random":
            return (
                f"start = {student.start!r} has an architecture already, and a hybrid has new weights; use "
                'start = "random", or leave the step out'
            )
        if student.layers < HYBRID_PERIOD:
            return (
                f"layers = {student.layers}: only every {HYBRID_PERIOD}th layer of a hybrid has attention; use "
                f"{HYBRID_PERIOD} or more"
            )
        return None

    def load(self) -> Any:
        from plugins.forms.hybrid import HybridCode

        return HybridCode()


class StartKlStep(StudentStep):
    """Stay near the start, or near the embedded teacher that it is a part of, on the data's answers."""

    type: Literal["start_kl"]
    needs_trained_start: ClassVar[bool] = True
    reads_start: ClassVar[bool] = True
    weight: float = Field(0.1, gt=0, lt=math.inf)
    """Of the forward KL divergence."""

    def find_problem(self, student: StudentConfig) -> str | None:
        return "its start sees nothing; leave the step sight out" if student.image_limits else None

    def load(self) -> Any:
        from plugins.forms.forgetting import StartKlCode

        return StartKlCode(self.weight)


class ForgettingStopStep(StudentStep):
    """Let `patience` add the divergence from the start on held-out `replay`."""

    type: Literal["forgetting_stop"]

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.patience and student.replay:
            return None
        return (
            "both losses are measured for patience, and one of them on conversations of replay; add patience = 3 and "
            "replay = {}, or leave it out"
        )

    def load(self) -> Any:
        from plugins.forms.forgetting import ForgettingStopCode

        return ForgettingStopCode()


class AverageChoiceStep(StudentStep):
    """Choose `average` in a run, on validation requests and the general panel."""

    type: Literal["average_choice"]
    needs_trained_start: ClassVar[bool] = True
    chooses_weights: ClassVar[bool] = True

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.average is not None:
            return "average is the share that it would choose; leave one of them out"
        if student.image_limits:
            return "the embedder of images has no start to average with; leave the step sight out"
        if not (student.evaluation and student.evaluation.panel):
            return (
                "the share is chosen on requests of the recipe and on the general panel; add an evaluation with a panel to a "
                "run's recipe, as in evaluation = { requests = 40, panel = 64 }, or give a share, as in average = 0.5"
            )
        return None

    def load(self) -> Any:
        from students.training.steps import StepCode

        return StepCode()


class MtpStep(StudentStep):
    """Train one more layer of a hybrid for multi-token prediction, with which llama.cpp drafts. Answers do not change."""

    type: Literal["mtp"]
    depth: int = Field(1, ge=1)
    """Tokens beyond the next one."""
    weight: float = Field(0.3, gt=0, lt=math.inf)
    """Of its cross-entropy in the loss (DeepSeek-V3's)."""

    @field_validator("depth")
    @classmethod
    def _check_depth(cls, depth: int) -> int:
        if depth > 1:
            raise ValueError(f"depth = {depth}: llama.cpp drafts with one layer; use depth = 1")
        return depth

    def find_problem(self, student: StudentConfig) -> str | None:
        if not _has_step(student, "hybrid"):
            return 'llama.cpp drafts with such a layer of a hybrid only; use start = "random" and the step hybrid too'
        if student.distillation.lmbda == 1:
            return "its layer learns from the data's answers, and distillation.lmbda = 1 uses none; lower it or leave mtp out"
        return None

    def load(self) -> Any:
        from plugins.forms.mtp import MtpCode

        return MtpCode(self.weight)


class WindowsStep(StudentStep):
    """Let most layers of a Llama attend to the last tokens only, for a smaller KV cache. It becomes a Granite SWA."""

    type: Literal["windows"]
    changes_start: ClassVar[bool] = True
    changes_form: ClassVar[bool] = True
    window: int = Field(256, ge=2)
    """Tokens that such a layer attends to."""
    full_every: int = Field(4, ge=2)
    """Every layer of this number attends to all tokens."""
    sinks: bool = True
    """Give each such head a learned sink, as in gpt-oss."""

    def find_problem(self, student: StudentConfig) -> str | None:
        if self.window >= student.max_tokens:
            return (
                f"window = {self.window}: no conversation is longer than max_tokens = {student.max_tokens}, so the window "
                "changes nothing; raise max_tokens, lower the window or leave the step out"
            )
        if student.lora:
            return (
                "low-rank adapters would not train the sinks, and would not fit a start without windows; leave lora out"
            )
        if student.image_limits:
            return "a window would cut images off; leave the step sight out"
        if _has_step(student, "hybrid"):
            return "sliding windows need a Llama, and a hybrid is none; leave one of them out"
        return None

    def find_start_fault(self, settings: Mapping[str, Any]) -> str | None:
        return find_windows_fault(settings)

    def load(self) -> Any:
        from plugins.forms.windows import WindowsCode

        return WindowsCode(self.window, self.full_every, sinks=self.sinks)


class SparsityStep(StudentStep):
    """Set weights of the start's layers to zero, for good. Give `share` or `pattern`."""

    type: Literal["sparsity"]
    needs_trained_start: ClassVar[bool] = True
    changes_start: ClassVar[bool] = True
    method: Literal["wanda", "magnitude"] = "wanda"
    """Smallest first: weight times input norm (arXiv 2306.11695), or weight."""
    share: float | None = Field(None, gt=0, lt=1)
    """Of the weights."""
    pattern: Literal["2:4", "4:8"] | None = None
    """Of every 4 (8) consecutive weights, 2 (4) stay."""
    conversations: int = Field(64, ge=1)
    """That measure inputs, for `wanda` and `reconstruct`."""
    reconstruct: bool = False
    """Fit the remaining weights to the former outputs; twice as long."""

    @model_validator(mode="after")
    def _check_amount(self) -> Self:
        if (self.share is None) == (self.pattern is None):
            raise ValueError('give either share, as in { share = 0.5 }, or pattern, as in { pattern = "2:4" }')
        return self

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.lora:
            return "lora fills the zeros when it is merged; leave one of them out"
        if student.image_limits:
            return "weights are chosen by text alone; leave the step sight out"
        if _has_step(student, "average_choice") and self.reconstruct:
            return (
                "the shares of average_choice are mixed with the start as it was before reconstruct fitted it; give a share, as "
                "in average = 0.75, or leave one of them out"
            )
        return None

    def load(self) -> Any:
        from plugins.forms.pruned_start import SparsityCode
        from plugins.forms.sparsity import Pruning

        return SparsityCode(
            Pruning(self.method, self.share, self.pattern), self.conversations, reconstruct=self.reconstruct
        )


class WidthStep(StudentStep):
    """Narrow the embedded teacher's layers to the most active channels, neurons and heads (Minitron, arXiv 2407.14679)."""

    type: Literal["width"]
    changes_start: ClassVar[bool] = True
    changes_form: ClassVar[bool] = True
    hidden_size: int = Field(ge=16, multiple_of=16)
    """Of the teacher's 576 channels."""

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.start != "layers":
            return f'makes the embedded teacher narrower, and the start is {student.start!r}; use start = "layers"'
        return "channels are chosen by text alone; leave the step sight out" if student.image_limits else None

    def load(self) -> Any:
        from plugins.forms.width import WidthCode

        return WidthCode(self.hidden_size)
