"""Recipe families by name."""

from agents.families.arithmetic import Arithmetic
from agents.families.base import Family
from agents.families.code import Code
from agents.families.constrained_instructions import ConstrainedInstructions
from agents.families.extraction import Extraction
from agents.families.instructions import Instructions
from agents.families.reasoning import Reasoning

ALL: tuple[Family, ...] = (ConstrainedInstructions(), Reasoning(), Arithmetic(), Instructions(), Extraction(), Code())
FAMILIES = {family.name: family for family in ALL}
