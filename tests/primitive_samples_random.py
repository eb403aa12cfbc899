"""Samples of the random bits: against a scalar implementation with Python's integers."""

from __future__ import annotations

import numpy as np
from primitive_samples import sample

from ingot.tracer.dims import Dim
from ingot.tracer.primitives.random_bits import RandomBits

B = Dim("B")
MASK = 0xFFFFFFFF


def threefry(key: tuple[int, int], x: int, y: int) -> tuple[int, int]:
    """Threefry-2x32-20, from the paper's definition."""
    words = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (x + words[0]) & MASK, (y + words[1]) & MASK
    for step in range(20):
        rotation = (13, 15, 26, 6, 17, 29, 16, 24)[step % 8]
        x = (x + y) & MASK
        y = ((y << rotation | y >> 32 - rotation) & MASK) ^ x
        if step % 4 == 3:
            block = step // 4 + 1
            x, y = (x + words[block % 3]) & MASK, (y + words[(block + 1) % 3] + block) & MASK
    return x, y


# the known answers of the authors' Random123 library
assert threefry((0, 0), 0, 0) == (0x6B200159, 0x99BA4EFE)
assert threefry((MASK, MASK), MASK, MASK) == (0x1CB996FC, 0xBB002BE7)
assert threefry((0x13198A2E, 0x03707344), 0x243F6A88, 0x85A308D3) == (0xC4923A9C, 0x483DF7A0)


def words(key: np.ndarray, n: int) -> np.ndarray:
    """The first `n` bytes-of-four of a key."""
    first = (n + 1) // 2
    out = np.zeros(n, np.uint32)
    for w in range(first):
        paired = w + first < n
        a, b = threefry((int(key[0]), int(key[1])), w, w + first if paired else 0)
        out[w] = a
        if paired:
            out[w + first] = b
    return out


_key = np.array([7, 0xDEADBEEF], np.uint32)
sample(RandomBits((3, 4), 4), [_key], lambda k: words(k, 12).reshape(3, 4),
       symbolic=(RandomBits((3, B), 4), [(2,)], {"B": 4}))  # fmt: skip
sample(RandomBits((5,), 4), [_key], lambda k: words(k, 5), symbolic=None, name="odd")
sample(RandomBits((), 4), [_key], lambda k: words(k, 1)[0], symbolic=None, name="scalar")
sample(RandomBits((0,), 4), [_key], lambda k: words(k, 0), symbolic=None, name="empty")
sample(RandomBits((7,), 2), [_key], lambda k: words(k, 4).view("<u2")[:7], symbolic=None, name="two bytes")
sample(RandomBits((5,), 1), [_key], lambda k: words(k, 2).view("<u1")[:5], symbolic=None, name="one byte")
_keys = np.array([[1, 2], [3, 4], [5, 6]], np.uint32)
sample(RandomBits((4,), 4), [_keys], lambda ks: np.stack([words(k, 4) for k in ks]),
       symbolic=(RandomBits((4,), 4), [(B, 2)], {"B": 3}), name="keys")  # fmt: skip
