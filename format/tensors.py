"""Files of arrays: `.npy`, `.npz` and `.safetensors`, with MLX's rules for extensions and results.

What a file says is checked before it is believed: damage is a `FormatError`. Uncompressed `.npy` and
`.safetensors` files are mapped, so an array costs memory only where it is read. Files are written aside and
renamed, so that a mapping of the old contents stays valid and a failure leaves the old file.
"""

from __future__ import annotations

import ast
import io
import json
import math
import mmap
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, leaf, wrap
from ingot.tracer.aval import Aval
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import FormatError

File = str | os.PathLike | IO[bytes]

_SAFETENSORS: dict[str, Dtype] = {
    "BOOL": dtypes.bool_, "F16": dtypes.float16, "BF16": dtypes.bfloat16, "F32": dtypes.float32,
    "F64": dtypes.float64, "C64": dtypes.complex64,
    "U8": dtypes.uint8, "U16": dtypes.uint16, "U32": dtypes.uint32, "U64": dtypes.uint64,
    "I8": dtypes.int8, "I16": dtypes.int16, "I32": dtypes.int32, "I64": dtypes.int64,
}  # fmt: skip
_SAFETENSORS_NAMES = {dtype: name for name, dtype in _SAFETENSORS.items()}
_HEADER_LIMIT = 100_000_000
"""Bytes of a safetensors header, as in the reference implementation."""
_NPY_HEADER_LIMIT = 1 << 16


# -- saving --------------------------------------------------------------------------------------------------


def save(file: File, arr: array) -> None:
    """Write one array to a `.npy` file; the extension is added to a path that lacks it.

    Raises:
        TypeError: when `arr` is no array.
    """
    view = _saved("save", arr)
    with _output("save", file, ".npy") as out:
        _write_npy(out, view)


def savez(file: File, *args: array, **kwargs: array) -> None:
    """Write arrays to an uncompressed `.npz` file: keywords under their names, the others as `arr_0`, …

    Raises:
        ValueError: when a keyword is the name of a positional array.
    """
    _save_zip("savez", zipfile.ZIP_STORED, file, args, kwargs)


def savez_compressed(file: File, *args: array, **kwargs: array) -> None:
    """Write arrays to a compressed `.npz` file; see `savez`."""
    _save_zip("savez_compressed", zipfile.ZIP_DEFLATED, file, args, kwargs)


def save_safetensors(
    file: File, arrays: Mapping[str, array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays to a `.safetensors` file; the extension is added to a path that lacks it.

    Raises:
        ValueError: when `metadata` holds anything but strings.
        TypeError: when a value of `arrays` is no array.
    """
    texts = dict(metadata or {})
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in texts.items()):
        raise ValueError("[save_safetensors] Metadata must be a dictionary with string keys and values")
    views = {name: _saved("save_safetensors", a) for name, a in arrays.items()}
    # wide elements first, so that each array is aligned (the order of the reference implementation)
    order = sorted(views, key=lambda name: (-views[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": texts} if texts else {}
    offset = 0
    for name in order:
        view = views[name]
        dtype = _SAFETENSORS_NAMES[dtypes.from_numpy(view.dtype)]
        span = [offset, offset + view.nbytes]
        header[name] = {"dtype": dtype, "shape": list(view.shape), "data_offsets": span}
        offset += view.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with _output("save_safetensors", file, ".safetensors") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            _write_elements(out, views[name])


def _saved(name: str, x: Any) -> np.ndarray:
    """The evaluated contents of an argument."""
    if not isinstance(x, array):
        raise TypeError(f"[{name}] expected an array, got {type(x).__name__}.")
    return x._view()


def _write_npy(out: IO[bytes], view: np.ndarray) -> None:
    # NumPy has no name for bfloat16: two bytes without a type, as MLX writes them
    np.lib.format.write_array(out, view.view("V2") if view.dtype.char == "E" else view, allow_pickle=False)


def _write_elements(out: IO[bytes], view: np.ndarray) -> None:
    out.write(np.ascontiguousarray(view).reshape(-1).view(np.uint8).data)


def _save_zip(name: str, method: int, file: File, args: Any, kwargs: dict[str, array]) -> None:
    named = dict(kwargs)
    for i, x in enumerate(args):
        if f"arr_{i}" in kwargs:
            raise ValueError(f"[{name}] Cannot use un-named variables and keyword arr_{i}")
        named[f"arr_{i}"] = x
    views = {key: _saved(name, x) for key, x in named.items()}
    with _output(name, file, ".npz") as out, zipfile.ZipFile(out, "w", method) as archive:
        for key, view in views.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                _write_npy(member, view)


@contextmanager
def _output(name: str, file: Any, extension: str) -> Iterator[IO[bytes]]:
    """A file to write: the file object itself, or a new one that takes the place of the path at the end."""
    if hasattr(file, "write"):
        yield file
        return
    with replacing(path_of(name, file, extension)) as path, open(path, "wb") as out:
        yield out


def path_of(name: str, file: Any, extension: str) -> str:
    """A path with `extension`; TypeError for what is none."""
    if not isinstance(file, str | os.PathLike):
        raise TypeError(f"[{name}] expected a path or a file, got {type(file).__name__}.")
    path = os.fspath(file)
    if not isinstance(path, str):
        raise TypeError(f"[{name}] expected a path of text, got {type(path).__name__}.")
    return path if path.endswith(extension) else path + extension


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """A temporary path beside `path` that is renamed to it unless an exception is raised."""
    if os.path.exists(path) and not os.path.isfile(path):
        yield path  # a pipe or a device
        return
    handle, temporary = tempfile.mkstemp(
        prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path) or "."
    )
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, _mode_of(path))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _mode_of(path: str) -> int:
    """Permissions of the file that is replaced, or those a new file gets."""
    if os.path.exists(path):
        return os.stat(path).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


# -- loading -------------------------------------------------------------------------------------------------


def load(
    file: File, /, format: str | None = None, return_metadata: bool = False, *, stream: Any = None
) -> Any:
    """Read a file of arrays: an array from `.npy`, a dict of arrays from `.npz`, `.safetensors` and `.gguf`.

    `format` is needed where the name does not tell. With `return_metadata` a pair of arrays and metadata.
    Arrays of `.npy` and `.safetensors` files on disk are mapped and read when they are used.

    Raises:
        ValueError: when the format is unknown or has no metadata.
        FileNotFoundError: when there is no such file.
        FormatError: when the file is damaged.
    """
    if not hasattr(file, "read") and not isinstance(file, str | os.PathLike):
        raise TypeError(f"[load] expected a path or a file, got {type(file).__name__}.")
    kind = format or _extension(file)
    if kind not in _LOADERS:
        raise ValueError(f"[load] Unknown file format {kind}")
    if return_metadata and kind not in ("safetensors", "gguf"):
        raise ValueError(f"[load] metadata not supported for format {kind}")
    arrays, metadata = _LOADERS[kind](file)
    return (arrays, metadata) if return_metadata else arrays


def _extension(file: Any) -> str:
    name = os.fspath(file) if isinstance(file, str | os.PathLike) else getattr(file, "name", "")
    stem, dot, extension = str(name).rpartition(".")
    if not dot or os.sep in extension:
        raise ValueError("[load] Could not infer file format from extension")
    return extension


@contextmanager
def _input(file: Any) -> Iterator[IO[bytes]]:
    if hasattr(file, "read"):
        yield file
    else:
        with open(file, "rb") as opened:
            yield opened


def _is_path(file: Any) -> bool:
    return isinstance(file, str | os.PathLike)


def _array(view: np.ndarray, dtype: Dtype) -> array:
    return wrap(leaf(view, aval=Aval(view.shape, dtype)))


def _load_npy(file: Any) -> tuple[array, None]:
    with _input(file) as source:
        return _read_npy(source, str(file) if _is_path(file) else "the file", _is_path(file)), None


def _read_npy(source: IO[bytes], name: str, mapped: bool) -> array:
    found, fortran, shape = _npy_header(source, name)
    if found.str[1:] == "V2":
        dtype = dtypes.bfloat16
    elif found.kind in "biufc" and found.names is None:
        try:
            dtype = dtypes.from_numpy(found)
        except ValueError:
            raise ValueError(f"[load] {name} holds {found}, which no array can.") from None
    else:
        raise FormatError(f"[load] {name} holds no numbers: dtype {found}.")
    stored = dtype.numpy if found.kind == "V" else found
    nbytes = math.prod(shape) * found.itemsize
    data = _map(source, nbytes) if mapped else source.read(nbytes)
    if len(data) != nbytes:
        raise FormatError(f"[load] {name} ends early: {len(data)} of {nbytes} bytes.")
    flat = np.frombuffer(data, stored)
    view = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return _array(_native(view, dtype), dtype)


def _npy_header(source: IO[bytes], name: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    """Dtype, whether columns come first, and shape. (NumPy's parser lets many kinds of errors through.)"""
    start = source.read(8)
    if start[:6] != b"\x93NUMPY" or len(start) < 8 or start[6] not in (1, 2, 3):
        raise FormatError(f"[load] {name} is no .npy file of version 1 to 3.")
    width = 2 if start[6] == 1 else 4
    size = int.from_bytes(source.read(width), "little")
    text = source.read(size) if size <= _NPY_HEADER_LIMIT else b""
    try:
        match ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin-1")):
            case {"descr": str(descr), "fortran_order": bool(fortran), "shape": tuple(shape)}:
                if len(text) == size and len(shape) <= 64 and all(type(n) is int and n >= 0 for n in shape):
                    return np.dtype(descr), fortran, shape
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise FormatError(f"[load] {name}: the header is damaged, or describes no array of numbers.")


def _native(view: np.ndarray, dtype: Dtype) -> np.ndarray:
    """`view`, copied where its elements are not aligned or not in the byte order of this machine."""
    return view if view.dtype == dtype.numpy and view.flags.aligned else view.astype(dtype.numpy)


def _map(source: IO[bytes], nbytes: int) -> Any:
    """The next bytes of a file, mapped; fewer when it ends before."""
    start = source.tell()
    size = os.fstat(source.fileno()).st_size
    if not nbytes or start + nbytes > size:
        return b"" if not nbytes else source.read(nbytes)
    mapping = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(mapping)[start : start + nbytes]


def _load_npz(file: Any) -> tuple[dict[str, array], None]:
    name = str(file) if _is_path(file) else "the file"
    with _input(file) as source:
        try:
            with zipfile.ZipFile(source) as archive:
                found = {}
                for member in archive.infolist():
                    plain = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                    if not plain or not member.filename.endswith(".npy"):
                        raise FormatError(f"[load] {name} holds {member.filename!r}, which is no array.")
                    with archive.open(member) as opened:
                        key = member.filename.removesuffix(".npy")
                        found[key] = _read_npy(_checked(opened), f"{name}: {key}", False)  # type: ignore[arg-type]
                return found, None
        except FormatError:
            raise
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, UnicodeDecodeError) as error:
            raise FormatError(f"[load] {name} is no .npz file, or is damaged: {error}") from None


def _checked(member: Any) -> io.BytesIO:
    """The contents of a member; reading all of it makes zipfile compare the checksum."""
    return io.BytesIO(member.read())


def _load_safetensors(file: Any) -> tuple[dict[str, array], dict[str, str]]:
    name = str(file) if _is_path(file) else "the file"
    with _input(file) as source:
        start = source.read(8)
        size = int.from_bytes(start, "little")
        if len(start) < 8 or size > _HEADER_LIMIT:
            raise FormatError(f"[load] {name} is no .safetensors file: its header would have {size} bytes.")
        text = source.read(size)
        if len(text) < size:
            raise FormatError(f"[load] {name} ends early: {len(text)} of {size} bytes of the header.")
        entries, metadata = _header(name, text)
        total = max((end for *_, end in entries.values()), default=0)
        if _is_path(file):
            data = _map(source, os.fstat(source.fileno()).st_size - 8 - size)
        else:
            data = source.read(total)
        if len(data) < total:
            raise FormatError(f"[load] {name} ends early: {len(data)} of {total} bytes of elements.")
        found = {}
        for key, (dtype, shape, begin, end) in entries.items():
            view = np.frombuffer(data[begin:end], dtype.numpy).reshape(shape)
            found[key] = _array(_native(view, dtype), dtype)
        return found, metadata


def _header(name: str, text: bytes) -> tuple[dict[str, tuple[Dtype, list[int], int, int]], dict[str, str]]:
    """Checked entries of a safetensors header: dtype, shape, first byte and end."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"[load] {name}: the header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError(f"[load] {name}: the header is no JSON object.")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"[load] {name}: metadata must be strings.")
    entries = {}
    for key, entry in header.items():
        entries[key] = _entry(f"{name}: {key}", entry)
    end = 0
    for key, (*_, begin, after) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise FormatError(
                f"[load] {name}: {key} begins at {begin}, not at {end}, where the last one ended."
            )
        end = after
    return entries, metadata


def _entry(name: str, entry: Any) -> tuple[Dtype, list[int], int, int]:
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            sizes = all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
            if kind not in _SAFETENSORS:
                raise FormatError(f"[load] {name} holds {kind}, which no array can.")
            dtype = _SAFETENSORS[kind]
            if sizes and len(shape) <= 64 and 0 <= begin and end - begin == math.prod(shape) * dtype.size:
                return dtype, shape, begin, end
    raise FormatError(f"[load] {name}: the entry {str(entry)[:100]} is inconsistent.")


def _load_gguf(file: Any) -> tuple[dict[str, array], dict[str, Any]]:
    from ingot.format.gguf_tensors import load_gguf

    return load_gguf(file)


_LOADERS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "npy": _load_npy, "npz": _load_npz, "safetensors": _load_safetensors, "gguf": _load_gguf,
}  # fmt: skip
