"""Lowering rules: primitive to loop IR, one file per family of `tracer.primitives`.

Elementwise primitives are expressions over lanes (`rules.elementwise`) or over points (`rules.composed`,
complex numbers among them), those that move elements are index
maps (`rules.shape`, `rules.index`), and the rest have kernels of their own (`rules.reduce`,
`rules.contract`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import loop as ir
from ingot.lowering.llvm import vecmath
from ingot.lowering.rules import (  # noqa: F401
    composed,
    contract,
    elementwise,
    index,
    random_bits,
    reduce,
    shape,
)
from ingot.lowering.rules.registry import (
    composed_rule,
    costs,
    indexed,
    limits,
    needs,
    scalar_rule,
    scalars,
    structured,
)
from ingot.tracer.aval import Aval
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.control import Call, Cond, WhileLoop
from ingot.tracer.primitives.custom import CustomFunction
from ingot.tracer.primitives.scan import ScanLoop
from ingot.tracer.primitives.shape import OptimizationBarrier

__all__ = [
    "composed_rule",
    "costs",
    "covers",
    "indexed",
    "is_lowered",
    "is_native",
    "kind_of",
    "scalar_rule",
    "scalars",
    "structured",
]

_INLINED = (Call, CustomFunction, OptimizationBarrier)  # what simplification and fusion see through
_CONTROL = (Cond, WhileLoop, ScanLoop)  # steps of a program that hold steps, see `lowering.assemble`


def is_native(cls: type[Primitive]) -> bool:
    """Whether programs run the primitive natively: in a kernel, or as control flow around kernels."""
    return cls in _CONTROL or is_lowered(cls)


def is_lowered(cls: type[Primitive]) -> bool:
    """Whether kernels compute the primitive, for the dtypes and uses its rule covers."""
    known = cls in scalars or cls in indexed or cls in structured or cls in _INLINED
    return known and all(vecmath.supports(op, "f32") for op in needs.get(cls, ()))


def covers(primitive: Primitive, avals: Sequence[Aval], results: Sequence[Aval]) -> bool:
    """Whether this use of a primitive is computed natively."""
    cls = type(primitive)
    if not is_lowered(cls):
        return False
    if cls in scalars and (composed_rule(cls, avals, results[0]) or results[0].dtype.is_complex):
        return composed_rule(cls, avals, results[0]) is not None
    limit = limits.get(cls)
    if limit is not None and not limit(primitive, avals):
        return False
    return all(vecmath.supports(op, _computed_in(avals[0])) for op in needs.get(cls, ()))


def _computed_in(aval: Aval) -> str:
    return "f32" if aval.dtype.short in ir.NARROW_FLOATS else aval.dtype.short


def kind_of(primitive: Primitive, avals: Sequence[Aval], results: Sequence[Aval]) -> str:
    """`map`, `view` (moves elements), the kind of a kernel of its own, or `host`."""
    if not covers(primitive, avals, results):
        return "host"
    cls = type(primitive)
    return "map" if cls in scalars else structured.get(cls, "view")
