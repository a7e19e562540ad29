"""The recipe: one TOML file that says everything about a run, as frozen types with every default visible.

Knows neither prompts nor teachers nor what a family's own `[task]` options mean; whoever does adds its problems
through `load_recipe(checks=…)`, so that a user sees all of them at once.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from core.errors import Problem, RecipeError
from core.sample import digest_of

PROJECT = Path(__file__).resolve().parent.parent


class Config(BaseModel):
    """A table of the recipe: frozen, unknown keys refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SeedsConfig(Config):
    path: str
    """A JSONL file with one seed's data a line; taken from the recipe's folder, the working directory or the project."""


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


class TeacherConfig(Config):
    model: str = Field(pattern=r"^[a-z]+/.+")
    """`provider/model`: `openai/NAME` with a base_url, `local/smollm2-135m`, `local/FILE.gguf`, or `fake/writer`."""
    base_url: str | None = None
    """Where the endpoint is, up to and with `/v1`; `openai/…` without one means api.openai.com."""
    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. A recipe never holds a key itself."""
    max_concurrent: int = Field(16, ge=1, le=4096)
    """Calls in flight at once. The embedded teacher also keeps this many slots, 1,024 tokens each."""
    timeout_seconds: float = Field(120.0, gt=0)
    """For one call, waiting for a free slot not counted."""
    max_retries: int = Field(4, ge=0, le=20)
    """Tries after the first, for failures that may pass: no connection, a timeout, 408, 409, 425, 429 and 5xx."""
    faults: Faults | None = None
    """For `fake/…` only."""


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


class AgentsConfig(Config):
    generator: AgentConfig = AgentConfig()
    critic: CriticConfig | None = CriticConfig()
    """`critic = false` in a recipe runs without one: the orchestrator then sends candidates straight to the verifier."""
    verifier: AgentConfig = AgentConfig()
    """Used by the checks that ask a teacher (`agreement`)."""


class TopologyConfig(Config):
    kind: Literal["centralized", "single", "independent"] = "centralized"
    """`centralized`: the orchestrator validates every hand-over and decides. `single`: the first draft is kept
    unchecked. `independent`: critic and verifier look at the first draft side by side, and with the writer's own
    voice the majority decides; nothing is repaired or revised. The last two are baselines."""
    max_revisions: int = Field(2, ge=0, le=10)


class ConstraintsVerifier(Config):
    type: Literal["constraints"]


class OnTopicVerifier(Config):
    type: Literal["on_topic"]


class SoundProseVerifier(Config):
    type: Literal["sound_prose"]


class ExpressionVerifier(Config):
    type: Literal["expression"]
    tolerance: float = Field(1e-6, ge=0)
    """Largest difference between the stated answer and the expression's value."""


class AgreementVerifier(Config):
    type: Literal["agreement"]
    solutions: int = Field(3, ge=1, le=15)
    """Independent solutions asked for, each by a teacher that sees the problem and not the answer."""
    agree: int = Field(2, ge=1, le=15)
    """How many of them must give the candidate's answer."""
    temperature: float = Field(0.7, ge=0, le=2)


VerifierConfig = Annotated[
    ConstraintsVerifier | OnTopicVerifier | SoundProseVerifier | ExpressionVerifier | AgreementVerifier,
    Field(discriminator="type"),
]


class LengthFilter(Config):
    type: Literal["length"]
    min_words: int = Field(3, ge=0)
    max_words: int = Field(2000, ge=1)


class RefusalFilter(Config):
    type: Literal["refusal"]


class RepetitionFilter(Config):
    type: Literal["repetition"]
    scale: float = Field(1.0, gt=0)
    """Multiplies every threshold of the rule set (Gopher, Rae et al. 2021, table A1); larger is more lenient."""


class ExactFilter(Config):
    type: Literal["exact"]


class MinHashFilter(Config):
    type: Literal["minhash"]
    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of shingle sets from which two samples are near-duplicates."""
    ngram: int = Field(5, ge=1, le=20)
    """Words in a shingle."""
    permutations: int = Field(128, ge=16, le=512)


FilterConfig = Annotated[
    LengthFilter | RefusalFilter | RepetitionFilter | ExactFilter | MinHashFilter, Field(discriminator="type")
]

DEFAULT_FILTERS: tuple[FilterConfig, ...] = (
    LengthFilter(type="length"),
    RefusalFilter(type="refusal"),
    RepetitionFilter(type="repetition"),
    ExactFilter(type="exact"),
    MinHashFilter(type="minhash"),
)


class CollapseConfig(Config):
    reference: str = "data/reference/english.jsonl"
    """A JSONL file of real text, one `text` a line."""


class StudentConfig(Config):
    start: str = "layers"
    """`layers`: some layers of the embedded teacher. `random`: a small new Llama with its tokenizer. Otherwise a
    folder or hub name that `transformers` loads."""
    objective: Literal["sft"] = "sft"
    layers: int = Field(16, ge=1, le=30)
    """How many layers the student has; with `start = "layers"`, those of the teacher's 30 that do best on their own."""
    hidden_size: int = Field(192, ge=16, multiple_of=16)
    """For `start = "random"`."""
    epochs: int = Field(2, ge=1)
    """A few dozen conversations are overfitted by four."""
    learning_rate: float = Field(2e-4, gt=0)
    batch_size: int = Field(8, ge=1)
    max_tokens: int = Field(256, ge=16)
    """A conversation longer than this is cut."""
    held_out: float = Field(0.1, gt=0, lt=1)
    """Share of the kept samples that the student never trains on, at least one."""
    checkpoint_steps: int = Field(50, ge=1)
    """A killed training goes on from the last checkpoint."""


class Recipe(Config):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    family: str = "constrained_instructions"
    seed: int = Field(7, ge=0, lt=2**32)
    """Of all randomness."""
    samples: int = Field(60, ge=1)
    """Candidates to make; seeds are reused, conditioned anew each time, when there are fewer."""
    shard_size: int = Field(50, ge=1)
    """Samples a shard: the unit of work and of storage."""
    max_failed: float = Field(0.2, ge=0, le=1)
    """The run fails when a larger share of samples could not be judged at all."""
    seeds: SeedsConfig
    task: dict[str, Any] = {}
    """The family's own options."""
    teachers: dict[str, TeacherConfig] = {"main": TeacherConfig(model="local/smollm2-135m")}
    topology: TopologyConfig = TopologyConfig()
    agents: AgentsConfig = AgentsConfig()
    verifiers: tuple[VerifierConfig, ...] = ()
    filters: tuple[FilterConfig, ...] = DEFAULT_FILTERS
    collapse: CollapseConfig | None = CollapseConfig()
    student: StudentConfig | None = None
    """Without this table the run ends with the dataset."""


Table = TypeVar("Table", bound=BaseModel)
Check = Callable[[Recipe], Iterable[Problem]]


class Loaded(NamedTuple):
    """A recipe, and the folder its relative paths start from."""

    recipe: Recipe
    folder: Path


def load_recipe(path: Path, overrides: Sequence[str] = (), checks: Sequence[Check] = ()) -> Loaded:
    """Read, override and validate a recipe.

    Raises:
        RecipeError: with every problem found, each with its dotted path.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [Problem("", f"is not valid TOML: {error}")]) from None
    problems = _override(data, overrides)
    agents = data.get("agents")
    if isinstance(agents, dict) and agents.get("critic") is False:
        agents["critic"] = None
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += [_problem(detail, Recipe) for detail in error.errors(include_url=False)]
        raise RecipeError(path.name, problems) from None
    problems += _cross_checks(recipe)
    for check in checks:
        problems += check(recipe)
    if problems:
        raise RecipeError(path.name, problems)
    return Loaded(recipe, path.resolve().parent)


def parse_settings(model: type[Table], settings: Sequence[str]) -> Table:
    """A table of its own from `key=value` settings, as `--set` takes them.

    Raises:
        RecipeError: with every problem found.
    """
    data: dict[str, Any] = {}
    problems = _override(data, settings)
    try:
        table = model.model_validate(data)
    except ValidationError as error:
        problems += [_problem(detail, model) for detail in error.errors(include_url=False)]
        raise RecipeError("--set", problems) from None
    if problems:
        raise RecipeError("--set", problems)
    return table


def find_file(name: str, folder: Path) -> Path:
    """The file `name` of a recipe in `folder`: absolute, beside the recipe, in the working directory or the project."""
    places = [folder / name, Path.cwd() / name, PROJECT / name]
    return next((place for place in places if place.exists()), places[0])


CONNECTION_KEYS = {"base_url", "api_key_env", "max_concurrent", "timeout_seconds", "max_retries"}


def recipe_digest(recipe: Recipe, sources: Mapping[str, str]) -> str:
    """The run's identity: everything that can change its samples or student. `sources` are hashes, by name, of the files
    that the recipe draws on: prompts, seeds, reference.

    How a teacher is reached (`CONNECTION_KEYS`) is left out, so that a run can be resumed over another connection.
    """
    return digest_of(identity_of(recipe, sources))


def identity_of(recipe: Recipe, sources: Mapping[str, str]) -> dict[str, Any]:
    """What `recipe_digest` hashes, as plain JSON values; two runs are compared key by key with this."""
    resolved = recipe.model_dump(mode="json")
    for teacher in resolved["teachers"].values():
        for key in CONNECTION_KEYS:
            teacher.pop(key)
    return {"recipe": resolved, "sources": dict(sources)}


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


def _override(data: dict[str, Any], overrides: Sequence[str]) -> list[Problem]:
    """Apply `key=value` settings in place; returns those that cannot be applied."""
    problems = []
    for setting in overrides:
        key, equals, text = setting.partition("=")
        *parents, last = key.strip().split(".")
        if not equals or not last or not all(parents):
            problems.append(Problem(f"--set {setting}", "must be key=value, with dots in the key for tables"))
            continue
        table: Any = data
        for i, parent in enumerate(parents):
            table = _step(table, parent)
            if not isinstance(table, dict | list):
                problems.append(Problem(f"--set {setting}", f"`{'.'.join(parents[: i + 1])}` is not a table"))
                break
        else:
            if isinstance(table, dict):
                table[last] = _toml_value(text)
            elif last.isdigit() and int(last) < len(table):
                table[int(last)] = _toml_value(text)
            else:
                problems.append(Problem(f"--set {setting}", f"`{'.'.join(parents)}` is a list of {len(table)}"))
    return problems


def _step(table: Any, key: str) -> Any:
    if isinstance(table, dict):
        return table.setdefault(key, {})
    return table[int(key)] if key.isdigit() and int(key) < len(table) else None


def _toml_value(text: str) -> Any:
    """`text` as a TOML value; anything that is not one is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problem(detail: ErrorDetails, root: type[BaseModel]) -> Problem:
    place, model = _walk(detail["loc"], root)
    where = ".".join(place)
    if detail["type"] == "extra_forbidden":
        known = list(model.model_fields) if model else []
        near = difflib.get_close_matches(place[-1], known, n=1)
        advice = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(f'`{k}`' for k in known)}"
        return Problem(where, f"unknown key, {advice}")
    if detail["type"] == "missing":
        return Problem(where, "is missing")
    if detail["type"] == "union_tag_invalid":
        context = detail.get("ctx", {})
        return Problem(f"{where}.type", f"{context.get('tag')!r} is not one of {context.get('expected_tags')}")
    message = detail["msg"][0].lower() + detail["msg"][1:]
    value = detail["input"]
    shown = "" if isinstance(value, dict | list | tuple) else f", not {value!r}"
    return Problem(where, f"{message}{shown}")


def _walk(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The path as a user writes it (without pydantic's union tags), and the table its last key belongs to."""
    place: list[str] = []
    model: type[BaseModel] | None = root
    current: Any = root
    for i, part in enumerate(loc):
        options = _models_in(current)
        tagged = next((m for m in options if _tag_of(m) == part), None)
        if tagged is not None and i < len(loc) - 1:
            model = current = tagged
            continue
        place.append(str(part))
        if i < len(loc) - 1:
            if isinstance(part, str) and model and part in model.model_fields:
                current = model.model_fields[part].annotation
            nested = _models_in(current)
            if len(nested) == 1:
                model = nested[0]
    return place, model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _tag_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("type")
    return getattr(field.annotation, "__args__", (None,))[0] if field else None


def _cross_checks(recipe: Recipe) -> list[Problem]:
    problems = []
    names = ", ".join(f"`{name}`" for name in recipe.teachers)
    roles = {"generator": recipe.agents.generator, "critic": recipe.agents.critic, "verifier": recipe.agents.verifier}
    for role, agent in roles.items():
        if agent and agent.teacher not in recipe.teachers:
            problems.append(
                Problem(f"agents.{role}.teacher", f"{agent.teacher!r} is not in [teachers], which has {names}")
            )
    if recipe.topology.kind == "independent" and recipe.agents.critic is None:
        problems.append(
            Problem("agents.critic", "an independent topology needs one: its vote decides with the verifier's")
        )
    for name, teacher in recipe.teachers.items():
        if teacher.faults and not teacher.model.startswith("fake/"):
            problems.append(
                Problem(f"teachers.{name}.faults", f"only a fake teacher has faults, not {teacher.model!r}")
            )
        if teacher.api_key_env not in os.environ and teacher.base_url is None and teacher.model.startswith("openai/"):
            what = f"the environment variable {teacher.api_key_env} is not set; set it, or name a base_url that needs no key"
            problems.append(Problem(f"teachers.{name}", what))
    for i, verifier in enumerate(recipe.verifiers):
        if isinstance(verifier, AgreementVerifier) and verifier.agree > verifier.solutions:
            problems.append(
                Problem(f"verifiers.{i}.agree", f"{verifier.agree} of {verifier.solutions} solutions cannot agree")
            )
    return problems
