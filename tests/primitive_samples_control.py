"""Samples of calls and control flow: primitives that hold closed graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from primitive_samples import F64, sample, uniform

import ingot as mx
from ingot.tracer.array import array
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph
from ingot.tracer.primitives import control as c
from ingot.tracer.primitives import scan as s
from ingot.tracer.primitives.custom import CustomFunction
from ingot.tracer.trace import trace

B = Dim("B")


def graph(fun: Callable[..., Sequence[array]], *shapes: Sequence[object], name: str = "g") -> Graph:
    """Closed graph of a function of float64 arrays."""
    traced = trace(fun, [Aval(tuple(s), mx.float64) for s in shapes], name=name, close=True)  # type: ignore[arg-type]
    assert not traced.captured
    return traced.graph


def _step(x, w):
    return [mx.tanh(x * w) + x, mx.sin(w)]


for kind in ("compiled", "checkpoint", "module"):
    sample(
        c.Call(graph(_step, (3, 4), (4,)), kind),
        (uniform(-1, 1, (3, 4)), uniform(-1, 1, (4,))),
        lambda x, w: (np.tanh(x * w) + x, np.sin(w)),
        symbolic=(c.Call(graph(_step, (B, 4), (4,)), kind), [(B, 4), (4,)], {"B": 3}),
        name=kind,
    )

_square = lambda x, y: [x * x * y]  # noqa: E731
_sine = lambda x, y: [mx.sin(x)]  # noqa: E731
for pred in (True, False):
    sample(
        c.Cond(graph(_square, (2, 3), (3,)), graph(_sine, (2, 3), (3,))),
        (np.asarray(pred), uniform(-1, 1, (2, 3)), uniform(-1, 1, (3,))),
        (lambda p, x, y: x * x * y) if pred else (lambda p, x, y: np.sin(x)),
        symbolic=(
            c.Cond(graph(_square, (B, 3), (3,)), graph(_sine, (B, 3), (3,))),
            [(), (B, 3), (3,)],
            {"B": 2},
        ),
        name="then" if pred else "otherwise",
    )


def _doubled(limit, factor, x):
    while x.max() < limit:
        x = x * factor
    return x


sample(
    c.WhileLoop(
        graph(lambda limit, x: [x.max() < limit], (), (3,), name="below"),
        graph(lambda factor, x: [x * factor], (), (3,), name="double"),
        1,
        1,
    ),
    (np.asarray(10.0), np.asarray(1.5), uniform(0.5, 1.0, (3,), F64)),
    _doubled,
    symbolic=(
        c.WhileLoop(
            graph(lambda limit, x: [x.max() < limit], (), (B,), name="below"),
            graph(lambda factor, x: [x * factor], (), (B,), name="double"),
            1,
            1,
        ),
        [(), (), (B,)],
        {"B": 3},
    ),
)


def _turn(w, c, x):
    c = mx.tanh(c * w + x)
    return [c, c * x, mx.sin(w)]


def _turns(reverse):
    def run(w, c, xs):
        ys = np.empty_like(xs)
        for i in reversed(range(len(xs))) if reverse else range(len(xs)):
            c = np.tanh(c * w + xs[i])
            ys[i] = c * xs[i]
        return c, ys, np.broadcast_to(np.sin(w), xs.shape)

    return run


for reverse in (False, True):
    sample(
        s.ScanLoop(graph(_turn, (3,), (3,), (3,), name="turn"), 1, 1, 4, reverse),
        (uniform(-1, 1, (3,)), uniform(-1, 1, (3,)), uniform(-1, 1, (4, 3))),
        _turns(reverse),
        symbolic=(
            s.ScanLoop(graph(_turn, (3,), (3,), (3,), name="turn"), 1, 1, B, reverse),
            [(3,), (3,), (B, 3)],
            {"B": 4},
        ),
        name="reverse" if reverse else "forward",
    )


def _product(x, y):
    return [mx.sin(x) * y, x + y]


def _product_back(x, y, c, d, *_):
    return [c * mx.cos(x) * y + d, (c * mx.sin(x)).sum(0) + d.sum(0)]


def _product_along(x, y, t, u):
    return [t * mx.cos(x) * y + mx.sin(x) * u, t + u]


def _custom(n: object):
    one, two = (n, 3), (3,)
    back = graph(_product_back, one, two, one, one, one, one, name="back")
    along = graph(_product_along, one, two, one, two, name="along")
    return CustomFunction(graph(_product, one, two), "custom", 2, back, along, None)


sample(
    _custom(2),
    (uniform(-1, 1, (2, 3)), uniform(-1, 1, (3,))),
    lambda x, y: (np.sin(x) * y, x + y),
    symbolic=(_custom(B), [(B, 3), (3,)], {"B": 2}),
)
