"""What `[scale]` does in a run: its samples are made by sample workers that Dask or Ray runs on a cluster.

Why not a Prefect task per shard: the budget, the rate limiter of each teacher, the call that two samples share and the journal
of answers must be single for the whole run. With tasks each worker would have its own, or they would become a service. Why not an
actor of Dask that owns them: README.md has the numbers.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from agents.planning.run_plan import RunPlan
from agents.topologies.sample_production import MakeSample
from core.errors import RecipeProblem
from core.hooks import RunHooks
from flows.terminal.console import SESSION
from plugins.scale.config import ScaleConfig
from plugins.scale.sample_worker import LOOPBACK, ClusterEngine, WorkerSpec

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


class ScaleHooks(RunHooks):
    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        scale = plan.recipe.section(ScaleConfig)
        if scale is None or scale.runner == "local" or plan.own_process_reason is None:
            return []
        return [RecipeProblem("scale.runner", plan.own_process_reason)]

    def open_sample_workers(self, plan: RunPlan, run: str) -> AbstractAsyncContextManager[Any]:
        from plugins.scale.hooks import open_cluster_workers

        return open_cluster_workers(plan, run)


HOOKS = ScaleHooks()


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
