"""What this process runs kernels with."""

from __future__ import annotations

from typing import Any

from ingot.lowering.llvm.target import current
from ingot.runtime import dispatch, threads


def runtime_info() -> dict[str, Any]:
    """`target`: what code is made for; `threads`: how many run kernels, at most; `workers`: how many of them
    exist now, beside the callers; `pool`: `native`, `none` for one thread, or `serial: ` and the reason;
    `dispatch`: `native`, or `python: ` and the reason. Starts both, to know."""
    dispatch.start(compile=True)
    return {"target": current().key, **threads.status(), "dispatch": dispatch.status()}
