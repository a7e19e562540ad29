"""Word problems and questions with one right answer, and checks of answers, expressions and worked steps."""

from pathlib import Path
from typing import Any

from core.plugins import Part, Plugin


def _load_arithmetic() -> Any:
    from plugins.math.families.arithmetic import ArithmeticFamily

    return ArithmeticFamily


def _load_reasoning() -> Any:
    from plugins.math.families.reasoning import ReasoningFamily

    return ReasoningFamily


def _load_arithmetic_script() -> Any:
    from plugins.math.scripts.arithmetic import SCRIPT

    return SCRIPT


def _load_reasoning_script() -> Any:
    from plugins.math.scripts.reasoning import SCRIPT

    return SCRIPT


def _load_answer_check() -> Any:
    from plugins.math.checks.known_answer import answer_check

    return answer_check


def _load_agreement_check() -> Any:
    from plugins.math.checks.solution_agreement import agreement_check

    return agreement_check


def _load_steps_check() -> Any:
    from plugins.math.checks.worked_steps import steps_check

    return steps_check


PLUGIN = Plugin(
    name="math",
    about="Word problems and questions with one right answer, and checks of answers and worked steps",
    extra="math",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "arithmetic", _load_arithmetic),
        Part("family", "reasoning", _load_reasoning),
        Part("script", "arithmetic", _load_arithmetic_script),
        Part("script", "reasoning", _load_reasoning_script),
        Part("check", "answer", _load_answer_check),
        Part("check", "agreement", _load_agreement_check),
        Part("check", "steps", _load_steps_check),
    ),
)
