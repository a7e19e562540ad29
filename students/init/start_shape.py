"""The changes that a student's settings make to its start before training, in the one order in which they fit each other.

Knows models and settings; what data or an earlier training choose, such as the tokens to keep, it is given.
"""

from collections.abc import Callable

from core.config.students import StudentConfig
from students.init.start_model import StartModel


def shape_start(start: StartModel, config: StudentConfig, trim: Callable[[StartModel, int], StartModel]) -> StartModel:
    """`start`, as `load_start_model` returns it, with its final vocabulary, partly in place. `trim` keeps a number of tokens.
    Steps come after it.
    """
    if config.vocabulary:
        start = trim(start, config.vocabulary)
    return start
