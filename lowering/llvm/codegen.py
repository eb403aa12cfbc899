"""LLVM IR text to machine code, through llvmlite, which is imported at the first compilation.

No passes of LLVM's run but the one that makes registers of variables: the emitter already writes vectors, and
code generation combines, merges and hoists. With sroa, instcombine, simplifycfg and gvn no kernel was faster
by more than noise, each run of them lost 5 KiB in llvmlite, and NewGVN miscompiled one (LLVM 22).
Target machines are kept. Several modules are compiled at the same time.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from ingot.lowering.image import Image
from ingot.lowering.llvm.elf import flatten, split
from ingot.lowering.llvm.emit import emit_module
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Kernel
from ingot.lowering.loop_verify import verify
from ingot.tracer import config

_Parts = Sequence[Mapping[str, str]]
_SMALL = 1 << 14
"""Characters of LLVM text that a further thread is worth."""
_machines: dict[Target, list[Any]] = {}
"""Target machines that nobody uses: each serves one thread at a time."""


def compile_kernels(kernels: Sequence[Kernel], target: Target) -> Image:
    """One image with an entry per kernel. Raises LoopError for malformed kernels."""
    for kernel in kernels:
        verify(kernel)
    return compile_module(emit_module(kernels, target), target)


def compile_module(llvm_text: str, target: Target) -> Image:
    """The image of an LLVM module; its global functions are the entries. Raises RuntimeError for text that
    LLVM does not accept, LinkError for code that needs libraries or absolute addresses."""
    return flatten(_object(llvm_text, target), target.key, target.page)


def compile_parts(modules: Sequence[tuple[str, _Parts]], target: Target) -> list[Image]:
    """Images of the parts of LLVM modules whose functions are in sections of their own: for each part the
    names of its functions in the module, and in the image. Each module is compiled in a thread of its own.
    Raises as `compile_module`."""
    found: list[list[Image] | BaseException] = [[]] * len(modules)

    def work(i: int) -> None:
        text, parts = modules[i]
        try:
            found[i] = split(_object(text, target), parts, target.key, target.page)
        except BaseException as error:  # noqa: BLE001  (raised below, in the caller's thread)
            found[i] = error

    _binding()  # one thread alone should import it
    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, len(modules))]
    for thread in threads:
        thread.start()
    work(0)
    for thread in threads:
        thread.join()
    images: list[Image] = []
    for result in found:
        if isinstance(result, BaseException):
            raise result
        images += result
    return images


def processors() -> int:
    """How many threads may compile: as many as may run kernels, where that is set."""
    wanted = config.get("INGOT_NUM_THREADS")
    if wanted.isdigit():
        return max(1, int(wanted))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The numbers of `sizes` in at most `count` groups of about equal totals, each worth a thread."""
    count = max(1, min(count, sum(sizes) // _SMALL, len(sizes)))
    groups: list[list[int]] = [[] for _ in range(count)]
    totals = [0] * count
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = totals.index(min(totals))
        groups[least].append(i)
        totals[least] += sizes[i]
    return [sorted(group) for group in groups]


def optimised_text(llvm_text: str, target: Target) -> str:
    """The module as code generation gets it."""
    with _machine(target) as machine:
        return str(_optimised(llvm_text, target, machine))


def assembly_text(llvm_text: str, target: Target) -> str:
    """The module as assembly."""
    with _machine(target) as machine:
        return machine.emit_assembly(_optimised(llvm_text, target, machine))


def _object(llvm_text: str, target: Target) -> bytes:
    with _machine(target) as machine:
        return _emitted(_optimised(llvm_text, target, machine), machine)


def _optimised(llvm_text: str, target: Target, machine: Any) -> Any:
    binding = _binding()
    module = binding.parse_assembly(llvm_text, binding.create_context())
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    if "alloca" in llvm_text:
        passes = binding.create_new_module_pass_manager()
        passes.add_sroa_pass()
        # a builder of its own: those of llvmlite keep pointers to objects that are gone after a run
        builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options())
        _unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)
    return module


def _emitted(module: Any, machine: Any) -> bytes:
    """As `machine.emit_object(module)`."""
    ffi = _binding().ffi
    with ffi.OutputString() as trouble:
        memory = _unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, trouble)
        if not memory:
            raise RuntimeError(str(trouble))
    try:
        start = ffi.lib.LLVMPY_GetBufferStart(memory)
        return ctypes.string_at(start, ffi.lib.LLVMPY_GetBufferSize(memory))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)


def _unlocked(name: str) -> Any:
    """A function of llvmlite without the lock that it puts around each: modules in contexts of their own can
    be compiled at the same time. With the lock, should another llvmlite hide it better."""
    function = getattr(_binding().ffi.lib, name)
    return getattr(function, "_cfn", function)


@cache
def _binding() -> Any:
    import llvmlite.binding as binding

    return binding


@cache
def _initialised(native: bool) -> Any:
    """llvmlite with the code generators of this machine, or of all: those are 1.5 ms more."""
    binding = _binding()
    if native:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
    else:
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
    return binding


@contextmanager
def _machine(target: Target) -> Iterator[Any]:
    """A target machine for this thread alone."""
    free = _machines.setdefault(target, [])
    try:
        machine = free.pop()
    except IndexError:
        here = platform.machine().lower()
        binding = _initialised(target.is_x86 == (here in ("x86_64", "amd64")))
        machine = binding.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
        )
    yield machine
    free.append(machine)
