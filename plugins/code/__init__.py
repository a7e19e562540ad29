"""Programming tasks whose solutions pass tests that can fail, in the sandbox."""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_family() -> Any:
    from plugins.code.family import CodeFamily

    return CodeFamily


def _load_script() -> Any:
    from plugins.code.script import SCRIPT

    return SCRIPT


def _load_code_check() -> Any:
    from plugins.code.checks.tested_solution import code_check

    return code_check


def _load_solved_again_check() -> Any:
    from plugins.code.checks.tested_solution import solved_again_check

    return solved_again_check


def _load_standard_library() -> Any:
    from plugins.code.standard_library import load_standard_library

    return load_standard_library


PLUGIN = Plugin(
    name="code",
    about="Programming tasks whose solutions pass tests that can fail",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "code", _load_family),
        Part("script", "code", _load_script),
        Part("check", "code", _load_code_check),
        Part("check", "solved_again", _load_solved_again_check),
        Part("reference", "python", _load_standard_library),
    ),
)
