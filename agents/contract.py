"""Contracts: the type each agent's reply must become, and the one way a reply becomes it. Knows no teacher."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

T = TypeVar("T", bound=BaseModel)


class Contract(BaseModel):
    """What an agent hands over. Immutable; a key that was not asked for is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Review(Contract):
    """A critic's reply; scores are 1 (poor) to 5 (good) by rubric."""

    scores: dict[str, Annotated[int, Field(ge=1, le=5)]] = Field(min_length=1)
    faults: list[str]
    advice: str


class Finding(Contract):
    """What one check of the verifier found."""

    check: str
    passed: bool
    evidence: str


class Findings(Contract):
    """A verifier's reply: the findings of each check, in the recipe's order, up to the first check that did not pass."""

    findings: list[Finding]


class ContractFault(Exception):
    """A reply that is not what its contract says; the text says why, for the agent to mend it."""


def read(contract: type[T], handed: str | dict[str, Any]) -> T:
    """`handed` as an object of `contract`.

    Raises:
        ContractFault: in one line.
    """
    try:
        if isinstance(handed, str):
            return contract.model_validate_json(handed)
        return contract.model_validate(handed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractFault(f"{where + ': ' if where else ''}{first['msg'].lower()}") from None
