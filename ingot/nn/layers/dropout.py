"""Random zeros in training mode (Srivastava et al., *Dropout*, JMLR 2014)."""

from __future__ import annotations

import ingot as mx
from ingot.nn.layers.base import Module


class Dropout(Module):
    """In training mode, zeroes each element with probability `p` and scales the others by 1/(1−p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"[{type(self).__name__}] the probability {p} is not in [0, 1)")
        self._keep = 1 - p

    def _extra_repr(self) -> str:
        return f"p={1 - self._keep}"

    def __call__(self, x: mx.array) -> mx.array:
        return self._drop(x, x.shape)

    def _drop(self, x: mx.array, mask_shape: tuple) -> mx.array:
        if self._keep == 1 or not self.training:
            return x
        mask = mx.random.bernoulli(self._keep, mask_shape)
        return mask * x * (1 / self._keep)

    def _drop_channels(self, x: mx.array, spatial: int) -> mx.array:
        if x.ndim not in (spatial + 1, spatial + 2):
            raise ValueError(
                f"[{type(self).__name__}] expected {spatial + 1} or {spatial + 2} dimensions, "
                f"not {x.ndim}: shape {x.shape}"
            )
        batch = x.shape[: x.ndim - spatial - 1]
        return self._drop(x, (*batch, *(1,) * spatial, x.shape[-1]))


class Dropout2d(Dropout):
    """Drops whole channels of images (N, H, W, C) or (H, W, C)."""

    def __call__(self, x: mx.array) -> mx.array:
        return self._drop_channels(x, 2)


class Dropout3d(Dropout):
    """Drops whole channels of volumes (N, D, H, W, C) or (D, H, W, C)."""

    def __call__(self, x: mx.array) -> mx.array:
        return self._drop_channels(x, 3)
