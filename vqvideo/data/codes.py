"""Cached codes: a store encoded once by one tokenizer, and the clips of codes that the prior trains on.

Every episode is encoded in overlapping segments, each as a clip of its own. So the prior meets clips that have just
begun (as every dream begins, from a few frames of context) as well as clips long under way, at every phase of the
temporal stride.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from vqvideo.data.clips import to_video
from vqvideo.data.config import SegmentConfig
from vqvideo.data.episode import Episode
from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.storage import files

logger = logging.getLogger(__name__)
_FORMAT = 2
"""Of the cache, in its name: a cache of another format is not found and made again."""
_FILE = "codes.safetensors"
_MAX_HEADER_BYTES = 2**16
"""Of that file; safetensors itself would read up to 100 MB of one."""


class Codebook(Protocol):
    """What is asked of a quantizer here."""

    codebook_size: int


class Tokenizer(Protocol):
    """What is asked of a tokenizer here."""

    stride: int
    grid: tuple[int, int]

    @property
    def quantizer(self) -> Codebook: ...

    def clip_length(self, latent_steps: int) -> int: ...

    def encode(self, frames: Tensor) -> Tensor: ...


class CodeArrays(NamedTuple):
    """All segments of a split, one after the other along S latent steps."""

    codes: NDArray[np.int32]
    """(S, h, w)."""
    actions: NDArray[np.float32]
    """(S, s, a): the actions that led to each step; zeros for the first step of a segment."""
    rewards: NDArray[np.float32]
    """(S,): summed over each step; 0 for the first step of a segment."""
    terminated: NDArray[np.bool_]
    """(S,): the episode ends in the step."""
    starts: NDArray[np.int64]
    """(segments + 1,): where each segment begins, and the end."""
    firsts: NDArray[np.int64]
    """(segments,): the frame that each segment begins with, of all episodes of the split one after the other."""

    def check(self, tokenizer: Tokenizer, actions: int, frames: int) -> None:
        """Raises InputError unless these can be codes of `tokenizer`, beside flat actions of `actions` columns, of
        episodes of `frames` frames together.
        """
        total, segments = self.rewards.size, self.firsts.size
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "codes": (np.int32, (total, *tokenizer.grid)),
            "actions": (np.float32, (total, tokenizer.stride, actions)),
            "rewards": (np.float32, (total,)),
            "terminated": (np.bool_, (total,)),
            "starts": (np.int64, (segments + 1,)),
            "firsts": (np.int64, (segments,)),
        }
        for name, (dtype, shape) in wanted.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise InputError(f"{name} are {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
        sizes = np.diff(self.starts)
        if segments < 1 or self.starts[0] != 0 or self.starts[-1] != total or (sizes < 1).any():
            raise InputError("the segments do not cover the codes")
        if self.firsts.min() < 0 or (self.firsts + tokenizer.stride * (sizes - 1)).max() >= frames:
            raise InputError(f"segments begin with frames {self.firsts.min()}..{self.firsts.max()} of {frames}")
        size = tokenizer.quantizer.codebook_size
        if self.codes.min() < 0 or self.codes.max() >= size:
            raise InputError(f"codes {self.codes.min()}..{self.codes.max()} found, expected 0..{size - 1}")
        if not (np.isfinite(self.actions).all() and np.isfinite(self.rewards).all()):
            raise InputError("actions and rewards are not all finite numbers")


def segment_starts(frames: int, length: int, every: int) -> list[int]:
    """First frames of the segments of an episode; the last segment ends with the episode's last frame, so that
    rewards and terminations at the end are never left out.
    """
    last = frames - length
    return sorted({*range(0, last + 1, every), last})


def encode_episode(tokenizer: Tokenizer, episode: Episode, cfg: SegmentConfig, device: torch.device) -> CodeArrays:
    """The segments of one episode of at least 1 + s frames."""
    s = tokenizer.stride
    steps = min(cfg.latent_steps, 1 + (len(episode.frames) - 1) // s)
    length = tokenizer.clip_length(steps)
    firsts = segment_starts(len(episode.frames), length, cfg.every)
    clips = to_video(np.stack([episode.frames[i : i + length] for i in firsts]))
    codes = torch.cat([tokenizer.encode(part.to(device)).cpu() for part in clips.split(16)])

    def grouped(values: NDArray, empty: NDArray) -> NDArray:
        """(T, ...) per frame to (segments * steps, s, ...) per latent step."""
        parts = []
        for first in firsts:
            taken = values[first : first + length - 1].reshape(steps - 1, s, *values.shape[1:])
            parts += [empty[None], taken]
        return np.concatenate(parts)

    a = episode.actions.shape[1]
    return CodeArrays(
        codes.flatten(0, 1).numpy().astype(np.int32),
        grouped(episode.actions.astype(np.float32), np.zeros((s, a), np.float32)),
        grouped(episode.rewards, np.zeros(s, np.float32)).sum(axis=1, dtype=np.float32),
        np.asarray(grouped(episode.terminated, np.zeros(s, np.bool_)).any(axis=1)),
        np.arange(len(firsts) + 1) * steps,
        np.array(firsts),
    )


def encode_split(
    tokenizer: Tokenizer, store: Store, split: str, cfg: SegmentConfig, device: torch.device
) -> CodeArrays:
    """All segments of a split. InputError if no episode holds two latent steps."""
    entries = _long_enough(tokenizer, store, split)
    store.check_sizes(entries)
    parts = list(_encode_all(tokenizer, store, entries, cfg, device))
    offsets = np.cumsum([0, *(part.starts[-1] for part in parts)])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    frames = np.cumsum([0, *(entry.length + 1 for entry in entries)])
    firsts = [part.firsts + offset for part, offset in zip(parts, frames, strict=False)]
    codes, actions, rewards, terminated, *_ = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    ends = np.concatenate([*starts, offsets[-1:]]).astype(np.int64)
    return CodeArrays(codes, actions, rewards, terminated, ends, np.concatenate(firsts))


def _long_enough(tokenizer: Tokenizer, store: Store, split: str) -> list[EpisodeEntry]:
    """The episodes that make two latent steps or more."""
    everything = store.split(split)
    entries = [entry for entry in everything if entry.length >= tokenizer.stride]
    if not entries:
        raise InputError(
            f"{store.path} has no episode of at least {tokenizer.stride} steps in split {split}: record longer ones"
        )
    if short := len(everything) - len(entries):
        counts = f"{short} of {len(everything)} episodes in split {split}"
        logger.info("%s: %s are shorter than %d steps: left out", store.path, counts, tokenizer.stride)
    return entries


def _encode_all(
    tokenizer: Tokenizer, store: Store, entries: list[EpisodeEntry], cfg: SegmentConfig, device: torch.device
) -> Iterator[CodeArrays]:
    for entry in tqdm(entries, desc="encoding", unit="episode", leave=False):
        yield encode_episode(tokenizer, store.episode(entry), cfg, device)


def cached_codes(
    tokenizer: Tokenizer,
    fingerprint: str,
    store: Store,
    split: str,
    cfg: SegmentConfig,
    device: torch.device,
) -> CodeArrays:
    """The codes of a split, from the cache beside the store or encoded now and cached.

    The cache is named after the tokenizer's fingerprint, the store's content and the segments, so stale codes are
    never read: another tokenizer or a longer store makes another cache.
    """
    name = f"{fingerprint[:16]}-{store.digest[:8]}-{split}-{cfg.latent_steps}x{cfg.every}-v{_FORMAT}"
    folder = Path(store.path) / "codes" / name
    info = {"tokenizer": fingerprint, "store": store.digest, "split": split}
    if not (folder / files.MANIFEST).is_file():
        arrays = encode_split(tokenizer, store, split, cfg, device)
        files.make_folder(folder.parent)
        files.commit_folder(folder, {_FILE: save_arrays(arrays._asdict())}, info, replace=True)
        return arrays
    try:
        arrays = _read_cache(folder, info)
    except InputError as error:
        raise InputError(f"{error}. It is only a cache: remove {folder}, and it is made again") from error
    frames = sum(entry.length + 1 for entry in _long_enough(tokenizer, store, split))
    try:
        arrays.check(tokenizer, store.meta.action_space.size, frames)
    except InputError as error:
        raise InputError(f"{folder / _FILE}: {error}: the file is not ours; remove {folder}") from error
    return arrays


def _read_cache(folder: Path, info: dict[str, str]) -> CodeArrays:
    """The arrays of a cache, checked against their digest, of a cache with this `info`."""
    manifest = files.read_manifest(folder)
    if manifest.info.get("tokenizer") != info["tokenizer"]:
        raise InputError(f"{folder} was made by another tokenizer")
    if manifest.info != info or _FILE not in manifest.files:
        raise InputError(f"{folder / files.MANIFEST}: made of another store or split")
    data = files.read_verified(folder / _FILE, manifest.files[_FILE])
    if int.from_bytes(data[:8], "little") > _MAX_HEADER_BYTES:
        raise InputError(f"{folder / _FILE}: not the arrays of a cache (its header is too large)")
    try:
        return CodeArrays(**load_arrays(data))
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder / _FILE}: not the arrays of a cache ({error})") from error


class CodeClips(Dataset):
    """Every window of `length` latent steps inside a segment, as training samples of the prior.

    A sample holds codes (t, h, w) int64, actions (t - 1, s, a), rewards (t - 1,), terminated (t - 1,), and weights
    (t - 1,), with which each step of the episodes counts alike in rewards and terminations however many clips it is in:
    an episode's last step is in one clip where others are in dozens. Their mean over all clips is 1.
    """

    def __init__(self, arrays: CodeArrays, length: int) -> None:
        self.arrays, self.length = arrays, length
        sizes = np.diff(arrays.starts)
        windows = [
            np.arange(start, start + size - length + 1)
            for start, size in zip(arrays.starts[:-1], sizes, strict=True)
            if size >= length
        ]
        if not windows:
            raise InputError(
                f"no segment of {length} latent steps; the longest has {sizes.max()}. Record longer episodes or lower "
                "--prior.latent-steps"
            )
        if len(windows) < len(sizes):
            counts = f"{len(sizes) - len(windows)} of {len(sizes)} segments"
            logger.info("%s are shorter than a clip of %d latent steps: left out", counts, length)
        self.windows = np.concatenate(windows)
        self.weights = self._weights()

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        first = self.windows[index]
        past, following = slice(first, first + self.length), slice(first + 1, first + self.length)
        return {
            "codes": torch.from_numpy(self.arrays.codes[past].astype(np.int64)),
            "actions": torch.from_numpy(self.arrays.actions[following]),
            "rewards": torch.from_numpy(self.arrays.rewards[following]),
            "terminated": torch.from_numpy(self.arrays.terminated[following]),
            "weights": torch.from_numpy(self.weights[following]),
        }

    def _weights(self) -> NDArray[np.float32]:
        """(S,): one over the number of clips that hold the step which ends with the same frame."""
        in_windows = np.zeros(len(self.arrays.codes) + 1, np.int64)
        np.add.at(in_windows, self.windows + 1, 1)
        np.add.at(in_windows, self.windows + self.length, -1)
        in_windows = in_windows.cumsum()[:-1]
        sizes = np.diff(self.arrays.starts)
        step = np.arange(len(in_windows)) - np.repeat(self.arrays.starts[:-1], sizes)
        frame = np.repeat(self.arrays.firsts, sizes) + step * self.arrays.actions.shape[1]
        counts = np.bincount(frame, weights=in_windows)[frame]
        seen = np.flatnonzero(in_windows)
        weights = np.zeros(len(in_windows), np.float32)
        weights[seen] = 1 / counts[seen]
        return weights * (in_windows.sum() / (weights * in_windows).sum()).astype(np.float32)
