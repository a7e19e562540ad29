"""Connection failures of Anthropic's client library as failed tries. Knows no request.

Classes are compared by name, since the library brings an HTTP client of its own.
"""

from core.secrets import redact_text
from teachers.endpoint_calls import FailedTry, FailureCause

NOT_CONNECTED = {"ConnectError", "ConnectTimeout"}
DISCONNECTED = {"RemoteProtocolError"}
"""The server closed the connection before it answered."""


def explain_connection_failure(error: BaseException) -> FailedTry:
    """The failed try that an HTTP client's error means."""
    names = {base.__name__ for base in type(error).__mro__}
    text = redact_text(f"{type(error).__name__}: {error}".strip(": "))
    if names & NOT_CONNECTED:
        return FailedTry(f"cannot connect: {text}", FailureCause.network)
    return FailedTry(text, FailureCause.server if names & DISCONNECTED else FailureCause.passing)
