"""What a run will probably take, as estimated by a preview. Knows how it is stored, not how it is computed."""

from pydantic import BaseModel, ConfigDict

from core.intervals import IntervalEstimate
from core.sample import TokenUsage


class RunEstimate(BaseModel):
    """Totals of producing a run's samples, each with its 95 % prediction interval."""

    model_config = ConfigDict(frozen=True)

    previewed: int
    """Samples that it is computed from."""
    kept: int
    """Of these, the samples that passed all checks."""
    goal: int
    """Samples to keep; 0 if all candidates of the recipe are made."""
    candidates: IntervalEstimate
    kept_samples: IntervalEstimate
    """Samples that pass all checks, before filters."""
    calls: IntervalEstimate
    tokens: IntervalEstimate
    """Of prompts and replies."""
    prompt_tokens: IntervalEstimate
    cached_tokens: IntervalEstimate
    """Of the prompt tokens."""
    completion_tokens: IntervalEstimate
    reasoning_tokens: IntervalEstimate
    """Of the completion tokens."""
    cost: IntervalEstimate | None
    """None if a price is unknown."""
    currency: str | None
    seconds: IntervalEstimate
    """Of producing. Low: with every slot of the teachers in use, at the measured seconds per call. High: at the throughput of the
    preview."""
    agents: dict[str, TokenUsage]
    """Usage of the previewed samples by agent."""
    notes: list[str]
    """What it does not include, and which limits of the budget it exceeds, a sentence each."""

    def __repr__(self) -> str:
        """In a line: calls, tokens, cost and time."""

        def show(amount: IntervalEstimate) -> str:
            return amount.format(lambda number: f"{number:,.6g}")

        cost = f", {show(self.cost)} {self.currency}" if self.cost else ""
        return f"RunEstimate: {show(self.calls)} calls, {show(self.tokens)} tokens{cost}, {show(self.seconds)} seconds"
