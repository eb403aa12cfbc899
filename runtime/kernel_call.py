"""Calls single kernels on NumPy arrays: what tests, benchmarks and the command line use to try generated
code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from ingot.lowering import abi

WHOLE = (1 << 63) - 1


def call_kernel(
    address: int,
    buffers: Sequence[np.ndarray],
    params: Sequence[int] = (),
    begin: int = 0,
    end: int = WHOLE,
    workspace: int = 0,
    scratch: int = 0,
    poll: Callable[[], int] | None = None,
) -> tuple[int, tuple[int, ...]]:
    """Run the kernel at `address` over [begin, end) of its parallel loop, with `workspace` and `scratch`
    bytes of memory. Buffers are taken as they lie in memory and must have the kernel's dtypes. Returns
    the code and the four values of the error record (zeros on success)."""
    shared = -(-workspace // 64) * 64
    memory = np.empty(shared + scratch + 64, np.uint8)
    aligned = -(-memory.ctypes.data // 64) * 64
    error = abi.error_type()()
    callback = None if poll is None else ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(lambda _: poll())
    context = abi.context_type()(
        version=abi.CONTEXT_VERSION,
        size=abi.CONTEXT_SIZE,
        workspace=aligned,
        scratch=aligned + shared,
        scratch_bytes=scratch,
        error=ctypes.addressof(error),
        poll=callback and ctypes.cast(callback, ctypes.c_void_p).value,
    )
    pointers = (ctypes.c_void_p * max(1, len(buffers)))(*(b.ctypes.data for b in buffers))
    scalars = (ctypes.c_int64 * max(1, len(params)))(*params)
    code = abi.kernel_type()(address)(ctypes.addressof(context), pointers, scalars, begin, end)
    return code, tuple(error.values)
