"""The signed statement of a release: an in-toto statement with the SLSA provenance predicate, in a DSSE envelope, signed by
ed25519. Asks no network, and prints no key.

Sources: in-toto attestation framework v1 (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md), SLSA provenance
v1 (https://slsa.dev/spec/v1.0/provenance), DSSE v1 (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md).
"""

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ValidationError

from core.errors import StoreError, UsageError
from core.runs.releases import Release, locate_statement
from core.storage.atomic_files import hash_file, read_record, write_json
from plugins.rebuild.comparison import INPUTS
from plugins.rebuild.recording import RecordedInputs

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE, BUILDER = "urn:stillhouse:rebuild:v1", "urn:stillhouse"
VARIABLE_PREFIX = "env:"
"""Of a key that is the value of an environment variable."""


class Signature(BaseModel):
    keyid: str = ""
    sig: str


class Envelope(BaseModel):
    """A DSSE envelope."""

    payload: str
    payloadType: str
    signatures: list[Signature]


class Statement(BaseModel):
    """What is signed, as far as it is verified."""

    subject: list[dict[str, Any]]
    predicateType: str


def encode_pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed (PAE of DSSE v1)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def build_statement(release: Release) -> dict[str, Any]:
    """Every file of a release with its hash, and what it was made from."""
    run = release.manifest.run
    inputs = read_record(release.path / INPUTS, RecordedInputs)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in _hash_release(release).items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"release": release.name, "recipe": run.digest},
                "internalParameters": {"environment": inputs.environment},
                "resolvedDependencies": [
                    *({"name": name, "digest": {"sha256": digest}} for name, digest in inputs.files.items()),
                    *({"name": one.release, "digest": {"sha256": one.digest}} for one in release.lineage.ancestors),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"stillhouse": run.versions.get("stillhouse", "unknown")}},
                "metadata": {
                    "invocationId": run.run, "startedOn": run.started, "finishedOn": release.manifest.released,
                },
            },
        },
    }  # fmt: skip


def _hash_release(release: Release) -> dict[str, str]:
    """SHA-256 of every file in the folder, whatever its manifest says."""
    files = sorted(path for path in release.path.rglob("*") if path.is_file())
    return {path.relative_to(release.path).as_posix(): hash_file(path) for path in files}


def sign_release(release: Release, key: str) -> Path:
    """Write the signed statement of a release next to it. Raises UsageError if the key cannot be used."""
    private = _load_private_key(key)
    payload = json.dumps(build_statement(release), ensure_ascii=False).encode()
    signature = private.sign(encode_pre_authentication(PAYLOAD_TYPE, payload))
    envelope = Envelope(
        payload=base64.b64encode(payload).decode(), payloadType=PAYLOAD_TYPE,
        signatures=[Signature(keyid=identify_key(private.public_key()), sig=base64.b64encode(signature).decode())],
    )  # fmt: skip
    path = locate_statement(release.path)
    write_json(path, envelope.model_dump())
    return path


def verify_release(release: Release, key: str) -> tuple[int, str]:
    """The number of files that the statement signs, all of which are unchanged, and the key's identity.

    Raises:
        UsageError: if the key cannot be used, or there is no statement.
        StoreError: if the statement is not signed by the key, or a file is not the one that was signed.
    """
    public, path = _load_public_key(key), locate_statement(release.path)
    if not path.exists():
        raise UsageError(
            f"{release.name}: has no statement at {path}; its maker writes one: `stillhouse rebuild {release.name} --sign KEY`"
        )
    statement = _read_verified_statement(path, public)
    signed = {str(one.get("name")): one.get("digest", {}).get("sha256") for one in statement.subject}
    found = _hash_release(release)
    for name in sorted(signed.keys() | found.keys()):
        if name not in found:
            raise StoreError(f"{release.path / name}: is missing; the statement signs it")
        if name not in signed:
            raise StoreError(f"{release.path / name}: was not signed; remove it, or get the release again")
        if signed[name] != found[name]:
            raise StoreError(f"{release.path / name}: is not the file that was signed: its SHA-256 differs")
    return len(signed), identify_key(public)


def _read_verified_statement(path: Path, public: Ed25519PublicKey) -> Statement:
    """Raises StoreError if it is none, or is not signed by the key. Nothing of it is parsed before."""
    envelope = read_record(path, Envelope)
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(one.sig, validate=True) for one in envelope.signatures]
    except binascii.Error as error:
        raise StoreError(f"{path}: is no DSSE envelope: {error}") from None
    signed = encode_pre_authentication(envelope.payloadType, payload)
    if not any(_is_signature(public, one, signed) for one in signatures):
        by = ", ".join(one.keyid[:16] for one in envelope.signatures) or "nobody"
        raise StoreError(
            f"{path}: is not signed by this key, {identify_key(public)[:16]}: it names {by}; get the maker's key, or do not "
            "trust the release"
        )
    try:
        statement = json.loads(payload)
        kinds = (envelope.payloadType, statement.get("_type"), statement.get("predicateType"))
        if kinds == (PAYLOAD_TYPE, STATEMENT_TYPE, PREDICATE_TYPE):
            return Statement.model_validate(statement)
    except (ValueError, AttributeError, ValidationError):
        pass
    raise StoreError(f"{path}: what is signed is no in-toto statement with the SLSA provenance predicate")


def _is_signature(public: Ed25519PublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        public.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def identify_key(public: Ed25519PublicKey) -> str:
    """SHA-256 of the key as DER: a hint in the envelope, which decides nothing."""
    digest = Hash(SHA256())
    digest.update(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def _load_private_key(name: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read_key(name), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise UsageError(
        f"--sign {name}: is no private ed25519 key without a password in PEM form; make one: "
        "`openssl genpkey -algorithm ed25519 -out key.pem`"
    )


def _load_public_key(name: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(_read_key(name))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, Ed25519PublicKey):
        return key
    raise UsageError(
        f"--verify {name}: is no public ed25519 key in PEM form; get it from the maker, who writes it by "
        "`openssl pkey -in key.pem -pubout -out public.pem`"
    )


def _read_key(name: str) -> bytes:
    """The bytes of a key, by the name of a file or `env:VARIABLE`. Raises UsageError; the key is in no message."""
    if name.startswith(VARIABLE_PREFIX):
        variable = name.removeprefix(VARIABLE_PREFIX)
        if (value := os.environ.get(variable)) is None:
            raise UsageError(f"{name}: the environment variable {variable} is not set; set it to a key in PEM form")
        return value.encode()
    if "PRIVATE KEY" in name:
        raise UsageError(
            "--sign: got a key itself, which others can now read in the list of processes; make another one"
        )
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: the key cannot be read: {error.strerror}; name a file, or env:VARIABLE") from None
