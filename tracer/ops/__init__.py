"""Public functions on arrays: argument handling, then primitives. Importing the package attaches them to `array`."""

from __future__ import annotations

import importlib

from ingot.tracer import primitives as _primitives  # noqa: F401  (declares all primitives)
from ingot.tracer.ops import contract, math, methods, reduce

_PUBLIC = {
    math: """
        abs add allclose arccos arccosh arcsin arcsinh arctan arctan2 arctanh array_equal astype bitwise_and
        bitwise_invert bitwise_or bitwise_xor ceil clip cos cosh degrees divide divmod equal erf erfinv exp expm1
        floor floor_divide greater greater_equal isclose isfinite isinf isnan isneginf isposinf left_shift less
        less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or maximum minimum multiply
        nan_to_num negative not_equal power radians reciprocal remainder result_type right_shift round rsqrt
        sigmoid sign sin sinh sqrt square stop_gradient subtract tan tanh trunc view where
    """,
    reduce: "all any argmax argmin logsumexp max mean min prod softmax std sum var",
    contract: "addmm inner matmul outer tensordot vecdot",
}

_SHAPE = ""
for _name, _module in (("creation", None), ("shape", None), ("index", None)):
    try:
        _module = importlib.import_module(f"ingot.tracer.ops.{_name}")
    except ModuleNotFoundError as error:
        if error.name != f"ingot.tracer.ops.{_name}":
            raise
        continue
    _PUBLIC[_module] = " ".join(
        n for n in vars(_module)
        if not n.startswith("_") and getattr(vars(_module)[n], "__module__", "") == _module.__name__
        and callable(vars(_module)[n]) and not n.startswith("as_")
    )

__all__: list[str] = []
for _module, _names in _PUBLIC.items():
    for _name in _names.split():
        globals()[_name] = getattr(_module, _name)
        __all__.append(_name)

methods.attach(globals())
