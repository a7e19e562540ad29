"""The toolbox of a run: the tools of all sources of a recipe, listed once, and their calls. Knows no teacher and no conversation.

Calls of modules happen in the sandbox and change nothing outside, so they may be repeated. Calls of servers are sent at most
once, unless the server says that a tool has no effect: a journal records each before it is sent.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agents.sandbox.python_sandbox import SandboxError
from core.config.recipe import Recipe
from core.errors import RecipeProblem, RunFailed
from core.hooks import RunHooks
from core.sample import ToolCall, json_digest
from plugins.tools.config import ToolSourceConfig
from plugins.tools.toolbox.mcp_server import McpServer, find_server_problem
from plugins.tools.toolbox.tool_module import MadeCall, ToolModule
from plugins.tools.toolbox.tool_spec import ToolResult, ToolSpec, UnusableTools

FAMILY = "tool_calls"


class CallJournal(Protocol):
    """What is stored before it is used, by key. A note is never replaced."""

    def get_note(self, key: str) -> str | None: ...
    def add_note(self, key: str, text: str) -> None: ...
    async def sync(self) -> None:
        """Return when all notes survive a power cut."""


class ToolStep(NamedTuple):
    """The calls that an assistant makes at once."""

    key: str
    """Identifies the step in a run."""
    world: int
    """The seed of the conversation's world."""
    made: Sequence[MadeCall]
    """The calls of the conversation's earlier steps."""
    calls: Sequence[ToolCall]


class Toolbox:
    """The tools of a run's sources, in the recipe's order."""

    def __init__(self, sources: Sequence[tuple[ToolModule | McpServer, Sequence[ToolSpec]]] = ()) -> None:
        self._sources: Mapping[str, ToolModule | McpServer] = {
            tool.name: source for source, tools in sources for tool in tools
        }
        self.tools: tuple[ToolSpec, ...] = tuple(tool for _, tools in sources for tool in tools)
        self._repeatable = {tool.name for tool in self.tools if tool.repeatable}

    @property
    def names_by_source(self) -> dict[str, list[str]]:
        """The names of the tools, by the title of their source."""
        names: dict[str, list[str]] = {}
        for name, source in self._sources.items():
            names.setdefault(source.title, []).append(name)
        return names

    async def describe_world(self, seed: int) -> str:
        """What the modules say about a new world, a paragraph each. Raises RunFailed."""
        modules = dict.fromkeys(source for source in self._sources.values() if isinstance(source, ToolModule))
        with _as_run_failure():
            return "\n\n".join(filter(None, [await module.describe_world(seed) for module in modules]))

    async def call_tools(self, step: ToolStep, journal: CallJournal) -> list[ToolResult]:
        """The results of a step's calls, from the journal where they are in it.

        Raises:
            RunFailed: if a source is no longer available.
            StoreError: if the journal cannot be written.
        """
        keys = [f"{step.key}/tool/{n}/{json_digest(call.model_dump())}" for n, call in enumerate(step.calls)]
        notes = [journal.get_note(key) for key in keys]
        results = [None if note is None else ToolResult.model_validate_json(note) for note in notes]
        for call, result in zip(step.calls, results, strict=True):
            if result is None and call.name not in self._sources:
                what = f"the server no longer has {call.name}, which this sample began with"
                return [ToolResult(text="", broken=what)] * len(step.calls)
        called = [self._sources.get(call.name) for call in step.calls]
        for source in dict.fromkeys(called):
            mine = [n for n, its in enumerate(called) if its is source]
            todo = [n for n in mine if results[n] is None]
            if isinstance(source, ToolModule) and todo:
                before = [made for made in step.made if self._sources.get(made.call.name) is source]
                before += [MadeCall(step.calls[n], r) for n in mine if (r := results[n]) is not None]
                with _as_run_failure():
                    new = await source.call_tools(step.world, before, [step.calls[n] for n in todo])
                for n, result in zip(todo, new, strict=True):
                    results[n] = result
                    journal.add_note(keys[n], result.model_dump_json())
            elif isinstance(source, McpServer):
                asked = [self._call_server(source, step.calls[n], keys[n], journal) for n in todo]
                for n, result in zip(todo, await asyncio.gather(*asked), strict=True):
                    results[n] = result
        return [result for result in results if result is not None]

    async def _call_server(self, server: McpServer, call: ToolCall, key: str, journal: CallJournal) -> ToolResult:
        """A call of a server, unless an earlier session sent it, did not see its end, and it may not be repeated."""
        sent = f"{key}/sent"

        async def record_sending() -> None:
            journal.add_note(sent, "")
            await journal.sync()

        if journal.get_note(sent) is not None and call.name not in self._repeatable:
            what = (
                f"{call.name} was called when the run was killed, and a call that may have an effect is not sent twice"
            )
            result = ToolResult(text="", broken=what)
        else:
            result = await server.call_tool(call, record_sending)
        journal.add_note(key, result.model_dump_json())
        return result


@asynccontextmanager
async def open_toolbox(sources: Sequence[ToolSourceConfig], folder: Path) -> AsyncIterator[Toolbox]:
    """List the tools of `sources`, whose paths start from `folder`; servers run until the block ends.

    Raises:
        RunFailed: naming the source that cannot be used.
    """
    opened: list[ToolModule | McpServer] = []
    try:
        with _as_run_failure():
            listed = []
            for config in sources:
                opened.append(ToolModule(config, folder) if config.module is not None else McpServer(config, folder))
                listed.append((opened[-1], await opened[-1].list_tools()))
            if twice := _find_same_name(tools for _, tools in listed):
                raise UnusableTools(twice)
        yield Toolbox(listed)
    finally:
        for source in opened:
            if isinstance(source, McpServer):
                await source.close()


async def _list_source_tools(sources: Sequence[ToolSourceConfig], folder: Path, *, live: bool) -> dict[str, list[str]]:
    """The names of each source's tools, by its title; of a server only if `live`, since it is started for that.

    Raises:
        RunFailed: naming the source that cannot be used.
    """
    asked = [config for config in sources if live or config.module is not None]
    async with open_toolbox(asked, folder) as toolbox:
        return toolbox.names_by_source


def list_tool_problems(sources: Sequence[ToolSourceConfig], folder: Path) -> list[RecipeProblem]:
    """What is wrong with the sources, found without starting a server; modules run in the sandbox."""
    problems: list[RecipeProblem] = []
    listed = []
    for i, config in enumerate(sources):
        problem = None
        if config.module is None:
            problem = find_server_problem(config, folder)
        else:
            try:
                listed.append(_list_module_tools(config, folder))
            except (UnusableTools, SandboxError) as error:
                problem = str(error)
        problems += [RecipeProblem(f"tools.{i}", problem)] if problem else []
    twice = _find_same_name(listed)
    return [*problems, RecipeProblem("tools", twice)] if twice else problems


def _list_module_tools(config: ToolSourceConfig, folder: Path) -> Sequence[ToolSpec]:
    """The tools of a module. Raises as `ToolModule.list_tools`."""
    return _list_cached(ToolModule(config, folder))


@lru_cache(maxsize=16)
def _list_cached(module: ToolModule) -> Sequence[ToolSpec]:
    # In a thread of its own, since the caller may be inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(module.list_tools())).result()


def _find_same_name(listed: Iterable[Sequence[ToolSpec]]) -> str | None:
    names = [tool.name for tools in listed for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    return f"two sources have a tool {twice[0]!r}; leave one out with `only`" if twice else None


class ToolHooks(RunHooks):
    """What tools do in a run beyond its samples: `validate` lists them, and only their own family takes them."""

    def list_plan_problems(self, plan: Any) -> Sequence[RecipeProblem]:
        recipe = plan.recipe
        if recipe.family == FAMILY or not recipe.section_list(ToolSourceConfig):
            return ()
        return [RecipeProblem("tools", f"only the family {FAMILY} takes tools, and this is {recipe.family}")]

    def list_recipe_lines(self, recipe: Recipe) -> Sequence[tuple[str, str]]:
        sources = recipe.section_list(ToolSourceConfig)
        return [("tools", ", ".join(source.title for source in sources))] if sources else ()

    async def find_recipe_facts(self, plan: Any, *, live: bool) -> Mapping[str, Sequence[str]]:
        sources = plan.recipe.section_list(ToolSourceConfig)
        return await _list_source_tools(sources, plan.folder, live=live) if sources else {}


HOOKS = ToolHooks()


@contextmanager
def _as_run_failure() -> Iterator[None]:
    """Turns UnusableTools into RunFailed."""
    try:
        yield
    except UnusableTools as error:
        raise RunFailed(f"tools: {error}") from None
