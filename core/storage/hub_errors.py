"""Errors of huggingface_hub as sentences about a repository. Knows neither why it is used nor what helps: callers add it."""

import re
from typing import Literal, NamedTuple

from core.secrets import redact_text

HUB_LIBRARIES = ("httpx", "httpcore", "hf_xet", "huggingface_hub")  # version 2 has an httpx of its own, httpx2
"""Libraries whose other errors mean that a transfer failed."""
BUSY_STATUS = 429
HubFaultKind = Literal[
    "gated",
    "no_repository",
    "no_revision",
    "no_file",
    "offline",
    "no_name",
    "token",
    "changed",
    "status",
    "unreachable",
]


class HubPlace(NamedTuple):
    """What was asked for."""

    hub: str
    """The address of the Hub."""
    repo: str
    what: Literal["model", "repository"]
    revision: str | None = None
    file: str = ""


class HubFault(NamedTuple):
    kind: HubFaultKind
    sentence: str
    """Without a full stop and without advice."""
    status: int | None = None

    @property
    def is_temporary(self) -> bool:
        """Whether the Hub gave no usable answer, so that a copy on this machine may be used."""
        busy = self.status is not None and (self.status >= 500 or self.status == BUSY_STATUS)
        return busy or self.kind in ("offline", "unreachable")


def find_hub_fault(error: Exception, place: HubPlace) -> HubFault | None:
    """None for an error that is not about the Hub."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub, repo, what, revision, file = place
    page = f"{hub}/{repo}" if what == "model" else hub
    faults: dict[type[Exception], HubFault] = {  # a subclass before its base
        GatedRepoError: HubFault("gated", f"{repo} is gated: accept its terms at {page}"),
        RepositoryNotFoundError: HubFault(
            "no_repository", f"{hub} has no {what} {repo}, or it is private: check the name"
        ),
        RevisionNotFoundError: HubFault("no_revision", f"{repo} has no revision {revision or 'of this name'!r}"),
        OfflineModeIsEnabled: HubFault("offline", "HF_HUB_OFFLINE is set"),
        HFValidationError: HubFault("no_name", f"{repo!r} is no name of a repository"),
    }
    for kind, fault in faults.items():
        if isinstance(error, kind):
            return fault
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return HubFault(
            "no_file", f"{repo} has no file {file!r}" if file else f"{repo} lacks a file ({_shorten(error)})"
        )
    causes = [one for one in (error, error.__cause__) if isinstance(one, Exception)]
    if answered := next((one for one in causes if isinstance(one, HfHubHTTPError)), None):
        return _find_status_fault(answered.response.status_code, answered, place)
    if failed := next((one for one in causes if type(one).__module__.startswith(HUB_LIBRARIES)), None):
        return HubFault("unreachable", f"{hub} cannot be reached ({_shorten(failed)})")
    return None


def _find_status_fault(status: int, error: Exception, place: HubPlace) -> HubFault:
    if status in (401, 403):
        return HubFault("token", f"{place.hub} rejects your token (status {status})", status)
    if status in (409, 412):
        return HubFault("changed", f"{place.repo} was changed by someone else meanwhile (status {status})", status)
    return HubFault("status", f"{place.hub} answers with status {status} ({_shorten(error)})", status)


def _shorten(error: Exception) -> str:
    """Without addresses, which may be signed."""
    text = redact_text(re.sub(r"https?://\S+", "…", str(error)) or type(error).__name__)
    return " ".join(text.split())[:200]
