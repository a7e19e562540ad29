"""Recipe families by name."""

from agents.families.arithmetic import Arithmetic
from agents.families.base import Family
from agents.families.code import Code
from agents.families.constrained_instructions import ConstrainedInstructions
from agents.families.extraction import Extraction
from agents.families.grounded_qa import GroundedQA
from agents.families.instructions import Instructions
from agents.families.reasoning import Reasoning
from agents.families.tool_calls import ToolCalls

ALL: tuple[Family, ...] = (
    ConstrainedInstructions(),
    Reasoning(),
    Arithmetic(),
    Instructions(),
    Extraction(),
    Code(),
    GroundedQA(),
    ToolCalls(),
)
FAMILIES = {family.name: family for family in ALL}
