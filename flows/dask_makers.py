"""Makers on the workers of a Dask cluster: a plugin that each worker gets, now or later. Knows no sample."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from core.errors import UsageError
from core.recipe import ScaleConfig
from flows.scale import LOOPBACK, Errand, missing, working

try:
    from distributed import Client, LocalCluster, WorkerPlugin
    from distributed.comm.addressing import get_address_host_port
    from distributed.utils import get_ip
except ImportError:
    raise missing("distributed", "cluster") from None

if TYPE_CHECKING:
    from distributed import Worker

CONNECT_SECONDS = "10s"
STOP_SECONDS = 5.0


def host_of(address: str) -> str:
    """The one by which this machine reaches the scheduler."""
    try:
        return str(get_ip(*get_address_host_port(address)))  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> UsageError:
    return UsageError(f"scale.address: {address}: no Dask scheduler answers there: {error}")


@asynccontextmanager
async def placed(scale: ScaleConfig, errand: Errand) -> AsyncIterator[str]:
    logging.getLogger("distributed").setLevel(logging.ERROR)  # what matters of workers is told of makers
    async with _client(scale) as client:
        plugin = MakerPlugin(errand, ignore_interrupts=not scale.address)
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


@asynccontextmanager
async def _client(scale: ScaleConfig) -> AsyncIterator[Any]:
    if scale.address:
        try:
            client = await Client(scale.address, timeout=CONNECT_SECONDS, asynchronous=True)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise _unreachable(scale.address, error) from None
        async with client:
            yield client
        return
    async with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=scale.workers, threads_per_worker=1, dashboard_address=f"{LOOPBACK}:0", asynchronous=True
        ) as cluster,
        Client(cluster, asynchronous=True) as client,  # type: ignore[no-untyped-call]
    ):
        yield client


class MakerPlugin(WorkerPlugin):
    """A thread of the worker with a loop of its own: the worker's stays free for its scheduler."""

    def __init__(self, errand: Errand, *, ignore_interrupts: bool) -> None:
        """With `ignore_interrupts`, Ctrl-C on the terminal that it shares with the command is the command's alone."""
        self.name = f"stillhouse {errand.name}"
        self._errand = errand
        self._ignore_interrupts = ignore_interrupts

    def setup(self, worker: "Worker") -> None:
        if self._ignore_interrupts:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._loop = asyncio.new_event_loop()
        self._working = self._loop.create_task(working(self._errand, worker.address))
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._working)
        self._loop.close()

    def teardown(self, worker: "Worker") -> None:
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._working.cancel)
        self._thread.join(STOP_SECONDS)
