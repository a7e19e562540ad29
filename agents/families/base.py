"""What a recipe family is: how seeds are conditioned, what a draft is, and which checks it knows. Knows no teacher."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from agents.contract import Contract, Finding
from core.recipe import VerifierConfig
from core.sample import Candidate, Seed

Solve = Callable[[type[BaseModel], Mapping[str, str], int, float], Awaitable[Any]]
"""Asks the verifier's teacher, with the family's `verifier` prompt: contract, values, which try, temperature. A reply that
never becomes the contract is None."""


class Subject(NamedTuple):
    """What a check may look at: never who wrote the candidate, nor what a critic said of it."""

    seed: Seed
    candidate: Candidate
    solve: Solve


Check = Callable[[VerifierConfig, Subject], Awaitable[Sequence[Finding]]]
"""What a check found: one finding, or one for each thing that it looks at."""


class Family(Protocol):
    @property
    def name(self) -> str:
        """As in `prompts/<name>/`."""
        ...

    @property
    def draft(self) -> type[Contract]:
        """The generator's contract."""
        ...

    @property
    def options(self) -> type[BaseModel]:
        """What the recipe's `[task]` table may say."""
        ...

    @property
    def checks(self) -> Mapping[str, Check]:
        """By the `type` of `[[verifiers]]`."""
        ...

    def condition(self, row: Mapping[str, Any], options: Any, rng: Random) -> dict[str, Any]:
        """A seed's data from one row of the seeds file.

        Raises:
            KeyError: naming a key that the row lacks.
        """
        ...

    def generator_values(self, seed: Seed) -> dict[str, str]: ...

    def critic_values(self, seed: Seed, candidate: Candidate) -> dict[str, str]: ...

    def candidate(self, seed: Seed, draft: Any) -> Candidate: ...


def passed(check: str, fault: str | None, met: str) -> Finding:
    """A finding from a fault in words, or None and what was `met`."""
    return Finding(check=check, passed=fault is None, evidence=fault or met)


def first_fault(faults: Sequence[str | None]) -> str | None:
    return next((fault for fault in faults if fault), None)
