"""What a worker of a cluster receives, and what it does until the run ends. Knows no cluster engine."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from core.config.recipe import parse_recipe
from core.errors import StillhouseError, UsageError
from core.installation import format_install_command
from plugins.scale.config import ScaleConfig
from plugins.scale.sample_worker import work_for_run
from plugins.scale.worker_protocol import WorkerAddress, WorkerJoined

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan

LOOPBACK = "127.0.0.1"
REDIAL_SECONDS, REDIAL_LIMIT_SECONDS = 1.0, 60.0


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker receives. A worker builds its plan from files that are the same on every machine."""

    name: str
    """The name of the run."""
    address: WorkerAddress
    recipe: str
    """As JSON, with every default."""
    folder: str
    first: int
    """`first_seed` of the plan."""
    release: str | None
    """The folder of the release that has the weights of a promoted generator."""

    @classmethod
    def from_plan(cls, name: str, address: WorkerAddress, plan: "RunPlan") -> "WorkerSpec":
        folder = plan.recipe.generator_teacher.release_folder
        release = str(folder) if folder else None
        return cls(name, address, plan.recipe.model_dump_json(), str(plan.folder.resolve()), plan.first_seed, release)

    def load_plan(self) -> "RunPlan":
        from agents.planning.plan_building import build_plan

        recipe = parse_recipe(json.loads(self.recipe))
        if self.release:
            teachers = {name: teacher.in_release(Path(self.release)) for name, teacher in recipe.teachers.items()}
            recipe = recipe.model_copy(update={"teachers": teachers})
        plan = build_plan(recipe, Path(self.folder))
        return replace(plan, first_seed=self.first)


class ClusterEngine(Protocol):
    """Runs a sample worker on each worker of a cluster."""

    def find_local_host(self, address: str) -> str:
        """The address of this machine by which the workers of the cluster at `address` reach it.

        Raises:
            UsageError: if the cluster cannot be reached.
        """
        ...

    def place_workers(self, scale: ScaleConfig, spec: WorkerSpec) -> AbstractAsyncContextManager[str]:
        """Run a sample worker on each worker until the block ends; yields a description of them.

        Raises:
            UsageError: if the cluster cannot be reached, or its workers cannot run this checkout.
        """
        ...


async def run_sample_worker(spec: WorkerSpec, worker: str) -> None:
    """Connect to the run, make samples until the run ends, and connect again after a broken connection."""
    import aiohttp

    try:
        plan = spec.load_plan()
        joined = WorkerJoined(worker=worker, sources=plan.own_sources)
    except (StillhouseError, ValueError) as error:
        plan, joined = None, WorkerJoined(worker=worker, sources={}, problem=str(error))
    connected = monotonic()
    while monotonic() - connected < REDIAL_LIMIT_SECONDS:
        try:
            if await work_for_run(spec.address, plan, joined):
                return
            connected = monotonic()
        except (aiohttp.ClientConnectionError, OSError):
            pass
        await asyncio.sleep(REDIAL_SECONDS)


def build_missing_engine_error(engine: str, extra: str) -> UsageError:
    return UsageError(
        f"scale.runner: needs the extra `{extra}` ({engine} is missing): run {format_install_command(extra)}"
    )
