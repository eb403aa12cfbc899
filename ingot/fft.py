"""Discrete Fourier transforms with the names of `mlx.core.fft`. Results are complex64 or float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record
from ingot.tracer.dims import Extent
from ingot.tracer.ops import creation, shape
from ingot.tracer.ops import math as ops
from ingot.tracer.ops.coerce import normal_axis, require_array
from ingot.tracer.ops.shape import as_extent
from ingot.tracer.primitives import fft as p

Axes = Sequence[int] | None


def _transform(
    name: str, a: array, sizes: Sequence[Any] | None, axes: Axes, norm: str, real: bool, inverse: bool
) -> array:
    """Along `axes`, which have `sizes` after cutting or filling with zeros (None: as they are)."""
    x = require_array(name, a)
    if norm not in ("backward", "ortho", "forward"):
        raise ValueError(f"[{name}] Invalid norm. Expected one of {{'backward', 'ortho', 'forward'}}.")
    if axes is None:
        if sizes is not None:
            raise ValueError(f"[{name}] `axes` should not be `None` if `s` is not `None`.")
        axes = range(x.ndim)
    places = [normal_axis(name, axis, x.ndim) for axis in axes]
    if len(set(places)) != len(places):
        raise ValueError(f"[{name}] Duplicated axis received {tuple(axes)}")
    if sizes is not None and len(sizes) != len(places):
        raise ValueError(f"[{name}] Shape and axes have different sizes.")
    if not places:
        return x
    wanted = [None if sizes is None else sizes[i] for i in range(len(places))]
    extents: list[Extent] = [
        x.shape[axis] if n is None else as_extent(name, n) for n, axis in zip(wanted, places, strict=True)
    ]
    last = places[-1]
    if real and inverse and wanted[-1] is None:
        extents[-1] = 2 * (x.shape[last] - 1)
    for n in extents:
        if isinstance(n, int) and n <= 0:
            raise ValueError(f"[{name}] Invalid FFT output size requested ({n})")
    half = real and not inverse
    x = _real(x) if half else x.astype(dtypes.complex64)
    for n, axis in zip(extents, places, strict=True):
        x = _fitted(x, axis, n // 2 + 1 if real and inverse and axis == last else n)
    if half:
        x = record(p.RealFft(last), x._value)
    for axis in reversed(places[:-1] if real else places):
        x = record(p.Fft(axis, inverse), x._value)
    if real and inverse:
        x = record(p.InverseRealFft(last, extents[-1]), x._value)
    return _scaled(x, dims.product(extents), norm, inverse)


def _real(x: array) -> array:
    return ops.real(x) if x.dtype.is_complex else x.astype(dtypes.float32)


def _fitted(x: array, axis: int, n: Extent) -> array:
    """`x` with extent `n` along `axis`: cut, or filled with zeros."""
    given = x.shape[axis]
    if dims.same(given, n):
        return x
    kept = dims.minimum(given, n)
    index: list[Any] = [slice(None)] * x.ndim
    index[axis] = slice(0, kept)
    x = x[tuple(index)]
    if dims.same(kept, n):
        return x
    return shape.pad(x, [(0, n - kept if i == axis else 0) for i in range(x.ndim)])


def _scaled(x: array, count: Extent, norm: str, inverse: bool) -> array:
    """Primitives scale inverse transforms by 1 / count."""
    if norm == "backward" or (isinstance(count, int) and count == 1):
        return x
    n = float(count) if isinstance(count, int) else ops.astype(array(count), dtypes.float32)
    root = math.sqrt(n) if isinstance(n, float) else ops.sqrt(n)
    factor = root if norm == "ortho" else n
    return ops.multiply(x, factor) if inverse else ops.divide(x, factor)


def _one(name: str, a: array, n: Any, axis: int, norm: str, real: bool, inverse: bool) -> array:
    return _transform(name, a, None if n is None else [n], [axis], norm, real, inverse)


def fft(a: array, n: int | None = None, axis: int = -1, norm: str = "backward", stream: Any = None) -> array:
    """Transform along `axis`, with the length `n` after cutting or filling with zeros."""
    return _one("fft", a, n, axis, norm, False, False)


def ifft(a: array, n: int | None = None, axis: int = -1, norm: str = "backward", stream: Any = None) -> array:
    """Inverse transform along `axis`; see `fft`."""
    return _one("ifft", a, n, axis, norm, False, True)


def rfft(a: array, n: int | None = None, axis: int = -1, norm: str = "backward", stream: Any = None) -> array:
    """Transform of real numbers along `axis`: the first n // 2 + 1 complex numbers."""
    return _one("rfft", a, n, axis, norm, True, False)


def irfft(
    a: array, n: int | None = None, axis: int = -1, norm: str = "backward", stream: Any = None
) -> array:
    """Inverse of `rfft`: `n` real numbers, by default twice one less than the extent of `axis`."""
    return _one("irfft", a, n, axis, norm, True, True)


def fftn(
    a: array, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward", stream: Any = None
) -> array:
    """Transform along `axes` (all by default), which have the extents `s` after cutting or filling with
    zeros.

    Raises:
        ValueError: for `s` without `axes`, or of another length.
    """
    return _transform("fftn", a, s, axes, norm, False, False)


def ifftn(
    a: array, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward", stream: Any = None
) -> array:
    """Inverse transform along `axes`; see `fftn`."""
    return _transform("ifftn", a, s, axes, norm, False, True)


def rfftn(
    a: array, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward", stream: Any = None
) -> array:
    """Transform of real numbers along `axes`, the last of them as by `rfft`; see `fftn`."""
    return _transform("rfftn", a, s, axes, norm, True, False)


def irfftn(
    a: array, s: Sequence[int] | None = None, axes: Axes = None, norm: str = "backward", stream: Any = None
) -> array:
    """Inverse of `rfftn`; see `fftn`."""
    return _transform("irfftn", a, s, axes, norm, True, True)


def fft2(
    a: array,
    s: Sequence[int] | None = None,
    axes: Axes = (-2, -1),
    norm: str = "backward",
    stream: Any = None,
) -> array:
    """Transform along two axes; see `fftn`."""
    return _transform("fft2", a, s, axes, norm, False, False)


def ifft2(
    a: array,
    s: Sequence[int] | None = None,
    axes: Axes = (-2, -1),
    norm: str = "backward",
    stream: Any = None,
) -> array:
    """Inverse transform along two axes; see `fftn`."""
    return _transform("ifft2", a, s, axes, norm, False, True)


def rfft2(
    a: array,
    s: Sequence[int] | None = None,
    axes: Axes = (-2, -1),
    norm: str = "backward",
    stream: Any = None,
) -> array:
    """Transform of real numbers along two axes; see `rfftn`."""
    return _transform("rfft2", a, s, axes, norm, True, False)


def irfft2(
    a: array,
    s: Sequence[int] | None = None,
    axes: Axes = (-2, -1),
    norm: str = "backward",
    stream: Any = None,
) -> array:
    """Inverse of `rfft2`; see `rfftn`."""
    return _transform("irfft2", a, s, axes, norm, True, True)


def _shifted(name: str, a: array, axes: None | int | Sequence[int], sign: int) -> array:
    x = require_array(name, a)
    given = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    places = [normal_axis(name, axis, x.ndim) for axis in given]
    if not places:
        return x
    by = [x.shape[i] // 2 if sign > 0 else -(x.shape[i] // 2) for i in places]
    return shape.roll(x, by, places)


def fftshift(a: array, axes: None | int | Sequence[int] = None, stream: Any = None) -> array:
    """The frequency 0 in the middle of `axes` (all by default) instead of at the front."""
    return _shifted("fftshift", a, axes, 1)


def ifftshift(a: array, axes: None | int | Sequence[int] = None, stream: Any = None) -> array:
    """The inverse of `fftshift`."""
    return _shifted("ifftshift", a, axes, -1)


def fftfreq(n: int, d: float = 1.0, stream: Any = None) -> array:
    """The `n` frequencies of `fft` for samples at a distance of `d`, float32."""
    _positive("fftfreq", n)
    first = (n - 1) // 2 + 1
    return ops.divide(array([*range(first), *range(-(n // 2), 0)], dtypes.float32), n * d)


def rfftfreq(n: int, d: float = 1.0, stream: Any = None) -> array:
    """The n // 2 + 1 frequencies of `rfft` for samples at a distance of `d`, float32."""
    _positive("rfftfreq", n)
    return ops.divide(creation.arange(n // 2 + 1, dtype=dtypes.float32), n * d)


def _positive(name: str, n: int) -> None:
    if not isinstance(n, int) or n <= 0:
        raise ValueError(f"[{name}] n must be positive, got {n!r}.")


# -- short times ---------------------------------------------------------------------------------------------


def _window(name: str, n_fft: int, win_length: int | None, window: array | None) -> array:
    """The window of `n_fft` samples: centered, with zeros around it."""
    length = n_fft if win_length is None else win_length
    if not 0 < length <= n_fft:
        raise ValueError(f"[{name}] win_length must be positive and at most n_fft, got {length}.")
    w = creation.ones((length,)) if window is None else _real(require_array(name, window))
    if w.ndim != 1 or w.shape[0] != length:
        raise ValueError(f"[{name}] window must have the shape ({length}), got {w.shape}.")
    left = (n_fft - length) // 2
    return shape.pad(w, [(left, n_fft - length - left)])


def _hop(name: str, n_fft: int, hop_length: int | None) -> int:
    hop = n_fft // 4 if hop_length is None else hop_length
    if hop <= 0:
        raise ValueError(f"[{name}] hop_length must be positive, got {hop}.")
    return hop


def stft(
    x: array,
    n_fft: int = 2048,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: array | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    norm: str = "backward",
    onesided: bool | None = None,
    stream: Any = None,
) -> array:
    """Transforms of overlapping frames of the last axis: complex64 of shape (..., frequencies, frames).

    Args:
        hop_length: samples between frames, n_fft // 4 by default. win_length: size of the window, n_fft by
            default. window: factors of the samples of a frame, centered in it; ones by default. center:
            frames are centered on their position; the ends are filled by `pad_mode`: "reflect", "constant"
            or "edge".
        onesided: only the first n_fft // 2 + 1 frequencies; by default for real `x`.
    """
    a = require_array("stft", x)
    if not a.ndim or n_fft <= 0:
        raise ValueError("[stft] needs at least one dimension and a positive n_fft.")
    hop, w = _hop("stft", n_fft, hop_length), _window("stft", n_fft, win_length, window)
    half = not a.dtype.is_complex if onesided is None else onesided
    if half and a.dtype.is_complex:
        raise ValueError("[stft] onesided needs a real array.")
    if center:
        if pad_mode not in ("reflect", "constant", "edge"):
            raise ValueError(f"[stft] Invalid pad_mode {pad_mode!r}.")
        ends = [(0, 0)] * (a.ndim - 1) + [(n_fft // 2, n_fft // 2)]
        a = shape.pad(a, ends, mode=pad_mode)
    n = int(a.shape[-1])
    if n < n_fft:
        raise ValueError(f"[stft] {n} samples are less than a frame of {n_fft}.")
    starts = creation.arange(0, n - n_fft + 1, hop)
    frames = a[..., ops.add(starts[:, None], creation.arange(n_fft))]
    frames = ops.multiply(frames if a.dtype.is_complex else frames.astype(dtypes.float32), w)
    out = (rfft if half else fft)(frames, axis=-1, norm=norm)
    return shape.swapaxes(out, -1, -2)


def istft(
    stft_matrix: array,
    n_fft: int | None = None,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: array | None = None,
    center: bool = True,
    norm: str = "backward",
    onesided: bool | None = None,
    length: int | None = None,
    stream: Any = None,
) -> array:
    """The signal of transforms made by `stft`, of `length` samples: windowed frames are added and divided
    by the sum of the squared windows. The result is real."""
    z = require_array("istft", stft_matrix)
    if z.ndim < 2:
        raise ValueError("[istft] needs at least two dimensions.")
    half = True if onesided is None else onesided
    bins, count = int(z.shape[-2]), int(z.shape[-1])
    size = n_fft if n_fft is not None else 2 * (bins - 1) if half else bins
    if bins != (size // 2 + 1 if half else size):
        raise ValueError(f"[istft] {bins} frequencies do not fit n_fft={size}.")
    hop, w = _hop("istft", size, hop_length), _window("istft", size, win_length, window)
    spectra = shape.swapaxes(z, -1, -2)
    frames = irfft(spectra, size, norm=norm) if half else ops.real(ifft(spectra, size, norm=norm))
    frames = ops.multiply(frames, w)
    n = size + hop * (count - 1)
    places = ops.add(ops.multiply(creation.arange(count)[:, None], hop), creation.arange(size))
    lead = z.shape[:-2]
    signal = creation.zeros((*lead, n), frames.dtype).at[..., places].add(frames)  # type: ignore[attr-defined]
    squares = shape.broadcast_to(ops.square(w), (count, size))
    envelope = creation.zeros((n,)).at[places].add(squares)  # type: ignore[attr-defined]
    small = ops.less_equal(envelope, 1e-11)
    signal = ops.divide(signal, ops.where(small, 1, envelope))
    if center:
        signal = signal[..., size // 2 : n - size // 2] if length is None else signal[..., size // 2 :]
    return signal if length is None else _fitted(signal, signal.ndim - 1, length)


__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "ifft", "ifft2", "ifftn", "ifftshift", "irfft", "irfft2",
    "irfftn", "istft", "rfft", "rfft2", "rfftfreq", "rfftn", "stft",
]  # fmt: skip
