"""Learning-rate schedules. Knows steps only."""

import math

from core.config.students import StudentConfig

WARM_UP_SHARE = 0.1
"""Share of the steps in which the learning rate rises: Adam's first estimates of scale are poor."""
FINAL_RATE_SHARE = 0.1
"""The last learning rate as a share of the peak, as in Chinchilla (arXiv 2203.15556, appendix B)."""


def learning_rate(step: int, steps: int, config: StudentConfig) -> float:
    """The learning rate of step `step`, counted from 0: linear warm-up to the peak, then `config.schedule`.

    `cosine` decays by half a cosine after the warm-up. `wsd` is constant and decays in its last share (MiniCPM, arXiv
    2404.06395, section 4.2), by a square root (arXiv 2405.18392, section 3.2). `constant` does not decay.
    """
    warm = max(1, round(WARM_UP_SHARE * steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    match config.schedule:  # the completed share of the decay, from 0 to 1
        case "cosine":
            decayed = (1 - math.cos(math.pi * (step - warm + 1) / (steps - warm))) / 2
        case "wsd":
            decay = max(1, round(config.decay * steps))
            decayed = math.sqrt(max(0, step + 1 - (steps - decay)) / decay)
        case "constant":
            decayed = 0.0
    return config.learning_rate * (1 - (1 - FINAL_RATE_SHARE) * decayed)
