"""The cache of vision features: bounded, shared by processes, never half-written."""

from __future__ import annotations

import errno
import os
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from fcit.models import features
from fcit.models.features import FeatureCache
from fcit.types import Weights


def key(number: int) -> str:
    return FeatureCache.key(str(number).encode())


def value(number: int) -> Weights:
    return {"part": torch.full((256,), float(number)), "text": torch.tensor([number])}


def same(found: Weights | None, number: int) -> bool:
    wanted = value(number)
    return (
        found is not None
        and found.keys() == wanted.keys()
        and all(torch.equal(found[name], wanted[name]) for name in wanted)
    )


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_caches_are_bounded(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features, "MEMORY_BYTES", 4200)
    monkeypatch.setattr(features, "DISK_BYTES", 8300)
    cache = FeatureCache("m", tmp_path)
    for number in range(20):
        cache.put(key(number), value(number))
    assert cache.bytes_held <= 4200
    assert len(cache.memory) == 4
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 12000
    assert cache.computed == 20


def test_processes_together_keep_to_the_disks_limit(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features, "DISK_BYTES", 10_000)
    caches = [FeatureCache("model", tmp_path) for _ in range(4)]
    for number in range(40):
        for at, cache in enumerate(caches):
            cache.put(f"{at}{number:063}", {"a": torch.zeros(100)})
    kept = sum(file.stat().st_size for file in tmp_path.rglob("*.features"))
    assert 8_000 < kept < 12_000


def test_a_folder_of_another_user_leaves_features_in_memory(tmp_path, monkeypatch) -> None:
    """A shared cache, whose first user made its folders for himself alone."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    cache = FeatureCache("m", tmp_path)
    cache.refresh()
    cache.put(key(0), value(0))
    assert key(0) in cache
    assert not list(tmp_path.iterdir())


def test_old_features_make_room_in_a_full_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features, "DISK_BYTES", 3000)
    for model in ("old", "new"):
        FeatureCache(model, tmp_path).put(key(0), value(0))
    old, new = (next((tmp_path / model).iterdir()) for model in ("old", "new"))
    monkeypatch.setattr(features, "DISK_BYTES", 1500)
    cache = FeatureCache("mine", tmp_path)
    cache.put(key(1), value(1))
    assert old.is_file() and new.is_file() and not (tmp_path / "mine").exists()
    os.utime(old, (0, 0))
    cache = FeatureCache("mine", tmp_path)
    cache.put(key(1), value(1))
    assert new.is_file() and not old.exists()


def test_old_features_make_room_in_a_cache_that_was_filled_as_usual(tmp_path, monkeypatch) -> None:
    """A cache stops growing below its limit."""
    monkeypatch.setattr(features, "DISK_BYTES", 1_000_000)
    for model in ("old", "mine"):
        cache = FeatureCache(model, tmp_path)
        for number in range(20):
            cache.put(key(number), {"part.0": torch.zeros(25_000)})
        assert 850_000 < sum(file.stat().st_size for file in files(tmp_path / model)) < 1_000_000
        for file in files(tmp_path / model):
            os.utime(file, (0, 0))
    assert not list((tmp_path / "old").iterdir())


def test_a_full_disk_leaves_features_in_memory(tmp_path, monkeypatch) -> None:
    cache = FeatureCache("m", tmp_path)
    cache.put(key(0), value(0))
    opened = Path.open

    def full(self: Path, *words: Any, **more: Any) -> Any:
        if "a" in "".join(words):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, *words, **more)

    monkeypatch.setattr(Path, "open", full)
    cache.put(key(1), value(1))
    assert same(cache.get(key(0)), 0) and same(cache.get(key(1)), 1)
    monkeypatch.undo()
    cache.put(key(2), value(2))  # it is not tried again
    later = FeatureCache("m", tmp_path)
    later.refresh()
    assert key(0) in later and key(1) not in later and key(2) not in later


def test_features_of_a_process_are_in_one_file_and_found_by_others(tmp_path) -> None:
    first, second = FeatureCache("m", tmp_path), FeatureCache("m", tmp_path)
    for number in range(5):
        first.put(key(number), value(number))
    assert len(files(tmp_path)) == 1
    assert key(3) not in second
    second.refresh()
    assert same(second.get(key(3)), 3)
    second.put(key(7), value(7))
    first.put(key(8), value(8))
    for cache in (first, second):
        cache.refresh()
        cache.forget()
        assert all(same(cache.get(key(number)), number) for number in (0, 4, 7, 8))
    other = FeatureCache("another model", tmp_path)
    other.refresh()
    assert other.get(key(3)) is None


def test_what_a_killed_process_left_half_written_is_not_read(tmp_path) -> None:
    whole = FeatureCache("m", tmp_path)
    for number in range(3):
        whole.put(key(number), value(number))
    (file,) = files(tmp_path)
    data = file.read_bytes()
    for cut in (len(data) - 1, len(data) - 1000, len(data) * 2 // 3 + 10):
        file.write_bytes(data[:cut])
        cache = FeatureCache("m", tmp_path)
        cache.refresh()
        assert same(cache.get(key(1)), 1)
        assert cache.get(key(2)) is None


def test_damaged_features_are_computed_again(tmp_path) -> None:
    FeatureCache("m", tmp_path).put(key(1), value(1))
    (file,) = files(tmp_path)
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    cache = FeatureCache("m", tmp_path)
    cache.refresh()
    assert cache.get(key(1)) is None
    cache.put(key(1), value(1))
    cache.forget()
    assert same(cache.get(key(1)), 1)
    file.write_bytes(b"something else altogether")
    again = FeatureCache("m", tmp_path)
    again.refresh()
    assert same(again.get(key(1)), 1)


def test_a_cache_that_was_cleared_meanwhile_begins_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features, "MEMORY_BYTES", 1)
    cache = FeatureCache("m", tmp_path)
    cache.put(key(1), value(1))
    files(tmp_path)[0].unlink()
    cache.forget()
    assert cache.get(key(1)) is None
    cache.put(key(2), value(2))
    cache.forget()
    assert same(cache.get(key(2)), 2)


def _write(cache: FeatureCache, start: int) -> None:
    for number in range(start, start + 50):
        cache.put(key(number), value(number))
    os._exit(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_forked_processes_write_beside_each_other(tmp_path) -> None:
    cache, context = FeatureCache("m", tmp_path), get_context("fork")
    cache.put(key(0), value(0))
    children = [context.Process(target=_write, args=(cache, start)) for start in (100, 200)]
    for child in children:
        child.start()
    for number in range(1, 30):
        cache.put(key(number), value(number))
    for child in children:
        child.join()
    assert len(files(tmp_path)) == 3
    fresh = FeatureCache("m", tmp_path)
    fresh.refresh()
    numbers = [*range(30), *range(100, 150), *range(200, 250)]
    assert all(same(fresh.get(key(number)), number) for number in numbers)
