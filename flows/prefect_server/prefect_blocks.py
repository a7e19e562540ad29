"""Blocks of a Prefect server that an operator names: notification targets and secrets."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound

from core.errors import UsageError


def find_notification_block(named: str) -> UUID:
    """The id of the notification block `named`, as TYPE/NAME. Raises UsageError if there is no such block."""
    kind, _, name = named.partition("/")
    advice = (
        "give TYPE/NAME of a notification block, as in slack-webhook/ops; create it on the Prefect page under Blocks"
    )
    block = _read_block(kind, name)
    if block is None:
        raise UsageError(f"--notify {named}: the server has no such block; {advice}")
    if block.block_schema and "notify" not in block.block_schema.capabilities:
        raise UsageError(f"--notify {named}: this block cannot notify; {advice}")
    return block.id


def find_secret_block(given: str) -> tuple[str, str]:
    """A variable, and the placeholder that a worker replaces with the value of a Secret block. The value is not read here.

    Raises:
        UsageError: if `given` is not VARIABLE=BLOCK, or there is no such block.
    """
    variable, equals, name = given.partition("=")
    if not (variable.isidentifier() and equals and name):
        raise UsageError(f"--secret {given}: give VARIABLE=BLOCK, as in OPENAI_API_KEY=openai")
    if _read_block("secret", name) is None:
        raise UsageError(
            f"--secret {given}: the server has no Secret block {name!r}; create it on the Prefect page under Blocks"
        )
    return variable, f"{{{{ prefect.blocks.secret.{name} }}}}"


def _read_block(kind: str, name: str) -> BlockDocument | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_block_document_by_name(name, kind, include_secrets=False)
        except ObjectNotFound:
            return None
