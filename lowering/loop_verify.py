"""Invariants of the loop IR; `verify(kernel)` raises `LoopError` naming the kernel, the enclosing statements
and what is wrong.

Names
  N1  kernel, buffer, param and variable names are well formed; buffers, params and variables are distinct,
      and each is defined once.
  N2  a variable is used only after its definition, inside the body that defines it; results of a loop or
      branch belong to the enclosing body.
  N3  a use has the type of the definition; a load or store names a buffer in scope.
Types
  T1  dtypes are known, lanes are 1..1024; literals fit their dtype (bool, int in range, float).
  T2  operands of Unary, Binary, Compare, Math and ReduceLanes are equal in type, and the operation is
      defined on it. `dot_bf16` adds products of u32 to f32, `dot_i16` to i32, with equal lanes.
  T3  Select has a bool mask with the lanes of its branches, or one lane; both branches are equal in type.
  T4  Convert and Bitcast keep lanes; Bitcast keeps the size and takes no bool.
  T5  Broadcast and Ramp take scalars; Ramp and lane numbers are integers; Shuffle picks existing lanes.
Memory
  M1  element offsets are `index` typed; a mask is bool with the lanes of the access.
  M2  a load has its buffer's dtype, and the lanes of a vector index; `else` has the load's type and needs a
      mask.
  M3  stores go to buffers that may be written and have the buffer's dtype; read-only buffers are only read,
      write-only ones only written. Only buffers that the kernel cannot write are loaded with the hint
      `invariant`.
  M4  register and stack allocations have a constant positive count; workspace and scratch allocations, and
      only they, an offset.
Control
  C1  bounds and step are scalar `index`; a constant step is positive; an unrolled loop has constant bounds
      and step and at most 1024 iterations.
  C2  carried values, inits, yields and results agree in number and type; branches yield values of the
      results' types.
  C3  conditions are scalar bool.
  C4  at most one parallel loop, at the top level, from 0 by 1, carrying nothing; beside it at the top level
      stand only Let and Alloc, and it contains no barrier.
  C5  Fail has a positive code and at most four scalar index values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from ingot.lowering import loop as ir
from ingot.lowering.loop import BOOL, IDX, Expr, Kernel, Stmt, Type, Var
from ingot.lowering.loop_text import print_expr, print_stmt, valid_name

_MAX_LANES = 1024
_MAX_UNROLL = 1024


def verify(kernel: Kernel) -> None:
    """Raise `LoopError` when `kernel` breaks one of the invariants above."""
    _Verifier(kernel).kernel()


class _Verifier:
    def __init__(self, kernel: Kernel):
        self._kernel = kernel
        self._path: list[Stmt] = []
        self._defined: set[str] = set()
        self._types: dict[str, Type] = {}
        self._buffers: dict[str, ir.Buffer] = {}
        self._checked: dict[int, Expr] = {}

    def fail(self, message: str) -> ir.LoopError:
        path = [print_stmt(stmt).split("\n", 1)[0] for stmt in self._path]
        where = " / ".join([f"kernel @{self._kernel.name}", *path])
        return ir.LoopError(f"[loop] {where}: {message}")

    def require(self, condition: bool, message: str | Callable[[], str]) -> None:
        """Messages that print expressions come as functions: printing is dear, and most kernels are right."""
        if not condition:
            raise self.fail(message if isinstance(message, str) else message())

    @contextmanager
    def scope(self) -> Iterator[None]:
        types, buffers, checked = self._types, self._buffers, self._checked
        self._types, self._buffers, self._checked = dict(types), dict(buffers), dict(checked)
        yield
        self._types, self._buffers, self._checked = types, buffers, checked

    # names

    def define(self, name: str) -> None:
        self.require(valid_name(name), f"{name!r} is not a valid name")
        self.require(name not in self._defined, f"{name!r} is defined twice")
        self._defined.add(name)

    def bind(self, var: Var) -> None:
        self.type(var.type)
        self.define(var.name)
        self._types[var.name] = var.type

    # kernel and statements

    def kernel(self) -> None:
        kernel = self._kernel
        self.require(
            bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", kernel.name)),
            f"{kernel.name!r} is not a valid kernel name",
        )
        for buffer in kernel.buffers:
            self.define(buffer.name)
            self.require(buffer.dtype in ir.DTYPES, f"buffer {buffer.name}: unknown dtype {buffer.dtype!r}")
            self.require(
                buffer.access in ir.ACCESS, f"buffer {buffer.name}: unknown access {buffer.access!r}"
            )
            self._buffers[buffer.name] = buffer
        for param in kernel.params:
            self.bind(Var(param, IDX))
        parallel = [s for s in kernel.body if isinstance(s, ir.For) and s.kind == "parallel"]
        self.require(len(parallel) <= 1, "more than one parallel loop")
        if parallel:
            self.require(
                all(s is parallel[0] or isinstance(s, ir.Let | ir.Alloc) for s in kernel.body),
                "beside a parallel loop there may be only definitions and allocations",
            )
        self.body(kernel.body, top=True)

    def body(self, body: Sequence[Stmt], top: bool = False) -> None:
        for stmt in body:
            self._path.append(stmt)
            self.stmt(stmt, top)
            self._path.pop()

    def stmt(self, stmt: Stmt, top: bool) -> None:
        match stmt:
            case ir.Let(var, value):
                self.expr(value)
                self.require(var.type == value.type, f"{var.name} is {var.type}, its value {value.type}")
                self.bind(var)
            case ir.Store():
                self.store(stmt)
            case ir.Prefetch(buffer, index):
                self.buffer(buffer)
                self.typed(index, IDX, "index")
            case ir.For():
                self.for_stmt(stmt, top)
            case ir.While():
                self.while_stmt(stmt)
            case ir.If():
                self.if_stmt(stmt)
            case ir.Alloc():
                self.alloc(stmt)
            case ir.Barrier():
                self.require(
                    not any(isinstance(s, ir.For) and s.kind == "parallel" for s in self._path),
                    "a barrier inside of a parallel loop",
                )
            case ir.Poll():
                pass
            case ir.Fail(code, values):
                self.require(code > 0, "the code must be positive")
                self.require(len(values) <= 4, "more than four values")
                for value in values:
                    self.typed(value, IDX, "value")
            case _:
                raise self.fail(f"not a statement: {stmt!r}")

    def store(self, stmt: ir.Store) -> None:
        buffer = self.buffer(stmt.buffer)
        self.require(buffer.access != "read", f"{buffer.name} is read-only")
        self.expr(stmt.value)
        self.require(
            stmt.value.type.dtype == buffer.dtype,
            f"{buffer.name} holds {buffer.dtype}, the value is {stmt.value.type}",
        )
        self.access(stmt.index, stmt.value.type.lanes, stmt.mask, stmt.hint)
        self.require(stmt.hint != "invariant", "the hint 'invariant' is for loads")

    def for_stmt(self, stmt: ir.For, top: bool) -> None:
        for what, bound in (("lo", stmt.lo), ("hi", stmt.hi), ("step", stmt.step)):
            self.typed(bound, IDX, what)
        self.require(stmt.kind in ir.KINDS, f"unknown kind {stmt.kind!r}")
        if isinstance(stmt.step, ir.Const):
            self.require(stmt.step.value > 0, "the step must be positive")
        if stmt.kind == "unrolled":
            self.unrolled(stmt)
        if stmt.kind == "parallel":
            self.require(top, "a parallel loop must stand at the top level")
            self.require(
                stmt.lo == ir.Const(0, IDX) and stmt.step == ir.Const(1, IDX),
                "a parallel loop begins at 0 and has step 1",
            )
            self.require(not stmt.carried, "a parallel loop carries no values")
        self.exprs(stmt.inits)
        with self.scope():
            self.require(stmt.index.type == IDX, f"the loop index is {stmt.index.type}")
            self.bind(stmt.index)
            self.carried(stmt)
            self.body(stmt.body)
            self.exprs(stmt.yields)
        self.results(stmt)

    def unrolled(self, stmt: ir.For) -> None:
        if not (
            isinstance(stmt.lo, ir.Const)
            and isinstance(stmt.hi, ir.Const)
            and isinstance(stmt.step, ir.Const)
        ):
            raise self.fail("an unrolled loop needs constant bounds and step")
        count = len(range(int(stmt.lo.value), int(stmt.hi.value), int(stmt.step.value)))
        self.require(count <= _MAX_UNROLL, f"{count} iterations are too many to unroll")

    def while_stmt(self, stmt: ir.While) -> None:
        self.exprs(stmt.inits)
        with self.scope():
            self.carried(stmt)
            with self.scope():
                self.typed(stmt.condition, BOOL, "condition")
            self.body(stmt.body)
            self.exprs(stmt.yields)
        self.results(stmt)

    def carried(self, stmt: ir.For | ir.While) -> None:
        for var in stmt.carried:
            self.bind(var)
        self.same("inits", stmt.inits, stmt.carried)

    def results(self, stmt: ir.For | ir.While) -> None:
        self.same("yields", stmt.yields, stmt.carried)
        self.same("results", stmt.results, stmt.carried)
        for var in stmt.results:
            self.bind(var)

    def same(self, what: str, values: Sequence[Expr], wanted: Sequence[Var]) -> None:
        found, expected = [str(v.type) for v in values], [str(v.type) for v in wanted]
        self.require(found == expected, f"{what} are ({', '.join(found)}), expected ({', '.join(expected)})")

    def if_stmt(self, stmt: ir.If) -> None:
        self.typed(stmt.condition, BOOL, "condition")
        for body, yields in ((stmt.then, stmt.then_yields), (stmt.orelse, stmt.else_yields)):
            with self.scope():
                self.body(body)
                self.exprs(yields)
            self.same("yields", yields, stmt.results)
        for var in stmt.results:
            self.bind(var)

    def alloc(self, stmt: ir.Alloc) -> None:
        self.define(stmt.buffer)
        self.require(stmt.dtype in ir.DTYPES, f"unknown dtype {stmt.dtype!r}")
        self.require(stmt.space in ir.SPACES, f"unknown space {stmt.space!r}")
        self.typed(stmt.count, IDX, "count")
        if stmt.space in ("workspace", "scratch"):
            self.require(stmt.offset is not None, f"a {stmt.space} allocation needs an offset in bytes")
            if stmt.offset is not None:
                self.typed(stmt.offset, IDX, "offset")
        else:
            self.require(
                isinstance(stmt.count, ir.Const) and stmt.count.value > 0,
                f"a {stmt.space} allocation needs a constant positive count",
            )
            self.require(stmt.offset is None, "only workspace and scratch allocations have an offset")
        self._buffers[stmt.buffer] = ir.Buffer(stmt.buffer, stmt.dtype, "readwrite")

    # expressions

    def buffer(self, name: str) -> ir.Buffer:
        if name not in self._buffers:
            raise self.fail(f"unknown buffer {name!r}")
        return self._buffers[name]

    def access(self, index: Expr, lanes: int, mask: Expr | None, hint: str | None) -> None:
        self.expr(index)
        self.require(index.type.dtype == "index", f"the offset is {index.type}, not index")
        self.require(
            index.type.lanes in (1, lanes), f"the offset has {index.type.lanes} lanes, the access {lanes}"
        )
        if mask is not None:
            self.typed(mask, ir.vector("bool", lanes), "mask")
        self.require(hint is None or hint in ir.HINTS, f"unknown hint {hint!r}")

    def typed(self, expr: Expr, wanted: Type, what: str) -> None:
        self.expr(expr)
        self.require(
            expr.type == wanted, lambda: f"{what} `{print_expr(expr)}` is {expr.type}, expected {wanted}"
        )

    def exprs(self, exprs: Sequence[Expr]) -> None:
        for expr in exprs:
            self.expr(expr)

    def expr(self, expr: Expr) -> None:
        """Check `expr` and all below it, iteratively (shared parts once per scope)."""
        stack: list[tuple[Expr, bool]] = [(expr, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in self._checked:
                continue
            operands = () if ready else children(node)
            if operands:
                stack.append((node, True))
                stack.extend([(child, False) for child in operands])
            else:
                self.node(node)
                self._checked[id(node)] = node

    def type(self, type: Type) -> None:
        self.require(type.dtype in ir.DTYPES, f"unknown dtype {type.dtype!r}")
        self.require(1 <= type.lanes <= _MAX_LANES, f"{type.lanes} lanes")

    def node(self, e: Expr) -> None:
        match e:
            case ir.Var(name, type):
                self.require(name in self._types, f"unknown name {name!r}")
                self.require(self._types[name] == type, f"{name} is {self._types[name]}, used as {type}")
            case ir.Const(value, type):
                self.type(type)
                self.require(_fits(value, type), f"{value!r} is no {type.dtype} literal")
            case ir.Unary(op, x):
                self.operation(e, op, ir.UNARY, (x,))
            case ir.Binary(op, left, right):
                self.operation(e, op, ir.BINARY, (left, right))
            case ir.ReduceLanes(op, x):
                self.operation(e, op, ir.REDUCE_LANES, (x,))
            case ir.Compare(op, left, right):
                self.require(op in ir.COMPARE, f"unknown comparison {op!r}")
                self.operation(e, op, {op: "fib"}, (left, right))
            case ir.Math(op, args) if op in ir.DOTS:
                lanes = e.type.lanes
                wanted = [ir.vector(ir.DOTS[op], lanes), ir.vector("u32", lanes), ir.vector("u32", lanes)]
                self.require([x.type for x in args] == wanted, lambda: f"`{print_expr(e)}`: no such operands")
            case ir.Math(op, args):
                self.require(ir.MATH.get(op) == len(args), f"{op!r} with {len(args)} operands")
                self.operation(e, op, {op: "f"}, args)
            case ir.Select(mask, yes, no):
                self.require(
                    mask.type.dtype == "bool" and mask.type.lanes in (1, yes.type.lanes),
                    lambda: f"the mask of `{print_expr(e)}` is {mask.type}",
                )
                self.require(
                    yes.type == no.type, lambda: f"`{print_expr(e)}` chooses between {yes.type} and {no.type}"
                )
            case ir.Convert(_, dtype):
                self.require(dtype in ir.DTYPES, f"unknown dtype {dtype!r}")
            case ir.Bitcast(x, dtype):
                self.require(
                    dtype in ir.DTYPES
                    and "bool" not in (dtype, x.type.dtype)
                    and ir.BYTES[dtype] == ir.BYTES[x.type.dtype],
                    f"no bits of {x.type} as {dtype}",
                )
            case ir.Broadcast(x, _):
                self.require(x.type.lanes == 1, lambda: f"`{print_expr(e)}` broadcasts a vector")
                self.type(e.type)
            case ir.Ramp(base, step, _):
                self.require(
                    base.type == step.type and base.type.lanes == 1 and base.type.is_integer,
                    lambda: f"`{print_expr(e)}` is made of {base.type} and {step.type}",
                )
                self.type(e.type)
            case ir.Shuffle(left, right, picks):
                total = left.type.lanes + right.type.lanes
                self.require(
                    left.type == right.type, lambda: f"`{print_expr(e)}` mixes {left.type} and {right.type}"
                )
                self.require(
                    bool(picks) and all(-1 <= p < total for p in picks),
                    lambda: f"`{print_expr(e)}`: no such lane",
                )
                self.type(e.type)
            case ir.Extract(_, lane):
                self.lane(e, lane)
            case ir.Insert(x, lane, value):
                self.lane(e, lane)
                self.require(
                    value.type == x.type.with_lanes(1), lambda: f"`{print_expr(e)}` inserts {value.type}"
                )
            case ir.Load():
                self.load(e)
            case _:
                raise self.fail(f"not an expression: {e!r}")

    def lane(self, e: Expr, lane: Expr) -> None:
        self.require(
            lane.type.lanes == 1 and lane.type.is_integer, lambda: f"`{print_expr(e)}`: lane is {lane.type}"
        )

    def load(self, e: ir.Load) -> None:
        buffer = self.buffer(e.buffer)
        self.require(buffer.access != "write", f"{buffer.name} is write-only")
        self.require(e.type.dtype == buffer.dtype, f"{buffer.name} holds {buffer.dtype}, loaded as {e.type}")
        self.type(e.type)
        self.access(e.index, e.type.lanes, e.mask, e.hint)
        self.require(e.hint != "invariant" or buffer.access == "read", f"{buffer.name} is not invariant")
        if e.otherwise is not None:
            self.require(e.mask is not None, "'else' without a mask")
            self.typed(e.otherwise, e.type, "else")

    def operation(self, e: Expr, op: str, table: dict[str, str], operands: Sequence[Expr]) -> None:
        self.require(op in table, f"unknown operation {op!r}")
        types = [x.type for x in operands]
        self.require(
            all(t == types[0] for t in types),
            lambda: f"`{print_expr(e)}` has operands of types {', '.join(map(str, types))}",
        )
        self.require(_kind(types[0]) in table[op], f"{op} is not defined on {types[0]}")


def children(e: Expr) -> tuple[Expr, ...]:
    """The operands of an expression, in order."""
    operands = _OPERANDS.get(type(e))
    return () if operands is None else operands(e)


def _of_load(e: ir.Load) -> tuple[Expr, ...]:
    if e.mask is None and e.otherwise is None:
        return (e.index,)
    return tuple(x for x in (e.index, e.mask, e.otherwise) if x is not None)


_OPERANDS: dict[type[Expr], Callable[[Any], tuple[Expr, ...]]] = {
    **dict.fromkeys((ir.Unary, ir.Convert, ir.Bitcast, ir.Broadcast, ir.ReduceLanes), lambda e: (e.x,)),
    **dict.fromkeys((ir.Binary, ir.Compare, ir.Shuffle), attrgetter("left", "right")),
    ir.Ramp: attrgetter("base", "step"),
    ir.Extract: attrgetter("x", "lane"),
    ir.Select: attrgetter("mask", "yes", "no"),
    ir.Insert: attrgetter("x", "lane", "value"),
    ir.Math: attrgetter("args"),
    ir.Load: _of_load,
}


def _kind(type: Type) -> str:
    if type.dtype == "bool":
        return "b"
    if type.is_integer:
        return "i"
    return "f" if type.dtype in ("f32", "f64") else "-"


def _fits(value: object, type: Type) -> bool:
    if type.dtype == "bool":
        return isinstance(value, bool)
    if type.is_integer:
        return type_is_int(value) and ir.wrap(int(value), type.dtype) == value  # type: ignore[call-overload]
    return isinstance(value, float)


def type_is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
