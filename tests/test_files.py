"""Files of arrays: round trips, other implementations, mapping, damage."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ingot as mx

DTYPES = [
    mx.bool_, mx.uint8, mx.uint16, mx.uint32, mx.uint64, mx.int8, mx.int16, mx.int32, mx.int64, mx.float16,
    mx.bfloat16, mx.float32, mx.float64, mx.complex64,
]  # fmt: skip


def sample(dtype: Any, shape: tuple[int, ...] = (2, 3)) -> mx.array:
    values = np.arange(int(np.prod(shape))).reshape(shape) % 100 - (0 if dtype.kind in "bu" else 3)
    return mx.array(values).astype(dtype)


def equal(got: mx.array, want: mx.array) -> None:
    assert got.dtype is want.dtype and got.shape == want.shape
    assert np.array(got).tobytes() == np.array(want).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_every_dtype_and_shape_comes_back(dtype: Any, tmp_path: Path) -> None:
    arrays = {f"a{i}": sample(dtype, shape) for i, shape in enumerate([(2, 3), (), (0, 4), (7,)])}
    for name, a in arrays.items():
        mx.save(str(tmp_path / name), a)
        equal(mx.load(str(tmp_path / f"{name}.npy")), a)
    for write, extension in (
        (mx.savez, "npz"),
        (mx.savez_compressed, "npz"),
        (lambda f, **k: mx.save_safetensors(f, k), "safetensors"),
    ):
        write(tmp_path / "all", **arrays)
        found = mx.load(tmp_path / f"all.{extension}")
        assert found.keys() == arrays.keys()
        for name, a in arrays.items():
            equal(found[name], a)


def test_names_and_metadata(tmp_path: Path) -> None:
    x = mx.arange(3)
    mx.savez(tmp_path / "z.zip", x, mx.exp(x), named=x)
    assert set(mx.load(tmp_path / "z.zip.npz")) == {"arr_0", "arr_1", "named"}
    with pytest.raises(ValueError, match="keyword arr_0"):
        mx.savez(tmp_path / "z", x, arr_0=x)
    file = tmp_path / "s.safetensors"
    mx.save_safetensors(file, {"x": x}, {"by": "us"})
    assert mx.load(file, return_metadata=True)[1] == {"by": "us"}
    mx.save_safetensors(file, {"x": x})
    assert mx.load(file, return_metadata=True)[1] == {}
    with pytest.raises(ValueError, match="string keys and values"):
        mx.save_safetensors(file, {"x": x}, {"n": 3})  # type: ignore[dict-item]
    for wrong in (lambda: mx.save(file, [1.0]), lambda: mx.savez(file, x=3), lambda: mx.save(3, x)):  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            wrong()


def test_formats_are_told_by_names(tmp_path: Path) -> None:
    mx.save(tmp_path / "x.npy", mx.arange(3))
    os.rename(tmp_path / "x.npy", tmp_path / "x.data")
    equal(mx.load(tmp_path / "x.data", format="npy"), mx.arange(3))
    for call, message in (
        (lambda: mx.load(tmp_path / "x.data"), "Unknown file format data"),
        (lambda: mx.load(tmp_path / "x"), "Could not infer"),
        (lambda: mx.load(io.BytesIO()), "Could not infer"),
        (lambda: mx.load(tmp_path / "x.data", "npy", return_metadata=True), "metadata not supported"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for extension in ("npy", "npz", "safetensors"):
        with pytest.raises(FileNotFoundError):
            mx.load(tmp_path / f"missing.{extension}")


def test_file_objects(tmp_path: Path) -> None:
    x = mx.arange(6).reshape(2, 3)
    stream = io.BytesIO()
    mx.save(stream, x)
    mx.save(stream, x + 1)  # one after the other
    stream.seek(0)
    equal(mx.load(stream, format="npy"), x)
    equal(mx.load(stream, format="npy"), x + 1)
    stream = io.BytesIO()
    mx.save_safetensors(stream, {"x": x}, {"k": "v"})
    stream.seek(0)
    arrays, metadata = mx.load(stream, "safetensors", True)
    equal(arrays["x"], x)
    assert metadata == {"k": "v"}
    with open(tmp_path / "f.npz", "wb") as out:
        mx.savez(out, x=x)
    with open(tmp_path / "f.npz", "rb") as source:
        equal(mx.load(source)["x"], x)


def test_numpy_and_safetensors_read_and_write_the_same(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    x = mx.arange(6, dtype=mx.float32).reshape(2, 3)
    mx.savez(tmp_path / "z", x=x, t=x.T)
    with np.load(tmp_path / "z.npz") as found:
        assert np.array_equal(found["x"], np.array(x)) and np.array_equal(found["t"], np.array(x).T)
    views = {d.name: np.array(sample(d)) for d in DTYPES if d not in (mx.bfloat16, mx.complex64)}
    save_file(views, tmp_path / "theirs.safetensors", {"a": "b"})
    arrays, metadata = mx.load(tmp_path / "theirs.safetensors", return_metadata=True)
    assert metadata == {"a": "b"} and arrays.keys() == views.keys()
    for name, view in views.items():
        assert arrays[name].dtype.name.rstrip("_") == name.rstrip("_")
        assert np.array_equal(np.array(arrays[name]), view)
    mx.save_safetensors(tmp_path / "ours", arrays)
    for name, view in load_file(tmp_path / "ours.safetensors").items():
        assert np.array_equal(view, views[name])
    for view in (np.asfortranarray(np.eye(3, 2)), np.arange(3.0, dtype=">f4"), np.ones(2, np.complex128)):
        np.save(tmp_path / "n.npy", view)
        assert np.array_equal(np.array(mx.load(tmp_path / "n.npy")), view)


@pytest.mark.peers
def test_the_real_mlx_reads_and_writes_the_same(tmp_path: Path) -> None:
    mlx = pytest.importorskip("mlx.core")
    ours = {d.name: sample(d) for d in DTYPES}
    theirs = {
        name: mlx.array(np.array(a).astype(np.float32) if name == "bfloat16" else np.array(a)).astype(
            getattr(mlx, "bool_" if name == "bool" else name)
        )
        for name, a in ours.items()
    }

    def same(a: mx.array, b: Any) -> None:
        assert str(b.dtype).removeprefix("mlx.core.") == a.dtype.name and a.shape == b.shape
        assert a.tolist() == b.tolist()

    for extension in ("npz", "safetensors"):
        for write, read in ((mx, mlx), (mlx, mx)):
            file = str(tmp_path / f"f.{extension}")
            arrays = ours if write is mx else theirs
            arrays = {n: a for n, a in arrays.items() if extension == "npz" or n != "float64"}
            if extension == "npz":
                write.savez(file, **arrays)
            else:
                write.save_safetensors(file, arrays, {"k": "v"})
            found = read.load(file)
            assert found.keys() == arrays.keys()
            for name, a in found.items():
                same(a if read is mx else ours[name], theirs[name] if read is mx else a)


# -- mapping -------------------------------------------------------------------------------------------------


def test_arrays_are_mapped_and_survive_a_new_file(tmp_path: Path) -> None:
    for file, write, read in (
        (tmp_path / "m.npy", lambda f, x: mx.save(f, x), mx.load),
        (
            tmp_path / "m.safetensors",
            lambda f, x: mx.save_safetensors(f, {"x": x}),
            lambda f: mx.load(f)["x"],
        ),
    ):
        write(file, mx.arange(100_000))
        x = read(file)
        assert not x._view().flags.writeable and not x._view().flags.owndata
        write(file, x * 2)  # the file that is mapped
        assert x[99_999].item() == 99_999 and read(file)[99_999].item() == 199_998
        np.asarray(x)[0] = 7  # a writable view gets a copy
        assert x[0].item() == 7 and read(file)[0].item() == 0
        x[1] = 9
        assert x[1].item() == 9


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_does_not_read(tmp_path: Path) -> None:
    file = tmp_path / "big.safetensors"
    mx.save_safetensors(file, {"x": mx.zeros((64 << 20,), mx.uint8)})

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    x = mx.load(file)["x"]
    assert resident() - before < 8 << 20
    assert mx.sum(x).item() == 0


def test_load_inside_compile_is_a_constant(tmp_path: Path) -> None:
    file = tmp_path / "c.npy"
    mx.save(file, mx.array([1.0, 2.0]))
    calls = []

    @mx.compile
    def scaled(x: mx.array) -> mx.array:
        calls.append(1)
        return x * mx.load(file)

    assert scaled(mx.array([3.0, 4.0])).tolist() == [3, 8]
    file.unlink()
    assert scaled(mx.array([5.0, 6.0])).tolist() == [5, 12] and len(calls) == 1


def test_saving_fails_in_a_trace_and_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    mx.save_safetensors(file, {"x": mx.zeros(3)})
    old = file.read_bytes()
    with pytest.raises(ValueError, match="not known during"):
        mx.compile(lambda x: mx.save_safetensors(file, {"x": x}))(mx.ones(3))
    assert file.read_bytes() == old and os.listdir(tmp_path) == [file.name]


# -- damage --------------------------------------------------------------------------------------------------


def _files() -> dict[str, bytes]:
    out = {}
    x, y = sample(mx.float32), sample(mx.bfloat16)
    for name, write in (
        ("npy", lambda f: mx.save(f, x)),
        ("npz", lambda f: mx.savez(f, x=x, y=y)),
        ("safetensors", lambda f: mx.save_safetensors(f, {"x": x, "y": y}, {"k": "v"})),
    ):
        stream = io.BytesIO()
        write(stream)
        out[name] = stream.getvalue()
    return out


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_damaged_files_give_a_clear_error(kind: str, tmp_path: Path) -> None:
    """Every truncation, and 400 changes: an error that says so, or arrays of the declared sizes."""
    good = _files()[kind]
    chance = random.Random(5)
    damaged = [good[:n] for n in range(len(good))]
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.choice([1, 1, 4])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        damaged.append(bytes(data))
    path = tmp_path / f"f.{kind}"
    for i, data in enumerate(damaged):
        path.write_bytes(data)
        for source in (path, io.BytesIO(data)) if i % 7 == 0 else (path,):
            try:
                found = mx.load(source, format=kind)
            except (mx.FormatError, ValueError) as error:
                assert "[load]" in str(error)
            else:
                assert i >= len(good), "a truncated file was read"
                mx.eval(found)


def _hostile(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        (1 << 60).to_bytes(8, "little"),
        _hostile(b"[" * 100_000),
        _hostile([]),
        _hostile({"x": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}}),
        _hostile({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        _hostile({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
        _hostile({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"1234"),
        _hostile({"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}, b"1"),
        _hostile({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        _hostile({"__metadata__": {"k": 1}}),
    ],
)  # fmt: skip
def test_hostile_safetensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(content)
    with pytest.raises(mx.FormatError, match=r"\[load\]"):
        mx.load(path)


def test_other_contents_of_npz(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "o.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(mx.FormatError, match="readme.txt"):
        mx.load(tmp_path / "o.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(mx.FormatError, match="no numbers"):
        mx.load(tmp_path / "objects.npy")


# -- GGUF ----------------------------------------------------------------------------------------------------


def test_gguf_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    for call in (lambda: mx.load(tmp_path / "x.gguf"), lambda: mx.save_gguf(str(tmp_path / "x"), {})):
        with pytest.raises(ImportError, match=r"ingot\[gguf\]"):
            call()


def test_gguf_round_trip(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    dtypes = (mx.float32, mx.float16, mx.int8, mx.int16, mx.int32)
    arrays = {d.name: sample(d) for d in dtypes}
    metadata = {
        "text": "v", "list": ["a", "b"], "int": mx.array(3), "floats": mx.array([1.5, 2]),
        "flag": mx.array(True), "small": mx.array(200, mx.uint8), "long": mx.array([1 << 40], mx.int64),
    }  # fmt: skip
    mx.save_gguf(str(tmp_path / "g"), arrays, metadata)
    found, said = mx.load(tmp_path / "g.gguf", return_metadata=True)
    assert found.keys() == arrays.keys() and said.keys() == metadata.keys()
    for name, a in arrays.items():
        equal(found[name], a)
    for name, value in metadata.items():
        if isinstance(value, mx.array):
            equal(said[name], value)
        else:
            assert said[name] == value
    with pytest.raises(ValueError, match="not supported"):
        mx.save_gguf(str(tmp_path / "g"), {"x": sample(mx.bfloat16)})
    mlx = pytest.importorskip("mlx.core")
    theirs, told = mlx.load(str(tmp_path / "g.gguf"), return_metadata=True)
    assert {n: a.tolist() for n, a in theirs.items()} == {n: a.tolist() for n, a in arrays.items()}
    assert told["list"] == ["a", "b"] and told["long"].tolist() == [1 << 40]


def test_gguf_blocks_as_mlx_unpacks_them(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    x = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    path = str(tmp_path / "q.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    kinds = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8, "BF16": 0}
    for name in kinds:
        kind = getattr(gguf.GGMLQuantizationType, name)
        writer.add_tensor(f"{name}.weight", gguf.quantize(x, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = mx.load(path)
    assert found["BF16.weight"].dtype is mx.float16
    for name, bits in kinds.items():
        if bits:
            words = np.array(found[f"{name}.weight"])[..., None]
            quanta = words >> np.arange(0, 32, bits, dtype=np.uint32) & np.uint32((1 << bits) - 1)
            scales, biases = (np.array(found[f"{name}.{part}"], np.float32) for part in ("scales", "biases"))
            values = quanta.reshape(4, 2, 32) * scales[..., None] + biases[..., None]
            want = gguf.dequantize(gguf.quantize(x, kind := getattr(gguf.GGMLQuantizationType, name)), kind)
            np.testing.assert_allclose(values.reshape(4, 64), want, rtol=0, atol=2e-3)
    mlx = pytest.importorskip("mlx.core")
    theirs = mlx.load(path)
    assert theirs.keys() == found.keys()
    for name, a in theirs.items():
        assert a.tolist() == found[name].tolist(), name


def test_bfloat16_files_hold_the_bits(tmp_path: Path) -> None:
    x = np.array([1.0, -2.5, 3e38, 1e-40], np.float32).astype(ml_dtypes.bfloat16)
    mx.save(tmp_path / "b", mx.array(x))
    assert np.load(tmp_path / "b.npy").view(ml_dtypes.bfloat16).tobytes() == x.tobytes()
