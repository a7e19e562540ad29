"""The learning rate over a training. Knows steps only."""

import math

from core.student_config import StudentConfig

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises: Adam's first estimates of scale are poor."""
FLOOR = 0.1
"""The last learning rate as a share of the peak, as in Chinchilla (arXiv 2203.15556, appendix B)."""


def learning_rate(step: int, steps: int, config: StudentConfig) -> float:
    """Of step `step`, counted from 0: a straight rise to the peak, then as `config.schedule` says."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    return config.learning_rate * (1 - (1 - FLOOR) * _fallen(step, warm, steps, config))


def _fallen(step: int, warm: int, steps: int, config: StudentConfig) -> float:
    """How much of the way to the floor is gone, from 0 to 1.

    `cosine` falls by half a cosine from the warm-up on. `wsd` stays, and falls in its last share (MiniCPM, arXiv
    2404.06395, section 4.2), by a square root (arXiv 2405.18392, section 3.2). `constant` stays.
    """
    match config.schedule:
        case "cosine":
            return (1 - math.cos(math.pi * (step - warm + 1) / (steps - warm))) / 2
        case "wsd":
            decay = max(1, round(config.decay * steps))
            return math.sqrt(max(0, step + 1 - (steps - decay)) / decay)
        case "constant":
            return 0.0
