"""Text of arrays, as MLX prints them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ingot.tracer.dtypes import Dtype

THRESHOLD = 1000
EDGE = 3


class PrintOptions:
    """How arrays are printed.

    precision: digits after the point; below 0, six significant digits.
    """

    precision: int

    def __init__(self, precision: int = -1) -> None:
        self.precision = precision


_options = PrintOptions()


def get_printoptions() -> PrintOptions:
    """The options in force."""
    return PrintOptions(_options.precision)


def set_printoptions(precision: int = -1) -> None:
    """Set how arrays are printed from now on; see `PrintOptions`."""
    _options.precision = precision


@contextmanager
def printoptions(precision: int = -1) -> Iterator[PrintOptions]:
    """Options inside `with`; see `PrintOptions`."""
    saved = _options.precision
    set_printoptions(precision)
    try:
        yield get_printoptions()
    finally:
        set_printoptions(saved)


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
        return f"{_number(x.real)}{sign}{_number(x.imag)}j"
    return _number(x)


def _number(x: Any) -> str:
    digits = _options.precision
    return f"{float(x):.6g}" if digits < 0 else f"{float(x):.{digits}f}"
