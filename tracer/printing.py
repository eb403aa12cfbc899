"""Text of arrays, as MLX prints them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ingot.tracer.dtypes import Dtype

THRESHOLD = 1000
EDGE = 3


def text(view: np.ndarray, dtype: Dtype) -> str:
    """`array([1, 2.5], dtype=float32)`; more than 1000 elements are summarised by their edges."""
    summarise = view.size > THRESHOLD
    if view.size == 0 and view.ndim and not all(view.shape[:-1]):
        body = "[]"
    else:
        body = _body(view, 7, summarise)
    return f"array({body}, dtype={dtype.name})"


def _body(view: np.ndarray, indent: int, summarise: bool) -> str:
    if view.ndim == 0:
        return _scalar(view[()])
    n = view.shape[0]
    if summarise and n > 2 * EDGE:
        items = [_body(view[i], indent + 1, summarise) for i in range(EDGE)]
        items.append("...")
        items += [_body(view[i], indent + 1, summarise) for i in range(n - EDGE, n)]
    else:
        items = [_body(view[i], indent + 1, summarise) for i in range(n)]
    separator = ", " if view.ndim == 1 else ",\n" + " " * indent
    return "[" + separator.join(items) + "]"


def _scalar(x: Any) -> str:
    if isinstance(x, bool | np.bool_):
        return "True" if x else "False"
    if isinstance(x, int | np.integer):
        return str(int(x))
    if isinstance(x, complex | np.complexfloating):
        sign = "" if str(float(x.imag)).startswith("-") else "+"
        return f"{float(x.real):.6g}{sign}{float(x.imag):.6g}j"
    return f"{float(x):.6g}"
