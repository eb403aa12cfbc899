"""Devices, streams, memory counters, limits of dtypes, print options: what scripts for MLX expect to find."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import ingot as mx


def test_the_cpu_is_the_device() -> None:
    assert repr(mx.cpu) == "DeviceType.cpu" and repr(mx.default_device()) == "Device(cpu, 0)"
    assert mx.default_device() == mx.cpu and mx.cpu == mx.default_device() and mx.cpu != mx.gpu
    assert mx.Device(mx.cpu, 1) != mx.cpu and len({mx.cpu, mx.Device(mx.cpu)}) == 1
    assert mx.is_available(mx.cpu) and not mx.is_available(mx.gpu)
    assert (mx.device_count(mx.cpu), mx.device_count(mx.gpu)) == (1, 0)
    assert mx.device_info()["memory_size"] > 1 << 20  # type: ignore[operator]
    for call in (mx.set_default_device, mx.default_stream, mx.new_stream, mx.stream, mx.synchronize):
        with pytest.raises(ValueError, match="gpu"):
            call(mx.gpu)
        with pytest.raises(TypeError):
            call("cpu")


def test_streams_are_remembered_by_thread() -> None:
    first = mx.default_stream(mx.cpu)
    new = mx.new_stream(mx.cpu)
    assert new != first and repr(new) == f"Stream(Device(cpu, 0), {new.index})"
    context = mx.stream(new)
    with context:
        with context:
            assert mx.default_stream(mx.cpu) == new
        assert mx.default_stream(mx.default_device()) == new
        other: list[Any] = []
        thread = threading.Thread(target=lambda: other.append(mx.default_stream(mx.cpu)))
        thread.start()
        thread.join()
        assert other == [first]
        x = mx.add(mx.array(1), 2, stream=new)
    assert x.item() == 3 and mx.default_stream(mx.cpu) == first
    mx.set_default_stream(new)
    mx.set_default_device(mx.cpu)
    mx.synchronize(new)
    mx.synchronize()
    mx.clear_streams()
    assert mx.default_stream(mx.cpu) == first


def test_counters_are_those_of_the_pool() -> None:
    add = mx.compile(lambda x: x + 1)
    x = mx.zeros((1 << 20,))
    mx.eval(x, add(x))
    gc.collect()
    mx.clear_cache()
    assert mx.get_cache_memory() == 0
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    assert mx.get_peak_memory() == before
    y = add(x)
    assert mx.get_active_memory() == before + (4 << 20) == mx.get_peak_memory()
    assert mx.get_array_buffer_size(y, [y, {"again": y}], 3) >= 4 << 20
    del y
    gc.collect()
    assert mx.get_active_memory() == before and mx.get_cache_memory() == 4 << 20
    assert mx.get_peak_memory() == before + (4 << 20)
    old = mx.set_cache_limit(1 << 20)
    try:
        assert mx.get_cache_memory() == 0 and mx.set_cache_limit(1 << 20) == 1 << 20
        add(x)
        assert mx.get_cache_memory() == 0  # too large to keep
    finally:
        mx.set_cache_limit(old)
    limit = mx.set_memory_limit(0)
    try:
        assert mx.get_memory_limit() == 0
        add(x)
        assert mx.get_cache_memory() == 0
    finally:
        assert mx.set_memory_limit(limit) == 0
    assert mx.set_wired_limit(5) == 0
    with pytest.raises(TypeError):
        mx.set_cache_limit(-1)
    with pytest.raises(ValueError, match="evaluated"):
        mx.get_array_buffer_size(mx.exp(x))


def test_limits_of_dtypes() -> None:
    for name in ("float16", "float32", "float64"):
        info, theirs = mx.finfo(getattr(mx, name)), np.finfo(name)
        for part in ("bits", "eps", "min", "max", "smallest_normal"):
            assert float(getattr(info, part)) == float(getattr(theirs, part)), (name, part)
    assert mx.finfo(mx.bfloat16).max == 3.3895313892515355e38
    assert repr(mx.finfo(mx.complex64)) == "finfo(min=-3.40282e+38, max=3.40282e+38, dtype=float32)"
    for name in ("int8", "uint8", "int32", "uint64", "int64"):
        assert (mx.iinfo(getattr(mx, name)).min, mx.iinfo(getattr(mx, name)).max) == (
            np.iinfo(name).min,
            np.iinfo(name).max,
        )
    for call in (lambda: mx.finfo(mx.int8), lambda: mx.iinfo(mx.float16), lambda: mx.isdtype(mx.int8, "x")):
        with pytest.raises(ValueError):
            call()
    assert mx.isdtype(mx.int8, ("bool", "integral")) and mx.isdtype(mx.int8, mx.int8)
    assert not mx.isdtype(mx.bool_, "numeric") and not mx.isdtype(mx.complex64, "real floating")


def test_print_options() -> None:
    x = mx.array([1.23456789, 2])
    with mx.printoptions(precision=2):
        assert repr(x) == "array([1.23, 2.00], dtype=float32)" and mx.get_printoptions().precision == 2
        assert repr(mx.array(1.5 + 2j)) == "array(1.50+2.00j, dtype=complex64)"
    assert repr(x) == "array([1.23457, 2], dtype=float32)"
    mx.set_printoptions(precision=1)
    assert str(x) == "array([1.2, 2.0], dtype=float32)"
    mx.set_printoptions()


def test_array_protocols() -> None:
    class Wrapped:
        def __mlx_array__(self) -> mx.array:
            return mx.array([1, 2])

    assert mx.add(mx.array([1, 1]), Wrapped()).tolist() == [2, 3] and mx.array(Wrapped()).tolist() == [1, 2]
    assert (mx.array([1, 1]) + Wrapped()).tolist() == [2, 3] and isinstance(Wrapped(), mx.ArrayLike)
    x = mx.array([7, 8])
    assert bytes(x) == b"\x07\0\0\0\x08\0\0\0" and x.__array_namespace__() is mx
    parts = iter(x)
    assert isinstance(parts, mx.ArrayIterator) and iter(parts) is parts
    assert [p.item() for p in parts] == [7, 8]
    assert x.__div__(2).tolist() == [3.5, 4] and isinstance(x.at, mx.ArrayAt)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="indices"):
        x.at.add(1)
    assert mx.from_dlpack(np.ones(2, np.int8)).dtype is mx.int8
    with pytest.raises(ValueError, match="copy"):
        mx.from_dlpack(np.ones(2), copy=False)


@pytest.mark.peers
def test_as_the_real_mlx_says() -> None:
    mlx = pytest.importorskip("mlx.core")
    for name in ("float16", "bfloat16", "float32", "float64", "complex64"):
        ours, theirs = mx.finfo(getattr(mx, name)), mlx.finfo(getattr(mlx, name))
        assert repr(ours) == repr(theirs)
        assert [getattr(ours, n) for n in ("bits", "eps", "min", "max", "smallest_normal")] == [
            getattr(theirs, n) for n in ("bits", "eps", "min", "max", "smallest_normal")
        ]
    for name in ("int8", "uint16", "int64"):
        assert repr(mx.iinfo(getattr(mx, name))) == repr(mlx.iinfo(getattr(mlx, name)))
    kinds = ("bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating")
    for name in ("bool_", "int8", "uint8", "bfloat16", "complex64"):
        for kind in (*kinds, "numeric"):
            assert mx.isdtype(getattr(mx, name), kind) == mlx.isdtype(getattr(mlx, name), kind)
    values = [1.23456789, 1e-7, 1e10, 123456.789]
    for precision in (-1, 0, 3, 12):
        with mx.printoptions(precision=precision), mlx.printoptions(precision=precision):
            assert repr(mx.array(values)) == repr(mlx.array(values))
