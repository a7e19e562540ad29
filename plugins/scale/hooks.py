"""What `[scale]` does in a run: it makes the samples on the workers of a cluster."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from agents.planning.run_plan import RunPlan
from core.errors import RecipeProblem
from core.hooks import RunHooks
from plugins.scale.config import ScaleConfig


class ScaleHooks(RunHooks):
    def list_plan_problems(self, plan: RunPlan) -> Sequence[RecipeProblem]:
        scale = plan.recipe.section(ScaleConfig)
        if scale is None or scale.runner == "local" or plan.own_process_reason is None:
            return []
        return [RecipeProblem("scale.runner", plan.own_process_reason)]

    def open_sample_workers(self, plan: RunPlan, run: str) -> AbstractAsyncContextManager[Any]:
        from plugins.scale.worker_placement import open_cluster_workers

        return open_cluster_workers(plan, run)
