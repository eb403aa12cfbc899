"""Native functions for `test_threads`: a kernel that writes down how it is called, and its caller."""

# ruff: noqa: F821
from __future__ import annotations

from collections.abc import Callable

from ingot.lowering.native.language import (
    Pointer,
    Struct,
    address,
    at,
    atomic_add,
    cast,
    i32,
    i64,
    native,
    null,
    pause,
    ptr,
)
from ingot.runtime.threads_native import Context

FAILED = 7


class Caller(Struct):
    parallel_for: Callable[[Context, ptr, ptr, ptr, i64, i64], i32] = at(40)


@native
def count(
    context: Context, buffers: Pointer[Pointer[i64]], params: Pointer[i64], begin: i64, end: i64
) -> i32:
    """Visit the indices [begin, end), each for `params[0]` turns, after asking whether to go on. The buffers
    are: visits of each index, whether it shall fail, and calls in all, nested ones, and kernels that were
    told to stop. A thread counts its visits in its scratch."""
    visits = buffers[0]
    fails = buffers[1]
    totals = buffers[2]
    mine = cast(Pointer[i64], context.scratch)
    atomic_add(address(totals[0]), 1)
    if context.parallel_for != null:
        atomic_add(address(totals[1]), 1)
    for i in range(begin, end):
        atomic_add(address(visits[i]), 1)
        mine[0] += 1
        for _ in range(params[0]):
            pause()
        if fails[i] != 0:
            context.error.code = FAILED
            context.error.value0 = i
            context.error.value3 = i * i
            return FAILED
        if context.poll != null:
            code = context.poll(context)
            if code != 0:
                atomic_add(address(totals[2]), 1)
                return code
    return 0


@native
def repeat(
    context: Context, kernel: ptr, buffers: ptr, params: ptr, extent: i64, work: i64, times: i64
) -> i64:
    """How many of `times` parallel loops failed."""
    bad = 0
    for _ in range(times):
        if cast(Caller, context).parallel_for(context, kernel, buffers, params, extent, work) != 0:
            bad += 1
    return bad
