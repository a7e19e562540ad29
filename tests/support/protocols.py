"""The hosted protocols, as tests over all of them need them: a teacher's table, a reply, and where the key is sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from aiohttp import web

from core.plugins import FOLDER


@dataclass(frozen=True)
class TestedProtocol:
    __test__ = False

    model: str
    """One that does not think."""
    path: str
    """Of its calls, after the address."""
    base_path: str
    """The part of `path` that is in `base_url`."""
    reply: Mapping[str, Any]
    """A response with the text `{"answer": "x"}`, 3 tokens of prompt and 4 of reply."""
    read_key: Callable[[web.Request], str]

    def build_table(self, address: str, **changes: object) -> dict[str, Any]:
        plain = {"max_retries": 2, "timeout_seconds": 300, "outage_seconds": 1, "api_key_env": ""}
        return {"model": self.model, "base_url": address + self.base_path, **plain, **changes}

    @property
    def name(self) -> str:
        """The model's name at its endpoint."""
        return self.model.partition("/")[2]


def _list_protocols_of_plugins() -> dict[str, TestedProtocol]:
    """`PROTOCOLS` of `plugins/NAME/tests/support/protocols.py`, of the plugins that are here."""
    names = [file.parents[2].name for file in sorted(FOLDER.glob("*/tests/support/protocols.py"))]
    modules = [import_module(f"plugins.{name}.tests.support.protocols") for name in names]
    return {name: protocol for module in modules for name, protocol in module.PROTOCOLS.items()}


TEXT = '{"answer": "x"}'
PROTOCOLS = {
    "openai": TestedProtocol(
        "openai/m",
        "/v1/chat/completions",
        "/v1",
        {
            "choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        },
        lambda request: request.headers["Authorization"].removeprefix("Bearer "),
    ),
    **_list_protocols_of_plugins(),
}
