"""Recipe families by name."""

from agents.families.arithmetic import Arithmetic
from agents.families.base import Family
from agents.families.constrained_instructions import ConstrainedInstructions
from agents.families.instructions import Instructions

ALL: tuple[Family, ...] = (ConstrainedInstructions(), Arithmetic(), Instructions())
FAMILIES = {family.name: family for family in ALL}
