"""The names that a server accepts in the header Host: a page that reaches it by DNS rebinding sends another name.

Knows neither keys nor paths.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from core.errors import UsageError

HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:@/\[\]]+))(?::\d+)?", re.IGNORECASE | re.ASCII)
"""A name or an address, IPv6 in brackets, and an optional port."""
NAME = re.compile(r"[^\s:@/\[\]]+|[0-9a-f:.]+|\[[0-9a-f:.]+\]", re.IGNORECASE | re.ASCII)


def normalize_host_name(name: str) -> str:
    name = name.strip("[]").lower().removesuffix(".").partition("%")[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def parse_host_header(host: str) -> str | None:
    """The name or address in a Host header; None where it has none."""
    match = HOST.fullmatch(host.strip())
    return normalize_host_name(match[1] or match[2]) if match else None


def parse_host_names(given: Iterable[str]) -> list[str]:
    """The values of `--host-name`. Raises UsageError for a name that no Host header can contain."""
    names = list(given)
    if invalid := [name for name in names if not NAME.fullmatch(name)]:
        raise UsageError(
            f"--host-name {invalid[0]}: must be a name or an IP address without scheme, port or path, as in chat.example.org"
        )
    return [normalize_host_name(name) for name in names]


class HostNames(NamedTuple):
    """The names of one server."""

    listening: str
    """The address that it was started with."""
    more: Sequence[str] = ()

    def list_accepted(self, address: str) -> list[str]:
        """The names that a client may use that reached the server at `address`."""
        reached = normalize_host_name(address)
        loopback = ["localhost"] if ipaddress.ip_address(reached).is_loopback else []
        return list(dict.fromkeys(filter(None, [reached, normalize_host_name(self.listening), *loopback, *self.more])))
