"""Other forms of a student, as steps of its training: ternary weights and layers that draft tokens."""

from typing import Any

from core.plugins import Part, Plugin


def _load_ternary() -> Any:
    from plugins.forms.config import TernaryStep

    return TernaryStep


def _load_mtp() -> Any:
    from plugins.forms.config import MtpStep

    return MtpStep


PLUGIN = Plugin(
    name="forms",
    about="Other forms of a student: ternary weights, layers that draft tokens",
    extra="train",
    parts=(Part("step", "ternary", _load_ternary), Part("step", "mtp", _load_mtp)),
)
