"""Native functions for `test_native_language`: each shows one part of the subset."""

# ruff: noqa: F821
from __future__ import annotations

from collections.abc import Callable

from ingot.lowering.native.language import (
    Pointer,
    Struct,
    address,
    at,
    atomic_add,
    atomic_exchange,
    atomic_load,
    atomic_store,
    cast,
    compare_exchange,
    f32,
    f64,
    fence,
    function,
    i8,
    i16,
    i32,
    i64,
    local,
    native,
    null,
    offset,
    pause,
    ptr,
    sizeof,
    stack,
    u8,
    u32,
)

STEP = 3


class Node(Struct):
    value: i64
    flag: bool
    small: u8
    next: Node
    call: Callable[[i64, ptr], i64]
    half: i32 = at(48)
    items: Pointer[i64]


@native
def collatz(n: i64) -> i64:
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@native
def length(node: Node) -> i64:
    count = 0
    while node != null:
        count += 1
        node = node.next
    return count


@native
def fields(node: Node, items: Pointer[i64]) -> i64:
    node.flag = not node.flag
    node.small = node.small + 250
    node.half = -i32(node.value)
    node.items = items
    node.items[1] += node.items[0] * STEP
    return i64(node.small) + node.items[1]


@native
def calls(node: Node) -> i64:
    return node.call(_twice(node.value), node) + 1


@native
def _twice(x: i64) -> i64:
    return x << 1


@native
def pick(a: i64, b: i64, c: i64) -> i64:
    if (a < b and not b == c) or a == 7:
        if c > 100:
            return 1
        elif c > 10:
            return 2
    else:
        return 3
    inside = 0 <= 5 and a < b
    return 4 if inside else 5


@native
def sums(n: i64, skip: i64) -> i64:
    total = 0
    for i in range(1, n):
        if i == skip:
            continue
        if i > 50:
            break
        for j in range(i):
            total += j
    return total


@native
def endless(n: i64) -> i64:
    while True:
        n += 1
        if n > 10:
            break
    while True:
        n += 1
        if n > 20:
            return n


@native
def widths(a: i8, b: u8, c: i16) -> i64:
    wide = i64(a) + i64(b)
    narrow: u8 = u8(c)
    return wide * 1000 + i64(narrow) + i64(i8(narrow) >> 1) + i64(b >> 1)


@native
def floats(x: f64) -> f64:
    y = f32(x) / 3.0
    return f64(y) if y > 0.5 else -f64(y) * f64(i64(2))


@native
def memory(n: i64) -> i64:
    items = stack(i64, 8)
    for i in range(8):
        items[i] = i * n
    node = local(Node)
    node.value = items[3]
    node.next = null
    second = cast(Pointer[i64], offset(items, 8))
    number = cast(i64, second) - cast(i64, items)
    return node.value + second[0] + number + sizeof(Node) + sizeof(i32)


@native
def atomics(counter: Pointer[i32]) -> i64:
    before = atomic_add(counter, 5)
    now = atomic_load(counter)
    old = atomic_exchange(counter, 100)
    seen = compare_exchange(counter, 100, 7)
    kept = compare_exchange(counter, 100, 8)
    fence()
    pause()
    atomic_store(counter, counter[0] + 1)
    return i64(before) + i64(now) * 10 + i64(old) * 100 + i64(seen) * 1000 + i64(kept) * 1000000


@native
def through_pointer(node: Node) -> i64:
    node.call = cast(Callable[[i64, ptr], i64], function(callee))
    place = address(node.value)
    place[0] = place[0] + 1
    return node.call(node.value, node)


@native
def callee(x: i64, node: ptr) -> i64:
    return x * cast(Node, node).value


@native
def through_argument(call: Callable[[i64, i64], i64], x: i64) -> i64:
    again = call
    return call(x, 1) * 100 + again(x, 2)


@native
def unsigned_less(a: u32, b: u32) -> i32:
    return i32(1) if a < b else 0


@native
def same_names(entry: i64, node: i64) -> i64:
    """Names of blocks, functions and structures are free for arguments."""
    if entry > node:
        return entry
    return node
