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


@dataclass(frozen=True)
class Progress:
    """How far a sample is: what the orchestrator has validated and decided. Only it writes here; agents read."""

    revision: int = 0
    attempt: int = 0
    candidate: Candidate | None = None
    draft: str = ""
    """The raw reply behind `candidate`."""
    confidence: float | None = None
    advice: str = ""
    broken: Broken | None = None
    critiques: tuple[Critique, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    outcome: Outcome | None = None


class Work(TypedDict):
    """A sample in the making. Agents only ever add to `handovers`. Few channels, since LangGraph goes through all of them
    at every step.
    """

    seed: Seed
    handovers: Annotated[list[Handover], operator.add]
    progress: Progress


Update = dict[str, Any]
"""What a node changes of the work."""


def begin(seed: Seed) -> Work:
    return Work(seed=seed, handovers=[], progress=Progress())
