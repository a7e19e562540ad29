"""What a plugin does in a run: methods that the stages call, each with a default that does nothing; and the decisions
about samples (`Overrides`) that hooks return.

The hooks of a plugin are called for a run whose recipe names one of its parts, whose manifest has its record, or whose folder has
data of it.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from core.errors import RecipeProblem
from core.sample import Message, Sample, json_digest

if TYPE_CHECKING:
    from core.config.recipe import Recipe
    from core.runs.records import RunManifest
    from core.runs.run_dir import RunDir


@dataclass(frozen=True)
class Override:
    """The decision about one sample."""

    keeps: bool
    """Whether the sample stays, whatever agents, filters and goals say."""
    edited: tuple[Message, ...] | None = None
    """The conversation that replaces it."""
    note: str = ""
    """Why it is dropped."""

    def correct_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of a file with `edited` as its conversation, in its own form. Raises ValueError if the form cannot hold it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Overrides:
    """The decisions about the samples of a run, by id, or about the rows of a file, by the digest of their conversation."""

    decisions: Mapping[str, Override] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Changes with any decision or edited text, and not with notes."""
        return json_digest(
            {
                name: [one.keeps, [message.model_dump(mode="json") for message in one.edited or ()]]
                for name, one in self.decisions.items()
            }
        )


NO_OVERRIDES = Overrides()


class PageSection(NamedTuple):
    """A part of the report page or of a card."""

    id: str
    title: str
    body: str
    """HTML of the report, which has escaped every text of a teacher; Markdown of a card."""


class SeedChoice(Protocol):
    """A plugin's choice among the seeds that a family draws."""

    @property
    def requests(self) -> Collection[str]:
        """Those that the choice was made by, which no evaluation may ask."""
        ...

    def accepts(self, data: Mapping[str, Any], rng: Random) -> bool:
        """Whether a seed with this data is used, or another one drawn in its place."""
        ...


class LabeledConversation(NamedTuple):
    line: int
    messages: list[Message]
    good: bool


class RunHooks:
    """The base class of a plugin's hooks. An instance lives as long as one stage."""

    def adapt_family(self, family: Any, sections: Mapping[str, Any]) -> Any:
        """`family` (`agents.families.base.RecipeFamily`), or the one in its place, for a recipe with these sections."""
        return family

    def list_plan_problems(self, plan: Any) -> Sequence[RecipeProblem]:
        """What is wrong with a plan (`agents.planning.run_plan.RunPlan`), before anything is written."""
        return ()

    def list_recipe_lines(self, recipe: "Recipe") -> Sequence[tuple[str, str]]:
        """Lines of what `validate` says about a recipe: label and text."""
        return ()

    async def find_recipe_facts(self, plan: Any, *, live: bool) -> Mapping[str, Sequence[str]]:
        """What `validate` finds out about a plan, by its source: names. Endpoints are asked and programs started only if `live`.

        Raises:
            RunFailed: if a source cannot be used.
        """
        return {}

    def list_seed_problems(self, plan: Any, seeds: Any) -> Sequence[str]:
        """What is wrong with the seeds (`agents.planning.seeds.RunSeeds`), a sentence each, before anything is written."""
        return ()

    def choose_seeds(self, plan: Any) -> SeedChoice | None:
        """Which seeds of a plan are used. None for all. At most one plugin of a recipe chooses."""
        return None

    def open_sample_workers(self, plan: Any, run: str) -> AbstractAsyncContextManager[Any] | None:
        """Where samples are made: yields `MakeSample`. None for the run's own process. At most one plugin of a recipe has one."""
        return None

    async def begin_run(self, run: "RunDir", plan: Any, manifest: "RunManifest") -> None:
        """Before the first sample, and again when the run resumes: may ask teachers, and write a record by `manifest.put`. The
        lines of text in its key `lineage` are shown with the release.

        Raises:
            StillhouseError: to end the run.
        """

    def find_overrides(self, run: "RunDir") -> Overrides:
        """Decisions about the run's samples, read before each curation and while samples are counted."""
        return NO_OVERRIDES

    def find_row_overrides(self, file: Path) -> Overrides:
        """Decisions about the rows of a file that `filter` reads."""
        return NO_OVERRIDES

    def read_labels(self, file: Path) -> Sequence[LabeledConversation]:
        """Conversations that people judged, from one of the plugin's side files: for the calibration of judges."""
        return ()

    def finish_curation(self, run: "RunDir", manifest: "RunManifest") -> None:
        """After samples were curated and counted: write the plugin's record by `manifest.put`."""

    def finish_assessment(self, run: "RunDir", manifest: "RunManifest") -> None:
        """After the kept samples were assessed: write the plugin's record by `manifest.put`."""

    def list_release_faults(self, manifest: "RunManifest") -> Sequence[tuple[str, str]]:
        """Why the run may not be released, by the plugin's record: a reason, and how another setting would allow it."""
        return ()

    def finish_package(self, run: "RunDir", manifest: "RunManifest") -> None:
        """When the dataset is about to be written: write the plugin's record by `manifest.put`."""

    async def finish_student(
        self, run: "RunDir", plan: Any, manifest: "RunManifest", trained: Any, held_out: Sequence[Sequence[Message]]
    ) -> Any:
        """Make `run.student` of the student that was trained in `wip/student`, if a step of the recipe `chooses_weights`.
        `trained` is its record (`core.runs.student_records.StudentRecord`), as is the result; None for another plugin's step.

        Raises:
            BudgetExhausted, RunStopped, StillhouseError: if models could not be asked.
        """
        return None

    def list_summary_lines(self, manifest: "RunManifest") -> Sequence[tuple[str, str]]:
        """Lines of the run card: label and text."""
        return ()

    def describe_people(self, manifest: "RunManifest") -> str:
        """What people did to the rows, without a full stop, for the documents of a release; "" for nothing."""
        return ""

    def render_report(self, run: "RunDir", manifest: "RunManifest", shown: Sequence[Sample]) -> Sequence[PageSection]:
        """Sections of the report page, which embeds the samples `shown`."""
        return ()

    def render_card(self, manifest: "RunManifest") -> Sequence[PageSection]:
        """Sections of the dataset card."""
        return ()
