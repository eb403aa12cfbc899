"""Recurrent, attention, positional and pooling layers: NumPy in float64, and MLX where it is installed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import ingot as mx
import ingot.nn as nn
from ingot.utils import tree_flatten

rng = np.random.default_rng(5)


def close(actual, expected, tolerance=1e-5):
    actual = np.asarray(actual, dtype=np.float64)
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def weights(module):
    return {path: np.array(value, np.float64) for path, value in tree_flatten(module.parameters())}


def logistic(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("start", [False, True])
def test_recurrent_layers(bias, batch, start):
    x, h0, c0 = normal(*batch, 5, 3), normal(*batch, 4), normal(*batch, 4)
    given = [mx.array(h0)] if start else []

    layer = nn.RNN(3, 4, bias=bias)
    w = weights(layer)
    h, expected = (h0 if start else 0 * h0), []
    for t in range(5):
        h = np.tanh(x[..., t, :] @ w["Wxh"].T + h @ w["Whh"].T + w.get("bias", 0))
        expected.append(h)
    close(layer(mx.array(x), *given), np.stack(expected, -2))

    layer = nn.GRU(3, 4, bias=bias)
    w = weights(layer)
    h, expected = (h0 if start else 0 * h0), []
    for t in range(5):
        (xr, xz, xn) = np.split(x[..., t, :] @ w["Wx"].T + w.get("b", 0), 3, -1)
        (hr, hz, hn) = np.split(h @ w["Wh"].T, 3, -1)
        r, z = logistic(xr + hr), logistic(xz + hz)
        h = (1 - z) * np.tanh(xn + r * (hn + w.get("bhn", 0))) + z * h
        expected.append(h)
    close(layer(mx.array(x), *given), np.stack(expected, -2))

    layer = nn.LSTM(3, 4, bias=bias)
    w = weights(layer)
    h, c, hs, cs = *((h0, c0) if start else (0 * h0, 0 * c0)), [], []
    for t in range(5):
        i, f, g, o = np.split(x[..., t, :] @ w["Wx"].T + w.get("bias", 0) + h @ w["Wh"].T, 4, -1)
        c = logistic(f) * c + logistic(i) * np.tanh(g)
        h = logistic(o) * np.tanh(c)
        hs.append(h)
        cs.append(c)
    hidden, cell = layer(mx.array(x), *given, *([mx.array(c0)] if start else []))
    close(hidden, np.stack(hs, -2))
    close(cell, np.stack(cs, -2))


def test_recurrent_details():
    relu = nn.RNN(3, 4, nonlinearity=nn.relu)
    assert np.array(relu(mx.array(normal(5, 3)))).min() >= 0
    with pytest.raises(ValueError, match=r"\[RNN\] nonlinearity"):
        nn.RNN(3, 4, nonlinearity=5)
    assert repr(nn.GRU(3, 4)) == "GRU(input_dims=3, hidden_size=4, bias=True)"


def attention(q, k, v, w, heads, mask=0.0):
    def split(x, name):
        y = x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)
        return y.reshape(*y.shape[:2], heads, -1).swapaxes(1, 2)

    q, k, v = split(q, "query_proj"), split(k, "key_proj"), split(v, "value_proj")
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]) + mask
    e = np.exp(scores - scores.max(-1, keepdims=True))
    y = (e / e.sum(-1, keepdims=True)) @ v
    return y.swapaxes(1, 2).reshape(*y.shape[0:1], y.shape[2], -1) @ w["out_proj.weight"].T + w.get(
        "out_proj.bias", 0
    )


def test_multi_head_attention():
    layer = nn.MultiHeadAttention(8, 2, key_input_dims=6, value_dims=4, value_output_dims=5, bias=True)
    q, kv = normal(3, 4, 8), normal(3, 7, 6)
    mask = normal(4, 7)
    given = mx.array(q), mx.array(kv), mx.array(kv)
    close(layer(*given), attention(q, kv, kv, weights(layer), 2))
    close(layer(*given, mx.array(mask)), attention(q, kv, kv, weights(layer), 2, mask))
    allowed = rng.random((4, 7)) > 0.4
    allowed[:, 0] = True
    barred = np.where(allowed, 0, -1e30)
    close(layer(*given, mx.array(allowed)), attention(q, kv, kv, weights(layer), 2, barred))
    with pytest.raises(ValueError, match=r"\[MultiHeadAttention\] dims 7"):
        nn.MultiHeadAttention(7, 2)


def test_causal_mask():
    for dtype, lowest in ((mx.float32, np.finfo(np.float32).min), (mx.float16, np.finfo(np.float16).min)):
        mask = nn.MultiHeadAttention.create_additive_causal_mask(3, dtype)
        assert mask.dtype == dtype
        assert np.array_equal(np.array(mask), np.triu(np.full((3, 3), lowest), 1))
    assert nn.MultiHeadAttention.create_additive_causal_mask(3, mx.bfloat16).dtype == mx.bfloat16


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_causal_transformer_does_not_look_ahead(norm_first):
    model = nn.TransformerEncoder(2, 8, 2, norm_first=norm_first)
    mask = nn.MultiHeadAttention.create_additive_causal_mask(6)
    x = normal(2, 6, 8)
    changed = x.copy()
    changed[:, 4:] *= -1
    before, after = (np.array(model(mx.array(a), mask)) for a in (x, changed))
    close(after[:, :4], before[:, :4])
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 0.1


def test_checkpointed_transformer_has_the_same_gradient():
    mx.random.seed(2)
    plain = nn.Transformer(8, 2, 1, 1, mlp_dims=16)
    again = nn.Transformer(8, 2, 1, 1, mlp_dims=16, checkpoint=True)
    again.update(plain.parameters())
    src, tgt = mx.array(normal(2, 5, 8)), mx.array(normal(2, 4, 8))
    mask = nn.MultiHeadAttention.create_additive_causal_mask(4)
    gradients = []
    for model in (plain, again):

        def loss(model=model):
            return mx.sum(mx.square(model(src, tgt, None, mask, None)))

        value, gradient = nn.value_and_grad(model, loss)()
        gradients.append([("loss", value), *tree_flatten(gradient)])
    for (path, a), (_, b) in zip(*gradients, strict=True):
        scale = max(1.0, float(np.abs(np.array(a)).max()))
        np.testing.assert_allclose(np.array(a) / scale, np.array(b) / scale, atol=1e-5, err_msg=path)


def test_rope_turns_pairs():
    x = normal(2, 3, 5, 8).astype(np.float64)
    for traditional in (False, True):
        y = np.array(nn.RoPE(8, traditional=traditional, scale=0.5)(mx.array(x), offset=3), np.float64)
        a, b = (x[..., ::2], x[..., 1::2]) if traditional else (x[..., :4], x[..., 4:])
        pairs = a + 1j * b
        angles = (np.arange(5)[:, None] + 3) * 0.5 * 10000.0 ** (-np.arange(4) / 4)
        turned = pairs * np.exp(1j * angles)
        c, d = (y[..., ::2], y[..., 1::2]) if traditional else (y[..., :4], y[..., 4:])
        close(c, turned.real)
        close(d, turned.imag)
    part = nn.RoPE(4)(mx.array(x.astype(np.float16)))
    assert part.dtype == mx.float16
    close(np.array(part)[..., 4:], x[..., 4:].astype(np.float16))


def test_sinusoidal_encoding():
    x = np.array([[0, 1, 5], [2, 0.5, 100]], np.float32)
    frequencies = np.geomspace(1, 1e-4, 4)
    angles = x[..., None] * frequencies
    sines = np.concatenate([np.sin(angles), np.cos(angles)], -1) * 0.5
    close(nn.SinusoidalPositionalEncoding(8)(mx.array(x)), sines)
    layer = nn.SinusoidalPositionalEncoding(2, max_freq=2.0, scale=1.0, cos_first=True, full_turns=True)
    expected = np.stack([np.cos(4 * math.pi * x), np.sin(4 * math.pi * x)], -1)
    close(layer(mx.array(x)), expected, 1e-4)
    assert layer.parameters() == {}
    with pytest.raises(ValueError, match="positive and even, not 7"):
        nn.SinusoidalPositionalEncoding(7)


def test_alibi():
    scores = normal(2, 3, 4, 6)
    slopes = np.array([2.0**-4, 2.0**-8, 2.0**-2])[:, None, None]
    distance = abs((np.arange(4) + 2)[:, None] - np.arange(6))
    mask = normal(4, 6)
    close(nn.ALiBi()(mx.array(scores), offset=2, mask=mx.array(mask)), scores - slopes * distance + mask)


@pytest.mark.parametrize("kernel,stride,padding", [(2, None, 0), (3, 1, 1), (3, 2, 0), (2, 3, 1)])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_pooling(axes, kernel, stride, padding):
    x = normal(2, *((7, 6, 5)[:axes]), 3)
    step = stride or kernel
    widths = [(0, 0), *[(padding, padding)] * axes, (0, 0)]
    for name, reduce, fill in ((f"MaxPool{axes}d", np.max, -np.inf), (f"AvgPool{axes}d", np.mean, 0.0)):
        wide = np.pad(x.astype(np.float64), widths, constant_values=fill)
        counts = [(n - kernel) // step + 1 for n in wide.shape[1:-1]]
        expected = np.empty((2, *counts, 3))
        for place in itertools.product(*map(range, counts)):
            window = tuple(slice(i * step, i * step + kernel) for i in place)
            expected[(slice(None), *place)] = reduce(wide[(slice(None), *window)], tuple(range(1, axes + 1)))
        close(getattr(nn, name)(kernel, stride, padding)(mx.array(x)), expected)


def test_pooling_arguments():
    text = "MaxPool2d(kernel_size=(2, 3), stride=(1, 1), padding=(0, 0))"
    assert repr(nn.MaxPool2d((2, 3), stride=1)) == text
    for wrong in (
        lambda: nn.MaxPool2d((2, 3, 4)),
        lambda: nn.AvgPool1d(0),
        lambda: nn.MaxPool1d(2)(mx.zeros((4, 4))),
    ):
        with pytest.raises(ValueError, match=r"^\[(Max|Avg)Pool\dd\] "):
            wrong()


DYNAMIC = {
    "linear": lambda: nn.Linear(8, 3),
    "layer norm": lambda: nn.LayerNorm(8),
    "rms norm": lambda: nn.RMSNorm(8),
    "instance norm": lambda: nn.InstanceNorm(8),
    "group norm": lambda: nn.GroupNorm(2, 8),
    "batch norm": lambda: nn.BatchNorm(8),
    "rope": lambda: nn.RoPE(8),
    "average pool": lambda: nn.AvgPool1d(3, 2, 1),
    "glu": lambda: nn.GLU(),
    "softmax": lambda: nn.Softmax(),
    "attention": lambda: _self_attention(nn.MultiHeadAttention(8, 2)),
    "encoder": lambda: _self_attention(nn.TransformerEncoder(1, 8, 2), encoder=True),
}


def _self_attention(layer, encoder=False):
    return (lambda x: layer(x, None)) if encoder else (lambda x: layer(x, x, x))


@pytest.mark.parametrize("name", DYNAMIC)
def test_layers_export_with_dynamic_batch_and_length(name, tmp_path):
    layer, path = DYNAMIC[name](), str(tmp_path / "layer.ingot")
    shapes = ({0: mx.Dim("B"), 1: mx.Dim("T", min=1)},)
    mx.export_function(path, layer, mx.array(normal(2, 6, 8)), dynamic_shapes=shapes)
    imported = mx.import_function(path)
    for batch, length in ((2, 6), (1, 1), (3, 9)):
        x = mx.array(normal(batch, length, 8))
        close(imported(x)[0], np.array(layer(x), np.float64))


LAYERS = {
    "rnn": (lambda nn: nn.RNN(8, 4), [(2, 5, 8)]),
    "gru": (lambda nn: nn.GRU(8, 4), [(2, 5, 8)]),
    "lstm": (lambda nn: nn.LSTM(8, 4, bias=False), [(2, 5, 8)]),
    "attention": (lambda nn: nn.MultiHeadAttention(8, 2), [(2, 4, 8), (2, 6, 8), (2, 6, 8), (4, 6)]),
    "encoder": (lambda nn: nn.TransformerEncoder(2, 8, 2), [(2, 4, 8), (4, 4)]),
    "encoder, norm last": (lambda nn: nn.TransformerEncoder(1, 8, 2, norm_first=False), [(2, 4, 8), (4, 4)]),
    "decoder": (lambda nn: nn.TransformerDecoder(1, 8, 2), [(2, 4, 8), (2, 6, 8), (4, 4), (4, 6)]),
    "decoder, norm last": (
        lambda nn: nn.TransformerDecoder(1, 8, 2, norm_first=False),
        [(2, 4, 8), (2, 6, 8), (4, 4), (4, 6)],
    ),
    "transformer": (lambda nn: nn.Transformer(8, 2, 1, 1), [(2, 4, 8), (2, 6, 8), (4, 4), (6, 6), (6, 4)]),
    "rope": (lambda nn: nn.RoPE(8, scale=0.5), [(2, 3, 5, 8)]),
    "rope, traditional": (lambda nn: nn.RoPE(4, traditional=True), [(2, 3, 5, 8)]),
    "alibi": (lambda nn: nn.ALiBi(), [(2, 6, 4, 4)]),
    "sinusoidal": (lambda nn: nn.SinusoidalPositionalEncoding(6, full_turns=True, min_freq=0.1), [(3, 4)]),
    "max pool": (lambda nn: nn.MaxPool2d(3, 2, 1), [(2, 7, 6, 3)]),
    "average pool": (lambda nn: nn.AvgPool2d((3, 2), (2, 1), (1, 0)), [(2, 7, 6, 3)]),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", LAYERS)
def test_layer_agrees_with_mlx(name):
    core = pytest.importorskip("mlx.core")
    theirs_nn = pytest.importorskip("mlx.nn")
    make, shapes = LAYERS[name]
    ours, theirs = make(nn), make(theirs_nn)
    if "rnn" not in name:  # its text holds the address of a function
        assert repr(ours) == repr(theirs)
    expected = dict(tree_flatten(theirs.parameters()))
    assert [path for path, _ in tree_flatten(ours.parameters())] == list(expected)
    ours.load_weights([(path, mx.array(np.array(value))) for path, value in expected.items()])
    arrays = [normal(*shape) for shape in shapes]
    for dtype in ("float32", "float16"):
        a = ours(*(mx.array(x.astype(dtype)) for x in arrays))
        b = theirs(*(core.array(x.astype(dtype)) for x in arrays))
        for x, y in zip(*((v if isinstance(v, tuple) else (v,)) for v in (a, b)), strict=True):
            assert str(x.dtype).rpartition(".")[2] == str(y.dtype).rpartition(".")[2]
            close(x, np.array(y, np.float64), 2e-5 if dtype == "float32" else 2e-2)
