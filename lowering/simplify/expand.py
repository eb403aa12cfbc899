"""Uses of primitives that no kernel computes, written in terms of others; one equation each."""

from __future__ import annotations

from collections.abc import Callable

from ingot.lowering.simplify.rewrite import Results, Rewriter, rewrite
from ingot.tracer import dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.graph import Graph, Literal, Node, Operand
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.primitives.index import Scatter

_HALF = (dtypes.float16, dtypes.bfloat16)
_SHIFT = Literal(32, dtypes.uint64)


def expand(graph: Graph) -> Graph:
    """The graph without contractions of complex numbers and without sums or products scattered in half
    precision."""
    return rewrite(graph, _replace)


def _replace(r: Rewriter, node: Node, operands: tuple[Operand, ...]) -> Results | None:
    rule = EXPANSIONS.get(type(node.primitive))
    return None if rule is None else rule(_Writer(r, node), node.primitive, operands)


class _Writer:
    """Adds nodes in the place of another one."""

    def __init__(self, rewriter: Rewriter, node: Node) -> None:
        self.rewriter, self.node = rewriter, node

    def aval(self, operand: Operand) -> Aval:
        return self.rewriter.builder.aval_of(operand)

    def add(self, primitive: Primitive, *operands: Operand) -> Operand:
        node = Node(primitive, operands, (), self.node.location, self.node.scope)
        return self.rewriter.add(node, operands)[0]

    def convert(self, x: Operand, dtype: dtypes.Dtype) -> Operand:
        return self.add(ew.ConvertElementType(dtype), x)

    def bitcast(self, x: Operand, dtype: dtypes.Dtype) -> Operand:
        return self.add(ew.Bitcast(dtype), x)

    def parts(self, z: Operand) -> tuple[Operand, Operand]:
        """Real and imaginary part: the lower and the upper half of the bits."""
        upper = self.add(ew.RightShift(), self.bitcast(z, dtypes.uint64), _SHIFT)
        im = self.bitcast(self.convert(upper, dtypes.uint32), dtypes.float32)
        return self.convert(z, dtypes.float32), im

    def joined(self, re: Operand, im: Operand) -> Operand:
        """The complex number of two parts."""
        low, high = (self.convert(self.bitcast(x, dtypes.uint32), dtypes.uint64) for x in (re, im))
        bits = self.add(ew.BitwiseOr(), low, self.add(ew.LeftShift(), high, _SHIFT))
        return self.bitcast(bits, dtypes.complex64)


def dot_of_complex(w: _Writer, dot: Primitive, operands: tuple[Operand, ...]) -> Results | None:
    """dot(a + ib, c + id) = (dot(a, c) - dot(b, d)) + i (dot(a, d) + dot(b, c))"""
    if not w.aval(operands[0]).dtype.is_complex:
        return None
    (a, b), (c, d) = (w.parts(z) for z in operands)
    re = w.add(ew.Sub(), w.add(dot, a, c), w.add(dot, b, d))
    im = w.add(ew.Add(), w.add(dot, a, d), w.add(dot, b, c))
    return (w.joined(re, im),)


def scatter_of_halves(w: _Writer, scatter: Primitive, operands: tuple[Operand, ...]) -> Results | None:
    """scatter add(x, u) = f16(scatter add(f32(x), f32(u))), for mul and bfloat16 too"""
    dtype = w.aval(operands[0]).dtype
    if dtype not in _HALF or scatter.mode not in ("add", "mul"):  # type: ignore[attr-defined]
        return None
    x, updates = (w.convert(o, dtypes.float32) for o in operands[:2])
    return (w.convert(w.add(scatter, x, updates, *operands[2:]), dtype),)


EXPANSIONS: dict[type[Primitive], Callable[[_Writer, Primitive, tuple[Operand, ...]], Results | None]] = {
    DotGeneral: dot_of_complex,
    Scatter: scatter_of_halves,
}
