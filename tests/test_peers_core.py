"""Functions of `mlx.core` on the same arguments here and there: values, shapes, dtypes and kinds of errors.

`M` stands for the module. Arrays are random in shape and dtype, and hold what is hard: nothing, one element,
NaN, infinities, negative zeros, the limits of integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ingot as mx

mlx = pytest.importorskip("mlx.core")

pytestmark = pytest.mark.peers

Call = Callable[..., Any]
RTOL = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-5, "complex64": 2e-5, "float64": 1e-6}


def both(x: Any) -> tuple[Any, Any]:
    """An array for each side."""
    name = "bfloat16" if x.dtype == ml_dtypes.bfloat16 else x.dtype.name
    name = "bool_" if name == "bool" else name
    there = mlx.array(x.astype(np.float32) if name == "bfloat16" else x, getattr(mlx, name))
    return mx.array(x, getattr(mx, name)), there


def to_numpy(x: Any) -> np.ndarray:
    if str(x.dtype).endswith("bfloat16"):
        x = x.astype(mx.float32 if isinstance(x, mx.array) else mlx.float32)
    return np.array(x)


def same(got: Any, want: Any, what: str) -> None:
    if isinstance(want, list | tuple):
        assert len(got) == len(want), what
        for g, w in zip(got, want, strict=True):
            same(g, w, what)
    elif isinstance(want, mlx.array):
        assert str(want.dtype) == f"mlx.core.{got.dtype.name}", f"{what}: {got.dtype} is not {want.dtype}"
        assert tuple(got.shape) == tuple(want.shape), f"{what}: {got.shape} is not {want.shape}"
        rtol = RTOL.get(got.dtype.name, 0)
        a, b = to_numpy(got), to_numpy(want)
        if rtol:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=what)
        else:
            assert np.array_equal(a, b), f"{what}: {a} is not {b}"
    else:
        assert got == want, f"{what}: {got} is not {want}"


def compare(fn: Call, *xs: np.ndarray, what: str = "") -> None:
    """The same result, or an error on both sides."""
    pairs = [both(x) for x in xs]
    try:
        want = fn(mlx, *[p[1] for p in pairs])
        mlx.eval(want)
    except (ValueError, IndexError, RuntimeError, TypeError) as error:
        with pytest.raises((ValueError, IndexError, RuntimeError, TypeError)) as found:
            mx.eval(fn(mx, *[p[0] for p in pairs]))
        if isinstance(error, IndexError):
            assert isinstance(found.value, IndexError), f"{what}: {found.value!r} is not like {error!r}"
        return
    got = fn(mx, *[p[0] for p in pairs])
    mx.eval(got)
    same(got, want, f"{what} of {[(x.shape, x.dtype.name) for x in xs]}")


DTYPES = [np.bool_, np.int8, np.uint8, np.int32, np.uint64, np.float16, ml_dtypes.bfloat16, np.float32]


def arrays(seed: int, rank: int | None = None, kinds: str = "buifV") -> Iterator[np.ndarray]:
    """Arrays of all dtypes with random shapes, then special ones."""
    random = np.random.default_rng(seed)
    for dtype in DTYPES:
        if np.dtype(dtype).kind not in kinds:
            continue
        for _ in range(3):
            n = int(random.integers(1, 4)) if rank is None else rank
            shape = tuple(int(s) for s in random.integers(1, 6, n))
            yield random.integers(-20 if np.dtype(dtype).kind in "ifV" else 0, 21, shape).astype(dtype)
    if "f" in kinds and rank in (None, 1):
        yield np.array([1, np.nan, -0.0, 0.0, np.inf, -np.inf, 2, np.nan], np.float32)
    if "i" in kinds and rank in (None, 1):
        yield np.array([127, -128, 1, 0, -1], np.int8)
    shape = (2,) * ((rank or 2) - 1)
    yield np.zeros((*shape, 0), np.float32)
    yield np.zeros((*shape, 1), np.float32)


ALONG: dict[str, Call] = {
    "sort": lambda M, x, axis: M.sort(x, axis),
    "argsort": lambda M, x, axis: M.argsort(x, axis),
    "cumsum": lambda M, x, axis: M.cumsum(x, axis),
    "cumsum reverse exclusive": lambda M, x, axis: M.cumsum(x, axis, reverse=True, inclusive=False),
    "cumsum float": lambda M, x, axis: M.cumsum(x, axis, dtype=M.float32),
    "cumprod": lambda M, x, axis: M.cumprod(M.sign(x) if x.dtype != M.bool_ else x, axis),
    "cumprod exclusive": lambda M, x, axis: M.cumprod(x.astype(M.float32) / 16, axis, inclusive=False),
    "cummax": lambda M, x, axis: M.cummax(x, axis, reverse=True),
    "cummax exclusive": lambda M, x, axis: M.cummax(x, axis, inclusive=False),
    "cummin": lambda M, x, axis: M.cummin(x, axis),
    "cummin exclusive": lambda M, x, axis: M.cummin(x, axis, reverse=True, inclusive=False),
    "logcumsumexp": lambda M, x, axis: M.logcumsumexp(x.astype(M.float32), axis),
    "logcumsumexp exclusive": lambda M, x, axis: M.logcumsumexp(x.astype(M.float32), axis, inclusive=False),
    "median": lambda M, x, axis: M.median(x, axis),
    "diff": lambda M, x, axis: M.diff(x, 1, -1 if axis is None else axis),
}


@pytest.mark.parametrize("name", ALONG)
def test_along_axes(name: str) -> None:
    for i, x in enumerate(arrays(len(name))):
        for axis in (None, -1, 0, x.ndim):
            if "median" in name and (x.dtype == np.bool_ or np.isnan(x.astype(np.float32)).any()):
                continue
            compare(lambda M, x, a=axis: ALONG[name](M, x, a), x, what=f"{name} #{i} along {axis}")


def test_order_statistics() -> None:
    for x in arrays(40, rank=2, kinds="uif"):
        n = x.shape[-1]
        for k in {0, 1, n - 1, n, -1, n + 1}:
            compare(lambda M, x, k=k: M.sort(M.topk(x, k)), x, what=f"topk {k}")
            compare(lambda M, x, k=k: M.partition(x, k)[..., k], x, what=f"partition {k}")
            compare(
                lambda M, x, k=k: M.take_along_axis(x, M.argpartition(x, k), -1)[..., k],
                x,
                what=f"argpartition {k}",
            )
        for order in (0, 2, 9, -1):
            compare(lambda M, x, n=order: M.diff(x, n), x, what=f"diff {order}")
        for axes in ((0, 1), [1], -2):
            compare(lambda M, x, a=axes: M.median(x, a, keepdims=True), x, what=f"median {axes}")


def test_searchsorted_and_unique() -> None:
    for x in arrays(50, rank=1):
        if np.isnan(x.astype(np.float32)).any():
            continue
        for side in ("left", "right", "up"):
            compare(lambda M, x, s=side: M.searchsorted(M.sort(x), x[:2], s), x, what=side)
        for size in (1, 3, x.size, x.size + 2):
            compare(lambda M, x, n=size: M.unique(x, n, True, True, True), x, what=f"unique {size}")
            compare(lambda M, x, n=size: M.unique(x, n, fill_value=1), x, what=f"unique {size} filled")
    for x in arrays(51, rank=2, kinds="if"):
        compare(lambda M, x: M.unique(x, 4, return_inverse=True), x, what="unique of a matrix")


# -- products ------------------------------------------------------------------------------------------------

EINSUMS = [
    "ij,jk->ik", "ij,jk", "ij,kj->ik", "ii->i", "ii", "ij->", "ij->ji", "i,i->i", "i,j->ij", "...j->...",
    "...ij,...jk->...ik", "ij...,jk...->ik...", "abc,abd,be->ce", "ij,jk,kl,lm->im", "ij,kl->", "iij->ij",
    ",->", "ba", "bij,bjk->bk", "abc,cd,de,ef->abf", "a b, b c -> c a", "i,i,i->i", "ij,j,i->", "ijk->kij",
]  # fmt: skip


@pytest.mark.parametrize("subscripts", EINSUMS)
def test_einsum(subscripts: str) -> None:
    random = np.random.default_rng(len(subscripts))
    sizes = {letter: i % 4 + 2 for i, letter in enumerate("abcdefijklm")}
    shapes = []
    for part in subscripts.replace(" ", "").split("->")[0].split(","):
        before, dots, after = part.partition("...")
        shapes.append((*(sizes[s] for s in before), *((2, 3) if dots else ()), *(sizes[s] for s in after)))
    for ones in (False, True):
        xs = [
            random.normal(size=tuple(1 if ones and random.random() < 0.3 else n for n in shape)).astype(
                np.float32
            )
            for shape in shapes
        ]
        compare(lambda M, *xs: M.einsum(subscripts, *xs), *xs, what=subscripts)
        try:
            want = np.einsum(subscripts, *xs, optimize=True)
        except ValueError:
            continue
        np.testing.assert_allclose(mx.einsum(subscripts, *map(mx.array, xs)), want, rtol=1e-4, atol=1e-4)
    for path in (lambda M, *xs: M.einsum_path(subscripts, *xs),):
        assert path(mx, *[mx.ones(s) for s in shapes]) == path(mlx, *[mlx.ones(s) for s in shapes])


@pytest.mark.parametrize(
    "subscripts, shapes",
    [("ij,jk->kz", [(2, 3), (3, 5)]), ("i1->i", [(2, 3)]), ("ij", [(2, 3, 4)]), ("i->ii", [(2,)]),
     ("ij,kj->ik", [(2, 3)]), ("ij,jk->ki", [(2, 3), (4, 5)]), ("ii->i", [(2, 3)])],
)  # fmt: skip
def test_einsums_that_do_not_fit(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError):
        mx.eval(mx.einsum(subscripts, *[mx.ones(s) for s in shapes]))


CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 9, 3), (4, 3, 3), {}),
    ((2, 9, 4), (6, 3, 2), {"groups": 2, "stride": 2, "padding": 2}),
    ((1, 9, 2), (3, 4, 2), {"kernel_dilation": 2, "input_dilation": 3, "padding": ([3], [1])}),
    ((1, 9, 2), (3, 4, 2), {"flip": True, "stride": 3}),
    ((2, 7, 6, 3), (4, 3, 2, 3), {"stride": (2, 1), "padding": (1, 0)}),
    ((1, 7, 6, 4), (4, 3, 3, 1), {"groups": 4, "padding": 1, "kernel_dilation": (2, 1)}),
    ((1, 4, 5, 6, 2), (3, 2, 2, 3, 2), {"stride": (1, 2, 1), "padding": [0, 1, 1]}),
    ((1, 2, 2), (3, 4, 2), {}),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda c: f"{c[0]}*{c[1]}")
def test_convolutions(case: Any) -> None:
    shape, kernel, options = case
    random = np.random.default_rng(sum(shape))
    x, w = random.normal(size=shape).astype(np.float32), random.normal(size=kernel).astype(np.float32)
    compare(lambda M, x, w: M.conv_general(x, w, **options), x, w, what=str(options))
    compare(lambda M, x, w: M.conv_general(x.astype(M.float16), w, **options), x, w, what="mixed")

    def loss(M: Any) -> Call:
        return lambda x, w: M.sum(M.sin(M.conv_general(x, w, **options)))

    if kernel[1] <= shape[1]:
        compare(lambda M, x, w: M.grad(loss(M), argnums=(0, 1))(x, w), x, w, what="gradients")
        np.testing.assert_allclose(
            mx.compile(lambda x, w: mx.conv_general(x, w, **options))(mx.array(x), mx.array(w)),
            mx.conv_general(mx.array(x), mx.array(w), **options), rtol=1e-4, atol=1e-4,
        )  # fmt: skip


def test_convolutions_by_name() -> None:
    random = np.random.default_rng(2)
    for rank in (1, 2, 3):
        x = random.normal(size=(2, *(6, 5, 4)[:rank], 4)).astype(np.float32)
        groups = 1 if rank == 3 else 2  # MLX has no groups of volumes
        w = random.normal(size=(6, *(3, 2, 2)[:rank], 4 // groups)).astype(np.float32)
        for options in ({}, {"stride": 2, "padding": 1}, {"dilation": 2}):
            options = {**options, "groups": groups}
            compare(lambda M, x, w, o=options: getattr(M, f"conv{rank}d")(x, w, **o), x, w, what=str(options))  # noqa: B023
            for extra in (0, 1):
                more = {**options, "output_padding": extra}
                compare(
                    lambda M, x, w, o=more: getattr(M, f"conv_transpose{rank}d")(x, w, **o),  # noqa: B023
                    x, w, what=f"transposed {more}",
                )  # fmt: skip
    for n, m in ((5, 2), (5, 3), (2, 5), (4, 4), (1, 1)):
        a, v = random.normal(size=n).astype(np.float32), random.normal(size=m).astype(np.float32)
        for mode in ("full", "same", "valid", "some"):
            compare(lambda M, a, v, k=mode: M.convolve(a, v, mode=k), a, v, what=f"{mode} {n} {m}")
            if mode != "some":
                np.testing.assert_allclose(
                    mx.convolve(mx.array(a), mx.array(v), mode),
                    np.convolve(a, v, mode),
                    rtol=1e-4,
                    atol=1e-5,  # type: ignore[call-overload]
                )
    compare(lambda M, x, w: M.conv1d(x, w), np.ones((1, 5, 2), np.int32), np.ones((3, 2, 2), np.int32))
    compare(lambda M, x, w: M.conv1d(x, w), np.ones((5, 2), np.float32), np.ones((3, 2, 2), np.float32))


# -- the rest ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hanning", "hamming", "blackman", "bartlett"])
def test_windows(name: str) -> None:
    for n in (-1, 0, 1, 2, 5, 64):
        got = getattr(mx, name)(n)
        want = getattr(mlx, name)(n)
        assert got.shape == want.shape and got.dtype is mx.float32
        np.testing.assert_allclose(np.array(got), np.array(want), atol=2e-6)
        np.testing.assert_allclose(np.array(got), getattr(np, name)(n), atol=2e-6)


def test_fp8() -> None:
    codes = np.arange(256, dtype=np.uint8)
    for dtype in ("bfloat16", "float32", "float16"):
        got, want = (
            mx.from_fp8(mx.array(codes), getattr(mx, dtype)),
            mlx.from_fp8(mlx.array(codes), getattr(mlx, dtype)),
        )
        np.testing.assert_array_equal(to_numpy(got), to_numpy(want))
        assert got.dtype is getattr(mx, dtype)
    random = np.random.default_rng(1)
    x = (random.normal(size=4000) * 10 ** random.uniform(-5, 4, 4000)).astype(np.float32)
    exact = np.array(mx.from_fp8(mx.array(codes), mx.float32))
    exact = exact[np.isfinite(exact)]
    middles = np.concatenate(
        [exact, (np.sort(exact)[1:] + np.sort(exact)[:-1]) / 2, [np.nan, 1e9, -np.inf, -0.0]]
    )
    for values in (x, middles.astype(np.float32)):
        compare(lambda M, a: M.to_fp8(a), values, what="to_fp8")
    compare(lambda M, a: M.to_fp8(a), np.array([1, 2]))


def test_hadamard() -> None:
    random = np.random.default_rng(3)
    for n in (1, 2, 16, 12, 24, 20, 80, 28, 56, 3):
        x = random.normal(size=(2, n)).astype(np.float32)
        compare(lambda M, a: M.hadamard_transform(a), x, what=f"hadamard {n}")
        compare(lambda M, a: M.hadamard_transform(a.astype(M.float16), 0.5), x, what=f"hadamard {n}")
    compare(lambda M, a: M.hadamard_transform(a), np.array([1, 2]))
    with pytest.raises(ValueError, match="Only supports"):
        mx.hadamard_transform(mx.ones(36))  # MLX writes out of bounds


def test_as_strided() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    for options in ({}, {"shape": (2, 3), "strides": (1, 2)}, {"shape": (4,), "strides": (-2,), "offset": 9},
                    {"shape": (2, 0)}, {"shape": (3, 3), "strides": (0, 4), "offset": 1}):  # fmt: skip
        compare(lambda M, a, o=options: M.as_strided(a, **o), x, what=str(options))
        compare(lambda M, a, o=options: M.as_strided(a.T, **o), x, what=str(options))
        compare(
            lambda M, a, o=options: M.grad(lambda z: M.sum(M.as_strided(z, **o)))(a), x, what=str(options)
        )
    with pytest.raises(ValueError, match=r"\[as_strided\]"):
        mx.as_strided(mx.array(x), (13,))


def test_chosen_and_masked_products() -> None:
    random = np.random.default_rng(4)
    a, b = random.normal(size=(3, 4, 5)).astype(np.float32), random.normal(size=(6, 5, 2)).astype(np.float32)
    i, j = np.array([0, 2], np.uint32), np.array([[1], [5]], np.uint32)
    compare(lambda M, a, b, i, j: M.gather_mm(a, b, i, j), a, b, i, j)
    compare(lambda M, a, b, i: M.gather_mm(a[:2], b, rhs_indices=i), a, b, i)
    compare(lambda M, a, b: M.gather_mm(a, b[:3]), a, b)
    compare(lambda M, a, b: M.gather_mm(a, b), a, b)
    a, b = random.normal(size=(40, 70)).astype(np.float32), random.normal(size=(70, 33)).astype(np.float32)
    out, left, right = (random.integers(0, 3, n).astype(np.float32) for n in ((2, 2), (2, 3), (3, 2)))
    for kind in ("float32", "bool_"):

        def call(M: Any, a: Any, b: Any, *masks: Any, kind: str = kind) -> Any:
            return M.block_masked_mm(a, b, 32, *[m.astype(getattr(M, kind)) for m in masks])

        compare(call, a, b, out, left, right, what=kind)
    compare(lambda M, a, b, m: M.block_masked_mm(a, b, 32, mask_lhs=m), a, b, left)
    segments = np.array([[0, 30], [30, 70], [5, 5]], np.uint32)
    compare(lambda M, a, b, s: M.segmented_mm(a, b, s), a, b, segments)


def test_fast() -> None:
    random = np.random.default_rng(5)
    x, w, c = (random.normal(size=s).astype(np.float32) for s in ((2, 3, 8), (8,), (8,)))
    for kind in ("float32", "float16"):

        def norms(M: Any, x: Any, w: Any, c: Any, kind: str = kind) -> Any:
            x, w, c = (z.astype(getattr(M, kind)) for z in (x, w, c))
            found = [M.fast.rms_norm(x, w, 1e-5), M.fast.rms_norm(x, None, 1e-5)]
            return [*found, M.fast.layer_norm(x, w, c, 1e-5), M.fast.layer_norm(x, None, None, 1e-5)]

        compare(norms, x, w, c, what=kind)
    compare(lambda M, x, t: M.fast.cross_entropy(x, t), x, np.array([[1, 2, 3], [0, 7, 5]]))
    q = random.normal(size=(2, 4, 5, 8)).astype(np.float32)
    for options in (
        {"traditional": False, "base": 100.0}, {"traditional": True, "base": 100.0},
        {"traditional": True, "base": None, "freqs": [1.0, 2.0, 4.0]},
        {"traditional": False, "base": 10.0, "scale": 0.5},
    ):  # fmt: skip
        for offset in (0, 3, [1, 4]):

            def rope(M: Any, x: Any, options: Any = options, offset: Any = offset) -> Any:
                more = {"scale": 1.0, **options}
                if "freqs" in more:
                    more["freqs"] = M.array(more["freqs"])
                return M.fast.rope(
                    x, 6, offset=M.array(offset) if isinstance(offset, list) else offset, **more
                )

            compare(rope, q, what=f"{options} {offset}")
    k, v = (
        random.normal(size=(2, 2, 7, 8)).astype(np.float32),
        random.normal(size=(2, 2, 7, 6)).astype(np.float32),
    )
    bools, numbers = random.random((5, 7)) < 0.7, random.normal(size=(2, 1, 5, 7)).astype(np.float32)
    bools[:, 0] = True
    sinks = random.normal(size=4).astype(np.float32)
    attend = "scaled_dot_product_attention"
    compare(lambda M, q, k, v: getattr(M.fast, attend)(q, k, v, scale=0.3), q, k, v)
    compare(lambda M, q, k, v: getattr(M.fast, attend)(q, k, v, scale=0.3, mask="causal"), q, k, v)
    compare(lambda M, q, k, v, m: getattr(M.fast, attend)(q, k, v, scale=0.3, mask=m), q, k, v, bools)
    compare(lambda M, q, k, v, m: getattr(M.fast, attend)(q, k, v, scale=0.3, mask=m), q, k, v, numbers)
    compare(lambda M, q, k, v, s: getattr(M.fast, attend)(q, k, v, scale=0.3, sinks=s), q, k, v, sinks)


def test_random_orders_and_correlated_normals() -> None:
    for seed in (1, 2):
        compare(lambda M, s=seed: M.random.permutation(50, key=M.random.key(s)))
        x = np.arange(30, dtype=np.int32).reshape(5, 6)
        for axis in (0, 1, -1):
            compare(lambda M, x, s=seed, a=axis: M.random.permutation(x, a, key=M.random.key(s)), x)
        mean, cov = np.array([1.0, 2.0], np.float32), np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)
        for shape in ([], [3], [2, 4]):
            compare(
                lambda M, m, c, s=seed, n=shape: M.random.multivariate_normal(m, c, n, key=M.random.key(s)),
                mean,
                cov,
            )
    with pytest.raises(ValueError):
        mx.random.multivariate_normal(mx.zeros(2), mx.eye(2), dtype=mx.float16)
    with pytest.raises(IndexError):
        mx.random.permutation(mx.array(3))


def test_dot() -> None:
    import io

    out = io.StringIO()
    x = mx.array([1.0, 2.0])
    mx.export_to_dot(out, mx.exp(x) + 1, x=x)
    text = out.getvalue()
    assert (
        text.startswith("digraph {")
        and 'label="exp"' in text
        and 'label="add"' in text
        and '"x" -> p0' in text
    )


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
def test_quantized(mode: str) -> None:
    random = np.random.default_rng(6)
    w = (random.normal(size=(4, 128)) * np.exp2(random.integers(-6, 6, (4, 1)))).astype(np.float32)
    w[0, :64] = 0
    x = random.normal(size=(3, 128)).astype(np.float32)
    few = ((64, 4),) if mode == "affine" else ((None, None),)
    sizes = [(32, 3), (128, 5), (64, 6), (32, 8), (64, 2), (64, 1), (32, 7), (48, 4), *few]
    for group, bits in sizes if mode == "affine" else [(None, None), (64, 4)]:
        options = {"group_size": group, "bits": bits, "mode": mode}
        compare(lambda M, w, o=options: M.quantize(w, **o), w, what=str(options))
        if (group, bits) in ((32, 7), (48, 4)) or (mode != "affine" and bits):
            continue

        def through(M: Any, w: Any, o: Any = options) -> Any:
            return M.dequantize(*M.quantize(w, **o), **o)

        def product(M: Any, x: Any, w: Any, o: Any = options) -> Any:
            return M.quantized_matmul(x, *M.quantize(w, **o), **o)

        def other(M: Any, x: Any, w: Any, o: Any = options) -> Any:
            return M.quantized_matmul(x[:, :4], *M.quantize(w, **o), transpose=False, **o)

        def chosen(M: Any, x: Any, w: Any, o: Any = options) -> Any:
            parts = M.quantize(M.stack([w, w * 2, w * 3]), **o)
            return M.gather_qmm(x[None], *parts, rhs_indices=M.array([2, 0], M.uint32), **o)

        for call in (through,):
            compare(call, w, what=str(options))
        for call in (product, other, chosen):
            compare(call, x, w, what=f"{call.__name__} {options}")
    if mode in ("nvfp4", "mxfp8"):
        a, b = mx.array(x), mx.array(w)
        read = [mx.dequantize(*mx.quantize(z, mode=mode), mode=mode, dtype=mx.float32) for z in (a, b)]
        want = np.array(read[0] @ read[1].T)
        np.testing.assert_allclose(np.array(mx.qqmm(a, b, mode=mode)), want, rtol=1e-4, atol=1e-4)
        got = mx.gather_qqmm(a[None], b[None], rhs_indices=mx.array([0]), mode=mode)
        np.testing.assert_allclose(np.array(got)[0], want, rtol=1e-4, atol=1e-4)


def test_gated_delta_update() -> None:
    random = np.random.default_rng(7)
    q, k, state = (
        random.normal(size=s).astype(np.float32) * 0.5 for s in ((2, 5, 2, 8), (2, 5, 2, 8), (2, 4, 6, 8))
    )
    v = random.normal(size=(2, 5, 4, 6)).astype(np.float32)
    gamma, beta = random.random((2, 5, 4)).astype(np.float32), random.random((2, 5, 4)).astype(np.float32)
    columns, mask = random.random((2, 5, 4, 8)).astype(np.float32), random.random((2, 5)) < 0.7
    compare(lambda M, *xs: M.fast.gated_delta_update(*xs), q, k, v, gamma, beta)
    compare(lambda M, *xs: M.fast.gated_delta_update(*xs), q, k, v, columns, beta, state)
    compare(lambda M, *xs: M.fast.gated_delta_update(*xs), q, k, v, gamma, beta, state, mask)
    compare(
        lambda M, *xs: M.fast.gated_delta_update(*[x.astype(M.float16) for x in xs]), q, k, v, gamma, beta
    )


# -- elementwise, reductions, shapes -------------------------------------------------------------------------

UNARY = """abs arccos arccosh arcsin arcsinh arctan arctanh bitwise_invert ceil conjugate cos cosh degrees erf
    erfinv exp expm1 floor imag isfinite isinf isnan isneginf isposinf log log10 log1p log2 logical_not
    negative radians real reciprocal round rsqrt sigmoid sign sin sinh sqrt square stop_gradient tan tanh
    nan_to_num""".split()
BINARY = """add arctan2 bitwise_and bitwise_or bitwise_xor divide equal floor_divide greater greater_equal
    left_shift less less_equal logaddexp logical_and logical_or maximum minimum multiply not_equal power
    remainder right_shift subtract array_equal""".split()
BEYOND = "round floor ceil expm1 sigmoid nan_to_num".split()
"""Functions that take complex numbers here only, or whose results differ: docs/mlx-compat.md."""
REDUCTIONS = "all any argmax argmin logsumexp max mean min prod softmax std sum var".split()


def special(dtype: Any) -> np.ndarray:
    if np.dtype(dtype).kind == "b":
        return np.array([True, False])
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return np.array([0, 1, 2, 7, info.max, info.min], dtype)
    if np.dtype(dtype).kind == "c":
        return np.array([0, 1, 1j, -2 + 0.5j, 0.3 - 4j], dtype)
    return np.array([0.0, -0.0, 1, -1, 0.5, 2.5, -3.5, np.inf, -np.inf, np.nan, 100], np.float32).astype(
        dtype
    )


ALL = [*DTYPES, np.complex64]


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    for dtype in ALL:
        if name in BEYOND and dtype is np.complex64:
            continue
        compare(lambda M, x: getattr(M, name)(x), special(dtype), what=name)
        compare(lambda M, x: getattr(M, name)(x), np.zeros((2, 0), dtype), what=name)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str) -> None:
    random = np.random.default_rng(len(name))
    kinds = DTYPES if name in ("logaddexp", "floor_divide") else ALL
    for i, left in enumerate(kinds):
        for right in (left, kinds[(i + 3) % len(kinds)]):
            x, y = special(left), special(right)
            if name in ("power", "left_shift", "right_shift", "floor_divide", "remainder", "divide"):
                y = np.array([1, 2, 3], right)  # MLX leaves the rest undefined for integers
                x = np.array([0, 1, 2, 5], left)
            compare(lambda M, a, b: getattr(M, name)(a[:, None], b), x, y, what=name)
        shape = tuple(random.integers(1, 4, 3))
        x = random.integers(1, 9, shape).astype(left)
        compare(lambda M, a: getattr(M, name)(a, a[:1]), x, what=name)
        compare(lambda M, a: getattr(M, name)(a, 2), x, what=f"{name} with 2")


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    for x in arrays(len(name)):
        if np.isnan(x.astype(np.float32)).any() and name not in ("sum", "mean", "max", "min"):
            continue
        if not x.size or (x.dtype.kind in "biu" and name in ("softmax", "logsumexp")):
            continue  # MLX: the product of nothing is 0, exponentials of integers are integers
        for axis in (None, 0, -1, x.ndim):
            compare(lambda M, x, a=axis: getattr(M, name)(x, axis=a), x, what=f"{name} {axis}")
        if name not in ("softmax", "argmax", "argmin"):
            compare(lambda M, x: getattr(M, name)(x, axis=(0, -1), keepdims=True), x, what=name)


SHAPES: dict[str, Call] = {
    "tri": lambda M, x: [M.tri(3, 4, 1), M.tril(x), M.triu(x, 1), M.eye(3, 2, -1), M.identity(2)],
    "linspace": lambda M, x: [M.linspace(0, 1, 7), M.arange(1, 10, 3), M.arange(0.0, 1.0, 0.25)],
    "roll": lambda M, x: [M.roll(x, 2), M.roll(x, -1, 0), M.roll(x, (1, 2), (0, 1))],
    "tile": lambda M, x: [M.tile(x, 2), M.tile(x, (2, 1, 3)), M.repeat(x, 2), M.repeat(x, 3, 1)],
    "meshgrid": lambda M, x: M.meshgrid(x[0], x[:, 0]) + M.meshgrid(x[0], x[:, 0], indexing="ij"),
    "diagonal": lambda M, x: [M.diag(x), M.diag(x[0], 1), M.diagonal(x, -1), M.trace(x.astype(M.float32))],
    "pad": lambda M, x: [M.pad(x, 1), M.pad(x, ((0, 1), (2, 0))), M.pad(x, 1, mode="edge")],
    "join": lambda M, x: [M.concatenate([x, x], 1), M.stack([x, x], -1), *M.split(x, [1], 1), M.flatten(x)],
    "axes": lambda M, x: [M.moveaxis(x, 0, 1), M.swapaxes(x, 0, 1), M.expand_dims(x, (0, -1))],
    "flip": lambda M, x: [M.flip(x), M.flip(x, 0), M.atleast_3d(x), M.unflatten(x.reshape(-1), 0, (-1, 1))],
    "along": lambda M, x: [
        M.take_along_axis(x, M.argsort(x, 1), 1),
        M.put_along_axis(x, M.argmax(x, 1, keepdims=True), x[:, :1], 1),
        M.take(x, M.array([0, 1]), 1),
    ],
    "products": lambda M, x: [
        M.outer(x[0], x[1]), M.kron(x, x[:1]), M.inner(x.astype(M.float32), x.astype(M.float32)),
        M.tensordot(x.astype(M.float32), x.astype(M.float32), [[0], [0]]),
        M.addmm(x.astype(M.float32)[:, :1], x.astype(M.float32), x.astype(M.float32).T, 0.5, 2.0),
    ],
    "numbers": lambda M, x: [M.divmod(x.astype(M.int32), 3), M.clip(x, 1, 3), M.where(x > 2, x, 0)],
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    for dtype in (np.int8, np.uint8, np.int32, np.float16, ml_dtypes.bfloat16, np.float32):
        x = (np.arange(12).reshape(3, 4) % 7).astype(dtype)
        compare(SHAPES[name], x, what=name)
