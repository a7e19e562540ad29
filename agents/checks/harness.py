"""The program that calls a function inside the sandbox, and the form in which values travel there and back.

It runs as a file of its own, so it imports the standard library alone. It knows no expected value, and it runs no line of
a solution itself: each call has a process of its own, which can reach nothing of this one but the end of one pipe.
"""

import builtins
import json
import os
import resource
import select
import signal
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from time import monotonic
from types import CodeType, ModuleType
from typing import Any, NoReturn

LONGEST = 20_000
"""Bytes of one answer."""
DEEPEST = 40
WALL = 10.0
"""Times its CPU seconds a call may wait or be kept waiting."""
ANSWER = 3
"""The file descriptor that a call answers on."""
OPEN_FILES = 64

write, leave, dumps = os.write, os._exit, json.JSONEncoder(allow_nan=False).encode
DICTS = (dict, Counter, OrderedDict, defaultdict)
"""Types that are equal to a dict with the same entries, as in Python."""
LISTS: dict[Any, str] = {list: "list", tuple: "tuple"}
SETS: dict[Any, str] = {set: "set", frozenset: "frozenset"}


class Untellable(Exception):
    """A value that is none of the plain ones, or has one inside; the text is its type."""


def written(value: Any, depth: int = 0) -> list[Any]:
    """A plain value as JSON with its type, equal for equal values of one type only: 1, 1.0 and True are three.

    The type is the exact one, so no object passes by what its own methods say. Sets and dicts are in one order.

    Raises:
        Untellable: for anything else.
        ValueError: for an integer with more digits than Python writes.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return [kind.__name__, value]
    if kind is int:
        return ["int", str(value)]
    if kind is float:
        return ["float", (value + 0.0).hex()]
    if kind is bytes:
        return ["bytes", value.hex()]
    if depth >= DEEPEST:
        raise Untellable(f"value nested deeper than {DEEPEST}")
    if kind in LISTS:
        return [LISTS[kind], [written(item, depth + 1) for item in value]]
    if kind in SETS:
        return [SETS[kind], sorted((written(item, depth + 1) for item in value), key=dumps)]
    if kind in DICTS:
        entries = [[written(key, depth + 1), written(item, depth + 1)] for key, item in dict.items(value)]
        return ["dict", sorted(entries, key=dumps)]
    raise Untellable(str(kind.__name__))


def read(told: Any, depth: int = 0) -> Any:
    """What `written` wrote.

    Raises:
        ValueError, TypeError: if it did not.
    """
    kind, content = told
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    if kind in ("NoneType", "bool", "str") and type(content).__name__ == kind:
        return content
    if kind == "int":
        return int(content)
    if kind == "float":
        return float.fromhex(content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {read(key, depth + 1): read(item, depth + 1) for key, item in content}
    for make, name in (*LISTS.items(), *SETS.items()):
        if kind == name:
            return make([read(item, depth + 1) for item in content])
    raise ValueError(f"{kind!r} is no type that travels")


def called(code: CodeType | str, name: str, call: Any) -> dict[str, Any]:
    """What a call comes to. This runs the solution, in a process that can do no harm."""
    try:
        if isinstance(code, str):
            return {"raised": code, "line": None}
        module = ModuleType("solution")
        sys.modules["solution"] = module
        exec(code, module.__dict__)
        arguments, named = call
        value = module.__dict__[name](*read(arguments), **read(named))
        return {"value": written(value)}
    except Untellable as error:
        return {"untellable": str(error)[:100]}
    except BaseException as error:
        return {"raised": said(error), "line": line_of(error)}


def said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return str(type(error).__name__)


def line_of(error: BaseException) -> int | None:
    """Where in the solution it was raised."""
    line, step = None, error.__traceback__
    while step:
        line = step.tb_lineno if step.tb_frame.f_code.co_filename == "solution.py" else line
        step = step.tb_next
    return line


def be_a_call(code: CodeType | str, name: str, call: Any, seconds: float, answer: int) -> NoReturn:
    """The life of a call's process. All that it inherited is closed before a line of the solution runs."""
    try:
        os.setsid()
        nothing = os.open("/dev/null", os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.dup2(answer, ANSWER)
        os.closerange(ANSWER + 1, OPEN_FILES)
        hard = ceil(seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        told = dumps(called(code, name, call)).encode()
        for begin in range(0, len(told), 4096):
            write(ANSWER, told[begin : begin + 4096])
    finally:
        leave(0)


def answer_of(code: CodeType | str, name: str, call: Any, seconds: float) -> list[Any]:
    """How a call ended (`told`, `time`, `long` or `ended`), what it told, and its CPU seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        be_a_call(code, name, call, seconds, writing)
    os.close(writing)
    told, how = collected(reading, monotonic() + WALL * seconds)
    os.close(reading)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    if how == "told" and ended in (-signal.SIGPROF, -signal.SIGXCPU):
        how = "time"
    elif how == "told" and (ended != 0 or not told):
        how, told = "ended", b""
    return [how, told.decode("utf-8", "replace"), usage.ru_utime + usage.ru_stime]


def collected(pipe: int, deadline: float) -> tuple[bytes, str]:
    """All that comes until the other end is closed, and how that went."""
    told = b""
    while len(told) <= LONGEST:
        if not select.select([pipe], [], [], max(0.0, deadline - monotonic()))[0]:
            return b"", "time"
        chunk = os.read(pipe, 65536)
        if not chunk:
            return told, "told"
        told += chunk
    return b"", "long"


def compiled(source: str) -> CodeType | str:
    try:
        return compile(source, "solution.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return said(error)


def all_answers(code: CodeType | str, work: dict[str, Any]) -> list[list[Any]]:
    """Of one program, up to the first call that gives no value."""
    answers = []
    for call in work["calls"]:
        answers.append(answer_of(code, work["name"], call, work["seconds"]))
        if not answers[-1][1].startswith('{"value"'):
            break
    return answers


def as_a_file(name: str) -> int:
    """The open file `name`, which is no longer there by name, so that nothing can change what is in it."""
    file = os.open(name, os.O_RDONLY)
    os.unlink(name)  # noqa: PTH108  # pathlib is slow to import
    os.set_inheritable(file, True)
    return file


def main(text: str, arguments: Sequence[str]) -> None:
    """Calls every program, and then begins anew with the next hash seed, from the same file.

    What is printed is one line for each program, after the run's token.
    """
    # Names of this module come before builtins, so a solution that patches those changes none that is meant here.
    globals().update({name: value for name, value in vars(builtins).items() if not name.startswith("_")})
    work = json.loads(text)
    file, turn = map(int, arguments) if arguments else (as_a_file("main.py"), 0)
    sys.path[:] = [folder for folder in sys.path if folder not in ("", os.getcwd())]  # noqa: PTH109
    whole = True
    for program in work["programs"]:
        answers = all_answers(compiled(program), work)
        whole = whole and len(answers) == len(work["calls"])
        write(1, f"{work['token']}{dumps(answers)}\n".encode())
    if whole and turn + 1 < len(work["hash_seeds"]):
        environment = {**os.environ, "PYTHONHASHSEED": str(work["hash_seeds"][turn + 1])}
        os.lseek(file, 0, os.SEEK_SET)
        again = f"exec(open({file}, closefd=False).read())"
        python = sys.executable
        os.execve(python, [python, "-P", "-S", "-c", again, str(file), str(turn + 1)], environment)
