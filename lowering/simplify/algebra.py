"""Algebraic rules, one equation each. All hold bit for bit, signed zeros and NaN included.

A rule gets a `Match` and returns an operand that replaces the only result of the node, a (primitive,
operands) pair to compute it by, or None. Literals stand to the right of commutative operations before the
rules look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ingot.lowering.simplify.rewrite import Results, Rewriter, rewrite
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.facts import assume
from ingot.tracer.graph import Graph, Literal, Node, Operand
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.primitives import shape as sh
from ingot.tracer.record import record


@record
class Match:
    """A node about to be added: its primitive, new operands, and what is known of them."""

    rewriter: Rewriter
    node: Node
    primitive: Primitive
    operands: tuple[Operand, ...]
    result: Aval

    def add(self, primitive: Primitive, operands: Sequence[Operand]) -> Operand:
        """The result of a new node that stands before this one."""
        node = Node(primitive, tuple(operands), (), self.node.location, self.node.scope)
        return self.rewriter.add(node, operands)[0]

    def aval(self, i: int) -> Aval:
        return self.rewriter.builder.aval_of(self.operands[i])

    def is_literal(self, i: int, value: float) -> bool:
        """Whether operand `i` is this number (zeros: with this sign)."""
        operand = self.operands[i]
        if not isinstance(operand, Literal) or isinstance(operand.value, complex):
            return False
        return operand.value == value and (value != 0 or str(float(operand.value)) == str(float(value)))

    def same(self, i: int) -> Operand | None:
        """Operand `i`, if it has the shape and dtype of the result."""
        aval = self.aval(i)
        fits = aval.dtype is self.result.dtype and dims.same_shape(aval.shape, self.result.shape)
        return self.operands[i] if fits else None

    def below(self, i: int, cls: type[Primitive]) -> Node | None:
        """The node that computes operand `i`, when it is a `cls`."""
        node = self.rewriter.producer(self.operands[i])
        return node if node is not None and isinstance(node.primitive, cls) else None


Replacement = Operand | tuple[Primitive, Sequence[Operand]] | None
Rule = Callable[[Match], Replacement]
RULES: dict[type[Primitive], list[Rule]] = {}


def rule(*classes: type[Primitive]) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for cls in classes:
            RULES.setdefault(cls, []).append(function)
        return function

    return register


def apply_rules(graph: Graph) -> Graph:
    """Every rule at every node, operands first; a node that a rule makes is looked at again."""

    def replace(r: Rewriter, node: Node, operands: tuple[Operand, ...]) -> Results | None:
        primitive, operands = node.primitive, _literals_right(node.primitive, operands)
        for _ in range(8):
            found = _first(r, primitive, operands, node)
            if found is None:
                break
            if not isinstance(found, tuple):
                return (found,)
            primitive, operands = found[0], tuple(found[1])
        if primitive is node.primitive:
            return r.add(node, operands)
        return r.add(Node(primitive, operands, node.results, node.location, node.scope), operands)

    return rewrite(graph, replace)


def _first(r: Rewriter, primitive: Primitive, operands: tuple[Operand, ...], node: Node) -> Replacement:
    rules = RULES.get(type(primitive), ())
    foldable = bool(operands) and all(isinstance(o, Literal) for o in operands)
    if not rules and not foldable:
        return None
    with assume(r.builder.guards):
        (result,) = primitive.result_avals(tuple(r.builder.aval_of(o) for o in operands))[:1]
    match = Match(r, node, primitive, operands, result)
    if foldable and isinstance(primitive, ew.Elementwise):
        return _folded(match)
    for each in rules:
        found = each(match)
        if found is not None:
            return found
    return None


_COMMUTATIVE = (ew.Add, ew.Mul)


def _literals_right(primitive: Primitive, operands: tuple[Operand, ...]) -> tuple[Operand, ...]:
    if isinstance(primitive, _COMMUTATIVE) and isinstance(operands[0], Literal):
        return operands[1], operands[0]
    return operands


def _folded(m: Match) -> Replacement:
    """f(literals) = literal"""
    with np.errstate(all="ignore"):
        value = np.asarray(m.primitive.evaluate(*[o.numpy() for o in m.operands if isinstance(o, Literal)]))
    return Literal(value.item() if value.dtype.kind != "V" else float(value), m.result.dtype)


# -- arithmetic -------------------------------------------------------------------------------------


@rule(ew.Mul)
def mul_one(m: Match) -> Replacement:
    """x * 1 = x"""
    return m.same(0) if m.is_literal(1, 1) else None


@rule(ew.Div)
def div_one(m: Match) -> Replacement:
    """x / 1 = x"""
    return m.same(0) if m.is_literal(1, 1) else None


@rule(ew.Sub)
def sub_zero(m: Match) -> Replacement:
    """x - 0 = x"""
    return m.same(0) if m.is_literal(1, 0.0) and m.result.dtype.kind != "b" else None


@rule(ew.Add)
def add_zero(m: Match) -> Replacement:
    """x + (-0.0) = x; for integers x + 0 = x"""
    zero = -0.0 if m.result.dtype.is_floating else 0
    return m.same(0) if m.is_literal(1, zero) and m.result.dtype.kind != "c" else None


@rule(ew.Pow)
def pow_two(m: Match) -> Replacement:
    """x ** 2 = square(x); x ** 1 = x"""
    if m.is_literal(1, 2) and m.result.dtype.kind in "uif":
        return ew.Square(), (m.operands[0],)
    return m.same(0) if m.is_literal(1, 1) else None


@rule(ew.Neg)
def neg_neg(m: Match) -> Replacement:
    """-(-x) = x"""
    inner = m.below(0, ew.Neg)
    return inner.operands[0] if inner else None


@rule(ew.LogicalNot, ew.BitwiseNot)
def not_not(m: Match) -> Replacement:
    """not (not x) = x"""
    inner = m.below(0, type(m.primitive))
    return inner.operands[0] if inner else None


@rule(ew.Select)
def select_same(m: Match) -> Replacement:
    """select(c, x, x) = x"""
    return m.same(1) if m.operands[1] == m.operands[2] else None


@rule(ew.ConvertElementType)
def convert_same(m: Match) -> Replacement:
    """convert(x, dtype of x) = x"""
    return m.same(0)


@rule(ew.Identity, ew.StopGradient)
def identity(m: Match) -> Replacement:
    """identity(x) = x"""
    return m.same(0)


# -- movement ---------------------------------------------------------------------------------------


@rule(sh.BroadcastTo, sh.Reshape)
def same_shape(m: Match) -> Replacement:
    """reshape(x, shape of x) = x"""
    return m.same(0)


@rule(sh.Reshape)
def reshape_reshape(m: Match) -> Replacement:
    """reshape(reshape(x, s), t) = reshape(x, t)"""
    inner = m.below(0, sh.Reshape)
    return (m.primitive, inner.operands) if inner else None


@rule(sh.Transpose)
def transpose_transpose(m: Match) -> Replacement:
    """transpose(x, 0 1 2 ...) = x; transpose(transpose(x, p), q) = transpose(x, p[q])"""
    perm = m.primitive.perm  # type: ignore[attr-defined]
    if perm == tuple(range(len(perm))):
        return m.operands[0]
    inner = m.below(0, sh.Transpose)
    if inner is None:
        return None
    outer = tuple(inner.primitive.perm[axis] for axis in perm)  # type: ignore[attr-defined]
    return sh.Transpose(outer), inner.operands


@rule(sh.Slice)
def slice_all(m: Match) -> Replacement:
    """x[:] = x"""
    p = m.primitive
    whole = all(dims.same(start, 0) for start in p.starts) and all(step == 1 for step in p.strides)  # type: ignore[attr-defined]
    return m.same(0) if whole else None


@rule(sh.DimValue)
def dim_value(m: Match) -> Replacement:
    """dim_value(n) = n for a known n"""
    extent, dtype = m.primitive.extent, m.primitive.dtype  # type: ignore[attr-defined]
    return None if isinstance(extent, Dim) else Literal(np.asarray(m.primitive.evaluate()).item(), dtype)


@rule(rd.ReduceSum, rd.ReduceProd, rd.ReduceMax, rd.ReduceMin, rd.ReduceAll, rd.ReduceAny)
def reduce_nothing(m: Match) -> Replacement:
    """reduce(x, no axes) = x; reduce(x, axes of extent 1) = reshape(x)"""
    axes, shape = m.primitive.axes, m.aval(0).shape  # type: ignore[attr-defined]
    if not all(dims.same(shape[a], 1) for a in axes):
        return None
    return m.same(0) if m.same(0) is not None else (sh.Reshape(m.result.shape), m.operands)


@rule(rd.ReduceSum, rd.ReduceProd, rd.ReduceMax, rd.ReduceMin, rd.ReduceAll, rd.ReduceAny)
def reduce_keepdims(m: Match) -> Replacement:
    """reduce(x, axes, keepdims) = reshape(reduce(x, axes)): both forms become one sum that both can use"""
    p = m.primitive
    if not p.keepdims:  # type: ignore[attr-defined]
        return None
    return sh.Reshape(m.result.shape), (m.add(type(p)(p.axes, False), m.operands),)  # type: ignore[attr-defined,call-arg]
