"""Contractions: which of the nests computes one.

`gemm` packs panels of large operands, `gemm_direct` reads small ones where they lie, `gemm_thin` multiplies
few rows with a large matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ingot.lowering import loop as ir
from ingot.lowering import points as pt
from ingot.lowering.groups import Built, Memory, Pack
from ingot.lowering.kernels import gemm, gemm_direct, gemm_pack, gemm_thin
from ingot.lowering.kernels.contraction import (
    COLUMNS,
    LEFT,
    PARTS,
    RIGHT,
    ROWS,
    SUMMED,
    Plan,
    plan,
    simplified,
    unit,
)
from ingot.lowering.kernels.gemm_blocks import ROW_BLOCK, known
from ingot.lowering.llvm.target import Target
from ingot.tracer import dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.primitives.elementwise import ConvertElementType
from ingot.tracer.record import replace

NEAR = 1 << 20
"""Bytes of a right operand that stays in a second-level cache."""
LEAST = 1 << 15
"""Products that are worth the start of another kernel."""
FEW_ROWS = 6
"""Rows that share a panel too seldom."""

__all__ = ["build", "packs", "plan", "prepared", "simplified"]


_NESTS = {"direct": gemm_direct, "panels": gemm, "thin": gemm_thin}


def build(plan: Plan, name: str, target: Target, buffers: Memory) -> Built:
    """The kernel of a plan."""
    return _NESTS[plan.nest].build(plan, name, target, buffers)


def prepared(plan: Plan, target: Target, constants: frozenset[int]) -> Plan:
    """The plan with its nest chosen, and marked what kernels of their own do before: lay out rows that cannot
    be read where they lie, and columns of `constants`, for which once is enough; or add up parts of k."""
    reads = _reads(plan.right)
    constant = bool(reads) and constants.issuperset(reads)
    if suits_panels(plan, target, constant):
        plan = _in_pairs(plan, target)
        packed = [side for side, wanted in ((LEFT, not plan.in_place), (RIGHT, constant)) if wanted]
        return replace(plan, nest="panels", packed=frozenset(packed))
    if gemm_thin.suits(plan):
        parts = [PARTS] if gemm_thin.parts(plan) > 1 else []
        return replace(plan, nest="thin", packed=frozenset(parts))
    return plan


def packs(plan: Plan, target: Target, dtype_of: Callable[[int], str]) -> list[Pack]:
    """The kernels that run before, in the order in which the plan's kernel takes their buffers. `dtype_of`:
    the dtype of a graph value."""
    makers = {
        LEFT: ("pack_rows", gemm_pack.build_left, [plan.left]),
        RIGHT: ("pack_columns", gemm_pack.build_right, [plan.right]),
        PARTS: ("dot_parts", gemm_thin.build_parts, [plan.left, plan.right]),
    }
    found = []
    for side in sorted(plan.packed):
        name, make, points = makers[side]
        reads = _reads(*points)
        memory = [*((v, dtype_of(v), "read") for v in reads)]
        own = replace(plan, packed=frozenset())
        access = "readwrite" if side == PARTS else "write"
        dtype = plan.compute_dtype if side == PARTS else plan.packed_dtype
        built, count = make(own, name, target, [*memory, (side, dtype, access)])
        aval = Aval((count,), dtypes.by_short[dtype])
        found.append(Pack(side, built, tuple(reads), aval))
    return found


def _in_pairs(plan: Plan, target: Target) -> Plan:
    """The plan for an instruction that multiplies pairs of narrow numbers, where there is one for it."""
    if plan.left.dtype == "bf16" and target.has_bf16_dot:
        return replace(plan, pairs="dot_bf16")
    left, right = (_narrow(p) for p in (plan.left, plan.right))
    if left is None or right is None or not target.is_x86 or plan.last(SUMMED) is None:
        return plan
    return replace(plan, left=left, right=right, pairs="dot_i16")


def _narrow(point: pt.Point) -> pt.Point | None:
    """An integer operand as one of at most 16 bits: what wraps later may wrap before."""
    if point.dtype in ("i8", "u8", "i16", "u16"):
        return point
    if point.dtype == "i32" and isinstance(point, pt.Apply):
        (source, *_) = point.args
        if isinstance(point.primitive, ConvertElementType) and source.dtype in ("i8", "u8", "i16"):
            return source
    return None


def _reads(*points: pt.Point) -> list[int]:
    return sorted({p.value for p in pt.reachable(points) if isinstance(p, pt.Read)})


def suits_panels(plan: Plan, target: Target, constant: bool) -> bool:
    """Whether packing pays. Not where the tile reads contiguous columns from a near cache anyway, where a
    panel serves few rows, unless it is made once from a `constant`, or where lanes would stay empty."""
    if not plan.is_matrix_product:
        return False
    m, n, k = (known(plan.extent(plan.last(role))) for role in (ROWS, COLUMNS, SUMMED))
    lanes = target.lanes(plan.compute_dtype)
    if 2 * n < lanes or k < lanes:
        return False
    if constant:
        return True
    if m * n * k < LEAST:
        return False
    reads = _computed(plan, plan.left) and _computed(plan, plan.right)
    if reads and unit(plan.right, plan.last(COLUMNS)):
        sizes = plan.extent(plan.last(COLUMNS)), plan.extent(plan.last(SUMMED))
        near = all(isinstance(x, int) for x in sizes) and n * k * ir.BYTES[plan.compute_dtype] <= NEAR
        return not near and m > FEW_ROWS
    return m > FEW_ROWS


def repeats(primitive: DotGeneral, avals: Sequence[Aval], side: int) -> int | None:
    """How often a contraction copies each element of an operand (0 left, 1 right); None when it may not copy
    at all. By its shapes alone, before axes are merged."""
    left, right = ([known(x.shape[a]) for a in primitive.free(s, x.ndim)] for s, x in enumerate(avals))
    m, n = math.prod(left), math.prod(right)
    k = math.prod(known(avals[0].shape[a]) for a in primitive.contract[0])
    if len(primitive.contract[0]) != 1 or min(n, k) < 16 or m <= FEW_ROWS or m * n * k < LEAST:
        return None
    return -(-m // ROW_BLOCK) if side else 1


def _computed(plan: Plan, point: pt.Point) -> bool:
    """Whether an operand is read as what it is computed with."""
    return isinstance(point, pt.Read) and point.dtype == plan.compute_dtype
