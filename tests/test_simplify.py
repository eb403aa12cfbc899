"""Graph passes: bit for bit the same results, idempotent, and nothing that could be left out is left."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.lowering import pipeline
from ingot.lowering.simplify import algebra
from ingot.lowering.simplify.common import drop_dead, merge_common
from ingot.lowering.simplify.expand import EXPANSIONS
from ingot.lowering.simplify.inline import inline_calls
from ingot.lowering.simplify.outputs import own_outputs
from ingot.runtime.interpreter import run
from ingot.tracer import dims, dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph, GraphBuilder, Literal
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives.control import Call
from ingot.tracer.primitives.shape import OptimizationBarrier
from ingot.tracer.verify import verify

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_graphs import random_case  # noqa: E402
from random_graphs import random_graphs  # noqa: E402

F32 = dtypes.float32
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, 3e38, 2.5], np.float32)


def operands(graph: Graph, env: dict[str, int]) -> list[np.ndarray]:
    """Numbers with many special values among them."""
    found = []
    for i, aval in enumerate(graph.inputs):
        shape = tuple(dims.evaluate(n, env) for n in aval.shape)
        rng = np.random.default_rng(i)
        if aval.dtype.is_floating:
            found.append(rng.choice(SPECIAL, size=shape).astype(aval.dtype.numpy))
        else:
            found.append(rng.integers(-5, 5, size=shape).astype(aval.dtype.numpy))
    return found


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_graphs(), st.sampled_from([0, 1, 3]))
def test_passes_keep_every_bit(graph: Graph, size: int) -> None:
    env = {d.name: size for d in graph.dims}
    xs = operands(graph, env)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            want = run(graph, xs, env)
        except (IndexError, ValueError):
            return  # data-dependent errors of the reference
        for name, make in (*pipeline.SIMPLIFY, ("all", pipeline.simplify)):
            simpler = make(graph)
            verify(simpler)
            assert simpler.inputs == graph.inputs and simpler.dims == graph.dims
            assert make(simpler) == simpler, name
            for x, y in zip(run(simpler, xs, env), want, strict=True):
                assert x.dtype == y.dtype and x.shape == y.shape
                assert x.tobytes() == y.tobytes() or np.array_equal(x, y, equal_nan=True), name


def test_deep_graphs_keep_every_bit_and_every_rule_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Counter[str] = Counter()

    def counted(rule: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            found = rule(*args)
            used[rule.__name__] += found is not None
            return found

        return noted

    rules = {rule.__name__ for table in algebra.RULES.values() for rule in table}
    rules |= {rule.__name__ for rule in EXPANSIONS.values()}
    for cls, table in algebra.RULES.items():
        monkeypatch.setitem(algebra.RULES, cls, [counted(rule) for rule in table])
    for cls, expansion in EXPANSIONS.items():
        monkeypatch.setitem(EXPANSIONS, cls, counted(expansion))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(400):
            case = random_case(number, 5 + number % 30)
            graph, env = case.graph, case.sizes[0]
            simpler = pipeline.simplify(graph)
            verify(simpler)
            assert pipeline.simplify(simpler) == simpler, number
            if not case.exact:
                continue
            xs = case.inputs(env)
            try:
                want = run(graph, xs, env)
            except IndexError:
                continue
            for x, y in zip(run(simpler, xs, env), want, strict=True):
                assert x.tobytes() == y.tobytes() or np.array_equal(x, y, equal_nan=True), number
    assert not {rule for rule in rules if not used[rule]}, used


def test_passes_return_the_graph_itself_when_nothing_changes() -> None:
    b = GraphBuilder("done", [Aval((4,), F32)])
    (y,) = b.add(ew.Exp(), [0])
    graph = b.finish([y])
    for _, make in pipeline.SIMPLIFY:
        assert make(graph) is graph


def test_every_rule_has_an_equation_and_a_case() -> None:
    text = "".join(p.read_text() for p in (Path(__file__).parent / "filetests" / "simplify").glob("*.ingot"))
    rules = [rule for rules in algebra.RULES.values() for rule in rules]
    for rule in (*rules, *EXPANSIONS.values()):
        equation = (rule.__doc__ or "").split(";")[0]
        assert "=" in equation, rule
        assert f"@{rule.__name__.removesuffix('_two')}(" in text, f"no file test for {rule.__name__}"


def test_calls_are_inlined_with_their_dims() -> None:
    n, b = Dim("N"), Dim("B")
    inner = GraphBuilder("inner", [Aval((b, 2), F32)])
    (y,) = inner.add(ew.Exp(), [0])
    twice = GraphBuilder("twice", [Aval((b, 2), F32)])
    (z,) = twice.add(Call(inner.finish([y]), "module"), [0])
    (w,) = twice.add(ew.Neg(), [z])
    outer = GraphBuilder("outer", [Aval((n + 1, 2), F32)])
    (r,) = outer.add(Call(twice.finish([w]), "compiled"), [0])
    graph = inline_calls(outer.finish([r]))
    assert [node.primitive.name for node in graph.nodes] == ["exp", "neg"]
    assert graph.avals[-1].shape[0] is n + 1
    verify(graph)


def test_barriers_keep_what_they_separate() -> None:
    b = GraphBuilder("checkpoint", [Aval((4,), F32)])
    (first,) = b.add(ew.Exp(), [0])
    (again,) = b.add(OptimizationBarrier(), [0])
    (second,) = b.add(ew.Exp(), [again])
    (y,) = b.add(ew.Add(), [first, second])
    names = [node.primitive.name for node in pipeline.simplify(b.finish([y])).nodes]
    assert names.count("exp") == 2


def test_dead_nodes_go_but_inputs_stay() -> None:
    b = GraphBuilder("dead", [Aval((4,), F32), Aval((4,), F32)])
    (a,) = b.add(ew.Exp(), [0])
    b.add(ew.Neg(), [a])
    graph = drop_dead(b.finish([a]))
    assert [node.primitive.name for node in graph.nodes] == ["exp"] and len(graph.inputs) == 2


def test_common_nodes_merge_transitively() -> None:
    b = GraphBuilder("common", [Aval((4,), F32)])
    ends = []
    for _ in range(3):
        (x,) = b.add(ew.Exp(), [0])
        (x,) = b.add(ew.Mul(), [x, Literal(2.0, F32)])
        ends.append(x)
    graph = merge_common(b.finish(ends))
    assert len(graph.nodes) == 2 and len(set(graph.outputs)) == 1
    owned = own_outputs(graph)
    assert len(set(owned.outputs)) == 3


@pytest.mark.parametrize("value", [0.0, -0.0, float("nan"), float("inf"), 1e-45])
def test_folding_keeps_the_bits_of_scalars(value: float) -> None:
    b = GraphBuilder("fold", [])
    (x,) = b.add(ew.Neg(), [Literal(value, F32)])
    (x,) = b.add(ew.Mul(), [x, Literal(1.0, F32)])
    graph = b.finish([x])
    (folded,) = algebra.apply_rules(graph).outputs
    assert isinstance(folded, Literal)
    assert folded.numpy().tobytes() == run(graph, [])[0].tobytes()
