"""Puts code images into memory, never writable and executable at the same time. Needs no compiler.

`load` copies an image into fresh pages; `map_file` and `map_checked` map the pages of a file and check all of
them. A mapped file must not be truncated while in use; the kernel cache only ever replaces files by renaming.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import platform
import sys
import weakref
from collections.abc import Mapping
from functools import cache
from typing import Any

from ingot.lowering.image import MAX_SIZE, Image, read_layout, round_up
from ingot.tracer.errors import FormatError

PAGE = mmap.PAGESIZE
"""What the place of an image in a file must be a multiple of, to be mapped."""
_NONE, _READ, _WRITE, _EXEC = 0, 1, 2, 4
_PRIVATE = 2
_ANONYMOUS = 0x1000 if sys.platform == "darwin" else 0x20
_JIT = 0x800  # macOS on ARM: pages that may change from writable to executable
_FAILED = ctypes.c_void_p(-1).value


class LoadedImage:
    """Code in memory. Addresses are valid until `unload`."""

    def __init__(self, base: int, size: int, entries: Mapping[str, int], target_key: str):
        self._base, self._size = base, size
        self._entries, self.target_key = entries, target_key

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def address(self, name: str) -> int:
        """Where the function `name` is. Raises KeyError for unknown names, ValueError after `unload`."""
        if not self._base:
            raise ValueError("[loader] the image has been unloaded.")
        return self._base + self._entries[name]

    def unload(self) -> None:
        """Give the memory back; the code must not be running."""
        if self._base:
            _unmap(self._base, self._size)
            self._base = 0

    def unload_when_unused(self) -> None:
        """Give the memory back with the last reference: for owners that hold the image while its code may
        run, and never call `unload`."""
        weakref.finalize(self, _unmap, self._base, self._size).atexit = False


def load(image: Image) -> LoadedImage:
    """Copy `image` into fresh memory. Raises OSError where the system refuses executable memory."""
    size = max(image.mapped_size, image.page)
    if _arm_mac():
        return _load_arm_mac(image, size)
    base = _mmap(size, _READ | _WRITE, _PRIVATE | _ANONYMOUS)
    try:
        ctypes.memmove(base, image.text, len(image.text))
        ctypes.memmove(base + image.rodata_distance, image.rodata, len(image.rodata))
        _protect(base, size, image.rodata_distance)
    except BaseException:
        _unmap(base, size)
        raise
    return LoadedImage(base, size, dict(image.entries), image.target_key)


def map_file(path: str | os.PathLike[str], offset: int = 0, length: int | None = None) -> LoadedImage:
    """Map the image at `offset` (a multiple of the system's page size) of a file. All of it is checked first:
    raises FormatError for damaged images, OSError for files that cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        size = os.fstat(descriptor).st_size - offset if length is None else length
        if not 0 < size <= MAX_SIZE:
            raise FormatError(f"[image] a code image cannot have {size} bytes.")
        data = os.pread(descriptor, size, offset)
        layout = read_layout(memoryview(data))
        start = offset + layout.text_at
        if start % mmap.PAGESIZE or layout.page % mmap.PAGESIZE:
            raise FormatError(
                f"[image] the code image is not aligned to the system's {mmap.PAGESIZE}-byte pages."
            )
        mapped = layout.total - layout.text_at
        base = _mmap(mapped, _READ, _PRIVATE, descriptor, start)
    finally:
        os.close(descriptor)
    try:
        _protect(base, mapped, round_up(layout.text_size, layout.page))
    except OSError:
        _unmap(base, mapped)
        raise
    return LoadedImage(base, mapped, dict(layout.entries), layout.target_key)


def map_checked(descriptor: int, offset: int, size: int, digest: bytes) -> LoadedImage:
    """Map the image in `size` bytes at `offset` of an open file, whose SHA-256 must be `digest`.

    The digest is taken over the mapping itself, so that what was checked is what runs. Where pages of that
    file cannot be executed (a file system mounted noexec, a file of another page size), they are copied.
    Raises ValueError for another digest, FormatError for bytes that are no image, OSError.
    """
    if not 0 < size <= MAX_SIZE:
        raise FormatError(f"[image] a code image cannot have {size} bytes.")
    lead = offset % mmap.PAGESIZE
    base = _mmap(lead + size, _READ, _PRIVATE, descriptor, offset - lead)
    try:
        view = memoryview((ctypes.c_uint8 * size).from_address(base + lead)).cast("B")
        if hashlib.sha256(view).digest() != digest:
            raise ValueError("it is damaged")
        layout = read_layout(view, checksum=False)
        if lead or layout.page % mmap.PAGESIZE or _arm_mac():
            return _copied(view, base, lead + size)
        start = base + layout.text_at
        length, text = layout.total - layout.text_at, round_up(layout.text_size, layout.page)
        try:
            _protect(start, length, text)
        except OSError:
            return _copied(view, base, size)
        _unmap(base, layout.text_at)  # the header has been read
    except BaseException:
        _unmap(base, lead + size)
        raise
    return LoadedImage(start, length, dict(layout.entries), layout.target_key)


def _copied(view: memoryview, base: int, size: int) -> LoadedImage:
    """The image in a mapping, loaded by copying; the mapping is given back."""
    loaded = load(Image.from_bytes(view))
    _unmap(base, size)
    return loaded


def _load_arm_mac(image: Image, size: int) -> LoadedImage:
    """Pages made with MAP_JIT switch between writable and executable per thread."""
    libc = _libc()
    base = _mmap(size, _READ | _WRITE | _EXEC, _PRIVATE | _ANONYMOUS | _JIT)
    libc.pthread_jit_write_protect_np(0)
    ctypes.memmove(base, image.text, len(image.text))
    ctypes.memmove(base + image.rodata_distance, image.rodata, len(image.rodata))
    libc.pthread_jit_write_protect_np(1)
    libc.sys_icache_invalidate(ctypes.c_void_p(base), ctypes.c_size_t(size))
    return LoadedImage(base, size, dict(image.entries), image.target_key)


def _arm_mac() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _unmap(base: int, size: int) -> None:
    _libc().munmap(base, size)


def _protect(base: int, size: int, text: int) -> None:
    for start, length, protection in ((base, text, _READ | _EXEC), (base + text, size - text, _READ)):
        if length and _libc().mprotect(start, length, protection):
            code = ctypes.get_errno()
            raise OSError(code, f"[loader] mprotect: {os.strerror(code)}")


def _mmap(size: int, protection: int, flags: int, descriptor: int = -1, offset: int = 0) -> int:
    address = _libc().mmap(None, size, protection, flags, descriptor, offset)
    if address == _FAILED or address is None:
        code = ctypes.get_errno()
        if code == errno.ENOMEM:
            raise MemoryError("[loader] no memory for code")
        raise OSError(code, f"[loader] mmap: {os.strerror(code)}")
    return address


def map_memory(size: int) -> int:
    """The address of zeroed memory that stays for the life of the process. Raises MemoryError, OSError."""
    return _mmap(size, _READ | _WRITE, _PRIVATE | _ANONYMOUS)


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = pointer
    libc.mmap.argtypes = [pointer, size, integer, integer, integer, ctypes.c_int64]
    libc.munmap.argtypes = [pointer, size]
    libc.mprotect.argtypes = [pointer, size, integer]
    return libc
