"""The changes that a student's settings make to its start before training, in the one order in which they fit each other.

Knows models and settings; what data or an earlier training choose, such as the tokens to keep, it is given.
"""

from pathlib import Path
from typing import Protocol

from core.config.student_architectures import EMBEDDED_STARTS
from core.config.students import StudentConfig
from students.image_embedder import add_image_embedder
from students.init.start_model import StartModel, add_start_windows, narrow_start
from students.init.width_pruning import KeptParts


class StartChoices(Protocol):
    """The choices that settings leave open."""

    def trim(self, start: StartModel, /) -> StartModel:
        """`start` with the tokens that `vocabulary` keeps."""
        ...

    def choose_parts(self, start: StartModel, /) -> KeptParts:
        """The parts of `start` that `width` keeps."""
        ...

    def see_full_attention(self, start: StartModel, /) -> None:
        """Called with the start before it gets sliding windows."""
        ...


def shape_start(start: StartModel, config: StudentConfig, choices: StartChoices) -> StartModel:
    """`start`, as `load_start_model` returns it, with its final vocabulary, width, windows and embedder of images, partly
    in place.

    Ternary weights come after that: a training gives them latent weights, and an evaluation rounds them.
    """
    if config.vocabulary:
        start = choices.trim(start)
    if config.start == "width":
        start = narrow_start(start, choices.choose_parts(start))
    if config.attention:
        choices.see_full_attention(start)
        start = add_start_windows(start, config.attention)
    if config.images:
        folder = None if config.start in EMBEDDED_STARTS else Path(config.start)
        add_image_embedder(start.model, config.images, folder)
        start = start._replace(made_from=f"{start.made_from}, with {config.images.description}")
    return start
