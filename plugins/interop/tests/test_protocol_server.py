"""The MCP server as a real process, used by the SDK's own client: from a wish in a sentence to a release, and at its death."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from core.project_files import PROJECT
from core.runs.run_dir import RunDir
from flows.data.curated_run import read_finished_samples
from tests.support.waiting import wait_until, wait_until_so

if not find_spec("mcp"):
    pytest.skip("MCP servers need the extra `interop`", allow_module_level=True)

SECRET = "sk-test-5f0e1c2d3b4a"
WISH = "Short notes about houseplants of at most 20 words."
RECIPE = """
name = "houseplants"
extends = "smoke"
samples = 8
[seeds]
path = "seeds.jsonl"
[teachers.main]
extra = { malformed = 0.0, refusal = 0.0, repetition = 0.0 }
"""
PLANTS = ("a fern", "a cactus", "an orchid", "ivy", "a palm", "basil", "a ficus", "moss")


class McpSession:
    """A connected client, and the process id of its server."""

    def __init__(self, client: Any, pid_file: Path) -> None:
        self._client, self._pid_file = client, pid_file

    async def list_tools(self) -> dict[str, Any]:
        return {tool.name: tool for tool in (await self._client.list_tools()).tools}

    async def read(self, uri: str) -> str:
        return str((await self._client.read_resource(uri)).contents[0].text)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The structured content of a result."""
        result = await self._client.call_tool(tool, arguments)
        assert SECRET not in result.model_dump_json()
        assert not result.is_error, result.content[0].text
        return dict(result.structured_content)

    async def fail(self, tool: str, **arguments: Any) -> str:
        """The sentence of an error."""
        result = await self._client.call_tool(tool, arguments)
        assert SECRET not in result.model_dump_json()
        assert result.is_error
        return str(result.content[0].text)

    async def wait_for_run(self, name: str) -> dict[str, Any]:
        """The status of a run when it has ended."""
        while (run := dict((await self.call("status", run=name))["run"]))["state"] == "running":
            await asyncio.sleep(0.2)
        return run

    async def wait_for_requests(self, name: str, number: int) -> None:
        while (run := dict((await self.call("status", run=name))["run"]))["spent"]["requests"] < number:
            assert run["state"] == "running", run
            await asyncio.sleep(0.1)

    async def kill_server(self) -> None:
        await wait_until_so(self._pid_file.exists)
        os.kill(int(self._pid_file.read_text()), signal.SIGKILL)


@asynccontextmanager
async def connect(root: Path, home: Path, *options: str) -> AsyncIterator[McpSession]:
    pid_file = root.parent / "server.pid"
    words = ["-m", "stillhouse", "mcp", "--root", str(root), *options]
    command = f"echo $$ > {shlex.quote(str(pid_file))}; exec {shlex.join([sys.executable, *words])}"
    environment = {**os.environ, "PREFECT_HOME": str(home), "MY_API_KEY": SECRET}
    import mcp  # a second, also of each worker of pytest that runs none of these tests

    server = mcp.StdioServerParameters(command="sh", args=["-c", command], env=environment, cwd=str(PROJECT))
    async with mcp.Client(server) as client:
        yield McpSession(client, pid_file)


def write_wish(root: Path) -> None:
    """What a coding agent writes with its own tools."""
    root.mkdir(exist_ok=True)
    (root / "recipe.toml").write_text(f"# {WISH}\n{RECIPE}")
    rows = [{"topic": plant, "category": "plants", "words": ["leaf", "pot"]} for plant in PLANTS]
    (root / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.waits
@pytest.mark.slow
def test_a_client_makes_and_releases_a_dataset_from_a_wish(tmp_path: Path, prefect_home: Path) -> None:
    root = tmp_path / "root"
    write_wish(root)

    async def use() -> None:
        async with connect(root, prefect_home, "--allow-run", "--max-requests", "100") as session:
            tools = await session.list_tools()
            assert set(tools) == {
                "validate", "preview", "run", "cancel", "status", "show", "filter", "assess", "release",
            }  # fmt: skip
            assert all(tool.output_schema and tool.description for tool in tools.values())
            assert "### `contamination`" in await session.read("stillhouse://recipe-reference")
            assert "## smoke" in await session.read("stillhouse://recipes")
            assert 'model = "fake/writer"' in await session.read("stillhouse://recipes/smoke")

            wrong = await session.call("validate", recipe="recipe.toml", settings={"agents.max_revision": 1})
            assert wrong["problems"][0]["where"] == "agents.max_revision"
            right = await session.call("validate", recipe=".", settings={"seeds.draw.tone": [SECRET]})
            assert right["valid"]
            assert right["recipe"]["seeds"]["draw"]["tone"] == ["[MY_API_KEY]"]

            preview = await session.call("preview", recipe=".", number=2)
            assert len(preview["samples"]) == 2
            assert preview["estimate"]["calls"]["value"] > 0
            assert preview["samples"][0]["verdicts"]

            run = (await session.call("run", recipe="."))["run"]
            assert "is in progress; wait until it ends, or cancel it" in await session.fail("preview", recipe=".")
            report = await session.wait_for_run(run)
            assert (report["state"], report["counts"]["candidates"]) == ("done", 8)
            assert report["kept"] > 0
            assert sum(report["reasons"].values()) == 8 - report["kept"]

            spent = (await session.call("status"))["budget"]["spent"]["requests"]
            await session.call("preview", recipe=".", number=1)
            with_preview = (await session.call("status"))["budget"]["spent"]["requests"]
            assert spent < with_preview < spent + 8, "a preview after a run counts for itself, and the run once"

            samples = (await session.call("show", run=run))["samples"]
            assert len(samples) == 8
            shown = await session.call("show", run=run, sample=samples[0]["id"])
            assert shown["sample"]["messages"][0]["role"] == "user"
            assert (await session.call("filter", source=run, out="clean", filters=["exact"]))["rows"] == report["kept"]
            assert (await session.call("assess", source="clean/kept.parquet"))["verdict"]
            released = await session.call("release", run=run)
            assert released["release"] == "houseplants/0"
            assert (root / "data/releases/houseplants/0/dataset/train.parquet").is_file()

            more = await session.call("run", recipe=".", settings={"samples": 200, "budget.calls": 10_000, "seed": 8})
            assert more["max_requests"] < 100
            assert (await session.wait_for_run(more["run"]))["state"] in ("partial", "interrupted")
            spent = (await session.call("status"))["budget"]["spent"]["requests"]
            assert 90 < spent <= 100

    asyncio.run(use())


@pytest.mark.waits
@pytest.mark.slow
def test_a_run_is_stored_when_it_is_cancelled_or_the_server_is_killed(tmp_path: Path, prefect_home: Path) -> None:
    root = tmp_path / "root"
    write_wish(root)
    slow = {
        "teachers.main.extra": {"seconds": 0.5},
        "samples": 40,
        "shard_size": 40,
        "teachers.main.max_concurrent": 4,
    }
    limits = ("--allow-run", "--max-requests", "1000")

    names: list[str] = []

    async def start_and_kill() -> None:
        async with connect(root, prefect_home, *limits) as session:
            name = (await session.call("run", recipe=".", settings=slow))["run"]
            await session.wait_for_requests(name, 8)
            cancelled = (await session.call("cancel", run=name))["run"]
            assert cancelled["state"] == "interrupted"
            first = cancelled["spent"]["requests"]
            await session.call("run", recipe=".", settings=slow, resume=True)
            await session.wait_for_requests(name, first + 8)
            await session.kill_server()
            names.append(name)

    try:
        asyncio.run(start_and_kill())
    except Exception:
        if not names:  # else the client misses its server
            raise
    run = RunDir(root / "data/runs" / names[0])
    assert run.manifest_file.is_file()
    wait_until(lambda: not run.is_held())
    assert run.read_manifest().state == "interrupted"

    async def resume() -> dict[str, Any]:
        async with connect(root, prefect_home, *limits) as session:
            await session.call("run", recipe=".", settings=slow, resume=True)
            return await session.wait_for_run(run.name)

    report = asyncio.run(resume())
    assert (report["state"], report["counts"]["candidates"]) == ("done", 40)
    assert len({sample.id for sample in read_finished_samples(run)}) == 40
