"""Records behave as frozen dataclasses do."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import pytest

from ingot.tracer.record import field, record, replace


@record
class Point:
    """Two numbers."""

    kind: ClassVar[str] = "point"
    x: int
    y: int = 0


@record
class Named(Point):
    name: str = field(default="", compare=False, repr=False)
    parts: list[int] = field(default_factory=list)
    total: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.x + self.y)


def test_fields_become_arguments_in_order_bases_first():
    made = Named(1, 2, "n", [3])
    assert (made.x, made.y, made.name, made.parts, made.total, made.kind) == (1, 2, "n", [3], 3, "point")
    assert Named(x=1).parts == [] and Named(1).parts is not Named(1).parts
    assert Point(1) == Point(x=1, y=0)
    for bad in (lambda: Point(), lambda: Point(1, 2, 3), lambda: Point(1, z=2), lambda: Point(1, x=1)):
        with pytest.raises(TypeError, match="argument"):
            bad()
    with pytest.raises(TypeError, match="total"):
        Named(1, total=2)


def test_the_first_instances_are_made_like_all_others():
    @record
    class Many:
        a: int
        b: list[int] = field(default_factory=list)
        c: str = "c"

    made = [Many(i, c="d") for i in range(200)]
    assert all((m.a, m.b, m.c) == (i, [], "d") for i, m in enumerate(made))
    assert made[0].b is not made[199].b


def test_equality_hash_and_repr_follow_the_compared_fields():
    assert Named(1, 2, "a") == Named(1, 2, "b") != Named(1, 3, "a")
    assert Point(1) != Named(1) and Point(1) != (1, 0)
    assert hash(Point(1, 2)) == hash(Point(1, 2)) and len({Point(1), Point(1), Point(2)}) == 2
    assert repr(Named(1, 2, "n")) == "Named(x=1, y=2, parts=[])"


def test_records_are_frozen_have_slots_and_can_be_changed_by_copies():
    point = Point(1, 2)
    for name in ("x", "z"):
        with pytest.raises(AttributeError):
            setattr(point, name, 3)
    with pytest.raises(AttributeError):
        del point.x
    assert not hasattr(point, "__dict__")
    assert replace(point, y=5) == Point(1, 5)
    assert replace(Named(1, 2, "n", [4]), x=7).total == 9
    with pytest.raises(TypeError):
        replace(point, z=1)


def test_patterns_take_fields_by_position():
    match Named(1, 2, "n", [3]):
        case Named(x, y, name, [part]):
            assert (x, y, name, part) == (1, 2, "n", 3)
        case _:
            raise AssertionError


def test_options():
    @record(frozen=False)
    class Counter:
        n: int = 0

    @record(eq=False, slots=False)
    class Node:
        n: int

        @cached_property
        def twice(self) -> int:
            return 2 * self.n

    counter = Counter()
    counter.n += 1
    assert counter == Counter(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)
    assert Node(1) != Node(1) and len({Node(1), Node(1)}) == 2
    assert Node(3).twice == 6


def test_a_subclass_that_is_no_record_may_take_its_own_arguments():
    class Shifted(Point):
        def __init__(self, x: int) -> None:
            super().__init__(x + 1, 1)

    assert (Shifted(1).x, Shifted(1).y) == (2, 1)
