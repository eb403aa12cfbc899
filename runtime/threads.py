"""How many threads run kernels, and the pool of them, which is native code (`threads_native`).

The pool is made when the first program asks for it, and its threads by the first kernel that is worth them.
Its code and memory are never given back: threads may be in it until the process ends. After a fork the pool
of the child has no threads, and makes new ones.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from ingot.lowering.llvm.target import host
from ingot.runtime import loader, native_code
from ingot.tracer import config

MOST = 256
"""Threads."""
LEAST = 6_000_000
"""Picoseconds of work that two threads may share: twice the GRAIN of the pool. Less needs no pool."""
FORKED = 20
"""The code of a kernel that finds itself in a child forked while it ran, by the handler of a signal."""
_NATIVE = "threads_native"
_MEMORY = 2048 + 512 * MOST  # SLOTS and SLOT there
_MUTEX, _CONDITION, _SIGNALS, _ATTRIBUTES = 1024, 1152, 1280, 1408
_SPIN = 50_000
_STACK = 1 << 21
_COMPILE_AFTER = 2_500_000_000
"""Picoseconds of work after which a process compiles a pool that is not in the cache. That takes 45 ms, once
for all processes; a first call of a few milliseconds should not wait for it."""
_PATIENCE = 1.0
"""Seconds to wait at exit for threads that are in the middle of a chunk."""


class Team(NamedTuple):
    """What a context needs for parallel kernels: address of `parallel_for`, of the pool, and how many threads
    take part. One thread needs neither."""

    parallel_for: int
    pool: int
    threads: int


ALONE = Team(0, 0, 1)

when_set: list[Callable[[], None]] = []
"""Called when the number of threads has been set."""

_lock = threading.RLock()  # the handler of a signal may run programs, too
_team: Team | None = None
_pool: _Pool | None = None
_wanted: int | None = None
_looked = False
_worked = 0
_trouble = ""


def get_num_threads() -> int:
    """How many threads run kernels, at most: what `set_num_threads` said, or the environment variable
    INGOT_NUM_THREADS, or one for each core that this process may use."""
    global _wanted
    if _wanted is None:
        given = config.get("INGOT_NUM_THREADS")
        if not given:
            _wanted = min(available_cores(), MOST)
        elif given.isascii() and given.isdigit() and 1 <= int(given) <= MOST:
            _wanted = int(given)
        else:
            raise ValueError(f"[config] INGOT_NUM_THREADS={given!r}: expected a number from 1 to {MOST}.")
    return _wanted


def set_num_threads(n: int) -> None:
    """Use `n` threads from the next call on. Results do not depend on it.

    Raises:
        TypeError: when `n` is no integer.
        ValueError: for `n` below 1 or above 256.
    """
    global _wanted, _team
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"[set_num_threads] expected an integer, got {n!r}.")
    if not 1 <= n <= MOST:
        raise ValueError(f"[set_num_threads] expected 1 to {MOST} threads, got {n}.")
    with _lock:
        _wanted = n
        _team = None
        if _pool is not None:
            _pool.resize(n)
    for told in when_set:
        told()


def settled() -> bool:
    """Whether `team` gives all calls the same answer until the number of threads is set again."""
    return _team is not None


def team(work: int) -> Team:
    """The threads for a call of about `work` picoseconds. They are ALONE until the pool is worth its
    compilation, when it was never compiled before."""
    if _team is not None:
        return _team
    return _find_team(work) if work >= LEAST else ALONE


def status() -> dict[str, Any]:
    """`threads`: as set; `workers`: how many exist now beside the callers, they are made when there is work;
    `pool`: `native`, `none` for one thread, or why kernels run serially. Makes the pool, to know."""
    threads = get_num_threads()
    team(_COMPILE_AFTER)
    if threads == 1:
        state = "none"
    elif _pool is None:
        state = f"serial: {_trouble}"
    else:
        code = _pool.failure()
        state = f"native, but the system refuses more threads: {os.strerror(code)}" if code else "native"
    return {"threads": threads, "workers": _pool.workers() if _pool else 0, "pool": state}


def _find_team(work: int) -> Team:
    global _team, _pool, _looked, _worked, _trouble
    with _lock:
        threads = get_num_threads()
        if threads > 1 and _pool is None and not _trouble:
            _worked += work
            try:
                image = None if _looked else native_code.stored(_NATIVE, host())
                _looked = True
                if image is None and _worked < _COMPILE_AFTER:
                    return ALONE
                _pool = _Pool(image or native_code.compiled(_NATIVE, host()), threads)
            except (OSError, MemoryError, AttributeError) as error:
                _trouble = str(error)
        _team = ALONE if threads == 1 or _pool is None else Team(_pool.parallel_for, _pool.address, threads)
        return _team


class _Pool:
    """The memory and the functions of the pool."""

    def __init__(self, image: loader.LoadedImage, threads: int) -> None:
        self.image = image
        # of the system, not of Python, which frees what it owns while it ends
        self.address = loader.map_memory(_MEMORY)
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self._resize = self._function("resize", None, pointer, number, number)
        self._stop = self._function("stop", None, pointer)
        self._reset = self._function("reset", None, pointer)
        self._workers = self._function("workers", number, pointer)
        self._failure = self._function("failure", number, pointer)
        self.parallel_for = image.address("parallel_for")
        self._prepare()
        self.resize(threads)
        atexit.register(self.stop)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(result, *arguments)(self.image.address(name))

    def _prepare(self) -> None:
        libc = _libc()
        number = _futex_number()
        functions = [
            libc.pthread_create, libc.pthread_sigmask, libc.clock_gettime,
            libc.syscall if number is not None else None,
            libc.pthread_mutex_lock, libc.pthread_mutex_unlock, libc.pthread_cond_wait,
            libc.pthread_cond_broadcast,
        ]  # fmt: skip
        addresses = [0 if f is None else ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions]
        numbers = [number or 0, time.CLOCK_MONOTONIC, signal.SIG_SETMASK]
        setup = self._function("setup", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        setup(self.address, (ctypes.c_uint64 * 8)(*addresses), (ctypes.c_int64 * 3)(*numbers))
        self._make_locks()
        libc.sigfillset(self._at(_SIGNALS))
        attributes = self._at(_ATTRIBUTES)
        libc.pthread_attr_init(attributes)
        libc.pthread_attr_setdetachstate(attributes, 2 if sys.platform == "darwin" else 1)
        libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK))

    def _make_locks(self) -> None:
        libc = _libc()
        libc.pthread_mutex_init(self._at(_MUTEX), None)
        libc.pthread_cond_init(self._at(_CONDITION), None)

    def _at(self, offset: int) -> Any:
        return ctypes.c_void_p(self.address + offset)

    def resize(self, threads: int) -> None:
        """From the next kernel on, `threads` work. More of them than cores do not spin: they would keep each
        other from working."""
        self._resize(self.address, threads, _SPIN if threads <= available_cores() else 0)

    def workers(self) -> int:
        """How many threads there are beside the callers'."""
        return self._workers(self.address)

    def failure(self) -> int:
        """The error number with which the system refused to make a thread, or 0."""
        return self._failure(self.address)

    def stop(self) -> None:
        """End the threads, at the exit of the interpreter; kernels that still run finish alone. A thread
        whose chunk takes long ends with the process."""
        self._stop(self.address)
        until = time.monotonic() + _PATIENCE
        pause = 2e-5
        while self.workers() and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, 0.01)

    def restart(self) -> None:
        """In the child of a fork: none of the threads is there."""
        self._reset(self.address)
        self._make_locks()


def _after_fork() -> None:
    """In the child, where the lock may be held by a thread that is not there."""
    global _lock
    _lock = threading.RLock()
    if _pool is not None:
        _pool.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# -- the machine ------------------------------------------------------------------------------------


@cache
def available_cores() -> int:
    """Cores that this process may use: those of its affinity, with hyperthreads counted once, and no more
    than the quota of its control groups. On macOS the performance cores."""
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or os.cpu_count() or 1
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = {_siblings(cpu) for cpu in os.sched_getaffinity(0)}
    quota = cpu_quota()
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


def _siblings(cpu: int) -> str:
    """Names the core of a processor."""
    try:
        with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
            return file.read().strip()
    except OSError:
        return str(cpu)


def cpu_quota(root: str = "/sys/fs/cgroup", groups: str = "/proc/self/cgroup") -> float | None:
    """Processors' worth of time that the control groups of this process grant, None for no limit. Groups of
    version 1 have their own hierarchy for it, mounted below `root`."""
    try:
        with open(groups) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    limits: list[float] = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers:
            limits += _limits(root, path, _quota_2)
        elif "cpu" in controllers.split(","):
            for name in dict.fromkeys((controllers, "cpu")):
                limits += _limits(os.path.join(root, name), path, _quota_1)
    return min(limits, default=None)


def _limits(mount: str, path: str, quota: Any) -> list[float]:
    """The limits of a group and of those around it; what is mounted in a container may be only its own."""
    found = []
    while True:
        limit = quota(os.path.join(mount, path.lstrip("/")))
        if limit is not None:
            found.append(limit)
        if path in ("/", ""):
            return found
        path = os.path.dirname(path)


def _quota_2(folder: str) -> float | None:
    words = _words(os.path.join(folder, "cpu.max"))
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def _quota_1(folder: str) -> float | None:
    quota = _words(os.path.join(folder, "cpu.cfs_quota_us"))
    period = _words(os.path.join(folder, "cpu.cfs_period_us"))
    return int(quota[0]) / int(period[0]) if quota and period and int(quota[0]) > 0 else None


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def _sysctl(name: str) -> int:
    value = ctypes.c_int32(0)
    size = ctypes.c_size_t(4)
    none = ctypes.c_size_t(0)
    failed = _libc().sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, none)
    return 0 if failed else value.value


def _futex_number() -> int | None:
    """The system call with which threads sleep on a word, where there is one."""
    if not sys.platform.startswith("linux"):
        return None
    return {"x86_64": 202, "aarch64": 98}.get(os.uname().machine)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
