"""The tables of the steps. Knows no torch."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from core.config.student_architectures import TERNARY_BLOCK
from core.config.student_steps import StudentStep
from core.config.students import StudentConfig
from plugins.forms.start_faults import find_ternary_fault, name_multiples


class TernaryStep(StudentStep):
    """Let the layers' matrices have the values -s, 0 and s only, with one s per matrix, learned by quantization-aware training
    (BitNet b1.58, arXiv 2402.17764), for `export --type tq2_0`, 2 bits each. For random starts and Llamas whose sizes are
    multiples of 256; the student is a BitNet. Embeddings and norms stay full.
    """

    type: Literal["ternary"]
    changes_start: ClassVar[bool] = True
    row_multiple: ClassVar[int] = TERNARY_BLOCK

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.lora:
            return "merged low-rank updates are not ternary; leave lora out"
        if student.architecture == "hybrid":
            return "a BitNet is no hybrid; leave one of them out"
        if student.start in ("layers", "width"):
            return (
                f"the embedded teacher's layers are 576 wide, and ternary rows are stored in blocks of {TERNARY_BLOCK}; use "
                f'start = "random", or a Llama whose sizes are multiples of {TERNARY_BLOCK}'
            )
        if student.start == "random" and student.hidden_size % TERNARY_BLOCK:
            return (
                f"hidden_size = {student.hidden_size} is no multiple of {TERNARY_BLOCK}, the block in which ternary rows are "
                f"stored; use {name_multiples(student.hidden_size)}"
            )
        others = {
            "sparsity": "ternary weights choose their own zeros in training", "attention": "a BitNet has no sliding windows",
            "average": "the average of ternary weights and their start is not ternary",
            "images": "a BitNet has no embedder of images",
        }  # fmt: skip
        for name, why in others.items():
            if getattr(student, name) is not None:
                return f"{name}: {why}; leave one of them out"
        return None

    def find_start_fault(self, settings: Mapping[str, Any]) -> str | None:
        return find_ternary_fault(settings)

    def load(self) -> Any:
        from plugins.forms.ternary import TernaryCode

        return TernaryCode()


class MtpStep(StudentStep):
    """Train one more layer, which predicts the token after the next one from the student's last hidden state (multi-token
    prediction), for a hybrid. llama.cpp drafts tokens with it, which the student then verifies: answers do not change, and may
    come faster.
    """

    type: Literal["mtp"]
    depth: int = Field(1, ge=1)
    """Tokens that are predicted beyond the next one. llama.cpp and the training know 1 only."""
    weight: float = Field(0.3, gt=0, lt=math.inf)
    """Of the layer's cross-entropy in the loss: DeepSeek-V3's (arXiv 2412.19437, section 4.2)."""

    @field_validator("depth")
    @classmethod
    def _check_depth(cls, depth: int) -> int:
        if depth > 1:
            raise ValueError(f"depth = {depth}: llama.cpp drafts with one layer; use depth = 1")
        return depth

    def find_problem(self, student: StudentConfig) -> str | None:
        if student.architecture != "hybrid":
            return (
                'llama.cpp drafts with such a layer of a hybrid only; add start = "random" and architecture = "hybrid", or leave '
                "mtp out"
            )
        if student.distillation.lmbda == 1:
            return "its layer learns from the data's answers, and distillation.lmbda = 1 uses none; lower it or leave mtp out"
        return None

    def load(self) -> Any:
        from plugins.forms.mtp import MtpCode

        return MtpCode(self.weight)
