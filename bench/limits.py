"""What the machine allows: bare loops over as many bytes, or multiplications, as a row needs at least.

`python -m bench.limits THREADS` is a worker as those of `bench.worker` are; its one request:

    limit  read, written (bytes), flops, dtype, evicted  ->  bytes (s), flops (s)

Both are least times of many. Bytes are read by vector loads and written by ordinary or by non-temporal
stores, whichever is faster, each thread in a share of its own, over and over, so that what fits into a cache
comes from there. Multiplications are fused with additions in registers, on one thread with its share of them.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bench.worker import pin, serve

SAMPLES = 16
SAMPLE_SECONDS = 2e-3
UNROLL = 8
EVICTED_BYTES = 1 << 28
N_ACCUMULATORS = 12
"""Enough for the latency of an FMA, few enough for 16 registers."""


class Limits:
    """The loops, compiled for this processor, and what they found so far."""

    def __init__(self, threads: int) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        self.threads = threads
        self.lanes = 16 if features.get("avx512f") else 8 if features.get("avx") else 4
        self.has_bfloat16 = bool(features.get("avx512bf16"))
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2
        )
        module = llvm.parse_assembly(self._assembly())
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, target)
        self._engine.finalize_object()
        self._pool = ThreadPoolExecutor(threads)
        self._rates: dict[str, float] = {}

    def limit(self, read: int, written: int, flops: int, dtype: str, evicted: bool) -> dict[str, float]:
        """Least seconds in which the machine can move these bytes, and do these operations."""
        moved = self._seconds_to_move(read, written, evicted)
        return {"bytes": moved, "flops": flops / self._flops_per_second(dtype) if flops else 0.0}

    def _seconds_to_move(self, read: int, written: int, evicted: bool) -> float:
        unit = 4 * self.lanes * UNROLL
        shares = [
            max(1, round(n / unit / self.threads)) if n >= 4 * self.lanes else 0 for n in (read, written)
        ]
        total = (shares[0] + shares[1]) * unit * self.threads
        scale = (read + written) / max(1, total)  # of a row smaller than a unit, or between two
        if evicted:
            grown = max(1, EVICTED_BYTES // max(1, total))
            shares, scale = [n * grown for n in shares], scale / grown
        buffers = [[_aligned(n * unit) for n in shares] for _ in range(self.threads)]
        least = float("inf")
        for name in ("move", "move_nt"):
            function = self._function(name, 5)

            def run(number: int, repeats: int, function: Callable[..., None] = function) -> float:
                source, destination = (b.ctypes.data for b in buffers[number])
                start = time.perf_counter()
                function(source, shares[0], destination, shares[1], repeats)
                return (time.perf_counter() - start) / repeats

            repeats = 1
            while (seconds := self._together(run, repeats)) * repeats < SAMPLE_SECONDS and repeats < 1 << 24:
                repeats *= 2
            least = min(least, seconds, *(self._together(run, repeats) for _ in range(SAMPLES)))
        return least * scale

    def _together(self, run: Callable[[int, int], float], repeats: int) -> float:
        return max(self._pool.map(lambda number: run(number, repeats), range(self.threads)))

    def _flops_per_second(self, dtype: str) -> float:
        """Of all threads: `threads` times the best rate that one has shown until now."""
        name, per_lane = ("dot_bf16", 4) if dtype == "bfloat16" and self.has_bfloat16 else ("fma", 2)
        function, operands = self._function(name, 2), _aligned(64 * 4)
        operands.view(np.float32)[:] = 0.5  # a denormal number might be slower
        n = 1 << 16
        work = n * N_ACCUMULATORS * self.lanes * per_lane
        for _ in range(SAMPLES):
            start = time.perf_counter()
            function(operands.ctypes.data, n)
            self._rates[name] = max(self._rates.get(name, 0.0), work / (time.perf_counter() - start))
        return self.threads * self._rates[name]

    def _function(self, name: str, n_arguments: int) -> Callable[..., None]:
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_size_t] * n_arguments)
        return prototype(self._engine.get_function_address(name))

    def _assembly(self) -> str:
        vector = f"<{self.lanes} x float>"
        parts = [_move("move", vector, ""), _move("move_nt", vector, ", !nontemporal !0")]
        fma = f"@llvm.fmuladd.v{self.lanes}f32"  # two instructions where there is no fused one
        parts.append(f"declare {vector} {fma}({vector}, {vector}, {vector})")
        parts.append(
            _accumulate("fma", vector, vector, f"call {vector} {fma}({vector} %a, {vector} %a, ", ")")
        )
        if self.has_bfloat16:
            pair, dot = "<32 x bfloat>", "@llvm.x86.avx512bf16.dpbf16ps.512"
            parts.append(f"declare {vector} {dot}({vector}, {pair}, {pair})")
            parts.append(
                _accumulate("dot_bf16", vector, pair, f"call {vector} {dot}(", f", {pair} %a, {pair} %a)")
            )
        return "\n".join([*parts, "!0 = !{i32 1}"])


def _move(name: str, vector: str, hint: str) -> str:
    """`name(source, n_read, destination, n_written, repeats)`: n blocks of UNROLL vectors each. What is both
    read and written is copied; what is only read is summed, for a store that is never done."""
    size = UNROLL
    indices = range(size)

    def addresses(tag: str, base: str, index: str) -> str:
        step = f"getelementptr [{size} x {vector}], ptr {base}, i64 {index}"
        return "\n".join(f"  %{tag}{k} = {step}, i64 {k}" for k in indices)

    loads = "\n".join(f"  %v{k} = load {vector}, ptr %c{k}" for k in indices)
    copies = "\n".join(f"  store {vector} %v{k}, ptr %d{k}{hint}" for k in indices)
    sums = "\n".join(
        f"  %w{k} = load {vector}, ptr %r{k}\n  %t{k} = fadd {vector} %s{k}, %w{k}" for k in indices
    )
    phis = "\n".join(f"  %s{k} = phi {vector} [zeroinitializer, %copied], [%t{k}, %reading]" for k in indices)
    merged = "\n".join(
        f"  %m{k} = phi {vector} [zeroinitializer, %copied], [%t{k}, %reading]" for k in indices
    )
    total = "\n".join(
        f"  %u{k} = fadd {vector} %{'m0' if k == 1 else f'u{k - 1}'}, %m{k}" for k in indices[1:]
    )
    stores = "\n".join(f"  store {vector} zeroinitializer, ptr %e{k}{hint}" for k in indices)
    return f"""
define void @{name}(ptr %source, i64 %n_read, ptr %destination, i64 %n_written, i64 %repeats) {{
entry:
  %fewer = icmp ult i64 %n_read, %n_written
  %both = select i1 %fewer, i64 %n_read, i64 %n_written
  br label %again
again:
  %pass = phi i64 [0, %entry], [%next_pass, %end]
  %any = icmp ult i64 0, %both
  br i1 %any, label %copying, label %copied
copying:
  %c = phi i64 [0, %again], [%next_c, %copying]
{addresses("c", "%source", "%c")}
{loads}
{addresses("d", "%destination", "%c")}
{copies}
  %next_c = add i64 %c, 1
  %more_c = icmp ult i64 %next_c, %both
  br i1 %more_c, label %copying, label %copied
copied:
  %left = icmp ult i64 %both, %n_read
  br i1 %left, label %reading, label %read
reading:
  %r = phi i64 [%both, %copied], [%next_r, %reading]
{phis}
{addresses("r", "%source", "%r")}
{sums}
  %next_r = add i64 %r, 1
  %more_r = icmp ult i64 %next_r, %n_read
  br i1 %more_r, label %reading, label %read
read:
{merged}
{total}
  %lane = extractelement {vector} %u{size - 1}, i32 0
  %never = fcmp oeq float %lane, 0x7FF0000000000000
  br i1 %never, label %keep, label %unwritten
keep:
  store {vector} %u{size - 1}, ptr %destination
  br label %unwritten
unwritten:
  %rest = icmp ult i64 %both, %n_written
  br i1 %rest, label %writing, label %end
writing:
  %e = phi i64 [%both, %unwritten], [%next_e, %writing]
{addresses("e", "%destination", "%e")}
{stores}
  %next_e = add i64 %e, 1
  %more_e = icmp ult i64 %next_e, %n_written
  br i1 %more_e, label %writing, label %end
end:
  %next_pass = add i64 %pass, 1
  %more = icmp ult i64 %next_pass, %repeats
  br i1 %more, label %again, label %done
done:
  ret void
}}"""


def _accumulate(name: str, vector: str, operand: str, before: str, after: str) -> str:
    """`name(operands, n)`: n rounds of one multiplication and addition in each accumulator."""
    indices = range(N_ACCUMULATORS)
    phis = "\n".join(f"  %s{k} = phi {vector} [zeroinitializer, %entry], [%t{k}, %loop]" for k in indices)
    steps = "\n".join(f"  %t{k} = {before}{vector} %s{k}{after}" for k in indices)
    stores = "\n".join(f"  store volatile {vector} %t{k}, ptr %operands" for k in indices)
    return f"""
define void @{name}(ptr %operands, i64 %n) {{
entry:
  %a = load volatile {operand}, ptr %operands
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
{steps}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
{stores}
  ret void
}}"""


def _aligned(n_bytes: int) -> np.ndarray:
    """So many bytes, zero and touched, on a boundary of 64."""
    raw = np.zeros(n_bytes + 64, np.uint8)
    raw[:] = 0
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes]


def main(threads: int) -> None:
    """Serve requests until the pipe closes."""

    def start() -> tuple[Any, str]:
        pin(threads)
        return Limits(threads), ""

    serve(start)


if __name__ == "__main__":
    main(int(sys.argv[1]))
