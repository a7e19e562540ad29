"""Access checks of a Prefect server: whether it accepts this command, and whether it requires a secret."""

from typing import Any

from core.errors import UsageError

REFUSED_STATUSES = (401, 403)


def check_server_access(url: str) -> None:
    """Raises UsageError if the server requires a secret and this command has none or a wrong one."""
    if (status := _read_access_status()) in REFUSED_STATUSES:
        raise UsageError(
            f"{url}: this Prefect server refuses the command ({status}); export PREFECT_API_AUTH_STRING=USER:PASSWORD, "
            "with the value of the server's PREFECT_SERVER_API_AUTH_STRING"
        )


def check_server_closed(url: str) -> None:
    """Raises UsageError if the server answers without a secret: anyone who reaches it could run programs on its workers."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    status = _read_access_status({PREFECT_API_AUTH_STRING: None, PREFECT_API_KEY: None})
    if status is None:
        raise UsageError(f"{url}: no Prefect server answers at this address; start it, or correct PREFECT_API_URL")
    if status in REFUSED_STATUSES:
        return
    raise UsageError(
        f"{url}: this Prefect server requires no secret, so every user and every browser page on its machine could run programs "
        "on the workers, with their keys; start it with PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD and "
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS=http://127.0.0.1:4200 (docs/operations.md), or, if only "
        "trusted users can reach it, deploy with --allow-open-server"
    )


def _read_access_status(changed: dict[Any, Any] | None = None) -> int | None:
    """The status of a request that needs the secret; None if no server answers."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import temporary_settings

    with temporary_settings(changed or {}), get_client(sync_client=True) as client:
        try:
            return client.hello().status_code
        except PrefectHTTPStatusError as error:
            return error.response.status_code
        except httpx.TransportError:
            return None
