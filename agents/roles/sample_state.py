"""The state that travels between the nodes of a topology: one unfinished sample. Knows no teacher."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from agents.calls.agent_context import BrokenReply
from agents.reply_schema import T, parse_reply
from core.config.recipe import Recipe
from core.sample import AgentTurn, Candidate, Critique, RejectionReason, SampleStatus, Seed, Verdict


@dataclass(frozen=True)
class AgentHandover:
    """An agent's output before it is validated: a teacher's raw text, or the plain values of an agent that is code."""

    agent: str
    payload: str | dict[str, Any]
    turns: tuple[AgentTurn, ...] = ()
    finished: bool = True
    confidence: float | None = None
    failure: str | None = None
    """Why the payload is empty: the teacher did not answer."""
    unusable: str = ""
    """Why the payload is empty: the seed cannot be shown, so no teacher was asked."""
    images: tuple[str, ...] = ()
    """Those of the seed, as the generator was shown them."""
    broken: str = ""
    """Which check raised an error, and which error; the last finding of the payload is then that check's."""

    @property
    def ending(self) -> "SampleOutcome | None":
        """The outcome of a sample whose payload is empty, which no revision can mend."""
        if self.unusable:
            return SampleOutcome(SampleStatus.dropped, RejectionReason.quality, self.unusable)
        return SampleOutcome(SampleStatus.failed, RejectionReason.provider, self.failure) if self.failure else None

    def parse(self, schema: type[T]) -> T:
        """The payload as an object of `schema`. Raises InvalidReply."""
        return parse_reply(schema, self.payload, finished=self.finished)


@dataclass(frozen=True)
class SampleOutcome:
    state: SampleStatus
    reason: RejectionReason | None = None
    detail: str = ""


@dataclass(frozen=True)
class SampleProgress:
    """What the orchestrator has validated and decided about a sample. Only the orchestrator writes it; agents read it."""

    revision: int = 0
    attempt: int = 0
    candidate: Candidate | None = None
    draft: str = ""
    """The raw reply from which `candidate` was parsed."""
    confidence: float | None = None
    advice: str = ""
    """Against the last draft."""
    faults: tuple[tuple[str, ...], ...] = ()
    """What critics and checks found in each refused draft."""
    broken: BrokenReply | None = None
    critiques: tuple[Critique, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    attempts: tuple[bool, ...] = ()
    """Whether each of the solver's attempts passed, in order."""
    outcome: SampleOutcome | None = None

    @property
    def revision_values(self) -> dict[str, str]:
        """The values of a revision's prompt: the refused draft, the advice against it, and all faults so far, a line each. Those
        of earlier drafts come first and are marked, since most are mended; advice that is no fault comes last.
        """
        *earlier, last = self.faults or ((),)
        lines = [f"- {fault} (in an earlier draft; keep it mended)" for faults in earlier for fault in faults]
        lines = [*dict.fromkeys(lines), *(f"- {fault}" for fault in last)]
        if self.advice and self.advice not in {fault.rstrip(". ") for fault in last}:
            lines.append(f"What to change: {self.advice}.")
        return {"draft": self.draft, "advice": self.advice, "faults": "\n".join(lines)}

    def awaits_review(self, recipe: Recipe) -> bool:
        """Whether the critic has still to review this revision. Checks that call no teacher come before it, others after it."""
        if recipe.agents.critic is None or recipe.topology.kind != "centralized":
            return False
        return not any(critique.revision == self.revision for critique in self.critiques)


class SampleState(TypedDict):
    """An unfinished sample. Agents only add to `handovers`. It has few channels, since LangGraph visits all at every step."""

    seed: Seed
    handovers: Annotated[list[AgentHandover], operator.add]
    progress: SampleProgress


StateUpdate = dict[str, Any]
"""The channels that a node changes."""


def start_sample(seed: Seed) -> SampleState:
    return SampleState(seed=seed, handovers=[], progress=SampleProgress())
