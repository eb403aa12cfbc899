"""Devices and streams: the names that scripts for MLX use. There is one device, the CPU, and order needs no
streams, so these only remember what was set."""

from __future__ import annotations

import os
import platform
import threading
from enum import Enum
from typing import Any

from ingot.tracer.array import array


class DeviceType(Enum):
    """Kinds of devices. A device equals its type."""

    cpu = 0
    gpu = 1

    def __repr__(self) -> str:
        return f"DeviceType.{self.name}"

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Device) and other == self)

    def __hash__(self) -> int:
        return hash(self.name)


cpu, gpu = DeviceType.cpu, DeviceType.gpu


class Device:
    """A device of a type, by number."""

    __slots__ = ("type", "index")

    def __init__(self, type: DeviceType, index: int = 0) -> None:
        self.type, self.index = type, index

    def __repr__(self) -> str:
        return f"Device({self.type.name}, {self.index})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DeviceType):
            return self.type is other and self.index == 0
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index)) if self.index else hash(self.type)


class Stream:
    """A queue of operations of a device."""

    __slots__ = ("device", "index")

    def __init__(self, device: Device, index: int) -> None:
        self.device, self.index = device, index

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.device}, {self.index})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and (self.device, self.index) == (other.device, other.index)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((self.device, self.index))


class ThreadLocalStream(Stream):
    """A stream that is another one in every thread."""

    __slots__ = ()


class _Current(threading.local):
    def __init__(self) -> None:
        self.stream = Stream(Device(cpu), 0)


_current = _Current()
_made = [0]


def _device(name: str, device: Any) -> Device:
    found = Device(device) if isinstance(device, DeviceType) else device
    if not isinstance(found, Device):
        raise TypeError(f"[{name}] expected a device, got {type(device).__name__}.")
    if found.type is not cpu:
        raise ValueError(f"[{name}] Cannot use the gpu: there is no gpu backend.")
    return found


def default_device() -> Device:
    """The device operations run on."""
    return _current.stream.device


def set_default_device(device: Device | DeviceType) -> None:
    """Set the default device; ValueError for one that is not there."""
    _current.stream = Stream(_device("set_default_device", device), _current.stream.index)


def default_stream(device: Device | DeviceType) -> Stream:
    """The stream that operations on `device` are put in."""
    _device("default_stream", device)
    return _current.stream


def set_default_stream(stream: Stream) -> None:
    """Set the default stream of its device."""
    if not isinstance(stream, Stream):
        raise TypeError(f"[set_default_stream] expected a stream, got {type(stream).__name__}.")
    _current.stream = stream


def _new(kind: type[Stream], device: Device | DeviceType) -> Stream:
    found = _device("new_stream", device)
    _made[0] += 1
    return kind(found, _made[0])


def new_stream(device: Device | DeviceType) -> Stream:
    """A new stream on `device`."""
    return _new(Stream, device)


def new_thread_unsafe_stream(device: Device | DeviceType) -> Stream:
    """A new stream on `device`, for one thread."""
    return _new(Stream, device)


def new_thread_local_stream(device: Device | DeviceType) -> ThreadLocalStream:
    """A stream on `device` that is another one in every thread."""
    return _new(ThreadLocalStream, device)  # type: ignore[return-value]


def clear_streams() -> None:
    """Forget the streams of this thread: the default stream is again the first one."""
    _current.stream = Stream(Device(cpu), 0)


class StreamContext:
    """Sets the default stream or device inside `with`; made by `stream`."""

    def __init__(self, s: Stream | Device | DeviceType) -> None:
        self._stream = s if isinstance(s, Stream) else Stream(_device("stream", s), _current.stream.index)
        self._saved: list[Stream] = []

    def __enter__(self) -> None:
        self._saved.append(_current.stream)
        _current.stream = self._stream

    def __exit__(self, exc_type: Any = None, exc_value: Any = None, traceback: Any = None) -> None:
        _current.stream = self._saved.pop()


def stream(s: Stream | Device | DeviceType) -> StreamContext:
    """A context manager that sets the default stream or device."""
    return StreamContext(s)


def synchronize(stream: Stream | Device | DeviceType | None = None) -> None:
    """Wait until a stream is done. Evaluation returns when it is done: nothing is left to wait for."""
    if stream is not None and not isinstance(stream, Stream):
        _device("synchronize", stream)


def is_available(device: Device | DeviceType) -> bool:
    """Whether there is such a device."""
    found = Device(device) if isinstance(device, DeviceType) else device
    return found == Device(cpu)


def device_count(device_type: DeviceType) -> int:
    """How many devices of a type there are."""
    return int(device_type is cpu)


def device_info(d: Device | DeviceType | None = None) -> dict[str, str | int]:
    """Name, architecture and memory of a device."""
    _device("device_info", cpu if d is None else d)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"device_name": _processor(), "architecture": platform.machine(), "memory_size": memory}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def from_dlpack(x: Any, /, *, copy: bool | None = None) -> array:
    """An array from an object that supports DLPack. Contents are copied, so `copy=False` is a ValueError."""
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"[from_dlpack] {type(x).__name__} has no __dlpack__.")
    if copy is False:
        raise ValueError("[from_dlpack] Cannot import a CPU array without a copy.")
    return array(x)
