"""Other forms of a student, as steps of its training: ternary or pruned weights, windows, hybrids, layers that draft; steps that
keep what its start could do; and teachers behind an endpoint.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from core.plugins import Part, Plugin


def _load_step(name: str) -> Callable[[], Any]:
    return lambda: getattr(import_module(f"{__name__}.config"), name)


def _load_capture() -> Any:
    from plugins.forms.prompt_logprobs import PromptLogprobTeacher

    return PromptLogprobTeacher


def _load_hooks() -> Any:
    from plugins.forms.average_choice import FormHooks

    return FormHooks()


PLUGIN = Plugin(
    name="forms",
    about="Other forms of a student: ternary and pruned weights, windows, hybrids, layers that draft; ways to keep its start",
    extra="train",
    parts=(
        Part("step", "ternary", _load_step("TernaryStep")),
        Part("step", "hybrid", _load_step("HybridStep")),
        Part("step", "mtp", _load_step("MtpStep")),
        Part("step", "windows", _load_step("WindowsStep")),
        Part("step", "sparsity", _load_step("SparsityStep")),
        Part("step", "width", _load_step("WidthStep")),
        Part("step", "start_kl", _load_step("StartKlStep")),
        Part("step", "forgetting_stop", _load_step("ForgettingStopStep")),
        Part("step", "average_choice", _load_step("AverageChoiceStep")),
        Part("capture", "endpoint", _load_capture),
        Part("hooks", "forms", _load_hooks),
    ),
)
