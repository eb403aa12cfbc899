"""The cache on disk: atomic, private, bounded, and never trusted."""

import os
import stat
import threading
import warnings

import pytest

from ingot.runtime import cache as cache_module
from ingot.runtime.cache import Cache, key


@pytest.fixture(autouse=True)
def _fresh_warnings():
    cache_module._warned.clear()


def entry(cache):
    ((_, _, path),) = cache.entries()
    return path


def test_round_trip(tmp_path):
    cache = Cache(tmp_path / "deep" / "er", 1 << 20)
    assert cache.get("image", "k") is None
    cache.put("image", "k", b"payload")
    assert cache.get("image", "k") == b"payload"
    assert cache.get("program", "k") is None
    assert stat.S_IMODE(os.stat(tmp_path / "deep" / "er").st_mode) == 0o700
    assert stat.S_IMODE(entry(cache).stat().st_mode) == 0o600
    assert (cache.hits, cache.misses) == (1, 2)
    cache.put("image", "k", b"another")
    assert cache.get("image", "k") == b"another" and len(cache.entries()) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "header", "append"])
def test_a_damaged_entry_is_a_miss(tmp_path, damage):
    cache = Cache(tmp_path, 1 << 20)
    cache.put("image", "k", b"payload" * 100)
    path = entry(cache)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-5] ^= 1
    elif damage == "header":
        data[3] ^= 1
    elif damage == "append":
        data += b"x"
    else:
        data = data[: len(data) // 2] if damage == "truncate" else bytearray()
    path.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert cache.get("image", "k") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cache.get("image", "k") is None  # gone, and warned of once
    cache.put("image", "k", b"new")
    assert cache.get("image", "k") == b"new"


def test_entries_that_others_may_write_are_ignored(tmp_path):
    cache = Cache(tmp_path, 1 << 20)
    cache.put("image", "k", b"payload")
    entry(cache).chmod(0o666)
    with pytest.warns(RuntimeWarning, match="another user"):
        assert cache.get("image", "k") is None


def test_a_folder_that_others_may_write_is_ignored(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    cache = Cache(folder, 1 << 20)
    with pytest.warns(RuntimeWarning, match="others may write"):
        cache.put("image", "k", b"payload")
    assert cache.get("image", "k") is None and not list(folder.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache", 1 << 20)
    with pytest.warns(RuntimeWarning, match="cannot use"):
        cache.put("image", "k", b"payload")
    assert cache.get("image", "k") is None


def test_size_is_bounded_and_recent_entries_stay(tmp_path):
    cache = Cache(tmp_path, 5000)
    for i in range(10):
        cache.put("image", f"k{i}", bytes(1000))
        os.utime(cache.path("image", f"k{i}"), (1000 + i, 1000 + i))
    assert cache.get("image", "k0") is not None  # used now
    cache.trim()
    kept = sorted(path.name for _, _, path in cache.entries())
    assert kept == ["k0.image", "k7.image", "k8.image", "k9.image"]
    assert sum(size for _, size, _ in cache.entries()) <= 5000


def test_no_cache():
    cache = Cache(None, 0)
    cache.put("image", "k", b"payload")
    assert cache.get("image", "k") is None and cache.entries() == []


def test_writers_and_readers_at_once(tmp_path):
    errors = []

    def work(k):
        cache = Cache(tmp_path, 1 << 20)
        for i in range(50):
            cache.put("image", f"k{i % 5}", f"{i % 5}".encode() * 2000)
            found = cache.get("image", f"k{(i + k) % 5}")
            if found is not None and found != f"{(i + k) % 5}".encode() * 2000:
                errors.append(found[:10])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


def test_keys_tell_parts_apart():
    assert key("ab", "c") != key("a", "bc") and key("a") == key(b"a") and len(key("x")) == 40


def test_environment(monkeypatch, tmp_path):
    def default():
        cache_module.default.cache_clear()
        return cache_module.default()

    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("INGOT_CACHE_SIZE", "123")
    assert default().folder == str(tmp_path) and default().limit == 123
    monkeypatch.setenv("INGOT_CACHE_DIR", "off")
    assert default().folder is None
    monkeypatch.setenv("INGOT_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default().folder == str(tmp_path / "xdg" / "ingot")
    cache_module.default.cache_clear()


def test_blobs_lie_at_the_asked_alignment(tmp_path):
    cache = Cache(tmp_path, 1 << 20)
    cache.put("image", "k", b"payload" * 10, alignment=4096)
    assert entry(cache).stat().st_size == 4096 + 70 and cache.get("image", "k") == b"payload" * 10
    seen = cache.use("image", "k", lambda file, at, size, _: (os.pread(file, size, at), at, size))
    assert seen == (b"payload" * 10, 4096, 70)


@pytest.mark.parametrize("offset", [0, 63, 71, 1 << 20, 0xFFFFFFFF])
def test_headers_that_point_elsewhere(tmp_path, offset):
    cache = Cache(tmp_path, 1 << 20)
    cache.put("image", "k", b"payload" * 100)
    data = bytearray(entry(cache).read_bytes())
    data[40:44] = offset.to_bytes(4, "little")
    entry(cache).write_bytes(data)
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert cache.get("image", "k") is None
    assert cache.entries() == []


def test_links_are_not_followed(tmp_path):
    cache = Cache(tmp_path / "cache", 1 << 20)
    cache.put("image", "k", b"payload")
    entry(cache).rename(tmp_path / "elsewhere")
    cache.path("image", "k").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(RuntimeWarning, match="ignores"):
        assert cache.get("image", "k") is None
    assert (tmp_path / "elsewhere").exists()
