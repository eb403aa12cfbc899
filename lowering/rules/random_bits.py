"""Random bits as arithmetic on the element's position, so that they fuse with what uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingot.lowering.points import Place, Point, Points, fixed, linear
from ingot.lowering.rules.registry import indexes
from ingot.tracer import dims, dtypes
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives.random_bits import RandomBits

if TYPE_CHECKING:
    from ingot.lowering.pull import Index, Pulling, Site

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


class _Words:
    """32-bit arithmetic on points."""

    def __init__(self, points: Points) -> None:
        self.points = points

    def number(self, value: int) -> Point:
        return self.points.number(value, "u32")

    def position(self, place: Place) -> Point:
        return self.points.position(place, "u32")

    def apply(self, primitive: Primitive, *args: Point) -> Point:
        return self.points.apply(primitive, args, "u32")

    def test(self, primitive: Primitive, *args: Point) -> Point:
        return self.points.apply(primitive, args, "bool")

    def add(self, x: Point, y: Point) -> Point:
        return self.apply(ew.Add(), x, y)

    def xor(self, x: Point, y: Point) -> Point:
        return self.apply(ew.BitwiseXor(), x, y)

    def rotated(self, x: Point, by: int) -> Point:
        left = self.apply(ew.LeftShift(), x, self.number(by))
        return self.apply(ew.BitwiseOr(), left, self.apply(ew.RightShift(), x, self.number(32 - by)))

    def select(self, mask: Point, x: Point, y: Point) -> Point:
        return self.apply(ew.Select(), mask, x, y)

    def threefry(self, key: tuple[Point, Point], x: Point, y: Point) -> tuple[Point, Point]:
        """Threefry-2x32 with 20 rounds (Salmon et al., SC 2011) of the counter pair (x, y)."""
        keys = (*key, self.xor(self.xor(*key), self.number(_PARITY)))
        x, y = self.add(x, keys[0]), self.add(y, keys[1])
        for block in range(5):
            for by in _ROTATIONS[block % 2]:
                x = self.add(x, y)
                y = self.xor(self.rotated(y, by), x)
            x = self.add(x, keys[(block + 1) % 3])
            y = self.add(y, self.add(keys[(block + 2) % 3], self.number(block + 1)))
        return x, y


@indexes(RandomBits, cost=130)
def _random_bits(p: RandomBits, s: Site, index: Index) -> Pulling:
    """The layout of counters is that of `tracer.primitives.random_bits.random_words`."""
    w = _Words(s.points)
    rest = len(index) - len(p.shape)
    keys = []
    for word in range(2):
        keys.append((yield s.ask((*index[:rest], fixed(word)))))
    element = linear(index[rest:], p.shape)
    per_word = 4 // p.width
    n = dims.ceil_div(dims.product(p.shape), per_word)
    half = dims.ceil_div(n, 2)
    at = element if per_word == 1 else Place(0, (), ((s.points.divided(element, per_word, False), 1),))
    number, middle = w.position(at), w.position(fixed(half))
    in_first = w.test(ew.Lt(), number, middle)
    first = w.select(in_first, number, w.apply(ew.Sub(), number, middle))
    # the last pair of an odd count has no second counter
    last = w.test(ew.Ge(), w.add(first, middle), w.position(fixed(n)))
    second = w.select(last, w.number(0), w.add(first, middle))
    a, b = w.threefry((keys[0], keys[1]), first, second)
    word_bits = w.select(in_first, a, b)
    if per_word == 1:
        return word_bits
    part = w.position(Place(0, (), ((s.points.divided(element, per_word, True), 8 * p.width),)))
    shifted = w.apply(ew.RightShift(), word_bits, part)
    target = dtypes.uint8 if p.width == 1 else dtypes.uint16
    return s.points.apply(ew.ConvertElementType(target), (shifted,), target.short)
