"""Cached codes: never stale, never half, and the same whoever wrote them."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from read_only import read_only
from stores import IndexTokenizer, cached_codes, flip, make_episode, make_meta, make_store

from vqvideo.data import code_cache
from vqvideo.data.code_cache import CodeCache
from vqvideo.data.codes import CodeArrays, CodeClips, encode_episode, joined
from vqvideo.data.config import SegmentConfig
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.files import DiskError

CPU = torch.device("cpu")
SEGMENTS = SegmentConfig(5, 3)


def from_cache(
    tokenizer: IndexTokenizer, store: Store, fingerprint: str = "f" * 64, split: str = "train"
) -> CodeArrays:
    return joined(cached_codes(tokenizer, fingerprint, store, split, SEGMENTS))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two episodes of 21 frames."""
    monkeypatch.setattr(code_cache, "_SHARD_FRAMES", 30)


def caches(store: Store) -> list[Path]:
    return sorted((store.path / "codes").iterdir())


def test_a_store_is_encoded_once(tmp_path: Path) -> None:
    store, tokenizer = make_store(tmp_path), IndexTokenizer(2)
    made = from_cache(tokenizer, store)
    count = tokenizer.encoded
    read = from_cache(tokenizer, Store.open(tmp_path))
    assert tokenizer.encoded == count > 0
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(made, read, strict=True))
    assert len(caches(store)) == 1


def test_another_tokenizer_other_segments_and_a_longer_store_are_encoded_anew(tmp_path: Path) -> None:
    store, tokenizer = make_store(tmp_path), IndexTokenizer(2)
    first = from_cache(tokenizer, store)
    from_cache(tokenizer, store, "e" * 64)
    cached_codes(tokenizer, "f" * 64, store, "train", SegmentConfig(4, 3))
    assert len(caches(store)) == 3
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        writer.add(3, make_episode(20, 3), "train")
    grown = from_cache(tokenizer, Store.open(tmp_path))
    assert len(grown.codes) == len(first.codes) * 4 / 3
    assert len(caches(store)) == 4


def test_the_splits_have_caches_of_their_own(tmp_path: Path) -> None:
    store = make_store(tmp_path, [20, 20])
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        writer.add(2, make_episode(9, 2), "held_out")
    store = Store.open(tmp_path)
    assert len(from_cache(IndexTokenizer(2), store, split="held_out").codes) == 10
    assert len(from_cache(IndexTokenizer(2), store).codes) > 10


def test_a_damaged_cache_is_never_read(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    from_cache(IndexTokenizer(2), store)
    file = caches(store)[0] / "codes.safetensors"
    flip(file, file.stat().st_size - 3)
    with pytest.raises(InputError, match=r"codes.safetensors: sha256 is .* damaged"):
        from_cache(IndexTokenizer(2), store)


def test_the_cache_of_another_split_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    from_cache(IndexTokenizer(2), store)
    folder = caches(store)[0]
    contents = {"codes.safetensors": (folder / "codes.safetensors").read_bytes()}
    info = files.read_manifest(folder).info | {"split": "held_out"}
    files.commit_folder(folder, contents, info, replace=True)
    with pytest.raises(InputError, match=r"manifest.json: made of another store or split"):
        from_cache(IndexTokenizer(2), store)


def test_missing_files_are_found_before_hours_of_encoding(tmp_path: Path) -> None:
    store, tokenizer = make_store(tmp_path), IndexTokenizer(2)
    (tmp_path / store.entries[-1].file).unlink()
    with pytest.raises(InputError, match=r"000002.safetensors: no such file"):
        from_cache(tokenizer, store)
    assert tokenizer.encoded == 0


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_number_of_ranks_makes_the_same_clips_in_the_same_order(tmp_path: Path, world: int) -> None:
    store = make_store(tmp_path, [20, 9, 20, 1, 12, 20, 20])
    episodes = [store.episode(entry) for entry in store.entries if entry.length > 1]
    expected = CodeClips([encode_episode(IndexTokenizer(2), episode, SEGMENTS, CPU) for episode in episodes], 4)
    ranks = [CodeCache(IndexTokenizer(2), "f" * 64, store, "train", SEGMENTS) for _ in range(world)]
    assert ranks[0].missing_shards() == [0, 1, 2]
    for rank in reversed(range(world)):
        ranks[rank].encode_share(CPU, rank, world)
    assert ranks[0].missing_shards() == []
    assert [bool(cache.tokenizer.encoded) for cache in ranks] == [True] * world
    clips = CodeClips(ranks[-1].read(), 4)
    assert len(clips) == len(expected)
    for index in range(len(clips)):
        for name, value in expected[index].items():
            assert torch.equal(clips[index][name], value)


@pytest.mark.usefixtures("small_shards")
def test_a_cache_that_was_interrupted_is_completed_by_any_number_of_ranks(tmp_path: Path) -> None:
    store = make_store(tmp_path, [20] * 6)
    cache = CodeCache(tokenizer := IndexTokenizer(2), "f" * 64, store, "train", SEGMENTS)
    cache.encode_share(CPU, rank=1, world=2)
    (caches(store)[0].parent / caches(store)[0].name.replace("00001", "00000")).mkdir()
    tokenizer.encoded = 0
    assert cache.missing_shards() == [0, 2]
    with pytest.raises(InputError, match=r"-v3-00000: no manifest.json"):
        cache.read()
    cache.encode_share(CPU)
    whole = joined(cache.read())
    assert tokenizer.encoded == (len(whole.starts) - 1) * 4 / 6


def test_shards_stay_on_disk_and_are_sent_to_another_process_by_name(tmp_path: Path) -> None:
    store = make_store(tmp_path, [200] * 3)
    (shard,) = cached_codes(IndexTokenizer(2), "f" * 64, store, "train", SEGMENTS)
    assert not any(array.flags.owndata for array in shard)
    data = pickle.dumps(shard)
    assert len(data) < 1000 < shard.codes.nbytes
    assert all(map(np.array_equal, pickle.loads(data), shard))


def test_a_tokenizer_with_the_same_first_digits_is_told_apart(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    from_cache(IndexTokenizer(2), store, "f" * 64)
    with pytest.raises(InputError, match=r"was made by another tokenizer\. It is only a cache: remove "):
        from_cache(IndexTokenizer(2), store, "f" * 63 + "0")


@pytest.mark.usefixtures("small_shards")
def test_ranks_of_which_one_cannot_write_into_the_store_make_one_cache(tmp_path: Path) -> None:
    store = make_store(tmp_path / "data", [20] * 6)
    make = partial(CodeCache, IndexTokenizer(2), "f" * 64, store, "train", SEGMENTS)
    expected = from_cache(IndexTokenizer(2), make_store(tmp_path / "other", [20] * 6))
    make(elsewhere=tmp_path / "codes").encode_share(CPU, rank=0, world=2)
    with read_only(store.path):
        with pytest.raises(DiskError, match="data/codes: cannot be written"):
            make().encode_share(CPU)
        make(elsewhere=tmp_path / "codes").encode_share(CPU, rank=1, world=2)
        shards = make(elsewhere=tmp_path / "codes").read()
    assert (len(caches(store)), len(list((tmp_path / "codes").iterdir()))) == (2, 1)
    assert all(np.array_equal(a, b) for a, b in zip(joined(shards), expected, strict=True))
