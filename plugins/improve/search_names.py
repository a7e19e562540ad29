"""The searches by name. Imports nothing."""

from typing import Literal

SearchName = Literal["random", "examples", "gepa"]
