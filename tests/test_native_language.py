"""The typed subset of Python in which the thread pool and the dispatcher are written."""

from __future__ import annotations

import ctypes
import importlib.util
import textwrap
from pathlib import Path

import pytest

from ingot.lowering.llvm.codegen import compile_module
from ingot.lowering.llvm.target import named
from ingot.lowering.native.language import native, pause, u8
from ingot.lowering.native.translate import NativeError, translate
from ingot.runtime import loader

HERE = Path(__file__).resolve().parent
i64 = ctypes.c_int64


def module_from(path, name):
    import sys

    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def samples():
    return module_from(HERE / "native_samples.py", "native_samples_of_test")


@pytest.fixture(scope="module")
def image(samples):
    return loader.load(compile_module(translate(samples, named("host")), named("host")))


def call(image, name, *args, types=None, result=i64):
    types = types or [i64 if isinstance(a, int) else ctypes.c_void_p for a in args]
    given = [a if isinstance(a, int | float) else ctypes.addressof(a) for a in args]
    return ctypes.CFUNCTYPE(result, *types)(image.address(name))(*given)


def test_loops_and_branches(image):
    assert call(image, "collatz", 27) == 111
    for n, skip in [(0, 0), (10, 4), (100, -1), (60, 50)]:
        expected = sum(j for i in range(1, min(n, 51)) if i != skip for j in range(i))
        assert call(image, "sums", n, skip) == expected
    assert call(image, "endless", 3) == 21
    assert call(image, "endless", 100) == 102
    cases = {(1, 2, 200): 1, (1, 2, 50): 2, (3, 2, 2): 3, (1, 2, 2): 3, (7, 2, 2): 5, (1, 2, 5): 4}
    for arguments, expected in cases.items():
        assert call(image, "pick", *arguments) == expected
    assert call(image, "same_names", 3, 4) == call(image, "same_names", 4, 3) == 4


def test_structures_have_the_layout_of_c(image, samples):
    layout = {name: at for name, (at, _) in samples.Node.layout().items()}
    assert layout == {"value": 0, "flag": 8, "small": 9, "next": 16, "call": 24, "half": 48, "items": 56}
    assert samples.Node.size() == 64
    last = samples.Node.new(value=5)
    first = samples.Node.new(value=4, next=ctypes.addressof(last))
    assert call(image, "length", first) == 2
    items = (i64 * 2)(10, 1)
    first.small = 10
    assert call(image, "fields", first, items) == 4 + 31
    assert (first.flag, first.small, first.half, items[1]) == (1, 4, -4, 31)
    with pytest.raises(TypeError, match="layout"):
        samples.Node()


def test_calls_within_the_module_and_through_pointers(image, samples):
    seen = []

    @ctypes.CFUNCTYPE(i64, i64, ctypes.c_void_p)
    def callback(x, node):
        seen.append((x, node))
        return x + 100

    node = samples.Node.new(value=21, call=ctypes.cast(callback, ctypes.c_void_p).value)
    assert call(image, "calls", node) == 143
    assert seen == [(42, ctypes.addressof(node))]
    assert call(image, "through_pointer", node) == 22 * 22
    assert "_twice" not in image.names
    add = ctypes.CFUNCTYPE(i64, i64, i64)(lambda x, y: x + y)
    assert call(image, "through_argument", ctypes.cast(add, ctypes.c_void_p).value, 5) == 607


def test_widths_and_signs(image):
    types = [ctypes.c_int8, ctypes.c_uint8, ctypes.c_int16]
    for a, b, c in [(-3, 200, 0x1F0), (5, 255, -1)]:
        narrow = c & 255
        signed = narrow - 256 if narrow > 127 else narrow
        expected = (a + b) * 1000 + narrow + (signed >> 1) + (b >> 1)
        assert call(image, "widths", a, b, c, types=types) == expected
    u32 = ctypes.c_uint32
    assert call(image, "unsigned_less", 1, 0xFFFFFFFF, types=[u32, u32], result=ctypes.c_int32) == 1


def test_floats(image):
    for x in (3.0, 0.3):
        y = ctypes.c_float(ctypes.c_float(x).value / 3.0).value
        expected = y if y > 0.5 else -y * 2
        assert call(image, "floats", x, types=[ctypes.c_double], result=ctypes.c_double) == expected


def test_memory_and_atomics(image):
    assert call(image, "memory", 5) == 15 + 5 + 8 + 64 + 4
    counter = ctypes.c_int32(1)
    assert call(image, "atomics", counter) == 1 + 60 + 600 + 100_000 + 7_000_000
    assert counter.value == 8


@pytest.mark.parametrize("target", ["x86-64-v2", "aarch64", "apple-m1"])
def test_other_targets(samples, target):
    image = compile_module(translate(samples, named(target)), named(target))
    assert "atomics" in image.entries


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def f(x: i64) -> i64:\n    if x:\n        return 1\n    return 2", ":5: a condition must be bool"),
        ("def f(x: i64) -> i64:\n    return x + y", ":5: y is not known"),
        ("def f(x: i64, y: i32) -> i64:\n    return x + y", ":5: expected i64, got i32"),
        ("def f(x: i64) -> i64:\n    pass", "f may end without a result"),
        ("def f(x: i64) -> i64:\n    return 1\n    x = 2", ":6: this is never reached"),
        ("def f(x: i64) -> i64:\n    return x.field", ":5: x is no structure"),
        ("def f(x: i64) -> i64:\n    return [x]", ":5: `[x]` is not in the subset"),
        ("def f(x: i64) -> i64:\n    return f(x, x)", ":5: expected 1 arguments, got 2"),
        ("def f(x: i64) -> i64:\n    x = 1.5\n    return x", ":5: 1.5 is no i64"),
        ("def f(x: list) -> i64:\n    return 1", ":4: list is not a type"),
        ("def f(x: i64) -> i64:\n    return x(1)", ":5: x cannot be called"),
        ("def f(x: i64) -> i64:\n    with x:\n        return 1", "is not in the subset"),
    ],
)
def test_errors_name_the_line(tmp_path, body, message):
    path = tmp_path / "wrong.py"
    head = "from __future__ import annotations\nfrom ingot.lowering.native.language import i32, i64, native\n"
    path.write_text(head + "@native\n" + textwrap.dedent(body))
    with pytest.raises(NativeError) as raised:
        translate(module_from(path, "wrong_native"), named("host"))
    assert message in str(raised.value)


def test_operations_do_not_run_as_python():
    assert native(len) is len
    with pytest.raises(TypeError, match="native functions only"):
        pause()
    assert repr(u8) == "u8"
