"""The program that calls a function inside the sandbox, and the encoding of values to and from it.

It runs as a separate file and imports next to nothing, since it starts anew for every program and hash seed: `json`, `signal`,
`collections` and `contextlib` would take longer than its calls. It knows no expected value and runs no line of a solution
itself: each call runs in a separate process, which shares nothing with this process but one end of a pipe.
"""

from __future__ import annotations

import builtins
import os
import resource
import select
import sys
from _json import encode_basestring_ascii
from math import ceil
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:  # slow to import
    import signal
    from collections.abc import Sequence
    from types import CodeType
    from typing import Any, NoReturn
else:
    import _signal as signal

MODULES = tuple(
    """array base64 binascii bisect calendar cmath collections copy csv dataclasses datetime decimal difflib enum
    fractions functools graphlib hashlib heapq html io itertools json math numbers operator re statistics string struct
    textwrap typing unicodedata zlib""".split()
)
"""Modules whose functions give the same for the same arguments, and reach nothing outside. Those that a program imports
at its top level are loaded once, and not by each of its calls."""
MAX_RESULT_BYTES = 20_000
"""Maximum length of one answer, in bytes."""
MAX_VALUE_DEPTH = 40
CALL_WALL_FACTOR = 10.0
"""Maximum wall time of a call, as a multiple of its CPU seconds: it may wait or be kept waiting."""
ANSWER_DESCRIPTOR = 3
"""The file descriptor that a call answers on."""
OPEN_FILES = 64
MAX_LOST_CALLS = 3
"""Calls that may end without an answer, for lack of time for example, before the others are given up."""

write, leave = os.write, os._exit
DICTS = ("Counter", "OrderedDict", "defaultdict")
"""Types of `collections` that are equal to a dict with the same entries, as in Python."""
LISTS: dict[Any, str] = {list: "list", tuple: "tuple"}
SETS: dict[Any, str] = {set: "set", frozenset: "frozenset"}


class UnsupportedValue(Exception):
    """A value that is not plain, or contains one; the text is its type."""


def encode_value(value: Any, depth: int = 0, ordered: bool = False) -> list[Any]:
    """A plain value as JSON with its type. Only equal values of one type are equal: 1, 1.0 and True differ.

    The type is exact, so an object cannot pass through its own methods. Sets are sorted, and so are dicts unless they
    are `ordered`, as arguments are: a solution may go through them in their order, which `==` ignores.

    Raises:
        UnsupportedValue: for any other value.
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
    if depth >= MAX_VALUE_DEPTH:
        raise UnsupportedValue(f"value nested deeper than {MAX_VALUE_DEPTH}")
    if kind in LISTS:
        return [LISTS[kind], [encode_value(item, depth + 1, ordered) for item in value]]
    if kind in SETS:
        return [SETS[kind], sorted((encode_value(item, depth + 1) for item in value), key=dumps)]
    if kind is dict or _is_dict_of_collections(kind):
        entries = [
            [encode_value(key, depth + 1), encode_value(item, depth + 1, ordered)] for key, item in dict.items(value)
        ]
        return ["dict", entries if ordered else sorted(entries, key=dumps)]
    raise UnsupportedValue(str(kind.__name__))


def _is_dict_of_collections(kind: type) -> bool:
    """Whether `kind` is one of `DICTS`. There is a value of these types only where `collections` is loaded."""
    module = sys.modules.get("collections")
    return any(kind is getattr(module, name, None) for name in DICTS)


def dumps(value: Any) -> str:
    """What `json.dumps` writes for `encode_value`'s lists, and for numbers and dicts with text keys."""
    kind = type(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if kind is int or kind is float:
        return repr(value)
    if kind is list:
        return f"[{', '.join([dumps(item) for item in value])}]"
    return f"{{{', '.join([f'{encode_basestring_ascii(key)}: {dumps(item)}' for key, item in value.items()])}}}"


def decode_value(encoded: Any, depth: int = 0) -> Any:
    """What `encode_value` wrote.

    Raises:
        ValueError, TypeError: if it did not.
    """
    if type(encoded) is not list or depth > MAX_VALUE_DEPTH:  # a dict with two keys would unpack too
        raise ValueError(f"no list, or nested deeper than {MAX_VALUE_DEPTH}")
    kind, content = encoded
    if kind in ("NoneType", "bool", "str") and type(content).__name__ == kind:
        return content
    if kind == "int":
        return int(content)
    if kind == "float":
        return float.fromhex(content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict" and type(content) is list:
        return {decode_value(key, depth + 1): decode_value(item, depth + 1) for key, item in content}
    for make, name in (*LISTS.items(), *SETS.items()):
        if kind == name and type(content) is list:
            return make([decode_value(item, depth + 1) for item in content])
    raise ValueError(f"{kind!r} is no type that travels")


def _call_function(code: CodeType | str, name: str, call: Any) -> dict[str, Any]:
    """What a call comes to. This runs the solution, in a process that can do no harm."""
    try:
        if isinstance(code, str):
            return {"raised": code, "line": None}
        module = type(sys)("solution")
        sys.modules["solution"] = module
        exec(code, module.__dict__)
        arguments, named = call
        value = module.__dict__[name](*decode_value(arguments), **decode_value(named))
        return {"value": encode_value(value)}
    except UnsupportedValue as error:
        return {"unsupported": str(error)[:100]}
    except BaseException as error:
        return {"raised": _describe_exception(error), "line": _solution_line(error)}


def _describe_exception(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return str(type(error).__name__)


def _solution_line(error: BaseException) -> int | None:
    """Where in the solution it was raised."""
    line, step = None, error.__traceback__
    while step:
        line = step.tb_lineno if step.tb_frame.f_code.co_filename == "solution.py" else line
        step = step.tb_next
    return line


def _run_call_process(code: CodeType | str, name: str, call: Any, seconds: float, answer: int) -> NoReturn:
    """The life of a call's process. All that it inherited is closed before a line of the solution runs."""
    try:
        os.setsid()
        nothing = os.open("/dev/null", os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        os.dup2(answer, ANSWER_DESCRIPTOR)
        os.closerange(ANSWER_DESCRIPTOR + 1, OPEN_FILES)
        hard = ceil(seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        report = dumps(_call_function(code, name, call)).encode()
        for begin in range(0, len(report), 4096):
            write(ANSWER_DESCRIPTOR, report[begin : begin + 4096])
    finally:
        leave(0)


def _collect_answer(code: CodeType | str, name: str, call: Any, seconds: float) -> list[Any]:
    """How a call ended (`answered`, `time`, `long` or `ended`), its answer, and its CPU seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run_call_process(code, name, call, seconds, writing)
    os.close(writing)
    report, how = _read_until_closed(reading, monotonic() + CALL_WALL_FACTOR * seconds)
    os.close(reading)
    for kill in (os.kill, os.killpg):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status, usage = os.wait4(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    if how == "answered" and ended in (-signal.SIGPROF, -signal.SIGXCPU):
        how = "time"
    elif how == "answered" and (ended != 0 or not report):
        how, report = "ended", b""
    return [how, report.decode("utf-8", "replace"), usage.ru_utime + usage.ru_stime]


def _read_until_closed(pipe: int, deadline: float) -> tuple[bytes, str]:
    """All that comes until the other end is closed, and how that went."""
    received = b""
    while len(received) <= MAX_RESULT_BYTES:
        if not select.select([pipe], [], [], max(0.0, deadline - monotonic()))[0]:
            return b"", "time"
        chunk = os.read(pipe, 65536)
        if not chunk:
            return received, "answered"
        received += chunk
    return b"", "long"


def _compile_solution(source: str) -> CodeType | str:
    try:
        return compile(source, "solution.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _describe_exception(error)


def _load_modules(code: CodeType | str) -> None:
    """Load what the program imports, as far as it is of `MODULES`; `co_names` has these names and others."""
    for name in MODULES:
        if not isinstance(code, str) and name in code.co_names:
            __import__(name)


def _collect_answers(code: CodeType | str, work: dict[str, Any]) -> list[list[Any]]:
    """Up to the first call that gives no value; with `every`, up to `MAX_LOST_CALLS` calls without an answer."""
    answers, lost = [], 0
    for call in work["calls"]:
        answers.append(_collect_answer(code, work["name"], call, work["seconds"]))
        lost += answers[-1][0] != "answered"
        if lost >= MAX_LOST_CALLS or not (work["every"] or answers[-1][1].startswith('{"value"')):
            break
    return answers


def _open_unlinked(name: str) -> int:
    """The open file `name`, already unlinked, so that no process can change its content."""
    file = os.open(name, os.O_RDONLY)
    os.unlink(name)  # noqa: PTH108  # pathlib is slow to import
    os.set_inheritable(file, True)
    return file


def main(work: dict[str, Any], arguments: Sequence[str]) -> None:
    """Make all calls of this sandbox's program, then restart from the same file with the next hash seed.

    Prints one line for each hash seed, after the run's token.
    """
    # Names of this module take precedence over builtins, so a solution that patches builtins changes nothing here.
    globals().update({name: value for name, value in vars(builtins).items() if not name.startswith("_")})
    file, turn = map(int, arguments) if arguments else (_open_unlinked("main.py"), 0)
    sys.path[:] = [folder for folder in sys.path if folder not in ("", os.getcwd())]  # noqa: PTH109
    code = _compile_solution(work["program"])
    _load_modules(code)
    answers = _collect_answers(code, work)
    write(1, f"{work['token']}{dumps(answers)}\n".encode())
    if len(answers) == len(work["calls"]) and turn + 1 < len(work["hash_seeds"]):
        environment = {**os.environ, "PYTHONHASHSEED": str(work["hash_seeds"][turn + 1])}
        os.lseek(file, 0, os.SEEK_SET)
        again = f"exec(open({file}, closefd=False).read())"
        python = sys.executable
        os.execve(python, [python, "-P", "-S", "-c", again, str(file), str(turn + 1)], environment)
