"""Flat images: layout, hostile bytes, loading and mapping, and that loading needs no compiler."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from ingot.lowering import image as images
from ingot.lowering.image import Image
from ingot.lowering.llvm import codegen, target
from ingot.lowering.llvm.elf import LinkError, flatten
from ingot.lowering.llvm.emit import emit_module
from ingot.lowering.loop import Convert, binary, const, math_call
from ingot.lowering.loop_builder import Builder
from ingot.runtime import cache as disk
from ingot.runtime import loader
from ingot.runtime.cache import Cache
from ingot.runtime.kernel_call import call_kernel
from ingot.runtime.loader import load, map_checked, map_file
from ingot.tracer.errors import FormatError

HOST = target.host()


def exp_kernel(lanes: int, name: str = "exp"):
    b = Builder(name)
    x, y, n = b.buffer("x", "f32"), b.buffer("y", "f32", "write"), b.param("n")
    with b.loop("i", 0, n, lanes) as loop:
        b.store(y, loop.index, math_call("exp", b.load(x, loop.index, lanes)) + b.load(x, 0))
    return b.kernel()


@pytest.fixture(scope="module")
def image() -> Image:
    return codegen.compile_kernels([exp_kernel(8, "first"), exp_kernel(16, "second")], HOST)


def test_round_trip_and_layout(image):
    data = image.to_bytes()
    again = Image.from_bytes(data)
    assert again == image and again.to_bytes() == data
    assert len(data) % image.page == 0 and image.rodata
    layout = images.read_layout(memoryview(data))
    assert layout.text_at % image.page == 0 and layout.rodata_at % image.page == 0
    assert set(again.entries) == {"first", "second"} and again.target_key == HOST.key


def test_any_changed_byte_is_noticed(image):
    data = image.to_bytes()
    rng = random.Random(0)
    for at in [*range(200), *(rng.randrange(len(data)) for _ in range(300))]:
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises(FormatError):
            Image.from_bytes(bytes(damaged))
    for end in [0, 1, 103, 104, 4096, len(data) - 1]:
        with pytest.raises(FormatError):
            Image.from_bytes(data[:end])
    with pytest.raises(FormatError):
        Image.from_bytes(data + bytes(4096))


def test_repaired_checksums_give_an_error_or_a_bounded_image(image):
    data = image.to_bytes()
    rng = random.Random(1)
    values = [0, 1, 0xFF, 0xFFFFFFFF, 1 << 63, 4096, len(data)]
    for _ in range(2000):
        damaged = bytearray(data)
        at = rng.randrange(8, 260)
        width = rng.choice([1, 4, 8])
        damaged[at : at + width] = (rng.choice(values) % (1 << 8 * width)).to_bytes(width, "little")
        damaged = damaged[: len(data)]
        damaged[72:104] = hashlib.sha256(damaged[:72] + damaged[104:]).digest()
        try:
            found = Image.from_bytes(bytes(damaged))
        except FormatError:
            continue
        assert len(found.text) + len(found.rodata) <= len(data)
        assert all(0 <= offset < len(found.text) for offset in found.entries.values())


def check(loaded) -> None:
    x, y = np.linspace(-3, 3, 32, dtype=np.float32), np.zeros(32, np.float32)
    for name in ("first", "second"):
        assert call_kernel(loaded.address(name), [x, y], [32])[0] == 0
        np.testing.assert_allclose(y, np.exp(x.astype(np.float64)) + x[0], rtol=1e-6, atol=1e-6)


def test_load_and_unload(image):
    loaded = load(image)
    assert loaded.names == ("first", "second")
    check(loaded)
    with pytest.raises(KeyError):
        loaded.address("third")
    loaded.unload()
    loaded.unload()
    with pytest.raises(ValueError):
        loaded.address("first")


def test_map_file(image, tmp_path):
    path = tmp_path / "kernels.image"
    path.write_bytes(image.to_bytes())
    check(map_file(path))
    path.write_bytes(bytes(65536) + image.to_bytes())  # as a section of a larger file
    check(map_file(path, 65536))
    path.write_bytes(bytes(65536) + image.to_bytes() + b"more")
    check(map_file(path, 65536, len(image.to_bytes())))
    with pytest.raises(FormatError):
        map_file(path, 65536)
    path.write_bytes(b"")
    with pytest.raises(FormatError):
        map_file(path)
    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "absent")


def protections(start: int, size: int) -> dict[int, tuple[str, str]]:
    """{address: (protection, file)} of the mappings of this process in [start, start + size)."""
    seen = {}
    with open("/proc/self/maps") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            begin = int(fields[0].split("-")[0], 16)
            if start <= begin < start + size:
                seen[begin] = fields[1], fields[5].strip() if len(fields) > 5 else ""
    return seen


needs_maps = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")


@needs_maps
def test_pages_are_never_writable_and_executable(image):
    loaded = load(image)
    base = loaded.address("first") - image.entries["first"]
    seen = protections(base, image.mapped_size)
    assert seen[base] == ("r-xp", "") and seen[base + image.rodata_distance] == ("r--p", "")


@needs_maps
@pytest.mark.parametrize("alignment", [loader.PAGE, 64])
def test_cached_images_are_mapped_where_they_are_aligned(image, tmp_path, alignment):
    cache = Cache(tmp_path, 1 << 20)
    cache.put("image", "k", image.to_bytes(), alignment)
    loaded = cache.use("image", "k", map_checked)
    check(loaded)
    base = loaded.address("first") - image.entries["first"]
    seen = protections(base - 4096, image.mapped_size + 8192)
    file = str(cache.path("image", "k")) if alignment == loader.PAGE else ""
    assert seen[base] == ("r-xp", file) and seen[base + image.rodata_distance] == ("r--p", file)
    with open("/proc/self/maps") as maps:
        lines = [line for line in maps if str(tmp_path) in line]
    assert len(lines) == (2 if file else 0), "the header stays mapped"
    cache.clear()
    cache.put("image", "k", bytes(100))
    check(loaded)  # a removed file lives as long as its mapping
    loaded.unload()
    assert base not in protections(base, image.mapped_size)


@needs_maps
def test_images_on_file_systems_without_execution_are_copied(image, tmp_path, monkeypatch):
    protect, refused = loader._protect, []

    def refuse(base, size, text):
        if not refused:
            refused.append(base)
            raise PermissionError(13, "noexec")
        protect(base, size, text)

    cache = Cache(tmp_path, 1 << 20)
    cache.put("image", "k", image.to_bytes(), loader.PAGE)
    monkeypatch.setattr(loader, "_protect", refuse)
    loaded = cache.use("image", "k", map_checked)
    assert refused
    check(loaded)
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) not in maps.read()


@needs_maps
def test_damaged_cached_images_are_never_mapped(image, tmp_path, recwarn):
    data, rng = image.to_bytes(), random.Random(2)
    cache = Cache(tmp_path, 1 << 20)
    disk._warned.clear()
    for case in range(60):
        cache.put("image", "k", data, loader.PAGE)
        path = cache.path("image", "k")
        stored = bytearray(path.read_bytes())
        if case % 3 == 0:
            stored = stored[: rng.randrange(len(stored))]
        elif case % 3 == 1:
            stored[rng.randrange(loader.PAGE, len(stored))] ^= 1 << rng.randrange(8)
        else:
            stored += bytes(rng.randrange(1, 9000))
        path.write_bytes(stored)
        assert cache.use("image", "k", map_checked) is None and not path.exists()
    cache.put("image", "k", b"no image, but its digest is right", loader.PAGE)
    assert cache.use("image", "k", map_checked) is None
    assert sum("ignores" in str(w.message) for w in recwarn) == 1
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) not in maps.read()


@needs_maps
def test_unused_images_are_unmapped(image, tmp_path):
    cache = Cache(tmp_path, 1 << 20)
    cache.put("image", "k", image.to_bytes(), loader.PAGE)
    for _ in range(3):
        loaded = cache.use("image", "k", map_checked)
        loaded.unload_when_unused()
    with open("/proc/self/maps") as maps:
        assert sum(str(tmp_path) in line for line in maps) == 2
    check(loaded)
    del loaded
    with open("/proc/self/maps") as maps:
        assert str(tmp_path) not in maps.read()


LOADER = """
import sys, time
import numpy as np
from ingot.runtime.loader import map_file
from ingot.runtime.kernel_call import call_kernel
from ingot.lowering.llvm import target
assert target.host().key == {key!r}
x, y = np.zeros(32, np.float32), np.zeros(32, np.float32)
t0 = time.perf_counter()
loaded = map_file({path!r})
t1 = time.perf_counter()
assert loaded.target_key == target.host().key
code, _ = call_kernel(loaded.address("first"), [x, y], [32])
t2 = time.perf_counter()
assert code == 0 and (y == 1).all()
assert not any(m.startswith("llvmlite") for m in sys.modules), "llvmlite was imported"
print(f"map {{(t1 - t0) * 1e3:.3f}} ms, first call {{(t2 - t1) * 1e3:.3f}} ms")
"""


def test_a_fresh_process_maps_and_runs_without_llvmlite(image, tmp_path):
    path = tmp_path / "kernels.image"
    path.write_bytes(image.to_bytes())
    script = LOADER.format(key=HOST.key, path=str(path))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_mapping_is_fast(image, tmp_path):
    path = tmp_path / "kernels.image"
    path.write_bytes(image.to_bytes())
    times = []
    for _ in range(20):
        start = time.perf_counter()
        map_file(path)
        times.append(time.perf_counter() - start)
    assert min(times) < 2e-3  # about 0.05 ms on an idle machine


@pytest.mark.parametrize("name", sorted(target.TARGETS))
def test_images_of_all_targets(name):
    on = target.named(name)
    image = codegen.compile_kernels([exp_kernel(on.lanes("f32"))], on)
    assert Image.from_bytes(image.to_bytes()) == image
    assert image.page == (4096 if on.is_x86 else 65536)


def remainder_kernel():
    b = Builder("exp")
    x, y = b.buffer("x", "f32"), b.buffer("y", "f32", "write")
    b.store(y, 0, binary("rem", b.load(x, 0), 0.75) + 0.1)
    return b.kernel()


@pytest.mark.parametrize("name", sorted(target.TARGETS))
def test_functions_of_one_module_become_images_of_their_own(name):
    """Each with the constants and the routines that it needs, under the name it has alone."""
    on = target.TARGETS[name]
    kernels = [exp_kernel(8), exp_kernel(4), remainder_kernel(), exp_kernel(16)]
    text = emit_module(kernels, on, symbols=[f"exp.{i}" for i in range(4)])
    parts = [{"exp.1": "exp"}, {"exp.2": "exp"}, {"exp.0": "a", "exp.3": "b"}]
    made = codegen.compile_parts([(text, parts)], on)
    assert [set(image.entries) for image in made] == [{"exp"}, {"exp"}, {"a", "b"}]
    whole = codegen.compile_parts([(text, [{f"exp.{i}": f"{i}" for i in range(4)}])], on)[0]
    assert all(len(image.text) < len(whole.text) for image in made)
    if on.is_x86 and HOST.is_x86 and on.bits <= HOST.bits:
        loaded = [load(image) for image in made]
        assert len({image.address(entry) for image in loaded for entry in image.names}) == 4
        x, y = np.linspace(-1, 1, 16, dtype=np.float32), np.zeros(16, np.float32)
        call_kernel(loaded[0].address("exp"), [x, y], [16])
        np.testing.assert_allclose(y, np.exp(x) + x[0], atol=1e-6)
        call_kernel(loaded[1].address("exp"), [x, y], [])
        assert y[0] == np.float32(np.fmod(x[0], np.float32(0.75)) + np.float32(0.1))
        call_kernel(loaded[2].address("b"), [x, y], [16])
        np.testing.assert_allclose(y, np.exp(x) + x[0], atol=1e-6)


@pytest.mark.parametrize("hidden", [False, True])
def test_modules_are_compiled_in_threads_of_their_own(hidden, monkeypatch):
    if hidden:  # an llvmlite that does not show what is behind its lock
        monkeypatch.setattr(codegen, "_unlocked", lambda name: getattr(codegen._binding().ffi.lib, name))
    lanes = (8, 4, 16, 2, 1)
    texts = [emit_module([exp_kernel(n)], HOST, symbols=["exp.0"]) for n in lanes]
    made = codegen.compile_parts([(text, [{"exp.0": "exp"}]) for text in texts], HOST)
    alone = [codegen.compile_parts([(text, [{"exp.0": "exp"}])], HOST)[0] for text in texts]
    assert made == alone and len({image.text for image in made}) == len(lanes)
    with pytest.raises(RuntimeError, match="expected"):
        codegen.compile_parts([(text, [{"exp.0": "exp"}]) for text in (*texts, "nonsense")], HOST)


def test_functions_are_divided_by_their_size():
    big = 1 << 20
    assert codegen.balanced([big, 1, 1, big], 2) in ([[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 1, 2], [3]])
    assert codegen.balanced([10, 10, 10], 8) == [[0, 1, 2]]  # too little for a second thread
    assert codegen.balanced([big] * 3, 8) == [[0], [1], [2]]
    assert codegen.balanced([big, big, big, big], 1) == [[0, 1, 2, 3]]
    assert codegen.balanced([], 4) == [[]]


def test_targets_from_processor_flags():
    v2 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3".split()
    v3 = [*v2, *"avx avx2 bmi1 bmi2 f16c fma abm movbe xsave".split()]
    v4 = [*v3, *"avx512f avx512bw avx512cd avx512dq avx512vl".split()]
    assert target.x86_from_flags(frozenset(v2)).name == "x86-64-v2"
    assert target.x86_from_flags(frozenset([*v2, "avx512f"])).name == "x86-64-v2"
    assert target.x86_from_flags(frozenset(v3)).name == "x86-64-v3"
    assert target.x86_from_flags(frozenset(v4)) == target.TARGETS["x86-64-v4"]
    assert "avx512bf16" in target.x86_from_flags(frozenset([*v4, "avx512_bf16"])).key
    with pytest.raises(RuntimeError, match="SSE4.2"):
        target.x86_from_flags(frozenset())
    with pytest.raises(ValueError, match="x86-64-v3"):
        target.named("pdp-11")


def test_elf_reader_refuses_other_files():
    for data in (b"\x7fELF\x01\x01" + bytes(100), b"MZ" + bytes(100)):
        with pytest.raises(LinkError):
            flatten(data, "key", 4096)
    executable = bytearray(b"\x7fELF\x02\x01\x01" + bytes(200))
    struct.pack_into("<HH", executable, 16, 2, 62)
    with pytest.raises(LinkError, match="type 2"):
        flatten(bytes(executable), "key", 4096)


def test_internal_calls_and_tables_are_relocated():
    """A call inside the module and a switch table, which refers from rodata back to text."""
    arms = "\n".join(f"    i64 {i}, label %b{i}" for i in range(12))
    blocks = "\n".join(
        f"b{i}:\n  %r{i} = call i64 @inner(i64 {i * i + 3})\n  ret i64 %r{i}" for i in range(12)
    )
    text = (
        f'target triple = "{HOST.triple}"\n'
        "define internal i64 @inner(i64 %x) noinline {\n  %y = mul i64 %x, %x\n  ret i64 %y\n}\n"
        f"define i64 @pick(i64 %x) {{\n  switch i64 %x, label %other [\n{arms}\n  ]\n{blocks}\n"
        "other:\n  ret i64 -1\n}\n"
    )
    import ctypes

    loaded = load(codegen.compile_module(text, HOST))
    pick = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address("pick"))
    assert [pick(i) for i in range(13)] == [(i * i + 3) ** 2 for i in range(12)] + [-1]


DRIVER = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static void *read_all(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    *size = ftell(file);
    rewind(file);
    void *data = malloc(*size + 1);
    if (fread(data, 1, *size, file) != *size) exit(9);
    return data;
}
int main(int count, char **args) {          /* image, text at, mapped size, text pages, entry, input, output
*/
    size_t size, bytes;
    char *image = read_all(args[1], &size), *input = read_all(args[6], &bytes), *output = calloc(1, bytes);
    size_t mapped = atol(args[3]);
    char *code = mmap(0, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, image + atol(args[2]), mapped);
    __builtin___clear_cache(code, code + mapped);
    mprotect(code, atol(args[4]), PROT_READ | PROT_EXEC);
    void *buffers[2] = {input, output};
    int64_t params[1] = {(int64_t)(bytes / 4)};
    int (*kernel)(void *, void **, int64_t *, int64_t, int64_t) = (void *)(code + atol(args[5]));
    int result = kernel(0, buffers, params, 0, 1);
    FILE *file = fopen(args[7], "wb");
    fwrite(output, 1, bytes, file);
    fclose(file);
    return result;
}
"""


@pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and shutil.which("aarch64-linux-gnu-gcc")),
    reason="needs qemu-user and an AArch64 C compiler",
)
@pytest.mark.parametrize("name", ["aarch64", "apple-m1"])
def test_aarch64_code_runs(name, tmp_path):
    """The AArch64 relocations and vector math, executed by an emulator."""
    (tmp_path / "driver.c").write_text(DRIVER)
    driver = str(tmp_path / "driver")
    subprocess.run(
        ["aarch64-linux-gnu-gcc", "-O1", "-static", str(tmp_path / "driver.c"), "-o", driver], check=True
    )
    b = Builder("k")
    x, y, n = b.buffer("x", "f32"), b.buffer("y", "f32", "write"), b.param("n")
    with b.loop("i", 0, n, 4) as loop:
        v = b.let(b.load(x, loop.index, 4))
        half = Convert(Convert(v, "f16"), "f32")
        b.store(y, loop.index, math_call("exp", v) + math_call("tanh", half) / const(3.0, v.type))
    image = codegen.compile_kernels([b.kernel()], target.named(name))
    (tmp_path / "image").write_bytes(image.to_bytes())
    values = np.linspace(-9, 9, 4000, dtype=np.float32)
    values.tofile(tmp_path / "input")
    layout = images.read_layout(memoryview(image.to_bytes()))
    numbers = [layout.text_at, image.mapped_size, image.rodata_distance, image.entries["k"]]
    arguments = [tmp_path / "image", *numbers, tmp_path / "input", tmp_path / "output"]
    subprocess.run(["qemu-aarch64", driver, *map(str, arguments)], check=True)
    got = np.fromfile(tmp_path / "output", np.float32)
    wide = values.astype(np.float64)
    expected = np.exp(wide) + np.tanh(values.astype(np.float16).astype(np.float64)) / 3
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
