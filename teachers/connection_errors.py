"""Connection failures in words for the user. Knows no request."""

import os

import aiohttp


def describe_connection_error(error: aiohttp.ClientConnectorError) -> str:
    """Why an endpoint could not be reached. The client's own text names TLS ("ssl:default") also for plain HTTP."""
    cause = error.os_error
    why = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or str(cause)
    return f"cannot connect to {error.host}:{error.port}: {why or type(cause).__name__}"
