"""The byte layer of an `.ingot` file: prelude, header of sections, aligned blobs. It knows nothing of graphs.

A file is a sequence of MessagePack objects. Layout (SPEC.md has the details):

    prelude   one `bin 8` of 64 bytes in all: magic, version, lengths, truncated SHA-256
    header    one canonical map: section name -> [critical, bin]
    blobs     each a padding `bin` of zeros, then one `bin 32` whose payload is aligned in the file

The section `bins` lists the blobs: offset (relative to the data offset, where the first payload starts),
length, and a CRC-32 per 4 MiB chunk. Nothing in a file is believed before it is checked; see `Container`.
"""

from __future__ import annotations

import hashlib
import io
import mmap as mapping
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ingot.format.canonical import DamageError, column, decode, encode, fields, read_column
from ingot.tracer.errors import FormatError

MAGIC = b"\x8eINGOT\r\n"
MAJOR, MINOR = 1, 0
PRELUDE = 64
CHUNK = 4 << 20
ALIGN, PAGE, IMAGE = 64, 4096, 65536
LARGE = 1 << 20  # payloads from this size on start on a page
MAX_BIN = (1 << 32) - 1
# `bin 8` head, magic, major, minor, header length, data offset, file length; the digest follows
_FIELDS = struct.Struct("<2s8sHHQQQ")
_PRELUDE_HEAD = b"\xc4\x3e"
_PARALLEL = 8 * CHUNK
# Sections this version understands; the first five and `bins` are critical.
KNOWN = frozenset(
    {
        "constants",
        "dims",
        "functions",
        "graphs",
        "primitives",
        "bins",
        "metadata",
        "producer",
        "sources",
        "tests",
    }
)


class MissingFileError(FormatError, FileNotFoundError):
    """The file to import does not exist."""


@dataclass(frozen=True)
class Section:
    """One section of the header. A reader that does not know a critical section refuses the file."""

    data: bytes
    critical: bool = True


Buffer = bytes | bytearray | memoryview
Source = str | os.PathLike | BinaryIO


# Writing


class Blobs:
    """Payloads of a file under construction; equal ones are kept once."""

    def __init__(self, max_bin: int = MAX_BIN) -> None:
        self.bins: list[memoryview] = []
        self.alignments: list[int] = []
        self.crcs: list[bytes] = []
        self._max_bin = max_bin
        self._known: dict[tuple[int, int, bytes], list[tuple[int, int]]] = {}

    def add(self, data: Buffer | np.ndarray, alignment: int = 0) -> tuple[int, int]:
        """Add a payload (C-contiguous) and return its place: index of its first bin and number of bins.

        An empty payload takes no bin. `alignment` in bytes is at least what the payload's size asks for.
        """
        whole = _bytes_of(data)
        if not len(whole):
            return (0, 0)
        pieces = [whole[i : i + self._max_bin] for i in range(0, len(whole), self._max_bin)]
        crcs = [_crcs(piece) for piece in pieces]
        key = (len(whole), alignment, b"".join(crcs))
        for place in self._known.get(key, ()):
            if all(a == b for a, b in zip(self.bins[place[0] : sum(place)], pieces, strict=True)):
                return place
        place = (len(self.bins), len(pieces))
        self.bins += pieces
        self.alignments += [max(alignment, _natural_alignment(len(piece))) for piece in pieces]
        self.crcs += crcs
        self._known.setdefault(key, []).append(place)
        return place


def _bytes_of(data: Buffer | np.ndarray) -> memoryview:
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    return memoryview(data).cast("B")


def _natural_alignment(length: int) -> int:
    return PAGE if length >= LARGE else ALIGN


def _crcs(data: memoryview) -> bytes:
    """Little-endian CRC-32 of each 4 MiB chunk."""
    return struct.pack(f"<{-(-len(data) // CHUNK)}I", *_each_chunk(zlib.crc32, data))


def _each_chunk(function: Callable[[memoryview], int], data: memoryview) -> list[int]:
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    if len(data) < _PARALLEL:
        return [function(chunk) for chunk in chunks]
    from concurrent.futures import ThreadPoolExecutor  # only large files need it

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, chunks))


def _up(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _padding(length: int) -> bytes:
    """A MessagePack `bin` of zeros that takes `length` >= 2 bytes in all."""
    if length <= 2 + 0xFF:
        return b"\xc4" + struct.pack(">B", length - 2) + bytes(length - 2)
    if length <= 3 + 0xFFFF:
        return b"\xc5" + struct.pack(">H", length - 3) + bytes(length - 3)
    return b"\xc6" + struct.pack(">I", length - 5) + bytes(length - 5)


def assemble(sections: Mapping[str, Section], blobs: Blobs | None = None) -> Iterator[Buffer]:
    """The file in pieces, in order. The same sections and blobs give the same bytes."""
    blobs = blobs or Blobs()
    offsets, end = [], 0
    for i, (data, alignment) in enumerate(zip(blobs.bins, blobs.alignments, strict=True)):
        start = _up(end + 7, alignment) if i else 0  # 5 bytes of `bin 32` and at least 2 of padding
        offsets.append(start)
        end = start + len(data)
    table = {"crc": b"".join(blobs.crcs), "length": column(map(len, blobs.bins)), "offset": column(offsets)}
    sections = dict(sections) | {"bins": Section(encode(table))}
    header = encode({name: [s.critical, s.data] for name, s in sections.items()})
    data_offset = PRELUDE + len(header)
    if blobs.bins:
        data_offset = _up(data_offset + 7, max(blobs.alignments))
    head = _FIELDS.pack(_PRELUDE_HEAD, MAGIC, MAJOR, MINOR, len(header), data_offset, data_offset + end)
    yield head + _digest(head, header)
    yield header
    position = PRELUDE + len(header)
    for offset, data in zip(offsets, blobs.bins, strict=True):
        start = data_offset + offset
        yield _padding(start - position - 5) + b"\xc6" + struct.pack(">I", len(data))
        yield data
        position = start + len(data)


def _digest(head: Buffer, header: Buffer) -> bytes:
    sha = hashlib.sha256(head)
    sha.update(header)
    return sha.digest()[: PRELUDE - _FIELDS.size]


def write(target: Source, sections: Mapping[str, Section], blobs: Blobs | None = None) -> None:
    """Write a file atomically, or to a binary file object.

    A path is written beside its final place, synced and renamed: whatever fails, the old file stays whole and
    no partial file remains. Links are followed; devices and pipes are written to. OSError when the system
    refuses.
    """
    pieces = assemble(sections, blobs)
    if not isinstance(target, str | os.PathLike):
        _write_pieces(target, pieces)
        return
    path = os.path.realpath(os.fspath(target))
    old = os.stat(path) if os.path.exists(path) else None
    if old is not None and not stat.S_ISREG(old.st_mode):
        with open(path, "wb") as file:
            _write_pieces(file, pieces)
        return
    temporary = os.path.join(os.path.dirname(path), f".{os.urandom(8).hex()}.partial")
    try:
        with open(temporary, "xb") as file:
            if old is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
            _write_pieces(file, pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            raise OSError(error.errno, error.strerror, os.fspath(target)) from None
        raise
    _sync_folder(os.path.dirname(path))


def _write_pieces(file: BinaryIO, pieces: Iterator[Buffer]) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest):
            written = file.write(rest)
            rest = rest[len(rest) if written is None else written :]  # raw files may write less


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # the failure that led here is the one to report


def _sync_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # a folder that may be written but not read: the rename itself is done
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems cannot sync folders
    finally:
        os.close(descriptor)


# Reading


class Container:
    """An opened file whose prelude, header and blob layout were checked.

    sections  name -> bytes of the known sections
    unknown   the ignorable sections this reader does not know, untouched
    name      what messages call the file

    `payload` gives the bytes of a blob after checking each of its chunks once.
    """

    def __init__(self, data: memoryview, name: str, known: frozenset[str], mapped: bool) -> None:
        self.name = name
        self.mapped = mapped
        self.sections: dict[str, bytes] = {}
        self.unknown: dict[str, Section] = {}
        self.version = (MAJOR, MINOR)
        self._data = data
        self._places: dict[str, int] = {}
        with self.located():
            header, self._data_offset = _check_prelude(data)
            self._read_header(header, known | {"bins"})
            self._read_bins(PRELUDE + len(header))
        self.version = (MAJOR, struct.unpack_from("<H", data, 12)[0])

    def located(self, section: str | None = None) -> _Located:
        """A context that completes DamageErrors with the file's name and the place of `section`."""
        return _Located(self.name, None if section is None else self._places.get(section))

    @property
    def size(self) -> int:
        """Length of the file in bytes."""
        return len(self._data)

    def section(self, name: str) -> Any:
        """The decoded section `name`; FormatError when the file has none."""
        if name not in self.sections:
            raise FormatError(f"[import_function] {self.name}: the section {name!r} is missing.")
        with self.located():
            return decode(self.sections[name], self._places[name])

    def _read_header(self, header: bytes, known: frozenset[str]) -> None:
        entries = decode(header, PRELUDE)
        if type(entries) is not dict:
            raise DamageError("the header is not a map of sections", PRELUDE)
        search = 0
        for name, entry in entries.items():
            if type(entry) is not tuple or tuple(map(type, entry)) != (bool, bytes):
                raise DamageError(f"section {name!r}: expected [critical, bytes]", PRELUDE)
            critical, data = entry
            place = header.find(data, search)
            search = place + len(data)
            self._places[name] = PRELUDE + place
            if name in known:
                self.sections[name] = data
            elif critical:
                raise DamageError(
                    f"section {name!r} is needed to read this file and unknown here: "
                    "it was written by a newer version of Ingot",
                    PRELUDE + place,
                )
            else:
                self.unknown[name] = Section(data, False)

    def _read_bins(self, position: int) -> None:
        """Check that blobs follow one another without hole or overlap up to the end of the file."""
        if "bins" not in self.sections:
            raise DamageError("the section 'bins' is missing", PRELUDE)
        where = self._places["bins"]
        table = decode(self.sections["bins"], where)
        crc, lengths, offsets = fields(table, "bins", crc=bytes, length=tuple, offset=tuple)
        size = len(self._data)
        self._lengths = read_column(lengths, "bins.length", limit=1 << 32)
        self._offsets = read_column(offsets, "bins.offset", len(self._lengths), limit=size)
        data, base = self._data, self._data_offset
        if self._offsets and self._offsets[0]:
            raise DamageError("the first blob does not start at the data offset", where)
        if not self._offsets and base != position:
            raise DamageError("the data offset is not the end of the header", 22)
        first_chunk = [0]
        for offset, length in zip(self._offsets, self._lengths, strict=True):
            start = base + offset
            if start - position < 7 or start + length > size:
                raise DamageError("a blob overlaps its neighbour or the end of the file", position)
            if start % _natural_alignment(length):
                raise DamageError("a blob's payload is not aligned", start)
            _check_padding(data, position, start - 5)
            if not length or bytes(data[start - 5 : start]) != b"\xc6" + struct.pack(">I", length):
                raise DamageError("a blob's length differs from the table of bins", start - 5)
            first_chunk.append(first_chunk[-1] + -(-length // CHUNK))
            position = start + length
        if position != size:
            raise DamageError(f"{size - position} bytes after the last object", position)
        if len(crc) != 4 * first_chunk[-1]:
            raise DamageError("the table of checksums has the wrong length", where)
        self._crcs = np.frombuffer(crc, "<u4").tolist()
        self._first_chunk = first_chunk
        self._checked = bytearray(len(self._lengths))

    @property
    def bin_count(self) -> int:
        """Number of blobs."""
        return len(self._lengths)

    def length(self, first: int, count: int) -> int:
        """Bytes of the payload in bins `first .. first+count`; DamageError when there are no such bins."""
        if first < 0 or count < 0 or first + count > len(self._lengths) or (count == 0 and first):
            raise DamageError(f"bins {first} to {first + count} of {len(self._lengths)}")
        return sum(self._lengths[first : first + count])

    def place(self, first: int) -> int:
        """Byte of the file where the payload of bin `first` starts."""
        return self._data_offset + self._offsets[first]

    def payload(self, first: int, count: int) -> memoryview:
        """The checked payload in bins `first .. first+count`: a view, or a copy when there are several."""
        with self.located():
            self.length(first, count)
            for index in range(first, first + count):
                if not self._checked[index]:
                    self._check(index)
                    self._checked[index] = 1
            if count == 1:
                return self._bin(first)
            return memoryview(b"".join(self._bin(i) for i in range(first, first + count)))

    def check_all(self) -> None:
        """Check every chunk of every blob now."""
        for index in range(len(self._lengths)):
            self.payload(index, 1)

    def _bin(self, index: int) -> memoryview:
        start = self._data_offset + self._offsets[index]
        return self._data[start : start + self._lengths[index]]

    def _check(self, index: int) -> None:
        expected = self._crcs[self._first_chunk[index] : self._first_chunk[index + 1]]
        found = _each_chunk(zlib.crc32, self._bin(index))
        for i, (is_now, was) in enumerate(zip(found, expected, strict=True)):
            if is_now != was:
                start = self._data_offset + self._offsets[index] + i * CHUNK
                raise DamageError(f"checksum of stored data is {is_now:08x}, the file says {was:08x}", start)


class _Located:
    """Context that completes DamageErrors with the file's name and, when they lack one, an offset."""

    def __init__(self, name: str, offset: int | None) -> None:
        self.name = name
        self.offset = offset

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DamageError):
            offset = self.offset if error.offset is None else error.offset
            where = "" if offset is None else f" byte {offset}:"
            raise FormatError(f"[import_function] {self.name}:{where} {error.reason}.") from None


def _check_prelude(data: memoryview) -> tuple[bytes, int]:
    """Header bytes and data offset, after all checks that need no knowledge of the sections."""
    size = len(data)
    start = bytes(data[:PRELUDE])
    _check_magic(start)
    if size < 14:
        raise DamageError(f"the file ends after {size} bytes, within its prelude", size)
    major, minor = struct.unpack_from("<HH", start, 10)
    if major > MAJOR:
        raise DamageError(
            f"the file has format version {major}.{minor}; this Ingot reads versions up to "
            f"{MAJOR}.x: a newer Ingot is needed",
            10,
        )
    if major == 0:
        raise DamageError("format version 0 does not exist", 10)
    if size < PRELUDE:
        raise DamageError(f"the file ends after {size} bytes, within its prelude", size)
    _, _, _, _, header_length, data_offset, file_length = _FIELDS.unpack_from(start)
    if file_length != size:
        kind = "truncated" if size < file_length else "followed by other bytes"
        raise DamageError(f"the file is {kind}: {size} bytes where its prelude says {file_length}", 30)
    if not PRELUDE + header_length <= data_offset <= size:
        raise DamageError("header length, data offset and file length contradict each other", 14)
    header = bytes(data[PRELUDE : PRELUDE + header_length])
    if _digest(start[: _FIELDS.size], header) != start[_FIELDS.size :]:
        raise DamageError("the checksum of prelude and header does not match: the file is damaged", 38)
    return header, data_offset


def _check_magic(start: bytes) -> None:
    if start[:10] == _PRELUDE_HEAD + MAGIC:
        return
    if not start:
        raise DamageError("the file is empty", 0)
    if (_PRELUDE_HEAD + MAGIC).startswith(start):
        raise DamageError(f"the file ends after {len(start)} bytes, within its prelude", len(start))
    written_by = _mlx_version(start)
    if written_by:
        raise DamageError(
            f"this is a function exported by MLX {written_by}. Ingot cannot read MLX's own "
            "format: load it with MLX, or export the function again with Ingot",
            0,
        )
    if start[2:8] == MAGIC[:6] or start[3:8] == MAGIC[1:6]:
        raise DamageError("the magic number is damaged, as by a transfer in text mode", 2)
    raise DamageError("not an Ingot file (wrong magic number)", 0)


def _mlx_version(start: bytes) -> str:
    """MLX's files start with its version, a string behind its length as a 64-bit integer."""
    if len(start) < 9:
        return ""
    length = int.from_bytes(start[:8], "little")
    version = start[8 : 8 + length]
    if 3 <= length <= 40 and len(version) == length and re.fullmatch(rb"\d+\.\d+[\w.+-]*", version):
        return version.decode("ascii")
    return ""


def _check_padding(data: memoryview, position: int, end: int) -> None:
    """One `bin` of zeros must fill the bytes from `position` to `end`, its length in the shortest form."""
    length = end - position
    head = 2 if length <= 2 + 0xFF else 3 if length <= 3 + 0xFFFF else 5
    if length - head > MAX_BIN:
        raise DamageError("padding longer than 4 GiB", position)
    code = {2: ">BB", 3: ">BH", 5: ">BI"}[head]
    expected = struct.pack(code, {2: 0xC4, 3: 0xC5, 5: 0xC6}[head], length - head)
    if bytes(data[position : position + head]) != expected:
        raise DamageError("padding between blobs is missing or has the wrong length", position)
    for start in range(position + head, end, CHUNK):
        piece = bytes(data[start : min(start + CHUNK, end)])
        if piece.count(0) != len(piece):
            raise DamageError("padding holds something other than zeros", start)


def open_container(
    source: Source, known: frozenset[str] = KNOWN, mmap: bool = True, verify: str = "use"
) -> Container:
    """Open and check a file.

    source   path, os.PathLike, or binary file object (read to its end)
    known    sections the caller understands; others are kept in `unknown`, or refused when critical
    mmap     map a regular file (True) or copy it into memory
    verify   "use" checks each payload once, when it is first asked for; "open" checks all of them now

    FormatError with offset and reason for anything that is not a whole, sound file.
    """
    if verify not in ("open", "use"):
        raise ValueError(f"[import_function] verify must be 'open' or 'use', got {verify!r}.")
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        try:
            with open(name, "rb") as file:
                data, mapped = _contents(file, mmap)
        except FileNotFoundError as error:
            raise MissingFileError(f"[import_function] {name}: no such file.") from error
    else:
        name = str(getattr(source, "name", "file object"))
        data, mapped = _aligned(source.read()), False
    container = Container(data, str(name), frozenset(known), mapped)
    if verify == "open":
        container.check_all()
    return container


def _contents(file: io.BufferedReader, mmap: bool) -> tuple[memoryview, bool]:
    size = os.fstat(file.fileno()).st_size
    if mmap and size:
        try:
            return memoryview(mapping.mmap(file.fileno(), 0, access=mapping.ACCESS_READ)), True
        except (OSError, ValueError):
            pass  # pipes and some file systems cannot be mapped
    return _aligned(file.read()), False


def _aligned(data: bytes) -> memoryview:
    """A read-only copy whose first byte has the alignment that payloads have in the file."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"[import_function] expected a binary file, its read() gave {type(data).__name__}.")
    room = np.empty(len(data) + PAGE, np.uint8)
    start = -room.ctypes.data % PAGE
    copy = room[start : start + len(data)]
    copy[:] = np.frombuffer(data, np.uint8)
    copy.flags.writeable = False
    return copy.data
