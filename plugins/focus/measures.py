"""What a student is measured by. Imports nothing, for `--help`."""

from typing import Literal

FocusMeasure = Literal["failures", "loss", "inverse"]
"""Failed validation requests; the loss on kept samples; one over the weights of `failures`, as a control."""
