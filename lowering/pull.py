"""From graph values to point expressions: what an element of a value is, down to the buffers that are
read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from ingot.lowering import rules
from ingot.lowering.points import ZERO, Place, Point, Points, broadcast_index, linear
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph, Literal, Node, Operand
from ingot.tracer.primitives.shape import OptimizationBarrier, Reshape
from ingot.tracer.record import record

Index = tuple[Place, ...]
Masks = tuple[Point, ...]


@record
class Request:
    """An element of an operand that a rule asks for; where a mask is false, it may be anything."""

    operand: int
    index: Index
    masks: Masks


@record
class Site:
    """What a rule of `rules.shape` sees: the table of points, operand and result avals, and the masks in
    force."""

    points: Points
    avals: tuple[Aval, ...]
    result: Aval
    masks: Masks

    def ask(self, index: Sequence[Place], operand: int = 0, masks: Masks | None = None) -> Request:
        return Request(operand, tuple(index), self.masks if masks is None else masks)


Pulling = Generator[Request, Point, Point]
Stop = Callable[[int, Index], Point | None]
"""The point of a value that is in registers, at an index; None for other values."""


class Puller:
    """Makes the points of one kernel. `stored` values are read from their buffers, all others are
    computed."""

    def __init__(self, graph: Graph, points: Points, stored: Callable[[int], bool], held: Stop) -> None:
        self.graph, self.points, self.stored, self.held = graph, points, stored, held
        self.producers = producers(graph)
        self._memo: dict[tuple[Any, ...], Point] = {}

    def pull(self, operand: Operand, index: Sequence[Place], masks: Masks = ()) -> Point:
        """The point of `operand` at `index`. Iterative: chains may be longer than Python's stack."""
        stack: list[tuple[tuple[Any, ...], Node, Pulling]] = []
        wanted: tuple[Operand, Index, Masks] | None = (operand, tuple(index), masks)
        answer: Point | None = None
        while True:
            if wanted is not None:
                key = _key(*wanted)
                answer = self._memo.get(key) or self._known(*wanted)
                if answer is None:
                    node = self.producers[wanted[0]]  # type: ignore[index]
                    stack.append((key, node, self._rule(node, *wanted)))  # type: ignore[arg-type]
                else:
                    self._memo[key] = answer
            if not stack:
                assert answer is not None
                return answer
            key, node, rule = stack[-1]
            try:
                request = rule.send(answer) if answer is not None else next(rule)
                wanted, answer = (node.operands[request.operand], request.index, request.masks), None
            except StopIteration as done:
                self._memo[key] = answer = done.value
                stack.pop()
                wanted = None

    def _known(self, operand: Operand, index: Index, masks: Masks) -> Point | None:
        if isinstance(operand, Literal):
            return self.points.number(operand.value, operand.dtype.short)  # type: ignore[arg-type]
        held = self.held(operand, index)
        if held is not None:
            return held
        aval = self.graph.avals[operand]
        if self.stored(operand):
            return self.points.read(
                operand, aval.dtype.short, linear(squeezed(index, aval.shape), aval.shape), masks
            )
        base = self._reshaped_buffer(operand)
        if base is not None:
            return self.points.read(
                base, aval.dtype.short, linear(squeezed(index, aval.shape), aval.shape), masks
            )
        return None

    def _reshaped_buffer(self, value: int) -> int | None:
        """The stored value that `value` is a reshape of."""
        while value in self.producers and isinstance(self.producers[value].primitive, Reshape):
            operand = self.producers[value].operands[0]
            if isinstance(operand, Literal):
                return None
            value = operand
            if self.stored(value):
                return value
        return None

    def _rule(self, node: Node, value: int, index: Index, masks: Masks) -> Pulling:
        avals = tuple(self.graph.aval_of(o) for o in node.operands)
        result = self.graph.avals[value]
        if isinstance(node.primitive, OptimizationBarrier):
            return self._same(node.results.index(value), index, masks)
        rule = rules.indexed.get(type(node.primitive))
        if rule is None:
            return self._elementwise(node, avals, result, index, masks)
        return rule(node.primitive, Site(self.points, avals, result, masks), index)

    def _same(self, operand: int, index: Index, masks: Masks) -> Pulling:
        return (yield Request(operand, index, masks))

    def _elementwise(
        self, node: Node, avals: Sequence[Aval], result: Aval, index: Index, masks: Masks
    ) -> Pulling:
        args = []
        for i, aval in enumerate(avals):
            args.append((yield Request(i, broadcast_index(index, aval.shape, result.shape), masks)))
        rule = rules.composed_rule(type(node.primitive), avals, result)
        if rule is not None:
            return rule(node.primitive, self.points, *args)
        return self.points.apply(node.primitive, args, result.dtype.short)


def _key(operand: Operand, index: Index, masks: Masks) -> tuple[Any, ...]:
    return operand, tuple(place.key for place in index), tuple(m.number for m in masks)


def producers(graph: Graph) -> dict[int, Node]:
    """The node of every computed value; made once per graph."""
    found = graph.__dict__.get("_producers")
    if found is None:
        found = graph.__dict__["_producers"] = graph.producers()
    return found


def is_one(extent: Extent) -> bool:
    """Whether an extent is the literal 1, along which operands are broadcast."""
    return isinstance(extent, int) and extent == 1


def squeezed(index: Index, shape: Sequence[Extent]) -> Index:
    """`index` with 0 along axes of extent 1."""
    return tuple(ZERO if is_one(n) else place for place, n in zip(index, shape, strict=True))


def full(shape: Sequence[Extent], first: int = 0) -> Index:
    """The index that walks over all of `shape`, with axes numbered from `first`."""
    return tuple(Place(0, ((first + i, 1),)) for i in range(len(shape)))


def is_full(index: Index, shape: Sequence[Extent], first: int = 0) -> bool:
    """Whether `index` is `full(shape)`, extents of 1 aside."""
    for i, (place, n) in enumerate(zip(index, shape, strict=True)):
        if place.loaded or not dims.same(place.offset, 0):
            return False
        if is_one(n):
            if place.terms and place.terms != ((first + i, 1),):
                return False
        elif len(place.terms) != 1 or place.terms[0][0] != first + i or not dims.same(place.terms[0][1], 1):
            return False
    return True
