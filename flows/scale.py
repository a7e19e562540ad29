"""Where a run's samples are made: in this process, or by makers that Dask or Ray puts on the workers of a cluster. Knows no
engine; each is a module of its own that has every worker do `working`.

Why not a task of Prefect's runners for each shard: what must be one for the whole run (its budget, the gate of each teacher,
the call that two samples share, the journal of answers) would be one for each worker, or a service of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal, Protocol

from agents.line import Joined
from agents.maker import Address, make_for
from agents.produce import MakeSample
from core.errors import StillhouseError, UsageError
from core.recipe import Recipe, ScaleConfig
from flows.recipes import sources
from flows.session import SESSION

if TYPE_CHECKING:
    from agents.plan import Plan

LOOPBACK = "127.0.0.1"
REDIAL_SECONDS, REDIAL_FOR = 1.0, 60.0


@dataclass(frozen=True)
class Errand:
    """All that a worker is told. Its plan it makes itself, from files that are the same everywhere."""

    name: str
    """The run's."""
    address: Address
    recipe: str
    """As JSON, with every default."""
    folder: str
    first: int
    """Of the plan."""

    @classmethod
    def of(cls, name: str, address: Address, plan: "Plan") -> "Errand":
        return cls(name, address, plan.recipe.model_dump_json(), str(plan.folder.resolve()), plan.first)

    def plan(self) -> "Plan":
        from agents.plan import plan_of

        return replace(plan_of(Recipe.model_validate_json(self.recipe), Path(self.folder)), first=self.first)


@asynccontextmanager
async def makers_of(plan: "Plan", name: str) -> AsyncIterator[MakeSample | None]:
    """Who makes the samples of the run called `name`, as its recipe says; None for this process itself.

    Raises:
        UsageError: if the cluster cannot be reached, or its engine is not installed.
    """
    scale = plan.recipe.scale
    if scale.runner == "local":
        yield None
        return
    from agents.makers import Makers, taking_in

    engine, makers = _engine(scale.runner), Makers(sources(plan))
    host = engine.host_of(scale.address) if scale.address else LOOPBACK
    async with (
        taking_in(makers, host, scale.port) as address,
        engine.placed(scale, Errand.of(name, address, plan)) as told,
    ):
        SESSION.note(f"produce: on {told}")
        yield makers.make


class Engine(Protocol):
    """What puts makers on workers."""

    def host_of(self, address: str) -> str:
        """The address of this machine by which the workers of the cluster at `address` reach it. Raises UsageError."""
        ...

    def placed(self, scale: ScaleConfig, errand: Errand) -> AbstractAsyncContextManager[str]:
        """A maker on each worker, until the block ends; yields who they are, in words. Raises UsageError."""
        ...


def _engine(runner: Literal["dask", "ray"]) -> Engine:
    if runner == "dask":
        from flows import dask_makers

        return dask_makers
    from flows import ray_makers

    return ray_makers


async def working(errand: Errand, worker: str) -> None:
    """What a worker does until the run ends: dial in, make, and dial again where the line broke."""
    import aiohttp

    try:
        plan = errand.plan()
        joined = Joined(worker=worker, sources=sources(plan))
    except (StillhouseError, ValueError) as error:
        plan, joined = None, Joined(worker=worker, sources={}, problem=str(error))
    heard = monotonic()
    while monotonic() - heard < REDIAL_FOR:
        try:
            if await make_for(errand.address, plan, joined):
                return
            heard = monotonic()
        except (aiohttp.ClientConnectionError, OSError):
            pass
        await asyncio.sleep(REDIAL_SECONDS)


def missing(engine: str, extra: str) -> UsageError:
    return UsageError(f"scale.runner: needs the extra `{extra}` ({engine} is missing): run `pip install '.[{extra}]'`")
