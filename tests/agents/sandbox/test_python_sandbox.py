import asyncio
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from agents.sandbox.python_sandbox import (
    ENVIRONMENT,
    INTERPRETER,
    SandboxError,
    SandboxLimits,
    SandboxResult,
    run_python,
    sandbox_problem,
)
from tests.support.waiting import wait_until, wait_until_so

ROOT = Path(__file__).parents[3]
NAMES = """
import os, sys
def attempt(what, *arguments):
    try:
        print("REACHED", what(*arguments))
    except BaseException as error:
        print(type(error).__name__, getattr(error, "errno", ""))
"""
CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    print(libc[name](*wide), os.strerror(ctypes.get_errno()))
"""


@pytest.fixture(autouse=True)
def _sandbox(request: pytest.FixtureRequest) -> None:
    if (problem := sandbox_problem()) and "without" not in request.node.name:
        pytest.skip(problem)


@pytest.fixture
def name() -> Iterator[str]:
    """A name for the main file by which its processes can be found; none is left when the test ends."""
    name = f"main_{uuid4().hex}.py"
    yield name
    assert not processes(name)


def processes(name: str) -> list[Path]:
    """What runs on this machine with `name` on its command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


def run(code: str, limits: SandboxLimits = SandboxLimits(), name: str = "main.py") -> SandboxResult:  # noqa: B008
    return asyncio.run(run_python({name: code, "names.py": NAMES, "call.py": CALL}, name, limits))


async def until(name: str, count: int = 1) -> list[Path]:
    await wait_until_so(lambda: len(processes(name)) >= count)
    return processes(name)


def test_code_runs_with_its_files_and_returns_ordered_output_and_exit_code() -> None:
    files = {
        "solution.py": "def double(x):\n    return 2 * x\n",
        "tests.py": "import sys\nfrom solution import double\nprint(double(4))\nprint('é', file=sys.stderr)\n"
        "print(3)\nsys.exit(7)",
    }
    ran = asyncio.run(run_python(files, "tests.py"))
    assert (ran.exit_code, ran.output, ran.stopped) == (7, "8\né\n3\n", None)


def test_an_exit_code_of_zero_proves_nothing() -> None:
    files = {"solution.py": "import os\nos._exit(0)", "tests.py": "import solution\nassert False"}
    assert asyncio.run(run_python(files, "tests.py"))[:3] == (0, "", None)


def test_the_standard_library_works() -> None:
    modules = (
        "asyncio ctypes decimal hashlib json lzma multiprocessing sqlite3 ssl tempfile threading unittest zoneinfo"
    )
    code = f"""
import {", ".join(modules.split())}
print(sqlite3.connect("x.db").execute("select 1").fetchone(), tempfile.mkdtemp()[:9])
async def main():
    return await asyncio.to_thread(sum, [1, 2])
print(asyncio.run(main()), multiprocessing.get_context("fork").Pool(2).map(abs, [-1, -2]))
"""
    assert run(code).output == "(1,) /scratch/\n3 [1, 2]\n"


def test_two_runs_print_the_same_and_no_path_of_the_host() -> None:
    code = "import os, time\nprint({'a', 'b', 'c'}, hash('x'), os.uname().nodename, time.tzname)\nimport json\njson.loads('{')"
    first, second = run(code), run(code)
    assert first.output == second.output
    assert 'File "/scratch/main.py", line 4' in first.output
    assert 'File "/python/lib/python3' in first.output
    assert str(Path(sys.base_prefix)) not in first.output or sys.base_prefix == "/"


@pytest.mark.parametrize("text", ["x = '\ud800'", "x = 1\0", "x = ("])
def test_invalid_python_fails_as_the_codes_failure(text: str) -> None:
    ran = run(text)
    assert ran.exit_code == 1
    assert "SyntaxError" in ran.output


@pytest.mark.parametrize(
    "name",
    ["../x.py", "..", ".", "", "/x.py", "a/x.py", ".x.py", "a\0.py", "a\n.py", "a b.py", "-c", "é.py", "a" * 101],
)
def test_a_file_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="a file's name here is letters"):
        asyncio.run(run_python({"main.py": "", name: ""}, "main.py"))


def test_main_is_one_of_the_files() -> None:
    with pytest.raises(ValueError, match=r"'main\.py' is not among the files: x\.py"):
        asyncio.run(run_python({"x.py": ""}, "main.py"))


def test_files_of_the_host_are_absent(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    paths = (
        "/etc/passwd /etc/shadow /etc/hosts /root /home /proc /proc/1/environ /proc/self /sys /var /run /mnt".split()
    )
    paths += "/usr/bin /bin/sh /host /dev/tty /dev/mem /dev/pts /dev/vda".split()
    paths += [str(ROOT), sys.prefix, sys.executable, str(tmp_path), str(tmp_path / "secret")]
    code = f"from names import *\nfor path in {paths}:\n    for way in (os.stat, open, os.listdir):\n        attempt(way, path)"
    assert run(code).output == 3 * len(paths) * "FileNotFoundError 2\n"


def test_nothing_is_there_but_an_interpreter_and_the_scratch_folder() -> None:
    code = """
import os, site
print(*sorted(os.listdir("/")), "|", *sorted(os.listdir("/etc")), "|", *sorted(os.listdir("/dev")))
print(os.listdir("/python/bin"), *sorted(os.listdir()))
print([name for folder in site.getsitepackages() if os.path.isdir(folder) for name in os.listdir(folder)])
print(dict(os.environ))
fds = []
for fd in range(1024):
    try:
        os.fstat(fd)
        fds.append(fd)
    except OSError:
        pass
print(fds, os.getsid(0) == os.getpid(), os.isatty(0), os.read(0, 1))
"""
    lines = run(code).output.splitlines()
    root, etc, dev = lines[0].split(" | ")
    assert set(root.split()) <= set("dev etc lib lib32 lib64 python scratch tmp usr".split())
    assert set(etc.split()) <= {"ld.so.cache"}
    assert dev == "full null random shm urandom zero"
    assert lines[1:] == [
        f"['{INTERPRETER.name}'] call.py main.py names.py",
        "[]",
        str(ENVIRONMENT),
        "[0, 1, 2] True False b''",
    ]


def test_secrets_of_the_parent_are_not_in_any_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-of-the-parent")

    async def environments() -> list[bytes]:
        running = asyncio.create_task(run_python({name: "import time\ntime.sleep(60)"}, name))
        seen = [(process / "environ").read_bytes() for process in await until(name)]
        running.cancel()
        await asyncio.wait({running})
        return seen

    assert all(b"sk-of-the-parent" not in environment for environment in asyncio.run(environments()))


def test_only_the_scratch_folder_can_be_written() -> None:
    code = """
import os
print([folder for folder, _, _ in os.walk("/") if os.access(folder, os.W_OK)])
from names import *
for folder in ("/", "/etc", "/usr/lib", "/python/lib", "/python/bin", "/dev"):
    attempt(open, folder + "/written", "w")
attempt(os.chmod, "/usr/lib", 0o777)
attempt(os.remove, "/python/lib/" + os.listdir("/python/lib")[0])
"""
    lines = run(
        code, SandboxLimits(cpu_seconds=60, wall_seconds=300)
    ).output.splitlines()  # a loaded disk is slow to walk
    assert lines[0] == "['/scratch']"
    assert set(lines[1:]) <= {"OSError 30", "IsADirectoryError 21"}
    assert len(lines) == 9


def test_a_link_leads_nowhere_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    code = f"""
from names import *
os.symlink({str(secret)!r}, "link")
os.symlink("/" + 40 * "../" + "etc/passwd", "climb")
os.symlink("/usr/lib/written", "write")
attempt(lambda: open("link").read())
attempt(lambda: open("climb").read())
attempt(lambda: open("write", "w"))
attempt(lambda: open({40 * "../" + str(secret)[1:]!r}).read())
os.remove("main.py")
os.symlink("/etc/passwd", "main.py")
attempt(os.link, "/python/lib", "hard")
"""
    none = "FileNotFoundError 2\n"
    ran = run(code)
    assert ran.output.startswith(f"{none}{none}OSError 30\n{none}")
    assert "REACHED" not in ran.output
    assert secret.read_text() == "of the host"


def test_no_socket_reaches_the_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        server.setblocking(False)
        local.bind("\0" + uuid4().hex)
        local.listen()
        local.setblocking(False)
        code = f"""
from names import *
import socket
attempt(socket.create_connection, ("127.0.0.1", {server.getsockname()[1]}), 1)
attempt(lambda: socket.socket(socket.AF_UNIX).connect({local.getsockname()!r}))
attempt(socket.getaddrinfo, "example.org", 80)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK, 38):
    attempt(socket.socket, family, socket.SOCK_DGRAM)
a, b = socket.socketpair()
a.send(b"among ourselves")
print(b.recv(99))
"""
        lines = run(code).output.splitlines()
        for listening in (server, local):
            with pytest.raises(BlockingIOError):
                listening.accept()
    assert lines[:2] == ["PermissionError 1", "ConnectionRefusedError 111"]
    assert lines[2].startswith("gaierror")
    assert lines[3:] == 6 * ["PermissionError 1"] + ["b'among ourselves'"]


def test_every_namespace_is_its_own_and_no_right_is_left(name: str) -> None:
    """Seen from outside, so that one wall does not hide that another is missing."""

    async def look() -> tuple[list[str], dict[str, str], str]:
        running = asyncio.create_task(run_python({name: "import time\ntime.sleep(60)"}, name))
        process = (await until(name))[0]
        kinds = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
        shared = [
            kind for kind in kinds if (process / "ns" / kind).readlink() == Path("/proc/self/ns", kind).readlink()
        ]
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        limits = (process / "oom_score_adj").read_text()
        running.cancel()
        await asyncio.wait({running})
        return shared, status, limits

    shared, status, oom_score = asyncio.run(look())
    assert shared == []
    assert {status[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {16 * "0"}
    assert (status["NoNewPrivs"], status["Seccomp"], oom_score) == ("1", "2", "1000\n")
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    assert status["Uid"].split() == 4 * [str(user)]
    if os.geteuid() == 0:
        assert status["Groups"].strip() == ""


RIGHTS = """
mount b"tmpfs", b"/scratch", b"tmpfs", 0, None
umount2 b"/scratch", 2
unshare 0x10000000
unshare 0x00020000
setns 0, 0
chroot b"/scratch"
ptrace 16, 1, 0, 0
ptrace 0, 0, 0, 0
process_vm_readv 1, None, 0, None, 0, 0
memfd_create b"x", 0
shmget 0, 1 << 20, 0o1600
setuid 0
setgroups 0, None
sethostname b"x", 1
mknod b"sda", 0o60600, 0x800
reboot 0xFEE1DEAD, 672274793, 0
personality 0x0040000
nice -5
getpid
"""
"""0x10000000 is a user namespace, which would give every right in it; 16 attaches to a process, 0 asks to be traced. The
last is harmless, to tell that a call that is not refused reads differently."""


def test_what_takes_rights_is_refused() -> None:
    calls = [line.partition(" ") for line in RIGHTS.strip().splitlines()]
    ran = run("\n".join(["from call import *", *(f"call({name!r}, {arguments})" for name, _, arguments in calls)]))
    *refused, harmless = ran.output.splitlines()
    reasons = {f"-1 {os.strerror(number)}" for number in (1, 13, 22)}
    assert [name for (name, _, _), reason in zip(calls, refused, strict=False) if reason not in reasons] == []
    assert harmless.startswith("2 ")
    assert len(refused) == len(calls) - 1


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
def test_other_doors_to_the_kernel_are_shut() -> None:
    code = """
from call import *
call("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0)  # clone with a new user namespace
call("syscall", 435, 0, 0)  # clone3
call("syscall", 425, 8, 0)  # io_uring_setup
call("syscall", 9999)
call("syscall", 0x40000000 | 165, 0, 0, 0, 0, 0)  # mount by the x32 table
import mmap
room = mmap.mmap(-1, 4096, prot=7)
room.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 20 (getpid of i386); int 0x80; ret
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(room)))()
print("REACHED")
"""
    ran = run(code)
    refused, absent = "-1 Operation not permitted\n", "-1 Function not implemented\n"
    assert ran.output == refused + absent + refused + absent + absent
    assert ran.exit_code == -signal.SIGSYS


HOST_WIDE = {"x86_64": (206, 162, 306, 457, 458), "aarch64": (0, 81, 267, 457, 458)}
"""io_setup (its contexts count for the whole host), sync and syncfs (they write out every process's files), statmount and
listmount (they show the paths of the host's mounts)."""


@pytest.mark.attack(
    "sandboxed code exhausts asynchronous I/O contexts, syncs disks, reads mount paths",
    "io_setup, sync, syncfs, statmount, listmount are refused",
)
def test_calls_that_cost_or_show_the_whole_host_are_refused() -> None:
    numbers = HOST_WIDE[platform.machine()]
    ran = run("from call import *\n" + "\n".join(f"call('syscall', {number}, 0, 0, 0, 0)" for number in numbers))
    assert ran.output == "-1 Operation not permitted\n" * len(numbers)


def test_signals_reach_neither_outside_processes_nor_the_first_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        code = f"""
from names import *
import signal
attempt(os.kill, {os.getpid()}, 9)
attempt(os.kill, {bystander.pid}, 9)
attempt(os.killpg, {os.getpgid(0)}, 9)
for number in range(1, 65):
    if number not in (32, 33):
        attempt(os.kill, 1, number)
attempt(os.kill, -1, 9)
import resource
attempt(resource.prlimit, 1, resource.RLIMIT_CPU, (0, 0))
sys.exit(7)
"""
        ran = run(code)
        assert bystander.poll() is None
        bystander.kill()
    assert ran.exit_code == 7
    lines = ran.output.splitlines()
    assert lines[:3] == 3 * ["ProcessLookupError 3"]
    assert lines[-1] == "PermissionError 1"
    assert lines[-2] in ("ProcessLookupError 3", "REACHED None")  # no other process existed


def test_other_processes_are_not_seen() -> None:
    code = "import os\nfound = []\nfor pid in range(1, 70000):\n    try:\n        os.kill(pid, 0)\n        found.append(pid)\n"
    code += "    except OSError:\n        pass\nprint(found, os.getpid(), os.getppid())"
    assert run(code).output == "[1, 2] 2 1\n"


@pytest.mark.parametrize("processes_allowed", [1, 4])
def test_processes_and_threads_are_counted_exactly(processes_allowed: int, name: str) -> None:
    fork = "import os, time\nn = 1\ntry:\n    while True:\n"
    fork += "        os.fork() or time.sleep(60)\n        n += 1\n"
    thread = "import threading, time\nn = 1\ntry:\n    while True:\n"
    thread += "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n        n += 1\n"
    for code in (fork, thread):
        ran = run(
            code + "except (OSError, RuntimeError):\n    print(n)", SandboxLimits(processes=processes_allowed), name
        )
        assert (ran.output, ran.exit_code) == (f"{processes_allowed}\n", 0)


FORK_BOMB = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"


def test_a_fork_bomb_stays_small_and_ends_with_its_run(name: str) -> None:
    async def bomb() -> int:
        running = asyncio.create_task(run_python({name: FORK_BOMB}, name, SandboxLimits(processes=6, wall_seconds=600)))
        most = len(await until(name, 2))
        for _ in range(20):
            most = max(most, len(processes(name)))
            await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return most

    assert asyncio.run(bomb()) <= 6
    assert not processes(name)


def test_a_fork_bomb_ends_with_the_wall_time(name: str) -> None:
    ran = run(FORK_BOMB, SandboxLimits(processes=6, wall_seconds=1), name)
    assert (ran.exit_code, ran.stopped) == (None, "wall time")
    assert not processes(name)


def test_the_limit_on_processes_is_each_runs_own(name: str) -> None:
    code = "import os, time\nfor _ in range(2):\n    if os.fork() == 0:\n        time.sleep(60)\ntime.sleep(.3)\nprint('all')"

    async def several() -> list[SandboxResult]:
        return await asyncio.gather(*(run_python({name: code}, name, SandboxLimits(processes=3)) for _ in range(4)))

    assert [ran.output for ran in asyncio.run(several())] == 4 * ["all\n"]


@pytest.mark.parametrize(
    "bomb",
    [
        "x = bytearray(10**10)",
        "x = []\nwhile True:\n    x.append(bytearray(2**20))",
        "x = 'a'\nwhile True:\n    x += x",
        "import mmap\nx = mmap.mmap(-1, 2**29)",
        "def f(): f()\nimport sys\nsys.setrecursionlimit(10**9)\nx = [None] * 2**30",
    ],
)
def test_memory_is_bounded(bomb: str) -> None:
    ran = run(bomb, SandboxLimits(memory_mb=128))
    assert ran.exit_code == 1
    assert "MemoryError" in ran.output or "Cannot allocate memory" in ran.output


def test_endless_output_is_cut_at_the_limit(name: str) -> None:
    ran = run("while True:\n    print('x' * 1000)", SandboxLimits(output_bytes=10_000), name)
    assert (ran.exit_code, ran.stopped, len(ran.output)) == (None, "output", 10_000)


@pytest.mark.parametrize("silent", [True, False])
def test_output_at_the_limit_is_whole_and_a_byte_more_is_not(silent: bool) -> None:
    end = "" if silent else "print(1, end='')"
    ran = run(f"print('x' * 100_000, end='')\n{end}", SandboxLimits(output_bytes=100_000))
    assert (ran.stopped, len(ran.output)) == (None if silent else "output", 100_000)


def test_output_that_is_not_utf8_is_replaced() -> None:
    assert run("import os\nos.write(1, b'a\\xff\\0b\\n')").output == "a\ufffd\0b\n"


@pytest.mark.parametrize("guard", ["", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"])
def test_cpu_time_is_bounded(guard: str, name: str) -> None:
    ran = run(guard + "while True:\n    pass", SandboxLimits(cpu_seconds=1, wall_seconds=600), name)
    assert (ran.exit_code, ran.stopped) == (None, "cpu time")


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(60)",
        "import os, time\nos.close(0); os.close(1); os.close(2)\ntime.sleep(60)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import signal, time\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n    except OSError:\n"
        "        pass\nwhile True:\n    time.sleep(1)",
        "import sys\nsys.stdin.read()\nimport threading\nthreading.Event().wait()",
    ],
)
def test_wall_time_is_bounded(code: str, name: str) -> None:
    ran = run(code, SandboxLimits(wall_seconds=0.3), name)
    assert (ran.exit_code, ran.output, ran.stopped) == (None, "", "wall time")
    assert ran.seconds >= 0.3


def test_what_was_printed_before_the_end_is_kept() -> None:
    assert run("print('so far')\nimport time\ntime.sleep(60)", SandboxLimits(wall_seconds=5)).output == "so far\n"


@pytest.mark.parametrize(
    "code",
    [
        "open('x', 'wb').truncate(10**12)",
        "open('x', 'wb').write(bytes(5 * 2**20))",
        "for n in range(5):\n    open(f'x{n}', 'wb').write(bytes(2**20))",
        "import os\nfor n in range(10_000):\n    os.mkdir(str(n))",
        "files = [open(f'x{n}', 'w') for n in range(100)]",
    ],
)
def test_files_are_bounded(code: str) -> None:
    ran = run(code, SandboxLimits(file_mb=4))
    assert ran.exit_code == 1
    assert "OSError" in ran.output


def test_files_that_do_not_fit_are_reported_and_nothing_runs() -> None:
    ran = run("print('ran')\n#" + "x" * 2**20, SandboxLimits(file_mb=1))
    assert ran[:3] == (None, "", "file size")


@pytest.mark.parametrize(
    "daemon",
    [
        "os.setsid()\n    time.sleep(60)",
        "os.setsid()\n    if os.fork():\n        os._exit(0)\n    os.close(0); os.close(1); os.close(2)\n    time.sleep(60)",
        "import signal\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\n    while True:\n        pass",
    ],
)
def test_a_daemon_ends_with_the_code_that_left_it(daemon: str, name: str) -> None:
    ran = run(f"import os, time\nif os.fork() == 0:\n    {daemon}\ntime.sleep(.1)\nprint('done')", name=name)
    assert ran[:3] == (0, "done\n", None)
    assert not processes(name)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import os\nos.close(1)\nos.close(2)\nimport time\ntime.sleep(.1)\nos._exit(5)", 5),
        ("import sys\nsys.exit(10**30)", 255),
        ("import sys\nsys.exit('a sentence')", 1),
        ("import os\nos.abort()", -signal.SIGABRT),
        ("import os\nos.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import ctypes\nctypes.string_at(0)", -signal.SIGSEGV),
        ("exit()", 0),
    ],
)
def test_every_exit_is_reported_correctly(code: str, exit_code: int) -> None:
    ran = run(code)
    assert (ran.exit_code, ran.stopped) == (exit_code, None)


def test_limits_cannot_be_raised() -> None:
    code = """
from names import *
import resource
for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    attempt(resource.setrlimit, which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    assert run(code).output == 5 * "ValueError \n"


def test_cancelled_runs_leave_no_process(name: str) -> None:
    async def cancel() -> None:
        running = [
            asyncio.create_task(run_python({name: "import os\nos.fork()\nwhile True:\n    pass"}, name))
            for _ in range(9)
        ]
        await until(name, 2)
        for task in running:
            task.cancel()
        await asyncio.sleep(0)
        for task in running:
            task.cancel()  # a second one is not to leave earlier
        ended = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        assert not processes(name)

    asyncio.run(cancel())


def test_nothing_outlives_a_killed_parent(name: str) -> None:
    code = f"""
import asyncio
from agents.sandbox.python_sandbox import run_python
asyncio.run(run_python({{{name!r}: "while True: pass"}}, {name!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        asyncio.run(until(name, 2))  # the parent has the name on its own command line
        parent.kill()
    wait_until(lambda: not processes(name))


def test_no_process_outlives_a_killed_launcher_and_it_gives_no_result(name: str) -> None:
    async def kill() -> None:
        running = asyncio.create_task(run_python({name: "while True: pass"}, name))
        await until(name)
        own = [path for path in processes("launcher.py") if f"PPid:\t{os.getpid()}\n" in (path / "status").read_text()]
        for launcher in own:  # others wait for the next sandbox
            os.kill(int(launcher.name), signal.SIGKILL)
        with pytest.raises(SandboxError, match="launcher ended with -9"):
            await running
        await wait_until_so(lambda: not processes(name))

    asyncio.run(kill())


def test_at_most_one_sandbox_per_core_runs_in_all_event_loops() -> None:
    code = "import time\nbegan = time.monotonic()\ntime.sleep(.1)\nprint(began, time.monotonic())"
    outputs: list[str] = []

    async def several() -> None:
        outputs.extend(
            ran.output for ran in await asyncio.gather(*(run_python({"m.py": code}, "m.py") for _ in range(5)))
        )

    loops = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    spans = [tuple(map(float, output.split())) for output in outputs]
    assert len(spans) == 10
    assert max(sum(a <= began < b for a, b in spans) for began, _ in spans) <= (os.cpu_count() or 1)


def test_nothing_of_a_run_is_left_on_the_host() -> None:
    left, mounts, files = uuid4().hex, Path("/proc/self/mounts").read_text().count("scratch"), open_files()
    run(f"for folder in ('', '/tmp/', '/dev/shm/'):\n    open(folder + {left!r}, 'w').write('x')")
    assert not [folder for folder in ("/scratch", "/tmp", "/dev/shm", ".") if Path(folder, left).exists()]
    assert (Path("/proc/self/mounts").read_text().count("scratch"), open_files()) == (mounts, files)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


FILTERED = """  # as in a container with the usual seccomp profile
libc.prctl(38, 1, 0, 0, 0)
from agents.sandbox.launcher import load_seccomp_filter
from agents.sandbox.system_calls import build_seccomp_filter
load_seccomp_filter(build_seccomp_filter(os.uname().machine))
"""
NO_RIGHTS = """
from agents.sandbox.launcher import drop_capabilities
drop_capabilities()
"""
NO_USER_NAMESPACES = """
enter(1000)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
"""


@pytest.mark.parametrize(
    ("take_away", "missing", "of_root"),
    [
        (FILTERED, "Operation not permitted", False),
        (NO_USER_NAMESPACES, "unshare of the user namespace: No space left on device", False),
        (NO_RIGHTS, "unshare of the mount, PID and network namespaces: Operation not permitted", True),
        (
            "enter(0)",
            "the limit on processes: not kept for this user",
            True,
        ),  # Linux counts no process of the host's root
        ("enter(1000)", "the limit on processes: not kept for this user", True),  # ... under whatever name
    ],
)
def test_without_a_sandbox_the_error_names_what_is_missing_and_nothing_runs(
    take_away: str, missing: str, of_root: bool, tmp_path: Path
) -> None:
    if of_root and os.geteuid() != 0:
        pytest.skip("can only be taken away from root")
    code = f"""
import asyncio, ctypes, os
from agents.sandbox.python_sandbox import SandboxError, run_python, sandbox_problem
libc = ctypes.CDLL(None, use_errno=True)
def enter(user):
    outside, group = os.geteuid(), os.getegid()
    assert libc.unshare(0x10000000) == 0, "this needs user namespaces"
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"{{user}} {{outside}} 1")
    open("/proc/self/gid_map", "w").write(f"{{user}} {{group}} 1")
{take_away}
try:
    print(asyncio.run(run_python({{"main.py": "open({str(tmp_path / "ran")!r}, 'w')"}}, "main.py")))
except SandboxError as error:
    assert str(error) == sandbox_problem()
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if "this needs user namespaces" in done.stderr:
        pytest.skip("user namespaces cannot be made here")
    assert done.stdout.startswith("no sandbox can be had here: "), done
    assert missing in done.stdout
    assert "user.max_user_namespaces" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not list(tmp_path.iterdir())


AS_ORDINARY_USER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0 and libc.mount(None, b"/", None, ctypes.c_ulong(0x44000), None) == 0
for source, target in zip(sys.argv[2::2], sys.argv[3::2]):
    assert libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(0x5000), None) == 0
os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
place = sys.argv[1]
os.chdir(place + "/project")
os.environ |= {"LD_LIBRARY_PATH": place + "/prefix/lib", "PYTHONPATH": place + "/packages", "HOME": place,
               "TMPDIR": place + "/tmp", "PYTHONDONTWRITEBYTECODE": "1"}
for name in [name for name in os.environ if name.startswith(("PYTEST_", "ONE_CORE"))]:
    del os.environ[name]  # of the test run around this one
python = place + "/prefix/bin/" + os.path.basename(os.path.realpath(sys.executable))
os.execv(python, [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "tests/agents/sandbox/test_python_sandbox.py"])
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_of_this_holds_for_an_ordinary_user() -> None:
    """This file again, by a user without rights who sees the interpreter and the project at other places."""
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user")
    place = Path(tempfile.mkdtemp())
    try:
        place.chmod(0o755)
        for folder in ("prefix", "project", "packages", "tmp"):
            (place / folder).mkdir()
        (place / "tmp").chmod(0o777)
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        mounts = [Path(sys.base_prefix), place / "prefix", ROOT, place / "project", Path(packages), place / "packages"]
        done = subprocess.run([sys.executable, "-c", AS_ORDINARY_USER, place, *mounts], capture_output=True, text=True)
    finally:
        shutil.rmtree(place)
    if "no sandbox can be had here" in done.stdout.rpartition("short test summary")[2]:
        pytest.skip("an ordinary user can have no sandbox here")
    assert done.returncode == 0, done.stdout + done.stderr
