"""A world as a video codec: what its real files take, and what is decoded from them."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vqvideo.codec import Codec
from vqvideo.codec.container import CHUNK_OVERHEAD
from vqvideo.data.episode import Episode
from vqvideo.models.tokenizer.features import Lite0Features
from vqvideo.scripts.benchmarks.curves import Point, Quality, unit
from vqvideo.world import WorldModel

CODED = "entropy-coded"


class Coded(NamedTuple):
    """What became of some episodes."""

    point: Point
    """Without what is a container's, and without the actions."""
    share: float
    """Of the size of codes of fixed length."""
    actions: float
    """Bits that they take, per frame."""
    encoded_per_s: float
    """Frames."""
    decoded_per_s: float
    """Frames."""
    weights: int
    """Numbers in the world model, which encoder and decoder both need."""

    def to_json(self) -> dict[str, Any]:
        """All but the point."""
        return {name: value for name, value in self._asdict().items() if name != "point"} | {"name": self.point.name}


def coded(
    world: WorldModel, name: str, episodes: Sequence[Episode], fps: float, net: Lite0Features | None = None
) -> Coded:
    """Encodes and decodes episodes, each in a single chunk, as codecs have one key frame.

    Args:
        world: in eval mode.
        name: shown in tables.
        episodes: of 1 + s k frames.
        fps: frames per second.
        net: for the Fréchet distance.
    """
    quality, plain, acting, encoding, decoding = Quality(net=net), 0.0, 0, 0.0, 0.0
    codec = Codec(world, max(2, *(1 + episode.length // world.stride for episode in episodes)))
    for episode in episodes:
        file, began = io.BytesIO(), time.perf_counter()
        found = codec.encode(episode.frames, fps, file, episode.actions)
        between = time.perf_counter()
        file.seek(0)
        decoded = np.concatenate(list(codec.decode(file)))
        encoding, decoding = encoding + between - began, decoding + time.perf_counter() - between
        plain, acting = plain + found.plain_bits, acting + found.action_bytes
        quality.add(unit(decoded), unit(episode.frames), 8 * (found.bytes - found.action_bytes - CHUNK_OVERHEAD))
    frames = len(quality.psnr)
    point = quality.point(f"{name}, {CODED}", CODED, fps)
    weights = sum(tensor.numel() for tensor in world.state_dict().values())
    return Coded(point, quality.bits / plain, 8 * acting / frames, frames / encoding, frames / decoding, weights)
