"""Where a run's samples are made: in this process, or by sample workers that Dask or Ray runs on a cluster.

Why not a Prefect task per shard: the budget, the rate limiter of each teacher, the call that two samples share and the journal
of answers must be single for the whole run. With tasks each worker would have its own, or they would become a service.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agents.topologies.sample_production import MakeSample
from flows.terminal.console import SESSION
from plugins.scale.config import ScaleConfig
from plugins.scale.worker_spec import LOOPBACK, ClusterEngine, WorkerSpec

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


@asynccontextmanager
async def open_cluster_workers(plan: "RunPlan", name: str) -> AsyncIterator[MakeSample | None]:
    """The function that makes the samples of the run called `name` on the cluster of its recipe; None for this process.

    Raises:
        UsageError: if the cluster cannot be reached, or its engine is not installed.
    """
    scale = plan.recipe.section(ScaleConfig)
    if scale is None or scale.runner == "local":
        yield None
        return
    from plugins.scale.worker_pool import WorkerPool, accept_workers

    engine: ClusterEngine
    if scale.runner == "dask":
        from plugins.scale.dask_workers import DaskEngine

        engine = DaskEngine()
    else:
        from plugins.scale.ray_workers import RayEngine

        engine = RayEngine()
    pool = WorkerPool(plan.own_sources)
    host = engine.find_local_host(scale.address) if scale.address else LOOPBACK
    async with (
        accept_workers(pool, host, scale.port) as address,
        engine.place_workers(scale, WorkerSpec.from_plan(name, address, plan)) as workers,
    ):
        SESSION.print_unless_stopped(f"produce: on {workers}")
        yield pool.make_sample
