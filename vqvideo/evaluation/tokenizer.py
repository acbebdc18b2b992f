"""Held-out figures of a tokenizer."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.evaluation import metrics
from vqvideo.evaluation.likelihood import grey_level_bits, rate_per_dim
from vqvideo.models.pixels import to_uint8, to_unit
from vqvideo.models.quantizers.usage import CodeUsage
from vqvideo.models.tokenizer.vqvae import VQVAE


@torch.no_grad()
def evaluate_tokenizer(
    vqvae: VQVAE,
    clips: Clips,
    count: int,
    batch: int = 16,
    *,
    rank: int = 0,
    world: int = 1,
    sigma: float | None = None,
    usage: CodeUsage | None = None,
) -> dict[str, float]:
    """Held-out figures of a tokenizer over `count` clips spread over the episodes.

    Args:
        vqvae: the tokenizer.
        clips: held-out clips.
        count: how many of them.
        batch: clips at once.
        rank, world: with more than one rank each takes every `world`-th clip and all get the figures over all clips,
            the same for any number of ranks. Every rank must call it then.
        sigma: the decoder's spread (`likelihood.error_spread`), for bits per dimension.
        usage: where to count the codes, for whoever wants more of them than the figures.

    Returns:
        psnr_db and ssim (means over frames), changed_psnr_db (over the pixels that changed), codes_used (share),
        effective_bits (per token), perplexity; with `sigma` the bound on bits_per_dim and its two terms, those of the
        distortion and the rate (see `likelihood`).
    """
    usage = CodeUsage(vqvae.quantizer.codebook_size) if usage is None else usage
    sums = torch.zeros(6, dtype=torch.float64)
    picks = clips.spread(count)[rank::world].tolist()
    for start in range(0, len(picks), batch):
        frames = stack_frames(clips, picks[start : start + batch]).to(vqvae.device)
        codes = vqvae.encode(frames)
        decoded, target = vqvae.decode(codes), to_unit(frames)
        usage.add(codes)
        figures = (metrics.psnr(decoded, target), metrics.ssim(decoded, target))
        changed = metrics.changed_pixel_errors(decoded, target)
        frames_seen = torch.tensor(float(frames.shape[0] * frames.shape[1]))
        bits = torch.zeros(1) if sigma is None else grey_level_bits(decoded, to_uint8(frames), sigma)
        sums += torch.stack([metrics.to_double(values).sum() for values in (*figures, *changed, frames_seen, bits)])
    if world > 1:
        sums, usage.counts = _over_ranks(sums), _over_ranks(usage.counts)
    psnr, ssim, error, changes, number, bits = sums
    return {
        "psnr_db": (psnr / number).item(),
        "ssim": (ssim / number).item(),
        "changed_psnr_db": metrics.changed_pixel_psnr(error, changes).item(),
        **usage.summary(),
        **({} if sigma is None else _bits_per_dim(vqvae, clips.length, (bits / number).item())),
    }


def _bits_per_dim(vqvae: VQVAE, frames: int, bits_per_frame: float) -> dict[str, float]:
    """The bound and its terms, of clips of so many frames whose decoding takes so many bits per frame."""
    (h, w), rate = vqvae.frame_size, rate_per_dim(vqvae, frames)
    distortion = bits_per_frame / (h * w * 3)
    return {"bits_per_dim": distortion + rate, "distortion_bits_per_dim": distortion, "rate_bits_per_dim": rate}


def _over_ranks(sums: Tensor) -> Tensor:
    """Sums (n,) on the CPU, added up over all ranks: as objects, since GPUs add up no tensors of the CPU."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, sums)
    return torch.stack(parts).sum(dim=0)
