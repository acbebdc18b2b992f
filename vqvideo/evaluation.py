"""What a trained model is worth on held-out clips: tokenizer figures, figures per imagined step, speed."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from vqvideo import metrics
from vqvideo.data.clips import Clips
from vqvideo.video import to_unit
from vqvideo.vqvae import VQVAE


def stack_frames(clips: Clips, indices: list[int]) -> Tensor:
    """Chosen clips as (b, t, c, h, w) uint8."""
    return torch.stack([rearrange(clips[i]["frames"], "t h w c -> t c h w") for i in indices])


@torch.no_grad()
def evaluate_tokenizer(vqvae: VQVAE, clips: Clips, count: int, batch: int = 16) -> dict[str, float]:
    """Held-out figures of a tokenizer over `count` clips spread over the episodes.

    Returns:
        psnr_db and ssim (means over frames), changed_psnr_db (over the pixels that changed), codes_used (share),
        effective_bits (per token), perplexity.
    """
    device = vqvae.variance.device
    counts = torch.zeros(vqvae.quantizer.codebook_size, dtype=torch.int64)
    psnr, ssim, changed = [], [], []
    for part in torch.as_tensor(clips.spread(count)).split(batch):
        frames = stack_frames(clips, part.tolist()).to(device)
        codes = vqvae.encode(frames)
        decoded, target = vqvae.decode(codes), to_unit(frames)
        counts += metrics.code_counts(codes, vqvae.quantizer.codebook_size).cpu()
        psnr.append(metrics.psnr(decoded, target).flatten())
        ssim.append(metrics.ssim(decoded, target).flatten())
        changed.append(metrics.changed_pixel_psnr(decoded, target))
    bits = metrics.effective_bits(counts)
    return {
        "psnr_db": torch.cat(psnr).mean().item(),
        "ssim": torch.cat(ssim).mean().item(),
        "changed_psnr_db": torch.stack(changed).nanmean().item(),
        "codes_used": metrics.usage(counts),
        "effective_bits": bits,
        "perplexity": 2**bits,
    }
