"""Where values live while a program runs: buffers, their life, and the slots of the workspace they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingot.lowering.program import Buffer
from ingot.tracer import dims
from ingot.tracer.dims import Extent
from ingot.tracer.graph import Graph


@dataclass(frozen=True)
class Plan:
    """`number` finds the buffer of a graph value; `slots` are the sizes of the workspace's parts in bytes."""

    buffers: tuple[Buffer, ...]
    number: dict[int, int]
    slots: tuple[Extent, ...]


def plan(graph: Graph, steps: Sequence[Sequence[int]], written: Iterable[int]) -> Plan:
    """Buffers for the values that the steps use, in order. `written` are the values that steps compute.

    A value that is no output gets a slot of the workspace from its first to its last use; a free slot of
    the same size is used again.
    """
    n_inputs = len(graph.inputs)
    outputs = {value: i for i, value in enumerate(graph.outputs) if isinstance(value, int)}
    last = {value: at for at, values in enumerate(steps) for value in values}
    produced = set(written)
    buffers: list[Buffer] = []
    number: dict[int, int] = {}
    slots: list[Extent] = []
    free: list[int] = []

    def place(value: int) -> Buffer:
        aval = graph.avals[value]
        if value < n_inputs:
            return Buffer("input", value, aval)
        if value < graph.first_result:
            return Buffer("constant", value - n_inputs, aval)
        if value in outputs:
            return Buffer("output", outputs[value], aval)
        assert value in produced, f"value {value} is used, but no step computes it"
        return Buffer("workspace", _slot(aval.nbytes, slots, free), aval)

    for at, values in enumerate(steps):
        for value in values:
            if value not in number:
                number[value] = len(buffers)
                buffers.append(place(value))
        for value in dict.fromkeys(values):
            buffer = buffers[number[value]]
            if last[value] == at and buffer.place == "workspace":
                free.append(buffer.index)
    return Plan(tuple(buffers), number, tuple(slots))


def _slot(size: Extent, slots: list[Extent], free: list[int]) -> int:
    for index in free:
        if dims.same(slots[index], size):
            free.remove(index)
            return index
    slots.append(size)
    return len(slots) - 1
