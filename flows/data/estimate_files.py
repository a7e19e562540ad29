"""The estimates of previews, one file per recipe in the user's cache directory, so that a run can compare its bill with what was
estimated. Knows no preview and no run.
"""

from pathlib import Path

from pydantic import ValidationError

from core.runs.records import RunEstimate
from core.storage.atomic_files import write_text
from flows.data.run_storage import find_user_cache


def store_estimate(digest: str, estimate: RunEstimate) -> None:
    """Store the estimate of the recipe with this digest, if there is a place for it."""
    file = _locate_estimate(digest)
    if file is None:
        return
    try:
        file.parent.mkdir(exist_ok=True)
        write_text(file, estimate.model_dump_json() + "\n")
    except OSError:
        return


def read_estimate(digest: str) -> RunEstimate | None:
    """The last estimate of the recipe with this digest; None if there is none that this version can read."""
    file = _locate_estimate(digest)
    try:
        return RunEstimate.model_validate_json(file.read_bytes()) if file and file.exists() else None
    except (OSError, ValidationError):
        return None


def _locate_estimate(digest: str) -> Path | None:
    cache = find_user_cache()
    return cache and cache / "estimates" / f"{digest}.json"
