"""Counter-based random bits.

The generator is Threefry-2x32 with 20 rounds: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy
as 1, 2, 3" (SC 2011). Counters are laid out as in MLX, so that equal keys give equal bits.
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
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree, natural
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.shape import to_front

_ROTATIONS = [
    [(np.uint32(left), np.uint32(32 - left)) for left in block]
    for block in ((13, 15, 26, 6), (17, 29, 16, 24))
]
_PARITY = np.uint32(0x1BD11BDA)
_BY_WIDTH = {1: dtypes.uint8, 2: dtypes.uint16, 4: dtypes.uint32}


def threefry(
    key: tuple[np.ndarray, np.ndarray], count: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Two uint32 words per pair of uint32 counters; keys and counters broadcast."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x, y = np.broadcast_arrays(count[0] + keys[0], count[1] + keys[1])
    x, y = x.copy(), y.copy()
    upper = np.empty_like(y)
    for block in range(5):
        for left, right in _ROTATIONS[block % 2]:
            np.add(x, y, out=x)
            np.left_shift(y, left, out=upper)
            np.right_shift(y, right, out=y)
            np.bitwise_or(y, upper, out=y)
            np.bitwise_xor(y, x, out=y)
        x += keys[(block + 1) % 3]
        y += keys[(block + 2) % 3] + np.uint32(block + 1)
    return x, y


def random_words(keys: np.ndarray, n: int) -> np.ndarray:
    """`n` uint32 words for each key; keys have shape (..., 2), the result (..., n).

    Word w of the first half and word w + ceil(n / 2) come from one counter pair, (w, w + ceil(n / 2)). For
    odd n the middle word is the first of the pair (n // 2, 0).
    """
    half, odd = divmod(n, 2)
    first = np.arange(half + odd, dtype=np.uint32)
    second = first + np.uint32(half + odd)
    if odd:
        second[-1] = 0
    a, b = threefry((keys[..., :1], keys[..., 1:]), (first, second))
    return np.concatenate([a, b[..., :half]], axis=-1)


class RandomBits(Primitive):
    """Unsigned integers of `width` bytes with random bits, of `shape` for each key.

    The operand holds keys of two uint32 words in its last axis.
    """

    shape: tuple[Extent, ...]
    width: int

    def infer(self, keys: Aval) -> Aval:
        if self.width not in _BY_WIDTH:
            raise ShapeError(f"[bits] Bit width must be in {{1, 2, 4}} but got {self.width}.")
        if keys.dtype is not dtypes.uint32 or keys.ndim == 0 or not agree(keys.shape[-1], 2):
            raise ShapeError(f"[bits] Expected keys of shape (..., 2) and dtype uint32, got {keys!r}.")
        if not natural(self.shape):
            raise ShapeError(f"[bits] Extents must not be negative, got shape {self.shape}.")
        return Aval((*keys.shape[:-1], *self.shape), _BY_WIDTH[self.width])

    def evaluate(self, keys: np.ndarray) -> np.ndarray:
        size = int(np.prod(self.shape, dtype=np.int64))  # type: ignore[arg-type]
        words = random_words(keys, -(-size * self.width // 4))
        if self.width != 4:
            words = np.ascontiguousarray(words.astype("<u4")).view(f"<u{self.width}")[..., :size]
        return words.reshape((*keys.shape[:-1], *self.shape))

    # the bits do not move with the key
    def vjp(
        self, primals: Sequence[array], cotangents: Sequence[array | None], results: Sequence[array]
    ) -> Sequence[array | None]:
        return [None]

    def jvp(
        self, primals: Sequence[array], tangents: Sequence[array | None], results: Sequence[array]
    ) -> Sequence[array | None]:
        return [None]

    def vmap(
        self, operands: Sequence[array], axes: Sequence[int | None], size: Extent
    ) -> tuple[Sequence[array], Sequence[int | None]]:
        assert axes[0] is not None
        return [record(self, to_front(operands[0], axes[0])._value)], [0]
