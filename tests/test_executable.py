"""Executables: calls, errors, threads, caches, and what the profile says about them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

from ingot.lowering.llvm.codegen import compile_kernels, compile_module
from ingot.lowering.llvm.emit import emit_module
from ingot.lowering.llvm.target import TARGETS, current
from ingot.lowering.loop_text import parse_kernel
from ingot.lowering.pipeline import lower
from ingot.lowering.program import Program
from ingot.lowering.rules.registry import composed, structured
from ingot.runtime import cache, profile
from ingot.runtime.executable import Executable, executable
from ingot.runtime.interpreter import InterpretedGraph
from ingot.runtime.recent import Recent
from ingot.tracer import dtypes
from ingot.tracer.array import Value, leaf
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Guard
from ingot.tracer.errors import FormatError, GuardError, ShapeError
from ingot.tracer.graph import Constant, Graph, GraphBuilder, Literal
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import index as ix
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.primitives import shape as sh
from ingot.tracer.record import replace

F32, I32 = dtypes.float32, dtypes.int32
B = Dim("B", min=0, max=64)


@pytest.fixture(autouse=True)
def no_complex_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    """All primitives have native code; this takes it from one use, so that the host must compute it."""
    monkeypatch.delitem(composed, (ew.Exp, "c"))


def scaled() -> Graph:
    """`x * 2 + 1` over f32[B,3], and its row sums."""
    b = GraphBuilder("scaled", [Aval((B, 3), F32)], ["x"])
    (y,) = b.add(ew.Mul(), [0, Literal(2.0, F32)])
    (y,) = b.add(ew.Add(), [y, Literal(1.0, F32)])
    (s,) = b.add(rd.ReduceSum((1,), False), [y])
    return b.finish([y, s])


def with_host_call() -> Graph:
    """exp of a complex number, which `no_complex_exp` leaves without lowering, between native steps."""
    b = GraphBuilder("mixed", [Aval((B,), F32)])
    (x,) = b.add(ew.Mul(), [0, Literal(0.5, F32)])
    (c,) = b.add(ew.ConvertElementType(dtypes.complex64), [x])
    (e,) = b.add(ew.Exp(), [c])
    (r,) = b.add(ew.ConvertElementType(F32), [e])
    (y,) = b.add(ew.Add(), [r, Literal(1.0, F32)])
    return b.finish([y])


def values(*arrays: np.ndarray) -> list[Value]:
    return [leaf(np.asarray(a)) for a in arrays]


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


# -- calls ---------------------------------------------------------------------------------------------------


def test_operands_may_lie_anyhow() -> None:
    made = executable(scaled())
    x = numbers(8, 6)
    for view in (
        x[:, ::2],
        x[::-1, 3:],
        np.asfortranarray(x[:, :3]),
        np.broadcast_to(x[0, :3], (8, 3)),
        x[:0, :3],
    ):
        got = made(values(view))
        np.testing.assert_allclose(got[0].view, view * 2 + 1, rtol=1e-6)
    frozen = x[:, :3].copy()
    frozen.flags.writeable = False
    made(values(frozen))


def test_foreign_memory_needs_no_alignment() -> None:
    raw = np.zeros(4 * 60 + 64, np.uint8)
    made = executable(scaled())
    for offset in (4, 12, 20, 1, 3):
        view = raw[offset : offset + 4 * 60].view(np.float32).reshape(20, 3)
        view[...] = numbers(20, 3)
        np.testing.assert_array_equal(made(values(view))[0].view, view * 2 + 1)


def test_results_are_the_callers_own() -> None:
    b = GraphBuilder("same", [Aval((4,), F32)])
    (y,) = b.add(ew.Neg(), [0])
    c = GraphBuilder("const", [])
    k = c.constant(Constant(np.arange(3, dtype=np.float32), Aval((3,), F32)))
    x = numbers(4)
    results = executable(b.finish([0, y, y, 0, Literal(7, I32)]))(values(x))
    memory = {v.view.__array_interface__["data"][0] for v in results} | {x.__array_interface__["data"][0]}
    assert len(memory) == 6
    for v, want in zip(results, [x, -x, -x, x, np.int32(7)], strict=True):
        np.testing.assert_array_equal(v.view, want)
        assert v.view.flags.writeable and v.view.flags.c_contiguous
    (r,) = executable(c.finish([k]))([])
    np.testing.assert_array_equal(r.view, [0, 1, 2])


def test_same_bits_every_time() -> None:
    made = executable(scaled())
    x = values(numbers(50, 3))
    first = [v.view.tobytes() for v in made(x)]
    assert all([v.view.tobytes() for v in made(x)] == first for _ in range(5))


def test_threads_share_an_executable() -> None:
    for graph in (scaled(), with_host_call()):
        made, reference = executable(graph), InterpretedGraph(graph)
        failures: list[object] = []

        def work(seed: int, graph=graph, made=made, reference=reference, failures=failures) -> None:
            try:
                for n in range(1, 40):
                    shape = (n,) if graph.inputs[0].ndim == 1 else (n, 3)
                    x = values(numbers(*shape) + seed)
                    for got, want in zip(made(x), reference(x), strict=True):
                        np.testing.assert_allclose(got.view, want.view, rtol=1e-5, atol=1e-5)
            except BaseException as error:  # noqa: BLE001  (reported by the main thread)
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]


def test_threads_that_compiled_may_end() -> None:
    """LLVM's pass builder keeps addresses of the stack that it ran on."""
    together = threading.Barrier(12)

    def compile_one(name: str) -> None:
        b = GraphBuilder(name, [Aval((B,), F32)])
        (y,) = b.add(ew.Tanh(), [0])
        kernels = [code.kernel() for code in lower(b.finish([y]), current()).kernels]
        compile_module(emit_module(kernels, current()), current())

    def work(name: str) -> None:
        together.wait()  # more stacks than the C library keeps for later threads
        compile_one(name)
        together.wait()

    threads = [threading.Thread(target=work, args=(f"ended{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    compile_one("last")


# -- host calls ----------------------------------------------------------------------------------------------


def test_host_calls_are_listed_and_right() -> None:
    made = executable(with_host_call())
    x = numbers(5)
    np.testing.assert_allclose(made(values(x))[0].view, np.exp(x * 0.5) + 1, rtol=1e-6)
    table = profile.steps(made.program)
    assert [s.name for s in table if not s.native] == ["exp"]
    assert [s.native for s in table] == [True, False, True]


def test_exceptions_of_host_calls_propagate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(structured, ix.Scatter)
    b = GraphBuilder("scatter", [Aval((4,), F32), Aval((2,), F32), Aval((2,), I32)])
    (y,) = b.add(ix.Scatter("add", (0,), 0), [0, 1, 2])
    made = executable(b.finish([y]))
    assert made.program.hosts
    x, u = np.zeros(4, np.float32), np.ones(2, np.float32)
    with pytest.raises(IndexError, match="index 9"):
        made(values(x, u, np.array([0, 9], np.int32)))
    np.testing.assert_array_equal(made(values(x, u, np.array([1, 1], np.int32)))[0].view, [0, 2, 0, 0])


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 4), np.float32),
        np.zeros(3, np.float32),
        np.zeros((2, 3), np.float64),
        np.zeros((65, 3), np.float32),
    ],
)
def test_wrong_operands(array: np.ndarray) -> None:
    made = executable(scaled())
    with pytest.raises(ShapeError, match=r"\[scaled\] expected \(f32\[B,3\]\)"):
        made(values(array))
    made(values(numbers(2, 3)))


def test_wrong_number_of_operands() -> None:
    made = executable(scaled())
    with pytest.raises(ShapeError):
        made(values(numbers(2, 3), numbers(2, 3)))
    with pytest.raises(ShapeError):
        made([])


def test_guards_are_checked() -> None:
    n, m = Dim("N"), Dim("M")
    b = GraphBuilder("guarded", [Aval((n,), F32), Aval((m,), F32)], guards=[Guard("lt", n, m)])
    (y,) = b.add(sh.Concatenate(0), [0, 1])
    made = executable(b.finish([y]))
    assert made(values(numbers(2), numbers(3)))[0].view.shape == (5,)
    with pytest.raises(GuardError, match="N < M"):
        made(values(numbers(3), numbers(3)))


def test_dims_are_solved_from_linear_extents() -> None:
    n, m = Dim("N", min=1), Dim("M", multiple_of=4)
    b = GraphBuilder("linear", [Aval((2 * n + 1,), F32), Aval((n + m, m // 4), F32)])
    (x,) = b.add(sh.Slice((0,), (n,), (1,)), [0])
    made = executable(b.finish([x]))
    assert made(values(numbers(7), numbers(11, 2)))[0].view.shape == (3,)
    for bad in ((6, (11, 2)), (7, (11, 3)), (7, (10, 1)), (1, (8, 2))):
        with pytest.raises(ShapeError):
            made(values(numbers(bad[0]), numbers(*bad[1])))


# -- programs as data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [scaled, with_host_call])
def test_programs_survive_serialisation(make) -> None:
    graph = make()
    program = lower(graph, current())
    data = json.loads(json.dumps(program.to_data()))
    again = Program.from_data(data)
    assert again == program
    x = values(numbers(4, 3) if make is scaled else numbers(4))
    for got, want in zip(Executable(again, [])(x), Executable(program, [])(x), strict=True):
        assert got.view.tobytes() == want.view.tobytes()
    with pytest.raises(FormatError):
        Program.from_data({**data, "format": 99})


@pytest.mark.parametrize("name", TARGETS)
def test_programs_compile_for_every_target(name: str) -> None:
    """The linker rejects undefined symbols and absolute addresses."""
    from ingot.lowering.driver import emit_driver

    target = TARGETS[name]
    program = lower(scaled(), target)
    image = compile_kernels([parse_kernel(k.text) for k in program.kernels], target)
    assert set(image.entries) == {k.name for k in program.kernels}
    assert set(compile_module(emit_driver(program, target), target).entries) == {"prepare", "entry"}


def test_scratch_of_a_thread() -> None:
    """A kernel that copies each row through scratch, whose size depends on a dim: `prepare` says how much,
    and the program runs with it."""
    made = executable(scaled())
    program = made.program
    (old,) = program.kernels
    (batch,) = program.symbols
    text = """kernel @rows_through_scratch(x: f32 read, y: f32 write, s: f32 write; B) {
      alloc row: f32[3 * B] in scratch at 128
      parallel for i in [0, B) {
        for j in [0, 3) {
          row[i * 3 + j] = x[i * 3 + j] * 2.0:f32 + 1.0:f32
          y[i * 3 + j] = row[i * 3 + j]
        }
        s[i] = row[i * 3] + row[i * 3 + 1] + row[i * 3 + 2]
      }
    }"""
    kernel = replace(old, name="rows_through_scratch", text=text, scratch=128 + 12 * batch, loop=None)
    program = replace(program, kernels=(kernel,))
    assert Program.from_data(program.to_data()) == program
    assert program.entry_digest != made.program.entry_digest
    changed = Executable(program, [], made.target)
    x = np.arange(21, dtype=np.float32).reshape(7, 3)
    for got, expected in zip(changed([leaf(x)]), made([leaf(x)]), strict=True):
        np.testing.assert_array_equal(got.view, expected.view)
    assert changed._layout([x]).scratch == 256 and made._layout([x]).scratch == 0


def test_profile_shows_text_at_every_level() -> None:
    made = executable(scaled())
    (step,) = profile.steps(made.program)
    assert step.native and dict(step.primitives) == {"mul": 1, "add": 1, "reduce_sum": 1}
    assert step.loop.startswith("kernel @") and str(step.nbytes) == "28*B"
    (kernel,) = made.program.kernels
    assert "define i32" in profile.llvm_text(kernel) and "define i32" in profile.llvm_text(
        kernel, optimised=True
    )
    assert "ret" in profile.assembly_text(kernel)


# -- caches --------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, json
import numpy as np
import ingot as mx
f = mx.compile(lambda x, w: mx.softmax(x @ w, axis=-1).sum(axis=0))
rng = np.random.default_rng(0)
x, w = (rng.normal(size=s).astype(np.float32) for s in ((6, 8), (8, 5)))
y = f(mx.array(x), mx.array(w))
from ingot.runtime.profile import counters
compiler = "llvmlite" in sys.modules or "ingot.lowering.loop" in sys.modules
result = {"y": y.tolist(), "compiler": compiler, **counters.as_dict()}
print(json.dumps(result))
"""


def fresh_process(folder: Path | str) -> dict:
    """Run SCRIPT with a cache folder; its results and standard error."""
    root = Path(__file__).resolve().parent.parent
    env = {
        "PYTHONPATH": str(root),
        "INGOT_CACHE_DIR": str(folder),
        "PATH": "/usr/bin",
        "HOME": "/nonexistent",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": done.stderr}


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    first = fresh_process(tmp_path)
    assert first["kernels_compiled"] >= 1 and first["compiler"]
    second = fresh_process(tmp_path)
    assert second["kernels_compiled"] == second["drivers_compiled"] == second["programs_built"] == 0
    assert second["programs_cached"] == 1 and not second["compiler"]
    assert second["y"] == first["y"]
    damaged = 0
    for path in tmp_path.iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x55
        path.write_bytes(data)
        damaged += 1
    third = fresh_process(tmp_path)
    assert damaged >= 3 and third["kernels_compiled"] == first["kernels_compiled"]
    assert third["y"] == first["y"] and third["stderr"].count("damaged") == 1
    assert not fresh_process(tmp_path)["compiler"]


def test_no_cache_at_all() -> None:
    result = fresh_process("off")
    assert result["kernels_compiled"] >= 1 and result["stderr"] == ""


def test_equal_loop_text_is_compiled_once() -> None:
    before = profile.counters.kernels_compiled + profile.counters.images_loaded
    for name in ("one", "two"):
        b = GraphBuilder(name, [Aval((B, 5), F32)])
        (y,) = b.add(ew.Add(), [0, Literal(0.123456, F32)])
        executable(b.finish([y]))
    loaded = profile.counters.kernels_compiled + profile.counters.images_loaded - before
    assert loaded <= 2 + 1 + 1  # one kernel and its image, two drivers


def test_an_entry_of_another_format_is_lowered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import marshal

    from ingot.runtime import executable as module

    own = cache.Cache(tmp_path, 1 << 20)
    monkeypatch.setattr(module.disk, "default", lambda: own)
    monkeypatch.setattr(module, "_programs", Recent(8))
    graph = scaled()
    executable(graph)
    for path in tmp_path.glob("*.program"):
        own.put("program", path.stem, marshal.dumps({"format": 0}))
    monkeypatch.setattr(module, "_programs", Recent(8))
    built = profile.counters.programs_built
    executable(graph)
    assert profile.counters.programs_built == built + 1


def shifted(k: int) -> Graph:
    b = GraphBuilder("shifted", [Aval((4,), F32)])
    (y,) = b.add(ew.Add(), [0, Literal(k + 0.5, F32)])
    (y,) = b.add(ew.Mul(), [y, 0])
    return b.finish([y])


def test_tables_keep_what_was_used_last() -> None:
    class Thing:
        pass

    table: Recent[Thing] = Recent(2)
    a, b, c = Thing(), Thing(), Thing()
    assert table.add("a", a) is a and table.add("b", b) is b and table.get("a") is a
    assert table.add("c", c) is c and len(table) == 2
    assert table.add("b", Thing()) is b, "a value in use elsewhere is found again"
    assert table.get("a") is a and len(table) == 2
    del c  # in neither: the last two were b and a
    assert table.get("c") is None and table.get("d") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_code_that_nobody_uses_leaves_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingot.runtime import executable as module

    def mappings() -> int:
        return sum(1 for line in Path("/proc/self/maps").read_text().splitlines() if " r-xp " in line)

    own = cache.Cache(tmp_path, 1 << 28)
    monkeypatch.setattr(module.disk, "default", lambda: own)
    monkeypatch.setattr(module, "_programs", Recent(10))
    monkeypatch.setattr(module, "_images", Recent(10))
    x = numbers(4)
    kept, start = {}, mappings()
    for k in range(300):
        made = executable(shifted(k))
        np.testing.assert_array_equal(made(values(x))[0].view, (x + np.float32(k + 0.5)) * x)
        if k % 50 == 0:
            kept[k] = made
        assert mappings() <= start + 10 + 2 * len(kept) + 3
    for k, made in kept.items():
        np.testing.assert_array_equal(made(values(x))[0].view, (x + np.float32(k + 0.5)) * x)
        again = executable(shifted(k))
        assert again.code.images[0] is made.code.images[0]
    assert len(module._programs) == len(module._images) == 10


def test_many_functions_take_bounded_memory() -> None:
    """INGOT_MANY_FUNCTIONS=10000 takes two minutes. What is left of each is what llvmlite leaves behind:
    5 KiB of callbacks for every run of passes."""
    count = int(os.environ.get("INGOT_MANY_FUNCTIONS", "400"))
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(count)],
        capture_output=True,
        text=True,
        timeout=3000,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    sizes = {int(n): float(size) for n, size in (line.split() for line in done.stdout.splitlines())}
    print(sizes)
    assert sizes[count] - sizes[100] < 32 + count / 100, f"MiB after so many functions: {sizes}"


MANY = """
import gc, sys
import numpy as np
import ingot as mx

def resident():
    gc.collect()
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024

x, count = mx.array(np.ones(64, np.float32)), int(sys.argv[1])
for i in range(1, count + 1):
    y = mx.compile(lambda x, i=i: mx.exp(x * (1 / i)) + i)(x)
    assert abs(y[5].item() - (np.exp(1 / i) + i)) < 1e-5 * (i + 3)
    if i in (100, 1000, 2000, 5000, count):
        print(i, resident(), flush=True)
"""


def test_processes_share_the_cache_though_some_are_killed(tmp_path: Path) -> None:
    """Eight at once on an empty cache, half of them killed at their work and started again."""
    root = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(root), "INGOT_CACHE_DIR": str(tmp_path)}

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", SHARING], env=env, stdout=pipe, stderr=pipe, text=True)

    children = [start() for _ in range(8)]
    killed = 0
    for k in range(4):
        out = children[k].stdout
        assert out is not None
        for _ in range(1 + 5 * k):  # somewhere between the first function and the last
            assert out.readline() == "right\n"
        children[k].kill()
        killed += children[k].wait() != 0
        out.close()
        children[k] = start()
    assert killed
    for child in children:
        out, error = child.communicate(timeout=300)
        assert child.returncode == 0 and not error, error
        assert out.split("\n")[:-2] == ["right"] * 24
    last = start()
    out, error = last.communicate(timeout=300)
    assert last.returncode == 0 and out.endswith("compiled 0\n"), (out, error)


SHARING = """
import numpy as np
import ingot as mx
from ingot.runtime.profile import counters

x = np.arange(1000, dtype=np.float32) / 100
for i in range(24):
    y = mx.compile(lambda x: (x * (i + 0.5) + i) / (x + 1))(mx.array(x))
    np.testing.assert_array_equal(np.array(y), (x * np.float32(i + 0.5) + np.float32(i)) / (x + 1))
    print("right", flush=True)
print("compiled", counters.as_dict()["kernels_compiled"], flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_executables_work_after_a_fork() -> None:
    """Also when another thread, which the child does not have, held every lock."""
    from ingot.runtime import executable as module
    from ingot.runtime.storage import pool

    made, mixed = executable(scaled()), executable(with_host_call())
    x = numbers(5, 3)
    want = made(values(x))[1].view.copy()
    locks = [module._programs._lock, module._images._lock, cache.default()._lock, pool._lock]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        held.set()
        done.wait()
        for lock in locks:
            lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(20)
            np.testing.assert_array_equal(made(values(x))[1].view, want)
            np.testing.assert_allclose(mixed(values(x[:, 0]))[0].view, np.exp(x[:, 0] * 0.5) + 1, rtol=1e-6)
            fresh = executable(shifted(7777))
            np.testing.assert_array_equal(fresh(values(x[0:1, 0].repeat(4)))[0].view.shape, (4,))
            from_pool = pool.empty((3000,), np.dtype(np.float32))
            from_pool[...] = 1
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(made(values(x))[1].view, want)


# -- interruption --------------------------------------------------------------------------------------------

INTERRUPTED = """
import signal, sys
import numpy as np
import ingot as mx
signal.signal(signal.SIGINT, signal.default_int_handler)
def chain(x):
    for _ in range(100):
        x = mx.tanh(x @ x) * 0.5
    return x
f = mx.compile(chain, shapeless=True)  # compiled once, so that only native code is interrupted
small = mx.array(np.eye(3, dtype=np.float32))
want = np.asarray(f(small))
large = mx.array(np.eye(1500, dtype=np.float32))
for attempt in range(2):
    print("running", flush=True)
    try:
        mx.eval(f(large))
        print("finished")
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        assert np.array_equal(np.asarray(f(small)), want)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_a_long_program_can_be_interrupted() -> None:
    root = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(root)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as child:
        assert child.stdout is not None and child.stderr is not None
        try:
            for _ in range(2):
                assert child.stdout.readline() == "running\n", child.stderr.read()
                time.sleep(0.5)
                sent = time.monotonic()
                child.send_signal(signal.SIGINT)
                assert child.stdout.readline() == "interrupted\n"
                assert time.monotonic() - sent < 4
            assert child.wait(30) == 0 and child.stderr.read() == ""
        finally:
            child.kill()


def test_only_long_programs_ask_whether_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from ingot.runtime import executable as module

    made = executable(scaled())
    x = values(numbers(6, 3))
    made(x)
    made(x)
    (frame,), (layout,) = made._frames, made._layouts.values()
    assert frame.poll is not None and not frame.context.poll and not layout.long
    seen = []
    monkeypatch.setattr(made, "_run", lambda frame: seen.append(frame.context.poll) or 0)
    made(x)
    layout.long = True
    monkeypatch.setattr(module, "_LONG", -1.0)
    made(x)
    made(x)
    thread = threading.Thread(target=made, args=(x,))
    thread.start()
    thread.join()
    assert [bool(poll) for poll in seen] == [False, True, True, False]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_signals_at_any_time_never_make_a_wrong_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a handler raises leaves the call, or replaces it by KeyboardInterrupt; results are right."""

    class Stop(Exception):
        pass

    def handler(*_: object) -> None:
        raise Stop

    made, x = executable(with_host_call()), numbers(6)
    want = np.exp(x * 0.5) + 1
    made(values(x))
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    old = signal.signal(signal.SIGALRM, handler)
    stops = 0
    try:
        for i in range(4000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (20 + i % 150))
                (result,) = made(values(x))
                np.testing.assert_allclose(result.view, want, rtol=1e-6)
            except (Stop, KeyboardInterrupt):
                stops += 1
            finally:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Stop:
                    pass
    finally:
        signal.signal(signal.SIGALRM, old)
    assert stops
    np.testing.assert_allclose(made(values(x))[0].view, want, rtol=1e-6)
