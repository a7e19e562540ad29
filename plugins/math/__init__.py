"""Word problems and questions with one right answer, and checks of answers, expressions and worked steps."""

from pathlib import Path

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="math",
    about="Word problems and questions with one right answer, and checks of answers and worked steps",
    extra="math",
    folder=Path(__file__).parent,
    parts=(
        Part("family", "arithmetic", part("families.arithmetic:ArithmeticFamily")),
        Part("family", "reasoning", part("families.reasoning:ReasoningFamily")),
        Part("script", "arithmetic", part("scripts.arithmetic:SCRIPT")),
        Part("script", "reasoning", part("scripts.reasoning:SCRIPT")),
        Part("check", "answer", part("checks.known_answer:answer_check")),
        Part("check", "agreement", part("checks.solution_agreement:agreement_check")),
        Part("check", "steps", part("checks.worked_steps:steps_check")),
    ),
)
