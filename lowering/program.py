"""Programs: what a graph becomes, as plain data that can be stored and run without the graph."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ingot.tracer import dims_text, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Extent, Guard
from ingot.tracer.errors import FormatError
from ingot.tracer.record import field, record

if TYPE_CHECKING:
    from ingot.lowering.loop import Kernel

FORMAT = 5
SHAPE_MISMATCH, DIM_RANGE, DIM_UNKNOWN, TOO_LARGE = 16, 17, 18, 19
"""Codes of the entry point `prepare` besides FAIL_GUARD: a shape that does not fit, a dim out of its range, a
dim that stays unknown, sizes that are negative or beyond 64 bits."""
MOST_BYTES = 1 << 62
"""No value may be larger, so that offsets into it fit in 64 bits."""


@record(slots=False)
class KernelCode:
    """One kernel: loop IR text, and what a reader wants to know of it.

    params: dims it takes. parallel: extent of its parallel loop. primitives: what was fused, with counts.
    lines: the user's source lines. nbytes: memory it reads and writes once. flops: arithmetic, by a rough
    count. work: picoseconds on one thread, by as rough a one (`lowering.cost`). scratch: bytes of memory that
    each thread needs for itself. loop: the kernel itself where it was
    just made, which spares parsing.
    """

    name: str
    text: str
    params: tuple[str, ...]
    parallel: Extent | None
    primitives: tuple[tuple[str, int], ...]
    lines: tuple[str, ...]
    nbytes: Extent
    flops: Extent
    work: Extent
    scratch: Extent
    loop: Kernel | None = field(default=None, compare=False, repr=False)

    def kernel(self) -> Kernel:
        """The kernel as loop IR."""
        if self.loop is not None:
            return self.loop
        # a process that finds its code in the cache never needs the loop IR, which is slow to import
        from ingot.lowering.loop_text import parse_kernel

        return parse_kernel(self.text)

    @cached_property
    def digest(self) -> str:
        """Names the loop text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@record
class HostCall:
    """A primitive that the interpreter evaluates: a graph of one node, as text."""

    name: str
    text: str
    lines: tuple[str, ...]


@record
class Step:
    """A kernel (`kernel` counts in the program's kernels), a host call (`host`) or a mark, on buffers by
    number.

    Marks make blocks of the steps between them, as in `while A do B end` and `if A else B end`. The buffer
    of `do` and `if` is the predicate; those of `while` are pairs whose memory is exchanged after every
    iteration: the state, and where B writes the next one.
    """

    kernel: int | None
    host: int | None
    buffers: tuple[int, ...]
    mark: str = ""


@record
class Buffer:
    """Memory that a step reads or writes: `place` is `input`, `constant`, `output` or `workspace`, `index`
    counts within it (for the workspace: slots; what is kept counts behind the constants)."""

    place: str
    index: int
    aval: Aval


@record(slots=False)
class Program:
    """Kernels and steps. Sizes are extents over `symbols`; the workspace is a row of `slots`, sizes in
    bytes, each rounded up to 64. `extents` are all expressions that kernels may compute: `prepare` refuses
    dims that make one of them overflow.

    The steps `once` run before the first call, on constants alone; what they write is `kept`, memory that the
    caller provides and lists behind the constants. Constants that only they read are not needed any more."""

    name: str
    target_key: str
    symbols: tuple[Dim, ...]
    guards: tuple[Guard, ...]
    inputs: tuple[Aval, ...]
    constants: tuple[Aval, ...]
    kept: tuple[Aval, ...]
    outputs: tuple[Aval, ...]
    buffers: tuple[Buffer, ...]
    slots: tuple[Extent, ...]
    extents: tuple[Extent, ...]
    kernels: tuple[KernelCode, ...]
    hosts: tuple[HostCall, ...]
    once: tuple[Step, ...]
    steps: tuple[Step, ...]

    @property
    def needed_constants(self) -> frozenset[int]:
        """The constants that calls read."""
        used = (self.buffers[number] for step in self.steps for number in step.buffers)
        return frozenset(b.index for b in used if b.place == "constant" and b.index < len(self.constants))

    @cached_property
    def entry_digest(self) -> str:
        """Names what the entry points depend on."""
        data = self.to_data()
        wanted = (
            "format", "symbols", "guards", "inputs", "constants", "kept", "outputs", "buffers", "slots",
            "extents", "once", "steps",
        )  # fmt: skip
        kernels = [[k.params, str(k.parallel), str(k.work), str(k.scratch)] for k in self.kernels]
        shape = [[data[key] for key in wanted], kernels]
        return hashlib.sha256(repr(shape).encode()).hexdigest()

    # -- plain data ---------------------------------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """Lists, dicts, strings and numbers, for serialisation."""
        return {
            "format": FORMAT,
            "name": self.name,
            "target": self.target_key,
            "symbols": [[s.name, s.min, s.max, s.multiple_of] for s in self.symbols],
            "guards": [[g.relation, _out(g.left), _out(g.right), g.fixed] for g in self.guards],
            "inputs": [_aval_out(a) for a in self.inputs],
            "constants": [_aval_out(a) for a in self.constants],
            "kept": [_aval_out(a) for a in self.kept],
            "outputs": [_aval_out(a) for a in self.outputs],
            "buffers": [[b.place, b.index, _aval_out(b.aval)] for b in self.buffers],
            "slots": [_out(s) for s in self.slots],
            "extents": [_out(n) for n in self.extents],
            "kernels": [
                [k.name, k.text, list(k.params), None if k.parallel is None else _out(k.parallel),
                 [list(p) for p in k.primitives], list(k.lines), _out(k.nbytes), _out(k.flops),
                 _out(k.work), _out(k.scratch)]
                for k in self.kernels
            ],
            "hosts": [[h.name, h.text, list(h.lines)] for h in self.hosts],
            "once": [_step_out(s) for s in self.once],
            "steps": [_step_out(s) for s in self.steps],
        }  # fmt: skip

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Program:
        """The inverse of `to_data`. Raises FormatError for data of another format."""
        if data.get("format") != FORMAT:
            raise FormatError(f"[program] unknown program format {data.get('format')!r}.")
        symbols = tuple(Dim(name, lo, hi, multiple) for name, lo, hi, multiple in data["symbols"])
        read = _Reader({s.name: s for s in symbols})
        kernels = tuple(
            KernelCode(
                name, text, tuple(params), None if parallel is None else read.extent(parallel),
                tuple((p, n) for p, n in primitives), tuple(lines), read.extent(nbytes), read.extent(flops),
                read.extent(work), read.extent(scratch),
            )
            for name, text, params, parallel, primitives, lines, nbytes, flops, work, scratch
            in data["kernels"]
        )  # fmt: skip
        return Program(
            data["name"], data["target"], symbols,
            tuple(Guard(r, read.extent(a), read.extent(b), None, fixed) for r, a, b, fixed in data["guards"]),
            read.avals(data["inputs"]), read.avals(data["constants"]), read.avals(data["kept"]),
            read.avals(data["outputs"]),
            tuple(Buffer(place, index, read.aval(aval)) for place, index, aval in data["buffers"]),
            tuple(read.extent(s) for s in data["slots"]),
            tuple(read.extent(n) for n in data["extents"]),
            kernels,
            tuple(HostCall(name, text, tuple(lines)) for name, text, lines in data["hosts"]),
            _steps_in(data["once"]),
            _steps_in(data["steps"]),
        )  # fmt: skip


def depths(steps: Sequence[Step]) -> list[int]:
    """How many blocks each step is in; a mark counts as outside of the blocks that it opens and closes."""
    found, depth = [], 0
    for step in steps:
        depth -= step.mark in ("do", "else", "end")
        found.append(depth)
        depth += step.mark in ("while", "do", "if", "else")
    return found


def _step_out(step: Step) -> list[Any]:
    return [step.kernel, step.host, list(step.buffers), step.mark]


def _steps_in(data: Sequence[Any]) -> tuple[Step, ...]:
    return tuple(Step(kernel, host, tuple(buffers), mark) for kernel, host, buffers, mark in data)


def _out(extent: Extent) -> int | str:
    return extent if isinstance(extent, int) else str(extent)


def _aval_out(aval: Aval) -> list[Any]:
    return [aval.dtype.short, [_out(n) for n in aval.shape]]


class _Reader:
    def __init__(self, symbols: Mapping[str, Dim]) -> None:
        self.symbols = symbols

    def extent(self, data: int | str) -> Extent:
        return data if isinstance(data, int) else dims_text.parse(data, self.symbols)

    def aval(self, data: Sequence[Any]) -> Aval:
        dtype, shape = data
        return Aval(tuple(self.extent(n) for n in shape), dtypes.by_short[dtype])

    def avals(self, data: Sequence[Any]) -> tuple[Aval, ...]:
        return tuple(self.aval(item) for item in data)
