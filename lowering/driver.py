"""The entry points of a program, as LLVM text.

    int32_t prepare(const int64_t *const *in_shapes, int64_t *dims, int64_t *const *out_shapes,
                    int64_t workspace_bytes[2])
    int32_t once(ctx *)
    int32_t entry(ctx *, void *const *inputs, void *const *outputs)

`prepare` finds the dims from the shapes of the inputs, checks shapes, ranges and guards, and says how large
outputs, workspace and the scratch of each thread are. `once` writes what the program keeps: whoever loads it
calls it before the first call, if there is anything to keep. `entry` runs the steps. So whoever loads a
program, Python or C++, runs the same code.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot.lowering import abi
from ingot.lowering.llvm.target import Target
from ingot.lowering.llvm.writer import Writer
from ingot.lowering.loop import FAIL_GUARD, FAIL_HOST
from ingot.lowering.program import (
    DIM_RANGE,
    DIM_UNKNOWN,
    MOST_BYTES,
    SHAPE_MISMATCH,
    TOO_LARGE,
    Program,
    Step,
)
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent, Monomial
from ingot.tracer.record import record

ALIGNMENT = 64
_LIMIT = 1 << 63

_ICMP = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}


def emit_driver(program: Program, target: Target) -> str:
    """The LLVM module of a program's entry points."""
    return "\n".join([f'target triple = "{target.triple}"', driver_functions(program)])


def driver_functions(program: Program) -> str:
    """The entry points, in a section of their own. They are compiled without optimisation, which takes longer
    than the first hundred thousand calls gain from it."""
    attributes = 'attributes #1 = { nounwind noinline optnone "no-builtins" }'
    once = [_once(program)] if program.once else []
    alone = [_ALONE] if any(k.parallel is not None for k in program.kernels) else []
    return "\n".join([_prepare(program), *once, *alone, _entry(program), attributes, ""])


class _Function:
    """A function body over extents."""

    def __init__(self) -> None:
        self.w = Writer()
        self.known: dict[str, str] = {}
        self._extents: dict[int, str] = {}

    def load(self, pointer: str, index: int, type: str = "i64") -> str:
        slot = self.w.op(f"getelementptr {type}, ptr {pointer}, i64 {index}")
        return self.w.op(f"load {type}, ptr {slot}")

    def store(self, value: str, pointer: str, index: int, type: str = "i64") -> None:
        slot = self.w.op(f"getelementptr {type}, ptr {pointer}, i64 {index}")
        self.w.do(f"store {type} {value}, ptr {slot}")

    def extent(self, extent: Extent) -> str:
        """An extent over the dims that are known."""
        if not isinstance(extent, Dim):
            return _integer(extent)
        if extent.op == "symbol":
            return self.known[extent.name]
        found = self._extents.get(id(extent))
        if found is None:
            found = self._extents[id(extent)] = self.computed(extent)
        return found

    def add(self, a: str, b: str) -> str:
        return self.w.op(f"add i64 {a}, {b}")

    def multiply(self, a: str, b: str) -> str:
        return self.w.op(f"mul i64 {a}, {b}")

    def term(self, factor: int, powers: Monomial) -> str:
        """A coefficient times atoms."""
        term = _integer(factor)
        for atom, power in powers:
            for _ in range(power):
                term = self.multiply(term, self.extent(atom))
        return term

    def computed(self, extent: Dim) -> str:
        if extent.op == "+":
            total = "0"
            for factor, powers in extent.terms:
                total = self.add(total, self.term(factor, powers))
            return total
        values = [self.extent(x) for x in extent.operands]
        first = values[0]
        for value in values[1:]:
            first = self.combine(extent.op, first, value)
        return first

    def combine(self, op: str, a: str, b: str) -> str:
        w = self.w
        if op in ("min", "max"):
            return w.op(f"call i64 @llvm.s{op}.i64(i64 {a}, i64 {b})")
        # `prepare` lets only positive divisors pass; quotients round down
        safe = w.op(f"call i64 @llvm.smax.i64(i64 {b}, i64 1)")
        rest = w.op(f"srem i64 {a}, {safe}")
        negative = w.op(f"icmp slt i64 {rest}, 0")
        if op == "%":
            return w.op(f"select i1 {negative}, i64 {w.op(f'add i64 {rest}, {safe}')}, i64 {rest}")
        quotient = w.op(f"sdiv i64 {a}, {safe}")
        return w.op(f"add i64 {quotient}, {w.op(f'sext i1 {negative} to i64')}")

    def leave_unless(self, condition: str, code: int | str) -> None:
        leave, stay = self.w.fresh("leave"), self.w.fresh("stay")
        self.w.do(f"br i1 {condition}, label %{stay}, label %{leave}")
        self.w.start(leave)
        self.w.do(f"ret i32 {code}")
        self.w.start(stay)

    def text(self, signature: str) -> str:
        head = f'define i32 {signature} #1 section ".text.driver" {{'
        return "\n".join([head, "entry:", *self.w.entry, *self.w.lines, "}"])


def _integer(value: int) -> str:
    if not -_LIMIT <= value < _LIMIT:
        raise MemoryError(f"[lower] the graph has an extent with the number {value}, which is too large.")
    return str(value)


# -- prepare ----------------------------------------------------------------------------------------


class _Checked(_Function):
    """Arithmetic that remembers in `wrong` whether a result did not fit, or a divisor was not positive."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong = "false"

    def add(self, a: str, b: str) -> str:
        return self._with_overflow("sadd", a, b)

    def multiply(self, a: str, b: str) -> str:
        return self._with_overflow("smul", a, b)

    def combine(self, op: str, a: str, b: str) -> str:
        if op in ("//", "%"):
            self.note(f"icmp slt i64 {b}, 1")
        return super().combine(op, a, b)

    def _with_overflow(self, op: str, a: str, b: str) -> str:
        both = self.w.op(f"call {{ i64, i1 }} @llvm.{op}.with.overflow.i64(i64 {a}, i64 {b})")
        self.note(f"extractvalue {{ i64, i1 }} {both}, 1")
        return self.w.op(f"extractvalue {{ i64, i1 }} {both}, 0")

    def note(self, condition: str) -> None:
        self.wrong = self.w.op(f"or i1 {self.wrong}, {self.w.op(condition)}")

    def fits(self, aval: Aval) -> None:
        """Note it when an extent is negative, or the bytes, empty axes aside, are too many to address."""
        nbytes = str(aval.dtype.size)
        for n in aval.shape:
            size = self.extent(n)
            if isinstance(n, Dim):
                self.note(f"icmp slt i64 {size}, 0")
                size = self.w.op(f"call i64 @llvm.smax.i64(i64 {size}, i64 1)")
            nbytes = self.multiply(nbytes, size if size != "0" else "1")
        if nbytes.startswith("%"):
            self.note(f"icmp sgt i64 {nbytes}, {MOST_BYTES}")


def _prepare(program: Program) -> str:
    f = _Checked()
    sizes = {
        (i, axis): f.load(f.load("%in_shapes", i, "ptr"), axis)
        for i, aval in enumerate(program.inputs)
        for axis in range(aval.ndim)
    }
    solved = _solve(f, program, sizes)
    for (i, axis), given in sizes.items():
        extent = program.inputs[i].shape[axis]
        if all(s.name in f.known for s in dims.symbols(extent)):
            f.leave_unless(f.w.op(f"icmp eq i64 {given}, {f.extent(extent)}"), SHAPE_MISMATCH)
    if not solved:
        f.w.do(f"ret i32 {DIM_UNKNOWN}")
        return f.text(_PREPARE)
    for guard in program.guards:
        left, right = f.extent(guard.left), f.extent(guard.right)
        f.leave_unless(f.w.op(f"icmp {_ICMP[guard.relation]} i64 {left}, {right}"), FAIL_GUARD)
    for i, symbol in enumerate(program.symbols):
        f.store(f.known[symbol.name], "%dims", i)
    for i, aval in enumerate(program.outputs):
        if aval.ndim:
            shape = f.load("%out_shapes", i, "ptr")
            for axis, n in enumerate(aval.shape):
                f.store(f.extent(n), shape, axis)
    for extent in program.extents:
        f.extent(extent)
    for aval in (*program.outputs, *(b.aval for b in program.buffers if b.place == "workspace")):
        if aval.is_symbolic:
            f.fits(aval)
    total = "0"
    for bytes_ in program.slots:
        total = f.add(total, _rounded(f, bytes_))
    scratch = "0"
    for code in program.kernels:
        if not (isinstance(code.scratch, int) and code.scratch == 0):
            most = _rounded(f, code.scratch)
            scratch = f.w.op(f"call i64 @llvm.smax.i64(i64 {scratch}, i64 {most})")
    f.leave_unless(f.w.op(f"xor i1 {f.wrong}, true"), TOO_LARGE)
    f.store(total, "%workspace_bytes", 0)
    f.store(scratch, "%workspace_bytes", 1)
    f.w.do("ret i32 0")
    return f.text(_PREPARE)


_PREPARE = "@prepare(ptr %in_shapes, ptr %dims, ptr %out_shapes, ptr %workspace_bytes)"


def _solve(f: _Checked, program: Program, sizes: dict[tuple[int, int], str]) -> bool:
    """Find the symbols one after the other from extents linear in one unknown; False when some stay
    unknown."""
    progress = True
    while progress:
        progress = False
        for (i, axis), size in sizes.items():
            extent = program.inputs[i].shape[axis]
            unknown = [s for s in dims.symbols(extent) if s.name not in f.known]
            if len(unknown) == 1 and isinstance(extent, Dim) and _bind(f, unknown[0], extent, size):
                progress = True
    return all(s.name in f.known for s in program.symbols)


def _bind(f: _Checked, symbol: Dim, extent: Dim, size: str) -> bool:
    """Solve `extent == size` for a symbol that occurs once, with a constant factor."""
    if extent.op == "symbol":
        value = size
    elif extent.op == "+":
        factor, rest = 0, "0"
        for c, powers in extent.terms:
            if not any(symbol in dims.symbols(atom) for atom, _ in powers):
                rest = f.add(rest, f.term(c, powers))
            elif powers == ((symbol, 1),) and not factor:
                factor = c
            else:
                return False
        value = f.w.op(f"sdiv i64 {f.w.op(f'sub i64 {size}, {rest}')}, {_integer(factor)}")
    else:
        return False
    f.known[symbol.name] = value
    f.leave_unless(f.w.op(f"icmp sge i64 {value}, {min(symbol.min, _LIMIT - 1)}"), DIM_RANGE)
    if symbol.max is not None:
        f.leave_unless(f.w.op(f"icmp sle i64 {value}, {min(symbol.max, _LIMIT - 1)}"), DIM_RANGE)
    if symbol.multiple_of != 1:
        rest = f.w.op(f"srem i64 {value}, {min(symbol.multiple_of, _LIMIT - 1)}")
        f.leave_unless(f.w.op(f"icmp eq i64 {rest}, 0"), DIM_RANGE)
    return True


def _rounded(f: _Function, size: Extent) -> str:
    bytes_ = f.extent(size)
    more = f.add(bytes_, str(ALIGNMENT - 1))
    return f.w.op(f"and i64 {more}, {-ALIGNMENT}")


# -- entry ------------------------------------------------------------------------------------------


def _entry(program: Program) -> str:
    return _Entry(program, program.steps).text("@entry(ptr %ctx, ptr %inputs, ptr %outputs)")


def _once(program: Program) -> str:
    return _Entry(program, program.once).text("@once(ptr %ctx)")


class _Entry(_Function):
    def __init__(self, program: Program, steps: Sequence[Step]) -> None:
        super().__init__()
        self.program, self.steps = program, steps
        used = {number for step in steps for number in step.buffers}
        kernels = [program.kernels[step.kernel] for step in steps if step.kernel is not None]
        if steps is not program.once:  # constants do not depend on dims
            dims_pointer = self.context("dims")
            for i, symbol in enumerate(program.symbols):
                self.known[symbol.name] = self.load(dims_pointer, i)
        self.places = {"input": "%inputs", "output": "%outputs"}
        if any(program.buffers[number].place == "constant" for number in used):
            self.places["constant"] = self.context("constants")
        self.slots = self.slot_pointers() if steps is not program.once else []
        self.pointers = {
            n: self.pointer(b.place, b.index) for n, b in enumerate(program.buffers) if n in used
        }
        most = max((len(s.buffers) for s in steps), default=1)
        self.arguments = self.w.allocate(f"alloca [{max(most, 1)} x ptr], align 16", "buffers")
        params = max((len(k.params) for k in kernels), default=1)
        self.params = self.w.allocate(f"alloca [{max(params, 1)} x i64], align 16", "params")
        self.blocks: list[_Block] = []
        for code in kernels:
            if code.parallel is not None:
                # here, where the blocks of all steps see them
                self.extent(code.parallel)
                self.extent(code.work)
        if kernels:
            self.kernels = self.context("kernels")
        if any(code.parallel is not None for code in kernels):
            given = self.context("parallel_for")
            threaded = self.w.op(f"icmp ne ptr {given}, null")
            self.parallel_for = self.w.op(f"select i1 {threaded}, ptr {given}, ptr @alone")
        self.poll = self.context("poll")
        self.polls = self.w.op(f"icmp ne ptr {self.poll}, null")
        self.weights = self.iteration_weights()
        for number, step in enumerate(steps):
            if step.mark:
                self.marked(number, step)
            else:
                self.step(number, step)
        self.w.do("ret i32 0")

    def context(self, field: str) -> str:
        slot = self.w.op(f"getelementptr i8, ptr %ctx, i64 {abi.OFFSETS[field]}")
        return self.w.op(f"load ptr, ptr {slot}", field)

    def slot_pointers(self) -> list[str]:
        if not self.program.slots:
            return []
        base, offset, found = self.context("workspace"), "0", []
        for size in self.program.slots:
            found.append(self.w.op(f"getelementptr i8, ptr {base}, i64 {offset}", "slot"))
            offset = self.w.op(f"add i64 {offset}, {_rounded(self, size)}")
        return found

    def pointer(self, place: str, index: int) -> str:
        return self.slots[index] if place == "workspace" else self.load(self.places[place], index, "ptr")

    def step(self, number: int, step: Step) -> None:
        for i, buffer in enumerate(step.buffers):
            self.store(self.pointers[buffer], self.arguments, i, "ptr")
        if step.host is not None:
            code = self.host(step.host)
        else:
            assert step.kernel is not None
            code = self.kernel(step.kernel)
        self.check(number, code)

    def host(self, index: int) -> str:
        """A host call. The error record says whether it has finished: a callback that is interrupted before
        its first line returns whatever lay in memory."""
        w = self.w
        slot = w.op(f"getelementptr i8, ptr {self.context('error')}, i64 {abi.ERROR_OFFSETS['code']}")
        w.do(f"store i32 {FAIL_HOST}, ptr {slot}")
        call = self.context("host_call")
        w.op(f"call i32 {call}(ptr %ctx, i64 {index}, ptr {self.arguments}, ptr {self.params})")
        return w.op(f"load i32, ptr {slot}")

    def kernel(self, index: int) -> str:
        w, code = self.w, self.program.kernels[index]
        for i, name in enumerate(code.params):
            self.store(self.known[name], self.params, i)
        function = self.load(self.kernels, index, "ptr")
        arguments = f"ptr %ctx, ptr {self.arguments}, ptr {self.params}"
        if code.parallel is None:
            return w.op(f"call i32 {function}({arguments}, i64 0, i64 1)")
        extent = self.extent(code.parallel)
        work = self.extent(code.work)  # of dims beyond all memory it may have wrapped; any is right
        return w.op(
            f"call i32 {self.parallel_for}(ptr %ctx, ptr {function}, ptr {self.arguments}, "
            f"ptr {self.params}, i64 {extent}, i64 {work})"
        )

    def check(self, number: int, code: str) -> None:
        """Leave with a step's code; then ask whether to go on."""
        w = self.w
        failed, fine = w.fresh("failed"), w.fresh("fine")
        w.do(f"br i1 {w.op(f'icmp eq i32 {code}, 0')}, label %{fine}, label %{failed}")
        w.start(failed)
        record = self.context("error")
        slot = w.op(f"getelementptr i8, ptr {record}, i64 {abi.ERROR_OFFSETS['kernel']}")
        w.do(f"store i32 {number}, ptr {slot}")
        w.do(f"ret i32 {code}")
        w.start(fine)
        if not any(block.mark == "while" for block in self.blocks):  # loops ask at their end
            self.ask_whether_to_go_on()

    def ask_whether_to_go_on(self) -> None:
        w = self.w
        ask, on = w.fresh("ask"), w.fresh("on")
        w.do(f"br i1 {self.polls}, label %{ask}, label %{on}")
        w.start(ask)
        stop = w.op(f"call i32 {self.poll}(ptr %ctx)")
        leave = w.fresh("leave")
        w.do(f"br i1 {w.op(f'icmp eq i32 {stop}, 0')}, label %{on}, label %{leave}")
        w.start(leave)
        w.do(f"ret i32 {stop}")
        w.start(on)

    # -- blocks -------------------------------------------------------------------------------------

    def marked(self, number: int, step: Step) -> None:
        """Begin, go on with or end a block."""
        w = self.w
        match step.mark:
            case "while":
                self.begin_loop(number, step)
            case "if":
                then, otherwise, after = w.fresh("then"), w.fresh("otherwise"), w.fresh("after")
                w.do(f"br i1 {self.predicate(step)}, label %{then}, label %{otherwise}")
                w.start(then)
                self.blocks.append(_Block("if", otherwise, after))
            case "do":
                body, block = w.fresh("body"), self.blocks[-1]
                w.do(f"br i1 {self.predicate(step)}, label %{body}, label %{block.after}")
                w.start(body)
            case "else":
                block = self.blocks[-1]
                w.do(f"br label %{block.after}")
                w.start(block.again)
            case "end":
                block = self.blocks.pop()
                if block.mark == "while":
                    self.end_loop(block)
                else:
                    w.do(f"br label %{block.after}")
                w.start(block.after)

    def predicate(self, step: Step) -> str:
        byte = self.w.op(f"load i8, ptr {self.pointers[step.buffers[0]]}")
        return self.w.op(f"icmp ne i8 {byte}, 0")

    def begin_loop(self, number: int, step: Step) -> None:
        """The pointers of the state are kept in memory, from where each iteration reads them."""
        w = self.w
        again, after = w.fresh("again"), w.fresh("after")
        kept = [w.allocate("alloca ptr", "state") for _ in step.buffers]
        worked = w.allocate("alloca i64", "worked")
        w.do(f"store i64 0, ptr {worked}")
        for slot, buffer in zip(kept, step.buffers, strict=True):
            w.do(f"store ptr {self.pointers[buffer]}, ptr {slot}")
        w.do(f"br label %{again}")
        w.start(again)
        for slot, buffer in zip(kept, step.buffers, strict=True):
            self.pointers[buffer] = w.op(f"load ptr, ptr {slot}")
        self.blocks.append(_Block("while", again, after, step.buffers, kept, worked, self.weights[number]))

    def end_loop(self, block: _Block) -> None:
        """Exchange the pairs of the state; ask whether to go on when enough was done since the last time."""
        w = self.w
        for a in range(0, len(block.kept), 2):
            first, second = (self.pointers[b] for b in block.pairs[a : a + 2])
            w.do(f"store ptr {second}, ptr {block.kept[a]}")
            w.do(f"store ptr {first}, ptr {block.kept[a + 1]}")
        worked = w.op(f"add i64 {w.op(f'load i64, ptr {block.worked}')}, {block.weight}")
        w.do(f"store i64 {worked}, ptr {block.worked}")
        enough = w.fresh("enough")
        w.do(f"br i1 {w.op(f'icmp ugt i64 {worked}, {_ASK_AFTER}')}, label %{enough}, label %{block.again}")
        w.start(enough)
        w.do(f"store i64 0, ptr {block.worked}")
        self.ask_whether_to_go_on()
        w.do(f"br label %{block.again}")

    def iteration_weights(self) -> dict[int, str]:
        """For each loop, by the number of its first step, how much an iteration does, in bytes."""
        found: dict[int, str] = {}
        opened: list[int] = []
        for number, step in enumerate(self.steps):
            if step.mark in ("while", "if"):
                opened.append(number)
                found[number] = str(_STEP)
            elif step.mark == "end":
                opened.pop()
            elif not step.mark and opened:
                work = str(_STEP)
                for buffer in step.buffers:
                    nbytes = self.extent(self.program.buffers[buffer].aval.nbytes)
                    work = self.w.op(f"add i64 {work}, {nbytes}")
                for start in opened:
                    found[start] = self.w.op(f"add i64 {found[start]}, {work}")
        return found


_PIECE = 10_000_000_000
"""Picoseconds between two questions whether to go on, within a kernel."""
_ALONE = f"""
define internal i32 @alone(ptr %ctx, ptr %kernel, ptr %buffers, ptr %params, i64 %extent, i64 %work)
    #1 section ".text.driver" {{
entry:
  %slot = getelementptr i8, ptr %ctx, i64 {abi.OFFSETS["poll"]}
  %poll = load ptr, ptr %slot
  %nobody = icmp eq ptr %poll, null
  %many = sdiv i64 %work, {_PIECE}
  %fitting = call i64 @llvm.smin.i64(i64 %many, i64 %extent)
  %asking = call i64 @llvm.smax.i64(i64 %fitting, i64 1)
  %pieces = select i1 %nobody, i64 1, i64 %asking
  %last = sub i64 %extent, 1
  %less = sdiv i64 %last, %pieces
  %size = add i64 %less, 1
  br label %run
run:
  %begin = phi i64 [ 0, %entry ], [ %end, %ask ]
  %next = add i64 %begin, %size
  %end = call i64 @llvm.smin.i64(i64 %next, i64 %extent)
  %code = call i32 %kernel(ptr %ctx, ptr %buffers, ptr %params, i64 %begin, i64 %end)
  %failed = icmp ne i32 %code, 0
  %done = icmp sge i64 %end, %extent
  %finished = or i1 %failed, %done
  br i1 %finished, label %leave, label %ask
ask:
  %stop = call i32 %poll(ptr %ctx)
  %stopped = icmp ne i32 %stop, 0
  br i1 %stopped, label %leave, label %run
leave:
  %result = phi i32 [ %code, %run ], [ %stop, %ask ]
  ret i32 %result
}}"""
# what `parallel_for` is for one thread

_STEP = 256
"""What a step counts as besides the bytes that it reads and writes."""
_ASK_AFTER = 1 << 21
"""The bytes after which a loop asks whether to go on: some milliseconds at most."""


@record
class _Block:
    """`while` or `if`, the label of its condition or of its second branch, and that of what follows.

    Of a loop also the buffers that are exchanged, where their pointers are kept, the bytes since it last
    asked whether to go on, and those of an iteration."""

    mark: str
    again: str
    after: str
    pairs: tuple[int, ...] = ()
    kept: Sequence[str] = ()
    worked: str = ""
    weight: str = "0"
