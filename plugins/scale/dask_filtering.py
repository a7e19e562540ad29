"""Rows filtered and compared on the workers of a Dask cluster, and access to one: anyone who reaches a scheduler without
certificates can run code as the user of its workers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.config.filters import FilterConfig, MinHashFilter
from core.errors import UsageError
from core.installation import format_install_command
from filters.ragged_arrays import DuplicateMatches, Indices, RaggedArray, compute_offsets, expand_spans
from flows.clean.filter_engine import FilterWorkers
from flows.rows.dataset_rows import RowBatch

if TYPE_CHECKING:
    from distributed import Client, Security

CONNECT_SECONDS = "10s"
HEALTH_PAGES_ONLY = {f"distributed.{node}.http.routes": ["distributed.http.health"] for node in ("scheduler", "worker")}
"""Other pages of a scheduler and its workers show logs and stacks to anyone; a run needs none of them."""
DOCUMENTS_PER_PART = 1 << 16
"""Documents in one task of a cluster."""


@contextmanager
def connect_dask_workers(address: str) -> Iterator[FilterWorkers]:
    """The workers of the Dask scheduler at `address`. Workers must see the written files at the same paths.

    Raises:
        UsageError: if the scheduler cannot be reached, or Dask is not installed.
    """
    try:
        from distributed import Client
    except ImportError:
        command = format_install_command("scale")
        raise UsageError(f"--cluster: needs the extra `scale` (distributed is missing): run {command}") from None
    if problem := find_tls_problem(address):
        raise UsageError(f"--cluster: {address}: {problem}")
    try:
        client = Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UsageError(f"--cluster: {address}: no Dask scheduler answers there: {error}") from None
    with client:
        count = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        if not count:
            raise UsageError(f"--cluster: {address}: the scheduler has no workers; start some")
        yield FilterWorkers(_ScatteringSubmitter(client), count, {"minhash": partial(_find_near_duplicates, client)})


class _ScatteringSubmitter:
    """Sends batches directly to a worker, not with their task through the scheduler."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    def submit(self, function: Any, batch: RowBatch, /, *args: Any) -> Any:
        remote_batch = self._client.scatter(batch, hash=False)  # type: ignore[no-untyped-call]
        return self._client.submit(function, remote_batch, *args, pure=False)


def _find_near_duplicates(
    client: "Client", sketches: RaggedArray, places: Indices, config: FilterConfig, _folder: Path
) -> DuplicateMatches:
    from plugins.scale.dask_near_duplicates import find_near_duplicates_on_cluster

    assert isinstance(config, MinHashFilter)
    if not isinstance(sketches.values, np.memmap):  # nothing was written
        return DuplicateMatches.empty()
    file = Path(str(sketches.values.filename))
    parts = [
        client.submit(_read_shingle_sets, file, sketches.starts[part], sketches.sizes[part], pure=False)
        for first in range(0, places.size, DOCUMENTS_PER_PART)
        for part in [places[first : first + DOCUMENTS_PER_PART]]
    ]
    return find_near_duplicates_on_cluster(client, parts, config.threshold)


def _read_shingle_sets(file: Path, starts: Indices, sizes: Indices) -> RaggedArray:
    """Read shingle sets on the worker that holds them, and again on another if that worker is lost."""
    values = np.memmap(file, dtype=np.uint32, mode="r")
    return RaggedArray(values[expand_spans(starts, sizes)], compute_offsets(sizes))


def create_cluster_security() -> tuple["Security", dict[str, Any]]:
    """Certificates for the private cluster of this command, and the options of `LocalCluster` with them."""
    from distributed import Security

    security = Security.temporary()  # type: ignore[no-untyped-call]
    return security, {"security": security, "scheduler_kwargs": {"dashboard": False}}


def find_tls_problem(address: str) -> str | None:
    """Why no connection to the cluster at `address` is possible: missing or unreadable certificates in Dask's settings."""
    import dask
    from distributed import Security

    try:
        tls_context = Security().get_connection_args("client").get("ssl_context")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        return f"the TLS files of Dask's settings (distributed.comm.tls) cannot be read: {error}"
    if address.startswith("tls://") and tls_context is None:
        return (
            "it wants a certificate, and Dask's settings name none; set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY"
        )
    if not address.startswith("tls://") and dask.config.get("distributed.comm.require-encryption", False):
        return "Dask's settings require encryption; give its tls:// address"
    return None
