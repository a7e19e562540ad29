"""A Prefect server that answers anybody is not deployed to; one that refuses us is a sentence. The real one: test_deployments."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from core.errors import UsageError
from plugins.schedules.deployment import check_prefect_server, check_server_closed, deploy_all

SECRET = "admin:a-secret"


@contextmanager
def answering(secret: str | None) -> Iterator[str]:
    """A server that answers every question, or, with a secret, those alone that have it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = f"Basic {base64.b64encode((secret or '').encode()).decode()}"
            self.send_response(200 if secret is None or self.headers["Authorization"] == wanted else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.attack(
    "deploying to a server without a secret",
    "refused",
)
def test_nothing_is_deployed_to_a_server_that_answers_anybody() -> None:
    for known in (None, SECRET):
        with (
            answering(None) as url,
            temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: known}),
            pytest.raises(
                UsageError, match=r"requires no secret.*PREFECT_SERVER_API_AUTH_STRING=.*--allow-open-server"
            ),
        ):
            deploy_all()


@pytest.mark.parametrize("known", [None, "admin:another"])
def test_a_server_that_refuses_the_command_is_one_sentence(known: str | None) -> None:
    with answering(SECRET) as url, temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: known}):
        with pytest.raises(
            UsageError, match=r"refuses the command \(401\); export PREFECT_API_AUTH_STRING="
        ) as refused:
            check_prefect_server()
        assert "another" not in str(refused.value)


def test_deploying_to_a_server_with_a_shared_secret_is_allowed() -> None:
    with answering(SECRET) as url, temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: SECRET}):
        assert check_prefect_server() == url
        check_server_closed(url)


def test_an_unreachable_server_is_one_sentence() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(UsageError, match=r"127\.0\.0\.1:9/api: no Prefect server answers at this address"),
    ):
        deploy_all()
