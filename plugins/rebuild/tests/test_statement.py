"""The signed statement of a release: its envelope is the specification's, stock verifiers accept it, and it covers every file."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from google.protobuf.json_format import Parse, ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from core.errors import StoreError, UsageError
from core.runs.releases import Release, locate_statement, read_release
from core.storage.atomic_files import read_json
from flows.terminal.console import SESSION
from plugins.rebuild.statement import (
    encode_pre_authentication,
    identify_key,
    sign_release,
    verify_release,
)
from plugins.rebuild.tests.made_releases import FAMILIES, copy_release, release_recorded
from plugins.rebuild.tests.tamperings import DATA, PAPERS
from tests.support.forked import FORKS


def write_keys(folder: Path, name: str) -> tuple[str, str]:
    """The files of a new private key and of its public one."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(private), str(public)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signed")


@pytest.fixture(scope="module")
def keys(place: Path) -> tuple[str, str]:
    return write_keys(place, "maker")


@pytest.fixture(scope="module")
def releases(place: Path, keys: tuple[str, str]) -> dict[str, Release]:
    """The second generation of each family, signed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SESSION, "quiet", True)
        found = {name: [release_recorded(place / "runs", name) for _ in range(2)][-1] for name in FAMILIES}
    for release in found.values():
        sign_release(release, keys[0])
    return found


def test_the_encoding_is_that_of_the_specification() -> None:
    """The test vector of DSSE's protocol.md."""
    encoded = encode_pre_authentication("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_a_stock_verifier_accepts_the_statement_and_refuses_another_key(
    releases: dict[str, Release], keys: tuple[str, str], place: Path
) -> None:
    release = releases["smoke"]
    whole = read_json(locate_statement(release.path))
    envelope = Envelope.from_dict(json.loads(json.dumps(whole)))
    for public, accepted in ((keys[1], True), (write_keys(place, "other")[1], False)):
        loaded = load_pem_public_key(Path(public).read_bytes())
        key = SSlibKey.from_crypto(loaded, keyid=whole["signatures"][0]["keyid"])
        if accepted:
            assert list(envelope.verify([key], 1)) == [key.keyid]
        else:
            with pytest.raises(VerificationError):
                envelope.verify([key], 1)
    statement = Statement.copy_from_pb(Parse(envelope.payload, statement_pb2.Statement()))
    statement.validate()
    predicate = ParseDict(json.loads(envelope.payload)["predicate"], Provenance())
    assert predicate.build_definition.external_parameters["release"] == "smoke/1"
    assert predicate.run_details.metadata.started_on.seconds > 0
    named = {one.name: one.digest["sha256"] for one in statement.pb.subject}
    assert named.items() > release.manifest.files.items()
    assert named.keys() - release.manifest.files.keys() == {"manifest.json"}


def test_an_untouched_release_is_verified(releases: dict[str, Release], keys: tuple[str, str], tmp_path: Path) -> None:
    for release in releases.values():
        files, key = verify_release(read_release(copy_release(release, tmp_path)), keys[1])
        assert files == len(release.manifest.files) + 1
        assert key == identify_key(load_pem_public_key(Path(keys[1]).read_bytes()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tampering", {**DATA, **PAPERS})
@pytest.mark.attack("a release is changed in any way and all hashes rewritten", "its signed statement finds it")
def test_a_tampering_that_hashes_do_not_find_is_found(
    tampering: str, family: str, releases: dict[str, Release], keys: tuple[str, str], tmp_path: Path
) -> None:
    copy = copy_release(releases[family], tmp_path)
    {**DATA, **PAPERS}[tampering](copy)
    changed = read_release(copy)
    changed.verify_files()  # the control: every hash and the digest are right
    with pytest.raises(StoreError, match=r"is not the file that was signed|was not signed"):
        verify_release(changed, keys[1])


@pytest.mark.attack("a tampered release is signed by another key", "it is refused")
def test_a_statement_of_another_key_is_refused(
    releases: dict[str, Release], keys: tuple[str, str], tmp_path: Path
) -> None:
    copy = copy_release(releases["smoke"], tmp_path)
    DATA["a word of a row"](copy)
    private, public = write_keys(tmp_path, "attacker")
    sign_release(read_release(copy), private)
    verify_release(read_release(copy), public)  # the control: it is signed, by that key
    with pytest.raises(StoreError, match="is not signed by this key, "):
        verify_release(read_release(copy), keys[1])
    forged = json.loads(locate_statement(copy).read_text())
    forged["signatures"][0]["keyid"] = identify_key(load_pem_public_key(Path(keys[1]).read_bytes()))
    locate_statement(copy).write_text(json.dumps(forged))
    with pytest.raises(StoreError, match="is not signed by this key, "):
        verify_release(read_release(copy), keys[1])


@pytest.mark.attack("a key signed something else than a statement", "it is refused")
@pytest.mark.parametrize("change", ["payload", "type", "no base64", "no signature"])
def test_an_envelope_that_was_changed_is_refused(
    change: str, releases: dict[str, Release], keys: tuple[str, str], tmp_path: Path
) -> None:
    copy = copy_release(releases["smoke"], tmp_path)
    whole = json.loads(locate_statement(copy).read_text())
    if change == "payload":
        whole["payload"] = base64.b64encode(base64.b64decode(whole["payload"]) + b" ").decode()
    elif change == "type":
        whole["payloadType"] = "text/plain"
    elif change == "no base64":
        whole["payload"] = "{}"
    else:
        whole["signatures"] = []
    locate_statement(copy).write_text(json.dumps(whole))
    with pytest.raises(StoreError, match=r"is not signed by this key|is no DSSE envelope"):
        verify_release(read_release(copy), keys[1])


def test_a_key_that_cannot_be_used_is_one_sentence_without_the_key(
    releases: dict[str, Release], keys: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = read_release(copy_release(releases["smoke"], tmp_path))
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    monkeypatch.setenv("RSA_KEY", rsa.decode())
    secret = Path(keys[0]).read_text()
    for name in ("env:RSA_KEY", "env:MISSING_KEY", str(tmp_path / "none.pem"), keys[1], secret):
        with pytest.raises(UsageError) as refused:
            sign_release(release, name)
        assert secret.splitlines()[1] not in str(refused.value)
        assert "\n" not in str(refused.value)
    for name in (keys[0], "env:MISSING_KEY"):
        with pytest.raises(UsageError):
            verify_release(release, name)
    monkeypatch.setenv("SIGNING_KEY", secret)
    locate_statement(release.path).unlink()
    with pytest.raises(UsageError, match=r"smoke/1: has no statement at .*/1.statement.json; its maker writes one"):
        verify_release(release, keys[1])
    sign_release(release, "env:SIGNING_KEY")
    verify_release(release, keys[1])


@pytest.mark.slow
def test_the_command_signs_what_is_equal_and_verifies_it(
    releases: dict[str, Release], keys: tuple[str, str], tmp_path: Path
) -> None:
    copy = copy_release(releases["smoke"], tmp_path)
    locate_statement(copy).unlink()
    words = ("stillhouse", "rebuild", str(copy), "--quiet")
    done = FORKS.run(*words, "--sign", keys[0], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    verified = FORKS.run(*words, "--verify", keys[1], folder=tmp_path)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("smoke/1: signed by ")
    DATA["a word of a row"](copy)
    assert FORKS.run(*words, "--verify", keys[1], folder=tmp_path).returncode == 1
    locate_statement(copy).unlink()
    assert FORKS.run(*words, "--sign", keys[0], folder=tmp_path).returncode == 1
    assert not locate_statement(copy).exists(), "nobody signs what differs"
    assert FORKS.run(*words, "--verify", keys[1], "--sign", keys[0], folder=tmp_path).returncode == 2
