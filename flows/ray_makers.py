"""Makers on the workers of a Ray cluster: a task for each, which Ray does again elsewhere where its worker dies. Knows no
sample.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core.errors import UsageError
from core.recipe import ScaleConfig
from flows.scale import Errand, missing, working

try:
    import ray
except ImportError:
    raise missing("ray", "ray") from None


def host_of(address: str) -> str:
    return str(ray.util.get_node_ip_address())


@asynccontextmanager
async def placed(scale: ScaleConfig, errand: Errand) -> AsyncIterator[str]:
    await asyncio.to_thread(_connect, scale)
    try:
        count = scale.workers or int(ray.cluster_resources().get("CPU", 1))
        make = ray.remote(num_cpus=1, max_retries=-1)(_make)
        making = [make.remote(errand) for _ in range(count)]
        yield f"{count} workers of Ray"
        for one in making:
            ray.cancel(one)
    finally:
        await asyncio.to_thread(ray.shutdown)


def _connect(scale: ScaleConfig) -> None:
    here: dict[str, Any] = {"num_cpus": scale.workers, "include_dashboard": False}
    try:
        ray.init(
            log_to_driver=False, logging_level=logging.ERROR, **({"address": scale.address} if scale.address else here)
        )
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"scale.address: {scale.address}: no Ray cluster answers there: {error}") from None


def _make(errand: Errand) -> None:
    asyncio.run(working(errand, ray.get_runtime_context().get_worker_id()))
