"""What travels between the nodes of a topology: one sample in the making. Knows no teacher."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from agents.crew import Broken
from core.sample import Candidate, Critique, Reason, Seed, State, Turn, Verdict


@dataclass(frozen=True)
class Handover:
    """What an agent gives away, not yet validated: a teacher's raw text, or the plain values of an agent that is code."""

    agent: str
    payload: str | dict[str, Any]
    turns: tuple[Turn, ...] = ()
    finished: bool = True
    confidence: float | None = None
    failure: str | None = None
    """Why there is no payload: the teacher did not answer."""


@dataclass(frozen=True)
class Outcome:
    state: State
    reason: Reason | None = None
    detail: str = ""


Update = dict[str, Any]
"""What a node changes of the work."""


class Work(TypedDict, total=False):
    """A sample in the making. Agents only ever add to `handovers`; everything else is the orchestrator's."""

    seed: Seed
    handovers: Annotated[list[Handover], operator.add]
    revision: int
    attempt: int
    candidate: Candidate | None
    draft: str
    """The raw reply behind `candidate`."""
    confidence: float | None
    advice: str
    broken: Broken | None
    critiques: list[Critique]
    verdicts: list[Verdict]
    outcome: Outcome | None


def begin(seed: Seed) -> Work:
    return Work(
        seed=seed, handovers=[], revision=0, attempt=0, candidate=None, draft="", confidence=None, advice="", broken=None,
        critiques=[], verdicts=[], outcome=None,
    )  # fmt: skip
