"""How long a kernel takes on one thread, roughly: what decides whether threads are worth waking for it."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering.llvm.target import Target
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent

BYTE = 10
"""Picoseconds for a byte read or written in a cache. Memory takes longer, but then there is enough to do."""
WIDE, NARROW = 4, 10
"""Picoseconds of a vector instruction for each byte of an element, with vectors of 256 bits or more, and of
128."""


def work(
    elements: Extent, instructions: int, flops: Extent, buffers: Sequence[Aval], target: Target
) -> Extent:
    """Picoseconds for `instructions` on each of `elements`, and `flops` of a contraction, over `buffers`."""
    size = max((min(a.dtype.size, 8) for a in buffers), default=4)
    each = (WIDE if target.bits >= 256 else NARROW) * size
    # fused multiply-adds count as two flops, and two of them can begin in a cycle
    total = elements * (max(instructions, 1) * each) + flops * each // 2
    for aval in buffers:
        # a gather or a slice does not read all
        total = total + BYTE * dims.minimum(aval.nbytes, elements * aval.dtype.size)
    return total
