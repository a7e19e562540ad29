"""Access to a Dask scheduler: anyone who reaches a scheduler without certificates can run code as the user of its workers."""

from typing import Any

import dask
from distributed import Security

HEALTH_PAGES_ONLY = {f"distributed.{node}.http.routes": ["distributed.http.health"] for node in ("scheduler", "worker")}
"""Other pages of a scheduler and its workers show logs and stacks to anyone; a run needs none of them."""


def create_cluster_security() -> tuple[Security, dict[str, Any]]:
    """Certificates for the private cluster of this command, and the options of `LocalCluster` with them."""
    security = Security.temporary()  # type: ignore[no-untyped-call]
    return security, {"security": security, "scheduler_kwargs": {"dashboard": False}}


def find_tls_problem(address: str) -> str | None:
    """Why no connection to the cluster at `address` is possible: missing or unreadable certificates in Dask's settings."""
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
