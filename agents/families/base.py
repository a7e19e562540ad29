"""A recipe family: the source of its seeds, the form of its drafts, and its checks. Knows no teacher."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from pydantic import AfterValidator

from agents.checks import Check, Options
from agents.reply_schema import ReplySchema
from core.config.recipe import Recipe
from core.errors import RecipeProblem, suggest_name
from core.sample import Candidate, Message, Sample, Seed, render_values
from teachers.base import reply_json_schema


class UnusableSeedRow(TypeError):
    """A row that cannot become a seed; the text is the key that is needed, and its form."""


def require_text(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """The text of a row under a key, or the default. Raises KeyError if both are missing, UnusableSeedRow for no text."""
    value = row[key] if default is None else row.get(key, default)
    if not isinstance(value, str) or not (value.strip() or value == default):
        raise UnusableSeedRow(f"{key!r} with a text, not {str(value)[:40]!r}")
    return value


def validate_weights(noun: str, known: Collection[str] | None = None) -> AfterValidator:
    """For a field of weights, as metadata of its type: refuses a weight below 0, no weight above 0, and a name that is not
    `known`. No weights at all are up to `min_length`.
    """

    def validate(weights: dict[Any, Any]) -> dict[Any, Any]:
        names = list(map(str, weights if known is None else known))
        if unknown := [name for name in map(str, weights) if name not in names]:
            raise ValueError(f"unknown {noun}s {', '.join(unknown)}; {suggest_name(unknown[0], names)}")
        below = {name: weight for name, weight in weights.items() if weight < 0}
        if below or (weights and not sum(weights.values())):
            raise ValueError(f"needs at least one {noun} with a weight above 0, and none below; not {below or weights}")
        return weights

    return AfterValidator(validate)


OWN_SOURCES = ("path", "documents", "itself")
"""Where seeds come from without a plugin; the last is the family."""


class RecipeFamily(ABC):
    """A kind of data. One object serves all runs; the choices of a run are in its options and seeds."""

    name: ClassVar[str]
    """As recipes write it; of a built-in family also the folder name in `prompts/`."""
    prompts: ClassVar[Path | None] = None
    """The folder of its prompts, for a family of an installed package; prompts that it lacks are those of all families."""
    options: ClassVar[type[Options]] = Options
    """The keys of the recipe's `[task]` table."""
    checks: ClassVar[Sequence[Check]] = ()
    """The family's checks, in addition to those of every family."""
    fields: ClassVar[Sequence[str]] = ()
    """Names of the candidate's fields for checks and for the critic's prompt."""
    writes: ClassVar[Sequence[str]] = ("generator",)
    """The prompts of its generator."""
    revises: ClassVar[Sequence[str]] = ("revise",)
    """The prompts that ask its generator for a revision."""
    reviewed_revisions: ClassVar[Mapping[str, str]] = {}
    """Which of `revises` takes the place of which where the critic is a teacher."""
    seeded_by: ClassVar[tuple[str, ...]] = ("path",)
    """Where its seeds may come from: `path`, `documents`, `itself`, or sources of plugins by name. If the source shows images,
    its generator and critic see those of the seed, the first turn of the user has them, and checks may show them to the
    verifier."""
    extra: ClassVar[str] = ""
    """The extra of Stillhouse that its checks need."""
    answer_hint: ClassVar[str] = ""
    """How a plain answer to its `questions` must be written, as a system message; empty if they say so."""
    draws_drafts: ClassVar[bool] = False
    """Whether `draw_draft` makes the draft of each seed that the family generates, so that no teacher writes it."""
    has_images: ClassVar[bool] = False
    """Whether its conversations have images, which no student here is trained on."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Tables of a recipe, in the form of TOML, for the keys that a recipe of the family leaves out."""
    converses: ClassVar[bool] = False
    """Whether `write_draft` makes each draft by several requests, so that no single one can be shown to the critic."""
    own_process_reason: ClassVar[str | None] = None
    """Why other processes cannot make its samples; None if they can."""

    def for_sections(self, names: Collection[str]) -> "RecipeFamily":
        """The family that makes the samples of a recipe with these tables of plugins: itself, or another one of its name."""
        return self

    def list_problems(self, recipe: Recipe, folder: Path) -> Iterable[RecipeProblem]:
        """What is wrong with a recipe in `folder` beyond the types of its keys, found without starting anything."""
        return ()

    def open_resources(self, recipe: Recipe, folder: Path) -> AbstractAsyncContextManager[Any]:
        """What `write_draft` needs and what stays open as long as the run's teachers. Raises RunFailed."""
        return nullcontext()

    async def write_draft(self, context: Any, state: Any) -> Any:
        """A draft as the generator's hand-over, by requests of its own (`converses`), from an `AgentContext` of the run's own
        process and the `SampleState`.
        """
        raise NotImplementedError

    @property
    def sources(self) -> list[str]:
        """The sources of plugins that its seeds may come from."""
        return [name for name in self.seeded_by if name not in OWN_SOURCES]

    def list_trained_questions(
        self, options: Any, read_rows: Callable[[], Sequence[Mapping[str, Any]]]
    ) -> Collection[str]:
        """The kinds of questions of the general panel that recipes of the family train, given how to read the rows of seeds."""
        return ()

    def rows(self, options: Any, seed: int) -> Sequence[Mapping[str, Any]]:
        """Seeds that the family generates, the same for the same options and `seed`."""
        raise NotImplementedError

    def draw_draft(self, seed: Seed, revision: int) -> dict[str, Any] | None:
        """The draft of a seed that determines it, as plain values of `reply_type`, another one for each revision; None if a
        teacher writes it.
        """
        return None

    def draft_calls(self, options: Any) -> int:
        """The most teacher calls of one draft, without repairs."""
        return 1

    def gather_rows(
        self, rows: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """The rows that condition samples: each row in order, then each row that the run `made` with `seeds.bootstrap`. A
        family whose seeds depend on each other combines them here.

        Raises:
            KeyError: with the key that a row lacks.
        """
        return [*rows, *made]

    @abstractmethod
    def condition(self, row: Mapping[str, Any], options: Any, rng: Random) -> dict[str, Any]:
        """A seed's data from one row: a line of the seeds file, a chunk (`text`, `source`, `number`), or one of `rows`. Other
        columns of the row are added to the data unchanged.

        Raises:
            KeyError: naming a key that the row lacks.
            UnusableSeedRow: with the key whose value cannot be used.
        """

    def condition_again(self, row: Mapping[str, Any], options: Any, rng: Random, turn: int) -> dict[str, Any]:
        """As `condition`, for a row that was drawn `turn` times before. A family whose samples of one row would get the same
        prompt varies them here.
        """
        return self.condition(row, options, rng)

    def prompt_role(self, seed: Seed) -> str:
        """The name of the prompt in `writes` that asks for this seed's draft."""
        return self.writes[0]

    def revision_role(self, seed: Seed) -> str:
        """The name of the prompt in `revises` that asks for a revision of this seed's draft."""
        return self.revises[0]

    @abstractmethod
    def reply_type(self, seed: Seed) -> type[ReplySchema]:
        """The type of the generator's reply."""

    def reply_json_schema(self, seed: Seed) -> dict[str, Any]:
        """The JSON schema that is sent to the teacher: the reply type's, or a narrower one for the seed."""
        return reply_json_schema(self.reply_type(seed))

    def extra_prompt_values(self, seed: Seed) -> dict[str, str]:
        """Values that the family adds to the seed's data in the generator's prompt, by name."""
        return {}

    def prompt_values(self, seed: Seed) -> dict[str, str]:
        """The values of the generator's prompt: the seed's data, the family's values, then drawn values. Later values replace
        earlier ones of the same name.
        """
        return {**render_values(seed.data), **self.extra_prompt_values(seed), **seed.conditions}

    def questions(self, seed: Seed) -> Sequence[Message] | None:
        """The conversation without the assistant's turns if the seed determines it, so that any model can be asked like a
        student; None if the generator writes the questions too.
        """
        return None

    @property
    def asks_by_seed(self) -> bool:
        """Whether `questions` can determine a conversation."""
        return type(self).questions is not RecipeFamily.questions

    def build_answered(self, seed: Seed, answers: Sequence[str]) -> Candidate:
        """`questions` with a plain answer to each turn of the user, in the form of `candidate`.

        Raises:
            InvalidReply: if the answers are not what the checks need.
        """
        raise NotImplementedError

    def reviewed_messages(self, candidate: Candidate) -> Sequence[Message]:
        """The turns of a candidate that a critic is shown as its conversation."""
        return candidate.messages

    @abstractmethod
    def candidate(self, seed: Seed, draft: Any) -> Candidate:
        """The draft as a conversation, with the fields that checks read. `agreement` compares the field `answer`.

        Raises:
            InvalidReply: if the draft does not fit its seed.
        """

    def conclude(self, sample: Sample) -> Candidate:
        """The candidate of a kept sample, after the replies to its checks; by default as it was drafted."""
        return sample.candidate
