"""Loop IR to LLVM IR, as text.

Vectors are explicit, memory is aligned to single elements only, and no fast-math flag is ever set: `+ - *
/` and square roots are IEEE's, and only `fma` fuses. Loops are emitted bottom-tested behind a guard,
carried values become phi nodes, and an expression is evaluated where its statement stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ingot.lowering import abi
from ingot.lowering import loop as ir
from ingot.lowering.llvm import vecmath
from ingot.lowering.llvm.operations import Operations, fmod_routine
from ingot.lowering.llvm.target import Target
from ingot.lowering.llvm.writer import (
    SCALARS,
    Writer,
    literal,
    llvm_type,
    memory_scalar,
    register_type,
    suffix,
    vector_literal,
)
from ingot.lowering.loop import BYTES, Expr, Kernel, Stmt, Type, Var, vector
from ingot.lowering.loop_verify import children

_TRUNCATED = ("i8", "i16", "i32")
_EXACT_REDUCTIONS = {"add": "add", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}


def emit_module(
    kernels: Sequence[Kernel], target: Target, extra: str = "", symbols: Sequence[str] = ()
) -> str:
    """An LLVM module that defines every kernel under its name, or under its symbol in a section of its own;
    `extra` is further LLVM text, such as entry points."""
    names: Sequence[str | None] = symbols or [None] * len(kernels)
    functions = [emit_function(k, target, name) for k, name in zip(kernels, names, strict=True)]
    return module_of(functions, target, extra)


def emit_function(kernel: Kernel, target: Target, symbol: str | None = None) -> str:
    """A kernel as LLVM text without what all functions of a module share."""
    return _Emitter(kernel, target).function(symbol)


def module_of(functions: Sequence[str], target: Target, extra: str = "") -> str:
    """The module of some functions."""
    functions = [*functions, *([fmod_routine()] if any("@ingot.fmod(" in f for f in functions) else [])]
    width = (
        f' "min-legal-vector-width"="{target.bits}" "prefer-vector-width"="{target.bits}"'
        if target.is_x86
        else ""
    )
    return "\n".join(
        [
            f'target triple = "{target.triple}"',
            *functions,
            extra,
            f'attributes #0 = {{ nounwind "no-builtins"{width} }}',
            "!0 = !{}",
            "",
        ]
    )


class _Emitter:
    def __init__(self, kernel: Kernel, target: Target):
        self.kernel, self.target = kernel, target
        self.w = Writer()
        self.operations = Operations(self.w, target)
        self.values: dict[str, str] = {}
        self.buffers: dict[str, tuple[str, str]] = {}  # name -> pointer, dtype
        self.memo: dict[int, tuple[Expr, str]] = {}
        self.locals = 0

    def function(self, symbol: str | None = None) -> str:
        kernel, w = self.kernel, self.w
        for i, buffer in enumerate(kernel.buffers):
            slot = w.op(f"getelementptr ptr, ptr %buffers, i64 {i}")
            self.buffers[buffer.name] = (
                w.op(f"load ptr, ptr {slot}, !invariant.load !0", buffer.name),
                buffer.dtype,
            )
        for i, param in enumerate(kernel.params):
            slot = w.op(f"getelementptr i64, ptr %params, i64 {i}")
            self.values[param] = w.op(f"load i64, ptr {slot}, !invariant.load !0", param)
        self.body(kernel.body)
        w.do("ret i32 0")
        parameters = "ptr %ctx, ptr %buffers, ptr %params, i64 %begin, i64 %end"
        section = f' section ".text.{symbol}"' if symbol else ""
        head = f"define i32 @{symbol or kernel.name}({parameters}) #0{section} {{\nentry:"
        return "\n".join([head, *w.entry, *w.lines, "}"])

    # statements

    def body(self, body: ir.Body) -> None:
        for stmt in body:
            self.stmt(stmt)

    def stmt(self, stmt: Stmt) -> None:
        match stmt:
            case ir.Let(var, value):
                self.values[var.name] = self.value(value)
            case ir.Store():
                self.store(stmt)
            case ir.For():
                if stmt.kind == "unrolled":
                    self.unrolled(stmt)
                else:
                    self.for_stmt(stmt)
            case ir.While():
                self.while_stmt(stmt)
            case ir.If():
                self.if_stmt(stmt)
            case ir.Alloc():
                self.alloc(stmt)
            case ir.Prefetch(buffer, index):
                pointer = self.address(buffer, self.value(index))
                self.w.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")
            case ir.Barrier():
                self.w.do("fence seq_cst")
            case ir.Poll():
                function = self.context_field("poll")
                ask, on = self.block("ask"), self.block("on")
                nobody = self.w.op(f"icmp eq ptr {function}, null")
                self.w.do(f"br i1 {nobody}, label %{on}, label %{ask}")
                self.w.start(ask)
                code = self.w.op(f"call i32 {function}(ptr %ctx)")
                self.leave_if(self.w.op(f"icmp ne i32 {code}, 0"), code)
                self.w.do(f"br label %{on}")
                self.w.start(on)
            case ir.Fail():
                self.fail(stmt)
            case _:
                raise TypeError(f"not a statement: {stmt!r}")

    def block(self, hint: str) -> str:
        return self.w.fresh(hint)

    def for_stmt(self, stmt: ir.For) -> None:
        w = self.w
        lo, hi, step = self.value(stmt.lo), self.value(stmt.hi), self.value(stmt.step)
        if stmt.kind == "parallel":
            lo, hi = "%begin", w.op(f"call i64 @llvm.smin.i64(i64 %end, i64 {hi})")
        inits = [self.value(init) for init in stmt.inits]
        if self.fills_registers(stmt.carried):
            self.free_registers()
        before, head, exit_ = w.block, self.block("loop"), self.block("exit")
        w.do(f"br i1 {w.op(f'icmp slt i64 {lo}, {hi}')}, label %{head}, label %{exit_}")
        w.start(head)
        phis = self.phis((stmt.index, *stmt.carried), head)
        self.body(stmt.body)
        yields = [self.value(y) for y in stmt.yields]
        following = w.op(f"add nsw i64 {self.values[stmt.index.name]}, {step}")
        last = w.block
        w.do(f"br i1 {w.op(f'icmp slt i64 {following}, {hi}')}, label %{head}, label %{exit_}")
        self.fill(
            phis,
            [(lo, before), *((i, before) for i in inits)],
            [(following, last), *((y, last) for y in yields)],
        )
        w.start(exit_)
        for var, init, given in zip(stmt.results, inits, yields, strict=True):
            self.values[var.name] = w.op(
                f"phi {register_type(var.type)} [ {init}, %{before} ], [ {given}, %{last} ]"
            )

    def fills_registers(self, carried: Sequence[Var]) -> bool:
        """Whether values that a loop carries leave few vector registers for anything else."""
        sizes = (BYTES[v.type.dtype] * v.type.lanes * 8 for v in carried if v.type.lanes > 1)
        return 2 * sum(size // self.target.bits for size in sizes) > self.target.registers

    def free_registers(self) -> None:
        """Keep nothing in vector registers here. LLVM moves constants of what follows out of all loops, and
        then has no registers for the sums of the innermost one."""
        name = {128: "xmm", 256: "ymm", 512: "zmm"}[self.target.bits] if self.target.is_x86 else "v"
        used = ",".join(f"~{{{name}{i}}}" for i in range(self.target.registers))
        self.w.do(f'call void asm sideeffect "", "{used}"()')

    def phis(self, variables: Sequence[Var], block: str) -> list[tuple[int, Var]]:
        """Leave room for a phi per variable; `fill` writes them when the loop's end is known."""
        places = []
        for var in variables:
            name = "%" + self.w.fresh(var.name)
            self.values[var.name] = name
            places.append((len(self.w.lines), var))
            self.w.lines.append(name)
        return places

    def fill(
        self, places: list[tuple[int, Var]], firsts: list[tuple[str, str]], nexts: list[tuple[str, str]]
    ) -> None:
        for (line, var), (a, from_a), (b, from_b) in zip(places, firsts, nexts, strict=True):
            name = self.w.lines[line]
            self.w.lines[line] = (
                f"  {name} = phi {register_type(var.type)} [ {a}, %{from_a} ], [ {b}, %{from_b} ]"
            )

    def unrolled(self, stmt: ir.For) -> None:
        assert (
            isinstance(stmt.lo, ir.Const)
            and isinstance(stmt.hi, ir.Const)
            and isinstance(stmt.step, ir.Const)
        )
        current = [self.value(init) for init in stmt.inits]
        for i in range(int(stmt.lo.value), int(stmt.hi.value), int(stmt.step.value)):
            self.values[stmt.index.name] = str(i)
            self.values.update(zip((v.name for v in stmt.carried), current, strict=True))
            self.body(stmt.body)
            current = [self.value(y) for y in stmt.yields]
        self.values.update(zip((v.name for v in stmt.results), current, strict=True))

    def while_stmt(self, stmt: ir.While) -> None:
        w = self.w
        inits = [self.value(init) for init in stmt.inits]
        before, head, inside, exit_ = w.block, self.block("while"), self.block("do"), self.block("exit")
        w.do(f"br label %{head}")
        w.start(head)
        phis = self.phis(stmt.carried, head)
        condition = self.value(stmt.condition)
        w.do(f"br i1 {condition}, label %{inside}, label %{exit_}")
        current = [self.values[v.name] for v in stmt.carried]
        w.start(inside)
        self.body(stmt.body)
        yields = [self.value(y) for y in stmt.yields]
        self.fill(phis, [(i, before) for i in inits], [(y, w.block) for y in yields])
        w.do(f"br label %{head}")
        w.start(exit_)
        self.values.update(zip((v.name for v in stmt.results), current, strict=True))

    def if_stmt(self, stmt: ir.If) -> None:
        w = self.w
        condition = self.value(stmt.condition)
        yes, no, join = self.block("then"), self.block("else"), self.block("join")
        w.do(f"br i1 {condition}, label %{yes}, label %{no}")
        ends = []
        for label, body, yields in ((yes, stmt.then, stmt.then_yields), (no, stmt.orelse, stmt.else_yields)):
            w.start(label)
            self.body(body)
            ends.append(([self.value(y) for y in yields], w.block))
            w.do(f"br label %{join}")
        w.start(join)
        (first, a), (second, b) = ends
        for var, x, y in zip(stmt.results, first, second, strict=True):
            self.values[var.name] = w.op(f"phi {register_type(var.type)} [ {x}, %{a} ], [ {y}, %{b} ]")

    def alloc(self, stmt: ir.Alloc) -> None:
        scalar = memory_scalar(stmt.dtype)
        if stmt.space in ("workspace", "scratch"):
            assert stmt.offset is not None
            base = self.context_field(stmt.space)
            pointer = self.w.op(f"getelementptr i8, ptr {base}, i64 {self.value(stmt.offset)}", stmt.buffer)
        else:
            assert isinstance(stmt.count, ir.Const)
            pointer = self.w.allocate(f"alloca [{stmt.count.value} x {scalar}], align 64", stmt.buffer)
        self.buffers[stmt.buffer] = (pointer, stmt.dtype)

    def fail(self, stmt: ir.Fail) -> None:
        w = self.w
        record = self.context_field("error")
        w.do(f"store i32 {stmt.code}, ptr {record}")
        for i, value in enumerate(stmt.values):
            slot = w.op(f"getelementptr i8, ptr {record}, i64 {abi.ERROR_OFFSETS['values'] + 8 * i}")
            w.do(f"store i64 {self.value(value)}, ptr {slot}")
        w.do(f"ret i32 {stmt.code}")
        w.start(self.block("after"))  # whatever follows is unreachable

    def leave_if(self, condition: str, code: str) -> None:
        leave, stay = self.block("leave"), self.block("stay")
        self.w.do(f"br i1 {condition}, label %{leave}, label %{stay}")
        self.w.start(leave)
        self.w.do(f"ret i32 {code}")
        self.w.start(stay)

    def context_field(self, name: str) -> str:
        slot = self.w.op(f"getelementptr i8, ptr %ctx, i64 {abi.OFFSETS[name]}")
        return self.w.op(f"load ptr, ptr {slot}, !invariant.load !0", name)

    # memory

    def address(self, buffer: str, index: str, lanes: int = 1) -> str:
        pointer, dtype = self.buffers[buffer]
        return self.w.op(
            f"getelementptr {memory_scalar(dtype)}, ptr {pointer}, {llvm_type('i64', lanes)} {index}"
        )

    def load(self, e: ir.Load) -> str:
        lanes, scalar = e.type.lanes, memory_scalar(e.type.dtype)
        t, align = llvm_type(scalar, lanes), BYTES[e.type.dtype]
        gathered = e.index.type.lanes > 1
        pointer = self.address(e.buffer, self.got(e.index), e.index.type.lanes)
        invariant = ", !invariant.load !0" if e.hint == "invariant" else ""
        if e.mask is None and not gathered:
            loaded = self.w.op(f"load {t}, ptr {pointer}, align {align}{invariant}")
        else:
            rest = literal(0, scalar, lanes)
            if e.otherwise is not None:
                rest = self.to_memory(self.got(e.otherwise), e.type)
            loaded = self.masked_load(pointer, t, scalar, e, gathered, align, rest)
        if e.type.dtype == "bool":
            return self.w.op(f"icmp ne {t} {loaded}, {literal(0, 'i8', lanes)}")
        return loaded

    def masked_load(
        self, pointer: str, t: str, scalar: str, e: ir.Load, gathered: bool, align: int, rest: str
    ) -> str:
        lanes, w = e.type.lanes, self.w
        mask = literal(True, "i1", lanes) if e.mask is None else self.got(e.mask)
        if lanes == 1:
            return self.guarded_load(pointer, t, mask, align, rest)
        kind, pointers = ("gather", f"<{lanes} x ptr>") if gathered else ("load", "ptr")
        overload = f"{suffix(scalar, lanes)}.{suffix('ptr', lanes if gathered else 1)}"
        return w.op(
            f"call {t} @llvm.masked.{kind}.{overload}({pointers} {pointer}, i32 {align}, "
            f"<{lanes} x i1> {mask}, {t} {rest})"
        )

    def guarded_load(self, pointer: str, t: str, mask: str, align: int, rest: str) -> str:
        w = self.w
        before, read, after = w.block, self.block("read"), self.block("after")
        w.do(f"br i1 {mask}, label %{read}, label %{after}")
        w.start(read)
        loaded = w.op(f"load {t}, ptr {pointer}, align {align}")
        w.do(f"br label %{after}")
        w.start(after)
        return w.op(f"phi {t} [ {rest}, %{before} ], [ {loaded}, %{read} ]")

    def hidden(self, mask: str, lanes: int) -> str:
        """A mask that code generation cannot know. Where it knows that one lane is on, LLVM 22 makes a masked
        store of truncated integers a scalar store of the wide integer, past the end of the buffer."""
        w = self.w
        bits = w.op(f"bitcast <{lanes} x i1> {mask} to i{lanes}")
        size = max(lanes, 32)
        wide = bits if size == lanes else w.op(f"zext i{lanes} {bits} to i{size}")
        kept = w.op(f'call i{size} asm "", "=r,0"(i{size} {wide})')
        back = kept if size == lanes else w.op(f"trunc i{size} {kept} to i{lanes}")
        return w.op(f"bitcast i{lanes} {back} to <{lanes} x i1>")

    def to_memory(self, value: str, type: Type) -> str:
        """A value as it lies in memory: bool lanes as bytes."""
        return self.operations.resize(value, type, "u8") if type.dtype == "bool" else value

    def store(self, stmt: ir.Store) -> None:
        type, w = stmt.value.type, self.w
        lanes, scalar = type.lanes, memory_scalar(type.dtype)
        t, align = llvm_type(scalar, lanes), BYTES[type.dtype]
        scattered = stmt.index.type.lanes > 1
        value = self.to_memory(self.value(stmt.value), type)
        mask = None if stmt.mask is None else self.value(stmt.mask)
        pointer = self.address(stmt.buffer, self.value(stmt.index), stmt.index.type.lanes)
        if lanes == 1 and mask is not None:
            write, after = self.block("write"), self.block("after")
            w.do(f"br i1 {mask}, label %{write}, label %{after}")
            w.start(write)
            w.do(f"store {t} {value}, ptr {pointer}, align {align}")
            w.do(f"br label %{after}")
            w.start(after)
        elif mask is None and not scattered:
            w.do(f"store {t} {value}, ptr {pointer}, align {align}")
        else:
            kind, pointers = ("scatter", f"<{lanes} x ptr>") if scattered else ("store", "ptr")
            if mask is not None and not scattered and scalar in _TRUNCATED and self.target.bits == 512:
                mask = self.hidden(mask, lanes)
            overload = f"{suffix(scalar, lanes)}.{suffix('ptr', lanes if scattered else 1)}"
            w.do(
                f"call void @llvm.masked.{kind}.{overload}({t} {value}, {pointers} {pointer}, i32 {align}, "
                f"<{lanes} x i1> {mask or literal(True, 'i1', lanes)})"
            )

    # expressions

    def value(self, expr: Expr) -> str:
        """Emit `expr`; parts that are one object are emitted once. Iterative, since chains may be long."""
        self.memo.clear()
        return self.shared(expr)

    def shared(self, expr: Expr) -> str:
        stack: list[tuple[Expr, bool]] = [(expr, False)]
        memo = self.memo
        while stack:
            node, ready = stack.pop()
            if id(node) in memo:
                continue
            operands = () if ready else children(node)
            if operands:
                stack.append((node, True))
                stack.extend([(child, False) for child in reversed(operands)])
            else:
                memo[id(node)] = (node, self.node(node))
        return memo[id(expr)][1]

    def node(self, e: Expr) -> str:
        """Emit one node whose operands are in the memo."""
        ops, t = self.operations, e.type
        match e:
            case ir.Var(name):
                return self.values[name]
            case ir.Const(value):
                return ops.constant(value, t)
            case ir.Unary(op, x):
                return ops.unary(op, self.got(x), t)
            case ir.Binary(op, left, right):
                return self.binary(op, left, right)
            case ir.Compare(op, left, right):
                return ops.compare(op, self.got(left), self.got(right), left.type)
            case ir.Select(mask, yes, no):
                return ops.select(self.got(mask), self.got(yes), self.got(no), t, mask.type.lanes)
            case ir.Math(op, args):
                return self.math(op, args)
            case ir.Convert(x, dtype):
                return ops.convert(self.got(x), x.type, dtype)
            case ir.Bitcast(x, _):
                source, target = register_type(x.type), register_type(t)
                return (
                    self.got(x)
                    if source == target
                    else self.w.op(f"bitcast {source} {self.got(x)} to {target}")
                )
            case ir.Broadcast(x, lanes):
                return self.broadcast(self.got(x), x.type, lanes)
            case ir.Ramp(base, step, lanes):
                return self.ramp(base, step, lanes)
            case ir.ReduceLanes(op, x):
                return self.reduce(op, self.got(x), x.type)
            case ir.Shuffle(left, right, picks):
                return self.shuffle(left, right, picks)
            case ir.Extract(x, lane):
                if x.type.lanes == 1:
                    return self.got(x)
                return self.w.op(
                    f"extractelement {register_type(x.type)} {self.got(x)}, i64 {self.lane(x, lane)}"
                )
            case ir.Insert(x, lane, value):
                if x.type.lanes == 1:
                    return self.got(value)
                return self.w.op(
                    f"insertelement {register_type(t)} {self.got(x)}, {SCALARS[t.dtype]} "
                    f"{self.got(value)}, i64 {self.lane(x, lane)}"
                )
            case ir.Load():
                return self.load(e)
        raise TypeError(f"not an expression: {e!r}")

    def got(self, e: Expr) -> str:
        return self.memo[id(e)][1]

    def binary(self, op: str, left: Expr, right: Expr) -> str:
        a, b = self.got(left), self.got(right)
        if left.type == ir.IDX and op in ("add", "sub", "mul") and _is_int(a) and _is_int(b):
            x, y = int(a), int(b)  # indices of unrolled loops
            return str(ir.wrap(x + y if op == "add" else x - y if op == "sub" else x * y, "index"))
        if op in ("min", "max") and left.type.is_float:
            return self.operations.float_extremum(op, a, b, left.type, _number(left), _number(right))
        divisor = int(right.value) if isinstance(right, ir.Const) and right.type.is_integer else None
        return self.operations.binary(op, a, b, left.type, divisor)

    def math(self, op: str, args: tuple[Expr, ...]) -> str:
        if op == "fma":
            a, b, c = (self.got(x) for x in args)
            return self.operations.fma(a, b, c, args[0].type)
        if op in ir.DOTS:
            total, a, b = (self.got(x) for x in args)
            return self.operations.dot(op, total, a, b, args[0].type.lanes)
        names = []
        for x in args:  # the routine sees its operands as variables
            name = f".{len(self.values)}"
            self.values[name] = self.got(x)
            names.append(Var(name, x.type))
        return self.shared(vecmath.expand(op, tuple(names), self.target.has_fma))

    def broadcast(self, x: str, type: Type, lanes: int) -> str:
        if lanes == 1:
            return x
        v, scalar = llvm_type(SCALARS[type.dtype], lanes), SCALARS[type.dtype]
        first = self.w.op(f"insertelement {v} poison, {scalar} {x}, i64 0")
        return self.w.op(f"shufflevector {v} {first}, {v} poison, <{lanes} x i32> zeroinitializer")

    def ramp(self, base: Expr, step: Expr, lanes: int) -> str:
        start = self.broadcast(self.got(base), base.type, lanes)
        if lanes == 1:
            return start
        scalar = SCALARS[base.type.dtype]
        v, numbers = llvm_type(scalar, lanes), vector_literal(list(range(lanes)), scalar)
        if not (isinstance(step, ir.Const) and step.value == 1):
            numbers = self.w.op(f"mul {v} {numbers}, {self.broadcast(self.got(step), step.type, lanes)}")
        return self.w.op(f"add {v} {start}, {numbers}")

    def reduce(self, op: str, x: str, type: Type) -> str:
        if type.lanes == 1:
            return x
        t = register_type(type)
        if not type.is_float:  # exact in any order
            name = self.reduction_name(op, type)
            return self.w.op(
                f"call {SCALARS[type.dtype]} @llvm.vector.reduce.{name}."
                f"{suffix(SCALARS[type.dtype], type.lanes)}({t} {x})"
            )
        while type.lanes > 1:
            half, odd = type.lanes // 2, type.lanes % 2
            kept = half + odd
            lower = self.pick(x, type, list(range(kept)))
            upper = self.pick(x, type, [*range(type.lanes - half, type.lanes), *[-1] * odd])
            narrower = vector(type.dtype, kept)
            joined = self.operations.binary(op, lower, upper, narrower)
            if odd:  # the middle lane has no partner in this round
                joined = self.join_middle(joined, lower, narrower, half)
            x, type = joined, narrower
        return x

    def reduction_name(self, op: str, type: Type) -> str:
        if type.dtype == "bool":
            return {"min": "and", "max": "or"}.get(op, op)
        return _EXACT_REDUCTIONS.get(op) or ("s" if type.is_signed else "u") + op

    def pick(self, x: str, type: Type, lanes: list[int]) -> str:
        """Lanes of `x` by number; a single one comes as a scalar."""
        t = register_type(type)
        if len(lanes) == 1:
            return self.w.op(f"extractelement {t} {x}, i64 {lanes[0]}")
        return self.w.op(f"shufflevector {t} {x}, {t} poison, {_lane_list(lanes)}")

    def join_middle(self, joined: str, lower: str, type: Type, middle: int) -> str:
        t = register_type(type)
        lanes = [type.lanes + i if i == middle else i for i in range(type.lanes)]
        return self.w.op(f"shufflevector {t} {joined}, {t} {lower}, {_lane_list(lanes)}")

    def shuffle(self, left: Expr, right: Expr, picks: tuple[int, ...]) -> str:
        a, b, lanes = self.got(left), self.got(right), left.type.lanes
        scalar = SCALARS[left.type.dtype]
        if lanes == 1:
            a = self.w.op(f"insertelement <1 x {scalar}> poison, {scalar} {a}, i64 0")
            b = self.w.op(f"insertelement <1 x {scalar}> poison, {scalar} {b}, i64 0")
        t = f"<{lanes} x {scalar}>"
        shuffled = self.w.op(f"shufflevector {t} {a}, {t} {b}, {_lane_list(picks)}")
        return self.w.op(f"extractelement <1 x {scalar}> {shuffled}, i64 0") if len(picks) == 1 else shuffled

    def lane(self, x: Expr, lane: Expr) -> str:
        """A lane number, brought into range, as i64."""
        if isinstance(lane, ir.Const):
            return str(int(lane.value) % x.type.lanes)
        number = self.operations.resize(self.got(lane), lane.type, "index")
        wide = vector("index")
        return self.operations.binary("mod", number, str(x.type.lanes), wide, x.type.lanes)


def _lane_list(lanes: Sequence[int]) -> str:
    return f"<{len(lanes)} x i32> {vector_literal(list(lanes), 'i32')}"


def _number(e: Expr) -> float | None:
    """The value of a literal that is not NaN."""
    return float(e.value) if isinstance(e, ir.Const) and not math.isnan(e.value) else None


def _is_int(text: str) -> bool:
    return text.lstrip("-").isdigit()
