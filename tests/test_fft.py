"""`ingot.fft` against NumPy; gradients; `peers`: short-time transforms against the real MLX."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot as mx
from ingot import fft

sys.path.insert(0, str(Path(__file__).parent))

from complex_gradients import check_gradient  # noqa: E402

RANDOM = np.random.default_rng(8)
X = RANDOM.normal(size=(3, 4, 6)).astype(np.float32)
Z = (X + 1j * RANDOM.normal(size=X.shape)).astype(np.complex64)


def close(got: mx.array, want: np.ndarray) -> None:
    kind = np.complex64 if np.iscomplexobj(want) else np.float32
    assert got.dtype.numpy == kind and got.shape == want.shape
    np.testing.assert_allclose(np.array(got), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft"])
@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
def test_one_axis(name: str, norm: str) -> None:
    x = X if name == "rfft" else Z
    ours, theirs = getattr(fft, name), getattr(np.fft, name)
    for axis in (0, 1, -1):
        for n in (None, 1, 3, 5, 8):
            if name == "irfft" and n is None and x.shape[axis] < 2:
                continue
            close(ours(mx.array(x), n, axis, norm), theirs(x, n, axis, norm))


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft"])
def test_several_axes(name: str) -> None:
    x = X if name == "rfft" else Z
    for axes in ((0, 1), (2, 0), (0, 1, 2), (1,)):
        for sizes in (None, (4, 5, 7)[: len(axes)]):
            got = getattr(fft, f"{name}n")(mx.array(x), sizes, axes)
            close(got, getattr(np.fft, f"{name}n")(x, sizes, axes))
    close(getattr(fft, f"{name}2")(mx.array(x)), getattr(np.fft, f"{name}2")(x))
    close(getattr(fft, f"{name}n")(mx.array(x)), getattr(np.fft, f"{name}n")(x))


def test_dtypes() -> None:
    for dtype in (mx.bool_, mx.int8, mx.float16, mx.bfloat16, mx.float64):
        assert fft.fft(mx.ones(3, dtype)).dtype is mx.complex64
        assert fft.rfft(mx.ones(3, dtype)).dtype is mx.complex64
        assert fft.irfft(mx.ones(3, dtype)).dtype is mx.float32
    close(fft.rfft(mx.array(Z)), np.fft.rfft(Z.real))


def test_shifts_and_frequencies() -> None:
    for axes in (None, 1, (0, 2)):
        assert np.array_equal(np.array(fft.fftshift(mx.array(X), axes)), np.fft.fftshift(X, axes))
        assert np.array_equal(np.array(fft.ifftshift(mx.array(X), axes)), np.fft.ifftshift(X, axes))
    for n in (1, 4, 5):
        close(fft.fftfreq(n, 0.5), np.fft.fftfreq(n, 0.5).astype(np.float32))
        close(fft.rfftfreq(n, 0.5), np.fft.rfftfreq(n, 0.5).astype(np.float32))
    assert fft.fftshift(mx.array(3)).item() == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda x: fft.fft(x, 0), lambda x: fft.fft(x, -1), lambda x: fft.fft(x, norm="x"),
        lambda x: fft.fftn(x, [2]), lambda x: fft.fftn(x, [2], [0, 1]), lambda x: fft.fftn(x, axes=[0, 0]),
        lambda x: fft.fft(x, axis=7), lambda x: fft.fft(mx.zeros((0,))), lambda x: fft.fft(mx.array(1.0)),
        lambda x: fft.fftfreq(0),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(call: Any) -> None:
    with pytest.raises(ValueError):
        call(mx.array(X))


@pytest.mark.parametrize(
    "fn",
    [
        lambda z: fft.fft(z), lambda z: fft.ifft(z, 5, 0, "ortho"), lambda z: fft.fftn(z),
        lambda z: fft.irfft(z), lambda z: fft.irfft(z, 5), lambda z: fft.irfft(z, 1), lambda z: fft.ifftn(z),
        lambda z: fft.rfft(mx.real(z)) + fft.rfft(mx.imag(z), norm="forward"),
        lambda z: fft.rfft(mx.abs(z), 5), lambda z: fft.irfftn(z),
        lambda z: mx.abs(fft.stft(mx.imag(z).reshape(-1), 4, pad_mode="constant")),
    ],
)  # fmt: skip
def test_gradients(fn: Any) -> None:
    check_gradient(fn, Z[0, :3, :3])


def test_transforms() -> None:
    z = mx.array(Z)
    close(mx.vmap(fft.fft, in_axes=1)(z), np.fft.fft(np.moveaxis(Z, 1, 0)))
    close(mx.compile(fft.irfft)(z), np.fft.irfft(Z))
    signal = mx.array(X.reshape(-1))
    back = fft.istft(fft.stft(signal, 16), length=signal.size)
    np.testing.assert_allclose(np.array(back), X.reshape(-1), atol=1e-5)


@pytest.mark.peers
def test_short_time_transforms_as_the_real_mlx() -> None:
    mlx = pytest.importorskip("mlx.core")
    signal = RANDOM.normal(size=(2, 60)).astype(np.float32)
    window = np.hanning(12).astype(np.float32)
    for options in (
        {"n_fft": 16}, {"n_fft": 15, "hop_length": 5}, {"n_fft": 16, "pad_mode": "edge", "norm": "ortho"},
        {"n_fft": 16, "win_length": 12, "window": window}, {"n_fft": 16, "onesided": False, "center": False},
    ):  # fmt: skip
        ours = {k: mx.array(v) if k == "window" else v for k, v in options.items()}
        theirs = {k: mlx.array(v) if k == "window" else v for k, v in options.items()}
        got, want = fft.stft(mx.array(signal), **ours), mlx.fft.stft(mlx.array(signal), **theirs)
        assert got.shape == want.shape
        np.testing.assert_allclose(np.array(got), np.array(want), rtol=1e-4, atol=1e-4)
        for table in (ours, theirs):
            table.pop("pad_mode", None)
        for length in (None, 50, 70):
            back = fft.istft(got, length=length, **ours)
            other = mlx.fft.istft(want, length=length, **theirs)
            assert back.shape == other.shape and str(other.dtype).endswith(back.dtype.name), options
            np.testing.assert_allclose(
                np.array(back)[..., 8:40], np.array(other)[..., 8:40], rtol=1e-3, atol=1e-3
            )
