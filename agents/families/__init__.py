"""Recipe families by name."""

from agents.families.arithmetic import Arithmetic
from agents.families.base import Family
from agents.families.constrained_instructions import ConstrainedInstructions

ALL: tuple[Family, ...] = (ConstrainedInstructions(), Arithmetic())
FAMILIES = {family.name: family for family in ALL}
