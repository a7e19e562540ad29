"""Sample workers on a Ray cluster: one task per worker, which Ray repeats elsewhere if its worker dies. Knows no sample."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core.errors import UsageError
from plugins.scale.config import ScaleConfig
from plugins.scale.sample_worker import WorkerSpec, build_missing_engine_error, run_sample_worker

try:
    import ray
except ImportError:
    raise build_missing_engine_error("ray", "ray") from None


class RayEngine:
    """`ClusterEngine` of Ray."""

    def find_local_host(self, address: str) -> str:
        return str(ray.util.get_node_ip_address())

    @asynccontextmanager
    async def place_workers(self, scale: ScaleConfig, spec: WorkerSpec) -> AsyncIterator[str]:
        await asyncio.to_thread(_connect_ray, scale)
        try:
            count = scale.workers or int(ray.cluster_resources().get("CPU", 1))
            start = ray.remote(num_cpus=1, max_retries=-1)(_run_ray_worker)
            workers = [start.remote(spec) for _ in range(count)]
            yield f"{count} workers of Ray"
            for worker in workers:
                ray.cancel(worker)
        finally:
            await asyncio.to_thread(ray.shutdown)


def _connect_ray(scale: ScaleConfig) -> None:
    local: dict[str, Any] = {"num_cpus": scale.workers, "include_dashboard": False}
    try:
        ray.init(
            log_to_driver=False, logging_level=logging.ERROR, **({"address": scale.address} if scale.address else local)
        )
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"scale.address: {scale.address}: no Ray cluster answers there: {error}") from None


def _run_ray_worker(spec: WorkerSpec) -> None:
    asyncio.run(run_sample_worker(spec, ray.get_runtime_context().get_worker_id()))
