"""The connection to the Hugging Face Hub for repositories, and its errors as sentences. Knows no release.

The token is read from HF_TOKEN only: a token that another program stored on this machine is not used to publish.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from core.errors import RunFailed, StillhouseError, UsageError
from core.installation import format_install_command
from core.secrets import read_key
from core.storage.hub_files import HubFaultKind, HubPlace, find_hub_fault

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN_VARIABLE = "HF_TOKEN"
DEFAULT_ENDPOINT = "https://huggingface.co"
RESUME_ADVICE = "what has arrived is kept there; repeat the command to send the rest"


def find_endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_ENDPOINT


def connect_hub(*, to_write: bool) -> "HfApi":
    """Raises UsageError if huggingface_hub is missing, or the token that is needed to write."""
    if find_spec("huggingface_hub") is None:
        raise UsageError(
            f"publish and pull need the extra `publish` (huggingface_hub is missing): run {format_install_command('publish')}"
        )
    token = read_key(TOKEN_VARIABLE)
    if to_write and token is None:
        raise UsageError(
            f"{TOKEN_VARIABLE} is not set: set it to a token of {find_endpoint()}/settings/tokens that may write, or add "
            "--dry-run"
        )
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings contain signed addresses
    return HfApi(endpoint=find_endpoint(), token=token or False, library_name="stillhouse")


@contextmanager
def translate_hub_errors(repo: str, advice: str = "") -> Iterator[None]:
    """Around requests about a repository. Raises UsageError for a wrong name or token, RunFailed for a fault on the way, which
    ends with `advice`. Errors that are not about the Hub are raised unchanged.
    """
    try:
        yield
    except StillhouseError:
        raise
    except Exception as error:
        if (translated := _translate_error(repo, error, f"; {advice}" if advice else "")) is None:
            raise
        raise translated from None


def _translate_error(repo: str, error: Exception, tail: str) -> StillhouseError | None:
    fault = find_hub_fault(error, HubPlace(find_endpoint(), repo, "repository"))
    if fault is None:
        return None
    advice: dict[HubFaultKind, str] = {
        "gated": f"set {TOKEN_VARIABLE}",
        "no_repository": f"set {TOKEN_VARIABLE}",
        "no_revision": "name a branch, a tag or a commit",
        "no_file": "`stillhouse publish` did not make it",
        "offline": "unset it to publish or pull",
        "no_name": "write OWNER/NAME",
        "token": f"{TOKEN_VARIABLE} must be valid and may write to this owner's repositories",
    }
    if fault.kind in advice:
        return UsageError(f"{repo}: {fault.sentence}; {advice[fault.kind]}")
    return RunFailed(f"{repo}: {fault.sentence}" + ("; repeat the command" if fault.kind == "changed" else tail))
