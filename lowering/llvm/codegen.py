"""LLVM IR text to machine code, through llvmlite, which is imported at the first compilation.

The pass list is short because the emitter already writes vectors. Target machines are kept.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ingot.lowering.image import Image
from ingot.lowering.llvm.elf import flatten, split
from ingot.lowering.llvm.emit import emit_module
from ingot.lowering.llvm.target import Target
from ingot.lowering.loop import Kernel
from ingot.lowering.loop_verify import verify

_lock = threading.RLock()


def compile_kernels(kernels: Sequence[Kernel], target: Target) -> Image:
    """One image with an entry per kernel. Raises LoopError for malformed kernels."""
    for kernel in kernels:
        verify(kernel)
    return compile_module(emit_module(kernels, target), target)


def compile_module(llvm_text: str, target: Target) -> Image:
    """The image of an LLVM module; its global functions are the entries. Raises RuntimeError for text that
    LLVM does not accept, LinkError for code that needs libraries or absolute addresses."""
    with _lock:
        module = _optimised(llvm_text, target)
        return flatten(_machine(target).emit_object(module), target.key, target.page)


def compile_parts(llvm_text: str, parts: Sequence[Mapping[str, str]], target: Target) -> list[Image]:
    """Images of parts of an LLVM module whose functions are in sections of their own: for each part the names
    of its functions in the module, and in the image. Raises as `compile_module`."""
    with _lock:
        module = _optimised(llvm_text, target)
        return split(_machine(target).emit_object(module), parts, target.key, target.page)


def optimised_text(llvm_text: str, target: Target) -> str:
    """The module after the passes."""
    with _lock:
        return str(_optimised(llvm_text, target))


def assembly_text(llvm_text: str, target: Target) -> str:
    """The module as assembly."""
    with _lock:
        return _machine(target).emit_assembly(_optimised(llvm_text, target))


def _optimised(llvm_text: str, target: Target) -> Any:
    binding = _binding()
    machine = _machine(target)
    module = binding.parse_assembly(llvm_text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    passes = binding.create_new_module_pass_manager()
    if "alloca" in llvm_text:
        passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_new_gvn_pass()
    # a builder of its own: those of llvmlite keep pointers to objects that are gone after a run
    options = binding.create_pipeline_tuning_options(speed_level=2)
    passes.run(module, binding.create_pass_builder(machine, options))
    return module


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


@cache
def _machine(target: Target) -> Any:
    machine = platform.machine().lower()
    binding = _initialised(target.is_x86 == (machine in ("x86_64", "amd64")))
    return binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )

