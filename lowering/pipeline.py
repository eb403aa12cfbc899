"""Graph to Program: a flat list of passes that can be verified, printed and timed.

`INGOT_VERIFY=1` checks the graph after every pass and every kernel, `INGOT_PRINT_AFTER=fuse` (names
separated by commas, or `all`) prints what a pass made, `INGOT_TIMINGS=1` prints how long each took. All of
it goes to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ingot.lowering import loop_verify
from ingot.lowering.assemble import assemble
from ingot.lowering.driver import driver_functions
from ingot.lowering.fuse import fuse
from ingot.lowering.groups import Group
from ingot.lowering.image import Image
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Kernel
from ingot.lowering.loop_text import print_kernel
from ingot.lowering.program import MOST_BYTES, Program, depths
from ingot.lowering.pull import producers
from ingot.lowering.schedule import Scheduled, schedule
from ingot.lowering.simplify.algebra import apply_rules
from ingot.lowering.simplify.common import drop_dead, merge_common
from ingot.lowering.simplify.expand import expand
from ingot.lowering.simplify.inline import inline_calls
from ingot.lowering.simplify.outputs import own_outputs
from ingot.lowering.simplify.scans import lower_scans
from ingot.tracer import config, facts
from ingot.tracer.graph import Graph, Literal, Operand
from ingot.tracer.text import print_graph

GraphPass = Callable[[Graph], Graph]


def merge_and_rewrite(graph: Graph) -> Graph:
    """Equal nodes merged, and what the rules then find (`select(c, x, y)` when x and y became one), until
    nothing changes."""
    while (merged := merge_common(graph)) is not graph:
        graph = apply_rules(merged)
        if graph is merged:
            break
    return graph


SIMPLIFY: tuple[tuple[str, GraphPass], ...] = (
    ("inline", inline_calls),
    ("scans", lower_scans),
    ("expand", expand),
    ("rules", apply_rules),
    ("common", merge_and_rewrite),
    ("dead", drop_dead),
    ("outputs", own_outputs),
)
PASSES = (*(name for name, _ in SIMPLIFY), "fuse", "schedule", "plan", "emit", "compile")
"""All passes in order, as INGOT_PRINT_AFTER names them."""


def compile_code(kernels: Sequence[Kernel], program: Program | None, target: Target) -> list[Image]:
    """The machine code of kernels and, last, of the entry points of a program, if given: passes `emit` and
    `compile`. LLVM, which takes a millisecond for each module, gets one for each processor, if there is so
    much to do; every function becomes an image. Raises LoopError for a malformed kernel."""
    from ingot.lowering.llvm import codegen
    from ingot.lowering.llvm.emit import emit_function, module_of

    log = _Log()
    with log.timed("verify"):
        for kernel in kernels:
            loop_verify.verify(kernel)
    parts = [{f"{kernel.name}.{i}": kernel.name} for i, kernel in enumerate(kernels)]
    with log.timed("emit"):
        functions = [
            emit_function(kernel, target, symbol)
            for kernel, part in zip(kernels, parts, strict=True)
            for symbol in part
        ]
        if program is not None:
            entries = ("prepare", "once", "entry") if program.once else ("prepare", "entry")
            parts.append({name: name for name in entries})
            functions.append(driver_functions(program))
        groups = codegen.balanced([len(text) for text in functions], codegen.processors())
        modules = [(module_of([functions[i] for i in g], target), [parts[i] for i in g]) for g in groups]
    log.show("emit", lambda: "\n".join(text for text, _ in modules))
    with log.timed(f"compile {len(parts)} functions"):
        made = codegen.compile_parts(modules, target)
    log.show("compile", lambda: "\n".join(codegen.assembly_text(text, target) for text, _ in modules))
    numbers = [i for group in groups for i in group]
    return [image for _, image in sorted(zip(numbers, made, strict=True), key=lambda item: item[0])]


def simplify(graph: Graph) -> Graph:
    """The graph after the graph passes."""
    return _simplified(graph, _Log())


def lower(graph: Graph, target: Target) -> Program:
    """The program of a graph for a target. Compiles nothing: its kernels are loop IR."""
    log = _Log()
    _check_sizes(graph)
    graph = _simplified(graph, log)
    with facts.assume(graph.guards):
        return _lowered(graph, target, log)


def _lowered(graph: Graph, target: Target, log: _Log) -> Program:
    parts = _parts(graph, target, log, constants_of(graph))

    def simplify_inner(inner: Graph) -> Graph:
        _check_sizes(inner)
        return _simplified(inner, log)

    with log.timed("plan"):
        program = assemble(graph, parts, target, simplify_inner, lambda g, c: _parts(g, target, log, c))
    log.show("plan", lambda: show_plan(program))
    return program


def _parts(
    graph: Graph, target: Target, log: _Log, constants: frozenset[int]
) -> list[Scheduled | Group]:  # fmt: skip
    """The kernels and host calls of a simplified graph; `constants` are the same in all calls."""
    with log.timed("fuse"):
        groups = fuse(graph)
    log.show("fuse", lambda: show_groups(graph, groups))
    with log.timed("schedule"):
        parts = scheduled(graph, groups, target, constants)
    if config.flag("INGOT_VERIFY"):
        for part in parts:
            if isinstance(part, Scheduled):
                loop_verify.verify(part.built.kernel)
    log.show(
        "schedule", lambda: "\n".join(print_kernel(p.built.kernel) for p in parts if isinstance(p, Scheduled))
    )
    return parts


def constants_of(graph: Graph) -> frozenset[int]:
    """The values of the constants."""
    return frozenset(range(len(graph.inputs), graph.first_result))


def scheduled(
    graph: Graph, groups: Sequence[Group], target: Target, constants: frozenset[int] = frozenset()
) -> list[Scheduled | Group]:
    """The kernels of the groups; host groups stay what they are. `constants` are the same in all calls."""
    stored = frozenset(root for group in groups for root in group.roots).union(range(graph.first_result))
    needed = _needed(graph, groups, stored)
    found: list[Scheduled | Group] = []
    for group in groups:
        if group.kind == "host":
            found.append(group)
        else:
            found.extend(schedule(graph, group, stored, needed, target, constants))
    return found


def _needed(graph: Graph, groups: Sequence[Group], stored: frozenset[int]) -> frozenset[int]:
    """Values that are outputs or that another group than their own reads."""
    found = {o for o in graph.outputs if not isinstance(o, Literal)}
    made = producers(graph)
    for group in groups:
        stack: list[Operand] = [o for root in group.roots for o in made[root].operands]
        seen: set[int] = set()
        while stack:
            value = stack.pop()
            if isinstance(value, Literal) or value in seen:
                continue
            seen.add(value)
            if value in stored and value not in group.roots:
                found.add(value)
            elif value in made and value not in stored:
                stack.extend(made[value].operands)
        if group.kind == "host":
            found.update(group.roots)
    return frozenset(found)


def _simplified(graph: Graph, log: _Log) -> Graph:
    for name, run in SIMPLIFY:
        with log.timed(name):
            new = run(graph)
        log.show(name, lambda old=graph, new=new: "(unchanged)" if new is old else print_graph(new))  # type: ignore[misc]
        if config.flag("INGOT_VERIFY"):
            from ingot.tracer.verify import verify

            verify(new)
        graph = new
    return graph


def _check_sizes(graph: Graph) -> None:
    """Raise MemoryError for values that are too large to address; `prepare` checks the symbolic ones."""
    for aval in graph.avals:
        nbytes = aval.dtype.size
        for n in aval.shape:
            nbytes *= max(n, 1) if isinstance(n, int) else 1
        if nbytes > MOST_BYTES:
            raise MemoryError(f"[{graph.name}] a value of {aval!r} is too large.")


# -- text -------------------------------------------------------------------------------------------


def show_groups(graph: Graph, groups: Sequence[Group]) -> str:
    """One line per group: kind, index space, and the nodes whose results it writes."""
    made = producers(graph)
    lines = []
    for group in groups:
        shape = ",".join(
            f"{'/' if axis in group.reduced else ''}{extent}" for axis, extent in enumerate(group.space)
        )
        first = graph.first_result
        roots = ", ".join(f"%{root - first} {made[root].primitive.name}" for root in group.roots)
        lines.append(f"{group.kind}[{shape}]: {roots}")
    return "\n".join(lines)


def show_plan(program: Program) -> str:
    """The steps with their buffers."""
    lines = []
    for step, depth in zip(program.steps, depths(program.steps), strict=True):
        name = step.mark
        if step.host is not None:
            name = f"host {program.hosts[step.host].name}"
        elif step.kernel is not None:
            name = program.kernels[step.kernel].name
        used = [program.buffers[b] for b in step.buffers]
        shown = ", ".join(f"{b.place}{b.index}: {b.aval!r}" for b in used)
        lines.append(f"{'  ' * depth}{name}({shown})")
    sizes = ", ".join(map(str, program.slots))
    return "\n".join([*lines, f"workspace: [{sizes}] bytes"])


class _Log:
    """Prints and times passes as the environment asks."""

    def __init__(self) -> None:
        shown = config.get("INGOT_PRINT_AFTER")
        self.shown = set(PASSES) if shown == "all" else set(filter(None, shown.split(",")))
        if self.shown.difference(PASSES):
            expected = ", ".join(PASSES)
            raise ValueError(f"[config] INGOT_PRINT_AFTER={shown!r}: expected `all` or some of {expected}.")
        self.times = config.flag("INGOT_TIMINGS")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.times:
            print(f"[ingot] {name}: {1e3 * (time.perf_counter() - start):.2f} ms", file=sys.stderr)

    def show(self, name: str, text: Callable[[], str]) -> None:
        if name in self.shown:
            print(f"[ingot] after {name}\n{text()}", file=sys.stderr)
