"""Names of the kinds of data that the collapse assessment knows (`filters.collapse.text_kinds`). Imports nothing heavy."""

from typing import Literal

DataKind = Literal["arithmetic", "characters", "code", "dialogue", "json", "prose"]
