"""Export to a callback: the graph told in MLX's vocabulary.

The callback receives, in this order, dictionaries of `type` "inputs", "keyword_inputs", "outputs",
"constants", and one "primitive" per operation with `name`, `arguments`, `inputs`, `outputs`. Arrays are
tuples (name, shape, dtype). What is implicit here is explicit there: scalars are constants, operands are
broadcast, reductions keep their axes and are squeezed. Operations MLX does not have keep the name of their
class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ingot.format.codec import Trace
from ingot.tracer.array import array, leaf, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.dtypes import Dtype
from ingot.tracer.graph import Constant, Graph, Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.control import Call
from ingot.tracer.primitives.elementwise import Elementwise
from ingot.tracer.primitives.shape import DimValue

Callback = Callable[[dict[str, Any]], None]
Named = tuple[str, tuple[int, ...], Dtype]
"""An array as the callback sees it: name, shape, dtype."""

# Operations with a direct counterpart: name and fixed arguments.
SIMPLE: dict[str, tuple[Any, ...]] = {
    "abs": ("Abs",), "acos": ("ArcCos",), "acosh": ("ArcCosh",), "add": ("Add",), "asin": ("ArcSin",),
    "asinh": ("ArcSinh",), "atan": ("ArcTan",), "atan2": ("ArcTan2",), "atanh": ("ArcTanh",),
    "bitwise_and": ("BitwiseBinary", 0), "bitwise_not": ("BitwiseInvert",),
    "bitwise_or": ("BitwiseBinary", 1), "bitwise_xor": ("BitwiseBinary", 2), "ceil": ("Ceil",),
    "cos": ("Cos",), "cosh": ("Cosh",), "div": ("Divide",), "eq": ("Equal", False), "erf": ("Erf",),
    "erfinv": ("ErfInv",), "exp": ("Exp",), "expm1": ("Expm1",), "floor": ("Floor",),
    "floor_divide": ("FloorDivide",), "ge": ("GreaterEqual",), "gt": ("Greater",), "le": ("LessEqual",),
    "left_shift": ("BitwiseBinary", 3), "log": ("Log", 2), "log10": ("Log", 1), "log1p": ("Log1p",),
    "log2": ("Log", 0), "logaddexp": ("LogAddExp",), "logical_and": ("LogicalAnd",),
    "logical_not": ("LogicalNot",), "logical_or": ("LogicalOr",), "lt": ("Less",),
    "maximum": ("Maximum",), "minimum": ("Minimum",), "mul": ("Multiply",), "ne": ("NotEqual",),
    "neg": ("Negative",), "pow": ("Power",), "remainder": ("Remainder",),
    "right_shift": ("BitwiseBinary", 4), "round": ("Round",), "rsqrt": ("Sqrt", True),
    "select": ("Select",), "sigmoid": ("Sigmoid",), "sign": ("Sign",), "sin": ("Sin",),
    "sinh": ("Sinh",), "sqrt": ("Sqrt", False), "square": ("Square",), "sub": ("Subtract",),
    "tan": ("Tan",), "tanh": ("Tanh",),
}  # fmt: skip
# Operations that MLX's graph does not show: their results are their operands.
TRANSPARENT = frozenset({"identity", "optimization_barrier", "stop_gradient"})

# MLX's `2 + x` and `2 * x` have the array first.
_SWAPPED = frozenset({"add", "mul"})


def describe(trace: Trace, samples: Mapping[str, int], callback: Callback) -> None:
    """Send `trace`, with its dims at the sample sizes, to `callback`."""
    graph = trace.graph.substitute(dict(samples))
    outline = _Outline()
    inputs: list[Ref] = [_Source(aval) for aval in graph.inputs]
    outputs = outline.expand(graph, inputs)
    _Teller(callback).tell(inputs, outputs, trace.in_tree.children[1].keys)


class _Source:
    """An input or a constant of the flattened graph."""

    def __init__(self, aval: Aval, value: Constant | Literal | None = None) -> None:
        self.aval, self.value = aval, value


class _Operation:
    """One primitive of the flattened graph."""

    def __init__(self, primitive: Primitive, operands: list[Any], avals: tuple[Aval, ...]) -> None:
        self.primitive, self.operands = primitive, operands
        self.results = [_Result(self, aval) for aval in avals]


class _Result:
    """One result of an operation."""

    def __init__(self, operation: _Operation, aval: Aval) -> None:
        self.operation, self.aval = operation, aval


Ref = _Source | _Result


class _Outline:
    """Flattens calls; equal literals become one source."""

    def __init__(self) -> None:
        self.literals: dict[Literal, _Source] = {}

    def expand(self, graph: Graph, inputs: Sequence[Ref]) -> list[Ref]:
        values: list[Ref] = [*inputs, *(_Source(c.aval, c) for c in graph.constants)]
        for node in graph.nodes:
            operands = [self.source(o) if isinstance(o, Literal) else values[o] for o in node.operands]
            values += self.apply(node.primitive, operands)
        return [self.source(o) if isinstance(o, Literal) else values[o] for o in graph.outputs]

    def apply(self, primitive: Primitive, operands: list[Ref]) -> Sequence[Ref]:
        if primitive.name in TRANSPARENT:
            return operands
        if isinstance(primitive, DimValue):
            return [self.source(Literal(int(primitive.extent), primitive.dtype))]
        if isinstance(primitive, Call):
            return self.expand(primitive.graph, operands)
        if primitive.name in _SWAPPED and isinstance(operands[0], _Source):
            if isinstance(operands[0].value, Literal):
                operands = [operands[1], operands[0]]
        avals = primitive.result_avals(tuple(o.aval for o in operands))
        return _Operation(primitive, operands, avals).results

    def source(self, literal: Literal) -> _Source:
        return self.literals.setdefault(literal, _Source(literal.aval, literal))


class _Teller:
    """Names arrays and sends the operations in MLX's order: depth first, operands from left to right."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback
        self.names: dict[Ref, str] = {}
        self.broadcasts: dict[tuple[str, tuple[int, ...]], Named] = {}
        self.fresh = _letters()

    def tell(self, inputs: Sequence[Ref], outputs: Sequence[Ref], keywords: Sequence[str]) -> None:
        """Send everything about a function with these inputs and outputs."""
        shown = [self.named(source) for source in inputs]
        self.callback({"type": "inputs", "inputs": shown})
        pairs = [(key, shown[len(shown) - len(keywords) + i][0]) for i, key in enumerate(keywords)]
        self.callback({"type": "keyword_inputs", "keywords": pairs})
        self.callback({"type": "outputs", "outputs": [self.named(ref) for ref in outputs]})
        order = list(_depth_first(outputs))
        constants = [ref for ref in order if isinstance(ref, _Source) and ref.value is not None]
        stored = [(self.named(ref)[0], _as_array(ref.value)) for ref in constants]
        self.callback({"type": "constants", "constants": stored})
        for step in order:
            if isinstance(step, _Operation):
                self.operation(step)
            elif isinstance(step, tuple):
                self.broadcast(self.named(step[0]), step[1])

    def named(self, ref: Ref) -> Named:
        """The array with its name; the next free one when it has none."""
        name = self.names.get(ref)
        if name is None:
            name = self.names[ref] = next(self.fresh)
        return (name, _shape(ref.aval), ref.aval.dtype)

    def operation(self, operation: _Operation) -> None:
        """Send one operation: by its rule, or directly."""
        primitive, results = operation.primitive, operation.results
        inputs = [self.named(ref) for ref in operation.operands]
        if isinstance(primitive, Elementwise):
            inputs = [self.broadcast(x, _shape(results[0].aval)) for x in inputs]
        rule = RULES.get(primitive.name)
        if rule is not None:
            rule(self, primitive, inputs, results[0])
            return
        name, *arguments = SIMPLE.get(primitive.name) or _own_name(primitive)
        self.send(name, arguments, inputs, [self.named(ref) for ref in results])

    def broadcast(self, x: Named, shape: tuple[int, ...]) -> Named:
        """`x` broadcast to `shape`; the same array is broadcast to one shape once."""
        if x[1] == shape:
            return x
        key = (x[0], shape)
        if key not in self.broadcasts:
            self.broadcasts[key] = self.step("Broadcast", [shape], [x], shape)
        return self.broadcasts[key]

    def step(
        self,
        name: str,
        arguments: list[Any],
        inputs: Sequence[Named],
        shape: Sequence[int],
        dtype: Any = None,
    ) -> Named:
        """Send an operation with a new result; its dtype is that of the first input unless given."""
        result = (next(self.fresh), tuple(shape), dtype or inputs[0][2])
        self.send(name, arguments, inputs, [result])
        return result

    def finish(self, name: str, arguments: list[Any], inputs: Sequence[Named], result: Ref) -> None:
        """Send the operation that gives `result`."""
        self.send(name, arguments, inputs, [self.named(result)])

    def send(
        self, name: str, arguments: list[Any], inputs: Sequence[Named], outputs: Sequence[Named]
    ) -> None:
        """Send one operation."""
        self.callback(
            {
                "type": "primitive",
                "name": name,
                "arguments": arguments,
                "inputs": list(inputs),
                "outputs": list(outputs),
            }
        )


def _letters() -> Iterator[str]:
    """A, B, ..., Z, AA, AB, ..."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    yield from alphabet
    for head in _letters():
        for letter in alphabet:
            yield head + letter


def _shape(aval: Aval) -> tuple[int, ...]:
    return tuple(int(n) for n in aval.shape)


def _as_array(value: Constant | Literal | None) -> array:
    assert value is not None
    return wrap(leaf(value.numpy() if isinstance(value, Literal) else value.data, aval=value.aval))


def _depth_first(outputs: Sequence[Ref]) -> Iterator[Any]:
    """Sources, operations and the broadcasts (ref, shape) of operands, in the order MLX visits them."""
    seen: set[Any] = set()
    for output in outputs:
        if isinstance(output, _Source):
            if output not in seen:
                seen.add(output)
                yield output
            continue
        stack: list[tuple[_Operation, int]] = [(output.operation, 0)]
        while stack:
            operation, position = stack.pop()
            if position == 0 and operation in seen:
                continue
            seen.add(operation)
            if position and isinstance(operation.primitive, Elementwise):
                yield operation.operands[position - 1], _shape(operation.results[0].aval)
            if position == len(operation.operands):
                yield operation
                continue
            stack.append((operation, position + 1))
            operand = operation.operands[position]
            if isinstance(operand, _Source):
                if operand not in seen:
                    seen.add(operand)
                    yield operand
            elif operand.operation not in seen:
                stack.append((operand.operation, 0))


def _own_name(primitive: Primitive) -> tuple[Any, ...]:
    """For operations that MLX lacks: the class and its parameters; sub-graphs as lists of dictionaries."""
    return (type(primitive).__name__, *(_plain(value) for value in primitive.params().values()))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Graph):
        told: list[dict[str, Any]] = []
        inputs: list[Ref] = [_Source(aval) for aval in value.inputs]
        _Teller(told.append).tell(inputs, _Outline().expand(value, inputs), ())
        return told
    return value


# Rules: operations that MLX tells otherwise. (teller, primitive, inputs, result)

Rule = Callable[[_Teller, Any, list[Named], Ref], None]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@_rule("convert_element_type")
def _convert(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("AsType", [p.dtype], inputs, result)


@_rule("bitcast")
def _bitcast(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("View", [p.dtype], inputs, result)


@_rule("broadcast_to")
def _broadcast_to(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    operand = result.operation.operands[0]  # type: ignore[union-attr]
    if isinstance(operand, _Source) and isinstance(operand.value, Literal):
        teller.finish("Full", [], [teller.broadcast(inputs[0], _shape(result.aval))], result)
    else:
        teller.finish("Broadcast", [_shape(result.aval)], inputs, result)


@_rule("reshape")
def _reshape(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    name, arguments = reshape_name(inputs[0][1], _shape(result.aval))
    teller.finish(name, arguments, inputs, result)


def reshape_name(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[str, list[Any]]:
    """MLX's most specific operation that reshapes `old` to `new`, and its arguments."""
    if len(old) < len(new):
        added = _unit_axes(new, old)
        if added is not None:
            return "ExpandDims", [added]
        found = _merged(new, old)
        if found is not None:
            start, end = found
            return "Unflatten", [start, tuple(new[start : end + 1])]
    elif len(old) > len(new):
        removed = _unit_axes(old, new)
        if removed is not None:
            return "Squeeze", [removed]
        found = _merged(old, new)
        if found is not None:
            return "Flatten", list(found)
    return "Reshape", [new]


def _unit_axes(long: tuple[int, ...], short: tuple[int, ...]) -> list[int] | None:
    """Axes of extent 1 without which `long` is `short`; None when there are no such axes."""
    axes: list[int] = []
    rest = list(short)
    for axis, n in enumerate(long):
        if rest and rest[0] == n and (n != 1 or len(long) - axis == len(rest)):
            rest.pop(0)
        elif n == 1:
            axes.append(axis)
        else:
            return None
    return None if rest else axes


def _merged(long: tuple[int, ...], short: tuple[int, ...]) -> tuple[int, int] | None:
    """First and last of the neighbouring axes of `long` that are one axis of `short`."""
    start = next((i for i, n in enumerate(short) if i >= len(long) or long[i] != n), len(short) - 1)
    if start < 0:
        return None
    end = start + len(long) - len(short)
    product = 1
    for n in long[start : end + 1]:
        product *= n
    return (start, end) if long[end + 1 :] == short[start + 1 :] and product == short[start] else None


@_rule("transpose")
def _transpose(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("Transpose", [list(p.perm)], inputs, result)


@_rule("slice")
def _slice(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    # Where we stop at -1, MLX counts from the end once more.
    stops = tuple(
        stop - n if stride < 0 and stop < 0 else stop
        for stop, stride, n in zip(p.stops, p.strides, inputs[0][1], strict=True)
    )
    teller.finish("Slice", [p.starts, stops, p.strides], inputs, result)


@_rule("slice_update")
def _slice_update(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    ends = tuple(
        start + n * stride for start, n, stride in zip(p.starts, inputs[1][1], p.strides, strict=True)
    )
    teller.finish("SliceUpdate", [4, p.starts, ends, p.strides], inputs, result)


@_rule("concatenate")
def _concatenate(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("Concatenate", [p.axis], inputs, result)


@_rule("pad")
def _pad(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("Pad", [list(range(len(p.low))), p.low, p.high], inputs, result)


@_rule("reverse")
def _reverse(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    shape = inputs[0][1]
    starts = tuple(n - 1 if axis in p.axes else 0 for axis, n in enumerate(shape))
    stops = tuple(-n - 1 if axis in p.axes else n for axis, n in enumerate(shape))
    strides = tuple(-1 if axis in p.axes else 1 for axis in range(len(shape)))
    teller.finish("Slice", [starts, stops, strides], inputs, result)


@_rule("iota")
def _iota(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    shape = _shape(result.aval)
    size = shape[p.axis]
    arguments = [0.0, float(size), 1.0]
    if len(shape) == 1:
        teller.finish("Arange", arguments, [], result)
        return
    line = teller.step("Arange", arguments, [], (size,), p.dtype)
    column = tuple(size if axis == p.axis else 1 for axis in range(len(shape)))
    others = [axis for axis in range(len(shape)) if axis != p.axis]
    teller.finish("Broadcast", [shape], [teller.step("ExpandDims", [others], [line], column)], result)


_REDUCTIONS = {
    "reduce_all": 0,
    "reduce_any": 1,
    "reduce_sum": 2,
    "reduce_prod": 3,
    "reduce_min": 4,
    "reduce_max": 5,
}


@_rule(*_REDUCTIONS)
def _reduce(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    _keeping_axes(teller, "Reduce", [_REDUCTIONS[p.name], list(p.axes)], p.axes, p.keepdims, inputs, result)


@_rule("argmax", "argmin")
def _arg_reduce(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    arguments = [int(p.name == "argmax"), p.axis]
    _keeping_axes(teller, "ArgReduce", arguments, (p.axis,), p.keepdims, inputs, result)


def _keeping_axes(
    teller: _Teller,
    name: str,
    arguments: list[Any],
    axes: Sequence[int],
    keepdims: bool,
    inputs: list[Named],
    result: Ref,
) -> None:
    """An operation that keeps the reduced axes with extent 1, and a squeeze unless they shall stay."""
    if keepdims or not axes:
        teller.finish(name, arguments, inputs, result)
        return
    shape = [1 if axis in axes else n for axis, n in enumerate(inputs[0][1])]
    kept = teller.step(name, arguments, inputs, shape, result.aval.dtype)
    teller.finish("Squeeze", [list(axes)], [kept], result)


@_rule("dot_general")
def _dot_general(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    left, right = inputs
    free = [p.free(side, len(x[1])) for side, x in enumerate(inputs)]
    batch = tuple(left[1][axis] for axis in p.batch[0])
    rows, columns = (_count(x, axes) for x, axes in zip(inputs, free, strict=True))
    inner = _count(left, p.contract[0])
    left = _arranged(teller, left, (*p.batch[0], *free[0], *p.contract[0]), (*batch, rows, inner))
    right = _arranged(teller, right, (*p.batch[1], *p.contract[1], *free[1]), (*batch, inner, columns))
    shape = (*batch, rows, columns)
    if shape == _shape(result.aval):
        teller.finish("Matmul", [], [left, right], result)
        return
    product = teller.step("Matmul", [], [left, right], shape)
    name, arguments = reshape_name(shape, _shape(result.aval))
    teller.finish(name, arguments, [product], result)


def _count(x: Named, axes: Sequence[int]) -> int:
    total = 1
    for axis in axes:
        total *= x[1][axis]
    return total


def _arranged(teller: _Teller, x: Named, perm: Sequence[int], shape: tuple[int, ...]) -> Named:
    """`x` transposed by `perm` and reshaped to `shape`, as far as either changes it."""
    if list(perm) != sorted(perm):
        x = teller.step("Transpose", [list(perm)], [x], [x[1][axis] for axis in perm])
    if x[1] == shape:
        return x
    name, arguments = reshape_name(x[1], shape)
    return teller.step(name, arguments, [x], shape)


@_rule("gather")
def _gather(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    x, indices = inputs[0], _aligned(teller, inputs[1:])
    picked = indices[0][1]
    n, rank = len(picked), len(x[1])
    sizes = tuple(1 if axis in p.axes else extent for axis, extent in enumerate(x[1]))
    found = teller.step("Gather", [list(p.axes), sizes], [x, *indices], picked + sizes)
    before = [axis for axis in range(rank) if axis not in p.axes][: p.position]
    order = [*before, *(axis for axis in range(rank) if axis not in before)]
    if before:
        perm = [*(n + axis for axis in before), *range(n), *(n + axis for axis in order[len(before) :])]
        found = teller.step("Transpose", [perm], [found], [found[1][axis] for axis in perm])
    dropped = sorted(n + order.index(axis) for axis in p.axes)
    teller.finish("Squeeze", [dropped], [found], result)


@_rule("scatter")
def _scatter(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    x, updates, indices = inputs[0], inputs[1], _aligned(teller, inputs[2:])
    picked = indices[0][1]
    n, at = len(picked), p.position
    if at:
        perm = [*range(at, at + n), *range(at), *range(at + n, len(updates[1]))]
        updates = teller.step("Transpose", [perm], [updates], [updates[1][axis] for axis in perm])
    shape = picked + tuple(1 if axis in p.axes else extent for axis, extent in enumerate(x[1]))
    updates = teller.step("Reshape", [shape], [updates], shape)
    code = ("max", "min", "add", "mul", "set").index(p.mode)
    teller.finish("Scatter", [code, list(p.axes)], [x, *indices, updates], result)


def _aligned(teller: _Teller, indices: Sequence[Named]) -> list[Named]:
    """Index arrays broadcast to their common shape."""
    shape = np.broadcast_shapes(*(index[1] for index in indices))
    return [teller.broadcast(index, shape) for index in indices]


@_rule("dynamic_slice")
def _dynamic_slice(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("DynamicSlice", [list(p.axes), _shape(result.aval)], inputs, result)


@_rule("dynamic_update")
def _dynamic_update(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("DynamicSliceUpdate", [list(p.axes)], inputs, result)


@_rule("random_bits")
def _random_bits(teller: _Teller, p: Any, inputs: list[Named], result: Ref) -> None:
    teller.finish("RandomBits", [_shape(result.aval), p.width], inputs, result)
