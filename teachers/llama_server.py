"""A program that runs llama.cpp's server: reads settings from stdin, writes the server's address to stdout.

It ends when its stdin is closed. Knows nothing of the other modules, and is the only one that loads llama.cpp: a hostile GGUF
file can crash it, hang it while it holds Python's lock, or fill its memory.
"""

import json
import os
import resource
import sys
import time
from enum import Enum
from pathlib import Path


def _serve_llama() -> None:
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keeps llama.cpp's output out of the report
    request = json.loads(sys.stdin.readline())

    # A limit without mapped files. Core dumps, which would contain prompts, are disabled. When the machine is out of memory, the
    # kernel kills this process first.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (request["memory"], request["memory"]))
    if (score := Path("/proc/self/oom_score_adj")).exists():
        score.write_text("1000", encoding="ascii")

    import xllamacpp

    before = resident_bytes("VmRSS")
    params = xllamacpp.CommonParams()
    for name, value in request["settings"].items():
        *path, last = name.split(".")
        holder = params
        for part in path:
            holder = getattr(holder, part)
        present = getattr(holder, last)
        kind = type(present)
        if isinstance(present, list):
            if present and isinstance(present[0], Enum):  # its members are given by name, since their numbers change
                value = [type(present[0])[name] for name in value]
        elif kind.__module__ != "builtins":  # a member of an enumeration, by number
            value = kind(value)
        setattr(holder, last, value)
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, MemoryError) as error:
        sys.exit(f"error: {error or 'not enough memory'}")
    loaded = {"address": server.listening_address, "pid": os.getpid(), "memory": before, "seconds": time.process_time()}
    report.write(json.dumps(loaded) + "\n")
    report.close()
    sys.stdin.read()
    os._exit(0)  # a regular shutdown joins threads that may never end


def resident_bytes(which: str, pid: int | str = "self") -> int:
    """Bytes of a process, now (`VmRSS`) or at its peak (`VmHWM`)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{which}:"))


if __name__ == "__main__":
    _serve_llama()
