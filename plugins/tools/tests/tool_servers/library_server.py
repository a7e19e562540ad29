"""A library as an MCP server of the official package: `python library_server.py` over stdio, `… PORT` over HTTP.

With CALL_LOG=FILE each executed call is a line of the file. With KILL_CALLS=3,9 the third and the ninth call kill the process
that started the server, in the middle of the call. `die`, `hang` and `secret` as a title do what they say.
"""

import os
import signal
import sys
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("library")
COPIES = {"Dune": 2, "Emma": 1}


def record_call(text: str) -> None:
    log = os.environ.get("CALL_LOG")
    if not log:
        return
    with Path(log).open("a") as file:
        file.write(f"{text}\n")
    number = str(len(Path(log).read_text().splitlines()))
    if number in os.environ.get("KILL_CALLS", "").split(","):
        status = Path(f"/proc/{os.getppid()}/stat").read_text()  # the guard, whose parent is the run
        os.kill(int(status.rpartition(")")[2].split()[1]), signal.SIGKILL)
        time.sleep(30)


@server.tool()
def lend_book(title: str) -> dict[str, object]:
    """Lend a copy of a book to the user."""
    record_call(title)
    if title == "die":
        os._exit(3)
    if title == "hang":
        time.sleep(60)
    if title == "secret":
        return {
            "title": title,
            "note": os.environ.get("LIBRARY_PASS", "none"),
            "home": os.environ.get("CALL_SECRET", "none"),
        }
    if title == "Nothing":
        raise ToolError("there is no such book")
    return {"title": title, "shelf": f"shelf {len(title) + 10}", "copies": COPIES.get(title, 3)}


if __name__ == "__main__":
    if sys.argv[1:]:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        sys.stderr.write(f"ready, with the key {os.environ.get('LIBRARY_PASS')}\n")
        server.run()
