"""GGUF files from a local Hub: kept and continued when the process is killed, verified, found again without a network."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import errors

from core.hub_reference import HubReference, parse_hub_reference
from core.project_files import PROJECT
from core.storage.hub_files import HubPlace, find_hub_fault
from tests.support.local_hub import LocalHub, serve_local_hub
from tests.support.waiting import wait_until

FETCH = """
import json, sys
from core.errors import ProviderError
from core.hub_reference import parse_hub_reference
from core.storage.hub_files import fetch_hub_weights
for name in sys.argv[1:]:
    try:
        weights = fetch_hub_weights(parse_hub_reference(name), lambda text: print(text, file=sys.stderr, flush=True))
        print(json.dumps([str(weights.reference), str(weights.path), weights.sha256]))
    except ProviderError as error:
        print(json.dumps(str(error)))
"""
LARGE = b"GGUF" + random.Random(1).randbytes(30_000_000)
CHUNK = 10 * 2**20
"""Bytes that huggingface_hub writes at once."""


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with serve_local_hub() as hub:
        yield hub
        assert hub.faults == []


def start(hub: LocalHub, home: Path, *names: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env = {**inherited, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "PYTHONPATH": str(PROJECT), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, *names], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def fetch(hub: LocalHub, home: Path, *names: str, **environment: str) -> list[list[str] | str]:
    """The reference, path and hash of each file, or the message of its error."""
    output, errors = start(hub, home, *names, **environment).communicate()
    assert "Traceback" not in errors, errors
    assert hub.token not in output + errors
    return [json.loads(line) for line in output.splitlines()]


def test_names_are_parsed_strictly() -> None:
    assert parse_hub_reference("hf:o/r.x@refs/pr/3:q/a.gguf") == HubReference("o/r.x", "refs/pr/3", "q/a.gguf")
    assert parse_hub_reference("hf:o/r:Q4_K_M") == HubReference("o/r", None, "Q4_K_M")
    assert parse_hub_reference("hf:o/r") == HubReference("o/r", None, None)
    for wrong in (
        "hf:o",
        "hf:o/r:../x.gguf",
        "hf:o/r:/etc/x.gguf",
        "hf:o/r:",
        "hf:o/r@:x.gguf",
        "hf:o/r/s:x.gguf",
        "hf:../..:x.gguf",
        "hf:o/r--s",
        "hf:o/r@../../etc:Q4",
        "hf:o/r:a\x1b[31m.gguf",
        "hf:o/r:..\\x.gguf",
    ):
        assert parse_hub_reference(wrong) is None, wrong
    for name in ("hf:o/r@main:x.gguf", "hf:o/r", "hf:o/r:q/x.gguf"):
        assert str(parse_hub_reference(name)) == name


def test_a_killed_download_continues_where_it_was(hub: LocalHub, tmp_path: Path) -> None:
    commit = hub.publish("o/r", {"x.gguf": LARGE})
    hub.pause_after = 2 * CHUNK + 1000
    killed = start(hub, tmp_path, "hf:o/r:x.gguf")
    wait_until(lambda: any(f.stat().st_size == 2 * CHUNK for f in tmp_path.rglob("*.incomplete")))
    killed.kill()
    killed.communicate()
    hub.pause_after = None
    hub.go_on.set()
    [found] = fetch(hub, tmp_path, "hf:o/r:x.gguf")
    digest = hashlib.sha256(LARGE).hexdigest()
    assert found == [f"hf:o/r@{commit}:x.gguf", found[1], digest]
    assert Path(found[1]).read_bytes() == LARGE
    assert hub.list_ranges() == [None, f"bytes={2 * CHUNK}-"]
    assert not list(tmp_path.rglob("*.incomplete"))


@pytest.mark.attack(
    "the Hub, a proxy or the cache has other bytes of a GGUF file than its SHA-256",
    "deleted, or refused in one sentence",
)
def test_other_bytes_than_the_hub_has_are_refused(hub: LocalHub, tmp_path: Path) -> None:
    hub.publish("o/r", {"x.gguf": b"GGUF of a model"})
    hub.corrupt = "x.gguf"
    [message] = fetch(hub, tmp_path, "hf:o/r:x.gguf")
    assert message.startswith("local/hf:o/r:x.gguf: x.gguf arrived with other bytes than the Hub has (SHA-256 ")
    hub.corrupt = None
    [found] = fetch(hub, tmp_path, "hf:o/r:x.gguf")
    blob = Path(found[1]).resolve()
    blob.write_bytes(b"GGUF of a thief")
    [message] = fetch(hub, tmp_path, "hf:o/r:x.gguf", HF_HUB_OFFLINE="1")
    assert f"{blob} has other bytes than the Hub" in message


def test_a_repository_without_a_network_and_after_a_change(hub: LocalHub, tmp_path: Path) -> None:
    """A pinned commit needs no request; a branch needs one, or is read from the cache if the Hub does not answer."""
    first = hub.publish(
        "o/r", {"x-Q4_K_M.gguf": b"GGUF one", "x-Q8_0.gguf": b"GGUF eight", "mmproj-x.gguf": b"GGUF eye"}
    )
    [before] = fetch(hub, tmp_path, "hf:o/r:q4_k_m")
    assert before[0] == f"hf:o/r@{first}:x-Q4_K_M.gguf"
    second = hub.publish("o/r", {"x-Q4_K_M.gguf": b"GGUF two"})
    offline = fetch(hub, tmp_path, "hf:o/r:q4_k_m", "hf:o/r:x-Q4_K_M.gguf", "hf:o/r:x-Q8_0.gguf", HF_HUB_OFFLINE="1")
    assert offline[:2] == [before, before]
    assert "is not in " in offline[2]
    assert "and HF_HUB_OFFLINE is set" in offline[2]
    asked = len(hub.served)
    pinned, now = fetch(hub, tmp_path, before[0], "hf:o/r")
    assert pinned == before
    assert now[0] == f"hf:o/r@{second}:x-Q4_K_M.gguf"
    assert now[2] == hashlib.sha256(b"GGUF two").hexdigest()
    assert not any(first in path for _, path, _ in hub.served[asked:])
    hub.shutdown()
    hub.server_close()
    assert fetch(hub, tmp_path, "hf:o/r:Q4_K_M")[0] == now
    [message] = fetch(hub, tmp_path, "hf:o/other:x.gguf")
    assert f"{hub.url} cannot be reached (" in message


@pytest.mark.attack(
    "the Hub redirects a download to another host",
    "followed without the token",
)
def test_what_cannot_be_found_or_read_is_one_sentence(hub: LocalHub, tmp_path: Path) -> None:
    hub.publish("o/r", {"a-Q4_K_M.gguf": b"GGUF", "a-Q8_0.gguf": b"GGUF", "page.gguf": b"<html>", "a.txt": b""})
    hub.publish("o/gated", {"x.gguf": b"GGUF secret"}, gated=True)
    messages = {
        "hf:o/r": "3 GGUF files of o/r match: a-Q4_K_M.gguf, a-Q8_0.gguf, page.gguf; name a file or its quantization",
        "hf:o/r:Q2_K": "o/r has no GGUF file of the quantization 'Q2_K'; it has a-Q4_K_M.gguf, a-Q8_0.gguf, page.gguf",
        "hf:o/r:a-Q4_K_S.gguf": "o/r has no file 'a-Q4_K_S.gguf'; did you mean 'a-Q4_K_M.gguf'? its GGUF files are",
        "hf:o/r:page.gguf": "is no GGUF file: it begins with b'<htm'",
        "hf:o/r@v9:a-Q8_0.gguf": "o/r has no revision 'v9'",
        "hf:o/none:x.gguf": f"{hub.url} has no model o/none, or it is private: check the name; set HF_TOKEN",
        "hf:o/gated:x.gguf": f"o/gated is gated: accept its terms at {hub.url}/o/gated; set HF_TOKEN",
    }
    for (name, expected), message in zip(messages.items(), fetch(hub, tmp_path, *messages), strict=True):
        assert isinstance(message, str)
        assert expected in message, name
        assert "\n" not in message
    [found, _] = fetch(hub, tmp_path, "hf:o/gated:x.gguf", "hf:o/gated:none.gguf", HF_TOKEN=hub.token)
    assert Path(found[1]).read_bytes() == b"GGUF secret"
    [message] = fetch(hub, tmp_path, "hf:o/r:a-Q8_0.gguf", HF_TOKEN="hf_wrong_token")
    assert message.endswith("rejects your token (status 401); set HF_TOKEN to a valid one")


def test_a_hub_may_send_any_name_and_only_names_of_files_in_a_repository_are_used(
    hub: LocalHub, tmp_path: Path
) -> None:
    hostile = ["../../../../evil.gguf", "/evil.gguf", "a\x1b[31m.gguf", "a:b.gguf", "q/../x.gguf", "..\\x.gguf"]
    for number, name in enumerate(hostile):
        hub.publish(f"o/r{number}", {name: b"GGUF evil"})
    hub.publish("o/all", {**dict.fromkeys(hostile, b"GGUF evil"), "good.gguf": b"GGUF good"})
    home = tmp_path / "a" / "b" / "hf"
    *refused, found = fetch(hub, home, *(f"hf:o/r{number}" for number in range(len(hostile))), "hf:o/all")
    assert refused == [f"local/hf:o/r{n}: o/r{n} has no GGUF file" for n in range(len(hostile))]
    assert Path(found[1]).read_bytes() == b"GGUF good"
    assert [path.name for path in tmp_path.rglob("*.gguf")] == ["good.gguf"]


def test_a_commit_or_a_list_that_is_none_is_one_sentence(hub: LocalHub, tmp_path: Path) -> None:
    hub.publish("o/r", {"x.gguf": b"GGUF"})
    repo = hub.repos["model", "o/r"]
    repo.commits["../../x"] = repo.commits.pop(repo.head)
    [message] = fetch(hub, tmp_path, "hf:o/r:x.gguf")
    assert message == f"local/hf:o/r:x.gguf: {hub.url} sends an invalid commit or hash of x.gguf"
    hub.publish("o/page", {"x.gguf": b"GGUF"})
    hub.lists_as_page = True
    [message] = fetch(hub, tmp_path, "hf:o/page")
    assert isinstance(message, str)
    assert message.startswith(f"local/hf:o/page: o/page cannot be downloaded from {hub.url}: ")
    assert "\n" not in message


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


def test_addresses_are_not_repeated_and_other_errors_are_left_alone() -> None:
    fault = find_hub_fault(errors.LocalEntryNotFoundError("no https://cdn.example/x?X-Signature=abc"), PLACE)
    assert fault is not None
    assert fault.sentence == "https://hub.example cannot be reached (no …)"
    assert find_hub_fault(ValueError("x"), PLACE) is None
    assert find_hub_fault(OSError("disk full"), PLACE) is None
