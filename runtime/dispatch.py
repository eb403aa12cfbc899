"""Calls that do not pass through Python: tables of what compiled and imported functions were called with,
for the native code in `dispatch_native` to look up.

That code reads structures of CPython and NumPy and slots of our classes at fixed offsets. Before its first
use every one of them is checked against an object of which the contents are known, and a call of a made-up
function is tried. Where anything is not as expected (another Python, no lock of the interpreter, another
NumPy), calls go through `__call__` as before, and `status` says why.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from types import MemberDescriptorType
from typing import Any

import numpy as np

from ingot.lowering.llvm.target import host
from ingot.runtime import native_code, threads
from ingot.runtime.executable import Executable
from ingot.runtime.loader import LoadedImage
from ingot.runtime.storage import ALIGNMENT, pool
from ingot.tracer import config
from ingot.tracer import state as tracer_state
from ingot.tracer.array import Storage, Value, array, leaf, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.evaluate import Call, Dispatched
from ingot.tracer.tree import Tree

_NATIVE = "dispatch_native"
_VERSIONS = ((3, 11), (3, 12), (3, 13))

# Structures of `dispatch_native` that are filled here: all fields are words, in this order.
API = (
    "dealloc", "new_tuple", "new_list", "new_dict", "set_item", "next_item", "integer", "allocate",
    "call_no_arguments", "save_thread", "restore_thread", "new_array", "set_base", "none", "true", "false",
    "zero", "array_type", "value_type", "storage_type", "numpy_type", "tuple_type", "list_type", "dict_type",
    "int_type", "float_type", "str_type", "float64", "bytes", "running", "value_weak", "immortal",
)  # fmt: skip
TABLE = ("api", "slots", "mask", "enabled", "owner", "takes_float64")
ENTRY = (
    "hash", "n_words", "words", "code", "context", "n_outputs", "outputs", "tree", "release", "hold",
    "exclusive", "busy",
)  # fmt: skip
OUTPUT = ("aval", "dtype", "axes", "extents", "ring", "turn", "make", "padded")
SLOTS: dict[type, dict[str, int]] = {
    Dispatched: {"_native_call": 16, "_native_table": 24},
    array: {"_value": 16},
    Value: {"aval": 16, "index": 24, "node": 32, "serial": 40, "storage": 48, "trace": 56, "view": 64},
    Storage: {"_nbytes": 16, "_pointer": 24, "frozen": 32, "owner": 40, "pinned": 48},
}
"""Where `dispatch_native` looks for what classes with `__slots__` hold."""
WORDS, LEAVES, OUTPUTS, COUNT = 1024, 256, 64, 256
TUPLE, LIST, DICT, LEAF, STATIC = 1, 2, 3, 10, 11
"""Constants of `dispatch_native`."""

_TINY, _SMALL, _LARGE = 1 << 8, 1 << 12, 1 << 20
"""Bytes up to which results lie anywhere, are allocated by NumPy, and are kept."""
_KEPT = 4
"""Results that are kept of each shape and dtype."""
_MOST_KEPT = 1 << 25
"""Bytes of all results that are kept."""
_FEW, _MOST_ENTRIES = 32, 4096
_MOST_WORKSPACE = 1 << 20
_SHORT = 20e-6
"""Seconds of a program during which other Python threads can wait."""

# In PyTypeObject and PyMemberDescrObject.
_BASICSIZE, _VECTORCALL_OFFSET, _CALL, _FLAGS = 32, 56, 128, 168
_HAVE_VECTORCALL = 1 << 11
_MEMBER, _MEMBER_TYPE, _MEMBER_OFFSET, _MEMBER_FLAGS = 40, 8, 16, 24
_OBJECT, _NUMBER, _READ_ONLY = 16, 18, 1
_NEW_ARRAY, _SET_BASE = 94, 282  # PyArray_NewFromDescr, PyArray_SetBaseObject in NumPy's table of functions
_CAPSULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")


class Unavailable(Exception):
    """Why Python answers all calls."""


class _Native:
    """The native code, and what it needs of this process."""

    def __init__(self, image: LoadedImage) -> None:
        self.image = image  # never unloaded: functions point into it
        self.call = image.address("call")
        number, pointer, held = ctypes.c_int64, ctypes.c_void_p, ctypes.py_object
        prototype = ctypes.PYFUNCTYPE(number, pointer, held, held, number, pointer)
        self.describe = prototype(image.address("describe"))
        self.api = (ctypes.c_uint64 * len(API))(*_api_words())
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.api))  # functions live longer than modules
        self.address = ctypes.addressof(self.api)

    def words(self, args: tuple[Any, ...], kwargs: dict[str, Any], float64: bool) -> tuple[Any, int] | None:
        """The words of a call and their hash; None when native code does not take such a call."""
        room = (ctypes.c_int64 * (WORDS + 1))()
        n = self.describe(self.address, args, kwargs, float64, ctypes.addressof(room))
        if n < 0:
            return None
        return (ctypes.c_int64 * n).from_buffer_copy(room), room[WORDS]


_lock = threading.RLock()
_native: _Native | None = None
_trouble = ""
_kept_bytes = 0


def status() -> str:
    """`native`, `python: ` and the reason, or `not needed yet`."""
    if config.get("INGOT_DISPATCH") == "python":
        return "python: INGOT_DISPATCH=python"
    if _trouble:
        return f"python: {_trouble}"
    return "native" if _native is not None else "not needed yet"


def start(compile: bool) -> bool:
    """Make native calls possible; when the code is not in the cache, only with `compile`. False: not done,
    and `status` says why when it will never be."""
    global _native, _trouble
    with _lock:
        if _native is not None or _trouble:
            return _native is not None
        try:
            _check_python()
            image = native_code.stored(_NATIVE, host())
            if image is None and not compile:
                return False
            _check_layouts()
            native = _Native(image or native_code.compiled(_NATIVE, host()))
            _make_numbers(Dispatched)
            _try(native)
        except (Unavailable, OSError, RuntimeError, AttributeError) as error:
            _trouble = str(error) or type(error).__name__
            return False
        _native = native
        return True


# -- tables -----------------------------------------------------------------------------------------


class Table:
    """The entries of one function, as native code reads them."""

    def __init__(self, native: _Native, enabled: list[bool], float64: bool) -> None:
        self.native, self.enabled = native, enabled
        self.entries: list[Entry] = []
        self._old: list[Any] = []
        self._seen: dict[bytes, int] = {}
        self._slots = (ctypes.c_void_p * 8)()
        values = (native.address, ctypes.addressof(self._slots), 7, id(enabled), id(self), float64)
        self.memory = (ctypes.c_uint64 * len(TABLE))(*values)
        self.address = ctypes.addressof(self.memory)
        _tables.add(self)

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        if 2 * len(self.entries) > len(self._slots):
            self._old.append(self._slots)
            self._slots = (ctypes.c_void_p * (2 * len(self._slots)))()
            for known in self.entries:
                self._place(known)
            self.memory[TABLE.index("slots")] = ctypes.addressof(self._slots)
            self.memory[TABLE.index("mask")] = len(self._slots) - 1
        else:
            self._place(entry)

    def _place(self, entry: Entry) -> None:
        mask = len(self._slots) - 1
        at = entry.hash & mask
        while self._slots[at]:
            at = (at + 1) & mask
        self._slots[at] = entry.address

    def wants(self, words: Any) -> bool:
        """Whether a call with these words, which Python has answered, is to have an entry. Where there are
        many of them, shapes may never come again: a call has to come twice."""
        key = bytes(words)
        if len(self._seen) >= 4 * _MOST_ENTRIES:
            self._seen.clear()
        times = self._seen[key] = self._seen.get(key, 0) + 1
        return times == (1 if len(self.entries) < _FEW else 2)

    def defer(self, words: Any) -> None:
        """Take the call just asked for as one that was not made."""
        self._seen[bytes(words)] -= 1


_tables: weakref.WeakSet[Table] = weakref.WeakSet()


class Entry:
    """A signature and the program behind it. `kept` holds every object that native code refers to."""

    def __init__(
        self, words: Any, hash: int, code: int, context: int, outputs: Sequence[Aval], tree: Any, kept: Any
    ) -> None:
        self.words, self.hash, self.tree = words, hash, tree
        self.kept = [kept, *outputs]
        rows = [self._output(aval) for aval in outputs]
        self.outputs = (ctypes.c_uint64 * max(1, len(OUTPUT) * len(rows)))(*[w for row in rows for w in row])
        self.memory = (ctypes.c_uint64 * len(ENTRY))()
        self.address = ctypes.addressof(self.memory)
        makes = any(row[OUTPUT.index("make")] for row in rows)
        self.set(
            hash=hash, n_words=len(words), words=ctypes.addressof(words), code=code, context=context,
            n_outputs=len(rows), outputs=ctypes.addressof(self.outputs),
            tree=0 if tree is None else ctypes.addressof(tree), hold=makes,
        )  # fmt: skip

    def set(self, **fields: int) -> None:
        for name, value in fields.items():
            self.memory[ENTRY.index(name)] = int(value) & (1 << 64) - 1

    def _output(self, aval: Aval) -> tuple[int, ...]:
        global _kept_bytes
        shape = tuple(map(int, aval.shape))
        extents = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        dtype, nbytes = aval.dtype.numpy, int(aval.nbytes)
        make = None if nbytes <= _SMALL else partial(pool.empty, shape, dtype)
        ring = _ring(aval)
        self.kept += (extents, dtype, make, ring)
        padded = nbytes + ALIGNMENT if make is None and nbytes > _TINY else 0
        return (id(aval), id(dtype), aval.ndim, ctypes.addressof(extents), _id(ring), 0, _id(make), padded)


class Ring(list[Any]):
    """Results to give out again, or None: those of one shape and dtype that native code made last."""

    __slots__ = ("nbytes", "__weakref__")

    def __init__(self, nbytes: int) -> None:
        global _kept_bytes
        super().__init__([None] * _KEPT)
        self.nbytes = nbytes
        _kept_bytes += nbytes

    def __del__(self) -> None:
        global _kept_bytes
        _kept_bytes -= self.nbytes


_rings: weakref.WeakValueDictionary[Aval, Ring] = weakref.WeakValueDictionary()


def _ring(aval: Aval) -> Ring | None:
    """The results of `aval` that are kept; None when they are too large."""
    ring = _rings.get(aval)
    nbytes = _KEPT * int(aval.nbytes)
    if ring is None and nbytes <= _KEPT * _LARGE and _kept_bytes + nbytes <= _MOST_KEPT:
        ring = _rings[aval] = Ring(nbytes)
    return ring


def _empty_rings() -> None:
    for ring in list(_rings.values()):
        for i in range(len(ring)):
            ring[i] = None


pool.when_cleared.append(_empty_rings)


def _id(x: object) -> int:
    return 0 if x is None else id(x)


def dispatch(function: Dispatched, call: Call) -> bool:
    """Add an entry for a call; False when native code does not take it."""
    native = _native
    executable = call.executable
    if native is None or not isinstance(executable, Executable) or executable.needs_python:
        return False
    if type(function).__base__ is not Dispatched:
        return False  # it may have another `__call__`
    words, hash = native.words(call.args, call.kwargs, call.float64) or (None, 0)
    if words is None:
        return False
    with _lock:
        table = function.__dict__.get("_dispatch")
        if table is None or len(table.entries) >= _MOST_ENTRIES:
            forget(function)
            table = function.__dict__["_dispatch"] = Table(native, call.enabled, call.float64)
        if not table.wants(words):
            return True
        keys = list(_strings((call.args, call.kwargs)))
        tree = _tree_words(call.out_tree, call.statics)
        if tree is False or not _same_leaves(call) or not _plain(call.operands):
            return False
        if not all(sys.intern(key) is key for key in keys):
            return False
        ready = executable.ready([v.view for v in call.operands if v.view is not None])
        if ready is None:
            table.defer(words)
            return True
        layout, workspace = ready.layout, ready.workspace
        if len(layout.outputs) > OUTPUTS or workspace is not None and workspace.nbytes > _MOST_WORKSPACE:
            return False
        kept = (keys, call.out_tree, call.statics, executable, ready)
        code = executable.code.entry_address
        entry = Entry(words, hash, code, ready.frame.address, layout.outputs, tree, kept)
        if executable.seconds(layout) > _SHORT:
            entry.set(release=1, hold=1)
        entry.set(exclusive=workspace is not None)
        table.add(entry)
        _point(function, table)
        if ready.parallel:
            _threaded.add(function)
    return True


def forget(function: Dispatched) -> None:
    """Remove all entries of a function."""
    with _lock:
        _threaded.discard(function)
        if function.__dict__.get("_dispatch") is not None:
            _word(id(function) + SLOTS[Dispatched]["_native_call"]).value = 0
            del function.__dict__["_dispatch"]


def _forget_threaded() -> None:
    for function in list(_threaded):
        forget(function)


_threaded: weakref.WeakSet[Dispatched] = weakref.WeakSet()
"""Functions with entries that are for one number of threads."""
threads.when_set.append(_forget_threaded)


def _after_fork() -> None:
    """In the child no other thread holds the lock, or is in a call."""
    global _lock
    _lock = threading.RLock()
    for table in _tables:
        for entry in table.entries:
            entry.set(busy=0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _point(function: Any, table: Table) -> None:
    """Let calls of a function go to native code."""
    _accept(type(function))
    _word(id(function) + SLOTS[Dispatched]["_native_table"]).value = table.address
    _word(id(function) + SLOTS[Dispatched]["_native_call"]).value = table.native.call


def _same_leaves(call: Call) -> bool:
    """Whether native code meets the arrays in the order in which the program takes them."""
    found = [x for x in _walk((call.args, call.kwargs)) if type(x) in (array, np.ndarray)]
    return list(map(id, found)) == list(map(id, call.leaves)) and len(found) < LEAVES


def _plain(operands: Sequence[Value]) -> bool:
    return all(v.view is not None and v.view.dtype is v.aval.dtype.numpy for v in operands)


def _walk(x: Any) -> Iterator[Any]:
    """The leaves of exactly tuples, lists and dicts, from left to right, None among them."""
    if type(x) in (tuple, list):
        for item in x:
            yield from _walk(item)
    elif type(x) is dict:
        for item in x.values():
            yield from _walk(item)
    else:
        yield x


def _strings(x: Any) -> Iterator[str]:
    """All strings and keys of dicts in an argument."""
    if type(x) in (tuple, list):
        for item in x:
            yield from _strings(item)
    elif type(x) is dict:
        for key, item in x.items():
            yield key
            yield from _strings(item)
    elif type(x) is str:
        yield x


def _tree_words(tree: Tree, statics: Sequence[Any]) -> Any:
    """The structure of results for native code; None for one array, False for what it does not build."""
    words: list[int] = []
    rest = iter(statics)

    def add(node: Tree) -> bool:
        if node.kind == "leaf":
            static = next(rest)
            words.extend((LEAF,) if static is None else (STATIC, id(static[0])))
        elif node.kind == "none":
            words.extend((STATIC, id(None)))
        elif node.kind in ("tuple", "list"):
            words.append((TUPLE if node.kind == "tuple" else LIST) + COUNT * len(node.children))
            return all(map(add, node.children))
        elif node.kind == "dict" and all(type(key) is str for key in node.keys):
            words.append(DICT + COUNT * len(node.children))
            for key, child in zip(node.keys, node.children, strict=True):
                words.append(id(key))
                if not add(child):
                    return False
        else:
            return False
        return True

    if not add(tree):
        return False
    return None if words == [LEAF] else (ctypes.c_int64 * len(words))(*words)


# -- the process ------------------------------------------------------------------------------------


def _word(address: int) -> ctypes.c_uint64:
    return ctypes.c_uint64.from_address(address)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Unavailable(what)


def _check_python() -> None:
    name = sys.implementation.name
    _require(name == "cpython", f"not made for {name}")
    version = sys.version_info[:2]
    _require(version in _VERSIONS, f"not made for Python {version[0]}.{version[1]}")
    _require(not sys.abiflags, f"not made for builds of Python that are called {sys.abiflags!r}")
    _require(sys.maxsize == (1 << 63) - 1 and sys.byteorder == "little", "not made for this processor")


def _check_layouts() -> None:
    """Compare all that native code takes for granted with objects whose contents are known."""
    for cls in (int, type, np.ndarray, array, Value, Storage, Dispatched):
        sizes = _word(id(cls) + _BASICSIZE).value, _word(id(cls) + _FLAGS).value
        _require(sizes == (cls.__basicsize__, cls.__flags__), f"unknown structure of type {cls.__name__}")
    plain, callable_, other = (type("T", (), {"__call__": f} if f else {}) for f in (None, len, repr))
    calls = [_word(id(t) + _CALL).value for t in (plain, callable_, other)]
    _require(calls[0] == 0 != calls[1] == calls[2], "unknown place of tp_call")
    known: tuple[Any, ...] = (int, type(len), type(_require))
    for kind in known:
        offset, has = _word(id(kind) + _VECTORCALL_OFFSET).value, bool(kind.__flags__ & _HAVE_VECTORCALL)
        _require((16 <= offset < kind.__basicsize__) == has, "unknown place of vectorcalls")
    for owner, slots in SLOTS.items():
        for name, offset in slots.items():
            found = _word(_member(owner, name) + _MEMBER_OFFSET).value
            _require(found == offset, f"{owner.__name__}.{name} is at {found}")
    x = array([[1.0, 2.0, 3.0]])
    value = x._value
    _require(_word(id(x) + 16).value == id(value), "unknown structure of slots")
    for name, offset in SLOTS[Value].items():
        _require(_word(id(value) + offset).value == id(getattr(value, name)), f"unknown place of {name}")
    for items in ((x, value), [x, value]):
        data = id(items) + 24 if type(items) is tuple else _word(id(items) + 24).value
        words = [_word(id(items) + 16).value, _word(data).value, _word(data + 8).value]
        _require(words == [2, id(x), id(value)], "unknown structure of sequences")
    number = float("1.5")
    _require(ctypes.c_double.from_address(id(number) + 16).value == number, "unknown structure of floats")
    counts = [(sys.getrefcount(x), _word(id(x)).value)]
    another = x
    counts.append((sys.getrefcount(another), _word(id(x)).value))
    _require(counts[1] == (counts[0][0] + 1, counts[0][1] + 1), "unknown reference counts")
    _check_numpy()


def _check_numpy() -> None:
    base = np.zeros((4, 6), np.int16)
    for a in (base, base[1:3], base[:, ::2], np.zeros((), np.float32)):
        shape = [_word(_word(id(a) + 32).value + 8 * i).value for i in range(a.ndim)]
        strides = [_word(_word(id(a) + 40).value + 8 * i).value for i in range(a.ndim)]
        found = (
            _word(id(a) + 16).value, ctypes.c_int32.from_address(id(a) + 24).value, shape, strides,
            _word(id(a) + 48).value, _word(id(a) + 56).value, ctypes.c_int32.from_address(id(a) + 64).value,
            _word(id(a) + 72).value,
        )  # fmt: skip
        expected = (
            a.__array_interface__["data"][0], a.ndim, list(a.shape), list(a.strides),
            _id(a.base), id(a.dtype), a.flags.num, 0,
        )  # fmt: skip
        _require(found == expected, "unknown structure of numpy.ndarray")
    reference = weakref.ref(base)
    _require(_word(id(base) + 72).value == id(reference), "unknown place of NumPy's weak references")


def _member(owner: type, name: str) -> int:
    """The address of the description of a slot."""
    descriptor = owner.__dict__[name]
    _require(
        type(descriptor) is MemberDescriptorType and MemberDescriptorType.__basicsize__ == _MEMBER + 8,
        "unknown structure of members",
    )
    address = _word(id(descriptor) + _MEMBER).value
    # the names of slots are strings of Python, whose characters the description points to
    text = _word(address).value
    known = descriptor.__name__
    _require(id(known) < text < id(known) + known.__sizeof__(), "unknown structure of members")
    _require(ctypes.string_at(text, len(name)) == name.encode(), "unknown names of members")
    kind = ctypes.c_int32.from_address(address + _MEMBER_TYPE).value
    _require(kind in (_OBJECT, _NUMBER), "unknown kinds of members")
    return address


def _make_numbers(owner: type[Dispatched]) -> None:
    """Let the slots of a class hold numbers instead of objects, so that the garbage collector and the end of
    an instance leave them alone; nobody has stored anything in them yet."""
    for name in SLOTS[Dispatched]:
        member = _member(owner, name)
        ctypes.c_int32.from_address(member + _MEMBER_TYPE).value = _NUMBER
        ctypes.c_int32.from_address(member + _MEMBER_FLAGS).value = _READ_ONLY
        _require(getattr(owner(), name) == 0, "slots stay objects")


def _accept(cls: type) -> None:
    """Let instances of a class be called through their own slot."""
    offset = _word(id(cls) + _VECTORCALL_OFFSET)
    if offset.value != SLOTS[Dispatched]["_native_call"] or not cls.__flags__ & _HAVE_VECTORCALL:
        offset.value = SLOTS[Dispatched]["_native_call"]
        _word(id(cls) + _FLAGS).value |= _HAVE_VECTORCALL
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _api_words() -> list[int]:
    c = ctypes.pythonapi
    numpy = _numpy_functions()
    functions = (
        c._Py_Dealloc, c.PyTuple_New, c.PyList_New, c.PyDict_New, c.PyDict_SetItem, c.PyDict_Next,
        c.PyLong_AsLongLongAndOverflow, c.PyType_GenericAlloc, c.PyObject_CallNoArgs, c.PyEval_SaveThread,
        c.PyEval_RestoreThread,
    )  # fmt: skip
    objects = (
        None, True, False, 0, array, Value, Storage, np.ndarray, tuple, list, dict, int, float, str,
        np.dtype(np.float64), np.dtype(np.uint8), tracer_state._running,
    )  # fmt: skip
    return [
        *map(_address, functions),
        *(_word(numpy + 8 * number).value for number in (_NEW_ARRAY, _SET_BASE)),
        *map(id, objects),
        Value.__weakrefoffset__ & (1 << 64) - 1,  # type: ignore[attr-defined]
        1 << 31 if sys.version_info >= (3, 12) else 0,
    ]


def _numpy_functions() -> int:
    """NumPy's table of functions, of which the third word is its array type."""
    for name in _CAPSULES:
        module = sys.modules.get(name)
        capsule = getattr(module, "_ARRAY_API", None)
        if capsule is not None:
            get = ctypes.pythonapi.PyCapsule_GetPointer
            get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            table = get(capsule, None)
            _require(_word(table + 16).value == id(np.ndarray), "unknown table of NumPy's functions")
            return table
    raise Unavailable("NumPy's table of functions is not where it was")


class _Probe(Dispatched):
    """Doubles a number; what Python answers is told by its sign."""

    def __init__(self) -> None:
        self.inputs = [leaf(np.array([21], np.int64)), leaf(np.array([7], np.int64))]

    def __call__(self, x: array, *, key: Any = None) -> Any:
        return -2 * x.item()


def _aligned(view: np.ndarray) -> bool:
    return view.__array_interface__["data"][0] % ALIGNMENT == 0


def _try(native: _Native) -> None:
    """Call a function whose program is in the image itself."""
    probe = _Probe()
    aval = probe.inputs[0].aval
    x, y = map(wrap, probe.inputs)
    table = Table(native, [True], True)
    entries: list[Entry] = []
    for given, result in ((x, Aval((2, 3), aval.dtype)), (x, Aval((100, 2), aval.dtype))):
        words, hash = native.words((given,), {"key": len(entries)}, True) or (None, 0)
        _require(words is not None, "describes nothing in a test")
        program = native.image.address("twice")
        entries.append(Entry(words, hash, program, 0, (result,), None, None))
        table.add(entries[-1])
    probe.__dict__["_dispatch"] = table
    _point(probe, table)

    def calls() -> bool:
        answers = [probe(x, key=i % 2) for i in range(4 * _KEPT)]
        views = [a._value.view for a in answers if type(a) is array and a._value.serial == 0]
        right = len(views) == len(answers) and all(v.flags.c_contiguous and v.flat[0] == 42 for v in views)
        right = right and all(v.shape == (2, 3) for v in views[::2])
        right = right and all(v.shape == (100, 2) and _aligned(v) for v in views[1::2])
        memory = {v.__array_interface__["data"][0] for v in views}
        return right and len(memory) == len(answers)

    _require(calls() and calls(), "wrong results in a test")
    _require(probe(x, key=6) == probe(x) == -42 and probe(y, key=0) == -14, "wrong ways in a test")
    made = probe(x, key=1)._value
    ring = _rings.get(made.aval)
    _require(ring is not None and any(made is value for value in ring), "keeps no results in a test")
    objects: list[Any] = [aval, aval.dtype.numpy, x, y, x._value, y._value.view, made, table, *entries]
    objects += [array, Value, Storage, None, 0, False, "key"]
    for _ in range(3):  # another thread may do something meanwhile
        before = [sys.getrefcount(o) for o in objects]
        calls(), probe(y, key=1)
        after = [sys.getrefcount(o) for o in objects]
        if before == after:
            return
    raise Unavailable("wrong reference counts in a test")
