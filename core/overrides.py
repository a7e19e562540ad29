"""Decisions about samples that overrule agents and filters, as people's are: which samples stay, go, or have another text.

Knows neither who decided nor where the decisions are stored. `flows.clean` applies them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.sample import Message, json_digest


@dataclass(frozen=True)
class Override:
    """The decision about one sample."""

    keeps: bool
    """Whether the sample stays, whatever agents, filters and goals say."""
    edited: tuple[Message, ...] | None = None
    """The conversation that replaces it."""
    note: str = ""
    """Why it is dropped."""


@dataclass(frozen=True)
class Overrides:
    """The decisions about the samples of a run, by id, or about the rows of a file, by the digest of their conversation."""

    decisions: Mapping[str, Override] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Changes with any decision or edited text, and not with notes."""
        return json_digest(
            {
                name: [one.keeps, [message.model_dump(mode="json") for message in one.edited or ()]]
                for name, one in self.decisions.items()
            }
        )


NO_OVERRIDES = Overrides()
