"""The buffer protocol (PEP 3118) for `array`: `memoryview(x)`, `bytes(x)`, `np.array(x, copy=False)`.

From Python 3.12 on a class can define `__buffer__`. On 3.11 only C types could, so the slot of the class is
pointed at a few instructions of machine code. A ctypes callback would be simpler, but what it raises is lost.
Where that does not work, NumPy still gets its zero-copy view from `array.__array__`.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from typing import Any

import numpy as np

from ingot.tracer.array import array

# What `_CODE` does, where name, get_attribute, get_buffer and drop are the four words behind it:
#
#     int getbuffer(PyObject *self, Py_buffer *view, int flags) {
#         PyObject *source = get_attribute(self, name);
#         if (!source) { view->obj = NULL; return -1; }
#         int status = get_buffer(source, view, flags);
#         drop(source);
#         return status;
#     }
_CODE = {
    "x86_64": bytes.fromhex(
        "53415441554889f34189d4488b3546000000ff15480000004885c074214989c54889c74889de4489"
        "e2ff153900000089c34c89efff153600000089d8eb0d48c7430800000000b8ffffffff415d415c5b"
        "c30f1f8000000000"
    ),
    "aarch64": bytes.fromhex(
        "fd7bbda9fd030091f35301a9f51300f9f30301aaf403022ac1020058e902005820013fd6800100b4"
        "f50300aae10313aae203142a6902005820013fd6f303002ae00315aa2902005820013fd6e003132a"
        "030000147f0600f900008012f51340f9f35341a9fd7bc3a8c0035fd61f2003d5"
    ),
}
_CODE["amd64"], _CODE["arm64"] = _CODE["x86_64"], _CODE["aarch64"]

# Offsets in CPython 3.11's PyTypeObject, checked before use.
_BASICSIZE, _AS_BUFFER, _FLAGS = 32, 160, 168

_SOURCE = "_buffer_source"
_alive: list[Any] = []


def install() -> bool:
    """Give `array` the buffer protocol; False when this platform does not allow it."""
    setattr(array, _SOURCE, property(array._writable_view))
    if sys.version_info >= (3, 12):
        array.__buffer__ = _buffer  # type: ignore[attr-defined]
        return True
    try:
        slot = _slot(array)
        if slot is None:
            return False
        entry = _machine_code()
    except (OSError, AttributeError, ValueError):
        return False
    slot.value = entry
    if _works():
        return True
    slot.value = None
    return False


def _buffer(self: array, flags: int) -> memoryview:
    return memoryview(self._writable_view())  # type: ignore[arg-type]


def _slot(cls: type) -> ctypes.c_void_p | None:
    """`tp_as_buffer->bf_getbuffer` of a class, or None when the layout is not the expected one."""

    def word(of: type, offset: int) -> int:
        return ctypes.c_size_t.from_address(id(of) + offset).value

    known = (cls, int, bytes, np.ndarray)
    if platform.python_implementation() != "CPython" or sys.version_info[:2] != (3, 11):
        return None
    if any(word(t, _BASICSIZE) != t.__basicsize__ or word(t, _FLAGS) != t.__flags__ for t in known):
        return None
    if word(int, _AS_BUFFER) or not word(bytes, _AS_BUFFER):
        return None
    # the methods of a class stand inside its own object, so this is memory of `cls`
    table = word(cls, _AS_BUFFER)
    if not id(cls) < table < id(cls) + type.__sizeof__(cls):
        return None
    slot = ctypes.c_void_p.from_address(table)
    return slot if slot.value is None else None


def _machine_code() -> int:
    """Address of `getbuffer`, in memory that is executable and no longer writable."""
    api = ctypes.pythonapi
    code = _CODE.get(platform.machine().lower())
    if code is None:
        raise ValueError(f"[buffer] no code for {platform.machine()}.")
    name = sys.intern(_SOURCE)
    words = [id(name)] + [
        ctypes.cast(function, ctypes.c_void_p).value or 0
        for function in (api.PyObject_GetAttr, api.PyObject_GetBuffer, api.Py_DecRef)
    ]
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory.write(code + b"".join(w.to_bytes(8, sys.byteorder) for w in words))
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    protect = libc.mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
    if sys.platform == "darwin":
        libc.sys_icache_invalidate(ctypes.c_void_p(address), ctypes.c_size_t(len(code)))
    _alive.extend((memory, name))
    return address


def _works() -> bool:
    """Try it on one array."""
    x = array([1, 2, 3])
    try:
        view = memoryview(x)
        return view.format == "i" and view.tolist() == [1, 2, 3] and not view.readonly
    except (TypeError, BufferError, SystemError):
        return False
