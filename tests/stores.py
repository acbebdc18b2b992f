"""Small episodes and stores whose content is known, for the tests of the data layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvideo.data.code_cache import CodeCache
from vqvideo.data.codes import CodeArrays, Tokenizer
from vqvideo.data.config import SegmentConfig
from vqvideo.data.episode import Episode
from vqvideo.data.episode_writer import write_episode
from vqvideo.data.index import StoreMeta
from vqvideo.data.store import Store, StoreWriter
from vqvideo.spaces import ActionSpace

DISCRETE = {"kind": "discrete", "shape": [], "dtype": "int64", "low": [0], "high": [4]}


def make_meta(**changes: Any) -> StoreMeta:
    """Meta of 4 x 6 pixel episodes with five discrete actions."""
    meta = StoreMeta(
        env_id="Tiny-v0",
        env_spec=None,
        action_space=ActionSpace.from_json(DISCRETE),
        frame_size=(4, 6),
        fps=25.0,
        action_repeat=2,
        skip_first=0,
        policy="random",
        seed=0,
        held_out_every=5,
        versions={"numpy": "1"},
    )
    return replace(meta, **changes)


def make_episode(length: int = 20, seed: int = 0, **changes: Any) -> Episode:
    """T = `length`; pixel (0, 0) of frame t is t mod 256 in red, the seed in green; reward t at step t."""
    rng = np.random.default_rng((seed, length))
    frames = rng.integers(0, 256, (length + 1, 4, 6, 3), dtype=np.uint8)
    frames[:, 0, 0, 0] = np.arange(length + 1) % 256
    frames[:, 0, 0, 1] = seed % 256
    episode = Episode(
        frames=frames,
        actions=rng.integers(0, 5, (length, 1)).astype(np.float64),
        rewards=np.arange(length, dtype=np.float32),
        terminated=np.arange(length) == length - 1,
        truncated=np.zeros(length, dtype=bool),
        seed=seed,
    )
    return replace(episode, **changes)


def episode_to_bytes(episode: Episode) -> bytes:
    """What stands in the episode's file."""
    with TemporaryDirectory() as folder:
        return write_episode(folder, episode).path.read_bytes()


def make_store(path: Path, lengths: Sequence[int] = (20, 20, 20), split: str = "train") -> Store:
    """A store with one episode of each length, seeds 0, 1, ..."""
    with StoreWriter.open(path, make_meta()) as writer:
        for index, length in enumerate(lengths):
            writer.add(index, make_episode(length, index), split)
    return Store.open(path)


class IndexTokenizer:
    """A latent step's single code is the number of its last frame, which frames of `make_episode` show in red."""

    grid = (1, 1)
    codebook_size = 256

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.encoded = 0

    @property
    def quantizer(self) -> IndexTokenizer:
        return self

    def clip_length(self, latent_steps: int) -> int:
        return 1 + self.stride * (latent_steps - 1)

    def encode(self, frames: Tensor) -> Tensor:
        self.encoded += len(frames)
        return frames[:, :: self.stride, 0, :1, :1].long()


def cached_codes(
    tokenizer: Tokenizer, fingerprint: str, store: Store, split: str, cfg: SegmentConfig
) -> list[CodeArrays]:
    """From the cache, or made and cached."""
    cache = CodeCache(tokenizer, fingerprint, store, split, cfg)
    cache.encode_share(torch.device("cpu"))
    return cache.read()


def write_lines(path: Path, lines: list[bytes]) -> None:
    (path / "manifest.jsonl").write_bytes(b"".join(lines))


def lines_of(path: Path) -> list[bytes]:
    return (path / "manifest.jsonl").read_bytes().splitlines(keepends=True)


def reopen(path: Path, meta: StoreMeta | None = None) -> None:
    """Goes on with a recording, and records nothing."""
    with StoreWriter.open(path, meta or make_meta()):
        pass


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)
