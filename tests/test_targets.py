"""Kernels for every target: run at every vector width of this machine, made for AArch64, and some of those
run under an emulator where it is installed."""

from __future__ import annotations

import importlib
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ingot as mx
from ingot.lowering.abi import CONTEXT_SIZE, OFFSETS
from ingot.lowering.llvm.target import TARGETS, Target, host
from ingot.lowering.pipeline import compile_code, lower
from ingot.lowering.program import Program
from ingot.tracer import dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, evaluate
from ingot.tracer.trace import trace

sys.path.insert(0, str(Path(__file__).parent))
samples = importlib.import_module("primitive_samples")
for part in ("complex", "control", "index", "linalg", "random", "shape", "sort"):
    importlib.import_module(f"primitive_samples_{part}")
PARTS = 8
HERE = [t for t in TARGETS.values() if t.is_x86 and host().is_x86 and t.bits <= host().bits]
ELSEWHERE = [t for t in TARGETS.values() if t not in HERE]
B = Dim("B", min=0, max=1000)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def gelu(x):
    return 0.5 * x * (1 + mx.tanh(0.8 * (x + 0.0447 * x * x * x)))


def layer_norm(x, w):
    centered = x - x.mean(axis=-1, keepdims=True)
    return centered * mx.rsqrt((centered * centered).mean(axis=-1, keepdims=True) + 1e-5) * w


def step(x, w, v):
    loss = mx.value_and_grad(lambda w, v: mx.logsumexp(mx.maximum(x @ w, 0.0) @ v, axis=1).sum(), (0, 1))
    return loss(w, v)[1]


FUSIONS: dict[str, tuple[Callable, list[np.ndarray]]] = {
    "gelu": (gelu, [normal(1003)]),
    "clip": (lambda x: mx.minimum(mx.maximum(x, -0.5), 0.5) - x, [normal(7, 33)]),
    "softmax": (lambda x: mx.softmax(x, axis=-1), [normal(5, 67)]),
    "layer norm": (layer_norm, [normal(9, 50), normal(50)]),
    "columns": (lambda x: (x.mean(axis=0), x.var(axis=0)), [normal(70, 37)]),
    "sum": (lambda x: mx.sum(x * x), [normal(4099)]),
    "argmax": (lambda x: x.argmax(axis=1), [normal(6, 77)]),
    "transposed": (lambda x: x.T + 1, [normal(19, 35)]),
    "product": (lambda x, w: mx.maximum(x @ w + 1, 0.0), [normal(17, 40), normal(40, 33)]),
    "train": (step, [normal(12, 20), normal(20, 16), normal(16, 5)]),
    "pairs": (lambda x: mx.sum((x[:, None] - x[None]) ** 2, axis=1), [normal(45)]),
}
EMULATED = {"gelu", "clip", "softmax", "layer norm", "sum", "argmax", "pairs"}


@pytest.mark.parametrize("on", HERE, ids=lambda t: t.name)
@pytest.mark.parametrize("name", FUSIONS)
def test_fusions_run_at_every_width(name: str, on: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    function, inputs = FUSIONS[name]
    given = [mx.array(x) for x in inputs]
    expected = function(*given)
    monkeypatch.setenv("INGOT_TARGET", on.name)
    found = mx.compile(lambda *xs: function(*xs))(*given)
    for got, want in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_allclose(np.array(got), np.array(want), rtol=2e-5, atol=2e-5)


def flat(result):
    return list(result) if isinstance(result, tuple | list) else [result]


def first_cases(part: int) -> list:
    """A native case of every primitive, in parts."""
    found = [next((c for c in cases if c.native), None) for cases in samples.SAMPLES.values()]
    return [case for case in found if case is not None][part::PARTS]


@pytest.mark.parametrize("on", HERE, ids=lambda t: t.name)
@pytest.mark.parametrize("part", range(PARTS))
def test_primitives_run_at_every_width(part: int, on: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = importlib.import_module("test_registry")
    monkeypatch.setenv("INGOT_TARGET", on.name)
    for case in first_cases(part):
        registry.test_compiled_is_as_interpreted(case)


@pytest.mark.parametrize("on", ELSEWHERE, ids=lambda t: t.name)
@pytest.mark.parametrize("part", range(PARTS))
def test_primitives_compile_for_other_targets(part: int, on: Target) -> None:
    """The linker refuses undefined symbols and absolute addresses."""
    registry = importlib.import_module("test_registry")
    for case in first_cases(part):
        graph = trace(registry.function(case.primitive), registry.avals(case), name="f").graph
        made = compiled(lower(graph, on), on)
        assert made[-1].entries.keys() >= {"prepare", "entry"} and all(i.target_key == on.key for i in made)


def compiled(program: Program, on: Target) -> list:
    return compile_code([k.kernel() for k in program.kernels], program, on)


@pytest.mark.parametrize("on", ELSEWHERE, ids=lambda t: t.name)
@pytest.mark.parametrize("name", FUSIONS)
def test_fusions_compile_for_other_targets(name: str, on: Target) -> None:
    assert compiled(program_of(name, on, symbolic=name in EMULATED), on)


def program_of(name: str, on: Target, symbolic: bool = False) -> Program:
    """The program of a fusion, with a symbolic first extent if wanted."""
    function, inputs = FUSIONS[name]
    shapes = [x.shape for x in inputs]
    if symbolic:
        shapes[0] = (B, *shapes[0][1:])
    avals = [Aval(s, dtypes.float32) for s in shapes]
    return lower(trace(lambda *xs: flat(function(*xs)), avals, name="f").graph, on)


# -- under an emulator ---------------------------------------------------------------------------------------

DRIVER = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
/* CODE DATA: code as it lies in memory; of data: entry, kernel's range, numbers of params and buffers,
   params, and of each buffer its bytes and contents, which are written back. */
int main(int n, char **args) {
    FILE *file = fopen(args[1], "rb");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    char *code = mmap(0, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(file), 0);
    FILE *data = fopen(args[2], "r+b");
    int64_t head[4], params[64], bytes[64];
    if (fread(head, 8, 4, data) != 4 || fread(params, 8, head[2], data) != head[2]) return 100;
    void *buffers[64];
    long places[64];
    for (int i = 0; i < head[3]; i++) {
        if (fread(bytes + i, 8, 1, data) != 1) return 101;
        places[i] = ftell(data);
        buffers[i] = malloc(bytes[i] + 1);
        if (fread(buffers[i], 1, bytes[i], data) != bytes[i]) return 102;
    }
    char context[CONTEXT_SIZE] = {0}, error[64] = {0};
    *(void **)(context + ERROR_AT) = error;
    *(void **)(context + SCRATCH_AT) = aligned_alloc(64, 1 << 20);
    int (*kernel)(void *, void **, int64_t *, int64_t, int64_t) = (void *)(code + head[0]);
    int result = kernel(context, buffers, params, 0, head[1]);
    for (int i = 0; i < head[3]; i++) {
        fseek(data, places[i], SEEK_SET);
        fwrite(buffers[i], 1, bytes[i], data);
    }
    fclose(data);
    return result;
}
"""
EMULATOR = [] if platform.machine() == "aarch64" else ["qemu-aarch64"]
COMPILER = "cc" if platform.machine() == "aarch64" else "aarch64-linux-gnu-gcc"
MISSING = [tool for tool in (*EMULATOR, COMPILER) if shutil.which(tool) is None]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that runs a kernel on AArch64."""
    folder = tmp_path_factory.mktemp("aarch64")
    source, binary = folder / "driver.c", folder / "driver"
    source.write_text(DRIVER)
    numbers = {"CONTEXT_SIZE": CONTEXT_SIZE, "ERROR_AT": OFFSETS["error"], "SCRATCH_AT": OFFSETS["scratch"]}
    defines = [f"-D{name}={value}" for name, value in numbers.items()]
    command = [COMPILER, "-static", "-O1", "-w", *defines, str(source), "-o", str(binary)]
    subprocess.run(command, check=True, timeout=120)
    return [*EMULATOR, str(binary)]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@pytest.mark.parametrize("name", sorted(EMULATED))
def test_kernels_run_on_aarch64(name: str, driver: list[str], tmp_path: Path) -> None:
    on = TARGETS["aarch64"]
    program = program_of(name, on, symbolic=True)
    images = compiled(program, on)
    function, inputs = FUSIONS[name]
    env = {"B": inputs[0].shape[0]}
    memory = {("input", i): x for i, x in enumerate(inputs)}
    for buffer in program.buffers:
        shape = tuple(evaluate(n, env) for n in buffer.aval.shape)
        memory.setdefault((buffer.place, buffer.index), np.zeros(shape, buffer.aval.dtype.numpy))
    for step_, image in zip(program.steps, images, strict=False):
        code = program.kernels[step_.kernel]
        buffers = [memory[program.buffers[b].place, program.buffers[b].index] for b in step_.buffers]
        end = 1 if code.parallel is None else evaluate(code.parallel, env)
        head = [image.entries[code.name], end, len(code.params), len(buffers), *(env[p] for p in code.params)]
        contents = struct.pack(f"<{len(head)}q", *head)
        contents += b"".join(struct.pack("<q", b.nbytes) + b.tobytes() for b in buffers)
        (tmp_path / "data").write_bytes(contents)
        (tmp_path / "code").write_bytes(image.text.ljust(image.rodata_distance, b"\0") + image.rodata)
        command = [*driver, str(tmp_path / "code"), str(tmp_path / "data")]
        assert subprocess.run(command, timeout=120).returncode == 0
        at, raw = 8 * len(head), (tmp_path / "data").read_bytes()
        for buffer in buffers:
            at += 8
            buffer[...] = np.frombuffer(raw[at : at + buffer.nbytes], buffer.dtype).reshape(buffer.shape)
            at += buffer.nbytes
    expected = flat(function(*(mx.array(x) for x in inputs)))
    for i, want in enumerate(expected):
        np.testing.assert_allclose(memory["output", i], np.array(want), rtol=2e-5, atol=2e-5)
