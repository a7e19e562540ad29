"""Errors of huggingface_hub as sentences: a subclass is not taken for its base, and other errors are left alone."""

import pytest
from huggingface_hub import errors

from core.storage.hub_errors import HubPlace, find_hub_fault

PLACE = HubPlace("https://hub.example", "o/r", "repository", "v9", "x.gguf")


def cause(error: Exception, reason: Exception) -> Exception:
    error.__cause__ = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind", "temporary"),
    [
        (errors.OfflineModeIsEnabled("x"), "offline", True),
        (errors.HFValidationError("x"), "no_name", False),
        (errors.EntryNotFoundError("x"), "no_file", False),
        (cause(errors.LocalEntryNotFoundError("x"), errors.OfflineModeIsEnabled("x")), "unreachable", True),
    ],
)
def test_an_error_is_of_one_kind(error: Exception, kind: str, temporary: bool) -> None:
    fault = find_hub_fault(error, PLACE)
    assert fault is not None
    assert (fault.kind, fault.is_temporary) == (kind, temporary)
