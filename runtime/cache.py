"""The cache of compiled code on disk: blobs by key, written atomically, checked before use.

Keys are made by the callers from everything the content depends on (`key`); a blob carries its SHA-256. The
folder and its files must belong to this user and be writable by nobody else: they hold code that will run.
Whatever is wrong with an entry, it is as if it were not there; the first time, a warning says so.

An entry's file is a header, zeros, and the blob:

    0     magic "INGOTC2\\n"
    8     SHA-256 of the blob
    40    u32, little endian: where the blob begins, at least 64; a page boundary for blobs that are mapped
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, TypeVar

from ingot.tracer import config
from ingot.tracer.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path  # as slow to import as all the rest of a start from the cache

T = TypeVar("T")

_MAGIC = b"INGOTC2\n"
_HEADER = struct.Struct("<8s32sI")
HEADER_SIZE = 64
"""Fewest bytes before a blob in its file."""
_MOST_PADDING = 1 << 16  # no system has larger pages
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_RECENT = 3600.0  # seconds: a use this long after the last one is written down
_TRIM_EVERY = 64  # writes between two looks at the folder's size


class Cache:
    """Blobs in `folder`, at most `limit` bytes of them; the least recently used go first. `folder=None`: no
    cache."""

    def __init__(self, folder: str | os.PathLike[str] | None, limit: int) -> None:
        self.folder = None if folder is None else os.fspath(folder)
        self.limit = limit
        self.hits = self.misses = 0
        self._usable: bool | None = None
        self._writes = 0
        self._lock = threading.Lock()

    def get(self, kind: str, key: str) -> bytes | None:
        """The blob stored under `key`, or None."""
        return self.use(kind, key, _read)

    def use(self, kind: str, key: str, take: Callable[[int, int, int, bytes], T]) -> T | None:
        """What `take(descriptor, offset, size, digest)` makes of the blob stored under `key`; None for none.

        The blob lies at `offset` of the open file. `take` must check its SHA-256, on the very bytes that it
        goes on to use, and raise ValueError, FormatError or OSError for a blob that cannot be used.
        """
        path = self._file(kind, key)
        if path is None:
            return None
        try:
            descriptor = os.open(path, _OPEN_FLAGS)
        except FileNotFoundError:
            self.misses += 1
            return None
        except OSError as error:
            self._refuse(path, error)
            return None
        try:
            status = os.fstat(descriptor)
            taken = take(descriptor, *_checked_header(descriptor, status))
        except (OSError, ValueError, FormatError) as error:
            self._refuse(path, error)
            return None
        finally:
            os.close(descriptor)
        self.hits += 1
        if abs(time.time() - status.st_mtime) > _RECENT:
            try:
                os.utime(path)  # read times are often not kept; the write time is when it was last useful
            except OSError:
                pass
        return taken

    def _refuse(self, path: str, error: Exception) -> None:
        self.misses += 1
        _warn(f"[cache] ignores {path}: {error}. The code is compiled again.")
        self._remove(path)

    def put(self, kind: str, key: str, payload: bytes, alignment: int = HEADER_SIZE) -> None:
        """Store a blob, at a multiple of `alignment` in its file. A folder that cannot be written costs a
        warning, nothing else."""
        path = self._file(kind, key)
        if path is None:
            return
        offset = max(HEADER_SIZE, alignment)
        header = _HEADER.pack(_MAGIC, hashlib.sha256(payload).digest(), offset).ljust(offset, b"\0")
        import tempfile  # slow to import, and most processes only read

        temporary = None
        try:
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".new-")
            with os.fdopen(handle, "wb") as file:
                file.write(header)
                file.write(payload)
            os.replace(temporary, path)
        except OSError as error:
            if temporary is not None:
                self._remove(temporary)
            _warn(f"[cache] cannot write {path}: {error}. Code is compiled anew in every process.")
            return
        with self._lock:
            self._writes += 1
            due = self._writes % _TRIM_EVERY == 1
        if due:
            self.trim()

    def path(self, kind: str, key: str) -> Path | None:
        """File of an entry; None when there is no usable folder."""
        from pathlib import Path

        file = self._file(kind, key)
        return None if file is None else Path(file)

    def _file(self, kind: str, key: str) -> str | None:
        if self.folder is None:
            return None
        if self._usable is None:
            self._usable = self._prepare()
        return os.path.join(self.folder, f"{key}.{kind}") if self._usable else None

    def entries(self) -> list[tuple[float, int, Path]]:
        """(time of last use, bytes, file) of every entry, oldest first."""
        from pathlib import Path

        found = []
        try:
            for item in os.scandir(self.folder) if self.folder is not None else ():
                try:
                    status = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # another process trims too
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime, status.st_size, Path(item.path)))
        except OSError:
            return []
        return sorted(found)

    def trim(self) -> None:
        """Remove the least recently used entries beyond the limit."""
        entries = self.entries()
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.limit:
                break
            self._remove(path)
            total -= size

    def clear(self) -> None:
        """Remove all entries."""
        for _, _, path in self.entries():
            self._remove(path)

    def _prepare(self) -> bool:
        assert self.folder is not None
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            status = os.lstat(self.folder)
        except OSError as error:
            _warn(f"[cache] cannot use {self.folder}: {error}. Code is compiled anew in every process.")
            return False
        private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if not private or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            trouble = "others may write to it. Code is compiled anew in every process."
            _warn(f"[cache] does not use {self.folder}: {trouble}")
            return False
        return True

    @staticmethod
    def _remove(path: str | os.PathLike[str]) -> None:
        try:
            os.unlink(path)
        except OSError:
            pass


def _checked_header(descriptor: int, status: os.stat_result) -> tuple[int, int, bytes]:
    """Where the blob of an open entry lies, its size, and its digest; raises ValueError."""
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a file")
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError("it belongs to, or is writable by, another user")
    header = os.pread(descriptor, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        raise ValueError("it is damaged")
    magic, digest, offset = _HEADER.unpack(header)
    if magic != _MAGIC or not HEADER_SIZE <= offset <= min(_MOST_PADDING, status.st_size):
        raise ValueError("it is damaged")
    return offset, status.st_size - offset, digest


def _read(descriptor: int, offset: int, size: int, digest: bytes) -> bytes:
    """The bytes of a blob, checked."""
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(offset)
        payload = file.read(size)
    if hashlib.sha256(payload).digest() != digest:
        raise ValueError("it is damaged")
    return payload


_warned: set[str] = set()


def _warn(message: str) -> None:
    """Warn once per process about each kind of trouble."""
    kind = message.split(":")[0].split("/")[0]
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def key(*parts: str | bytes) -> str:
    """Name of an entry: a digest over `parts` and over the code that makes code."""
    h = hashlib.sha256(toolchain().encode())
    h.update(_MAGIC)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.hexdigest()[:40]


@cache
def toolchain() -> str:
    """What generated code depends on beside its own text: the sources of lowering and tracer, llvmlite,
    Python's version and word size.

    Digests are over names, sizes and times of modification, which is cheap; a changed file has another
    time, and the same file installed twice merely misses the cache. llvmlite is looked at, not imported:
    that would cost more than the rest of the process.
    """
    import ingot.lowering

    root = os.path.realpath(ingot.lowering.__path__[0])
    h = hashlib.sha256()
    for folder in (root, os.path.join(os.path.dirname(root), "tracer"), *_llvmlite_folders()):
        for name, status in sorted(_files(os.path.realpath(folder), (".py", ".so", ".dylib"))):
            h.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return f"{h.hexdigest()} {sys.maxsize.bit_length()} {sys.hexversion:x}"


def _llvmlite_folders() -> list[str]:
    """Where llvmlite and the compiled library in it are."""
    spec = PathFinder.find_spec("llvmlite")
    if spec is None or not spec.origin:
        return []
    return [os.path.join(os.path.dirname(spec.origin), "binding")]


def _files(folder: str, endings: tuple[str, ...]) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as items:
        for item in items:
            if item.name.endswith(endings):
                yield item.path[-60:], item.stat()
            elif item.name != "__pycache__" and item.is_dir(follow_symlinks=False):
                yield from _files(item.path, endings)


@cache
def default() -> Cache:
    """The cache that `INGOT_CACHE_DIR` and `INGOT_CACHE_SIZE` describe."""
    where = config.get("INGOT_CACHE_DIR")
    limit = int(config.get("INGOT_CACHE_SIZE"))
    if where == "off":
        return Cache(None, limit)
    if where:
        return Cache(os.path.expanduser(where), limit)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Cache(os.path.join(os.path.expanduser(base), "ingot"), limit)


def _renew_lock() -> None:
    """After a fork: another thread of the parent, which the child does not have, may have held it."""
    if default.cache_info().currsize:
        default()._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
