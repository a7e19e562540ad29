"""Other forms of a student, as steps of its training: ternary or pruned weights, windows, layers that draft."""

from typing import Any

from core.plugins import Part, Plugin


def _load_ternary() -> Any:
    from plugins.forms.config import TernaryStep

    return TernaryStep


def _load_mtp() -> Any:
    from plugins.forms.config import MtpStep

    return MtpStep


def _load_windows() -> Any:
    from plugins.forms.config import WindowsStep

    return WindowsStep


def _load_sparsity() -> Any:
    from plugins.forms.config import SparsityStep

    return SparsityStep


def _load_width() -> Any:
    from plugins.forms.config import WidthStep

    return WidthStep


PLUGIN = Plugin(
    name="forms",
    about="Other forms of a student: ternary and pruned weights, sliding windows, layers that draft",
    extra="train",
    parts=(
        Part("step", "ternary", _load_ternary),
        Part("step", "mtp", _load_mtp),
        Part("step", "windows", _load_windows),
        Part("step", "sparsity", _load_sparsity),
        Part("step", "width", _load_width),
    ),
)
