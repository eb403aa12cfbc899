"""Every primitive, by its samples: oracle, finite differences, loops, text, files and native code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot as mx
from ingot.lowering.llvm.target import current
from ingot.lowering.pipeline import lower
from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, leaf, record_all
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import GraphBuilder
from ingot.tracer.primitive import Primitive, has_rule, registry
from ingot.tracer.text import parse_graph, print_graph
from ingot.tracer.trace import trace

sys.path.insert(0, str(Path(__file__).parent))

from primitive_samples import AUTO, SAMPLES, Case  # noqa: E402

TOLERANCES = {"f64": 1e-10, "f32": 3e-6, "f16": 2e-3, "bf16": 1.6e-2, "c64": 1e-5}
RULES = ("infer", "evaluate", "vjp", "jvp", "vmap")
HOST = {
    "argsort", "cholesky", "complement", "cum_max", "cum_min", "cum_prod", "cum_sum", "eig", "eigh",
    "eigvals", "eigvalsh", "fft", "inverse", "inverse_real_fft", "log_cumsumexp", "lu", "qr", "real_fft",
    "searchsorted", "singular_values", "solve", "sort", "svd",
}  # fmt: skip
"""Primitives without native code: programs call the interpreter for them, and `ingot kernels` says so."""


def cases(wanted: Callable[[Case], bool] = lambda case: True) -> list[Any]:
    return list(_cases(wanted))


def _cases(wanted: Callable[[Case], bool]) -> Iterator[Any]:
    for name, table in sorted(SAMPLES.items()):
        for i, case in enumerate(table):
            if wanted(case):
                kinds = "-".join(str(x.dtype) for x in case.operands)
                yield pytest.param(case, id=f"{name}-{i}-{kinds}{'-' + case.name if case.name else ''}")


def function(primitive: Primitive) -> Callable[..., list[array]]:
    return lambda *xs: list(record_all(primitive, *[x._value for x in xs]))


def arrays(case: Case) -> list[array]:
    return [wrapped(x) for x in case.operands]


def wrapped(x: np.ndarray) -> array:
    """An array of exactly the dtype of `x` (the constructor takes float64 for float32)."""
    return mx.array(np.array(x), dtype=dtypes.from_numpy(x.dtype))


def close(got: Any, want: Any, rtol: float, what: str = "") -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if got.dtype.kind in "biu" and want.dtype.kind in "biuO":
        assert got.tolist() == want.tolist(), what
        return
    wide = np.complex128 if "c" in (got.dtype.kind, want.dtype.kind) else np.float64
    np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=rtol, err_msg=what)


def tolerance(case: Case, aval: Aval) -> float:
    return TOLERANCES.get(aval.dtype.short, 0.0) if case.tolerance is None else case.tolerance


def evaluated(primitive: Primitive, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        found = primitive.evaluate(*operands)
    return [np.asarray(y) for y in (found if isinstance(found, tuple) else (found,))]


def avals(case: Case) -> list[Aval]:
    return [Aval(x.shape, dtypes.from_numpy(x.dtype)) for x in case.operands]


def is_differentiable(case: Case) -> bool:
    """A case in float64 that has an inexact result and derivatives at all."""
    kinds = [x.dtype for x in case.operands if x.dtype.kind in "fcV"]
    results = case.primitive.result_avals(tuple(avals(case)))
    return (
        case.differentiable
        and bool(kinds)
        and all(k == np.float64 for k in kinds)
        and any(a.dtype.is_floating for a in results)
    )


# -- completeness --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(registry))
def test_every_primitive_has_samples_rules_and_prose(name: str) -> None:
    cls = registry[name]
    assert SAMPLES.get(name), f"{name} has no samples"
    for rule in RULES:
        assert has_rule(cls, rule), f"{name} has no {rule}"
    assert cls.__doc__ and not cls.__doc__.startswith(cls.__name__ + "("), f"{name} has no description"
    # complex results have tests of their own: test_complex.py, test_fft.py, test_linalg.py
    differentiable = [c for c in SAMPLES[name] if any(a.dtype.is_floating for a in _results(c))]
    takes_floats = [c for c in differentiable if any(x.dtype.kind in "fV" for x in c.operands)]
    if takes_floats and isinstance(has_rule(cls, "vjp"), bool):
        assert any(is_differentiable(c) for c in takes_floats), (
            f"{name} has no float64 sample for derivatives"
        )


def _results(case: Case) -> tuple[Aval, ...]:
    return case.primitive.result_avals(tuple(avals(case)))


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases())
def test_against_the_oracle(case: Case) -> None:
    with np.errstate(all="ignore"):
        want = case.expected(*case.operands) if callable(case.expected) else case.expected
    before = [x.copy() for x in case.operands]
    got = evaluated(case.primitive, case.operands)
    results = _results(case)
    want = want if isinstance(want, tuple) else (want,)
    assert len(got) == len(want) == len(results)
    for g, w, aval in zip(got, want, results, strict=True):
        assert g.dtype == aval.dtype.numpy and g.shape == aval.shape, f"{g.dtype}{g.shape} is not {aval}"
        close(g, w, tolerance(case, aval))
    for x, old in zip(case.operands, before, strict=True):
        assert x.tobytes() == old.tobytes(), "an operand was modified"


@pytest.mark.parametrize("case", cases(lambda case: case.symbolic is not None))
def test_symbolic_shapes_infer_and_substitute(case: Case) -> None:
    if case.symbolic == AUTO:
        sizes = {n: Dim(f"n{n}") for x in case.operands for n in x.shape if n > 1}
        primitive: Primitive = case.primitive
        shapes: Any = [[sizes.get(n, n) for n in x.shape] for x in case.operands]
        env = {f"n{n}": n for n in sizes}
    else:
        primitive, shapes, env = case.symbolic
    operands = tuple(
        Aval(tuple(shape), dtypes.from_numpy(x.dtype)) for shape, x in zip(shapes, case.operands, strict=True)
    )
    inferred = primitive.result_avals(operands)
    for aval, concrete in zip(inferred, _results(case), strict=True):
        shape = tuple(dims.substitute(n, env) for n in aval.shape)
        assert (shape, aval.dtype) == (concrete.shape, concrete.dtype)
    assert primitive.substitute(env) == case.primitive


# -- derivatives ---------------------------------------------------------------------------------------------


def _floating(case: Case) -> list[int]:
    return [i for i, x in enumerate(case.operands) if x.dtype == np.float64]


def _of_floats(case: Case, fn: Callable[..., list[array]]) -> Callable[..., list[array]]:
    """`fn` as a function of the float operands, with the floating results only."""
    moving = _floating(case)
    fixed = arrays(case)

    def partial(*xs: array) -> list[array]:
        operands = list(fixed)
        for i, x in zip(moving, xs, strict=True):
            operands[i] = x
        return [y for y in fn(*operands) if y.dtype.is_floating]

    return partial


def _numpy(xs: Sequence[array]) -> list[np.ndarray]:
    mx.eval(*xs)
    return [np.array(x) for x in xs]


def _difference(
    fn: Callable[..., list[array]], xs: list[np.ndarray], ts: list[np.ndarray]
) -> list[np.ndarray]:
    """Directional derivative by Richardson's extrapolation of central differences."""

    def central(h: float) -> list[np.ndarray]:
        above = _numpy(fn(*[wrapped(x + h * t) for x, t in zip(xs, ts, strict=True)]))
        below = _numpy(fn(*[wrapped(x - h * t) for x, t in zip(xs, ts, strict=True)]))
        return [(a - b) / (2 * h) for a, b in zip(above, below, strict=True)]

    coarse, fine = central(2e-4), central(1e-4)
    return [(4 * f - c) / 3 for c, f in zip(coarse, fine, strict=True)]


def _dot(xs: Sequence[np.ndarray], ys: Sequence[np.ndarray]) -> float:
    return sum(float(np.sum(x * y)) for x, y in zip(xs, ys, strict=True))


def _directions(xs: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.uniform(-1, 1, x.shape) for x in xs]


@pytest.mark.parametrize("case", cases(is_differentiable))
def test_derivatives_to_second_order(case: Case) -> None:
    """jvp against finite differences, vjp against jvp; then the same for the gradient itself."""
    denied = [isinstance(has_rule(type(case.primitive), rule), str) for rule in ("jvp", "vjp")]
    fn = _of_floats(case, function(case.primitive))
    xs = [case.operands[i] for i in _floating(case)]
    ts = _directions(xs, 1)
    if not denied[0]:
        _, pushed = mx.jvp(fn, [wrapped(x) for x in xs], [wrapped(t) for t in ts])
        if not _stops(case):
            for got, want in zip(_numpy(pushed), _difference(fn, xs, ts), strict=True):
                close(got, want, 2e-6, "jvp against finite differences")
    if denied[1]:
        with pytest.raises(ValueError, match=r"\[vjp\]"):
            mx.vjp(fn, [wrapped(x) for x in xs], fn(*[wrapped(x) for x in xs]))
        return
    cts = _directions(_numpy(fn(*[wrapped(x) for x in xs])), 2)

    def gradient(*zs: array) -> list[array]:
        return mx.vjp(fn, list(zs), [wrapped(ct) for ct in cts])[1]

    pulled = _numpy(gradient(*[wrapped(x) for x in xs]))
    if not denied[0]:
        assert _dot(pulled, ts) == pytest.approx(_dot(cts, _numpy(pushed)), rel=1e-9, abs=1e-9)
    elif not _stops(case):
        want = _dot(cts, _difference(fn, xs, ts))
        assert _dot(pulled, ts) == pytest.approx(want, rel=2e-6, abs=2e-6)
    # second order: gradient() is a function like any other
    ss = _directions(xs, 3)
    twice = _numpy(mx.vjp(gradient, [wrapped(x) for x in xs], [wrapped(s) for s in ss])[1])
    if not denied[0]:
        forward = _numpy(mx.jvp(gradient, [wrapped(x) for x in xs], [wrapped(t) for t in ts])[1])
        for got, want in zip(forward, _difference(gradient, xs, ts), strict=True):
            close(got, want, 2e-5, "jvp of vjp against finite differences")
        assert _dot(twice, ts) == pytest.approx(_dot(ss, forward), rel=1e-9, abs=1e-9)
    else:
        want = _dot(ss, _difference(gradient, xs, ts))
        assert _dot(twice, ts) == pytest.approx(want, rel=2e-5, abs=2e-5)


def _stops(case: Case) -> bool:
    return case.primitive.name == "stop_gradient"


# -- vmap ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(lambda case: bool(case.operands)))
def test_vmap_is_a_loop(case: Case) -> None:
    if isinstance(has_rule(type(case.primitive), "vmap"), str):
        pytest.skip(str(has_rule(type(case.primitive), "vmap")))
    random = np.random.default_rng(len(case.name) + sum(x.size for x in case.operands))
    allowed = range(len(case.operands)) if case.batched is None else case.batched
    subsets = [[i] for i in allowed] + ([list(allowed)] if len(allowed) > 1 else [])
    for batched in subsets:
        axes: list[int | None] = [None] * len(case.operands)
        stacked = list(case.operands)
        rows: list[list[np.ndarray]] = [list(case.operands) for _ in range(3)]
        for i in batched:
            x = case.operands[i]
            axes[i] = int(random.integers(-x.ndim - 1, x.ndim + 1))
            for k in range(3):
                rows[k][i] = np.roll(x, k)
            stacked[i] = np.stack([row[i] for row in rows], axis=axes[i])
        mapped = mx.vmap(function(case.primitive), in_axes=tuple(axes))(*[wrapped(x) for x in stacked])
        for j, (y, aval) in enumerate(zip(_numpy(mapped), _results(case), strict=True)):
            assert y.dtype == aval.dtype.numpy
            want = np.stack([evaluated(case.primitive, row)[j] for row in rows])
            close(y, want, max(tolerance(case, aval), 1e-12), f"batched operands {batched}, axes {axes}")


# -- text, files, native code --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases())
def test_text_parses_back(case: Case) -> None:
    graph = trace(function(case.primitive), avals(case), name="f").graph
    text = print_graph(graph)
    again = parse_graph(text)
    assert again == graph
    assert print_graph(again) == text


def _first_cases() -> Iterator[Any]:
    """One case for each primitive and set of operand dtypes: files and compilation need no more."""
    seen = set()
    for parameter in cases():
        case = parameter.values[0]
        key = (case.primitive.name, tuple(x.dtype for x in case.operands), case.name)
        if key not in seen:
            seen.add(key)
            yield parameter


@pytest.mark.parametrize("case", list(_first_cases()))
def test_export_and_import(case: Case, tmp_path: Path) -> None:
    path = str(tmp_path / "f.ingot")
    mx.export_function(path, function(case.primitive), *arrays(case))
    found = _numpy(mx.import_function(path)(*arrays(case)))
    for got, want, aval in zip(found, evaluated(case.primitive, case.operands), _results(case), strict=True):
        assert got.dtype == want.dtype
        close(got, want, max(tolerance(case, aval), TOLERANCES.get(aval.dtype.short, 0.0)))


@pytest.mark.parametrize("case", cases(lambda case: case.native))
def test_compiled_is_as_interpreted(case: Case) -> None:
    found = _numpy(mx.compile(function(case.primitive))(*arrays(case)))
    for got, want, aval in zip(found, evaluated(case.primitive, case.operands), _results(case), strict=True):
        assert got.dtype == want.dtype
        close(got, want, max(tolerance(case, aval), TOLERANCES.get(aval.dtype.short, 0.0)))


def _variants(case: Case) -> Iterator[tuple[Primitive, tuple[Aval, ...]]]:
    """The use of a primitive in a case, for every dtype that it takes: as operands, and as parameter."""
    given = tuple(avals(case))
    params = case.primitive.params()
    fields = [name for name, value in params.items() if isinstance(value, dtypes.Dtype)]
    for dtype in dtypes.ALL:
        changed = type(case.primitive)(**{**params, **dict.fromkeys(fields, dtype)})
        for old in dict.fromkeys(a.dtype for a in given):
            operands = tuple(Aval(a.shape, dtype) if a.dtype is old else a for a in given)
            yield case.primitive, operands
            if fields:
                yield changed, operands
        yield changed, given


@pytest.mark.parametrize("name", sorted(registry))
def test_native_for_every_dtype(name: str) -> None:
    target, taken = current(), set()
    for case in SAMPLES[name][:4]:
        for primitive, operands in dict.fromkeys(_variants(case)):
            b = GraphBuilder(name, operands)
            try:
                results = b.add(primitive, range(len(operands)))
            except (ValueError, TypeError):
                continue  # not for this dtype
            taken.update(a.dtype for a in (*operands, *(b.avals[r] for r in results)))
            program = lower(b.finish(results), target)
            assert bool(program.hosts) == (name in HOST), f"{primitive!r} of {operands}"
    assert taken


def test_leaf_keeps_the_dtype() -> None:
    assert leaf(np.zeros(2)).aval.dtype is dtypes.float64
