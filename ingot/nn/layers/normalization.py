"""Normalisation layers. Statistics of half-precision inputs are computed in float32."""

from __future__ import annotations

import ingot as mx
from ingot.nn.layers.base import Module


def _widen(x: mx.array) -> mx.array:
    return x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x


def _standardise(x: mx.array, axes: int | tuple[int, ...], eps: float) -> mx.array:
    """`x` with mean 0 and variance 1 over `axes`, in float32 or wider."""
    wide = _widen(x)
    centred = wide - mx.mean(wide, axes, keepdims=True)
    variance = mx.mean(mx.square(centred), axes, keepdims=True)
    return centred * mx.rsqrt(variance + eps)


def _affine(layer: Module, x: mx.array, y: mx.array) -> mx.array:
    """`weight * y + bias` of `layer` as far as it has them, in the promoted dtype of `x` and the
    parameters.
    """
    weight = layer.get("weight")
    if weight is None:
        return y.astype(x.dtype)
    if weight.dtype == x.dtype:
        y = y.astype(x.dtype)
    bias = layer.get("bias")
    return weight * y if bias is None else weight * y + bias


class LayerNorm(Module):
    """Standardises the last axis, then `weight * x + bias` (Ba et al., arXiv:1607.06450).

    `affine=False` leaves both parameters out, `bias=False` the second.
    """

    def __init__(self, dims: int, eps: float = 1e-5, affine: bool = True, bias: bool = True) -> None:
        super().__init__()
        if affine:
            self.weight = mx.ones((dims,))
            if bias:
                self.bias = mx.zeros((dims,))
        self.eps = eps
        self.dims = dims

    def _extra_repr(self) -> str:
        return f"{self.dims}, eps={self.eps}, affine={'weight' in self}"

    def __call__(self, x: mx.array) -> mx.array:
        return _affine(self, x, _standardise(x, -1, self.eps))


class RMSNorm(Module):
    """`weight * x / √(mean(x²) + eps)` over the last axis (Zhang and Sennrich, arXiv:1910.07467)."""

    def __init__(self, dims: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = mx.ones((dims,))
        self.eps = eps

    def _extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"

    def __call__(self, x: mx.array) -> mx.array:
        wide = _widen(x)
        scale = mx.rsqrt(mx.mean(mx.square(wide), -1, keepdims=True) + self.eps)
        return _affine(self, x, wide * scale)


class InstanceNorm(Module):
    """Standardises each channel of each example over its spatial axes; `x` is (N, ..., C)."""

    def __init__(self, dims: int, eps: float = 1e-5, affine: bool = False) -> None:
        super().__init__()
        if affine:
            self.weight = mx.ones((dims,))
            self.bias = mx.zeros((dims,))
        self.dims = dims
        self.eps = eps

    def _extra_repr(self) -> str:
        return f"{self.dims}, eps={self.eps}, affine={'weight' in self}"

    def __call__(self, x: mx.array) -> mx.array:
        return _affine(self, x, _standardise(x, tuple(range(1, x.ndim - 1)), self.eps))


class GroupNorm(Module):
    """Standardises groups of channels together; `x` is (N, ..., C) (Wu and He, arXiv:1803.08494).

    By default group g has the channels g, g + G, g + 2G …; with `pytorch_compatible` it has consecutive ones.
    """

    def __init__(
        self,
        num_groups: int,
        dims: int,
        eps: float = 1e-5,
        affine: bool = True,
        pytorch_compatible: bool = False,
    ) -> None:
        super().__init__()
        if affine:
            self.bias = mx.zeros((dims,))
            self.weight = mx.ones((dims,))
        self.num_groups = num_groups
        self.dims = dims
        self.eps = eps
        self.pytorch_compatible = pytorch_compatible

    def _extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.dims}, eps={self.eps}, affine={'weight' in self}, "
            f"pytorch_compatible={self.pytorch_compatible}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        batch, *middle, channels = x.shape
        if self.pytorch_compatible:
            grouped = x.reshape(batch, -1, self.num_groups, channels // self.num_groups)
            y = _standardise(grouped, (1, 3), self.eps).reshape(batch, *middle, channels)
        else:
            grouped = x.reshape(batch, -1, self.num_groups)
            y = _standardise(grouped, 1, self.eps).reshape(batch, *middle, channels)
        return _affine(self, x, y)


class BatchNorm(Module):
    """Standardises each channel over the batch and spatial axes; `x` has 2 to 4 dimensions, channels last.

    In training mode the statistics of the batch are used, and `running_mean` and `running_var` follow them
    with weight `momentum`; in evaluation mode (with `track_running_stats`) the running ones are used.
    (Ioffe and Szegedy, arXiv:1502.03167.)
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = mx.ones((num_features,))
            self.bias = mx.zeros((num_features,))
        if track_running_stats:
            self.running_mean = mx.zeros((num_features,))
            self.running_var = mx.ones((num_features,))
            self.freeze(keys=["running_mean", "running_var"], recurse=False)

    def unfreeze(self, *args, **kwargs) -> Module:  # type: ignore[no-untyped-def]
        super().unfreeze(*args, **kwargs)
        return self.freeze(keys=["running_mean", "running_var"], recurse=False)

    def _extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={'weight' in self}, "
            f"track_running_stats={self.track_running_stats}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        if not 2 <= x.ndim <= 4:
            raise ValueError(f"[BatchNorm] expected 2 to 4 dimensions, not {x.ndim}: shape {x.shape}")
        if self.training or "running_mean" not in self:
            axes = tuple(range(x.ndim - 1))
            mean, variance = mx.mean(x, axes), mx.var(x, axes)
            if self.training and "running_mean" in self:
                self._follow(mean, variance, x.size // x.shape[-1])
        else:
            mean, variance = self.running_mean, self.running_var
        y = (x - mean) * mx.rsqrt(variance + self.eps)
        return self["weight"] * y + self["bias"] if "weight" in self else y

    def _follow(self, mean: mx.array, variance: mx.array, count: int | mx.Dim) -> None:
        """Move the running statistics; the variance is the unbiased one, of `count` values a channel."""
        keep, take = 1 - self.momentum, self.momentum
        variance = variance * (count / mx.maximum(count - 1, 1))
        self.running_mean = keep * self.running_mean + take * mean
        self.running_var = keep * self.running_var + take * variance
