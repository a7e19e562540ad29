"""The changes that a student's settings make to its start before training, in the one order in which they fit each other.

Knows models and settings; what data or an earlier training choose, such as the tokens to keep, it is given.
"""

from collections.abc import Callable
from pathlib import Path

from core.config.student_architectures import EMBEDDED_STARTS
from core.config.students import StudentConfig
from students.image_embedder import add_image_embedder
from students.init.start_model import StartModel


def shape_start(start: StartModel, config: StudentConfig, trim: Callable[[StartModel, int], StartModel]) -> StartModel:
    """`start`, as `load_start_model` returns it, with its final vocabulary and embedder of images, partly in place. `trim` keeps
    a number of tokens. Steps come after it.
    """
    if config.vocabulary:
        start = trim(start, config.vocabulary)
    if config.images:
        folder = None if config.start in EMBEDDED_STARTS else Path(config.start)
        add_image_embedder(start.model, config.images, folder)
        start = start._replace(made_from=f"{start.made_from}, with {config.images.description}")
    return start
