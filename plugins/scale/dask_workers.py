"""Sample workers on a Dask cluster: a plugin that each present and future worker gets. Knows no sample."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from plugins.scale.config import ScaleConfig
from plugins.scale.sample_worker import LOOPBACK, WorkerSpec, build_missing_engine_error, run_sample_worker

try:
    import dask
    from distributed import Client, LocalCluster, WorkerPlugin
    from distributed.comm.addressing import get_address_host_port
    from distributed.utils import get_ip

    from plugins.scale.dask_filtering import HEALTH_PAGES_ONLY, create_cluster_security, find_tls_problem
except ImportError:
    raise build_missing_engine_error("distributed", "scale") from None

if TYPE_CHECKING:
    from distributed import Worker

CONNECT_SECONDS = "10s"
STOP_SECONDS = 5.0
PATIENT_RESTARTS = {"distributed.deploy.lost-worker-timeout": "10m"}
"""A `LocalCluster` does without a dead worker that has no successor in time: 15 s by default, too few on a busy machine."""


class DaskEngine:
    """`ClusterEngine` of Dask."""

    def find_local_host(self, address: str) -> str:
        """The address by which this machine reaches the scheduler."""
        try:
            return str(get_ip(*get_address_host_port(address)))  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise _build_unreachable_error(address, error) from None

    @asynccontextmanager
    async def place_workers(self, scale: ScaleConfig, spec: WorkerSpec) -> AsyncIterator[str]:
        logging.getLogger("distributed").setLevel(logging.ERROR)  # the worker pool reports what matters about workers
        async with _connect_client(scale) as client:
            plugin = SampleWorkerPlugin(spec, ignore_interrupts=not scale.address)
            try:
                await client.register_plugin(plugin)
            except ImportError as error:
                raise UsageError(
                    f"scale.address: a worker of {scale.address} does not have this checkout: {error}"
                ) from None
            try:
                count = len(await client.nthreads())
                yield f"{count} workers of the Dask cluster {client.scheduler.address}"
            finally:
                with suppress(OSError):
                    await client.unregister_worker_plugin(plugin.name)


def _build_unreachable_error(address: str, error: Exception) -> UsageError:
    return UsageError(f"scale.address: {address}: no Dask scheduler answers there: {error}")


@asynccontextmanager
async def _connect_client(scale: ScaleConfig) -> AsyncIterator[Any]:
    if scale.address:
        if problem := find_tls_problem(scale.address):
            raise UsageError(f"scale.address: {scale.address}: {problem}")
        try:
            client = await Client(scale.address, timeout=CONNECT_SECONDS, asynchronous=True)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise _build_unreachable_error(scale.address, error) from None
        async with client:
            yield client
        return
    try:
        security, options = create_cluster_security()
    except ImportError:
        raise build_missing_engine_error("cryptography", "scale") from None
    with dask.config.set({**HEALTH_PAGES_ONLY, **PATIENT_RESTARTS}):
        cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=scale.workers,
            threads_per_worker=1,
            dashboard_address=f"{LOOPBACK}:0",
            asynchronous=True,
            **options,
        )
        async with cluster, Client(cluster, asynchronous=True, security=security) as client:  # type: ignore[no-untyped-call]
            yield client


class SampleWorkerPlugin(WorkerPlugin):
    """Runs the sample worker in a separate thread and event loop, which leaves the Dask worker's loop to its scheduler."""

    def __init__(self, spec: WorkerSpec, *, ignore_interrupts: bool) -> None:
        """With `ignore_interrupts`, Ctrl-C on the terminal shared with the command stops the command only."""
        self.name = f"stillhouse {spec.name}"
        self._spec = spec
        self._ignore_interrupts = ignore_interrupts

    def setup(self, worker: "Worker") -> None:
        if self._ignore_interrupts:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        # A heartbeat that meets the end of the cluster is no fault of the run; a lost worker is reported by the worker pool.
        logging.getLogger("distributed.worker").addFilter(lambda record: "during heartbeat" not in record.getMessage())
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(run_sample_worker(self._spec, worker.address))
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    def teardown(self, worker: "Worker") -> None:
        with suppress(RuntimeError):  # the loop has already ended
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(STOP_SECONDS)
