"""Bits per pixel against PSNR: tokenizers beside video codecs, over whole episodes.

Rates count what changes from video to video. A tokenizer's weights, like a codec's program, are not counted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqvideo.data.episode import Episode
from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation import metrics
from vqvideo.models.pixels import channels_first
from vqvideo.models.quantizers import CodeUsage
from vqvideo.models.tokenizer.features import Lite0Features
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts.benchmarks.codecs import X264, X265, Codec, DoubledSvtAv1, SvtAv1
from vqvideo.scripts.benchmarks.coded import Coded, coded
from vqvideo.scripts.benchmarks.curves import Point, Quality, RateDistortion, unit
from vqvideo.training.hardware import default_device
from vqvideo.world import WorldModel

logger = logging.getLogger(__name__)

CODECS: dict[str, list[Codec]] = {
    "x264": [
        *(
            X264(crf, chroma_offset=offset)
            for offset in (-6, -3, 0)
            for crf in (12, 18, 22, 26, 30, 34, 38, 42, 46, 51)
        ),
        *(X264(crf, "yuv420p", -6) for crf in (24, 32, 38, 42, 46, 51)),
    ],
    "x265": [X265(crf, chroma_offset=offset) for offset in (-3, 0) for crf in (18, 24, 30, 36, 42, 48)],
    "SVT-AV1": [
        *(DoubledSvtAv1(crf) for crf in (15, 25, 35, 45, 52, 58, 63)),
        *(SvtAv1(crf) for crf in (20, 35, 45, 50, 54, 58, 61, 63)),
    ],
}
"""Settings tried of each codec; its curve is the upper hull over them."""
FIXED, TABLE = "fixed length", "static table"


def sequences(store: Store, episodes: int, stride: int = 1) -> list[Episode]:
    """Held-out episodes, spread over the split, cut to 1 + s k frames, s being a stride."""
    entries = tuple(entry for entry in store.split("held_out") if entry.length >= stride)
    if not entries:
        raise InputError(f"{store.path} holds no held-out episode of {1 + stride} frames or more: record some")
    return [_cut(episode, stride) for episode in _spread(store, entries, episodes)]


def _cut(episode: Episode, stride: int) -> Episode:
    steps = episode.length // stride * stride
    return replace(
        episode, frames=episode.frames[: 1 + steps], **{n: v[:steps] for n, v in episode.steps._asdict().items()}
    )


def codec_points(
    clips: Sequence[np.ndarray], family: str, codecs: Iterable[Codec], fps: float, net: Lite0Features | None = None
) -> Iterator[Point]:
    """A point for each setting of a codec, with Fréchet distances where there is a network for them."""
    for codec in codecs:
        quality = Quality(net=net)
        for clip in clips:
            encoded = codec.encode(clip, fps)
            quality.add(unit(encoded.frames), unit(clip), 8 * encoded.bytes)
        yield quality.point(codec.name, family, fps)


def tokenizer_points(
    model: VQVAE, name: str, clips: Sequence[np.ndarray], training: Sequence[np.ndarray], fps: float
) -> list[Point]:
    """Two points of one tokenizer: codes of fixed length, and an estimate of what a static table would make of them.

    Args:
        model: the tokenizer, in eval mode.
        name: shown in tables.
        clips: sequences (1 + s k, h, w, 3) uint8.
        training: sequences of the training split; their code frequencies, with one added to each, are the table. The
            estimate is the cross-entropy of the codes under it, which an arithmetic coder reaches to a few bits.
            Empty for the fixed length only.
        fps: frames per second.
    """
    usage = CodeUsage(model.quantizer.codebook_size)
    for clip in training:
        codes, _ = reconstruct(model, clip[: 1 + (len(clip) - 1) // model.stride * model.stride], decode=False)
        usage.add(codes)
    counts = 1 + usage.counts.double()
    length = -(counts / counts.sum()).log2()
    fixed, table = Quality(), Quality()
    for clip in clips:
        codes, decoded = reconstruct(model, clip)
        fixed.add(decoded, unit(clip), codes.numel() * model.quantizer.bits)
        table.add(decoded, unit(clip), length[codes.flatten().cpu()].sum().item())
    points = [fixed.point(f"{name}, {FIXED}", FIXED, fps)]
    return [*points, table.point(f"{name}, {TABLE}", TABLE, fps)] if training else points


@torch.no_grad()
def reconstruct(
    model: VQVAE, clip: np.ndarray, *, decode: bool = True, latent_steps: int = 32
) -> tuple[Tensor, Tensor]:
    """Codes (1 + k, h, w) and decoded frames (t, c, h, w) in 0 .. 1 of a long clip, streamed in parts.

    Streaming gives what the whole clip would; the memory stays that of `latent_steps`. Frames are empty without
    `decode`.
    """
    frames = channels_first(torch.from_numpy(clip)[None]).to(model.device)
    first, rest = 1 + model.stride * (latent_steps - 1), model.stride * latent_steps
    coding, decoding = model.init_state(1), model.init_state(1)
    codes, decoded = [], []
    for part in (frames[:, :first], *(frames[:, first:].split(rest, dim=1) if frames.shape[1] > first else ())):
        found, coding = model.encode_step(part, coding)
        codes.append(found[0])
        if decode:
            shown, decoding = model.decode_step(found, decoding)
            decoded.append(shown[0])
    return torch.cat(codes), torch.cat(decoded)[model.stride - 1 :].cpu() if decode else torch.empty(0)


def measure(
    store: Store,
    folders: Sequence[Path],
    episodes: int,
    table_episodes: int,
    worlds: Sequence[str] = (),
    crf: tuple[int, int] = (0, 63),
    net: Lite0Features | None = None,
) -> tuple[RateDistortion, list[Coded]]:
    """Everything: the tokenizers in `folders`, then all settings of all codecs that are possible at this frame size.

    Args:
        store: held-out episodes to code, training episodes for the static table.
        folders: exported tokenizers.
        episodes: held-out episodes, spread over the split.
        table_episodes: training episodes, likewise.
        worlds: names or folders of world models, whose real files are measured.
        crf: only settings of codecs whose rate factors lie between these.
        net: for Fréchet distances of files and codecs.

    Returns:
        All points, and more of the files.
    """
    models = load_models(folders, store, default_device())
    known = {name: WorldModel.from_pretrained(name).eval() for name in worlds}
    for world in known.values():
        store.require(world.action_space, world.vqvae.frame_size)
    tokenizers = [*models.values(), *(world.vqvae for world in known.values())]
    played = sequences(store, episodes, lcm(*(model.stride for model in tokenizers)))
    clips = [episode.frames for episode in played]
    training = [episode.frames for episode in _spread(store, store.split("train"), table_episodes)]
    fps, (h, w) = store.meta.fps, store.meta.frame_size
    ours = []
    for name, model in models.items():
        logger.info("encoding with %s", name)
        ours += tokenizer_points(model, name, clips, training, fps)
    files = [coded(world, name, played, fps, net) for name, world in known.items()]
    ours += [one.point for one in files]
    peers = {}
    for family, codecs in CODECS.items():
        possible = [codec for codec in codecs if codec.takes(h, w)]
        if not possible:
            logger.warning("%s does not take frames of %dx%d: it is left out", family, w, h)
        possible = [codec for codec in possible if crf[0] <= codec.crf <= crf[1]]
        if not possible:
            continue
        logger.info("encoding with %s, %d settings", family, len(possible))
        peers[family] = list(codec_points(clips, family, possible, fps, net))
    return RateDistortion(ours, peers, sum(map(len, clips)), len(clips), (h, w)), files


def load_models(folders: Sequence[Path], store: Store, device: torch.device) -> dict[str, VQVAE]:
    """Tokenizers by the shortest end of their folder's path that tells them apart; all must take the store's frames."""
    models = {}
    for folder, name in zip(folders, short_names(folders), strict=True):
        model = VQVAE.from_pretrained(folder).to(device).eval()
        if tuple(model.frame_size) != tuple(store.meta.frame_size):
            raise InputError(f"{folder} takes frames of {model.frame_size}, {store.path} holds {store.meta.frame_size}")
        models[name] = model
    return models


def short_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its run's, that is the part of the path before vqvae/model, longer if two are equal."""
    parts = [[p for p in folder.parts if p not in ("vqvae", "model", "/")] or list(folder.parts) for folder in folders]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _spread(store: Store, entries: Sequence[EpisodeEntry], count: int) -> list[Episode]:
    """`count` evenly spread ones."""
    return [store.episode(entries[i]) for i in metrics.evenly(len(entries), count)]
