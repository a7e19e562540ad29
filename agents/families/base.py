"""What a recipe family is: where its seeds come from, what a draft is, and which checks are its own. Knows no teacher."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, ClassVar, Literal

from agents.checks import Check, Options
from agents.contract import Contract
from agents.teachers.base import schema_of
from core.sample import Candidate, Message, Seed, texts_of


class BadSeed(TypeError):
    """A row that no seed can be made of: the key that is needed, and with what."""


def text_in(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """What a row says under a key, which may be left out where there is a default. Raises KeyError, or BadSeed for no text."""
    value = row[key] if default is None else row.get(key, default)
    if not isinstance(value, str) or not (value.strip() or value == default):
        raise BadSeed(f"{key!r} with a text, not {str(value)[:40]!r}")
    return value


class Family(ABC):
    """A kind of data. One object serves all runs; whatever a run chooses is in its options and seeds."""

    name: ClassVar[str]
    """As in `prompts/<name>/`."""
    options: ClassVar[type[Options]] = Options
    """What the recipe's `[task]` table may say."""
    checks: ClassVar[Sequence[Check]] = ()
    """Its own, beside those that every family has."""
    writes: ClassVar[Sequence[str]] = ("generator",)
    """The prompts that its generator may be asked with."""
    seeded_by: ClassVar[tuple[Literal["path", "documents", "itself"], ...]] = ("path",)
    """Where its seeds may come from."""

    def rows(self, options: Any, seed: int) -> Sequence[Mapping[str, Any]]:
        """Seeds that the family makes by itself, the same for the same options and `seed`."""
        raise NotImplementedError

    def gathered(
        self, rows: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """What is conditioned: the rows, and those that the run `made` itself with `seeds.bootstrap`. A family whose seeds
        need to know each other puts them together here.

        Raises:
            KeyError: naming a key that a row lacks.
        """
        return [*rows, *made]

    @abstractmethod
    def condition(self, row: Mapping[str, Any], options: Any, rng: Random) -> dict[str, Any]:
        """A seed's data from one row: a line of the seeds file, a chunk (`text`, `source`, `number`), or one of `rows`.

        Raises:
            KeyError: naming a key that the row lacks.
            BadSeed: naming a key under which there is nothing of use.
        """

    def role(self, seed: Seed) -> str:
        """Which of these prompts asks for this seed's draft."""
        return self.writes[0]

    @abstractmethod
    def contract(self, seed: Seed) -> type[Contract]:
        """What the generator's reply must be."""

    def reply_schema(self, seed: Seed) -> dict[str, Any]:
        """The JSON schema that the teacher is told: the contract's, or a narrower one that depends on the seed."""
        return schema_of(self.contract(seed))

    def values(self, seed: Seed) -> dict[str, str]:
        """What the generator's prompt may say, by name."""
        return texts_of(seed.data)

    def questions(self, seed: Seed) -> Sequence[Message] | None:
        """The conversation without the assistant's turns where the seed alone fixes it, so that any model can be asked as a
        student is; None where the generator writes the questions too.
        """
        return None

    def answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        """`questions` with a plain answer to each turn of the user, as `candidate` would have it.

        Raises:
            ContractFault: if the answers are not what the checks need.
        """
        raise NotImplementedError

    @abstractmethod
    def candidate(self, seed: Seed, draft: Any) -> Candidate:
        """The draft as a conversation, with the fields that checks look at. What `agreement` compares is the field `answer`.

        Raises:
            ContractFault: if the draft does not fit its seed.
        """
