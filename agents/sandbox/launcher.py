"""The program that builds and supervises sandboxes, one after the other, run in a fresh interpreter. Knows no task.

    python -c START_LAUNCHER launcher.py

It is read compiled, reads requests and writes answers, all with `marshal`: both ends are the same Python, and neither is the
code. It forks for each request, since a start would take longer than the sandbox. It imports next to nothing: `json`, `pathlib`,
`signal` and `typing` would take longer than all the rest.

A sandbox has three processes. The watcher (outside) limits wall time and output. The first process (init of the PID namespace)
reports how the code ended; when it exits, the kernel kills all other processes inside. The third drops all rights and
becomes the code.
"""

# pathlib is slow to import.
# ruff: noqa: PTH102, PTH103, PTH106, PTH112, PTH120, PTH123, PTH211

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import resource
import select
from math import ceil
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

    LaunchRequest = dict[str, Any]

REQUESTS, ANSWERS = 0, 1
"""The file descriptors of the caller. While a sandbox runs, anything that comes, and the end too, stops it."""
LENGTH_BYTES = 8
"""Of the length before each message."""
NOBODY = 65534
SCRATCH = "/scratch"
OPEN_FILES = 64
SCRATCH_FILES = 4096
DEVICES = ("null", "zero", "full", "random", "urandom")

# linux/mount.h, linux/sched.h, linux/prctl.h, linux/capability.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = 2, -100, 0x8000, 442
NEW_USER, NEW_MOUNT, NEW_CGROUP, NEW_UTS = 0x10000000, 0x00020000, 0x02000000, 0x04000000
NEW_IPC, NEW_PID, NEW_NET = 0x08000000, 0x20000000, 0x40000000
PDEATHSIG, DUMPABLE, SECCOMP, CAPBSET_DROP, NO_NEW_PRIVS, CAP_AMBIENT = 1, 4, 22, 24, 38, 47
SECCOMP_FILTER, AMBIENT_CLEAR_ALL, CAPABILITY_VERSION_3 = 2, 4, 0x20080522
# asm-generic/signal.h
SIGINT, SIGKILL, SIGXCPU = 2, 9, 24

libc = ctypes.CDLL(None, use_errno=True)


class MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


class FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def call_libc(what: str, function: str, *arguments: Any) -> None:
    """A function of the C library.

    Raises:
        OSError: if it fails, with `what` as its file name.
    """
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if libc[function](*wide) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _run_in_sandbox(request: LaunchRequest, launcher: int) -> dict[str, Any]:
    """Build the sandbox and run the code in it; all its processes have ended on return.

    Raises:
        OSError: if a part of the sandbox cannot be built; then nothing ran.
    """
    libc.signal(SIGINT, None)  # the default, so that not even the code's own user can interrupt the first process
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    _write_file_at(proc, "self/oom_score_adj", "1000")  # where the kernel looks first if the host runs out of memory
    as_root = os.geteuid() == 0 and _is_nobody_mapped()
    if not as_root:
        _enter_user_namespace(proc)
    namespaces = NEW_MOUNT | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
    call_libc("unshare of the mount, PID and network namespaces", "unshare", namespaces)
    call_libc("sethostname", "sethostname", b"sandbox", 7)
    _build_root_mount(request)
    call_libc("prctl", "prctl", PDEATHSIG, SIGKILL)
    if os.getppid() != launcher:  # it ended before this process could end with it
        os._exit(1)
    output, output_end = os.pipe()
    report, report_end = os.pipe()
    began = monotonic()
    first = os.fork()
    if first == 0:
        os.close(report)
        _run_init(request, proc, as_root, output_end, report_end)
    os.close(output_end)
    os.close(report_end)
    watcher = OutputWatcher(first, output, request["limits"])
    stopped = watcher.watch(began + request["limits"]["wall_seconds"])
    return build_answer(_read_descriptor(report), watcher, stopped) | {"seconds": monotonic() - began}


class OutputWatcher:
    """Reads what the code prints, and ends everything when the time, the output or the caller's patience is spent."""

    def __init__(self, first: int, output: int, limits: dict[str, Any]) -> None:
        self.kept = bytearray()
        self.first_status = 0
        self._first, self._output, self._limit = first, output, limits["output_bytes"]
        self._ended = os.pidfd_open(first)
        self._poll = select.poll()
        for descriptor in (output, REQUESTS, self._ended):
            self._poll.register(descriptor, select.POLLIN)

    def watch(self, deadline: float) -> str | None:
        """Why it was stopped, if it was."""
        stopped = None
        try:
            stopped = self._poll_until_end(deadline)
        finally:
            os.kill(self._first, SIGKILL)
            self.first_status = os.waitpid(self._first, 0)[1]  # returns once the whole PID namespace is empty
        while not stopped and self._read():
            stopped = self._exceeds_output()
        del self.kept[self._limit :]
        return stopped

    def _poll_until_end(self, deadline: float) -> str | None:
        while True:
            ready = {descriptor for descriptor, _ in self._poll.poll(max(0, ceil(1000 * (deadline - monotonic()))))}
            if REQUESTS in ready:  # it stops this sandbox, or has ended
                return "caller"
            if self._output in ready and not self._read():
                self._poll.unregister(self._output)  # closed by the code, which may keep running
            if stopped := self._exceeds_output():
                return stopped
            if self._ended in ready:
                return None
            if monotonic() >= deadline:
                return "wall time"

    def _read(self) -> bool:
        chunk = os.read(self._output, 65536)
        self.kept += chunk
        return bool(chunk)

    def _exceeds_output(self) -> str | None:
        return "output" if len(self.kept) > self._limit else None


def build_answer(report: bytes, watcher: OutputWatcher, stopped: str | None) -> dict[str, Any]:
    """The report of the first process combined with the watcher's observations."""
    answer: dict[str, Any] = {"exit_code": None, "stopped": stopped}
    for line in report.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(" ")
        if key:
            answer[key] = int(value) if key == "exit_code" else value
    if answer["stopped"]:
        answer["exit_code"] = None
    elif answer["exit_code"] is None:
        answer["exit_code"] = os.waitstatus_to_exitcode(watcher.first_status)
    return answer | {"output": watcher.kept.decode("utf-8", "replace")}


def _read_descriptor(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def _run_init(request: LaunchRequest, proc: int, as_root: bool, output: int, report: int) -> NoReturn:
    """Init of the PID namespace: gives up all rights, starts the code, and reports how it ended."""
    try:
        if as_root:
            _switch_to_nobody()
            _enter_user_namespace(proc)
        os.close(proc)
        drop_capabilities()
        call_libc("prctl", "prctl", DUMPABLE, 0)
        call_libc("prctl", "prctl", PDEATHSIG, SIGKILL)
        os.write(report, b"\n")  # fails if the watcher died before it could take this process with it
        # This process counts in the namespace; where the watcher entered it too, so does the watcher.
        _run_and_report(request, output, report, own_processes=1 if as_root else 2)
        os._exit(0)
    except BaseException as error:
        _write_report(report, "problem", _describe_error(error))
    finally:
        os._exit(1)


def _run_and_report(request: LaunchRequest, output: int, report: int, own_processes: int) -> None:
    _check_process_limit()
    code = os.fork()
    if code == 0:
        _exec_code(request, output, report, own_processes)
    os.close(output)
    while True:
        ended, status, usage = os.wait4(-1, 0)
        if ended == code:
            break
    exit_code, cpu_seconds = os.waitstatus_to_exitcode(status), request["limits"]["cpu_seconds"]
    spent = usage.ru_utime + usage.ru_stime >= cpu_seconds
    if exit_code == -SIGXCPU or (exit_code == -SIGKILL and spent):
        _write_report(report, "stopped", "cpu time")
    else:
        _write_report(report, "exit_code", exit_code)


def _check_process_limit() -> None:
    """Raises OSError if the limit on processes is not enforced, as for user id 0 of the host, whatever its id inside."""
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, before[1]))
    try:
        if os.fork() == 0:
            os._exit(0)
    except BlockingIOError:
        resource.setrlimit(resource.RLIMIT_NPROC, before)
    else:
        raise OSError(errno.ENOTSUP, "not kept for this user", "the limit on processes")


def _exec_code(request: LaunchRequest, output: int, report: int, own_processes: int) -> NoReturn:
    try:
        os.setsid()
        os.umask(0o022)
        os.chdir(SCRATCH)
        if not _write_code_files(request["files"]):
            _write_report(report, "stopped", "file size")
            os._exit(1)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _limit_resources(request["limits"], own_processes)
        load_seccomp_filter(bytes.fromhex(request["filter"]))
        os.execve(request["python"], [request["python"], *request["options"], request["main"]], request["environment"])
    except BaseException as error:
        _write_report(report, "problem", _describe_error(error))
    finally:
        os._exit(1)


def _write_report(report: int, key: str, value: object) -> None:
    """A line for `build_answer`."""
    os.write(report, f"{key} {' '.join(str(value).splitlines())}\n".encode("utf-8", "replace"))


def _describe_error(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a system call'}: {error.strerror}"
    return f"{type(error).__name__} in the launcher: {error}"


def _write_file_at(folder: int, path: str, text: str) -> None:
    try:
        file = os.open(path, os.O_WRONLY, dir_fd=folder)
        os.write(file, text.encode())
        os.close(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"writing {path}") from None


def _is_nobody_mapped() -> bool:
    """Whether `nobody` is a user here. In a namespace with root alone, who is an ordinary user outside, it is not."""
    with open("/proc/self/uid_map") as file:
        rows = [line.split() for line in file]
    return any(int(first) <= NOBODY < int(first) + int(count) for first, _, count in rows)


def _enter_user_namespace(proc: int) -> None:
    """Enter a namespace in which this process is `nobody`, whatever its user outside, and its processes are counted."""
    user, group = os.geteuid(), os.getegid()
    call_libc("unshare of the user namespace", "unshare", NEW_USER)
    _write_file_at(proc, "self/setgroups", "deny")
    _write_file_at(proc, "self/uid_map", f"{NOBODY} {user} 1")
    _write_file_at(proc, "self/gid_map", f"{NOBODY} {group} 1")


def _switch_to_nobody() -> None:
    """Root's own number would keep what belongs to root, and is exempt from the limit on processes."""
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "becoming the user nobody") from None
    call_libc("prctl", "prctl", DUMPABLE, 1)  # or the maps of the user namespace are root's to write


def drop_capabilities() -> None:
    for capability in range(64):
        if libc.prctl(CAPBSET_DROP, capability, 0, 0, 0) == -1:
            if ctypes.get_errno() == errno.EINVAL:  # beyond the kernel's last
                break
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "dropping capabilities")
    call_libc("dropping capabilities", "prctl", CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    call_libc("dropping capabilities", "capset", header, none)
    call_libc("no_new_privs", "prctl", NO_NEW_PRIVS, 1, 0, 0, 0)


def _limit_resources(limits: dict[str, Any], own_processes: int) -> None:
    megabyte = 2**20
    memory, file = limits["memory_mb"] * megabyte, limits["file_mb"] * megabyte
    cpu, processes = limits["cpu_seconds"], limits["processes"] + own_processes
    for which, soft, hard in (
        (resource.RLIMIT_CPU, cpu, cpu + 1),  # code that ignores SIGXCPU is killed a second later
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, file, file),
        (resource.RLIMIT_NPROC, processes, processes),
        (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
        (resource.RLIMIT_CORE, 1, 1),  # with 0 the kernel still calls a crash handler of the host, with 1 it does not
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        resource.setrlimit(which, (soft, hard))


def load_seccomp_filter(steps: bytes) -> None:
    program = FilterProgram(len(steps) // 8, steps)
    call_libc("seccomp", "prctl", SECCOMP, SECCOMP_FILTER, ctypes.byref(program), 0, 0)


def _write_code_files(files: dict[str, str]) -> bool:
    """Whether all of them found room."""
    try:
        for name, text in files.items():
            with open(name, "wb") as file:
                file.write(text.encode("utf-8", "surrogatepass"))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return False
        raise
    return True


def _build_root_mount(request: LaunchRequest) -> None:
    """Mount a new root in memory, read-only except for the scratch folder; the host's root is detached."""
    _mount_filesystem(None, "/", None, MS_REC | MS_PRIVATE)
    _mount_filesystem(
        "tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755"
    )  # any folder would do, to become the root
    os.mkdir("/tmp/host")
    call_libc("pivot_root", "pivot_root", b"/tmp", b"/tmp/host")
    os.chdir("/")
    for link, target in request["links"]:
        os.symlink(target, link)
    for source, target in request["shown"]:
        _bind_mount(source, target, RDONLY | NOSUID | NODEV)
    for device in DEVICES:
        _bind_mount(f"/dev/{device}", f"/dev/{device}", RDONLY | NOSUID | NOEXEC)
    _hide_folders(request["hidden"])
    _mount_scratch(request["limits"]["file_mb"])
    call_libc("umount2", "umount2", b"/host", MNT_DETACH)
    os.rmdir("/host")
    _set_mount_attributes("/", RDONLY | NOSUID | NODEV, recursive=False)


def _mount_scratch(megabytes: int) -> None:
    os.mkdir(SCRATCH)
    options = f"size={megabytes}m,nr_inodes={SCRATCH_FILES},mode=700,uid={NOBODY},gid={NOBODY}"
    _mount_filesystem("tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    for link in ("/tmp", "/dev/shm"):
        os.symlink(SCRATCH, link)


def _bind_mount(source: str, target: str, attributes: int) -> None:
    """What the host has at `source` is seen at `target` too."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(f"/host{source}"):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o666))
    _mount_filesystem(f"/host{source}", target, None, MS_BIND | MS_REC)
    _set_mount_attributes(target, attributes, recursive=True)


def _hide_folders(folders: Iterable[str]) -> None:
    for folder in folders:
        if os.path.isdir(folder):
            _mount_filesystem("tmpfs", folder, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,mode=755")


def _mount_filesystem(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    texts = [text.encode() if text else None for text in (source, target, kind, options)]
    call_libc(f"mounting {target}", "mount", *texts[:3], flags, texts[3])


def _set_mount_attributes(target: str, attributes: int, recursive: bool) -> None:
    wanted = MountAttributes(set=attributes)
    flags = AT_RECURSIVE if recursive else 0
    arguments = (AT_FDCWD, target.encode(), flags, ctypes.byref(wanted), ctypes.sizeof(wanted))
    call_libc(f"protecting {target}", "syscall", SYS_MOUNT_SETATTR, *arguments)


def _serve_requests() -> None:
    """Answer each request from a process of its own, until the caller closes its end. Writes an empty answer first."""
    launcher = os.getpid()
    write_answer(b"")
    while request := _read_request():
        watcher = os.fork()
        if watcher == 0:
            _answer_request(request, launcher)
        status = os.waitpid(watcher, 0)[1]
        if os.WIFSIGNALED(status):
            os.kill(launcher, os.WTERMSIG(status))
        elif status:
            os._exit(1)


def _answer_request(request: bytes, launcher: int) -> NoReturn:
    try:
        answer = _run_in_sandbox(marshal.loads(request), launcher)
    except OSError as failure:
        answer = {"problem": _describe_error(failure)}
    try:
        write_answer(marshal.dumps(answer))
    finally:
        os._exit(0)


def _read_request() -> bytes:
    length = int.from_bytes(read_bytes(LENGTH_BYTES), "little")
    return read_bytes(length)


def read_bytes(length: int) -> bytes:
    """That number of bytes, or fewer where the caller has closed its end."""
    received = b""
    while len(received) < length and (chunk := os.read(REQUESTS, length - len(received))):
        received += chunk
    return received


def write_answer(answer: bytes) -> None:
    message = len(answer).to_bytes(LENGTH_BYTES, "little") + answer
    while message:
        message = message[os.write(ANSWERS, message) :]


if __name__ == "__main__":
    _serve_requests()
