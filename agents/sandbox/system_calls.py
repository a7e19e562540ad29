"""The system calls that code in the sandbox may not make, as a seccomp filter. Knows no process and no file.

Namespaces limit what a call can reach; this filter refuses calls that escape them: other namespaces, tracing, memory that
no limit counts, sockets outside network namespaces (vsock), and all calls newer than this table.
"""

import errno
import struct
from typing import NamedTuple

DENIED = """
    ptrace 101 117              process_vm_readv 310 270    process_vm_writev 311 271   kcmp 312 272
    pidfd_getfd 438 438         process_madvise 440 440     perf_event_open 298 241     bpf 321 280
    userfaultfd 323 282         io_uring_setup 425 425      io_uring_enter 426 426      io_uring_register 427 427
    unshare 272 97              setns 308 268               chroot 161 51               pivot_root 155 41
    mount 165 40                umount2 166 39              move_mount 429 429          open_tree 428 428
    fsopen 430 430              fsconfig 431 431            fsmount 432 432             fspick 433 433
    mount_setattr 442 442       name_to_handle_at 303 264   open_by_handle_at 304 265   fanotify_init 300 262
    keyctl 250 219              add_key 248 217             request_key 249 218         memfd_create 319 279
    memfd_secret 447 447        shmget 29 194               msgget 68 186               semget 64 190
    mq_open 240 180             init_module 175 105         finit_module 313 273        delete_module 176 106
    kexec_load 246 104          kexec_file_load 320 294     reboot 169 142              swapon 167 224
    swapoff 168 225             syslog 103 116              acct 163 89                 quotactl 179 60
    quotactl_fd 443 443         settimeofday 164 170        clock_settime 227 112       adjtimex 159 171
    clock_adjtime 305 266       sethostname 170 161         setdomainname 171 162       personality 135 92
    vhangup 153 58              lookup_dcookie 212 18       mbind 237 235               set_mempolicy 238 237
    migrate_pages 256 238       move_pages 279 239          iopl 172 -                  ioperm 173 -
    modify_ldt 154 -            vmsplice 278 75             io_setup 206 0              sync 162 81
    syncfs 306 267              statmount 457 457           listmount 458 458
"""
"""Name, number on x86_64, number on aarch64 (Linux's `unistd.h`). `memfd_*`, `shmget`, `msgget`, `semget`, `mq_open`
and `vmsplice` make or keep memory that no process has mapped, so that RLIMIT_AS does not bound it. `io_setup` takes from a
number that all processes of the host share, `sync` and `syncfs` write out the host's files, `statmount` and `listmount` show
the paths of its mounts."""
NEWEST_CALL = 462
"""`mseal` of Linux 6.10. Newer calls have one number on all machines and fail with ENOSYS, as on an older kernel. So does
x86_64's second table of calls, whose numbers begin at 2^30."""
NEW_NAMESPACES = 0x7E020000
"""The CLONE_NEW* flags of `clone`. `clone3` passes its flags by pointer, so it fails with ENOSYS, and C libraries use
`clone` instead."""
AF_UNIX = 1

LOAD, EQUAL, GREATER, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # offsets in `struct seccomp_data`, little-endian
KILL, ALLOW, ERROR = 0x80000000, 0x7FFF0000, 0x00050000
REFUSE, NOT_IMPLEMENTED = ERROR | errno.EPERM, ERROR | errno.ENOSYS


class MachineCalls(NamedTuple):
    audit_arch: int
    column: int
    clone: int
    clone3: int
    sockets: tuple[int, int]
    """`socket` and `socketpair`."""
    prlimit: int
    """Allowed for the caller itself, process 0: the first process has the same user, and different limits."""


MACHINES = {
    "x86_64": MachineCalls(0xC000003E, 1, clone=56, clone3=435, sockets=(41, 53), prlimit=302),
    "aarch64": MachineCalls(0xC00000B7, 2, clone=220, clone3=435, sockets=(198, 199), prlimit=261),
}


def build_seccomp_filter(machine: str) -> bytes:
    """The filter for a machine of `MACHINES`, as an array of `struct sock_filter`."""
    known = MACHINES[machine]
    steps = [
        _filter_step(LOAD, ARCH_AT), _filter_step(EQUAL, known.audit_arch, 1, 0), _filter_step(RETURN, KILL),
        _filter_step(LOAD, NUMBER_AT), _filter_step(GREATER, NEWEST_CALL, 0, 1), _filter_step(RETURN, NOT_IMPLEMENTED),
        _filter_step(EQUAL, known.clone3, 0, 1), _filter_step(RETURN, NOT_IMPLEMENTED),
    ]  # fmt: skip
    for number in _list_denied_calls(machine):
        steps += [_filter_step(EQUAL, number, 0, 1), _filter_step(RETURN, REFUSE)]
    steps += _refuse_by_argument(known.clone, _filter_step(ANY_BIT, NEW_NAMESPACES, 0, 1))
    for socket in known.sockets:
        steps += _refuse_by_argument(socket, _filter_step(EQUAL, AF_UNIX, 1, 0))
    steps += _refuse_by_argument(known.prlimit, _filter_step(EQUAL, 0, 1, 0))
    return b"".join([*steps, _filter_step(RETURN, ALLOW)])


def _list_denied_calls(machine: str) -> list[int]:
    words = DENIED.split()
    column = words[MACHINES[machine].column :: 3]
    return [int(number) for number in column if number != "-"]


def _refuse_by_argument(number: int, refused_where: bytes) -> list[bytes]:
    """The call is refused if the test of its first argument falls through, and allowed if it jumps one step."""
    return [
        _filter_step(EQUAL, number, 0, 4),
        _filter_step(LOAD, FIRST_ARGUMENT_AT),
        refused_where,
        _filter_step(RETURN, REFUSE),
        _filter_step(RETURN, ALLOW),
    ]


def _filter_step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
