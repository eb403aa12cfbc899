"""Groups: every value is written once, in an order that runs, and what must fuse does."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from ingot.lowering import pipeline, rules
from ingot.lowering.fuse import fuse, plan_of
from ingot.lowering.groups import Group
from ingot.lowering.pull import producers
from ingot.tracer import dtypes
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph, GraphBuilder, Literal
from ingot.tracer.primitive import registry
from ingot.tracer.primitives import contract as ct
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.primitives import shape as sh

sys.path.insert(0, str(Path(__file__).parent))

from random_graphs import random_graphs  # noqa: E402

F32 = dtypes.float32
B = Dim("B")


def groups_of(graph: Graph) -> tuple[Graph, list[Group]]:
    graph = pipeline.simplify(graph)
    return graph, fuse(graph)


def reads(graph: Graph, group: Group, stored: set[int]) -> set[int]:
    """Stored values that a group needs from others."""
    made, found = producers(graph), set()
    stack = [o for root in group.roots for o in made[root].operands if isinstance(o, int)]
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in stored:
            found.add(value)
        elif value in made:
            stack.extend(o for o in made[value].operands if isinstance(o, int))
    return found - set(group.roots)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(random_graphs())
def test_groups_can_run_in_their_order(graph: Graph) -> None:
    graph, groups = groups_of(graph)
    roots = [root for group in groups for root in group.roots]
    assert len(roots) == len(set(roots))
    done = set(range(graph.first_result))
    stored = done | set(roots)
    for group in groups:
        assert reads(graph, group, stored) <= done
        if group.kind != "host":
            plan_of(graph, group, frozenset(stored), frozenset(stored))
        done.update(group.roots)
    assert {o for o in graph.outputs if isinstance(o, int)} <= done


def test_normalisation_with_affine_is_one_group() -> None:
    b = GraphBuilder("layer_norm", [Aval((B, 64), F32), Aval((64,), F32), Aval((64,), F32)])
    (total,) = b.add(rd.ReduceSum((1,), True), [0])
    (mean,) = b.add(ew.Div(), [total, Literal(64.0, F32)])
    (d,) = b.add(ew.Sub(), [0, mean])
    (sq,) = b.add(ew.Square(), [d])
    (total,) = b.add(rd.ReduceSum((1,), True), [sq])
    (var,) = b.add(ew.Div(), [total, Literal(64.0, F32)])
    (var,) = b.add(ew.Add(), [var, Literal(1e-5, F32)])
    (scale,) = b.add(ew.Rsqrt(), [var])
    (y,) = b.add(ew.Mul(), [d, scale])
    (y,) = b.add(ew.Mul(), [y, 1])
    (y,) = b.add(ew.Add(), [y, 2])
    graph, groups = groups_of(b.finish([y]))
    assert [g.kind for g in groups] == ["rows"] and groups[0].reduced == {1}
    program = pipeline.lower(graph, _target())
    assert len(program.kernels) == 1 and not program.slots  # no intermediate array


def test_optimizer_update_joins_the_gradient() -> None:
    """The product that makes a gradient, and the map that uses it up, are one kernel."""
    b = GraphBuilder("sgd", [Aval((B, 8), F32), Aval((B, 4), F32), Aval((8, 4), F32)])
    (g,) = b.add(ct.DotGeneral(((0,), (0,)), ((), ())), [0, 1])
    (step,) = b.add(ew.Mul(), [g, Literal(0.1, F32)])
    (w,) = b.add(ew.Sub(), [2, step])
    _, groups = groups_of(b.finish([w]))
    assert [g.kind for g in groups] == ["dot"]


def test_a_value_that_rows_repeat_is_computed_once() -> None:
    b = GraphBuilder("repeat", [Aval((64,), F32), Aval((B, 64), F32)])
    (e,) = b.add(ew.Exp(), [0])
    (y,) = b.add(ew.Add(), [1, e])
    _, groups = groups_of(b.finish([y]))
    assert len(groups) == 2
    cheap = GraphBuilder("cheap", [Aval((64,), F32), Aval((B, 64), F32)])
    (e,) = cheap.add(ew.Neg(), [0])
    (y,) = cheap.add(ew.Add(), [1, e])
    assert len(groups_of(cheap.finish([y]))[1]) == 1


def test_a_cycle_is_not_made() -> None:
    """The last map needs the first one directly and through the product, so it cannot join the first."""
    b = GraphBuilder("cycle", [Aval((8, 8), F32)])
    (e,) = b.add(ew.Exp(), [0])
    (t,) = b.add(sh.Transpose((1, 0)), [e])
    (p,) = b.add(ct.DotGeneral(((1,), (0,)), ((), ())), [e, t])
    (y,) = b.add(ew.Add(), [p, e])
    _, groups = groups_of(b.finish([y, e]))
    assert [g.kind for g in groups] == ["rows", "dot"]


def test_native_coverage() -> None:
    """What the first native path promises."""
    promised = """
        add sub mul div neg abs sign maximum minimum square floor ceil round trunc sqrt rsqrt exp log tanh
        sigmoid eq ne lt le gt ge logical_not logical_and logical_or select convert_element_type
        broadcast_to reshape transpose slice reverse pad concatenate slice_update iota dim_value
        reduce_sum reduce_prod reduce_max reduce_min reduce_all reduce_any argmax argmin dot_general
        gather scatter dynamic_slice dynamic_update random_bits call optimization_barrier
    """.split()
    assert [name for name in promised if not rules.is_lowered(registry[name])] == []


def _target():  # type: ignore[no-untyped-def]
    from ingot.lowering.llvm.target import current

    return current()
