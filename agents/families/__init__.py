"""Recipe families by name."""

from collections.abc import Mapping
from typing import Any

from agents.families.arithmetic import ArithmeticFamily
from agents.families.base import RecipeFamily
from agents.families.code import CodeFamily
from agents.families.constrained_instructions import ConstrainedInstructionsFamily
from agents.families.extraction import ExtractionFamily
from agents.families.grounded_qa import GroundedQAFamily
from agents.families.instructions import InstructionsFamily
from agents.families.reasoning import ReasoningFamily
from agents.families.tool_calls import ToolCallsFamily

ALL_FAMILIES: tuple[RecipeFamily, ...] = (
    ConstrainedInstructionsFamily(),
    ReasoningFamily(),
    ArithmeticFamily(),
    InstructionsFamily(),
    ExtractionFamily(),
    CodeFamily(),
    GroundedQAFamily(),
    ToolCallsFamily(),
)
FAMILIES = {family.name: family for family in ALL_FAMILIES}


def family_defaults(name: str) -> Mapping[str, Any]:
    """Default tables for keys that a recipe of this family leaves out; empty for an unknown family."""
    return FAMILIES[name].defaults if name in FAMILIES else {}
