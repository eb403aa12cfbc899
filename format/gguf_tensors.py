"""GGUF files through the package `gguf` (extra `ingot[gguf]`): arrays, metadata, quantised weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ingot.format.tensors import _array, _saved, path_of, replacing
from ingot.tracer import dtypes
from ingot.tracer.array import array
from ingot.tracer.errors import FormatError

_PLAIN = {
    dtypes.float32: "F32", dtypes.float16: "F16", dtypes.int8: "I8", dtypes.int16: "I16", dtypes.int32: "I32",
}  # fmt: skip
_BLOCK = 32
"""Elements that share a scale in the block types Q4_0, Q4_1 and Q8_0."""


def _library() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            f"[gguf] .gguf files need the package gguf: pip install 'ingot[gguf]' ({error})"
        ) from None
    return gguf


def save_gguf(
    file: str, arrays: Mapping[str, array], metadata: Mapping[str, array | str | list[str]] | None = None
) -> None:
    """Write named arrays to a `.gguf` file; the extension is added to a path that lacks it.

    Args:
        arrays: float32, float16, int8, int16 or int32.
        metadata: strings, lists of strings, and scalar or rank-1 arrays.

    Raises:
        ImportError: without the package `gguf`.
        ValueError: for other dtypes and for metadata of other types.
    """
    gguf = _library()
    path = path_of("save_gguf", file, ".gguf")
    views = {name: _saved("save_gguf", a) for name, a in arrays.items()}
    for name, view in views.items():
        if dtypes.from_numpy(view.dtype) not in _PLAIN:
            raise ValueError(f"[save_gguf] dtype {view.dtype} of {name!r} is not supported")
    with replacing(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "")
        writer.kv_data[0].clear()  # the writer names an architecture: metadata is what the caller gives
        for key, value in (metadata or {}).items():
            _write_value(gguf, writer, key, value)
        for name, view in views.items():
            kind = getattr(gguf.GGMLQuantizationType, _PLAIN[dtypes.from_numpy(view.dtype)])
            writer.add_tensor(name, np.ascontiguousarray(view), raw_shape=view.shape or (1,), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _write_value(gguf: Any, writer: Any, key: str, value: Any) -> None:
    kinds = gguf.GGUFValueType
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        if value:
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kinds.ARRAY, kinds.STRING)
    elif isinstance(value, array):
        view = _saved("save_gguf", value)
        name = str(value.dtype.name).removesuffix("_").upper()
        if not hasattr(kinds, name):
            raise ValueError(f"[save_gguf] array type {value.dtype.name} not supported for metadata.")
        if view.ndim > 1 or not view.size:
            raise ValueError(f"[save_gguf] metadata {key!r} must be a scalar or a filled array of rank 1.")
        if view.ndim:
            writer.add_key_value(key, view.tolist(), kinds.ARRAY, getattr(kinds, name))
        else:
            writer.add_key_value(key, view.item(), getattr(kinds, name))
    else:
        raise ValueError(f"[save_gguf] metadata {key!r} is a {type(value).__name__}.")


def load_gguf(file: Any) -> tuple[dict[str, array], dict[str, Any]]:
    """Arrays and metadata of a `.gguf` file.

    Q4_0, Q4_1 and Q8_0 weights become `weight`, `scales` and `biases` as `quantized_matmul` takes them (group
    size 32); other block types and bfloat16 become float16.
    """
    gguf = _library()
    if not isinstance(file, str | os.PathLike):
        raise ValueError("[load_gguf] Input must be a path")
    if not os.path.exists(file):
        raise FileNotFoundError(f"[load_gguf] Failed to open {os.fspath(file)}")
    try:
        reader = gguf.GGUFReader(file, "r")
        metadata = {
            key: _value(gguf, field)
            for key, field in reader.fields.items()
            if not key.startswith("GGUF.")  # what the reader adds
        }
        found: dict[str, array] = {}
        for tensor in reader.tensors:
            _add_tensor(gguf, tensor, found)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise FormatError(f"[load_gguf] {os.fspath(file)} is no .gguf file, or is damaged: {error}") from None
    return found, metadata


def _value(gguf: Any, field: Any) -> Any:
    kinds = gguf.GGUFValueType
    value, kind = field.contents(), field.types[-1]
    if kind in (kinds.STRING, kinds.ARRAY):
        return value
    dtype = dtypes.bool_ if kind is kinds.BOOL else dtypes.by_name[kind.name.lower()]
    return array(np.asarray(value, dtype.numpy), dtype)


def _add_tensor(gguf: Any, tensor: Any, found: dict[str, array]) -> None:
    kinds = gguf.GGMLQuantizationType
    shape = tuple(int(n) for n in reversed(tensor.shape))
    kind = tensor.tensor_type
    data = np.asarray(tensor.data)
    if kind.name in _PLAIN.values() or kind in (kinds.I64, kinds.F64):
        found[tensor.name] = _array(data.reshape(shape), dtypes.from_numpy(data.dtype))
    elif kind in (kinds.Q4_0, kinds.Q4_1, kinds.Q8_0):
        stem = tensor.name.removesuffix(".weight")
        blocks = data.reshape(*shape[:-1], shape[-1] // _BLOCK, -1)
        for part, value in zip(("weight", "scales", "biases"), _blocks(kind.name, blocks), strict=True):
            found[tensor.name if part == "weight" else f"{stem}.{part}"] = array(value)
    else:
        found[tensor.name] = array(gguf.dequantize(data, kind).reshape(shape).astype(np.float16))


def _blocks(kind: str, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packed elements (uint32), scales and biases (float16) of blocks of 32 elements.

    A block is a float16 scale, for Q4_1 a float16 minimum, then the elements: two halves of 16 elements in
    the low and high four bits of bytes, or signed bytes.
    """
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0]
    if kind == "Q8_0":
        packed = np.ascontiguousarray(blocks[..., 2:]) ^ np.uint8(0x80)
        biases = np.float16(-128) * scales
    else:
        begin = 4 if kind == "Q4_1" else 2
        quanta = np.concatenate([blocks[..., begin:] & 15, blocks[..., begin:] >> 4], axis=-1)
        packed = quanta[..., 0::2] | quanta[..., 1::2] << 4
        biases = np.float16(-8) * scales
        if kind == "Q4_1":
            biases = np.ascontiguousarray(blocks[..., 2:4]).view(np.float16)[..., 0]
    words = np.ascontiguousarray(packed).view("<u4")
    return words.reshape(*words.shape[:-2], -1).astype(np.uint32), scales, biases
