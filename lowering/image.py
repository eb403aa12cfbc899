"""Flat code images: position-independent code and its constants, ready to be mapped.

Layout, little endian:

    0     magic "\\x89INGIMG\\n"
    8     u32 version (1), u32 page size
    16    u64 text offset, u64 text size, u64 rodata offset, u64 rodata size, u64 total size
    56    u32 number of entries, u32 bytes of the target key, u32 bytes of all names, u32 zero
    72    SHA-256 of everything but these 32 bytes
    104   target key (UTF-8), then per entry u64 code offset and u32 name length, then the names; zeros
          to a page
    text  machine code, zeros to a page; rodata  constants, zeros to a page

Offsets count from the start of the image, and text and rodata begin on pages (4 KiB on x86-64, 64 KiB
elsewhere), so that both can be mapped with their own protection where the file itself is aligned. Code
refers to rodata by relative addresses, which is why their distance is part of the image. There are no
relocations left and no absolute addresses.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

from ingot.tracer.errors import FormatError
from ingot.tracer.record import record

MAGIC = b"\x89INGIMG\n"
VERSION = 1
PAGES = (4096, 16384, 65536)
MAX_SIZE = 1 << 30
_HEAD = struct.Struct("<8sII5QIIII32s")
_DIGEST_AT = _HEAD.size - 32
_ENTRY = struct.Struct("<QI")


def round_up(size: int, page: int) -> int:
    """`size` up to the next multiple of `page`."""
    return -(-size // page) * page


@record
class Image:
    """Code for one target. `entries` maps names to offsets in `text`; at run time `rodata` lies
    `rodata_distance` bytes after the start of `text`."""

    target_key: str
    page: int
    text: bytes
    rodata: bytes
    entries: Mapping[str, int]

    @property
    def rodata_distance(self) -> int:
        return round_up(len(self.text), self.page)

    @property
    def mapped_size(self) -> int:
        """Bytes of address space from the start of text to the end of rodata, in whole pages."""
        return self.rodata_distance + round_up(len(self.rodata), self.page)

    def to_bytes(self) -> bytes:
        """The image as a file; its length is a multiple of the page size."""
        key = self.target_key.encode()
        names = [name.encode() for name in self.entries]
        table = b"".join(
            _ENTRY.pack(at, len(name)) for name, at in zip(names, self.entries.values(), strict=True)
        )
        blob = b"".join(names)
        text_at = round_up(_HEAD.size + len(key) + len(table) + len(blob), self.page)
        total = text_at + self.mapped_size
        head = _HEAD.pack(
            MAGIC,
            VERSION,
            self.page,
            text_at,
            len(self.text),
            text_at + self.rodata_distance,
            len(self.rodata),
            total,
            len(names),
            len(key),
            len(blob),
            0,
            bytes(32),
        )
        out = bytearray(total)
        front = head + key + table + blob
        out[: len(front)] = front
        out[text_at : text_at + len(self.text)] = self.text
        rodata_at = text_at + self.rodata_distance
        out[rodata_at : rodata_at + len(self.rodata)] = self.rodata
        out[_DIGEST_AT : _DIGEST_AT + 32] = _digest(memoryview(out))
        return bytes(out)

    @staticmethod
    def from_bytes(data: bytes | memoryview) -> Image:
        """The image in `data`. Raises FormatError on anything `to_bytes` would not have written."""
        view = memoryview(data)
        layout = read_layout(view)
        end = layout.rodata_at + layout.rodata_size
        return Image(
            layout.target_key,
            layout.page,
            bytes(view[layout.text_at : layout.text_at + layout.text_size]),
            bytes(view[layout.rodata_at : end]),
            layout.entries,
        )


@record
class Layout:
    """Where things are in a checked image."""

    target_key: str
    page: int
    text_at: int
    text_size: int
    rodata_at: int
    rodata_size: int
    total: int
    entries: Mapping[str, int]


def read_layout(view: memoryview, checksum: bool = True) -> Layout:
    """Check all of an image and say where its parts are; raises FormatError. Without `checksum` the digest
    is not computed: for bytes whose digest the caller has just compared."""
    _require(len(view) >= _HEAD.size, "is too short")
    _require(len(view) <= MAX_SIZE, "is too large")
    (
        magic,
        version,
        page,
        text_at,
        text_size,
        rodata_at,
        rodata_size,
        total,
        count,
        key_size,
        names_size,
        reserved,
        digest,
    ) = _HEAD.unpack_from(view)
    _require(magic == MAGIC, "has no image magic")
    _require(version == VERSION, f"has version {version}, this reader knows {VERSION}")
    _require(page in PAGES and reserved == 0 and total == len(view), "has a damaged header")
    _require(not checksum or _digest(view) == digest, "has a wrong checksum")
    front = _HEAD.size + key_size + count * _ENTRY.size + names_size
    _require(text_at == round_up(front, page), "has a misplaced text section")
    _require(0 < text_size <= total and rodata_size <= total, "has sections beyond its end")
    _require(rodata_at == text_at + round_up(text_size, page), "has a misplaced rodata section")
    _require(total == rodata_at + round_up(rodata_size, page), "has a wrong size")
    for start, end in ((front, text_at), (text_at + text_size, rodata_at), (rodata_at + rodata_size, total)):
        _require(view[start:end].tobytes().count(0) == end - start, "has non-zero padding")
    try:
        key = str(view[_HEAD.size : _HEAD.size + key_size], "utf-8")
        entries = _read_entries(view, _HEAD.size + key_size, count, front - names_size, front, text_size)
    except UnicodeDecodeError:
        raise FormatError("[image] the code image has a name that is not UTF-8.") from None
    return Layout(key, page, text_at, text_size, rodata_at, rodata_size, total, entries)


def _read_entries(
    view: memoryview, at: int, count: int, names_at: int, names_end: int, text_size: int
) -> dict[str, int]:
    entries: dict[str, int] = {}
    for i in range(count):
        offset, length = _ENTRY.unpack_from(view, at + i * _ENTRY.size)
        _require(length <= names_end - names_at, "has an entry name beyond the names")
        name = str(view[names_at : names_at + length], "utf-8")
        names_at += length
        _require(offset < text_size, f"has entry {name!r} outside of its code")
        _require(name not in entries, f"has two entries {name!r}")
        entries[name] = offset
    _require(names_at == names_end, "has unused names")
    return entries


def _digest(view: memoryview) -> bytes:
    digest = hashlib.sha256(view[:_DIGEST_AT])
    digest.update(view[_DIGEST_AT + 32 :])
    return digest.digest()


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise FormatError(f"[image] the code image {message}.")
