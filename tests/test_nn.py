"""Modules, layers, losses and initialisers: against NumPy in float64, and against MLX where installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ingot as mx
import ingot.nn as nn
from ingot.utils import tree_flatten, tree_map

rng = np.random.default_rng(7)


def close(actual, expected, tolerance=2e-6):
    actual = np.asarray(actual, dtype=np.float64)
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = [nn.ReLU(), nn.Linear(4, 2, bias=False)]
        self.named = {"drop": nn.Dropout(0.25), "number": 1}
        self.scale = mx.ones((2,))
        self._hidden = mx.zeros((2,))
        self.pair = (mx.zeros((1,)), 3)
        self.width = 4

    def __call__(self, x):
        for block in (self.first, *self.blocks):
            x = block(x)
        return self.named["drop"](x) * self.scale


def paths(tree):
    return [path for path, _ in tree_flatten(tree)]


# --- Module


def test_parameters_are_the_public_arrays():
    model = Model()
    expected = ["first.weight", "first.bias", "blocks.1.weight", "scale"]
    assert paths(model.parameters()) == expected
    assert paths(model.trainable_parameters()) == expected
    assert model.parameters()["blocks"][0] == {}
    assert set(model) == {"first", "blocks", "named", "scale", "_hidden", "pair"}
    assert model.state is model


def test_walks_over_modules():
    model = Model()
    names = [name for name, _ in model.named_modules()]
    assert sorted(names) == ["", "blocks.0", "blocks.1", "first", "named.drop"]
    assert names[0] == "" and model.modules()[0] is model
    assert set(model.children()) == {"first", "blocks", "named"}
    wrapped = nn.Sequential(model)
    assert paths(wrapped.leaf_modules()) != paths(wrapped.children())
    visited = []
    wrapped.apply_to_modules(lambda name, module: visited.append(name))
    assert sorted(visited) == sorted(name for name, _ in wrapped.named_modules())


def test_repr():
    assert repr(Model()) == (
        "Model(\n"
        "  (first): Linear(input_dims=3, output_dims=4, bias=True)\n"
        "  (blocks.0): ReLU()\n"
        "  (blocks.1): Linear(input_dims=4, output_dims=2, bias=False)\n"
        "  (named.drop): Dropout(p=0.25)\n"
        ")"
    )
    nested = repr(nn.Sequential(nn.Sequential(nn.Tanh())))
    assert nested == "Sequential(\n  (layers.0): Sequential(\n    (layers.0): Tanh()\n  )\n)"


def test_attributes():
    model = Model()
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'missing'"):
        _ = model.missing
    model.scale = 5
    assert "scale" not in model and model.scale == 5
    model.scale = mx.ones((1,))
    assert "scale" in model and "scale" not in vars(model)
    del model.scale, model.width
    assert not hasattr(model, "scale") and not hasattr(model, "width")


def test_update_puts_arrays_in_place():
    model = Model()
    fresh = mx.full((2, 4), 7.0)
    assert model.update({"blocks": [{}, {"weight": fresh}], "named": {}}) is model
    close(model.blocks[1].weight, np.full((2, 4), 7.0))
    doubled = tree_map(lambda x: x * 2, model.parameters())
    close(model.update(doubled).blocks[1].weight, np.full((2, 4), 14.0))


@pytest.mark.parametrize(
    "tree",
    [
        {"missing": 0},
        {"first": {"missing": 0}},
        {"first": 0},
        {"scale": 5},
        {"scale": {}},
        {"width": 0},
        {"blocks": [{}, {}, {}]},
        {"blocks": {"0": 0}},
        {"blocks": (0,)},
    ],
)
def test_update_refuses_what_does_not_fit(tree):
    def with_arrays(t):
        return tree_map(lambda leaf: mx.zeros((1,)) if leaf == 0 else leaf, t)

    model = Model()
    before = {path: np.array(value) for path, value in tree_flatten(model.parameters())}
    with pytest.raises(ValueError):
        model.update(with_arrays(tree))
    assert model.update(with_arrays(tree), strict=False) is model
    for path, value in tree_flatten(model.parameters()):
        close(value, before[path])


def test_update_modules():
    model = Model()
    assert model.update_modules({"blocks": [{}, nn.Identity()]}) is model
    assert isinstance(model.blocks[1], nn.Identity)
    for tree in ({"missing": nn.Identity()}, {"scale": nn.Identity()}, {"first": 5}):
        with pytest.raises(ValueError):
            model.update_modules(tree)
        model.update_modules(tree, strict=False)


def test_freeze_and_unfreeze():
    model = Model().freeze()
    assert paths(model.trainable_parameters()) == []
    model.unfreeze(keys="bias")
    assert paths(model.trainable_parameters()) == ["first.bias"]
    model.unfreeze(recurse=False)
    assert paths(model.trainable_parameters()) == ["first.bias", "scale"]
    model.unfreeze()
    assert len(paths(model.trainable_parameters())) == 4
    model.first.freeze(keys=["weight"])
    assert "first.weight" not in paths(model.trainable_parameters())
    with pytest.raises(KeyError, match="missing"):
        model.freeze(keys=["missing"], strict=True, recurse=False)

    holder = nn.Module()
    holder.arrays = [mx.zeros((1,)), nn.Linear(1, 1)]
    holder.freeze(recurse=False)
    assert paths(holder.trainable_parameters()) == ["arrays.1.weight", "arrays.1.bias"]


def test_train_and_eval_reach_every_module():
    model = Model()
    assert not model.eval().named["drop"].training
    assert all(module.training for module in model.train().modules())


def test_apply_and_set_dtype():
    model = Model()
    model.counter = mx.array([1, 2])
    model.apply(lambda x: x * 0)
    assert all(not np.any(np.array(x)) for _, x in tree_flatten(model.parameters()))
    model.set_dtype(mx.float16)
    assert model.first.weight.dtype == mx.float16 and model.counter.dtype == mx.int32
    model.set_dtype(mx.float32, lambda dtype: True)
    assert model.counter.dtype == mx.float32


def test_load_weights_from_a_list():
    model = nn.Linear(2, 3)
    weights = [("weight", mx.ones((3, 2))), ("bias", mx.zeros((3,)))]
    close(model.load_weights(weights).weight, np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"1 parameters are missing:\nbias"):
        model.load_weights(weights[:1])
    with pytest.raises(ValueError, match=r"1 parameters not in the model:\nextra"):
        model.load_weights([*weights, ("extra", mx.zeros((1,)))])
    with pytest.raises(ValueError, match=r"bias: expected shape \(3,\), not \(2,\)"):
        model.load_weights([weights[0], ("bias", mx.zeros((2,)))])
    with pytest.raises(ValueError, match="bias: expected an array"):
        model.load_weights([weights[0], ("bias", 5)])
    assert model.load_weights([("extra", mx.zeros((1,)))], strict=False) is model


@pytest.mark.parametrize("extension", ["npz", "safetensors"])
def test_weights_go_through_a_file(tmp_path, extension):
    file = tmp_path / f"weights.{extension}"
    saved, loaded = Model(), Model()
    saved.save_weights(file)
    loaded.load_weights(file)
    for (path, a), (_, b) in zip(
        tree_flatten(saved.parameters()), tree_flatten(loaded.parameters()), strict=True
    ):
        assert np.array_equal(np.array(a), np.array(b)), path
    with pytest.raises(ValueError, match="extension"):
        saved.save_weights("weights.txt")


# --- gradients


def test_value_and_grad_of_a_model():
    mx.random.seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model.layers[2].freeze(keys="weight")
    x = mx.array(normal(5, 3))

    def loss(x, factor=1.0):
        y = model(x)
        return mx.sum(y * y) * factor, y

    (value, y), gradient = nn.value_and_grad(model, loss)(x, factor=2.0)
    assert paths(gradient) == ["layers.0.weight", "layers.0.bias", "layers.2.bias"]
    close(value, 2 * np.sum(np.array(y, dtype=np.float64) ** 2))

    step = 1e-2
    for i, slope in enumerate(np.array(gradient["layers"][0]["bias"])):
        bias = model.layers[0].bias
        losses = []
        for sign in (1, -1):
            bump = np.zeros(4, np.float32)
            bump[i] = sign * step
            model.layers[0].bias = bias + mx.array(bump)
            losses.append(float(np.array(loss(x, 2.0)[0])))
        model.layers[0].bias = bias
        close((losses[0] - losses[1]) / (2 * step), slope, 5e-3)


def test_value_and_grad_leaves_the_parameters_as_they_were():
    model = nn.Linear(3, 2)
    before = model.weight
    nn.value_and_grad(model, lambda x: model(x).sum())(mx.ones((1, 3)))
    assert model.weight is before
    with pytest.raises(RuntimeError, match="on purpose"):

        def fails(x):
            raise RuntimeError("on purpose")

        nn.value_and_grad(model, fails)(mx.ones((1, 3)))
    assert model.weight is before


# --- layers


def test_linear_and_bilinear():
    layer, x = nn.Linear(5, 3), normal(2, 4, 5)
    weight, bias = np.array(layer.weight, np.float64), np.array(layer.bias, np.float64)
    close(layer(mx.array(x)), x @ weight.T + bias)
    assert abs(weight).max() <= 1 / math.sqrt(5)
    assert "bias" not in nn.Linear(5, 3, bias=False)
    close(nn.Identity("any", thing=1)(mx.array(x)), x)

    bilinear, y = nn.Bilinear(5, 2, 3), normal(2, 4, 2)
    weight, bias = np.array(bilinear.weight, np.float64), np.array(bilinear.bias, np.float64)
    expected = np.einsum("bti,btj,oji->bto", x.astype(np.float64), y, weight) + bias
    close(bilinear(mx.array(x), mx.array(y)), expected)


def test_embedding():
    layer = nn.Embedding(6, 4)
    table = np.array(layer.weight)
    close(layer(mx.array([[0, 5], [2, 2]])), table[[[0, 5], [2, 2]]])
    close(layer.as_linear(mx.array(table[:2])), table[:2].astype(np.float64) @ table.T)


def standardised(x, axes, eps=1e-5):
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def test_normalisations():
    x = normal(3, 5, 8) * 3 + 1
    a = mx.array(x)
    w, b = normal(8), normal(8)

    def with_affine(layer):
        layer.weight, layer.bias = mx.array(w), mx.array(b)
        return layer

    close(with_affine(nn.LayerNorm(8))(a), standardised(x, -1) * w + b, 1e-5)
    close(nn.LayerNorm(8, affine=False)(a), standardised(x, -1), 1e-5)
    close(nn.InstanceNorm(8)(a), standardised(x, 1), 1e-5)
    close(with_affine(nn.InstanceNorm(8, affine=True))(a), standardised(x, 1) * w + b, 1e-5)
    rms = nn.RMSNorm(8, eps=1e-3)
    close(rms(a), x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-3), 1e-5)
    interleaved = standardised(x.reshape(3, 5, 4, 2), (1, 2)).reshape(x.shape)
    consecutive = standardised(x.reshape(3, 5, 2, 4), (1, 3)).reshape(x.shape)
    close(with_affine(nn.GroupNorm(2, 8))(a), interleaved * w + b, 1e-5)
    close(nn.GroupNorm(2, 8, affine=False, pytorch_compatible=True)(a), consecutive, 1e-5)


def test_normalisation_of_half_precision_is_accurate():
    x = (normal(4, 64) + 30).astype(np.float16)
    layer = nn.LayerNorm(64, affine=False)
    y = layer(mx.array(x))
    assert y.dtype == mx.float16
    close(y, standardised(x, -1), 2e-3)


def test_batch_norm_follows_the_statistics():
    layer, x = nn.BatchNorm(4, momentum=0.2), normal(6, 3, 4) * 2 + 1
    assert paths(layer.trainable_parameters()) == ["weight", "bias"]
    assert paths(layer.unfreeze().trainable_parameters()) == ["weight", "bias"]
    close(layer(mx.array(x)), standardised(x, (0, 1)), 1e-5)
    wide = x.astype(np.float64)
    close(layer.running_mean, 0.2 * wide.mean((0, 1)), 1e-5)
    close(layer.running_var, 0.8 + 0.2 * wide.var((0, 1), ddof=1), 1e-5)
    mean, variance = np.array(layer.running_mean), np.array(layer.running_var)
    close(layer.eval()(mx.array(x)), (wide - mean) / np.sqrt(variance + 1e-5), 1e-5)
    close(layer.running_mean, mean)
    with pytest.raises(ValueError, match=r"\[BatchNorm\] expected 2 to 4 dimensions, not 1: shape \(4,\)"):
        layer(mx.zeros((4,)))


def test_dropout():
    mx.random.seed(3)
    x = mx.ones((100, 100))
    y = np.array(nn.Dropout(0.25)(x))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    close(nn.Dropout(0.25).eval()(x), np.ones((100, 100)))
    planes = np.array(nn.Dropout2d(0.5)(mx.ones((8, 3, 3, 32))))
    assert np.array_equal(planes, np.broadcast_to(planes[:, :1, :1], planes.shape))
    assert 0.2 < (planes[:, 0, 0] == 0).mean() < 0.8
    with pytest.raises(ValueError, match=r"\[Dropout\] the probability 1.0"):
        nn.Dropout(1.0)
    with pytest.raises(ValueError, match=r"\[Dropout3d\] expected 4 or 5 dimensions, not 2: shape \(2, 2\)"):
        nn.Dropout3d()(mx.ones((2, 2)))


# --- activations

erf = np.vectorize(math.erf)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def soft_maximum(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_plus(x):
    return np.logaddexp(x, 0)


ACTIVATIONS = {
    "sigmoid": (nn.Sigmoid, logistic),
    "relu": (nn.ReLU, lambda x: np.maximum(x, 0)),
    "relu2": (nn.ReLU2, lambda x: np.maximum(x, 0) ** 2),
    "relu6": (nn.ReLU6, lambda x: np.clip(x, 0, 6)),
    "leaky_relu": (nn.LeakyReLU, lambda x: np.where(x > 0, x, 0.01 * x)),
    "softmax": (nn.Softmax, soft_maximum),
    "log_softmax": (nn.LogSoftmax, lambda x: np.log(soft_maximum(x))),
    "softmin": (nn.Softmin, lambda x: soft_maximum(-x)),
    "elu": (nn.ELU, lambda x: np.where(x > 0, x, np.expm1(x))),
    "celu": (nn.CELU, lambda x: np.where(x > 0, x, np.expm1(x))),
    "selu": (nn.SELU, lambda x: 1.0507 * np.where(x > 0, x, 1.67326 * np.expm1(x))),
    "softplus": (nn.Softplus, log_plus),
    "log_sigmoid": (nn.LogSigmoid, lambda x: -log_plus(-x)),
    "silu": (nn.SiLU, lambda x: x * logistic(x)),
    "gelu": (nn.GELU, lambda x: x * (1 + erf(x / math.sqrt(2))) / 2),
    "gelu_approx": (
        lambda: nn.GELU("tanh"),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "gelu_fast_approx": (lambda: nn.GELU("fast"), lambda x: x * logistic(1.702 * x)),
    "glu": (nn.GLU, lambda x: x[..., :4] * logistic(x[..., 4:])),
    "step": (nn.Step, lambda x: (x > 0).astype(np.int32)),
    "mish": (nn.Mish, lambda x: x * np.tanh(log_plus(x))),
    "hardswish": (nn.Hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hard_tanh": (nn.HardTanh, lambda x: np.clip(x, -1, 1)),
    "hard_shrink": (nn.HardShrink, lambda x: np.where(abs(x) > 0.5, x, 0)),
    "softshrink": (nn.Softshrink, lambda x: np.where(abs(x) > 0.5, x - np.sign(x) * 0.5, 0)),
    "softsign": (nn.Softsign, lambda x: x / (1 + abs(x))),
    "tanh": (nn.Tanh, np.tanh),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    layer, oracle = ACTIVATIONS[name]
    x = np.concatenate([normal(6, 8) * 3, np.zeros((1, 8), np.float32)])
    expected = oracle(x.astype(np.float64))
    close(getattr(nn, name)(mx.array(x)), expected, 3e-6)
    close(layer()(mx.array(x)), expected, 3e-6)


def test_activation_arguments():
    x = normal(5, 4)
    close(nn.leaky_relu(mx.array(x), 0.2), np.where(x > 0, x, np.float32(0.2) * x))
    close(nn.ELU(2.0)(mx.array(x)), np.where(x > 0, x, 2 * np.expm1(x.astype(np.float64))))
    close(nn.Step(1.0)(mx.array(x)), x > 1)
    close(nn.GLU(axis=0)(mx.array(x[:4])), x[:2] * logistic(x[2:4].astype(np.float64)))
    close(nn.PReLU(4, init=0.5)(mx.array(x)), np.where(x > 0, x, 0.5 * x))
    with pytest.raises(ValueError, match=r"\[GELU\] approx"):
        nn.GELU("exact")


# --- losses

LOGITS, LABELS = normal(6, 5), rng.integers(0, 5, 6).astype(np.int32)
A, B, C = normal(6, 5), normal(6, 5), normal(6, 5)
POSITIVE = np.abs(normal(6, 5)) + np.float32(0.1)
SIGNS = np.sign(normal(6, 5)).astype(np.float32)
BITS = (normal(6, 5) > 0).astype(np.float32)
LOG_P, LOG_Q = (np.log(soft_maximum(x.astype(np.float64))).astype(np.float32) for x in (A, B))
SHARES = POSITIVE / POSITIVE.sum(-1, keepdims=True)
WEIGHTS = POSITIVE[:, 0].copy()


def wide(*arrays):
    return [np.asarray(a, np.float64) if a.dtype == np.float32 else a for a in arrays]


def picked(logp, labels):
    return -logp[np.arange(len(labels)), labels]


def distance(x, y, p=2):
    return (np.sum(np.abs(x - y) ** p, -1) + 1e-6) ** (1 / p)


def smoothed_cross_entropy(logits, labels):
    logp = np.log(soft_maximum(logits))
    return 0.9 * picked(logp, labels) - 0.1 * logp.mean(-1)


LOSSES = [
    ("cross_entropy", (LOGITS, LABELS), {}, lambda x, t: picked(np.log(soft_maximum(x)), t)),
    ("cross_entropy", (LOGITS, LABELS, WEIGHTS), {}, lambda x, t, w: w * picked(np.log(soft_maximum(x)), t)),
    ("cross_entropy", (LOGITS, LABELS), {"label_smoothing": 0.1}, smoothed_cross_entropy),
    ("cross_entropy", (LOGITS, SHARES), {}, lambda x, t: -(np.log(soft_maximum(x)) * t).sum(-1)),
    (
        "cross_entropy",
        (LOGITS.T.copy(), LABELS),
        {"axis": 0},
        lambda x, t: picked(np.log(soft_maximum(x.T)), t),
    ),
    ("binary_cross_entropy", (A, BITS), {"reduction": "none"}, lambda x, t: np.logaddexp(0, x) - x * t),
    (
        "binary_cross_entropy",
        (BITS, BITS, POSITIVE),
        {"with_logits": False, "reduction": "none"},
        lambda p, t, w: 0 * w,
    ),
    ("nll_loss", (LOG_P, LABELS), {}, picked),
    ("l1_loss", (A, B), {"reduction": "none"}, lambda x, t: abs(x - t)),
    ("mse_loss", (A, B), {"reduction": "none"}, lambda x, t: (x - t) ** 2),
    (
        "gaussian_nll_loss",
        (A, B, POSITIVE),
        {"full": True, "reduction": "none"},
        lambda m, t, v: 0.5 * (np.log(v) + (t - m) ** 2 / v + np.log(2 * np.pi)),
    ),
    ("kl_div_loss", (LOG_P, LOG_Q), {}, lambda p, q: (np.exp(q) * (q - p)).sum(-1)),
    (
        "smooth_l1_loss",
        (A, B),
        {"beta": 0.5, "reduction": "none"},
        lambda x, t: np.where(abs(x - t) < 0.5, (x - t) ** 2, abs(x - t) - 0.25),
    ),
    ("triplet_loss", (A, B, C), {}, lambda a, p, n: np.maximum(distance(a, p) - distance(a, n) + 1, 0)),
    ("hinge_loss", (A, SIGNS), {}, lambda x, t: np.maximum(1 - x * t, 0)),
    (
        "huber_loss",
        (A, B),
        {"delta": 0.5},
        lambda x, t: np.where(abs(x - t) <= 0.5, (x - t) ** 2 / 2, 0.5 * (abs(x - t) - 0.25)),
    ),
    ("log_cosh_loss", (A, B), {}, lambda x, t: np.log(np.cosh(x - t))),
    (
        "cosine_similarity_loss",
        (A, B),
        {},
        lambda x, y: (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)),
    ),
    ("margin_ranking_loss", (A, B, SIGNS), {"margin": 0.2}, lambda x, y, t: np.maximum(0.2 - t * (x - y), 0)),
]


@pytest.mark.parametrize(("name", "arrays", "options", "oracle"), LOSSES, ids=[case[0] for case in LOSSES])
def test_loss(name, arrays, options, oracle):
    loss = getattr(nn.losses, name)
    given = [mx.array(a) for a in arrays]
    expected = oracle(*wide(*arrays))
    close(loss(*given, **options), expected, 4e-6)
    for reduction, of in (("mean", np.mean), ("sum", np.sum)):
        close(loss(*given, **{**options, "reduction": reduction}), of(expected), 4e-6)
    with pytest.raises(ValueError, match=rf"\[{name}\] reduction"):
        loss(*given, **{**options, "reduction": "median"})


def test_losses_refuse_shapes_that_do_not_fit():
    a, b = mx.zeros((3, 4)), mx.zeros((3,))
    losses = nn.losses
    for call in (
        lambda: losses.cross_entropy(a, mx.zeros((2,), mx.int32)),
        lambda: losses.cross_entropy(a, mx.zeros((3, 2))),
        lambda: losses.cross_entropy(a, mx.zeros((3,), mx.int32), weights=mx.zeros((4,))),
        lambda: losses.cross_entropy(a, a, label_smoothing=1.0),
        lambda: losses.mse_loss(a, b),
        lambda: losses.l1_loss(a, b),
        lambda: losses.smooth_l1_loss(a, b),
        lambda: losses.binary_cross_entropy(a, b),
        lambda: losses.binary_cross_entropy(a, a, weights=b),
        lambda: losses.gaussian_nll_loss(a, a, b),
        lambda: losses.margin_ranking_loss(a, a, b),
    ):
        with pytest.raises(ValueError, match=r"^\[[a-z_0-9]+\] "):
            call()


# --- initialisers


def test_initialisers():
    mx.random.seed(0)
    a = mx.zeros((300, 200))
    init = nn.init
    bound = math.sqrt(6 / 500)
    for values, low, high, deviation in (
        (init.constant(2.5)(a), 2.5, 2.5, 0.0),
        (init.uniform(-1.0, 3.0)(a), -1.0, 3.0, 4 / math.sqrt(12)),
        (init.normal(0.5, 2.0)(a), -12, 13, 2.0),
        (init.glorot_uniform()(a), -bound, bound, bound / math.sqrt(3)),
        (init.glorot_normal()(a, 2.0), -1, 1, 2 * math.sqrt(2 / 500)),
        (init.he_normal()(a), -1, 1, math.sqrt(1 / 200)),
        (init.he_uniform()(a, mode="fan_out"), -0.1, 0.1, math.sqrt(1 / 300)),
    ):
        values = np.array(values)
        assert values.shape == (300, 200) and low <= values.min() and values.max() <= high
        assert abs(values.std() - deviation) <= 0.02 * deviation
    close(init.identity()(mx.zeros((3, 3))), np.eye(3))
    assert init.constant(1, mx.float16)(a).dtype == mx.float16
    for wrong in (
        lambda: init.identity()(a),
        lambda: init.glorot_normal()(mx.zeros((3,))),
        lambda: init.he_normal()(a, mode="fan"),
        lambda: init.sparse(0.5)(mx.zeros((3,))),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_sparse_initialiser():
    if not hasattr(mx, "argsort"):
        pytest.skip("this build has no argsort")
    values = np.array(nn.init.sparse(0.3)(mx.zeros((50, 20))))
    assert ((values == 0).sum(1) == 6).all()


# --- MLX


@pytest.fixture
def mlx():
    pytest.importorskip("mlx.core")
    import mlx.core
    import mlx.nn

    return mlx


@pytest.mark.peers
@pytest.mark.parametrize("name", [*ACTIVATIONS])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_activation_agrees_with_mlx(mlx, name, dtype):
    x = (normal(16, 8) * 4).astype(dtype)
    ours, theirs = getattr(nn, name)(mx.array(x)), getattr(mlx.nn, name)(mlx.core.array(x))
    assert str(ours.dtype).rpartition(".")[2] == str(theirs.dtype).rpartition(".")[2]
    close(ours, np.array(theirs, np.float64), 2e-6 if dtype == "float32" else 4e-3)


@pytest.mark.peers
@pytest.mark.parametrize(("name", "arrays", "options", "oracle"), LOSSES, ids=[case[0] for case in LOSSES])
def test_loss_agrees_with_mlx(mlx, name, arrays, options, oracle):
    ours = getattr(nn.losses, name)(*map(mx.array, arrays), **options)
    theirs = getattr(mlx.nn.losses, name)(*map(mlx.core.array, arrays), **options)
    close(ours, np.array(theirs, np.float64), 4e-6)


@pytest.mark.peers
def test_layers_agree_with_mlx(mlx):
    x = normal(3, 5, 8)
    for make in (
        lambda nn: nn.Linear(8, 3),
        lambda nn: nn.Linear(8, 3, bias=False),
        lambda nn: nn.LayerNorm(8),
        lambda nn: nn.LayerNorm(8, affine=False),
        lambda nn: nn.RMSNorm(8),
        lambda nn: nn.GroupNorm(4, 8),
        lambda nn: nn.GroupNorm(4, 8, pytorch_compatible=True),
        lambda nn: nn.InstanceNorm(8, affine=True),
        lambda nn: nn.BatchNorm(8),
        lambda nn: nn.PReLU(8),
        lambda nn: nn.Dropout(0.0),
    ):
        ours, theirs = make(nn), make(mlx.nn)
        assert repr(ours) == repr(theirs)
        expected = dict(tree_flatten(theirs.parameters()))
        assert paths(ours.parameters()) == list(expected)
        ours.load_weights([(path, mx.array(np.array(value))) for path, value in expected.items()])
        for dtype in ("float32", "float16"):
            ours_y = ours(mx.array(x.astype(dtype)))
            theirs_y = theirs(mlx.core.array(x.astype(dtype)))
            assert str(ours_y.dtype).rpartition(".")[2] == str(theirs_y.dtype).rpartition(".")[2]
            close(ours_y, np.array(theirs_y, np.float64), 1e-5 if dtype == "float32" else 4e-3)


@pytest.mark.peers
def test_names_agree_with_mlx(mlx):
    import inspect

    for ours, theirs in ((nn, mlx.nn), (nn.losses, mlx.nn.losses), (nn.init, mlx.nn.init)):
        for name, function in vars(ours).items():
            if name.startswith("_") or not inspect.isfunction(function) or not hasattr(theirs, name):
                continue
            assert _parameters(function) == _parameters(getattr(theirs, name)), name
    for name in nn.__all__:
        layer = getattr(nn, name)
        if inspect.isclass(layer):
            assert _parameters(layer.__init__) == _parameters(getattr(mlx.nn, name).__init__), name


def _parameters(function):
    import inspect

    def shown(default):
        # Functions and dtypes are named differently in the two packages.
        known = default is inspect.Parameter.empty or not callable(default)
        return str(default).rpartition(".")[2] if known else "function"

    return [(p.name, p.kind, shown(p.default)) for p in inspect.signature(function).parameters.values()]


def test_traced_nodes_carry_the_path_of_their_module():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
            self.out = nn.Linear(2, 1)

        def __call__(self, x):
            return self.out(self.inner(x)) + 1

    block = Block()
    compiled = mx.compile(lambda x: block(x))
    compiled(mx.zeros((1, 2)))
    scopes = [node.scope for node in compiled.graphs()[0].nodes]
    assert set(scopes) == {"", "inner.layers.0", "inner.layers.1", "out"}
    assert scopes == sorted(scopes, key=["inner.layers.0", "inner.layers.1", "out", ""].index)
