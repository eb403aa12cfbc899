"""Executables: programs in memory, ready to be called with arrays.

Graph -> Program and loop text -> machine code are both looked up in memory, then in the cache on disk,
before anything is compiled; llvmlite is imported only then. Programs lie in the cache as `marshal` writes
them: nothing has to be imported to read that, and it is trusted as far as the machine code beside it.
"""

from __future__ import annotations

import ctypes
import marshal
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from ingot.lowering import abi
from ingot.lowering.llvm.target import Target, current, named
from ingot.lowering.program import DIM_UNKNOWN, MOST_BYTES, TOO_LARGE, Program
from ingot.runtime import cache as disk
from ingot.runtime import interpreter, loader, threads
from ingot.runtime.profile import counters
from ingot.runtime.recent import Recent
from ingot.runtime.storage import ALIGNMENT, pool
from ingot.tracer import dims
from ingot.tracer.array import Value, leaf
from ingot.tracer.aval import Aval
from ingot.tracer.dims_binding import bind_shapes
from ingot.tracer.errors import FormatError, GuardError, ShapeError
from ingot.tracer.graph import Graph
from ingot.tracer.record import record

_MEMORY_BOUND = 4096
_HOST_RAISED = 4  # the loop IR's FAIL_HOST
_LONG = 0.1
"""Seconds. A program that runs longer asks between its steps whether to go on; to ask takes Python's lock."""

_programs: Recent[Program] = Recent(1024)
_images: Recent[loader.LoadedImage] = Recent(2048)


# -- from graph to program --------------------------------------------------------------------------


def executable(graph: Graph) -> Executable:
    """The executable of `graph` for this machine (or INGOT_TARGET)."""
    target = current()
    program = program_of(graph, target)
    return Executable(program, [c.data for c in graph.constants], target)


def program_of(graph: Graph, target: Target) -> Program:
    """The program of `graph`: from memory, from the cache on disk, or lowered now."""
    from ingot.tracer.text import print_graph

    text = print_graph(graph)
    key = disk.key("program", target.key, text)
    found = _programs.get(key)
    if found is not None:
        counters.executables_reused += 1
        return found
    program = _stored_program(key)
    if program is None:
        from ingot.lowering.pipeline import lower

        program = lower(graph, target)
        counters.programs_built += 1
        _store_program(key, program)
    return _programs.add(key, program)


def _stored_program(key: str) -> Program | None:
    payload = disk.default().get("program", key)
    if payload is None:
        return None
    try:
        program = Program.from_data(marshal.loads(payload))
    except (ValueError, KeyError, TypeError, EOFError, FormatError):
        return None  # another version of the data behind the same key: lower again
    counters.programs_cached += 1
    return program


def _store_program(key: str, program: Program) -> None:
    cache = disk.default()
    if cache.folder is None:
        return
    cache.put("program", key, marshal.dumps(program.to_data()))


# -- from program to code ---------------------------------------------------------------------------


@record
class Code:
    """Entry points in memory. The images stay mapped as long as this object lives."""

    images: tuple[loader.LoadedImage, ...]
    prepare: Any
    once: Any
    entry: Any
    entry_address: int
    kernels: Any


def load(program: Program, target: Target) -> Code:
    """The machine code of a program: kernels one by one, shared between programs, and its driver."""
    *images, main = _images_of(program, target)
    addresses = [image.address(k.name) for image, k in zip(images, program.kernels, strict=True)]
    pointers = (ctypes.c_void_p * max(len(addresses), 1))(*addresses)
    prepare = _PREPARE(main.address("prepare"))
    once = _ONCE(main.address("once")) if program.once else None
    address = main.address("entry")
    return Code((*images, main), prepare, once, _ENTRY(address), address, pointers)


_pointer = ctypes.c_void_p
_PREPARE = ctypes.CFUNCTYPE(ctypes.c_int32, _pointer, _pointer, _pointer, _pointer)
_ONCE = ctypes.CFUNCTYPE(ctypes.c_int32, _pointer)
_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, _pointer, _pointer, _pointer)


@cache
def _callback(*arguments: Any) -> Any:
    """The type of a function that native code calls."""
    return ctypes.CFUNCTYPE(ctypes.c_int32, *arguments)


def _images_of(program: Program, target: Target) -> list[loader.LoadedImage]:
    """The images of the kernels, and last of the driver. What is in no cache is compiled together."""
    driver = disk.key("driver", target.key, program.entry_digest)
    keys = [*(disk.key("kernel", target.key, code.digest) for code in program.kernels), driver]
    found = {key: _cached_image(key) for key in keys}
    missing = {key: i for i, key in enumerate(keys) if found[key] is None}
    if missing:
        from ingot.lowering.pipeline import compile_code

        kernels = [program.kernels[i].kernel() for key, i in missing.items() if key != driver]
        counters.kernels_compiled += len(kernels)
        counters.drivers_compiled += driver in missing
        images = compile_code(kernels, program if driver in missing else None, target)
        for key, image in zip(missing, images, strict=True):
            disk.default().put("image", key, image.to_bytes(), alignment=loader.PAGE)
            found[key] = _kept(key, loader.load(image))
    return [loaded for key in keys if (loaded := found[key])]


def _cached_image(key: str) -> loader.LoadedImage | None:
    found = _images.get(key)
    if found is not None:
        return found
    loaded = disk.default().use("image", key, loader.map_checked)
    return None if loaded is None else _kept(key, loaded)


def _kept(key: str, loaded: loader.LoadedImage) -> loader.LoadedImage:
    loaded.unload_when_unused()
    counters.images_loaded += 1
    return _images.add(key, loaded)


# -- running ----------------------------------------------------------------------------------------


class _Layout:
    """What a call needs to know for one set of input shapes. `workspace` bytes are for all threads, `scratch`
    for each. `work`: picoseconds of the kernels that can run in parallel. `long`: the last call took long, or
    there was none yet, or how long it takes depends on the data."""

    __slots__ = ("dims", "env", "outputs", "makes", "workspace", "scratch", "work", "long")

    def __init__(
        self, dims: Any, env: Mapping[str, int], outputs: tuple[Aval, ...], workspace: int, scratch: int,
        work: int,
    ) -> None:  # fmt: skip
        self.dims, self.env, self.outputs = dims, env, outputs
        self.workspace, self.scratch, self.work = workspace, scratch, work
        self.long = True
        self.makes = [_maker(aval) for aval in outputs]


class _Frame:
    """A context and its arrays, used by one call at a time."""

    def __init__(self, owner: Executable) -> None:
        program = owner.program
        self.error = abi.error_type()()
        self.context = abi.context_type()(
            version=abi.CONTEXT_VERSION,
            size=abi.CONTEXT_SIZE,
            constants=ctypes.addressof(owner.constant_pointers),
            error=ctypes.addressof(self.error),
            kernels=ctypes.addressof(owner.code.kernels),
        )
        self.inputs = (ctypes.c_void_p * max(len(program.inputs), 1))()
        self.outputs = (ctypes.c_void_p * max(len(program.outputs), 1))()
        self.address = ctypes.addressof(self.context)
        self.env: Mapping[str, int] = {}
        self.team = threads.ALONE
        self.raised: BaseException | None = None
        if program.hosts:
            self.callback = _callback(_pointer, ctypes.c_int64, _pointer, _pointer)(self._host_call)
            self.context.host_call = ctypes.cast(self.callback, ctypes.c_void_p).value
        self.poll: Any = None
        self.program = program
        self.hosts = owner.host_graphs if program.hosts else []

    def join(self, team: threads.Team) -> None:
        """Run on these threads from now on."""
        self.team = team
        self.context.parallel_for, self.context.pool, self.context.threads = team

    def watch(self) -> None:
        """Let the program ask between its steps whether to go on. Signals are for the main thread."""
        if threading.get_ident() != threading.main_thread().ident:
            return
        if self.poll is None:
            answers = self._answers()
            next(answers)
            self.poll = _callback(_pointer)(answers.send)
        self.context.poll = ctypes.cast(self.poll, ctypes.c_void_p).value

    def _answers(self) -> Generator[int, int, None]:
        """Answers whether the program shall stop. Python runs the handlers of signals when it is
        asked, and what they raise, as for Ctrl-C, is raised here, within the `try`: a function that native
        code calls would lose an exception from before its first line."""
        code = 0
        while True:
            try:
                while True:
                    yield code
                    code = 0
            except GeneratorExit:
                return
            except BaseException as error:  # noqa: BLE001  (a callback may not raise)
                self.raised = error
                code = _HOST_RAISED

    def _host_call(self, context: int, index: int, buffers: int, params: int) -> int:
        """Evaluate a primitive on the memory of the running program; exceptions wait until the program has
        left."""
        try:
            graph, avals = self.hosts[index]
            pointers = (ctypes.c_void_p * len(avals)).from_address(buffers)
            views = [_view(pointers[i] or 0, aval, self.env) for i, aval in enumerate(avals)]
            n = len(graph.inputs)
            results = interpreter.run(graph, views[:n], self.env)
            for view, result in zip(views[n:], results, strict=True):
                if result.shape != view.shape or result.dtype != view.dtype:
                    expected = f"{view.dtype}{list(view.shape)}"
                    raise ShapeError(
                        f"[{graph.name}] gave {result.dtype}{list(result.shape)}, expected {expected}."
                    )
                view[...] = result
            self.error.code = 0  # the caller set it, and does not trust what an interrupted callback returns
            return 0
        except BaseException as error:  # noqa: BLE001  (a callback may not raise)
            self.raised = error
            return _HOST_RAISED


def _view(pointer: int, aval: Aval, env: Mapping[str, int]) -> np.ndarray:
    shape = tuple(dims.evaluate(n, env) for n in aval.shape)
    dtype = aval.dtype.numpy
    count = 1
    for n in shape:
        count *= n
    memory = (ctypes.c_uint8 * max(count * dtype.itemsize, 1)).from_address(pointer)
    return np.ctypeslib.as_array(memory)[: count * dtype.itemsize].view(dtype).reshape(shape)


@record
class Ready:
    """A layout, a frame for it with its workspace, if there is one, and whether that depends on the number of
    threads."""

    layout: _Layout
    frame: _Frame
    workspace: np.ndarray | None
    parallel: bool


class Executable:
    """A program with its constants, callable on values. Thread-safe."""

    def __init__(
        self, program: Program, constants: Sequence[np.ndarray], target: Target | None = None
    ) -> None:
        self.program = program
        self.target = target or named("host")
        kept = [pool.empty(a.shape, a.dtype.numpy) for a in program.kept]  # type: ignore[arg-type]
        self.constants: list[np.ndarray | None] = [*map(_contiguous, constants), *kept]
        pointers = [_address(c) for c in self.constants if c is not None]
        self.constant_pointers = (ctypes.c_void_p * max(len(pointers), 1))(*pointers)
        self.code = load(program, self.target)
        self._layouts: dict[tuple[tuple[int, ...], ...], _Layout] = {}
        self._frames: list[_Frame] = []
        self._dtypes = tuple(a.dtype for a in program.inputs)
        self._parallel = any(k.parallel is not None for k in program.kernels)
        self._loops = any(step.mark == "while" for step in program.steps)
        self._host_graphs: list[tuple[Graph, tuple[Aval, ...]]] | None = None
        if program.once:
            self._run_once()

    def _run_once(self) -> None:
        """Make what the program keeps; let go of the constants that only this needs."""
        frame = _Frame(self)
        code = self.code.once(frame.address)
        if code:
            raise RuntimeError(f"[{self.program.name}] failed with code {code} on its constants.")
        for i in set(range(len(self.program.constants))).difference(self.program.needed_constants):
            self.constants[i] = self.constant_pointers[i] = None

    @property
    def host_graphs(self) -> list[tuple[Graph, tuple[Aval, ...]]]:
        """The graphs of the host calls, with the avals of all their buffers."""
        if self._host_graphs is None:
            from ingot.tracer.text import parse_graph

            graphs = [parse_graph(host.text) for host in self.program.hosts]
            self._host_graphs = [(g, (*g.inputs, *g.output_avals)) for g in graphs]
        return self._host_graphs

    @property
    def needs_python(self) -> bool:
        """Whether it calls back, or may run for a time that depends on the data."""
        return bool(self.program.hosts) or self._loops

    def ready(self, views: Sequence[np.ndarray]) -> Ready | None:
        """What calls on inputs like these need, for a caller of one's own; None for now when such a call is
        to be watched, since it may take long, or when it is not known how many threads it will have."""
        layout = self._layout(views)
        parallel = self._parallel and layout.work >= threads.LEAST
        team = threads.team(layout.work) if parallel else threads.ALONE
        if layout.long or (parallel and not threads.settled()):
            return None
        frame = _Frame(self)
        return Ready(layout, frame, self._give(frame, layout, team), parallel)

    def seconds(self, layout: _Layout) -> float:
        """About how long a call takes."""
        work = 0
        for k in self.program.kernels:
            work += dims.evaluate(k.nbytes, layout.env) + dims.evaluate(k.flops, layout.env)
        return work * 1e-10

    def __call__(self, operands: Sequence[Value]) -> list[Value]:
        """Run on evaluated operands.

        Raises:
            ShapeError: for shapes or dtypes that the graph does not take.
            ValueError: for a dim outside its range.
            GuardError: when a guard of the graph does not hold.
            IndexError: for an index of the data that is out of bounds.
        """
        views: list[Any] = [o.view for o in operands]
        layout = self._layout(views)
        # keeps copies of inputs alive while the program runs
        inputs = [_contiguous(v) for v in views]
        outputs = [make() for make in layout.makes]
        try:
            frame = self._frames.pop()
        except IndexError:  # all of them are in use
            frame = _Frame(self)
        frame.inputs[: len(inputs)] = [_address(v) for v in inputs]
        frame.outputs[: len(outputs)] = [_address(v) for v in outputs]
        team = threads.team(layout.work) if self._parallel else threads.ALONE
        workspace = self._give(frame, layout, team)
        if layout.long:
            code = self._run_watched(frame, layout)
        else:
            code = self._run(frame)
        if code:
            self._fail(code, frame)
        self._frames.append(frame)
        del workspace
        return [_result(view, aval) for view, aval in zip(outputs, layout.outputs, strict=True)]

    def _give(self, frame: _Frame, layout: _Layout, team: threads.Team) -> np.ndarray | None:
        """Let a frame's context have what a layout says, and the team's threads. Returns the workspace, which
        must live as long."""
        frame.env = layout.env
        frame.context.dims = ctypes.addressof(layout.dims)
        if team is not frame.team:
            frame.join(team)
        if not layout.workspace and not layout.scratch:
            return None
        # one block: the workspace, then the scratch of each thread
        workspace = pool.empty((layout.workspace + layout.scratch * team.threads,), _BYTES)
        frame.context.workspace = _address(workspace)
        frame.context.scratch = frame.context.workspace + layout.workspace
        frame.context.scratch_bytes = layout.scratch
        return workspace

    def _run(self, frame: _Frame) -> int:
        return self.code.entry(frame.address, ctypes.addressof(frame.inputs), ctypes.addressof(frame.outputs))

    def _run_watched(self, frame: _Frame, layout: _Layout) -> int:
        """Run a program that may take long, so that Ctrl-C ends it."""
        frame.watch()
        start = time.perf_counter()
        code = self._run(frame)
        layout.long = self._loops or time.perf_counter() - start > _LONG
        frame.context.poll = None
        return code

    # -- shapes -------------------------------------------------------------------------------------

    def _layout(self, views: Sequence[np.ndarray]) -> _Layout:
        key = tuple([v.shape for v in views])
        found = self._layouts.get(key)
        if found is None:
            found = self._new_layout(key)
            if len(self._layouts) >= _MEMORY_BOUND:
                self._layouts.clear()
            self._layouts[key] = found
        for view, dtype in zip(views, self._dtypes, strict=True):
            if view.dtype is not dtype.numpy and view.dtype != dtype.numpy:
                raise ShapeError(f"[{self.program.name}] expected {self._expected()}, got {_shown(views)}.")
        return found

    def _new_layout(self, shapes: tuple[tuple[int, ...], ...]) -> _Layout:
        program = self.program
        if len(shapes) != len(program.inputs) or any(
            len(s) != a.ndim for s, a in zip(shapes, program.inputs, strict=True)
        ):
            raise ShapeError(f"[{program.name}] expected {self._expected()}, got shapes {_shapes(shapes)}.")
        in_shapes, keep = _shape_table(shapes)
        out_shapes, outs = _shape_table([(0,) * a.ndim for a in program.outputs])
        values = (ctypes.c_int64 * max(len(program.symbols), 1))()
        sizes = (ctypes.c_int64 * 2)()
        code = self.code.prepare(
            ctypes.addressof(in_shapes),
            ctypes.addressof(values),
            ctypes.addressof(out_shapes),
            ctypes.addressof(sizes),
        )
        del keep
        if code:
            return self._explain(code, shapes)
        env = {symbol.name: values[i] for i, symbol in enumerate(program.symbols)}
        avals = tuple(Aval(tuple(s[: a.ndim]), a.dtype) for s, a in zip(outs, program.outputs, strict=True))
        return _Layout(values, env, avals, sizes[0], sizes[1], self._work(env))

    def _work(self, env: Mapping[str, int]) -> int:
        kernels = (k for k in self.program.kernels if k.parallel is not None)
        return sum(dims.evaluate(k.work, env) for k in kernels)

    def _explain(self, code: int, shapes: tuple[tuple[int, ...], ...]) -> _Layout:
        """The error behind a code of `prepare`; a layout only for dims that native code cannot solve for."""
        program = self.program
        try:
            env = bind_shapes([a.shape for a in program.inputs], shapes)
        except ValueError as error:
            given = f"expected {self._expected()}, got shapes {_shapes(shapes)}"
            raise ShapeError(f"[{program.name}] {given}: {error}") from None
        for symbol in program.symbols:
            if symbol.name not in env:
                raise ShapeError(
                    f"[{program.name}] the shapes of the inputs do not determine dim {symbol.name}."
                )
        for guard in program.guards:
            if not guard.holds(env):
                raise GuardError(
                    f"[{program.name}] {guard} does not hold for {env} (shapes {_shapes(shapes)})."
                )
        self._check_extents(env, shapes)
        if code == TOO_LARGE:
            raise MemoryError(f"[{program.name}] too large for {dict(env)} (shapes {_shapes(shapes)}).")
        if code != DIM_UNKNOWN:
            raise ShapeError(f"[{program.name}] expected {self._expected()}, got shapes {_shapes(shapes)}.")
        values = (ctypes.c_int64 * max(len(program.symbols), 1))(*[env[s.name] for s in program.symbols])
        avals = tuple(Aval(tuple(dims.evaluate(n, env) for n in a.shape), a.dtype) for a in program.outputs)
        size = sum(_rounded(dims.evaluate(n, env)) for n in program.slots)
        scratch = max((_rounded(dims.evaluate(k.scratch, env)) for k in program.kernels), default=0)
        return _Layout(values, env, avals, size, scratch, self._work(env))

    def _check_extents(self, env: Mapping[str, int], shapes: tuple[tuple[int, ...], ...]) -> None:
        """What `prepare` checks as TOO_LARGE.

        Raises:
            ShapeError: for an extent that is negative, or divided by one that is not positive.
            MemoryError: for values and expressions beyond what 64 bits can number.
        """
        program = self.program
        where = f"for {dict(env)} (shapes {_shapes(shapes)})"
        for extent in program.extents:
            assert isinstance(extent, dims.Dim)
            if extent.op in ("//", "%") and dims.evaluate(extent.operands[1], env) < 1:
                raise ShapeError(f"[{program.name}] the divisor of {extent} is not positive {where}.")
            if abs(dims.evaluate(extent, env)) > MOST_BYTES:
                raise MemoryError(f"[{program.name}] the extent {extent} is too large {where}.")
        for aval in (*program.outputs, *(b.aval for b in program.buffers)):
            nbytes = aval.dtype.size
            for n in aval.shape:
                size = dims.evaluate(n, env)
                if size < 0:
                    raise ShapeError(f"[{program.name}] the extent {n} is negative {where}.")
                nbytes *= max(size, 1)
            if nbytes > MOST_BYTES:
                raise MemoryError(f"[{program.name}] a value of {aval!r} is too large {where}.")

    def _expected(self) -> str:
        return "(" + ", ".join(map(repr, self.program.inputs)) + ")"

    # -- errors -------------------------------------------------------------------------------------

    def _fail(self, code: int, frame: _Frame) -> None:
        raised, frame.raised = frame.raised, None
        self._frames.append(frame)
        if raised is not None:
            raise raised
        if code == _HOST_RAISED:
            # what a signal's handler raises before the first line of a callback is shown and lost
            raise KeyboardInterrupt(f"[{self.program.name}] a host call was interrupted")
        step = self.program.steps[frame.error.kernel]
        host, kernel = step.host, step.kernel or 0
        name = self.program.hosts[host].name if host is not None else self.program.kernels[kernel].name
        values = list(frame.error.values)
        # not imported before: a process that finds its code in the cache does without the loop IR
        from ingot.lowering import loop as ir

        if code == ir.FAIL_INDEX:
            raise IndexError(_out_of_bounds(*values[:3]))
        if code == ir.FAIL_MEMORY:
            raise MemoryError(f"[{name}] no memory")
        if code == ir.FAIL_INTERRUPTED:
            raise KeyboardInterrupt
        if code == threads.FORKED:
            raise RuntimeError(f"[{name}] cannot be finished by the child of a fork in the middle of it.")
        raise RuntimeError(f"[{name}] failed with code {code} and values {values}.")


def _out_of_bounds(index: int, extent: int, what: int) -> str:
    """The message of a failed check; the kernel has counted negative indices from the end already."""
    from ingot.lowering.points import CHECKED

    name = CHECKED[what]
    if name in ("gather", "scatter"):
        shown = index - extent if index < 0 else index
        return f"[{name}] index {shown} is out of bounds for an axis of size {extent}."
    return f"[{name}] a window from {index} is out of bounds: it may start at 0 to {extent - 1}."


_BYTES = np.dtype(np.uint8)


def _maker(aval: Aval) -> Callable[[], np.ndarray]:
    """What makes memory for a result; where a result fits into a cache line, NumPy is fastest."""
    empty: Any = np.empty if int(aval.nbytes) <= ALIGNMENT else pool.empty
    return partial(empty, aval.shape, aval.dtype.numpy)


def _rounded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _address(view: np.ndarray) -> int:
    return view.__array_interface__["data"][0]


def _contiguous(data: np.ndarray) -> np.ndarray:
    return data if data.flags.c_contiguous else np.ascontiguousarray(data)


def _result(view: np.ndarray, aval: Aval) -> Value:
    """A value over a fresh buffer."""
    return leaf(view, aval=aval)


def _shape_table(shapes: Sequence[Sequence[int]]) -> tuple[Any, list[Any]]:
    """Pointers to arrays of extents, and those arrays."""
    rows = [(ctypes.c_int64 * max(len(s), 1))(*s) for s in shapes]
    table = (ctypes.c_void_p * max(len(rows), 1))(*[ctypes.addressof(row) for row in rows])
    return table, rows


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join("(" + ",".join(map(str, s)) + ")" for s in shapes)


def _shown(views: Sequence[np.ndarray]) -> str:
    return "(" + ", ".join(f"{v.dtype}[{','.join(map(str, v.shape))}]" for v in views) + ")"
