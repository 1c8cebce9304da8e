"""Which system calls a sandbox may make: one allow-list by name, in two renderings.

Above: `sandbox.docker` hands `docker_profile()` to the engine as JSON, `sandbox.local` hands `bpf_program()` to
bubblewrap. Below: `sandbox.syscalls`, the table of numbers. This module knows nothing of either backend.

The filter is the second wall, not the first: capabilities are dropped and namespaces made before it. It takes away
the parts of the kernel that a compiler, git, Python and Node never need and where most local root exploits were
found: io_uring, eBPF, userfaultfd, key rings, ptrace, mounts, new namespaces, exotic sockets.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sandbox.syscalls import NEWEST, numbers

Json = dict[str, object]

FILES = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr
    fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr getxattrat lchown lgetxattr
    link linkat listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat
    newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv removexattr removexattrat rename renameat renameat2 rmdir sendfile setxattr setxattrat splice stat statfs
    statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes
    write writev
"""
"""Files and folders. mknod stays for mkfifo: devices need a capability that no sandbox has. vmsplice (pages shared
with a pipe, the root of several exploits) is left out, as are open_by_handle_at and name_to_handle_at."""

WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
    pipe pipe2 poll ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime
"""
"""Readiness, pipes and the old asynchronous I/O (databases use it). The new one, io_uring, is refused."""

MEMORY = """
    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease
    remap_file_pages
"""
"""A process's own memory. process_vm_readv and writev reach into others' and are left out."""

PROCESSES = """
    arch_prctl capget capset execve execveat exit exit_group fork getegid geteuid getgid getgroups getpgid getpgrp
    getpid getppid getresgid getresuid getsid gettid getuid pidfd_open pidfd_send_signal prctl rseq set_robust_list
    get_robust_list set_tid_address set_thread_area get_thread_area setfsgid setfsuid setgid setgroups setpgid
    setregid setresgid setresuid setreuid setsid setuid vfork wait4 waitid landlock_add_rule
    landlock_create_ruleset landlock_restrict_self seccomp
"""
"""Making and naming processes. The set*id calls can gain nothing without capabilities, and the engine's own start-up
uses them. seccomp and Landlock only ever take rights away. clone is below, with its condition."""

SIGNALS = """
    alarm getitimer kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo setitimer sigaltstack tgkill tkill
"""
"""Signals reach no further than the sandbox's own process namespace."""

SCHEDULING = """
    futex futex_requeue futex_wait futex_waitv futex_wake getcpu getpriority ioprio_get ioprio_set
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority
"""
"""Threads and their turns; raising a priority needs a capability."""

TIME = """
    clock_getres clock_gettime clock_nanosleep gettimeofday nanosleep time timer_create timer_delete timer_getoverrun
    timer_gettime timer_settime times
"""
"""Reading clocks and sleeping. Setting a clock would touch the host."""

SYSTEM = "getrandom getrlimit getrusage prlimit64 setrlimit sysinfo uname"
"""Questions about the machine, and a process's own limits."""

IPC = """
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
    semop semtimedop shmat shmctl shmdt shmget
"""
"""System V and POSIX queues: every sandbox has an IPC namespace of its own, and databases need shared memory."""

SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto setsockopt shutdown
"""
"""Work on a socket that exists. Which sockets may exist is decided in CONDITIONAL."""

ABSENT = "clone3 io_uring_enter io_uring_register io_uring_setup"
"""Answered "no such call" (ENOSYS), because callers then fall back: libc from clone3 to clone, whose flags a filter can
read (clone3 hides them behind a pointer); libuv and others from io_uring to epoll."""


@dataclass(frozen=True)
class OneOf:
    """Allowed when all conditions of one alternative hold; a condition is (argument index, mask, value)."""

    alternatives: tuple[tuple[tuple[int, int, int], ...], ...]


@dataclass(frozen=True)
class NoneOf:
    """Allowed unless the low 32 bits of an argument are one of `values`."""

    argument: int
    values: tuple[int, ...]


Condition = OneOf | NoneOf

WORD = 0xFFFFFFFF
"""Conditions look at 32 bits: that is what the kernel itself reads of these arguments. A comparison of all 64 could be
passed by garbage in the upper half (how TIOCSTI filters were once evaded)."""

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, NETLINK_ROUTE = 1, 2, 10, 16, 0
NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET; CLONE_NEWTIME cannot be asked of clone."""
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
"""Put typed characters into a terminal: the way out of a sandbox that was started by hand in a shell."""
PER_LINUX, PER_QUERY = 0, 0xFFFFFFFF

CONDITIONAL: Mapping[str, Condition] = {
    # The families that programs use. Netlink only for routes and only to look: getifaddrs, Node's
    # os.networkInterfaces and `ip addr` need it; changing anything would need a capability.
    "socket": OneOf(
        (
            ((0, WORD, AF_UNIX),),
            ((0, WORD, AF_INET),),
            ((0, WORD, AF_INET6),),
            ((0, WORD, AF_NETLINK), (2, WORD, NETLINK_ROUTE)),
        )
    ),
    "socketpair": OneOf((((0, WORD, AF_UNIX),),)),
    "clone": OneOf((((0, NEW_NAMESPACES, 0),),)),
    "ioctl": NoneOf(1, (TIOCSTI, TIOCLINUX)),
    # Other personalities switch off address randomisation or change what the numbers above mean.
    "personality": OneOf((((0, WORD, PER_LINUX),), ((0, WORD, PER_QUERY),))),
}

ALLOWED: tuple[str, ...] = tuple(
    sorted(
        name
        for group in (FILES, WAITING, MEMORY, PROCESSES, SIGNALS, SCHEDULING, TIME, SYSTEM, IPC, SOCKETS)
        for name in group.split()
    )
)
"""Every call that is allowed whatever its arguments."""


# --- for a container engine ------------------------------------------------------------------------------------------


def docker_profile() -> Json:
    """The allow-list as an engine's seccomp profile (`security_opt: seccomp=<this as JSON>`), x86_64 and aarch64.

    What is not listed fails with EPERM, and with ENOSYS when it is newer than the newest listed one (runc adds that
    itself). 32-bit and x32 calls are not in `archMap`, so they are refused whole.
    """
    rules: list[Json] = [{"names": list(ALLOWED), "action": "SCMP_ACT_ALLOW"}]
    for name, condition in CONDITIONAL.items():
        rules += [_docker_rule(name, alternative) for alternative in _alternatives(condition)]
    rules.append({"names": ABSENT.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": rules,
    }


def _docker_rule(name: str, alternative: Sequence[tuple[int, int, int]]) -> Json:
    """One rule: the engine joins the conditions of a rule with "and", and rules for one name with "or"."""
    conditions = [
        {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        for argument, mask, value in alternative
    ]
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": conditions}


def _alternatives(condition: Condition) -> Iterator[Sequence[tuple[int, int, int]]]:
    if isinstance(condition, OneOf):
        yield from condition.alternatives
    else:
        for mask, value in _all_but(condition.values, 31, 0, 0):
            yield ((condition.argument, mask, value),)


def _all_but(values: Sequence[int], bit: int, mask: int, prefix: int) -> Iterator[tuple[int, int]]:
    """(mask, value) pairs that match every 32-bit number except `values`: the leaves of a tree of their bits.

    An allow-list has no "not equal" that stays within 32 bits, so "not" is said as a list of what is left.
    """
    if not values:
        yield mask, prefix
    elif bit >= 0:
        for half in (0, 1 << bit):
            inside = [v for v in values if v & (1 << bit) == half]
            yield from _all_but(inside, bit - 1, mask | 1 << bit, prefix | half)


# --- for bubblewrap --------------------------------------------------------------------------------------------------

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
OFFSET_NR, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, constant) of classic BPF."""


def bpf_program(machine: str) -> bytes:
    """The allow-list as a classic BPF program for `bwrap --seccomp FD`.

    machine   as `os.uname().machine` says it; little-endian. Raises ValueError for one that has no table.

    A call of another architecture kills the process. A known call that is not listed fails with EPERM; one newer than
    the table with ENOSYS, so that libraries fall back to the older call instead of reporting a refusal.
    """
    if machine not in AUDIT_ARCH:
        raise ValueError(f"no system call table for {machine}; known: {', '.join(AUDIT_ARCH)}")
    program = [
        (LOAD, 0, 0, OFFSET_ARCH),
        (EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, OFFSET_NR),
        *_tree(_segments(numbers(machine))),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _segments(table: Mapping[str, int]) -> list[tuple[int, list[Instruction]]]:
    """(first number, what to do from there on), ascending; neighbours that do the same are one segment."""
    allow, refuse, absent = ([(RETURN, 0, 0, verdict)] for verdict in (ALLOW, FAIL | errno.EPERM, FAIL | errno.ENOSYS))
    actions: dict[int, list[Instruction]] = {table[name]: allow for name in ALLOWED if name in table}
    actions |= {table[name]: absent for name in ABSENT.split()}
    actions |= {table[name]: _check(condition) for name, condition in CONDITIONAL.items()}
    segments: list[tuple[int, list[Instruction]]] = []
    for number in range(NEWEST + 1):
        action = actions.get(number, refuse)
        if not segments or segments[-1][1] != action:
            segments.append((number, action))
    return [*segments, (NEWEST + 1, absent)]


def _tree(segments: Sequence[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """A binary search for the segment that holds the loaded number: some eight comparisons for any call."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _tree(segments[:middle]), _tree(segments[middle:])
    return [(AT_LEAST, len(below), 0, segments[middle][0]), *below, *above]


def _check(condition: Condition) -> list[Instruction]:
    refuse: Instruction = (RETURN, 0, 0, FAIL | errno.EPERM)
    allow: Instruction = (RETURN, 0, 0, ALLOW)
    if isinstance(condition, NoneOf):
        tests = [step for v in condition.values for step in ((EQUAL, 0, 1, v), refuse)]
        return [(LOAD, 0, 0, OFFSET_ARGS + 8 * condition.argument), *tests, allow]
    return [step for alternative in condition.alternatives for step in _all_of(alternative)] + [refuse]


def _all_of(alternative: Sequence[tuple[int, int, int]]) -> list[Instruction]:
    """Return ALLOW when every condition holds, else fall through to what follows."""
    steps: list[Instruction] = [(RETURN, 0, 0, ALLOW)]
    for argument, mask, value in reversed(alternative):
        load = (LOAD, 0, 0, OFFSET_ARGS + 8 * argument)
        steps = [load, (AND, 0, 0, mask), (EQUAL, 0, len(steps), value), *steps]
    return steps
