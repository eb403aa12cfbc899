"""The frameworks: how each is started on a number of threads, given arrays, compiled with and waited for.

Nothing heavy is imported until `Peer.start`, so that a worker can measure what the import costs.
"""

from __future__ import annotations

import importlib
import os
import timeit
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from bench.row import OnnxModel, Row

THREAD_VARIABLES = (
    "INGOT_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Absent(Exception):
    """The row is not written for this peer."""


class Call:
    """A row ready to run: an expression that returns when its results are there, and the names in it.

    It is compiled into the loop that is timed, so that no wrapper stands on the clock. `results` fetches the
    results where the expression does not return them.
    """

    def __init__(
        self, expression: str, names: dict[str, Any], results: Callable[[], Any] | None = None
    ) -> None:
        self.expression, self.names, self._results = expression, names, results
        self._once: Callable[[], Any] = eval(f"lambda: {expression}", names)

    def run(self) -> Any:
        """Run once; the results."""
        value = self._once()
        return value if self._results is None else self._results()

    def timer(self) -> Callable[[int], float]:
        """A function of a count that runs as many times, dropping each result, and gives the seconds."""
        return timeit.Timer(self.expression, globals=self.names).timeit


class Peer:
    """A framework that is called as plain NumPy is; the others override what differs."""

    name = "numpy"
    module = "numpy"
    disk_cache: dict[str, str] = {}
    """Variables that turn on a cache of compiled code that is off by default; `{}` stands for its folder."""

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
        """The row's function for this peer with its constants, not compiled yet. Raises Absent when there is
        none."""
        method = getattr(row, self.name, None)
        function = method and method(self.framework)
        if function is None:
            raise Absent("not written for this peer")
        return function

    def prepare(self, function: Any, arguments: Sequence[Any], row: Row) -> Call:
        """What `function` gave on what `put` gave, compiled where that comes before the first call."""
        names = {f"x{i}": x for i, x in enumerate(arguments)}
        expression = self.awaited(f"f({', '.join(names)})", row)
        return Call(expression, names | self.helpers() | {"f": self.compile(function, row)})

    def compile(self, function: Any, row: Row) -> Callable[..., Any]:
        return function

    def put(self, x: np.ndarray, row: Row) -> Any:
        """An argument as this framework's user would hold it."""
        return x

    def awaited(self, call: str, row: Row) -> str:
        """The expression `call` made to return no sooner than its results are there."""
        return call

    def helpers(self) -> dict[str, Any]:
        """Names that `awaited` uses."""
        return {}

    def to_numpy(self, result: Any) -> list[np.ndarray]:
        """The results of a call as NumPy arrays; bfloat16 becomes float32."""
        import numpy as np

        results = result if isinstance(result, tuple | list) else (result,)
        return [np.array(self._plain(r)) for r in results]

    def _plain(self, result: Any) -> Any:
        return result


class Ingot(Peer):
    """Its compiled functions return when the results are there: nothing has to be waited for."""

    name = "ingot"
    module = "ingot"

    def compile(self, function: Any, row: Row) -> Callable[..., Any]:
        return self.framework.compile(function)

    def put(self, x: np.ndarray, row: Row) -> Any:
        mx = self.framework
        array = mx.array(x)
        if row.dtype == "bfloat16" and x.dtype.kind == "f":
            array = array.astype(mx.bfloat16)
        mx.eval(array)
        return array

    def _plain(self, result: Any) -> Any:
        mx = self.framework
        return result.astype(mx.float32) if result.dtype == mx.bfloat16 else result


class IngotOnNumpy(Ingot):
    """Ingot, its compiled functions called with NumPy's arrays."""

    name = "ingot_numpy"

    def function(self, row: Row) -> Any:
        if row.dtype == "bfloat16":
            raise Absent("NumPy has no bfloat16")
        return row.ingot(self.framework)

    def put(self, x: np.ndarray, row: Row) -> Any:
        return x


class Mlx(Ingot):
    """Lazy: `eval` runs what a compiled function recorded."""

    name = "mlx"
    module = "mlx.core"

    def start(self, threads: int) -> None:
        super().start(threads)
        self.framework.set_default_device(self.framework.cpu)

    def awaited(self, call: str, row: Row) -> str:
        return f"wait({call})"

    def helpers(self) -> dict[str, Any]:
        evaluate = self.framework.eval

        def wait(result: Any) -> Any:
            evaluate(result)
            return result

        return {"wait": wait}


class Jax(Peer):
    name = "jax"
    module = "jax"
    disk_cache = {
        "JAX_COMPILATION_CACHE_DIR": "{}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }

    def environment(self, threads: int) -> dict[str, str]:
        variables = {"JAX_PLATFORMS": "cpu"}
        if threads == 1:
            one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
            variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {one}".strip()
        return variables

    def compile(self, function: Any, row: Row) -> Callable[..., Any]:
        return self.framework.jit(function)

    def put(self, x: np.ndarray, row: Row) -> Any:
        jnp = self.framework.numpy
        is_cast = row.dtype == "bfloat16" and x.dtype.kind == "f"
        return jnp.asarray(x, jnp.bfloat16 if is_cast else None).block_until_ready()

    def awaited(self, call: str, row: Row) -> str:
        # the method of an array costs less than the function that walks a tree of them
        return f"wait({call})" if row.several else f"{call}.block_until_ready()"

    def helpers(self) -> dict[str, Any]:
        return {"wait": self.framework.block_until_ready}

    def _plain(self, result: Any) -> Any:
        return result.astype("float32") if result.dtype == "bfloat16" else result


class TorchEager(Peer):
    name = "torch_eager"
    module = "torch"

    def start(self, threads: int) -> None:
        super().start(threads)
        self.framework.set_num_threads(threads)
        self.framework.set_grad_enabled(False)

    def put(self, x: np.ndarray, row: Row) -> Any:
        tensor = self.framework.from_numpy(x.copy())
        is_cast = row.dtype == "bfloat16" and x.dtype.kind == "f"
        return tensor.to(self.framework.bfloat16) if is_cast else tensor

    def _plain(self, result: Any) -> Any:
        return (result.float() if result.dtype == self.framework.bfloat16 else result).numpy()


class Torch(TorchEager):
    name = "torch"

    def compile(self, function: Any, row: Row) -> Callable[..., Any]:
        return self.framework.compile(function, fullgraph=True)


class Numba(Peer):
    name = "numba"
    module = "numba"
    disk_cache = {"NUMBA_CACHE_DIR": "{}"}

    def start(self, threads: int) -> None:
        super().start(threads)
        self.parallel = threads > 1
        self.framework.set_num_threads(threads)

    def function(self, row: Row) -> Any:
        method = getattr(row, "numba", None)
        if method is None:
            raise Absent("not written for this peer")
        return method(SimpleNamespace(prange=self.framework.prange))

    def compile(self, function: Any, row: Row) -> Callable[..., Any]:
        return self.framework.njit(
            fastmath=True,
            error_model="numpy",
            parallel=self.parallel and not row.small,
            cache="NUMBA_CACHE_DIR" in os.environ,
        )(function)


class OnnxRuntime(Peer):
    """Runs with inputs and outputs bound beforehand: no allocation and no copy is on the clock."""

    name = "onnxruntime"
    module = "onnxruntime"

    def start(self, threads: int) -> None:
        super().start(threads)
        self.threads = threads

    def function(self, row: Row) -> Any:
        return _serialised(super().function(row))

    def put(self, x: np.ndarray, row: Row) -> Any:
        return self.framework.OrtValue.ortvalue_from_numpy(x)

    def prepare(self, function: Any, arguments: Sequence[Any], row: Row) -> Call:
        ort = self.framework
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        session = ort.InferenceSession(function, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for slot, value in zip(session.get_inputs(), arguments, strict=True):
            binding.bind_ortvalue_input(slot.name, value)
        for slot in session.get_outputs():
            value = ort.OrtValue.ortvalue_from_shape_and_type(slot.shape, _numpy_type(slot.type))
            binding.bind_ortvalue_output(slot.name, value)
        names = {"run": session.run_with_iobinding, "binding": binding}
        return Call("run(binding)", names, lambda: [value.numpy() for value in binding.get_outputs()])


def _serialised(model: OnnxModel) -> bytes:
    from onnx import numpy_helper, parser

    proto = parser.parse_model(model.text)
    for name, value in model.initialisers.items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    return proto.SerializeToString()


def _numpy_type(name: str) -> Any:
    import numpy as np

    return {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}[name]


OURS = ("ingot", "ingot_numpy")
PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Ingot, IngotOnNumpy, Peer, Jax, Torch, TorchEager, Mlx, Numba, OnnxRuntime)
}
OTHERS = tuple(name for name in PEERS if name not in OURS)


def names(text: str) -> list[str]:
    """Peers by comma-separated names, without Ingot. Raises ValueError for an unknown name."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise ValueError(f"[bench] no peer called {', '.join(unknown)}: expected some of {', '.join(PEERS)}.")
    return [name for name in dict.fromkeys(wanted) if name not in OURS]
