"""Base URLs of endpoints in recipes: normalized, and without passwords. Knows no protocol."""

import re
from typing import NoReturn
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from core.errors import UsageError
from core.secrets import SECRET_ERROR, redact_excerpt

DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECT_STATUSES = range(300, 400)
EXAMPLE_URL = "http://localhost:8000/v1"


def normalize_base_url(text: str) -> str:
    """Normalize the base URL `text`: scheme and host in lower case, no default port, no slash at the end.

    Raises:
        PydanticCustomError: of type SECRET_ERROR, if `text` is not a base URL or has a part that may contain a password.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        _reject_url(f"is not a URL; write it as in {EXAMPLE_URL}")
    if parts.username is not None or parts.password is not None:
        _reject_url("has a user name or password before the host; remove it and name the key's variable in api_key_env")
    if parts.query or parts.fragment:
        _reject_url(f"has a query or a fragment; a base URL ends with its path, as in {EXAMPLE_URL}")
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        _reject_url(f"must be http:// or https:// with a host, as in {EXAMPLE_URL}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown_port = "" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{shown_port}{parts.path.rstrip('/')}"


def parse_base_url_option(option: str, text: str) -> str:
    """`normalize_base_url` for a command-line option. Raises UsageError."""
    try:
        return normalize_base_url(text)
    except PydanticCustomError as error:
        raise UsageError(f"{option}: {error.message()}") from None


def _reject_url(message: str) -> NoReturn:
    raise PydanticCustomError(SECRET_ERROR, message)


def describe_redirect(status: int, location: str) -> str:
    """The message about a redirect. Redirects are never followed: they could send the prompt, documents included, to any
    address, also in this network. The message names only the host, since a path or a query may contain a key.
    """
    host = re.match(r"(?:[a-z][a-z0-9+.-]*:)?//(?:[^/?#]*@)?([^/?#]+)", location, re.IGNORECASE)
    where = redact_excerpt(host[1], 100) if host else "another path of the same host"
    return f"status {status} redirects to {where}; redirects are not followed, so name the address that answers"
