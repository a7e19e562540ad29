"""The recipe: one TOML file that says everything about a run, as frozen types with every default visible.

Knows neither prompts nor teachers, nor what a family's own `[task]` options mean; how it is read stands in `loading`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from core.config import Config
from core.errors import Problem
from core.filter_config import DEFAULT_FILTERS, FilterConfig
from core.sample import DRAWN, digest_of
from core.student_config import StudentConfig

PROJECT = Path(__file__).resolve().parent.parent

OWN_PROVIDERS = {"local", "vllm", "fake"}
"""Teachers that run on the user's own machine: no one sends a bill for a call."""


Draw = str | tuple[str, ...] | dict[str, Any]
"""A text file with one value a line, a list of values, or a table of weights, whose tables in it make a taxonomy."""


class SeedsConfig(Config):
    """Where seeds come from: a file, the user's documents, or neither, where the family makes its own."""

    path: str | None = None
    """A JSONL file with one seed's data a line, or the Parquet file of a dataset; taken from the recipe's folder, the working
    directory or the project."""
    documents: str | None = None
    """A folder of txt, md, html and pdf files, for families that work from text; cut into chunks, one seed each."""
    chunk_words: int = Field(180, ge=20, le=2000)
    """How long a chunk of a document is, about."""
    bootstrap: bool = False
    """Samples kept in earlier shards become seeds of the later ones, which are then made one after the other."""
    draw: dict[Annotated[str, Field(pattern=r"^[a-z][a-z_]*$")], Draw] = Field({})
    """What each sample is conditioned on beside its seed, by name: one value of each is drawn anew for every sample, and
    told to the generator. A prompt of your own places it as `{{name}}`."""


class Faults(Config):
    """How often a fake teacher misbehaves, as shares of its replies."""

    malformed: float = Field(0.0, ge=0, le=1)
    """Replies cut in the middle, which no contract accepts."""
    refusal: float = Field(0.0, ge=0, le=1)
    repetition: float = Field(0.0, ge=0, le=1)
    unavailable: float = Field(0.0, ge=0, le=1)
    """Calls that fail for good."""
    seconds: float = Field(0.0, ge=0)
    """How long each reply takes."""
    contradiction: float = Field(0.0, ge=0, le=1)
    """For `fake/faulty`, in every role, at most one of these four in a reply: its parts say different things."""
    drift: float = Field(0.0, ge=0, le=1)
    """A number changes on the way from what it read, or told first, to what it says."""
    omission: float = Field(0.0, ge=0, le=1)
    """A number, a step or a finding that is needed is left out."""
    miscoordination: float = Field(0.0, ge=0, le=1)
    """It answers as if to another message."""

    @model_validator(mode="after")
    def _one_at_most(self) -> Self:
        if (total := self.contradiction + self.drift + self.omission + self.miscoordination) > 1 + 1e-9:
            raise ValueError(
                f"contradiction, drift, omission and miscoordination add up to {total:g}; a reply has one of them at "
                "most, so lower them to 1 in all"
            )
        return self


class TeacherConfig(Config):
    model: str = Field(pattern=r"^[a-z]+/.+")
    """`provider/model`: `openai/NAME` with a base_url, `vllm/NAME`, `local/smollm2-135m`, `local/FILE.gguf`, `fake/writer`."""
    base_url: str | None = None
    """Where the endpoint is, up to and with `/v1`; `openai/…` without one means api.openai.com."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. A recipe never holds a key itself."""
    max_concurrent: int = Field(16, ge=1, le=4096)
    """Most calls in flight at once; fewer while the teacher rejects or breaks off calls. The embedded teacher keeps this
    many slots."""
    slot_tokens: int = Field(1536, ge=256)
    """For `local/…` only: tokens of prompt and reply that one slot holds. A longer prompt is refused."""
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    """Of prompt and reply; a reply counts as `max_tokens` before it is there."""
    input_price: float | None = Field(None, ge=0)
    """In the budget's money for a million prompt tokens. `local/…`, `vllm/…` and `fake/…` cost nothing unless told."""
    output_price: float | None = Field(None, ge=0)
    """For a million tokens of replies."""
    timeout_seconds: float = Field(120.0, gt=0)
    """For one call, waiting for a free slot not counted."""
    max_retries: int = Field(4, ge=0, le=20)
    """Tries after the first, for failures that may pass: no connection, a timeout, 408, 409, 425, 429 and 5xx. While the
    teacher answers nobody, tries are not counted: that is an outage."""
    outage_seconds: float = Field(120.0, ge=0)
    """How long a teacher may answer nobody before the run stops, to be resumed."""
    structured: Literal["json_schema", "tool", "plain"] = "json_schema"
    """How a reply is made to fit its contract: by `response_format`, by a forced tool call, or by asking for it in words
    and reading the first JSON object of the reply. `validate --live` tells what an endpoint can do."""
    sampling: dict[str, float | int | str | bool] = Field({})
    """More keys for the request, as the server takes them (`top_k`, `min_p`, `repetition_penalty`)."""
    seeded: bool = True
    """Whether calls carry a seed; some endpoints refuse it."""
    logprobs: bool = True
    """Whether token probabilities are asked for; some endpoints refuse that."""
    engine: dict[str, float | int | str | bool] = Field({})
    """For `vllm/…` only: options of `vllm serve`, with underscores (`max_model_len`, `dtype`, `tensor_parallel_size`)."""
    faults: Faults | None = None
    """For `fake/…` only."""

    def prices(self) -> tuple[float, float] | None:
        """For a million prompt tokens and a million reply tokens; None where either is unknown."""
        own = self.model.partition("/")[0] in OWN_PROVIDERS
        found = [0.0 if price is None and own else price for price in (self.input_price, self.output_price)]
        return None if found[0] is None or found[1] is None else (found[0], found[1])


class AgentConfig(Config):
    teacher: str = "main"
    """A name from `[teachers]`."""
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(160, ge=8)
    """A reply cut off here does not fulfil its contract."""
    max_repairs: int = Field(1, ge=0, le=5)
    """How often a reply that breaks its contract is asked for again."""


class CriticConfig(AgentConfig):
    type: Literal["teacher", "confidence"] = "teacher"
    """`teacher`: the teacher scores each candidate by the rubrics of the prompt and advises. `confidence`: code scores it
    by the probabilities that its writer gave it; costs no call, for teachers too weak to judge."""
    temperature: float = Field(0.0, ge=0, le=2)
    min_score: int = Field(3, ge=1, le=5)
    """A candidate with any score under this is revised, and dropped when no revision is left."""


class GeneratorConfig(AgentConfig):
    examples: int | None = Field(None, ge=0)
    """How many of the prompt's examples are shown, drawn anew for each sample; all of them, in their order, when absent.
    Fewer and changing ones make more varied samples, at the price of the server's prompt cache."""


class AgentsConfig(Config):
    generator: GeneratorConfig = GeneratorConfig()
    critic: CriticConfig | None = CriticConfig()
    """`critic = false` in a recipe runs without one: the orchestrator then sends candidates straight to the verifier."""
    verifier: AgentConfig = AgentConfig()
    """Used by the checks that ask a teacher (`agreement`, `judge`)."""


class TopologyConfig(Config):
    kind: Literal["centralized", "single", "independent", "decentralized"] = "centralized"
    """`centralized`: the orchestrator validates every hand-over and decides. `single`: the first draft is kept
    unchecked. `independent`: critic and verifier look at the first draft side by side, and with the writer's own
    voice the majority decides; nothing is repaired or revised. `decentralized`: several generators read each other's
    unchecked drafts, write again, and vote. The last three are baselines."""
    max_revisions: int = Field(2, ge=0, le=10)
    debaters: int = Field(3, ge=2, le=9)
    """For `decentralized`: how many generators write."""
    rounds: int = Field(1, ge=0, le=5)
    """For `decentralized`: how often each reads the others' drafts and writes again; with 0 they only vote."""


class VerifierConfig(Config):
    """One check of the verifier. Which keys it has besides these, the check says."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    type: str
    """The check's name: one of the family, a built-in one, one of an installed package, or one that `path` defines."""
    path: str | None = None
    """A Python file that defines the check; taken from the recipe's folder, the working directory or the project."""

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


Format = Literal["messages", "prompt_completion", "preference", "alpaca", "sharegpt"]


class DatasetConfig(Config):
    """How the dataset is written."""

    formats: tuple[Format, ...] = Field(("messages",), min_length=1)
    """Its forms, as trainers read them. The first lies at the top of `dataset/` and is what `load_dataset` gives where no
    form is named; each other has a folder of its own."""
    jsonl: bool = True
    """Whether each form is written as JSONL too."""

    @field_validator("formats")
    @classmethod
    def _once(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if twice := sorted({name for name in formats if formats.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: named more than once")
        return formats


class PreferenceConfig(Config):
    """Which answers make a pair, where `preference` is one of the dataset's formats."""

    margin: float = Field(1.0, gt=0, le=4)
    """How much lower the mean critic score of the rejected answer must be, where both passed all checks; scores are 1 to 5."""
    pairs_per_prompt: int = Field(1, ge=1)
    """The most pairs of one prompt; those with the clearest difference are taken."""


class CollapseConfig(Config):
    reference: str = "data/reference/english.jsonl"
    """A JSONL file of real text, one `text` a line."""
    gate: bool = True
    """Whether `release` refuses a run that shows collapse, or that is too small or not assessed to tell. It changes no
    sample: a finished run takes another value with --resume."""


class LineageConfig(Config):
    """What the dataset holds beside the run's own samples, once the recipe has a release."""

    policy: Literal["accumulate", "replace", "budget"] = "accumulate"
    """`accumulate`: all samples of the releases before it stay in, which keeps the error from growing with the generations
    (Gerstgrasser et al. 2024, arXiv 2404.01413). `replace`: its own alone, which is how models collapse. `budget`: all of
    them, drawn down to `budget` rows (accumulate-subsample, Kazdan et al. 2024, arXiv 2410.16713)."""
    budget: int | None = Field(None, ge=1)
    """Rows of the dataset with `policy = "budget"`, real ones among them."""
    real: str | None = None
    """A JSONL or Parquet file of real conversations (`messages`, or `prompt` and `completion`) or real text (`text`), which
    is in the part to train on of every generation."""
    min_real_share: float = Field(0.0, ge=0, lt=1)
    """Share of real rows under which nothing is released; with `policy = "budget"` other rows make room for them."""

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.policy == "budget") != (self.budget is not None):
            raise ValueError('`budget` (rows) and `policy = "budget"` go together; set both or neither')
        if self.min_real_share and self.real is None:
            raise ValueError("min_real_share needs real rows; name a file of them in `real`")
        return self


class BudgetConfig(Config):
    """The most that producing may spend, all teachers and all resumptions taken together. What is absent has no limit.

    No call is sent that could go over: its tokens and cost are set aside first, a reply counted as `max_tokens`. A run
    that reaches a limit ends with what it has, and goes on with --resume under a larger one.
    """

    calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    """Of prompts and replies."""
    cost: float | None = Field(None, ge=0)
    """In the money of the teachers' prices."""
    minutes: float | None = Field(None, ge=0)
    """Of producing; no call is sent later."""


class CacheConfig(Config):
    """Answers are kept beside the runs, so that another run that asks the same gets the same answer for nothing."""

    enabled: bool = True
    max_mb: int = Field(1024, ge=1)
    """What was used longest ago goes first."""


class ScaleConfig(Config):
    """Which processes make the samples. The run itself, its teachers, its budget and its files stay with the command."""

    runner: Literal["local", "dask", "ray"] = "local"
    """`local`: the command's own process. `dask` and `ray`: any number of others, on this machine or a cluster's."""
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """How many processes to start on this machine."""
    address: str | None = None
    """In their place, a cluster that is there: `tcp://HOST:8786` for a Dask scheduler, `HOST:6379` or `auto` for Ray. Each of
    its workers makes samples, also one that comes later; all see the files that the recipe names, at the same paths."""
    port: int = Field(0, ge=0, lt=65536)
    """Where the command listens for them; 0 is any free port."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.runner == "local" and (self.workers or self.address):
            raise ValueError('`workers` and `address` need runner = "dask" or "ray"')
        if self.runner != "local" and bool(self.workers) == bool(self.address):
            raise ValueError(
                f"runner = {self.runner!r} needs either `workers`, to start here, or the `address` of a cluster"
            )
        return self


class QuotasConfig(Config):
    """How many samples to keep of each category, in the place of `keep`; what belongs to no named category is not made."""

    by: str
    """A key of the seeds' data (`category`), or the name of a draw."""
    keep: dict[str, Annotated[int, Field(ge=1)]] = Field(min_length=1)


class Recipe(Config):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Small letters, digits and dashes; runs and their directories are named after it."""
    family: str = "constrained_instructions"
    """What kind of data it makes: what its seeds, drafts and checks are."""
    seed: int = Field(7, ge=0, lt=2**32)
    """Of all randomness."""
    samples: int = Field(60, ge=1)
    """Candidates to make; seeds are reused, conditioned anew each time, when there are fewer."""
    answers_per_seed: int = Field(1, ge=1, le=64)
    """So many samples in a row are made from one seed, conditioned alike: several answers to one prompt."""
    keep: int = Field(0, ge=0)
    """How many samples to keep: candidates are made until so many have passed everything, at most `samples`. With 0 all
    `samples` candidates are made, and what passes is kept."""
    quotas: QuotasConfig | None = None
    shard_size: int = Field(50, ge=1)
    """Samples a shard: the unit of work and of storage."""
    max_failed: float = Field(0.2, ge=0, le=1)
    """The run stops early when a larger share of samples can be judged by nobody, and says which fault dominates."""
    seeds: SeedsConfig
    prompts: str | None = None
    """A folder beside the recipe with prompts of its own; one there (`generator.md`) goes before the family's."""
    task: dict[str, Any] = Field({})
    """The family's own options."""
    teachers: dict[str, TeacherConfig] = Field({"main": TeacherConfig(model="local/smollm2-135m")})
    topology: TopologyConfig = TopologyConfig()
    agents: AgentsConfig = AgentsConfig()
    verifiers: tuple[VerifierConfig, ...] = ()
    filters: tuple[FilterConfig, ...] = DEFAULT_FILTERS
    budget: BudgetConfig = BudgetConfig()
    cache: CacheConfig = CacheConfig()
    scale: ScaleConfig = ScaleConfig()
    collapse: CollapseConfig | None = CollapseConfig()
    lineage: LineageConfig = LineageConfig()
    dataset: DatasetConfig = DatasetConfig()
    preference: PreferenceConfig = PreferenceConfig()
    student: StudentConfig | None = None
    """Without this table the run ends with the dataset."""

    @field_validator("agents")
    @classmethod
    def _answers_differ(cls, agents: AgentsConfig, info: ValidationInfo) -> AgentsConfig:
        answers = info.data.get("answers_per_seed", 1)
        if answers > 1 and not agents.generator.temperature:
            raise ValueError(
                f"generator.temperature = 0 gives the same answer answers_per_seed = {answers} times; raise it"
            )
        return agents

    @field_validator("dataset")
    @classmethod
    def _pairs_can_be(cls, dataset: DatasetConfig, info: ValidationInfo) -> DatasetConfig:
        topology = info.data.get("topology")
        if "preference" not in dataset.formats or topology is None:
            return dataset
        if topology.kind in ("single", "decentralized"):
            raise ValueError(f"preference pairs need judged answers, and topology.kind = {topology.kind!r} judges none")
        revised = topology.kind == "centralized" and topology.max_revisions
        if info.data.get("answers_per_seed", 1) == 1 and not revised:
            raise ValueError("preference pairs need several answers to a prompt: set answers_per_seed to 2 or more")
        return dataset

    @property
    def writer(self) -> TeacherConfig:
        """The generator's teacher."""
        return self.teachers[self.agents.generator.teacher]

    @property
    def goals(self) -> dict[str, int]:
        """How many samples to keep by group: of each category of the quotas, of the one group "", or of none."""
        if self.quotas:
            return self.quotas.keep
        return {"": self.keep} if self.keep else {}

    def group_of(self, data: Mapping[str, Any]) -> str:
        """The group of a seed with this data."""
        if self.quotas is None:
            return ""
        return str(data.get(DRAWN, {}).get(self.quotas.by, data.get(self.quotas.by, "")))


def find_file(name: str, folder: Path) -> Path:
    """The file `name` of a recipe in `folder`: absolute, beside the recipe, in the working directory or the project."""
    places = [folder / name, Path.cwd() / name, PROJECT / name]
    return next((place for place in places if place.exists()), places[0])


CONNECTION_KEYS = {
    "base_url", "api_key_env", "max_concurrent", "requests_per_minute", "tokens_per_minute", "input_price",
    "output_price", "timeout_seconds", "max_retries", "outage_seconds",
}  # fmt: skip
"""How a teacher is reached and what it costs: nothing of what it answers."""


class Parent(Config):
    """The release that a run builds on, fixed when the run is opened and part of its identity."""

    release: str
    """`recipe/generation`."""
    digest: str
    seeds: int
    """How many seeds it and all before it have used up; the run goes on behind them."""

    @property
    def generation(self) -> int:
        return int(self.release.rpartition("/")[2])


def recipe_digest(recipe: Recipe, sources: Mapping[str, str], parent: Parent | None = None) -> str:
    """The run's identity: everything that can change its samples, dataset or student. `sources` are hashes, by name, of the
    files that the recipe draws on: prompts, seeds, reference.

    How a teacher is reached (`CONNECTION_KEYS`), the budget, the cache, the scale, `max_failed` and the gate are left out, so
    that a run can be resumed over another connection, elsewhere, with more money or more patience.
    """
    return digest_of(identity_of(recipe, sources, parent))


def identity_of(recipe: Recipe, sources: Mapping[str, str], parent: Parent | None = None) -> dict[str, Any]:
    """What `recipe_digest` hashes, as plain JSON values; two runs are compared key by key with this."""
    left_out: Any = {"budget": True, "cache": True, "scale": True, "max_failed": True, "collapse": {"gate"}}
    resolved = recipe.model_dump(mode="json", exclude=left_out)
    for teacher in resolved["teachers"].values():
        for key in CONNECTION_KEYS:
            teacher.pop(key)
    before = {"parent": parent.model_dump()} if parent else {}
    return {"recipe": resolved, "sources": dict(sources), **before}


def differences(left: Any, right: Any, where: str = "") -> list[Problem]:
    """Where two JSON values differ, by dotted path."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted({*left, *right})
        return [
            difference
            for key in keys
            for difference in differences(left.get(key), right.get(key), f"{where}.{key}" if where else str(key))
        ]
    return [] if left == right else [Problem(where, f"{left!r} there, {right!r} here")]
