"""Memory for results and workspace: 64-byte aligned, recycled by size.

Fresh pages cost more than the memory traffic of a simple kernel, so buffers return to a pool when their
last user is gone. A buffer is a NumPy array over an anonymous map; the finaliser of the array that views it
brings it back.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np

ALIGNMENT = 64
HUGE_PAGE = 1 << 21
"""Buffers from this size on ask for huge pages, where the system has them."""
_SMALL = 1 << 12
"""Below, NumPy's allocator is as good."""


def size_class(nbytes: int) -> int:
    """The size a buffer of `nbytes` gets: at most an eighth more, so that near sizes share buffers."""
    if nbytes <= _SMALL:
        return _SMALL
    step = 1 << max(12, (nbytes - 1).bit_length() - 4)
    return -(-nbytes // step) * step


class Pool:
    """Free buffers by size class: at most `limit` bytes of them, and at most what those in use leave of
    `memory_limit`. Thread-safe."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.memory_limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.free_bytes = 0
        self.active_bytes = 0
        self.peak_bytes = 0
        self._free: dict[int, list[mmap.mmap]] = {}
        self.when_cleared: list[Callable[[], None]] = []
        """Called before all free buffers are given back."""
        # finalisers run in the garbage collector, possibly while this thread holds the lock
        self._lock = threading.RLock()

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """An uninitialised row-contiguous array; raises MemoryError when the system has no memory."""
        count = 1
        for extent in shape:
            count *= extent
        nbytes = count * dtype.itemsize
        if nbytes <= _SMALL:
            return _aligned_empty(shape, dtype, nbytes)
        size = size_class(nbytes)
        memory = self._take(size)
        root = np.frombuffer(memory, np.uint8)
        weakref.finalize(root, self._give, size, memory).atexit = False
        return root[:nbytes].view(dtype).reshape(shape)

    def clear(self) -> None:
        """Give all free buffers back to the system."""
        for told in self.when_cleared:
            told()
        with self._lock:
            self._free.clear()
            self.free_bytes = 0

    def _take(self, size: int) -> mmap.mmap:
        with self._lock:
            self.active_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.active_bytes)
            found = self._free.get(size)
            if found:
                self.free_bytes -= size
                return found.pop()
        try:
            # private, or a forked child would write into the memory of its parent
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            with self._lock:
                self.active_bytes -= size
            raise MemoryError(f"[memory] cannot get {size} bytes: {error}") from None
        if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                memory.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                pass  # a kernel without huge pages
        return memory

    def _give(self, size: int, memory: mmap.mmap) -> None:
        with self._lock:
            self.active_bytes -= size
            left = self.memory_limit - self.active_bytes
            if self.free_bytes + size <= (self.limit if self.limit < left else left):
                self._free.setdefault(size, []).append(memory)
                self.free_bytes += size


def _aligned_empty(shape: Sequence[int], dtype: np.dtype, nbytes: int) -> np.ndarray:
    root = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -root.__array_interface__["data"][0] % ALIGNMENT
    return root[start : start + nbytes].view(dtype).reshape(shape)


pool = Pool()
"""The pool that all results come from."""


def _renew_lock() -> None:
    """After a fork: another thread of the parent, which the child does not have, may have held it."""
    pool._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
