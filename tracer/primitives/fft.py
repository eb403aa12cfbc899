"""Discrete Fourier transforms along one axis, by NumPy. Forward transforms are not scaled, inverse ones by
1/n.

They are linear, so tangents are transformed as values are. The transposes follow from the symmetry of the
transform: `F^H = conj(F) = n F^-1`. Cotangents of complex arrays are d/d(real part) + i d/d(imaginary part).
"""

# mypy: disable-error-code="override"
# (rules name the operands that their primitive has)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, record
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree, natural
from ingot.tracer.graph import Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.shape import Concatenate, Movement, Pad, axis_slice

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]


def _check(name: str, axis: int, x: Aval, dtype: Dtype) -> None:
    if x.dtype is not dtype:
        raise ValueError(f"[{name}] expected {dtype.name}, got {x!r}.")
    if not 0 <= axis < x.ndim:
        raise ShapeError(f"[{name}] no axis {axis} in {x!r}.")


class Fft(Movement):
    """Transform of complex numbers along `axis`, inverse when so said."""

    axis: int
    inverse: bool

    def infer(self, x: Aval) -> Aval:
        _check("fft", self.axis, x, dtypes.complex64)
        return x

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        if not x.shape[self.axis]:
            return x.copy()
        return (np.fft.ifft if self.inverse else np.fft.fft)(x, axis=self.axis).astype(np.complex64)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        assert ct is not None
        n = ct.shape[self.axis]
        turned = record(Fft(self.axis, not self.inverse), ct._value)
        return [turned / n if self.inverse else turned * n]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        return Fft(self.axis + 1, self.inverse)


class RealFft(Movement):
    """Transform of n real numbers along `axis`: the first n // 2 + 1 complex numbers, which give the
    others."""

    axis: int

    def infer(self, x: Aval) -> Aval:
        _check("rfft", self.axis, x, dtypes.float32)
        half = x.shape[self.axis] // 2 + 1
        return Aval((*x.shape[: self.axis], half, *x.shape[self.axis + 1 :]), dtypes.complex64)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.fft.rfft(x, axis=self.axis).astype(np.complex64)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        assert ct is not None
        n = primals[0].shape[self.axis]
        high: list[Extent] = [0] * ct.ndim
        high[self.axis] = n - ct.shape[self.axis]
        whole = record(Pad((0,) * ct.ndim, tuple(high)), ct._value, Literal(0, ct.dtype))
        return [record(Fft(self.axis, True), whole._value).astype(dtypes.float32) * n]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        return RealFft(self.axis + 1)


class InverseRealFft(Movement):
    """`n` real numbers whose transform begins with the n // 2 + 1 complex numbers along `axis`.

    The imaginary parts of the first, and for even n of the last of them, do not count.
    """

    axis: int
    n: Extent

    def infer(self, x: Aval) -> Aval:
        _check("irfft", self.axis, x, dtypes.complex64)
        if not natural((self.n - 1,)) or not agree(x.shape[self.axis], self.n // 2 + 1):
            raise ShapeError(f"[irfft] {self.n} numbers do not have {x.shape[self.axis]} frequencies.")
        return Aval((*x.shape[: self.axis], self.n, *x.shape[self.axis + 1 :]), dtypes.float32)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.fft.irfft(x, self.n, axis=self.axis).astype(np.float32)  # type: ignore[arg-type]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        """Each complex number between the ends stands for two, of which one is the conjugate."""
        (ct,) = cotangents
        assert ct is not None
        axis, m = self.axis, primals[0].shape[self.axis]
        once = record(RealFft(axis), ct._value) / self.n
        if self.n == 1:
            return [once]
        last = m - (1 - self.n % 2)  # from here on numbers stand for themselves
        parts = []
        for start, stop, factor in ((0, 1, 1), (1, last, 2), (last, m, 1)):
            part = record(axis_slice(once.shape, axis, start, stop), once._value)
            parts.append(part * factor if factor != 1 else part)
        return [record(Concatenate(axis), *[p._value for p in parts])]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        return InverseRealFft(self.axis + 1, self.n)
