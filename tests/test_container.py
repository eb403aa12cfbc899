"""The byte layer of `.ingot` files: layout, atomic writing, refusal of everything that is not sound."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import struct
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.format import canonical, container
from ingot.format.canonical import DamageError, column, decode, encode, read_column
from ingot.format.container import Blobs, Section, assemble, open_container, write
from ingot.tracer.errors import FormatError

KNOWN = frozenset({"producer", "table"})


def build(payloads=(), sections=None, **kwargs) -> bytes:
    blobs = Blobs(**kwargs)
    places = [blobs.add(p) for p in payloads]
    sections = sections or {
        "producer": Section(encode("tests"), False),
        "table": Section(encode([list(place) for place in places])),
    }
    return b"".join(bytes(piece) for piece in assemble(sections, blobs))


def opened(data: bytes, **kwargs):
    return open_container(io.BytesIO(data), KNOWN, **kwargs)


def read_all(data: bytes) -> list[bytes]:
    file = opened(data)
    return [bytes(file.payload(*place)) for place in file.section("table")]


def repair(data: bytes) -> bytes:
    """The same bytes with every checksum made right again, as an attacker would."""
    data = bytearray(data)
    if len(data) < 64:
        return bytes(data)
    length, start = struct.unpack_from("<QQ", data, 14)
    struct.pack_into("<Q", data, 30, len(data))
    header = bytes(data[64 : 64 + length])
    try:
        sections = msgpack.unpackb(header)
        table = msgpack.unpackb(sections["bins"][1])
        offsets = np.frombuffer(table["offset"][1], f"<u{table['offset'][0]}").tolist()
        lengths = np.frombuffer(table["length"][1], f"<u{table['length'][0]}").tolist()
        crcs = b"".join(
            container._crcs(memoryview(bytes(data[start + o : start + o + n])))
            for o, n in zip(offsets, lengths, strict=True)
            if n < 1 << 24
        )
        if len(crcs) == len(table["crc"]):
            header = header.replace(table["crc"], crcs, 1)
            data[64 : 64 + length] = header
    except Exception:
        pass  # too damaged for that: the digest alone is repaired
    data[38:64] = hashlib.sha256(bytes(data[:38]) + header).digest()[:26]
    return bytes(data)


PAYLOADS = [b"x" * 10, os.urandom(100), b"", np.arange(1000, dtype=np.float32), b"q" * 4096]


def test_a_file_is_msgpack_objects_with_aligned_payloads():
    data = build([*PAYLOADS, bytes(1 << 20)])
    objects, unpacker = [], msgpack.Unpacker(io.BytesIO(data), max_bin_len=1 << 26)
    for value in unpacker:
        objects.append((unpacker.tell(), value))
    assert len(objects[0][1]) == 62 and objects[0][0] == 64
    assert set(objects[1][1]) == {"bins", "producer", "table"}
    blobs = objects[2:]
    assert len(blobs) == 2 * 5
    for (end, payload), (_, padding) in zip(blobs[1::2], blobs[::2], strict=True):
        assert (end - len(payload)) % (4096 if len(payload) >= 1 << 20 else 64) == 0
        assert not any(padding)
    assert objects[-1][0] == len(data)


def test_payloads_come_back_and_equal_ones_are_stored_once():
    data = build([*PAYLOADS, b"x" * 10])
    expected = [bytes(np.asarray(p).data) if isinstance(p, np.ndarray) else p for p in [*PAYLOADS, b"x" * 10]]
    assert read_all(data) == expected
    assert opened(data).bin_count == 4
    assert opened(data).section("table")[0] == opened(data).section("table")[5]


def test_same_input_gives_same_bytes():
    assert build(PAYLOADS) == build(PAYLOADS)


def test_large_payloads_are_split_into_bins():
    payload = os.urandom(1000)
    data = build([payload], max_bin=300)
    assert opened(data).bin_count == 4
    assert read_all(data) == [payload]


def test_several_chunks_are_checked_in_parallel():
    payload = bytearray(os.urandom(40 << 20))
    data = bytearray(build([payload]))
    assert read_all(bytes(data)) == [bytes(payload)]
    start = len(data) - len(payload)
    data[start + (33 << 20)] ^= 1
    file = opened(bytes(data))
    with pytest.raises(FormatError, match=f"byte {start + (32 << 20)}: checksum"):
        file.payload(0, 1)
    with pytest.raises(FormatError, match="checksum"):
        opened(bytes(data), verify="open")


def test_empty_file_of_blobs():
    data = build([])
    assert opened(data).bin_count == 0
    assert read_all(data) == []


@pytest.mark.parametrize("mmap", [True, False])
def test_paths_are_mapped_or_copied(tmp_path, mmap):
    path = tmp_path / "a.ingot"
    blobs = Blobs()
    blobs.add(np.arange(10_000, dtype=np.float32))
    write(path, {"table": Section(encode([]))}, blobs)
    file = open_container(path, KNOWN, mmap=mmap)
    assert file.mapped is mmap
    view = np.frombuffer(file.payload(0, 1), np.float32)
    assert view.ctypes.data % 64 == 0 and not view.flags.writeable
    assert np.array_equal(view, np.arange(10_000))


def test_file_objects(tmp_path):
    target = io.BytesIO()
    write(target, {"table": Section(encode(1))})
    assert opened(target.getvalue()).section("table") == 1
    with open(tmp_path / "raw", "wb", buffering=0) as raw:
        write(raw, {"table": Section(encode(1))})
    assert (tmp_path / "raw").read_bytes() == target.getvalue()


def test_missing_file_is_both_errors(tmp_path):
    for kind in (FormatError, FileNotFoundError):
        with pytest.raises(kind, match="no such file"):
            open_container(tmp_path / "nothing.ingot")


# Atomic writing


def test_failure_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f.ingot"
    write(path, {"table": Section(encode(1))})
    old = path.read_bytes()
    monkeypatch.setattr(container, "_digest", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, {"table": Section(encode(2))})
    monkeypatch.undo()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, {"table": Section(encode(2))})
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["f.ingot"]


def test_permissions_and_links(tmp_path):
    path, link = tmp_path / "f.ingot", tmp_path / "link.ingot"
    mask = os.umask(0o027)
    try:
        write(path, {"table": Section(encode(1))})
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    link.symlink_to(path)
    path.chmod(0o600)
    write(link, {"table": Section(encode(2))})
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_container(path, KNOWN).section("table") == 2


# Refusals


def test_mlx_files_are_refused_by_name():
    data = b"\x06\x00\x00\x00\x00\x00\x00\x000.32.4\x01" + bytes(100)
    with pytest.raises(FormatError, match=r"exported by MLX 0\.32\.4"):
        opened(data)


@pytest.mark.peers
def test_a_file_written_by_mlx_is_refused(tmp_path):
    mlx = pytest.importorskip("mlx.core")
    path = tmp_path / "f.mlxfn"
    mlx.export_function(str(path), lambda x: x + 1, mlx.array(1.0))
    with pytest.raises(FormatError, match="exported by MLX"):
        open_container(path)


def test_versions():
    data = bytearray(build(PAYLOADS))
    struct.pack_into("<H", data, 12, 7)
    assert opened(repair(data)).version == (1, 7)
    struct.pack_into("<H", data, 10, 2)
    with pytest.raises(FormatError, match=r"version 2\.7.*newer Ingot"):
        opened(bytes(data))


def test_unknown_sections():
    ignorable = {"table": Section(encode(1)), "zeta": Section(b"anything", False)}
    file = opened(build(sections=ignorable))
    assert file.unknown == {"zeta": Section(b"anything", False)}
    critical = {"table": Section(encode(1)), "zeta": Section(b"anything", True)}
    with pytest.raises(FormatError, match="'zeta'.*newer version"):
        opened(build(sections=critical))


def test_text_mode_transfer_is_recognised():
    with pytest.raises(FormatError, match="text mode"):
        opened(build(PAYLOADS).replace(b"\r\n", b"\n"))


def test_truncation_anywhere():
    data = build(PAYLOADS)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            opened(data[:end])
    with pytest.raises(FormatError, match="followed by"):
        opened(data + b"\0")


def test_random_damage_is_always_found():
    data, rng = build(PAYLOADS), random.Random(1)
    for _ in range(2000):
        bad = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            bad[rng.randrange(len(bad))] ^= rng.randrange(1, 256)
        if bad == data:
            continue
        with pytest.raises(FormatError):
            opened(bytes(bad), verify="open")


def test_damage_with_repaired_checksums_is_harmless():
    data, rng = build(PAYLOADS), random.Random(2)
    header_end = 64 + struct.unpack_from("<Q", data, 14)[0]
    refused = 0
    tracemalloc.start()
    try:
        for i in range(2000):
            bad = bytearray(data)
            where = rng.randrange(2, header_end if i % 2 else len(bad))
            if rng.random() < 0.3:
                bad[where : where + 4] = rng.choice((b"\xff" * 4, b"\xdd\xff\xff\xff", b"\x80" * 4))
            else:
                bad[where] = rng.randrange(256)
            try:
                read_all(repair(bytes(bad)))
            except FormatError:
                refused += 1
            except (TypeError, ValueError):
                pass  # the test's own use of a damaged "table"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused > 500
    assert peak < 4 << 20, peak


def lie(**changes) -> bytes:
    """A file whose table of bins says something else, with right checksums."""
    data = build(PAYLOADS)
    length = struct.unpack_from("<Q", data, 14)[0]
    sections = msgpack.unpackb(data[64 : 64 + length])
    table = msgpack.unpackb(sections["bins"][1])
    for name, change in changes.items():
        width, raw = table[name]
        values = np.frombuffer(raw, f"<u{width}").copy()
        change(values)
        table[name] = [width, values.tobytes()]
    new = encode(sections | {"bins": [True, encode(table)]})
    assert len(new) == length
    return repair(data[:64] + new + data[64 + length :])


def test_lies_about_blobs():
    def set_to(index, value):
        return lambda values: values.__setitem__(index, value)

    for bad in (
        lie(offset=set_to(1, 0)), lie(offset=set_to(1, 128)), lie(offset=set_to(1, 63)),
        lie(offset=set_to(0, 64)), lie(length=set_to(0, 9)), lie(length=set_to(0, 0)),
        lie(length=set_to(3, 65535)), lie(length=set_to(3, 1)),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            opened(bad)


def test_zeros_between_blobs_are_checked():
    data = bytearray(build(PAYLOADS))
    place = data.index(b"\xc6\x00\x00\x00\x64")  # head of the second blob, behind its padding
    assert data[place - 1] == 0
    data[place - 1] = 1
    with pytest.raises(FormatError, match="other than zeros"):
        opened(repair(bytes(data)))


# Canonical MessagePack

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
    | st.text(st.characters(codec="utf-8")) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(plain)
def test_values_round_trip(value):
    data = encode(value)
    assert encode(decode(data)) == data
    assert msgpack.unpackb(data, strict_map_key=True) is not NotImplemented


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise(data):
    try:
        assert encode(decode(data)) == data
    except DamageError:
        pass


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "MessagePack"),
        (b"\xc1", "MessagePack"),
        (b"\x01\x01", "MessagePack"),
        (b"\x82\xa1a\x01\xa1a\x02", "twice"),
        (b"\x82\xa1b\x01\xa1a\x02", "ascending"),
        (b"\x81\x01\x01", "key"),
        (b"\xcd\x00\x01", "canonical"),
        (b"\xca\x00\x00\x00\x00", "canonical"),
        (b"\xd4\x01\x00", "extension|MessagePack"),
        (b"\xd6\xff\x00\x00\x00\x00", "extension|MessagePack|canonical|Timestamp"),
        (b"\xdd\xff\xff\xff\xff", "MessagePack"),
        (b"\xa2\xff\xff", "MessagePack"),
        (b"\x91" * 65 + b"\x90", "nested deeper"),
        (b"\x91" * 100_000 + b"\x90", "MessagePack"),
    ],
)
def test_hostile_bytes(data, reason):
    with pytest.raises(DamageError, match=reason):
        decode(data)


def test_depth_limit_is_exact():
    deep = b"\x91" * 64 + b"\xc0"
    assert encode(decode(deep)) == deep


@pytest.mark.parametrize("filler", [b"\x80", b"\x90", b"\x91\x90", b"\x91\x91\x91\x91\x90", b"\x81\xa0\x80"])
def test_hostile_nesting_costs_memory_in_proportion(filler):
    count = (1 << 20) // len(filler)
    data = b"\xdd" + struct.pack(">I", count) + filler * count
    tracemalloc.start()
    try:
        with pytest.raises(DamageError):
            decode(b"\xc1" + data[1:])
        try:
            decode(data)
        except DamageError:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * len(data), f"{peak / len(data):.0f} times the data"


@pytest.mark.parametrize("value", [{1: 2}, 2**64, object(), np.float32(1), {"a": {2}}])
def test_what_cannot_be_encoded(value):
    with pytest.raises((TypeError, ValueError)):
        encode(value)


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_columns_round_trip(values):
    assert read_column(decode(encode(column(values))), "c") == values


def test_columns_are_checked():
    good = decode(encode(column([1, 300])))
    assert read_column(good, "c", count=2, limit=301) == [1, 300]
    for value, kwargs in [
        (good, {"count": 3}), (good, {"limit": 300}), ((2, b"\0\0\1"), {}), ((3, b"\0\0\1"), {}), ((1,), {}),
        ((True, b"a"), {}), ((2, b"\1\0"), {}), (None, {}),
    ]:  # fmt: skip
        with pytest.raises(DamageError, match="c"):
            read_column(value, "c", **kwargs)
    assert canonical.MAX_DEPTH == 64
