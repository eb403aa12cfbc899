"""Targets: what code is generated for. The host is found without llvmlite, since a process that only runs
cached images needs nothing but the key.

Objects are made in ELF for every target, whatever the system it will run on: the calling conventions agree
on Linux and macOS, and images hold no system calls. On AArch64 register x18 is left alone, as macOS
demands.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache

from ingot.tracer import config
from ingot.tracer.record import record, replace


@record
class Target:
    """`bits` is the vector width, `registers` the number of vector registers, `half` whether float16
    conversion is an instruction, `page` the size to which code and constants are aligned in images."""

    name: str
    triple: str
    cpu: str
    features: str
    bits: int
    registers: int
    has_fma: bool
    half: bool
    page: int

    @property
    def key(self) -> str:
        """Names everything that code generated for this target depends on."""
        return f"{self.triple}/{self.cpu}/{self.features}"

    @property
    def is_x86(self) -> bool:
        return self.triple.startswith("x86_64")

    @property
    def has_bf16_dot(self) -> bool:
        """Whether `dot_bf16` is an instruction."""
        return "+avx512bf16" in self.features

    def lanes(self, dtype: str) -> int:
        """How many elements of `dtype` (a short name) fill one vector register."""
        # imported late: a process that only loads cached code needs the target's key, not the loop IR
        from ingot.lowering.loop import BYTES

        return self.bits // (8 * BYTES[dtype])


_X86 = "x86_64-unknown-linux-gnu"
_ARM = "aarch64-unknown-linux-gnu"
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("x86-64-v2", _X86, "x86-64-v2", "", 128, 16, False, False, 4096),
        Target("x86-64-v3", _X86, "x86-64-v3", "", 256, 16, True, True, 4096),
        Target("x86-64-v4", _X86, "x86-64-v4", "-prefer-256-bit", 512, 32, True, True, 4096),
        Target("aarch64", _ARM, "generic", "+neon,+reserve-x18", 128, 32, True, True, 65536),
        Target("apple-m1", _ARM, "apple-m1", "+reserve-x18", 128, 32, True, True, 65536),
    )
}

# What /proc/cpuinfo (or sysctl) must list for each level of the x86-64 psABI, beyond the level below.
_LEVELS = (
    ("x86-64-v2", "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
    ("x86-64-v3", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"),
    ("x86-64-v4", "avx512f avx512bw avx512cd avx512dq avx512vl"),
)
_EXTRAS = {"avx512_vnni": "+avx512vnni", "avx512_bf16": "+avx512bf16"}


def named(name: str) -> Target:
    """The target called `name`, or `host`. Raises ValueError that lists the names."""
    if name == "host":
        return host()
    if name not in TARGETS:
        raise ValueError(f"[target] unknown target {name!r}: expected host, {', '.join(TARGETS)}.")
    return TARGETS[name]


def current() -> Target:
    """The target set by INGOT_TARGET, or this machine."""
    return named(config.get("INGOT_TARGET") or "host")


@cache
def host() -> Target:
    """This machine. Raises RuntimeError on processors that no target fits."""
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return TARGETS["apple-m1" if sys.platform == "darwin" else "aarch64"]
    if machine in ("x86_64", "amd64"):
        return x86_from_flags(_x86_flags())
    raise RuntimeError(f"[target] no code generation for {machine} processors.")


def x86_from_flags(flags: frozenset[str]) -> Target:
    """The highest level that the processor flags (named as in /proc/cpuinfo) allow, with known extras."""
    found = None
    for name, needed in _LEVELS:
        if not flags.issuperset(needed.split()):
            break
        found = TARGETS[name]
    if found is None:
        raise RuntimeError("[target] the processor lacks SSE4.2: x86-64-v2 is the least that is supported.")
    extras = [feature for flag, feature in _EXTRAS.items() if flag in flags] if found.bits == 512 else []
    return replace(found, features=",".join(filter(None, [found.features, *extras])))


def _x86_flags() -> frozenset[str]:
    if sys.platform == "darwin":
        return _darwin_flags()
    with open("/proc/cpuinfo", "rb") as info:
        for line in info:
            if line.startswith(b"flags"):
                return frozenset(line.decode("ascii", "replace").split(":", 1)[1].split())
    return frozenset()


def _darwin_flags() -> frozenset[str]:
    """The sysctl names of the same flags, spelled as in /proc/cpuinfo."""
    spelling = {"sse4.1": "sse4_1", "sse4.2": "sse4_2", "avx1.0": "avx", "lzcnt": "abm", "lahf": "lahf_lm"}
    flags: set[str] = set()
    for name in ("features", "leaf7_features", "extfeatures"):
        flags.update(_sysctl(f"machdep.cpu.{name}").lower().split())
    return frozenset(spelling.get(flag, flag) for flag in flags)


def _sysctl(name: str) -> str:
    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(4096)
    buffer = ctypes.create_string_buffer(size.value)
    failed = libc.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else buffer.value.decode("ascii", "replace")
