"""The `[agents]`, `[topology]` and `[[verifiers]]` tables of a recipe."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from core.config.base import ProgramFile, RecipeTable

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
    """A reply that is cut off here fails its schema. Families have their own defaults."""
    reasoning: ReasoningEffort | Annotated[int, Field(ge=1024, le=1_000_000)] | None = None
    """How much the teacher thinks before it answers: an effort, or a budget in tokens. Absent: the teacher's own default. The
    call may use these tokens in addition to `max_tokens`: 1,024 for low, 2,048 for medium, 4,096 for high."""
    max_repairs: int = Field(1, ge=0, le=5)
    """Repeated requests after a reply that does not match its schema."""


class CriticConfig(AgentConfig):
    type: Literal["teacher", "confidence"] = "teacher"
    """`teacher`: the teacher scores each candidate by the rubrics of the prompt and gives advice. `confidence`: code scores it
    by the token probabilities of its generator; it needs no call, for teachers too weak to judge."""
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(300, ge=8)
    """A reply that is cut off here fails its schema. Families have their own defaults."""
    min_score: int = Field(3, ge=1, le=5)
    """A candidate with a score below this is revised, or dropped if no revision is left."""


class GeneratorConfig(AgentConfig):
    examples: int | None = Field(None, ge=0)
    """Examples of the prompt to include, drawn for each sample. Default: all, in their order. Fewer, changing examples make
    samples more varied, but the server's prompt cache is not used."""


class AgentsConfig(RecipeTable):
    generator: GeneratorConfig = GeneratorConfig()
    critic: CriticConfig | None = CriticConfig()
    """`critic = false` in a recipe runs without a critic: candidates go directly to the verifier."""
    verifier: AgentConfig = AgentConfig()
    """For checks that call a teacher (`agreement`, `judge`)."""


DEBATERS, DEBATE_ROUNDS = 3, 1
"""Of `decentralized`: generators, and how often each reads the others' drafts and writes again."""
TopologyKind = Literal["centralized", "single", "independent", "decentralized"]


class TopologyConfig(RecipeTable):
    kind: TopologyKind = "centralized"
    """`centralized`: the orchestrator validates every hand-over and decides. `single`: the first draft is kept
    unchecked. `independent`: critic and verifier assess the first draft in parallel, and a majority of generator, critic and
    verifier decides; nothing is repaired or revised. `decentralized`: three generators read each other's
    unchecked drafts, write again once, and vote. The last three are baselines."""
    max_revisions: int = Field(2, ge=0, le=10)


class VerifierConfig(RecipeTable):
    """One check of the verifier. Each check defines additional keys."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    type: str
    """The check's name: a check of the family, a built-in check, one of an installed package, or one that `path` defines."""
    path: ProgramFile | None = None
    """A Python file that defines the check; searched in the recipe's folder, the working directory and the project."""

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}
