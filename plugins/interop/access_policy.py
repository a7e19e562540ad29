"""What a client of the MCP server may do: read and write files in one folder; runs, programs and other endpoints only if the user
allowed them. Starts nothing and knows no protocol.

A recipe is data from the client until it is checked here: its files must be in the folder, and it may name no program.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from core.config.base import find_mark, list_marked, list_tables
from core.config.inheritance import read_recipe_tables
from core.config.loading import load_recipe
from core.config.recipe import Recipe
from core.config.student_steps import EMBEDDED_STARTS
from core.config.teacher_prices import apply_prices, find_teacher_prices
from core.config.teachers import KEY_OF_PROVIDER, OWN_PROVIDERS, REPLAY_PREFIX, URL_OF_PROVIDER, TeacherConfig
from core.errors import RecipeError, RecipeProblem, UsageError
from core.prices import SHIPPED_TABLE, read_price_table
from core.project_files import NAMED_REFERENCES, PROJECT, SHIPPED, find_referenced_file
from core.runs.releases import locate_releases
from flows.data.stranger_files import starts_local_program
from flows.recipes.recipe_catalog import list_built_in_recipes, locate_recipe

SHIPPED_FOLDERS = (SHIPPED / "data", PROJECT / "prompts")
"""Seeds, references and prompts that every recipe may use."""
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
WRITTEN_FILES = ("student.distillation.cache", "student.replay.cache")
"""Keys of files that training writes. They need not exist; relative ones start from the root."""
START_TO_RUN = "`stillhouse mcp --allow-run --max-requests 500`"
"""An example of a command that starts a server which may run recipes."""


class Endpoint(NamedTuple):
    """Where a URL sends its requests."""

    scheme: str
    host: str
    port: int | None


def _parse_endpoint(url: str) -> Endpoint:
    """Raises ValueError if the port is no number."""
    parts = urlsplit(url)
    return Endpoint(parts.scheme, parts.hostname or "", parts.port)


@dataclass(frozen=True)
class AccessPolicy:
    """The limits that the user set when the server was started. No call of a client changes them."""

    root: Path
    """The folder, without symlinks, that all files of a client must be in."""
    runs: Path
    """The folder of runs. The folders of runs and of releases may also be outside the root."""
    allow_run: bool = False
    """Whether previews, runs, filters and releases are allowed."""
    allow_code: bool = False
    """Whether a recipe may name programs (own checks, own tools, an engine) and weights, which are code to what loads them."""
    allowed_urls: tuple[str, ...] = ()
    """Endpoints that a recipe may name in addition to those of this machine and to the providers' own."""
    allowed_keys: tuple[str, ...] = ()
    """Environment variables whose keys go to `allowed_urls`. A provider's own key goes to the provider's own address only."""
    limits_cost: bool = False
    limits_requests: bool = False
    """Whether the budget limits them. A limit of cost holds only if no recipe sets its own prices."""

    def require_run(self, tool: str) -> None:
        """Raises UsageError if the server is read-only."""
        if not self.allow_run:
            raise UsageError(
                f"{tool}: this server is read-only; the user can start it with --allow-run and a budget, as in {START_TO_RUN}"
            )

    def locate_file(self, name: str, key: str) -> Path:
        """The absolute path of a file or folder that a client names, which need not exist.

        Raises:
            UsageError: if it is outside the root, also by a symlink.
        """
        if "://" in name or "\0" in name:
            raise UsageError(f"{key}: {name!r} is not a path; name a file in {self.root}")
        path = (self.root / name).resolve()
        if not self._is_inside(path):
            raise UsageError(
                f"{key}: {name!r} is outside {self.root}, the folder of this server; name a file in it, or ask the user to start "
                "the server with another --root"
            )
        return path

    def locate_dataset(self, name: str, key: str) -> Path:
        """The path of a dataset: a run by its name, or a file or folder."""
        run = self.runs / name
        is_run = run.parent == self.runs and (run / "manifest.json").is_file()
        path = run if is_run else self.locate_file(name, key)
        for found in (path, *_list_symlinks(path)):
            if not self._is_inside(found.resolve()):
                raise UsageError(f"{key}: {found} is outside {self.root}, the folder of this server")
        return path

    def locate_reference(self, name: str | None) -> str | None:
        """The value of `reference`: a name, or the path of a file in the root or among the shipped files."""
        if name is None or name in NAMED_REFERENCES:
            return name
        shipped = (SHIPPED / name).resolve()
        return str(shipped if shipped.is_relative_to(SHIPPED / "data") else self.locate_dataset(name, "reference"))

    def check_recipe(self, name: str, overrides: Sequence[str]) -> Recipe:
        """The recipe with its overrides, read without running any of its programs.

        Raises:
            UsageError: if the recipe, or one that it extends, is outside the root.
            RecipeError: with all keys that are wrong; or with all keys that are not allowed.
        """
        from agents.families import family_defaults

        built_in = list_built_in_recipes()
        if name not in built_in:
            self.locate_file(name, "recipe")
        file = locate_recipe(name)
        for base in read_recipe_tables(file, built_in).bases:
            if base not in built_in.values():
                self.locate_file(str(base), "extends")
        loaded = load_recipe(file, overrides, (), family_defaults, built_in)
        if problems := self.find_recipe_problems(loaded.recipe, loaded.folder):
            raise RecipeError(name, problems)
        return loaded.recipe

    def find_recipe_problems(self, recipe: Recipe, folder: Path) -> list[RecipeProblem]:
        """All keys that name a file outside the root, a program or an endpoint that is not allowed."""
        return [
            *self._find_outside_files(recipe, folder),
            *(() if self.allow_code else (*_find_programs(recipe), *_find_weights(recipe))),
            *self._find_outside_endpoints(recipe),
            *self._find_misdirected_keys(recipe),
            *(self._find_low_prices(recipe, folder) if self.limits_cost else ()),
        ]

    def to_json(self) -> str:
        """For a child process, which keeps to the same limits."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        places = {name: Path(values[name]) for name in ("root", "runs")}
        lists = {name: tuple(values[name]) for name in ("allowed_urls", "allowed_keys")}
        return cls(**{**values, **places, **lists})

    def _is_inside(self, path: Path) -> bool:
        places = (self.root, self.runs.resolve(), locate_releases(self.runs).resolve())
        return any(path.is_relative_to(place) for place in places)

    def _find_outside_files(self, recipe: Recipe, folder: Path) -> Iterator[RecipeProblem]:
        """Any text of a recipe that is the path of an existing file, since only a check or filter knows which of its keys are
        paths.
        """
        for where, text in _list_texts(recipe.model_dump(mode="json"), ""):
            name = text.removeprefix(REPLAY_PREFIX).removeprefix("local/")
            path = self.root / text if where in WRITTEN_FILES else _find_existing_file(name, folder)
            if path is None:
                continue
            for found in (path, *_list_symlinks(path)):
                target = found.resolve()
                shipped = any(target.is_relative_to(folder.resolve()) for folder in SHIPPED_FOLDERS)
                if not self._is_inside(target) and not shipped:
                    yield RecipeProblem(where, f"{found} is outside {self.root}, the folder of this server")

    def _find_outside_endpoints(self, recipe: Recipe) -> Iterator[RecipeProblem]:
        urls = {f"teachers.{name}.base_url": teacher.base_url for name, teacher in recipe.teachers.items()}
        urls |= dict(list_marked(recipe, "endpoint"))
        if recipe.student and recipe.student.distillation.uses_endpoint:
            urls["student.distillation.teacher"] = recipe.student.distillation.teacher
        allowed = {_parse_endpoint(url) for url in self.allowed_urls}
        for where, url in urls.items():
            if url is None:
                continue
            address = url if "://" in url else f"ray://{url}"
            endpoint = _parse_endpoint(address)
            if endpoint.host not in LOOPBACK_HOSTS and endpoint not in allowed:
                yield RecipeProblem(
                    where,
                    f"{url} is neither on this machine nor allowed, since it would get the prompts and the teacher's key; the "
                    f"user can start the server with --allow-url {endpoint.scheme}://{urlsplit(address).netloc}",
                )

    def _find_misdirected_keys(self, recipe: Recipe) -> Iterator[RecipeProblem]:
        """Keys that are set and would go to another address than their own: any process of this machine can listen on a port."""
        sent = {
            f"teachers.{name}": (teacher.api_key_env, teacher.base_url, teacher.model.partition("/")[0])
            for name, teacher in recipe.teachers.items()
        }
        for where, table in list_tables(recipe):
            marked = {find_mark(field): getattr(table, name) for name, field in type(table).model_fields.items()}
            if marked.get("variable") and marked.get("endpoint"):
                sent[where] = (marked["variable"], marked["endpoint"], "")
        if recipe.student and recipe.student.distillation.uses_endpoint:
            distillation = recipe.student.distillation
            sent["student.distillation"] = (distillation.api_key_env, distillation.teacher, "")
        allowed = {_parse_endpoint(url) for url in self.allowed_urls}
        default_key = TeacherConfig.model_fields["api_key_env"].default
        for where, (variable, url, provider) in sent.items():
            if provider in OWN_PROVIDERS or not os.environ.get(variable, "").strip():
                continue
            own = URL_OF_PROVIDER.get(provider)
            endpoint = _parse_endpoint(url or own or "")
            if own and endpoint == _parse_endpoint(own) and variable == KEY_OF_PROVIDER.get(provider, default_key):
                continue
            if variable not in self.allowed_keys or (endpoint.host and endpoint not in allowed):
                address = (
                    f"{endpoint.scheme}://{urlsplit(url or own or '').netloc}" if endpoint.host else "its endpoint"
                )
                add_url = f" --allow-url {address}" if endpoint.host else ""
                yield RecipeProblem(
                    f"{where}.api_key_env",
                    f"the key in {variable} would go to {address}; name a variable that is not set, or none "
                    f'(api_key_env = ""), if it needs no key; the user can start the server with --allow-key {variable}{add_url}',
                )

    def _find_low_prices(self, recipe: Recipe, folder: Path) -> Iterator[RecipeProblem]:
        """Prices, of the recipe or of a table that a client may have written, with which `--max-usd` would allow more."""
        priced = apply_prices(recipe.teachers, find_teacher_prices(recipe.teachers, folder))
        shipped = read_price_table(SHIPPED / SHIPPED_TABLE)
        for name, teacher in recipe.teachers.items():
            listed = shipped.find(teacher.model, teacher.endpoint)
            if teacher.model.partition("/")[0] in OWN_PROVIDERS or (listed is None and self.limits_requests):
                continue
            if listed is None:
                yield RecipeProblem(
                    f"teachers.{name}.model",
                    f"the price of {teacher.model} is not in {SHIPPED_TABLE}, so --max-usd does not limit its cost; the user can "
                    "start the server with --max-requests",
                )
                continue
            least = teacher.model_copy(update=listed.model_dump()).prices()
            prices = priced[name].prices()
            if prices is None or least is None or any(one < other for one, other in zip(prices, least, strict=True)):
                yield RecipeProblem(
                    f"teachers.{name}",
                    f"its prices are lower than those of {SHIPPED_TABLE}, and --max-usd counts on them; leave them out, also of "
                    "prices.toml",
                )


def _find_programs(recipe: Recipe) -> Iterator[RecipeProblem]:
    allow = "which this server does not run; the user can read it and start the server with --allow-code"
    program = f"names a program, {allow}"
    for where, _ in list_marked(recipe, "program", "command"):
        yield RecipeProblem(where, program)
    for name, teacher in recipe.teachers.items():
        if teacher.engine:
            yield RecipeProblem(f"teachers.{name}.engine", f"names options of a program, {allow}")


def _find_weights(recipe: Recipe) -> Iterator[RecipeProblem]:
    """Weights other than those that come with Stillhouse."""
    weights = "loads weights, which are code to what loads them; the user can check them and start the server with --allow-code"
    for name, teacher in recipe.teachers.items():
        if starts_local_program(teacher.model):
            yield RecipeProblem(f"teachers.{name}.model", weights)
        if teacher.has_draft_model:
            yield RecipeProblem(f"teachers.{name}.draft", weights)
    if recipe.lineage.promote:
        yield RecipeProblem("lineage.promote", weights)
    if student := recipe.student:
        if student.start not in EMBEDDED_STARTS:
            yield RecipeProblem("student.start", weights)
        if student.distillation.teacher != "embedded" and not student.distillation.uses_endpoint:
            yield RecipeProblem("student.distillation.teacher", weights)


def _list_texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, with its dotted path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _list_texts(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _list_texts(inner, f"{where}.{number}")
    elif isinstance(value, str):
        yield where, value


def _find_existing_file(text: str, folder: Path) -> Path | None:
    try:
        path = find_referenced_file(text, folder) if text else None
        return path if path and path.exists() else None
    except (OSError, ValueError):  # a long text is no file name
        return None


def _list_symlinks(folder: Path) -> list[Path]:
    """The symlinks below a folder; those that it leads to are not followed."""
    found = []
    for place, folders, files in os.walk(folder):
        found += [path for name in (*folders, *files) if (path := Path(place) / name).is_symlink()]
    return found
