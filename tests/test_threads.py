"""The thread pool: what it runs, what it reports, and how processes with it fork and end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import ingot as mx
from ingot import nn
from ingot.lowering import abi, cost
from ingot.lowering.llvm.codegen import compile_module
from ingot.lowering.llvm.target import TARGETS, host, named
from ingot.lowering.native.language import At
from ingot.lowering.native.translate import translate
from ingot.runtime import loader, threads, threads_native

ROOT = Path(__file__).resolve().parent.parent
COUNTS = (1, 2, 3, 8)
FAILED = 7
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(autouse=True)
def number_of_threads():
    before = mx.get_num_threads()
    yield
    mx.set_num_threads(before)


@pytest.fixture(scope="module")
def team():
    """A function that gives a team of n threads."""

    def of(n):
        mx.set_num_threads(n)
        return threads.team(1 << 60)

    return of


# -- the pool alone -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels():
    import importlib.util

    spec = importlib.util.spec_from_file_location("native_kernels", ROOT / "tests" / "native_kernels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["native_kernels"] = module
    spec.loader.exec_module(module)
    return loader.load(compile_module(translate(module, host()), host()))


POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int64
PARALLEL_FOR = ctypes.CFUNCTYPE(ctypes.c_int32, POINTER, POINTER, POINTER, POINTER, NUMBER, NUMBER)
REPEAT = ctypes.CFUNCTYPE(NUMBER, POINTER, POINTER, POINTER, POINTER, NUMBER, NUMBER, NUMBER)
POLL = ctypes.CFUNCTYPE(ctypes.c_int32, POINTER)


class Run:
    """One parallel loop of the kernel `count`."""

    def __init__(self, kernels, team, extent, work, turns=0, fails=(), poll=None):
        self.visits, self.fails = np.zeros(max(extent, 1), np.int64), np.zeros(max(extent, 1), np.int64)
        self.fails[list(fails)] = 1
        self.totals = np.zeros(3, np.int64)
        self.scratch = np.zeros((threads.MOST, 8), np.int64)
        self.error = abi.error_type()()
        self.poll = POLL(poll) if poll else None
        self.context = abi.context_type()(
            version=abi.CONTEXT_VERSION,
            size=abi.CONTEXT_SIZE,
            parallel_for=team.parallel_for,
            pool=team.pool,
            threads=team.threads,
            scratch=self.scratch.ctypes.data,
            scratch_bytes=64,
            error=ctypes.addressof(self.error),
            poll=ctypes.cast(self.poll, POINTER).value if self.poll else None,
        )
        self.buffers = (POINTER * 3)(*(a.ctypes.data for a in (self.visits, self.fails, self.totals)))
        self.params = (NUMBER * 1)(turns)
        self.arguments = (
            ctypes.addressof(self.context), kernels.address("count"), self.buffers, self.params, extent, work,
        )  # fmt: skip
        self.function = PARALLEL_FOR(team.parallel_for)
        self.repeat_function = REPEAT(kernels.address("repeat"))

    def __call__(self):
        self.code = self.function(*self.arguments)
        return self

    def repeat(self, times):
        assert self.repeat_function(*self.arguments, times) == 0
        return self

    @property
    def threads(self):
        return int((self.scratch[:, 0] > 0).sum())


def test_the_layout_of_the_context():
    layout = {name: offset for name, (offset, _) in threads_native.Context.layout().items()}
    layout["size"] = layout.pop("context_size")
    assert layout == abi.OFFSETS
    assert 8 * threads_native.CONTEXT_WORDS == abi.CONTEXT_SIZE == threads_native.Context.size()
    errors = {name: offset for name, (offset, _) in threads_native.Error.layout().items()}
    assert errors["code"] == abi.ERROR_OFFSETS["code"] and errors["value0"] == abi.ERROR_OFFSETS["values"]
    assert threads_native.Error.size() == abi.ERROR_SIZE


def test_structures_do_not_overlap():
    """Each system structure has 128 bytes; glibc, musl and macOS need at most 64."""
    n = threads_native
    places = [n.Pool.size(), n.MUTEX, n.CONDITION, n.SIGNALS, n.ATTRIBUTES, n.SLOTS]
    assert places == sorted(places)
    assert all(b - a >= 128 for a, b in zip(places[1:], places[2:], strict=False))
    slot = {name: offset for name, (offset, _) in n.Slot.layout().items()}
    assert slot["error"] - slot["context"] >= abi.CONTEXT_SIZE
    assert n.SLOT - slot["error"] >= abi.ERROR_SIZE
    assert isinstance(n.Pool.__dict__["epoch"], At)
    here = (threads._MUTEX, threads._CONDITION, threads._SIGNALS, threads._ATTRIBUTES, threads._MEMORY)
    assert here == (n.MUTEX, n.CONDITION, n.SIGNALS, n.ATTRIBUTES, n.SLOTS + n.SLOT * threads.MOST)
    assert (threads.FORKED, threads.LEAST) == (n.FORKED, 2 * n.GRAIN)


@pytest.mark.parametrize("target", TARGETS)
def test_the_pool_compiles_for_every_target(target):
    image = compile_module(translate(threads_native, named(target)), named(target))
    assert {"parallel_for", "setup", "stop", "reset"} <= set(image.entries)


@pytest.mark.parametrize("n", COUNTS)
@pytest.mark.parametrize("work", [0, 1, 7_000_000, 40_000_000, 10**12])
def test_every_index_runs_once(kernels, team, n, work):
    of = team(n) if n > 1 else team(2)._replace(threads=1)
    for extent in (0, 1, 2, 3, 7, 8, 31, 128, 1000, 4099):
        run = Run(kernels, of, extent, work)()
        assert run.code == 0
        assert run.visits[:extent].tolist() == [1] * extent
        assert run.scratch[n:].sum() == 0 and run.scratch[:, 0].sum() == extent
        assert run.totals[1] == (run.totals[0] if run.totals[0] == 1 else 0)  # none nested in pieces


def test_several_threads_take_part(kernels, team):
    for n in (2, 3, 8):
        for _ in range(20):  # on a busy machine they may be late
            run = Run(kernels, team(n), 64, 10**12, turns=20_000)()
            if run.threads == n:
                break
        assert run.threads == n
        assert run.totals[0] >= 4 * n  # chunks


def test_little_work_stays_serial(kernels, team):
    run = Run(kernels, team(2), 100, 2 * threads_native.GRAIN - 1).repeat(100)
    assert run.totals[0] == 100 and run.threads == 1


def test_no_more_threads_than_scratch(kernels, team):
    of = team(8)._replace(threads=2)
    for _ in range(20):
        assert Run(kernels, of, 64, 10**12, turns=5000)().threads <= 2


@pytest.mark.parametrize("n", COUNTS)
def test_the_first_failure_is_reported(kernels, team, n):
    of = team(n) if n > 1 else team(2)._replace(threads=1)
    for fails in ([0], [999], [500, 501], [1, 300, 301, 900], [250, 251, 500, 750], range(3, 1000)):
        for _ in range(10):
            run = Run(kernels, of, 1000, 10**12, turns=20, fails=fails)()
            first = min(fails)
            assert run.code == FAILED == run.error.code
            assert list(run.error.values) == [first, 0, 0, first * first]
            assert run.visits[: first + 1].all() and run.visits.max() == 1


def test_a_failure_ends_the_work(kernels, team):
    run = Run(kernels, team(2), 10**6, 10**12, turns=100, fails=[0])()
    assert run.code == FAILED and run.visits.sum() < 900_000


@pytest.mark.parametrize("n", COUNTS)
def test_the_caller_asks_whether_to_go_on(kernels, team, n, monkeypatch):
    """Only it, and not often; workers are told."""
    of = team(n) if n > 1 else team(2)._replace(threads=1)
    asked = []

    def poll(_):
        asked.append(threading.get_ident())
        return 9 if time.monotonic() > until else 0

    run = Run(kernels, of, 1_000_000, 10**12, turns=2000, poll=poll)
    until = time.monotonic() + 0.15
    start = time.monotonic()
    assert run().code == 9
    assert time.monotonic() - start < 5
    assert set(asked) == {threading.get_ident()}
    assert run.visits.sum() < 1_000_000 and run.visits.max() == 1


def test_pools_without_futex():
    """As on macOS: mutex and condition."""
    output = run_python(
        """
        from ingot.runtime import threads
        threads._futex_number = lambda: None
        mx.set_num_threads(3)
        f = mx.compile(lambda x: mx.tanh(x) * 0.5)
        x = np.linspace(-3, 3, 1 << 20).astype(np.float32)
        want = np.tanh(x) * np.float32(0.5)
        for i in range(60):
            np.testing.assert_allclose(np.asarray(f(mx.array(x))), want, rtol=1e-5)
            if i % 10 == 0:
                time.sleep(0.01)
        print(mx.runtime_info()["pool"], mx.runtime_info()["workers"])
        """
    )
    assert output == "native 2"


# -- programs -----------------------------------------------------------------------------------------------


def graphs():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return mx.array(rng.normal(size=shape).astype(np.float32))

    def gelu(x):
        return 0.5 * x * (1 + mx.tanh(0.79788 * (x + 0.044715 * x * x * x)))

    indices = mx.array(rng.integers(0, 1000, size=40_000).astype(np.int32))
    yield "map", gelu, [normal(300_001)]
    yield "transposition", lambda x: mx.exp(x).T + 1, [normal(513, 700)]
    yield "softmax", lambda x: mx.softmax(x, axis=-1), [normal(600, 513)]
    yield "norm", lambda x, w: x * mx.rsqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * w, [
        normal(999, 257), normal(257),
    ]  # fmt: skip
    yield "columns", lambda x: x.sum(axis=0), [normal(1000, 515)]
    yield "rows", lambda x: (x.max(axis=1), x.argmin(axis=1)), [normal(1000, 515)]
    yield "middle", lambda x: x.sum(axis=1), [normal(30, 100, 70)]
    yield "all", lambda x: (x.sum(), mx.logsumexp(x), x.var()), [normal(300_001)]
    yield "dot", lambda x, w, b: mx.maximum(x @ w + b, 0), [normal(257, 300), normal(300, 190), normal(190)]
    yield "batched", lambda x, y: x @ y, [normal(9, 40, 50), normal(9, 50, 60)]
    yield "gather", lambda x, i: mx.take(x, i, axis=0) * 2, [normal(1000, 16), indices]
    yield "scatter", lambda x, i, u: x.at[i].add(u), [normal(1000), indices, normal(40_000)]
    yield "scatter of rows", lambda x, i, u: x.at[i].add(u), [normal(1000, 200), indices, normal(40_000, 200)]


def test_same_bits_with_any_number_of_threads():
    for name, function, arguments in graphs():
        f = mx.compile(function)
        results = {}
        for n in (*COUNTS, 2):
            mx.set_num_threads(n)
            found = f(*arguments)
            found = found if isinstance(found, tuple) else (found,)
            results[n] = [np.asarray(r).tobytes() for r in found]
        assert all(r == results[1] for r in results.values()), name


def test_same_bits_in_training():
    """The losses and parameters of a classifier of digits after some steps."""
    rng = np.random.default_rng(1)
    x = mx.array(rng.normal(size=(256, 64)).astype(np.float32))
    labels = mx.array(rng.integers(0, 10, size=256).astype(np.int32))
    start = [rng.normal(size=s).astype(np.float32) * 0.1 for s in ((64, 128), (128,), (128, 10), (10,))]

    def loss(parameters, x, labels):
        w0, b0, w1, b1 = parameters
        return nn.losses.cross_entropy(mx.maximum(x @ w0 + b0, 0) @ w1 + b1, labels, reduction="mean")

    @mx.compile
    def step(parameters, x, labels):
        value, gradients = mx.value_and_grad(loss)(parameters, x, labels)
        return value, [p - 0.1 * g for p, g in zip(parameters, gradients, strict=True)]

    found = {}
    for n in COUNTS:
        mx.set_num_threads(n)
        parameters = [mx.array(p) for p in start]
        losses = []
        for _ in range(5):
            value, parameters = step(parameters, x, labels)
            losses.append(value.item())
        found[n] = [losses, [np.asarray(p).tobytes() for p in parameters]]
    assert losses[-1] < losses[0]
    assert all(f == found[1] for f in found.values())


@pytest.mark.parametrize("n", COUNTS)
def test_the_same_index_error(n):
    mx.set_num_threads(n)
    rows = np.zeros(100_000, np.int32)
    rows[[70_001, 33_333, 99_000]] = [-2001, 1005, 1006]
    f = mx.compile(lambda x, i: mx.take(x, i, axis=0) + 1)
    x = mx.array(np.ones((1000, 4), np.float32))
    for _ in range(5):
        with pytest.raises(IndexError, match="index 1005 is out of bounds for an axis of size 1000"):
            mx.eval(f(x, mx.array(rows)))
    assert np.asarray(f(x, mx.array(rows % 1000))).min() == 2


def test_eight_callers():
    mx.set_num_threads(3)
    f = mx.compile(lambda x: mx.softmax(mx.tanh(x) * 2, axis=-1).sum(axis=0))
    inputs = [np.random.default_rng(i).normal(size=(200, 400)).astype(np.float32) for i in range(8)]
    want = [np.asarray(f(mx.array(x))).tobytes() for x in inputs]
    wrong = []

    def work(i):
        for _ in range(40):
            if np.asarray(f(mx.array(inputs[i]))).tobytes() != want[i]:
                wrong.append(i)

    callers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
    assert not wrong and not any(caller.is_alive() for caller in callers)


def test_the_number_changes_while_others_run():
    f = mx.compile(lambda x: mx.softmax(mx.tanh(x) * 2, axis=-1))
    x = mx.array(np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32))
    want = np.asarray(f(x)).tobytes()
    wrong, done = [], threading.Event()

    def work():
        while not done.is_set():
            if np.asarray(f(x)).tobytes() != want:
                wrong.append(1)

    callers = [threading.Thread(target=work) for _ in range(2)]
    for caller in callers:
        caller.start()
    for i in range(200):
        mx.set_num_threads(1 + i % 7)
        time.sleep(0.001)
    done.set()
    for caller in callers:
        caller.join(60)
    assert not wrong and not any(caller.is_alive() for caller in callers)


def test_estimates():
    """Of work on 16 elements at a time: right within a factor that leaves decisions as they should be."""
    target = TARGETS["x86-64-v4"]

    def elementwise(n, instructions):
        from ingot.tracer.aval import Aval
        from ingot.tracer.dtypes import float32

        return cost.work(n, instructions, 0, [Aval((n,), float32)] * 2, target)

    gelu = elementwise(16384, 32)  # 8 microseconds on one thread
    assert 2 * threads_native.GRAIN <= gelu < 16_000_000
    assert elementwise(4096, 32) < 2 * threads_native.GRAIN
    assert elementwise(4 << 20, 32) > 100 * threads_native.GRAIN


# -- settings -----------------------------------------------------------------------------------------------


def test_settings():
    mx.set_num_threads(5)
    assert mx.get_num_threads() == 5 == mx.runtime_info()["threads"]
    for wrong in (0, -1, 257, 2.0, True):
        with pytest.raises(TypeError if wrong in (2.0, True) else ValueError, match=r"\[set_num_threads\]"):
            mx.set_num_threads(wrong)
    assert mx.get_num_threads() == 5
    mx.set_num_threads(1)
    assert mx.runtime_info()["pool"] == "none" and threads.team(0) is threads.ALONE


@pytest.mark.parametrize(
    ("given", "answer"), [("3", "3"), ("0", "ValueError"), ("many", "ValueError"), ("1000", "ValueError")]
)
def test_the_environment_variable(given, answer):
    script = """
    try:
        print(mx.get_num_threads())
    except ValueError as error:
        assert "INGOT_NUM_THREADS" in str(error)
        print("ValueError")
    """
    assert run_python(script, INGOT_NUM_THREADS=given) == answer


def test_quotas_of_control_groups(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    groups = write("groups", "0::/a/b\n")
    assert threads.cpu_quota(str(tmp_path / "v2"), groups) is None
    write("v2/a/b/cpu.max", "max 100000\n")
    assert threads.cpu_quota(str(tmp_path / "v2"), groups) is None
    write("v2/a/cpu.max", "250000 100000\n")
    assert threads.cpu_quota(str(tmp_path / "v2"), groups) == 2.5
    write("v2/a/b/cpu.max", "150000 100000\n")
    assert threads.cpu_quota(str(tmp_path / "v2"), groups) == 1.5
    groups = write("groups", "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n")
    write("v1/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n")
    write("v1/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")
    assert threads.cpu_quota(str(tmp_path / "v1"), groups) is None
    write("v1/cpu,cpuacct/x/cpu.cfs_quota_us", "300000\n")
    assert threads.cpu_quota(str(tmp_path / "v1"), groups) == 3.0
    assert threads.cpu_quota(str(tmp_path), str(tmp_path / "none")) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_affinity():
    script = """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(mx.get_num_threads())
    """
    assert run_python(script, INGOT_NUM_THREADS="") == "1"


# -- processes ----------------------------------------------------------------------------------------------

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
import ingot as mx

def count():
    "Threads of this process."
    return len(os.listdir("/proc/self/task"))

def busy(n=1 << 20):
    "A compiled function, its argument and the bytes of its result; the pool works."
    f = mx.compile(lambda x: mx.tanh(mx.exp(mx.sin(x)) * 2) * 0.5)
    x = mx.array(np.linspace(-3, 3, n).astype(np.float32))
    for _ in range(5):
        want = np.asarray(f(x)).tobytes()
    return f, x, want
"""


def python(script, **env):
    """A command that runs a script after PRELUDE, and its environment."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script)]
    return command, {"INGOT_NUM_THREADS": "2", **os.environ, **env, "PYTHONPATH": str(ROOT)}


def run_python(script, timeout=120, **env):
    command, env = python(script, **env)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0 and done.stderr == "", (done.returncode, done.stdout, done.stderr)
    return done.stdout.strip()


linux = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")


@linux
def test_one_thread_makes_no_pool():
    script = """
    before = count()
    busy()
    from ingot.runtime import threads
    made = "ingot.runtime.threads_native" in sys.modules
    print(count() - before, threads._pool, threads.team(0).threads, made)
    """
    assert run_python(script, INGOT_NUM_THREADS="1") == "0 None 1 False"


@linux
def test_threads_are_made_when_there_is_work():
    script = """
    before = count()
    f, x, _ = busy(4096)
    for _ in range(50):
        f(x)
    few = count() - before
    busy()
    print(few, count() - before, mx.runtime_info()["workers"])
    """
    busy = run_python("busy()", INGOT_NUM_THREADS="3")
    assert busy == ""
    assert run_python(script, INGOT_NUM_THREADS="3") == "0 2 2"


@linux
def test_a_warm_cache_serves_the_pool(tmp_path):
    script = """
    busy()
    busy()
    loaded = [name in sys.modules for name in ("llvmlite", "ingot.runtime.threads_native")]
    print(mx.runtime_info()["workers"], *loaded)
    """
    assert run_python(script, INGOT_CACHE_DIR=str(tmp_path)) == "1 True True"
    assert run_python(script, INGOT_CACHE_DIR=str(tmp_path)) == "1 False False"


def test_sleeping_threads_cost_nothing():
    script = """
    busy()
    time.sleep(0.05)
    start = time.process_time()
    time.sleep(0.5)
    print(time.process_time() - start)
    """
    assert float(run_python(script, INGOT_NUM_THREADS="8")) < 0.02


@linux
def test_workers_get_no_signals():
    script = """
    import glob
    busy()
    blocked = lambda path: int(open(path).read().split("SigBlk:")[1].split()[0], 16)
    workers = [mask for mask in map(blocked, glob.glob("/proc/self/task/*/status")) if mask >> 1 & 1]
    print(len(workers))
    for bit in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1):
        assert workers[0] >> (bit - 1) & 1
    """
    assert run_python(script) == "1"


def test_the_system_refuses_threads():
    """Kernels run serially then, and the table says so."""
    script = """
    import ctypes, errno
    from ingot.runtime import threads
    refuse = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(lambda *_: errno.EAGAIN)
    libc = threads._libc()
    libc.pthread_create = refuse
    busy()
    print(mx.runtime_info()["workers"], mx.runtime_info()["pool"])
    """
    expected = "native, but the system refuses more threads: "
    assert run_python(script).startswith(f"0 {expected}")


def test_no_code_can_be_loaded():
    script = """
    from ingot.runtime import native_code, threads
    def refuse(*_):
        raise OSError("no memory may be executed")
    native_code.stored = native_code.compiled = refuse
    busy()
    print(mx.runtime_info()["pool"])
    """
    assert run_python(script) == "serial: no memory may be executed"


@posix
@pytest.mark.parametrize("n", ["2", "8"])
def test_forks(n):
    """Children compute with threads of their own, also when other threads were in the middle of it."""
    script = """
    import ingot.runtime.dispatch  # a child can never finish an import that another thread had begun
    f, x, want = busy()
    done = threading.Event()
    def work():
        while not done.is_set():
            assert np.asarray(f(x)).tobytes() == want
    callers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for caller in callers:
        caller.start()
    for i in range(20):
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(30)
                for _ in range(3):
                    assert np.asarray(f(x)).tobytes() == want
                assert mx.runtime_info()["workers"] == mx.get_num_threads() - 1
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0, i
    done.set()
    for caller in callers:
        caller.join()
    assert np.asarray(f(x)).tobytes() == want
    print("ok")
    """
    assert run_python(script, INGOT_NUM_THREADS=n).splitlines()[-1] == "ok"


@posix
def test_a_fork_by_the_handler_of_a_signal():
    """In the middle of a kernel: the child cannot finish it, and says so; the parent can."""
    script = """
    f, x, want = busy(1 << 23)
    (layout,) = [l for e in [f] for l in __import__("gc").get_objects() if type(l).__name__ == "_Layout"
                 and l.work > 10**9][:1]
    children = []
    parent = os.getpid()
    def handler(*_):
        children.append(os.fork())
    signal.signal(signal.SIGALRM, handler)
    from ingot.runtime import threads_native
    for attempt in range(40):
        layout.long = True
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        try:
            result = np.asarray(f(x)).tobytes()
        except RuntimeError as error:
            assert os.getpid() != parent and "child of a fork" in str(error), error
            os._exit(17)
        if os.getpid() != parent:
            os._exit(0 if result == want else 1)  # forked before or after the kernel
        assert result == want
    codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
    assert set(codes) <= {0, 17}, codes
    print("ok", len(codes))
    """
    assert run_python(script).startswith("ok")


@posix
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method, tmp_path):
    path = tmp_path / "main.py"
    path.write_text(
        PRELUDE
        + textwrap.dedent(
            f"""
            import multiprocessing, zlib

            def work(seed):
                f, x, want = busy()
                return zlib.crc32(want)

            if __name__ == "__main__":
                mine = work(0)
                context = multiprocessing.get_context("{method}")
                with context.Pool(3) as pool:
                    assert pool.map(work, range(6)) == [mine] * 6
                child = context.Process(target=work, args=(1,))
                child.start()
                child.join()
                assert child.exitcode == 0
                import subprocess
                assert subprocess.run([sys.executable, "-c", "pass"], preexec_fn=lambda: None).returncode == 0
                assert work(0) == mine
                print("ok")
            """
        )
    )
    env = {**os.environ, "INGOT_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    warnings = ["-W", "ignore::DeprecationWarning"]  # of Python 3.12, about forks with threads
    done = subprocess.run(
        [sys.executable, *warnings, str(path)], env=env, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0 and done.stdout == "ok\n", (done.stdout, done.stderr)


ENDS = {
    "while workers spin": "f, x, want = busy(); f(x)",
    "after they sleep": "busy(); time.sleep(0.02)",
    "by os._exit": "busy(); sys.stdout.flush(); os._exit(0)",
    "with daemons": """
f, x, want = busy()
for _ in range(3):
    threading.Thread(target=lambda: [f(x) for _ in iter(int, 1)], daemon=True).start()
time.sleep(0.02)
""",
    "by a signal": "busy(); signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), 15)",
}


@pytest.mark.parametrize("how", ENDS)
def test_ends(how):
    for _ in range(10):
        start = time.monotonic()
        assert run_python(ENDS[how]) == ""
        assert time.monotonic() - start < 60


INTERRUPTED = """
signal.signal(signal.SIGINT, signal.default_int_handler)
f = mx.compile(lambda x, i: mx.tanh(mx.sin(mx.exp(mx.log(x + i)))).sum(axis=1))
x = mx.array(np.ones((40_000, 1), np.float32))
i = mx.array(np.arange(SIZE, dtype=np.float32))
g, y, want = busy()
for attempt in range(2):
    print("running", flush=True)
    try:
        mx.eval(f(x, i))
        print("finished")
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        assert np.asarray(g(y)).tobytes() == want
"""


@posix
@pytest.mark.parametrize("n", ["1", "2"])
def test_one_long_kernel_can_be_interrupted(n):
    command, env = python(INTERRUPTED.replace("SIZE", "200_000"), INGOT_NUM_THREADS=n)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as child:
        try:
            for _ in range(2):
                assert child.stdout.readline() == "running\n", child.stderr.read()
                time.sleep(0.7)
                sent = time.monotonic()
                child.send_signal(signal.SIGINT)
                assert child.stdout.readline() == "interrupted\n"
                assert time.monotonic() - sent < 5
            assert child.wait(30) == 0 and child.stderr.read() == ""
        finally:
            child.kill()
