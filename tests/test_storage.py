"""The buffer pool: alignment, recycling, bounds."""

import gc
import os
import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingot.runtime.storage import ALIGNMENT, Pool, size_class


@given(st.integers(0, 1 << 40))
def test_size_classes(n):
    size = size_class(n)
    assert size >= n and size % 4096 == 0 and size_class(size) == size
    assert n <= 4096 or size <= n + n / 8 + 4096


def test_buffers_are_aligned_and_writable():
    pool = Pool()
    for shape, dtype in (((3,), "f4"), ((0, 4), "f8"), ((), "i4"), ((1000, 1000), "f4"), ((4097,), "u1")):
        x = pool.empty(shape, np.dtype(dtype))
        assert x.shape == shape and x.dtype == dtype and x.flags.c_contiguous
        assert x.size == 0 or x.ctypes.data % ALIGNMENT == 0
        x[...] = 1
        assert (x == 1).all()


def test_memory_returns_with_its_last_view():
    pool = Pool()
    x = pool.empty((1 << 20,), np.dtype("f4"))
    address = x.ctypes.data
    view = x[5:10]
    del x
    gc.collect()
    assert pool.active_bytes == 1 << 22 and pool.free_bytes == 0
    del view
    gc.collect()
    assert pool.active_bytes == 0 and pool.free_bytes == 1 << 22
    y = pool.empty((1 << 20,), np.dtype("f4"))
    assert y.ctypes.data == address and pool.free_bytes == 0
    assert pool.peak_bytes == 1 << 22


def test_free_memory_is_bounded():
    pool = Pool(limit=1 << 21)
    held = [pool.empty((1 << 20,), np.dtype("u1")) for _ in range(4)]
    del held
    gc.collect()
    assert pool.free_bytes <= 1 << 21
    pool.clear()
    assert pool.free_bytes == 0


def test_threads():
    pool = Pool()
    errors = []

    def work(k):
        rng = np.random.default_rng(k)
        for _ in range(200):
            x = pool.empty((int(rng.integers(1, 1 << 16)),), np.dtype("i4"))
            x[...] = k
            y = pool.empty(x.shape, np.dtype("i4"))
            y[...] = -1
            if not (x == k).all():
                errors.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gc.collect()
    assert not errors and pool.active_bytes == 0


def test_a_forked_child_has_its_own_memory():
    pool = Pool()
    x = pool.empty((1 << 20,), np.dtype("f4"))
    x[...] = 1
    child = os.fork()
    if child == 0:
        x[...] = 99
        os._exit(0)
    os.waitpid(child, 0)
    assert (x == 1).all()
