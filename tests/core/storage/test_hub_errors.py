from huggingface_hub import errors

from core.storage.hub_files import HubPlace, find_hub_fault

PLACE = HubPlace("https://hub.example", "o/r", "repository", "v9", "x.gguf")


def test_addresses_are_not_repeated_and_other_errors_are_left_alone() -> None:
    fault = find_hub_fault(errors.LocalEntryNotFoundError("no https://cdn.example/x?X-Signature=abc"), PLACE)
    assert fault is not None
    assert fault.sentence == "https://hub.example cannot be reached (no …)"
    assert find_hub_fault(ValueError("x"), PLACE) is None
    assert find_hub_fault(OSError("disk full"), PLACE) is None
