"""Trace Python array functions, fuse them into native kernels, cast them into one file, run it anywhere.

The names are those of MLX: `import ingot as mx` serves scripts written for `mlx.core`.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

from ingot.runtime.evaluator import install as _install
from ingot.tracer import buffer as _buffer
from ingot.tracer.array import ArrayIterator, ArrayLike, array
from ingot.tracer.dims import Dim
from ingot.tracer.dtypes import (
    Dtype,
    DtypeCategory,
    bfloat16,
    bool_,
    complex64,
    complexfloating,
    float16,
    float32,
    float64,
    floating,
    generic,
    inexact,
    int8,
    int16,
    int32,
    int64,
    integer,
    issubdtype,
    number,
    signedinteger,
    uint8,
    uint16,
    uint32,
    uint64,
    unsignedinteger,
)
from ingot.tracer.errors import FormatError, GraphError, GuardError, ShapeError, TracerError
from ingot.tracer.ops import *  # noqa: F403
from ingot.tracer.ops.evaluation import async_eval, eval
from ingot.tracer.ops.index import ArrayAt
from ingot.tracer.printing import PrintOptions, get_printoptions, printoptions, set_printoptions
from ingot.tracer.transforms.checkpoint import checkpoint
from ingot.tracer.transforms.compile import compile, disable_compile, enable_compile
from ingot.tracer.transforms.control import cond, fori_loop, map, scan, switch, while_loop
from ingot.tracer.transforms.custom import custom_function
from ingot.tracer.transforms.grad import grad, value_and_grad, vjp
from ingot.tracer.transforms.jacobian import hessian, jacfwd, jacrev, linearize
from ingot.tracer.transforms.jvp import jvp
from ingot.tracer.transforms.vmap import vmap

_install()
_buffer.install()

__version__ = "0.1.0"

pi = math.pi
e = math.e
euler_gamma = 0.5772156649015329
inf = math.inf
nan = math.nan
newaxis = None

# Loaded at first use: each brings imports that recording a graph does not need.
_LAZY_MODULES = ("nn", "optimizers", "utils", "random", "linalg", "fft", "fast", "demo", "cli")
_LAZY_NAMES = {
    "export_function": "ingot.format.exporter",
    "exporter": "ingot.format.exporter",
    "FunctionExporter": "ingot.format.exporter",
    "matrix_norm": "ingot.linalg",
    "export_to_dot": "ingot.dot",
    "import_function": "ingot.format.importer",
    **dict.fromkeys(
        ("load", "save", "save_safetensors", "savez", "savez_compressed"), "ingot.format.tensors"
    ),
    "save_gguf": "ingot.format.gguf_tensors",
    **dict.fromkeys(
        """
        Device DeviceType Stream StreamContext ThreadLocalStream clear_streams cpu
        default_device default_stream device_count device_info from_dlpack gpu is_available
        new_stream new_thread_local_stream new_thread_unsafe_stream set_default_device
        set_default_stream stream synchronize
        """.split(),
        "ingot.devices",
    ),
    **dict.fromkeys(
        """
        clear_cache get_active_memory get_array_buffer_size get_cache_memory
        get_memory_limit get_peak_memory reset_peak_memory set_cache_limit set_memory_limit
        set_wired_limit
        """.split(),
        "ingot.memory",
    ),
    **dict.fromkeys(("finfo", "iinfo", "isdtype"), "ingot.tracer.dtype_info"),
    **dict.fromkeys(("einsum", "einsum_path"), "ingot.tracer.ops.einsum"),
    **dict.fromkeys(
        """
        conv1d conv2d conv3d conv_general conv_transpose1d conv_transpose2d conv_transpose3d
        convolve
        """.split(),
        "ingot.tracer.ops.convolution",
    ),
    **dict.fromkeys(
        """
        dequantize gather_qmm gather_qqmm qqmm quantize quantized_matmul
        """.split(),
        "ingot.tracer.ops.quantized",
    ),
    **dict.fromkeys(("hadamard_transform",), "ingot.tracer.ops.hadamard"),
    **dict.fromkeys(("from_fp8", "to_fp8"), "ingot.tracer.ops.float8"),
    **dict.fromkeys(
        """
        bartlett blackman hamming hanning
        """.split(),
        "ingot.tracer.ops.windows",
    ),
    "get_num_threads": "ingot.runtime.threads",
    "set_num_threads": "ingot.runtime.threads",
    "runtime_info": "ingot.runtime.info",
}

if TYPE_CHECKING:
    from ingot import nn, optimizers, random, utils
    from ingot.devices import (
        Device,
        DeviceType,
        Stream,
        StreamContext,
        ThreadLocalStream,
        clear_streams,
        cpu,
        default_device,
        default_stream,
        device_count,
        device_info,
        from_dlpack,
        gpu,
        is_available,
        new_stream,
        new_thread_local_stream,
        new_thread_unsafe_stream,
        set_default_device,
        set_default_stream,
        stream,
        synchronize,
    )
    from ingot.format.exporter import FunctionExporter, export_function, exporter
    from ingot.format.gguf_tensors import save_gguf
    from ingot.format.importer import import_function
    from ingot.format.tensors import load, save, save_safetensors, savez, savez_compressed
    from ingot.memory import (
        clear_cache,
        get_active_memory,
        get_array_buffer_size,
        get_cache_memory,
        get_memory_limit,
        get_peak_memory,
        reset_peak_memory,
        set_cache_limit,
        set_memory_limit,
        set_wired_limit,
    )
    from ingot.runtime.info import runtime_info
    from ingot.runtime.threads import get_num_threads, set_num_threads
    from ingot.tracer.dtype_info import finfo, iinfo, isdtype
    from ingot.tracer.ops.convolution import (
        conv1d,
        conv2d,
        conv3d,
        conv_general,
        conv_transpose1d,
        conv_transpose2d,
        conv_transpose3d,
        convolve,
    )
    from ingot.tracer.ops.einsum import einsum, einsum_path
    from ingot.tracer.ops.float8 import from_fp8, to_fp8
    from ingot.tracer.ops.hadamard import hadamard_transform
    from ingot.tracer.ops.quantized import (
        dequantize,
        gather_qmm,
        gather_qqmm,
        qqmm,
        quantize,
        quantized_matmul,
    )
    from ingot.tracer.ops.windows import bartlett, blackman, hamming, hanning


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"ingot.{name}")
    if name in _LAZY_NAMES:
        value = getattr(importlib.import_module(_LAZY_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ingot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_MODULES, *_LAZY_NAMES})
