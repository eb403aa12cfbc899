"""What the runtime did: counters of the process, and the table of a program's steps."""

from __future__ import annotations

from typing import Any

from ingot.lowering.llvm.target import Target, current
from ingot.lowering.program import KernelCode, Program, depths
from ingot.tracer.dims import Extent
from ingot.tracer.record import record


@record(frozen=False)
class Counters:
    """Counts since the start of the process. `kernels_compiled` and `drivers_compiled` went through LLVM;
    `images_loaded` were mapped into memory, from LLVM or from the cache; `programs_built` were lowered,
    `programs_cached` were found on disk; `executables_reused` were found in memory; `natives_compiled` are
    parts of the runtime itself that went through LLVM: thread pool, dispatch."""

    kernels_compiled: int = 0
    drivers_compiled: int = 0
    images_loaded: int = 0
    programs_built: int = 0
    programs_cached: int = 0
    executables_reused: int = 0
    natives_compiled: int = 0

    def as_dict(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in type(self).__match_args__}


counters = Counters()


@record
class StepInfo:
    """One step of a program: a native kernel, a host call (`native` is False), which the interpreter runs, or
    a mark of native control flow: `while`, `do`, `if`, `else`, `end`.

    `depth` says in how many blocks of loops and branches it is. `primitives` counts what was fused; `lines`
    are the user's `file:line`; `nbytes` and `flops` are extents over the program's dims;
    `loop` is the kernel's loop IR.
    """

    name: str
    native: bool
    primitives: tuple[tuple[str, int], ...]
    lines: tuple[str, ...]
    nbytes: Extent
    flops: Extent
    loop: str
    depth: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data; symbolic extents as text."""
        return {
            "name": self.name,
            "native": self.native,
            "primitives": dict(self.primitives),
            "lines": list(self.lines),
            "bytes": self.nbytes if isinstance(self.nbytes, int) else str(self.nbytes),
            "flops": self.flops if isinstance(self.flops, int) else str(self.flops),
            "loop": self.loop,
            "depth": self.depth,
        }


def steps(program: Program) -> list[StepInfo]:
    """The steps of a program in the order in which they run."""
    found = []
    for step, depth in zip(program.steps, depths(program.steps), strict=True):
        if step.mark:
            found.append(StepInfo(step.mark, True, (), (), 0, 0, "", depth))
        elif step.host is not None:
            host = program.hosts[step.host]
            nbytes: Extent = 0
            for number in step.buffers:
                nbytes = nbytes + program.buffers[number].aval.nbytes
            found.append(StepInfo(host.name, False, ((host.name, 1),), host.lines, nbytes, 0, "", depth))
        else:
            assert step.kernel is not None
            k = program.kernels[step.kernel]
            found.append(StepInfo(k.name, True, k.primitives, k.lines, k.nbytes, k.flops, k.text, depth))
    return found


def llvm_text(kernel: KernelCode, target: Target | None = None, optimised: bool = False) -> str:
    """The LLVM IR of a kernel, as emitted or after the passes (which needs llvmlite)."""
    from ingot.lowering.llvm import codegen
    from ingot.lowering.llvm.emit import emit_module

    target = target or current()
    text = emit_module([kernel.kernel()], target)
    return codegen.optimised_text(text, target) if optimised else text


def assembly_text(kernel: KernelCode, target: Target | None = None) -> str:
    """The machine code of a kernel as assembly; needs llvmlite."""
    from ingot.lowering.llvm import codegen

    target = target or current()
    return codegen.assembly_text(llvm_text(kernel, target), target)
