"""The recipe: one TOML file that says everything about a run, as frozen types with every default visible.

Knows neither prompts nor teachers, nor the meaning of a family's `[task]` options; `loading` reads it.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationInfo, create_model, field_validator, model_validator

from core.config.agents import PASS_RATE, AgentsConfig, DifficultyConfig, TopologyConfig, VerifierConfig, find_band
from core.config.base import RecipeTable
from core.config.filters import DEFAULT_FILTERS, FilterConfig
from core.config.students import StudentConfig
from core.config.teachers import CONNECTION_KEYS, TeacherConfig
from core.errors import RecipeProblem
from core.hub_reference import remove_revision
from core.plugins import PartKind, find_part, load_part
from core.sample import CONDITIONS_KEY, json_digest
from core.shared_options import DataKind

Table = TypeVar("Table", bound=RecipeTable)
ConditionValues = str | tuple[str, ...] | dict[str, Any]
"""A text file with one value per line, a list of values, or a table of weights; nested tables are a taxonomy."""


class SeedsConfig(RecipeTable):
    """Where seeds come from, unless the family generates them."""

    path: str | None = None
    """A JSONL or Parquet file with one seed per row."""
    documents: str | None = None
    """A folder of txt, md, html and pdf files, whose chunks are seeds."""
    source: str | None = None
    """Of a plugin, with the table of its name: `"images"` with `[images]`."""
    recording: str | None = None
    """A recording (`run --record`), whose seeds and draws are repeated."""
    chunk_words: int = Field(180, ge=20, le=2000)
    """Approximate words of a chunk."""
    bootstrap: bool = False
    """Use kept samples of earlier shards as seeds of later ones."""
    draw: dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")], ConditionValues] = Field({})
    """Conditions by name. Each sample draws one value of each, for `{{name}}` in your prompt."""


DatasetFormat = Literal["messages", "prompt_completion", "preference", "alpaca", "sharegpt"]
DatasetThinking = Literal[False, "tags", "field"]


class DatasetConfig(RecipeTable):
    formats: tuple[DatasetFormat, ...] = Field(("messages",), min_length=1)
    """The first is at the top of `dataset/`, each other in its own folder."""
    thinking: DatasetThinking = False
    """Where the teacher's thinking is: nowhere, in `<think>` tags before the answer, or in `reasoning_content`."""
    license: str | None = None
    """An SPDX expression (`"CC-BY-4.0"`) or the address of its text."""
    publisher: str | None = Field(None, min_length=1, max_length=200)
    """With a contact: `"Example Lab, data@example.org"`."""

    @field_validator("license")
    @classmethod
    def _check_license(cls, license: str | None) -> str | None:
        from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

        if license is None or re.fullmatch(r"https://[^\s<>\"]+", license):
            return license
        try:
            return canonicalize_license_expression(license)
        except InvalidLicenseExpression:
            raise ValueError(
                f"{license!r} is no licence of https://spdx.org/licenses/; write its identifier (`Apache-2.0`, `CC-BY-4.0`), "
                "`LicenseRef-NAME`, or the address of its text (https://…)"
            ) from None

    @field_validator("formats")
    @classmethod
    def _check_formats(cls, formats: tuple[DatasetFormat, ...]) -> tuple[DatasetFormat, ...]:
        if twice := sorted({name for name in formats if formats.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: named more than once")
        return formats

    @field_validator("thinking")
    @classmethod
    def _check_field_exists(cls, thinking: DatasetThinking, info: ValidationInfo) -> DatasetThinking:
        without = [name for name in info.data.get("formats", ()) if name in ("alpaca", "sharegpt")]
        if thinking == "field" and without:
            raise ValueError(f'{" and ".join(without)} have no field for thinking; set "tags", or leave them out')
        return thinking


class PreferenceConfig(RecipeTable):
    """Which answers form a pair, with `preference` in `dataset.formats`."""

    margin: float = Field(1.0, gt=0, le=4)
    """Least difference of mean critic scores (1 to 5) if both answers passed."""
    pairs_per_prompt: int = Field(1, ge=1)
    """At most, those with the largest difference."""


ENGLISH_REFERENCE = "data/reference/english.jsonl"
"""English novels of two centuries ago: a reference for text like them. No recipe names it."""


ReleaseGate = bool | Literal["strict"]
"""Values of `collapse.gate`."""


class CollapseConfig(RecipeTable):
    """Compare the kept samples with real text. A finished run accepts another `gate`, `structures` and `kind`."""

    reference: str | None = None
    """A file of `stillhouse reference`, a dataset, or `python`. Without it: the parent release, if any."""
    gate: ReleaseGate = True
    """Whether `release` refuses collapse or a missing assessment; `"strict"` also an inconclusive one."""

    structures: bool = True
    """Whether few different structures are a collapse. Set `false` for templates."""

    kind: DataKind | None = None
    """What is counted, respectively: numbers, character pairs, Python tokens, words by speaker, fields, words. Default: by
    the samples."""

    @field_validator("gate", mode="before")
    @classmethod
    def _check_gate(cls, gate: object) -> object:
        if gate is True or gate is False or gate == "strict":
            return gate
        raise ValueError('must be true, false or "strict"')


MAX_GENERAL_LOSS = 0.05
"""The largest measured loss of a student's pass rate on the general panel, compared with its start, with which it is promoted."""


class LineageConfig(RecipeTable):
    """What the dataset has besides the run's own samples, once the recipe has a release."""

    policy: Literal["accumulate", "replace", "budget"] = "accumulate"
    """`accumulate`: all samples of earlier releases. `replace`: none, which leads to collapse. `budget`: `budget` rows of
    all."""
    budget: int | None = Field(None, ge=1)
    """Rows with `policy = "budget"`, real ones included."""
    real: str | None = None
    """Real conversations or `text` (JSONL, Parquet), in every training split."""
    min_real_share: float = Field(0.0, ge=0, lt=1)
    """Least share of real rows in a release."""
    promote: bool = False
    """Whether a student that is significantly better than its teacher generates the next generation."""

    @model_validator(mode="after")
    def _check_policy(self) -> Self:
        if (self.policy == "budget") != (self.budget is not None):
            raise ValueError('`budget` (rows) and `policy = "budget"` go together; set both or neither')
        if self.min_real_share and self.real is None:
            raise ValueError("min_real_share needs real rows; name a file of them in `real`")
        return self


class BudgetConfig(RecipeTable):
    """Limits over all teachers and resumptions. A run at a limit resumes with --resume and a higher one."""

    calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    """Of prompts and replies."""
    cost: float | None = Field(None, ge=0)
    """In the currency of the prices."""
    minutes: float | None = Field(None, ge=0)
    """Of producing samples."""


class QuotasConfig(RecipeTable):
    """Samples to keep by category, instead of `keep`. Other categories are not produced."""

    by: str
    """A key of the seeds' data or of `seeds.draw`; with `difficulty` also `pass_rate`, in bands such as `"0.2-0.4"`."""
    keep: dict[str, Annotated[int, Field(ge=1)]] = Field(min_length=1)


MAX_SAMPLES = 10_000_000
"""Of one run, whose report and filters read all of them at once. More are several runs, with other seeds."""


class Recipe(RecipeTable):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Lowercase letters, digits and dashes. Names of runs begin with it."""
    family: str = "constrained_instructions"
    """The kind of data."""
    seed: int = Field(7, ge=0, lt=2**32)
    """Of all random choices."""
    samples: int = Field(60, ge=1, le=MAX_SAMPLES)
    """Candidates to produce. Fewer seeds are reused, with new conditions."""
    answers_per_seed: int = Field(1, ge=1, le=64)
    """Consecutive samples of one seed."""
    keep: int = Field(0, ge=0)
    """Stop at this number of kept samples. 0 keeps all that pass."""
    quotas: QuotasConfig | None = None
    shard_size: int = Field(50, ge=1)
    """Samples per unit of work and storage."""
    max_failed: float = Field(0.2, ge=0, le=1)
    """The run stops if a larger share of samples fails, without a verdict."""
    seeds: SeedsConfig
    prompts: str | None = None
    """A folder whose files (`generator.md`) replace the family's prompts."""
    task: dict[str, Any] = Field({})
    """Options of the family."""
    teachers: dict[str, TeacherConfig] = Field({"main": TeacherConfig(model="local/smollm2-135m")})
    topology: TopologyConfig = TopologyConfig()
    agents: AgentsConfig = AgentsConfig()
    verifiers: tuple[VerifierConfig, ...] = ()
    difficulty: DifficultyConfig | None = None
    filters: tuple[FilterConfig, ...] = DEFAULT_FILTERS
    budget: BudgetConfig = BudgetConfig()
    cache_mb: int = Field(1024, ge=0)
    """Megabytes of replies stored for runs with the same questions. 0 stores none."""
    collapse: CollapseConfig | None = CollapseConfig()
    lineage: LineageConfig = LineageConfig()
    dataset: DatasetConfig = DatasetConfig()
    preference: PreferenceConfig = PreferenceConfig()
    student: StudentConfig | None = None

    @field_validator("agents")
    @classmethod
    def _check_answers_differ(cls, agents: AgentsConfig, info: ValidationInfo) -> AgentsConfig:
        answers = info.data.get("answers_per_seed", 1)
        if answers > 1 and not agents.generator.temperature:
            raise ValueError(
                f"generator.temperature = 0 gives the same answer answers_per_seed = {answers} times; raise it"
            )
        return agents

    @field_validator("dataset")
    @classmethod
    def _check_preference_pairs(cls, dataset: DatasetConfig, info: ValidationInfo) -> DatasetConfig:
        topology = info.data.get("topology")
        if "preference" not in dataset.formats or topology is None:
            return dataset
        if topology.kind in ("single", "decentralized"):
            raise ValueError(f"preference pairs need judged answers, and topology.kind = {topology.kind!r} judges none")
        revised = topology.kind == "centralized" and topology.max_revisions
        if info.data.get("answers_per_seed", 1) == 1 and not revised:
            raise ValueError("preference pairs need several answers to a prompt: set answers_per_seed to 2 or more")
        return dataset

    def __reduce__(self) -> Any:
        return parse_recipe, (self.model_dump(mode="json"),)

    def section(self, table: type[Table]) -> Table | None:
        """The table of a plugin; None if the recipe has none."""
        return next((value for _, value in self if isinstance(value, table)), None)

    def section_list(self, table: type[Table]) -> tuple[Table, ...]:
        """The tables of a plugin's list; empty if the recipe has none."""
        lists = (value for _, value in self if isinstance(value, tuple))
        return next((value for value in lists if value and isinstance(value[0], table)), ())

    @property
    def sections(self) -> dict[str, Any]:
        """The tables of plugins that it names, each a `RecipeTable`, a tuple of them or a text."""
        names = type(self).model_fields.keys() - Recipe.model_fields.keys()
        return {name: value for name in sorted(names) if (value := getattr(self, name))}

    @property
    def generator_teacher(self) -> TeacherConfig:
        """The teacher of the generator."""
        return self.teachers[self.agents.generator.teacher]

    @property
    def goals(self) -> dict[str, int]:
        """Samples to keep by group: each category of the quotas, or the group "" for `keep`; empty without a goal."""
        if self.quotas:
            return self.quotas.keep
        return {"": self.keep} if self.keep else {}

    @property
    def groups_by_pass_rate(self) -> bool:
        """Whether the quotas are bands of the pass rate, which no seed has before its sample is made."""
        return self.difficulty is not None and self.quotas is not None and self.quotas.by == PASS_RATE

    @property
    def groups_by_seed(self) -> bool:
        """Whether the quotas are categories of the seeds."""
        return self.quotas is not None and not self.groups_by_pass_rate

    def find_sample_group(self, data: Mapping[str, Any], attempts: Sequence[bool]) -> str:
        """The group of a sample, from its seed's data and its attempts."""
        if self.quotas and self.groups_by_pass_rate:
            rate = Fraction(sum(attempts), len(attempts)) if attempts else None
            return "" if rate is None else find_band(rate, self.quotas.keep)
        return self.find_group(data)

    def find_group(self, data: Mapping[str, Any]) -> str:
        """The group of a seed with this data; "" if the quotas are bands of the pass rate."""
        if self.quotas is None or self.groups_by_pass_rate:
            return ""
        return str(data.get(CONDITIONS_KEY, {}).get(self.quotas.by, data.get(self.quotas.by, "")))


@cache
def build_recipe_type(sections: frozenset[str]) -> type[Recipe]:
    """The recipe with the tables and lists of tables of plugins as fields. Raises UnusablePlugin if one cannot be imported."""
    fields: dict[str, Any] = {name: (load_part("section", name) | None, None) for name in sorted(sections)}
    return create_model("Recipe", __base__=Recipe, **fields) if fields else Recipe


def find_recipe_type(data: Mapping[str, Any]) -> type[Recipe]:
    """The type that reads a recipe with these tables; only the plugins of named tables are imported."""
    return build_recipe_type(
        frozenset(name for name in data if name not in Recipe.model_fields and find_part("section", name))
    )


def parse_recipe(data: Mapping[str, Any]) -> Recipe:
    return find_recipe_type(data).model_validate(data)


def list_recipe_plugins(recipe: Recipe) -> list[str]:
    """The plugins whose parts the recipe names."""
    sections = type(recipe).model_fields.keys() - Recipe.model_fields.keys()
    named: list[tuple[PartKind, str]] = [("section", name) for name in sorted(sections)]
    named += [("family", recipe.family), *(("check", one.type) for one in recipe.verifiers)]
    named += [("filter", one.type) for one in recipe.filters]
    named += [("step", one.type) for one in (recipe.student.steps if recipe.student else ())]
    named += [("source", recipe.seeds.source)] if recipe.seeds.source else []
    return list(dict.fromkeys(found[0].name for kind, name in named if (found := find_part(kind, name))))


class ParentRelease(RecipeTable):
    """The release that a run builds on, fixed when the run is created and part of its identity."""

    release: str
    """`recipe/generation`."""
    digest: str
    seeds: int
    """Seeds that it and all releases before it have used; the run starts after them."""

    @property
    def generation(self) -> int:
        return int(self.release.rpartition("/")[2])


def recipe_digest(recipe: Recipe, sources: Mapping[str, str], parent: ParentRelease | None = None) -> str:
    """The run's identity: a digest of everything that can change its samples, dataset or student. `sources` are hashes, by
    name, of the recipe's files: prompts, seeds, reference.

    The connection to a teacher (`CONNECTION_KEYS`), the budget, the cache, the scale, `max_failed`, the gate, what it judges and
    counts, the dataset's licence and publisher, the student's evaluation and the price of a core are not included, so that a run
    can be resumed with another key, budget or machine. A teacher's endpoint is included.
    Weights of the Hub are identified by their hash in `sources`, not by their commit.
    """
    return json_digest(build_recipe_identity(recipe, sources, parent))


def build_recipe_identity(
    recipe: Recipe, sources: Mapping[str, str], parent: ParentRelease | None = None
) -> dict[str, Any]:
    """The input of `recipe_digest` as plain JSON values; also compares two runs key by key."""
    left_out: Any = {
        "budget": True, "cache_mb": True, "max_failed": True, "student": {"evaluation", "core_hour_price"},
        "collapse": {"gate", "structures", "kind"}, "dataset": {"license", "publisher"},
    }  # fmt: skip
    left_out |= {name: True for name, value in recipe if isinstance(value, RecipeTable) and not value.identifies_run}
    resolved = recipe.model_dump(mode="json", exclude=left_out)
    for name, teacher in resolved["teachers"].items():
        for key in CONNECTION_KEYS:
            teacher.pop(key, None)
        teacher["base_url"] = recipe.teachers[name].endpoint
        teacher["model"] = remove_revision(teacher["model"])
    before = {"parent": parent.model_dump()} if parent else {}
    return {"recipe": resolved, "sources": dict(sources), **before}


def list_differences(left: Any, right: Any, where: str = "") -> list[RecipeProblem]:
    """Where two JSON values differ, by dotted path."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted({*left, *right})
        return [
            difference
            for key in keys
            for difference in list_differences(left.get(key), right.get(key), f"{where}.{key}" if where else str(key))
        ]
    return [] if left == right else [RecipeProblem(where, f"{left!r} there, {right!r} here")]
