"""Reinforcement learning with verified rewards: a run's student answers new requests, and the recipe's checks reward it."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="reinforcement",
    about="Reinforcement learning: a run's student answers new requests, and the recipe's checks reward it",
    extra="train",
    parts=(Part("step", "grpo", part("config:GrpoStep")), Part("hooks", "reinforcement", part("hooks:HOOKS"))),
)
