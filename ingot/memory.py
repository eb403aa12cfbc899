"""Figures and limits of the buffer pool that results come from (those of 4 KiB and less are not counted)."""

from __future__ import annotations

from typing import Any

from ingot.runtime.storage import pool
from ingot.tracer.array import array
from ingot.tracer.tree import leaves


def get_active_memory() -> int:
    """Bytes of the buffers in use. Compiled functions keep their last results of at most 1 MiB, up to 32 MiB
    in all, until `clear_cache`."""
    return pool.active_bytes


def get_peak_memory() -> int:
    """The most bytes that were in use since the start or `reset_peak_memory`."""
    return pool.peak_bytes


def reset_peak_memory() -> None:
    """Begin a new peak with what is in use now."""
    pool.peak_bytes = pool.active_bytes


def get_cache_memory() -> int:
    """Bytes of the buffers kept for later results."""
    return pool.free_bytes


def clear_cache() -> None:
    """Give the kept buffers back to the system."""
    pool.clear()


def set_cache_limit(limit: int) -> int:
    """Set how many bytes of buffers are kept at most; the limit before."""
    before, pool.limit = pool.limit, _bytes("set_cache_limit", limit)
    if pool.free_bytes > pool.limit:
        pool.clear()
    return before


def get_memory_limit() -> int:
    """Bytes in use and kept together, above which no more are kept."""
    return pool.memory_limit


def set_memory_limit(limit: int) -> int:
    """Set how many bytes may be in use and kept together before buffers go back to the system; the limit
    before. Results that are needed are allocated in any case."""
    before, pool.memory_limit = pool.memory_limit, _bytes("set_memory_limit", limit)
    if pool.active_bytes + pool.free_bytes > pool.memory_limit:
        pool.clear()
    return before


def set_wired_limit(limit: int) -> int:
    """Memory that a GPU keeps resident: nothing on a CPU, so the limit is 0 before and after."""
    _bytes("set_wired_limit", limit)
    return 0


def _bytes(name: str, limit: int) -> int:
    if not isinstance(limit, int) or limit < 0:
        raise TypeError(f"[{name}] a limit is a number of bytes, got {limit!r}.")
    return limit


def get_array_buffer_size(*args: Any) -> int:
    """Bytes of the memory behind the arrays in `args`, nested in containers or not; each memory counts once.

    Raises:
        ValueError: when an array is not evaluated.
    """
    found = {}
    for x in leaves(args):
        if isinstance(x, array):
            storage = getattr(x._value, "storage", None)
            if storage is None:
                raise ValueError(
                    "[get_array_buffer_size] Arrays must be evaluated before querying buffer size."
                )
            found[id(storage)] = storage.nbytes
    return sum(found.values())
