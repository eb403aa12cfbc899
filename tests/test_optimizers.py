"""Optimizers and schedules: against the published update rules in NumPy, and against MLX where installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ingot as mx
import ingot.nn as nn
import ingot.optimizers as optim
from ingot.utils import tree_flatten, tree_map

rng = np.random.default_rng(11)


def close(actual, expected, tolerance=2e-6):
    actual = np.asarray(actual, dtype=np.float64)
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def sgd(w, gradients, rate, momentum=0.0, weight_decay=0.0, dampening=0.0, nesterov=False):
    v = 0.0
    for g in gradients:
        g = g + weight_decay * w
        v = momentum * v + (1 - dampening) * g
        if momentum == 0:
            v = g
        w = w - rate * (g + momentum * v if nesterov else v)
    return w


def rmsprop(w, gradients, rate, alpha=0.99, eps=1e-8):
    v = 0.0
    for g in gradients:
        v = alpha * v + (1 - alpha) * g**2
        w = w - rate * g / (np.sqrt(v) + eps)
    return w


def adagrad(w, gradients, rate, eps=1e-8):
    v = 0.0
    for g in gradients:
        v = v + g**2
        w = w - rate * g / (np.sqrt(v) + eps)
    return w


def adadelta(w, gradients, rate, rho=0.9, eps=1e-6):
    v = u = 0.0
    for g in gradients:
        v = rho * v + (1 - rho) * g**2
        d = np.sqrt((u + eps) / (v + eps)) * g
        u = rho * u + (1 - rho) * d**2
        w = w - rate * d
    return w


def adam(w, gradients, rate, betas=(0.9, 0.999), eps=1e-8, bias_correction=False, weight_decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        w = w * (1 - rate * weight_decay)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        a, b = (1 - betas[0] ** t, 1 - betas[1] ** t) if bias_correction else (1, 1)
        w = w - rate * (m / a) / (np.sqrt(v / b) + eps)
    return w


def adamax(w, gradients, rate, betas=(0.9, 0.999), eps=1e-8):
    m = v = 0.0
    for g in gradients:
        m = betas[0] * m + (1 - betas[0]) * g
        v = np.maximum(betas[1] * v, abs(g))
        w = w - rate * m / (v + eps)
    return w


def lion(w, gradients, rate, betas=(0.9, 0.99), weight_decay=0.0):
    m = 0.0
    for g in gradients:
        c = betas[0] * m + (1 - betas[0]) * g
        m = betas[1] * m + (1 - betas[1]) * g
        w = w - rate * (np.sign(c) + weight_decay * w)
    return w


CASES = [
    ("SGD", sgd, {}),
    ("SGD", sgd, {"momentum": 0.9}),
    ("SGD", sgd, {"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.3}),
    ("SGD", sgd, {"momentum": 0.9, "nesterov": True}),
    ("RMSprop", rmsprop, {"alpha": 0.9}),
    ("Adagrad", adagrad, {}),
    ("AdaDelta", adadelta, {"rho": 0.8}),
    ("Adam", adam, {}),
    ("Adam", adam, {"betas": [0.8, 0.95], "bias_correction": True, "eps": 1e-6}),
    ("AdamW", lambda *a, **k: adam(*a, **{"weight_decay": 0.01, **k}), {}),
    ("AdamW", adam, {"weight_decay": 0.1, "bias_correction": True}),
    ("Adamax", adamax, {}),
    ("Lion", lion, {"weight_decay": 0.1}),
]
cases = pytest.mark.parametrize(("name", "rule", "options"), CASES, ids=[case[0] for case in CASES])

START = {"a": rng.standard_normal((3, 2)), "b": [{"c": rng.standard_normal(4)}]}
GRADIENTS = [tree_map(lambda w: rng.standard_normal(w.shape), START) for _ in range(6)]


def to_arrays(tree, module=mx, dtype=np.float32):
    return tree_map(lambda x: module.array(x.astype(dtype)), tree)


@cases
def test_update_rule(name, rule, options):
    optimizer = getattr(optim, name)(0.05, **options)
    parameters = to_arrays(START)
    for gradients in GRADIENTS:
        parameters = optimizer.apply_gradients(to_arrays(gradients), parameters)
    flat = [dict(tree_flatten(g)) for g in GRADIENTS]
    for path, value in tree_flatten(parameters):
        start = dict(tree_flatten(START))[path]
        close(value, rule(start, [g[path] for g in flat], 0.05, **options), 2e-5)
    assert int(np.array(optimizer.step)) == len(GRADIENTS)


@cases
def test_dtype_of_the_parameter_is_kept(name, rule, options):
    parameters = to_arrays({"w": START["a"]}, dtype=np.float16)
    optimizer = getattr(optim, name)(0.05, **options)
    fresh = optimizer.apply_gradients(parameters, parameters)
    fresh = optimizer.apply_gradients(fresh, fresh)
    assert fresh["w"].dtype == mx.float16
    assert all(x.dtype == mx.float16 for _, x in tree_flatten(optimizer.state["w"]))


def test_state_mirrors_the_parameters():
    optimizer = optim.Adam(0.1)
    assert set(optimizer.state) == {"step", "learning_rate"}
    optimizer.init(to_arrays(START))
    assert [path for path, _ in tree_flatten(optimizer.state)] == [
        "step", "learning_rate", "a.m", "a.v", "b.0.c.m", "b.0.c.v",
    ]  # fmt: skip
    optimizer.apply_gradients(to_arrays(GRADIENTS[0]), to_arrays(START))
    moments = np.array(optimizer.state["a"]["m"])
    optimizer.init({**to_arrays(START), "new": mx.zeros((1,))})
    assert np.array_equal(np.array(optimizer.state["a"]["m"]), moments), "existing state is kept"
    assert set(optimizer.state["new"]) == {"m", "v"}


def test_state_can_be_moved_to_another_optimizer():
    first, second = optim.Adam(0.1), optim.Adam(0.7)
    parameters = first.apply_gradients(to_arrays(GRADIENTS[0]), to_arrays(START))
    second.state = tree_map(lambda x: x, first.state)
    close(second.learning_rate, np.float32(0.1))
    ours = first.apply_gradients(to_arrays(GRADIENTS[1]), parameters)
    copy = second.apply_gradients(to_arrays(GRADIENTS[1]), parameters)
    for (_, a), (_, b) in zip(tree_flatten(ours), tree_flatten(copy), strict=True):
        assert np.array_equal(np.array(a), np.array(b))


def test_update_of_a_model_touches_what_has_a_gradient():
    model = nn.Linear(2, 3)
    weight, bias = np.array(model.weight), np.array(model.bias)
    optim.SGD(0.5).update(model, {"weight": mx.ones((3, 2))})
    close(model.weight, weight - 0.5)
    assert np.array_equal(np.array(model.bias), bias)
    with pytest.raises(KeyError):
        optim.SGD(0.5).update(model, {"missing": mx.ones((1,))})


def test_learning_rate_schedule():
    optimizer = optim.SGD(lambda step: 1.0 / (step + 1))
    w = {"w": mx.zeros((1,))}
    for _ in range(3):
        w = optimizer.apply_gradients({"w": mx.ones((1,))}, w)
    close(w["w"], [-(1 + 1 / 2 + 1 / 3)])
    close(optimizer.learning_rate, 1 / 3)

    optimizer = optim.SGD(0.1)
    optimizer.learning_rate = 2.0
    close(optimizer.apply_gradients({"w": mx.ones((1,))}, {"w": mx.zeros((1,))})["w"], [-2.0])


def cosine(step, init, steps, end=0.0):
    return end + 0.5 * (init - end) * (1 + math.cos(math.pi * min(step, steps) / steps))


SCHEDULES = [
    (lambda m: m.exponential_decay(0.1, 0.9), lambda t: 0.1 * 0.9**t),
    (lambda m: m.step_decay(0.1, 0.9, 4), lambda t: 0.1 * 0.9 ** (t // 4)),
    (lambda m: m.cosine_decay(0.1, 9, 0.02), lambda t: cosine(t, 0.1, 9, 0.02)),
    (lambda m: m.linear_schedule(0.5, 0.1, 8), lambda t: 0.5 - 0.05 * min(t, 8)),
    (
        lambda m: m.join_schedules([m.linear_schedule(0.0, 0.1, 5), m.cosine_decay(0.1, 6)], [5]),
        lambda t: 0.02 * t if t < 5 else cosine(t - 5, 0.1, 6),
    ),
]


@pytest.mark.parametrize(("make", "oracle"), SCHEDULES)
def test_schedule(make, oracle):
    schedule = make(optim)
    for step in range(14):
        close(schedule(mx.array(step, mx.uint64)), oracle(step), 1e-6)
        close(schedule(step), oracle(step), 1e-6)


def test_bad_arguments():
    for wrong in (
        lambda: optim.SGD(0.1, nesterov=True),
        lambda: optim.SGD(0.1, momentum=0.9, dampening=0.1, nesterov=True),
        lambda: optim.Adam(0.1, eps=-1),
        lambda: optim.RMSprop(0.1, alpha=-1),
        lambda: optim.AdaDelta(0.1, rho=-1),
        lambda: optim.linear_schedule(0, 1, 0),
        lambda: optim.join_schedules([], []),
        lambda: optim.join_schedules([abs], [1]),
    ):
        with pytest.raises(ValueError, match=r"^\[\w+\] "):
            wrong()
    with pytest.raises(NotImplementedError):
        optim.Optimizer().init({"w": mx.zeros((1,))})


def test_clip_grad_norm():
    gradients = {"a": mx.array([3.0, 0.0]), "b": [mx.array([[4.0]])]}
    clipped, norm = optim.clip_grad_norm(gradients, 1.0)
    close(norm, 5.0)
    close(clipped["a"], [0.6, 0.0])
    close(clipped["b"][0], [[0.8]])
    same, _ = optim.clip_grad_norm(gradients, 10.0)
    close(same["a"], [3.0, 0.0])


def regression_step(optimizer):
    """A small regression problem: `(state, step)`, where `step()` trains once and returns the loss."""
    mx.random.seed(5)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x = mx.array(np.random.default_rng(0).standard_normal((32, 4)).astype(np.float32))
    y = mx.sum(mx.square(x), -1, keepdims=True)
    loss_and_grad = nn.value_and_grad(model, lambda x, y: nn.losses.mse_loss(model(x), y))
    optimizer.init(model.trainable_parameters())

    def step(x, y):
        loss, gradients = loss_and_grad(x, y)
        optimizer.update(model, gradients)
        return loss

    return [model.state, optimizer.state], step, (x, y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.SGD(0.02, momentum=0.9),
        lambda: optim.Adam(optim.cosine_decay(0.05, 40), bias_correction=True),
    ],
    ids=["SGD", "Adam"],
)
def test_compiled_step_trains_as_the_plain_one(make):
    state, step, batch = regression_step(make())
    plain = [float(np.array(step(*batch))) for _ in range(40)]
    final = [np.array(x) for _, x in tree_flatten(state)]

    state, step, batch = regression_step(make())
    compiled = mx.compile(step, inputs=state, outputs=state)
    losses = []
    for _ in range(40):
        losses.append(compiled(*batch))
        mx.eval(state)
    close(np.array([float(np.array(x)) for x in losses]), plain, 1e-3)
    assert plain[-1] < 0.5 * plain[0]
    for (path, value), expected in zip(tree_flatten(state), final, strict=True):
        np.testing.assert_allclose(np.array(value), expected, rtol=1e-2, atol=1e-3, err_msg=path)


@pytest.mark.peers
@cases
def test_agrees_with_mlx(name, rule, options):
    mlx = pytest.importorskip("mlx.core")
    theirs_module = pytest.importorskip("mlx.optimizers")
    results = []
    for module, arrays in ((optim, mx), (theirs_module, mlx)):
        schedule = module.join_schedules(
            [module.linear_schedule(0.01, 0.1, 3), module.exponential_decay(0.1, 0.5)], [3]
        )
        optimizer = getattr(module, name)(schedule, **options)
        parameters = to_arrays(START, arrays)
        for gradients in GRADIENTS:
            parameters = optimizer.apply_gradients(to_arrays(gradients, arrays), parameters)
        results.append((dict(tree_flatten(parameters)), dict(tree_flatten(optimizer.state))))
    for ours, theirs in zip(*results, strict=True):
        assert list(ours) == list(theirs)
        for path, value in theirs.items():
            assert str(ours[path].dtype).rpartition(".")[2] == str(value.dtype).rpartition(".")[2], path
            close(ours[path], np.array(value, np.float64), 1e-5)


@pytest.mark.peers
def test_signatures_agree_with_mlx():
    import inspect

    theirs = pytest.importorskip("mlx.optimizers")
    for name in optim.__all__:
        ours, other = getattr(optim, name), getattr(theirs, name)
        if inspect.isclass(ours):
            ours, other = ours.__init__, other.__init__
        mine = [(p.name, p.default) for p in inspect.signature(ours).parameters.values()]
        assert mine == [(p.name, p.default) for p in inspect.signature(other).parameters.values()], name
