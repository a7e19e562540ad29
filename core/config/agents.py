"""The `[agents]`, `[topology]`, `[[verifiers]]` and `[difficulty]` tables of a recipe. Knows no teacher and no sample."""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from core.config.base import ProgramFile, RecipeTable, check_repeats

ReasoningEffort = Literal["off", "low", "medium", "high"]
REASONING_BUDGETS: dict[ReasoningEffort, int] = {"off": 0, "low": 1024, "medium": 2048, "high": 4096}
"""Tokens of thinking by effort, for teachers that take a number. The values of LiteLLM (`constants.py`)."""


def reasoning_tokens(reasoning: ReasoningEffort | int | None) -> int:
    """The most tokens of thinking that a call with this setting may use, in addition to its answer's."""
    return REASONING_BUDGETS[reasoning] if isinstance(reasoning, str) else reasoning or 0


def find_effort(reasoning: ReasoningEffort | int) -> ReasoningEffort:
    """The effort for a setting: of a number of tokens, the lowest whose budget covers it."""
    if isinstance(reasoning, str):
        return reasoning
    return next((effort for effort, budget in REASONING_BUDGETS.items() if reasoning <= budget), "high")


class AgentConfig(RecipeTable):
    teacher: str = "main"
    """A name from `[teachers]`."""
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(160, ge=8)
    """A longer reply fails. Families have their own defaults."""
    reasoning: ReasoningEffort | Annotated[int, Field(ge=1024, le=1_000_000)] | None = None
    """Thinking in addition to `max_tokens`, in tokens or as effort: 1,024, 2,048 or 4,096. Default: the teacher's own."""
    max_repairs: int = Field(1, ge=0, le=5)
    """Repeated requests after a reply that breaks its schema."""


class CriticConfig(AgentConfig):
    type: Literal["teacher", "confidence"] = "teacher"
    """`teacher` scores by rubrics, with advice. `confidence` scores by token probabilities, without a call."""
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(300, ge=8)
    """A longer reply fails. Families have their own defaults."""
    min_score: int = Field(3, ge=1, le=5)
    """A candidate below it is revised, or dropped after the last revision."""


class GeneratorConfig(AgentConfig):
    examples: int | None = Field(None, ge=0)
    """Drawn for each sample. Default: all. Fewer vary more, but bypass the prompt cache."""


class AgentsConfig(RecipeTable):
    generator: GeneratorConfig = GeneratorConfig()
    critic: CriticConfig | None = CriticConfig()
    """With `critic = false`, candidates go directly to the verifier."""
    verifier: AgentConfig = AgentConfig()
    """For checks that call a teacher."""


DEBATERS, DEBATE_ROUNDS = 3, 1
"""Of `decentralized`: generators, and how often each reads the others' drafts and writes again."""
TopologyKind = Literal["centralized", "single", "independent", "decentralized"]


class TopologyConfig(RecipeTable):
    kind: TopologyKind = "centralized"
    """`centralized` validates every hand-over. Baselines: `single` (first draft), `independent` (votes on it),
    `decentralized` (three generators vote)."""
    max_revisions: int = Field(2, ge=0, le=10)


class VerifierConfig(RecipeTable):
    """One check of the verifier. Each check defines additional keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    """The check's name: a check of the family, a built-in check, one of an installed package, or one that `path` defines."""
    path: ProgramFile | None = None
    """A Python file that defines the check; searched in the recipe's folder, the working directory and the project."""

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


PASS_RATE = "pass_rate"
"""The column of a measured pass rate, and the value of `quotas.by` that groups samples by it."""
TOO_EASY, TOO_HARD, OUTSIDE_BANDS = "too easy", "too hard", "outside the bands"
"""Why a sample is dropped for its difficulty."""


class DifficultyConfig(RecipeTable):
    """Measure verified samples by a weaker teacher's attempts, which the first check with a known answer judges."""

    teacher: str
    """A name from `[teachers]`, usually of the student's size."""
    attempts: int = Field(5, ge=1, le=20)
    """Per sample; fewer once `wanted` cannot be reached."""
    wanted: tuple[float, float] = (0.2, 0.8)
    """Lowest and highest pass rate to keep, both included."""
    temperature: float = Field(0.7, ge=0, le=2)
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    """Default: the generator's."""
    reasoning: ReasoningEffort | Annotated[int, Field(ge=1024, le=1_000_000)] | None = None
    """Thinking in addition to `max_tokens`, in tokens or as effort: 1,024, 2,048 or 4,096. Default: the teacher's own."""
    max_repairs: int = Field(1, ge=0, le=5)
    """Repeated requests after a reply that breaks its schema."""

    @model_validator(mode="after")
    def _check_attempts(self) -> Self:
        low, high = self.wanted
        if not 0 <= low <= high <= 1:
            raise ValueError(f"wanted = [{low:g}, {high:g}] must be two pass rates from 0 to 1, the lower one first")
        if not any(self.is_wanted(passed, self.attempts) for passed in range(self.attempts + 1)):
            raise ValueError(
                f"attempts = {self.attempts} gives no pass rate from {low:g} to {high:g}; raise attempts, or widen wanted"
            )
        check_repeats("attempts", self.attempts, self.temperature)
        return self

    def build_agent(self, generator: AgentConfig) -> AgentConfig:
        """The solver as an agent."""
        return AgentConfig(
            teacher=self.teacher,
            temperature=self.temperature,
            max_tokens=self.max_tokens or generator.max_tokens,
            reasoning=self.reasoning,
            max_repairs=self.max_repairs,
        )

    def is_wanted(self, passed: int, attempts: int) -> bool:
        low, high = map(_exact, self.wanted)
        return low <= Fraction(passed, attempts) <= high

    def is_settled(self, results: Sequence[bool]) -> bool:
        """Whether the remaining attempts can no longer bring the pass rate into `wanted`."""
        passed, left = sum(results), self.attempts - len(results)
        return not any(self.is_wanted(passed + more, self.attempts) for more in range(left + 1))

    def describe_fault(self, results: Sequence[bool]) -> str | None:
        """Why a sample with these attempts is dropped; None if its pass rate is wanted."""
        passed, made = sum(results), len(results)
        if self.is_wanted(passed, made):
            return None
        kind = TOO_HARD if Fraction(passed, made) < _exact(self.wanted[0]) else TOO_EASY
        return f"{kind}: {passed} of {made} attempts passed"


def _exact(rate: float) -> Fraction:
    """The decimal number as written, so that 3 of 5 attempts are 0.6."""
    return Fraction(str(rate))


BAND_END = re.compile(r"\d{0,3}\.?\d{1,9}|\d{1,6}/[1-9]\d{0,5}", re.ASCII)
"""A decimal number, or a fraction."""


def parse_bands(names: Iterable[str]) -> dict[str, tuple[Fraction, Fraction]]:
    """Bands of the pass rate by their names, `LOW-HIGH`, the lowest first.

    Raises:
        ValueError: if a name is not a band, or two bands overlap.
    """
    bands = {}
    for name in names:
        try:
            low, high = (Fraction(end) for end in name.split("-") if BAND_END.fullmatch(end))
        except ValueError:
            low, high = Fraction(1), Fraction(0)
        if not 0 <= low < high <= 1:
            raise ValueError(f'{name!r} is not a band of pass rates; write LOW-HIGH, such as "0.2-0.4"')
        bands[name] = (low, high)
    ordered = dict(sorted(bands.items(), key=lambda band: band[1]))
    for (name, (_, high)), (other, (low, _)) in zip(list(ordered.items()), list(ordered.items())[1:], strict=False):
        if low < high:
            raise ValueError(f"the bands {name!r} and {other!r} overlap")
    return ordered


def find_band(rate: Fraction, names: Iterable[str]) -> str:
    """The band of a pass rate, or "". A band contains its lower end; the highest one contains its upper end too."""
    bands = parse_bands(names)
    for place, (name, (low, high)) in enumerate(bands.items(), 1):
        if low <= rate < high or (rate == high and place == len(bands)):
            return name
    return ""
