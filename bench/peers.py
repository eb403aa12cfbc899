"""The frameworks: how each is started on a number of threads, given arrays, compiled with and waited for.

Nothing heavy is imported until `Peer.start`, so that a worker can measure what the import costs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from bench.row import Row

THREAD_VARIABLES = (
    "INGOT_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Missing(Exception):
    """The peer cannot run this row, and why."""


class Peer:
    """A framework that is called as plain NumPy is; the others override what differs."""

    name = "numpy"
    module = "numpy"
    method = ""
    """Name of the method of a row that holds this peer's function; empty: the peer's name."""

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that must be set before the framework is imported."""
        return {}

    def start(self, threads: int) -> None:
        """Import the framework and hold it to `threads` threads."""
        self.framework = importlib.import_module(self.module)

    @property
    def version(self) -> str:
        """The version of the framework that was started."""
        return str(self.framework.__version__)

    def function(self, row: Row) -> Any:
        """The row's function for this peer, not compiled yet. Raises Missing when there is none."""
        method = getattr(row, self.method or self.name, None)
        if method is None:
            raise Missing("not written for this peer")
        return method(self.framework)

    def prepare(self, row: Row, inputs: tuple[np.ndarray, ...]) -> Callable[[], Any]:
        """A function that runs the row once on `inputs` and returns when the results are there."""
        function = self.compile(self.function(row))
        arguments = [self.put(x) for x in inputs]
        return lambda: self.wait(function(*arguments))

    def compile(self, function: Any) -> Callable[..., Any]:
        return function

    def put(self, x: np.ndarray) -> Any:
        return x

    def wait(self, result: Any) -> Any:
        return result


class Ingot(Peer):
    name = "ingot"
    module = "ingot"

    def compile(self, function: Any) -> Callable[..., Any]:
        return self.framework.compile(function)

    def put(self, x: np.ndarray) -> Any:
        return self.framework.array(x)

    def wait(self, result: Any) -> Any:
        self.framework.eval(result)
        return result


class Mlx(Ingot):
    name = "mlx"
    module = "mlx.core"

    def start(self, threads: int) -> None:
        super().start(threads)
        self.framework.set_default_device(self.framework.cpu)


class Jax(Peer):
    name = "jax"
    module = "jax"

    def environment(self, threads: int) -> dict[str, str]:
        variables = {"JAX_PLATFORMS": "cpu"}
        if threads == 1:
            one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one}".strip()
        return variables

    def compile(self, function: Any) -> Callable[..., Any]:
        return self.framework.jit(function)

    def put(self, x: np.ndarray) -> Any:
        return self.framework.numpy.asarray(x)

    def wait(self, result: Any) -> Any:
        return self.framework.block_until_ready(result)


class TorchEager(Peer):
    name = "torch_eager"
    module = "torch"
    method = "torch"

    def start(self, threads: int) -> None:
        super().start(threads)
        self.framework.set_num_threads(threads)
        self.framework.set_grad_enabled(False)

    def put(self, x: np.ndarray) -> Any:
        return self.framework.from_numpy(x.copy())


class Torch(TorchEager):
    name = "torch"

    def compile(self, function: Any) -> Callable[..., Any]:
        return self.framework.compile(function, fullgraph=True)


class Numba(Peer):
    name = "numba"
    module = "numba"

    def start(self, threads: int) -> None:
        super().start(threads)
        self.parallel = threads > 1
        self.framework.set_num_threads(threads)

    def function(self, row: Row) -> Any:
        method = getattr(row, "numba", None)
        if method is None:
            raise Missing("not written for this peer")
        return method(SimpleNamespace(prange=self.framework.prange))

    def compile(self, function: Any) -> Callable[..., Any]:
        return self.framework.njit(fastmath=True, error_model="numpy", parallel=self.parallel)(function)


class OnnxRuntime(Peer):
    """Runs with inputs and outputs bound beforehand: no allocation and no copy is on the clock."""

    name = "onnxruntime"
    module = "onnxruntime"

    def start(self, threads: int) -> None:
        super().start(threads)
        self.threads = threads

    def prepare(self, row: Row, inputs: tuple[np.ndarray, ...]) -> Callable[[], Any]:
        from onnx import parser

        ort = self.framework
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        model = parser.parse_model(self.function(row)).SerializeToString()
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for slot, x in zip(session.get_inputs(), inputs, strict=True):
            binding.bind_ortvalue_input(slot.name, ort.OrtValue.ortvalue_from_numpy(x))
        for slot in session.get_outputs():
            value = ort.OrtValue.ortvalue_from_shape_and_type(slot.shape, _numpy_type(slot.type))
            binding.bind_ortvalue_output(slot.name, value)

        def run() -> Any:
            session.run_with_iobinding(binding)
            return binding.get_outputs()

        return run


def _numpy_type(name: str) -> Any:
    import numpy as np

    return {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}[name]


def to_numpy(result: Any) -> list[np.ndarray]:
    """The results of a call, of any framework, as NumPy arrays."""
    import numpy as np

    results = result if isinstance(result, tuple | list) else (result,)
    return [np.array(r.numpy() if hasattr(r, "numpy") else r) for r in results]


PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Ingot, Peer, Jax, Torch, TorchEager, Mlx, Numba, OnnxRuntime)
}


def names(text: str) -> list[str]:
    """Peers by comma-separated names, without Ingot. Raises ValueError for an unknown name."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise ValueError(f"[bench] no peer called {', '.join(unknown)}: expected some of {', '.join(PEERS)}.")
    return [name for name in dict.fromkeys(wanted) if name != "ingot"]
