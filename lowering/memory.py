"""Where values live while a program runs: buffers, their life, and the slots of the workspace they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ingot.lowering.program import Buffer
from ingot.tracer import dims
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.record import record


@record
class Plan:
    """`number` finds the buffer of a value; `slots` are the sizes of the workspace's parts in bytes."""

    buffers: tuple[Buffer, ...]
    number: dict[int, int]
    slots: tuple[Extent, ...]


def plan(
    avals: Sequence[Aval], places: Mapping[int, tuple[str, int]], steps: Sequence[tuple[str, Sequence[int]]]
) -> Plan:
    """Buffers for the values that the steps use, in order.

    avals: of each value. places: place and index of inputs, constants and outputs; the others share the
    workspace: each has a slot from its first to its last use, then the slot is used again for a value of the
    same size. steps: mark (see `program.Step`) and values of each.
    """
    last = _lives(steps)
    ends: dict[int, list[int]] = {}
    for value, at in last.items():
        ends.setdefault(at, []).append(value)
    buffers: list[Buffer] = []
    number: dict[int, int] = {}
    slots: list[Extent] = []
    free: list[int] = []
    for at, (_, values) in enumerate(steps):
        for value in values:
            if value in number:
                continue
            place, index = places.get(value) or ("workspace", _slot(avals[value].nbytes, slots, free))
            number[value] = len(buffers)
            buffers.append(Buffer(place, index, avals[value]))
        for value in ends.get(at, ()):
            buffer = buffers[number[value]]
            if buffer.place == "workspace":
                free.append(buffer.index)
    return Plan(tuple(buffers), number, tuple(slots))


def _lives(steps: Sequence[tuple[str, Sequence[int]]]) -> dict[int, int]:
    """The last step that needs each value."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for at, (_, values) in enumerate(steps):
        for value in values:
            first.setdefault(value, at)
            last[value] = at
    for start, end in _loops(steps):  # what comes from outside is needed by every iteration
        for value, at in last.items():
            if first[value] <= start <= at < end:
                last[value] = end
    for mark, values in steps:
        if mark == "while":  # the memory of a pair is exchanged, so the result may lie in either
            for a, b in zip(values[::2], values[1::2], strict=True):
                last[a] = last[b] = max(last[a], last[b])
    return last


def _loops(steps: Sequence[tuple[str, Sequence[int]]]) -> list[tuple[int, int]]:
    """First and last step of each loop, inner ones first."""
    found: list[tuple[int, int]] = []
    opened: list[tuple[int, str]] = []
    for at, (mark, _) in enumerate(steps):
        if mark in ("while", "if"):
            opened.append((at, mark))
        elif mark == "end":
            start, kind = opened.pop()
            if kind == "while":
                found.append((start, at))
    return found


def _slot(size: Extent, slots: list[Extent], free: list[int]) -> int:
    for index in free:
        if dims.same(slots[index], size):
            free.remove(index)
            return index
    slots.append(size)
    return len(slots) - 1
