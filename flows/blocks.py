"""Blocks of a Prefect server that an operator names: who is told, and where a secret is."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound

from core.errors import UsageError


def find_notifier(named: str) -> UUID:
    """The id of a notification block. Raises UsageError where `named` is not the TYPE/NAME of one."""
    kind, _, name = named.partition("/")
    advice = "give TYPE/NAME of a notification block, as in slack-webhook/ops; the page makes one under Blocks"
    found = _read(kind, name)
    if found is None:
        raise UsageError(f"--notify {named}: the server has no such block; {advice}")
    if found.block_schema and "notify" not in found.block_schema.capabilities:
        raise UsageError(f"--notify {named}: is not a block that notifies; {advice}")
    return found.id


def find_secret(given: str) -> tuple[str, str]:
    """A variable, and the words in whose place a worker puts the value of a Secret block; the value is not read here.

    Raises:
        UsageError: where `given` is not VARIABLE=BLOCK, or there is no such block.
    """
    variable, equals, name = given.partition("=")
    if not (variable.isidentifier() and equals and name):
        raise UsageError(f"--secret {given}: give VARIABLE=BLOCK, as in OPENAI_API_KEY=openai")
    if _read("secret", name) is None:
        raise UsageError(f"--secret {given}: the server has no Secret block {name!r}; the page makes one under Blocks")
    return variable, f"{{{{ prefect.blocks.secret.{name} }}}}"


def _read(kind: str, name: str) -> BlockDocument | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound:
            return None
