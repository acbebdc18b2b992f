"""Held-out figures of a tokenizer."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.evaluation import metrics
from vqvideo.models.pixels import to_unit
from vqvideo.models.quantizers.usage import CodeUsage
from vqvideo.models.tokenizer.vqvae import VQVAE


@torch.no_grad()
def evaluate_tokenizer(
    vqvae: VQVAE, clips: Clips, count: int, batch: int = 16, *, rank: int = 0, world: int = 1
) -> dict[str, float]:
    """Held-out figures of a tokenizer over `count` clips spread over the episodes.

    Args:
        vqvae: the tokenizer.
        clips: held-out clips.
        count: how many of them.
        batch: clips at once.
        rank, world: with more than one rank each takes every `world`-th clip and all get the figures over all clips,
            the same for any number of ranks. Every rank must call it then.

    Returns:
        psnr_db and ssim (means over frames), changed_psnr_db (over the pixels that changed), codes_used (share),
        effective_bits (per token), perplexity.
    """
    usage = CodeUsage(vqvae.quantizer.codebook_size)
    sums = torch.zeros(5, dtype=torch.float64)
    picks = clips.spread(count)[rank::world].tolist()
    for start in range(0, len(picks), batch):
        frames = stack_frames(clips, picks[start : start + batch]).to(vqvae.device)
        codes = vqvae.encode(frames)
        decoded, target = vqvae.decode(codes), to_unit(frames)
        usage.add(codes)
        figures = (metrics.psnr(decoded, target), metrics.ssim(decoded, target))
        changed = metrics.changed_pixel_errors(decoded, target)
        frames_seen = torch.tensor(float(frames.shape[0] * frames.shape[1]))
        sums += torch.stack([metrics.to_double(values).sum() for values in (*figures, *changed, frames_seen)])
    if world > 1:
        sums, usage.counts = _over_ranks(sums), _over_ranks(usage.counts)
    psnr, ssim, error, changes, number = sums
    return {
        "psnr_db": (psnr / number).item(),
        "ssim": (ssim / number).item(),
        "changed_psnr_db": metrics.changed_pixel_psnr(error, changes).item(),
        **usage.summary(),
    }


def _over_ranks(sums: Tensor) -> Tensor:
    """Sums (n,) on the CPU, added up over all ranks: as objects, since GPUs add up no tensors of the CPU."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, sums)
    return torch.stack(parts).sum(dim=0)
