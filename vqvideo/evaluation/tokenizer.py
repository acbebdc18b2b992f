"""Held-out figures of a tokenizer, and its speed."""

from __future__ import annotations

import time
from statistics import median

import torch

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.evaluation import metrics
from vqvideo.models.pixels import to_unit
from vqvideo.models.quantizers.ranks import sum_over_ranks
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
    device = vqvae.variance.device
    usage = CodeUsage(vqvae.quantizer.codebook_size, device)
    frame_sums = torch.zeros(3, dtype=torch.float64, device=device)
    changed = torch.zeros(2, dtype=torch.float64, device=device)
    picks = clips.spread(count)[rank::world].tolist()
    for start in range(0, len(picks), batch):
        frames = stack_frames(clips, picks[start : start + batch]).to(device)
        codes = vqvae.encode(frames)
        decoded, target = vqvae.decode(codes), to_unit(frames)
        usage.add(codes)
        psnr, ssim = metrics.psnr(decoded, target).double(), metrics.ssim(decoded, target).double()
        frame_sums += torch.stack([psnr.sum(), ssim.sum(), torch.ones_like(psnr).sum()])
        changed += torch.stack(metrics.changed_pixel_error(decoded, target))
    if world > 1:
        sum_over_ranks(frame_sums, changed)
        usage = usage.reduce()
    return {
        "psnr_db": (frame_sums[0] / frame_sums[2]).item(),
        "ssim": (frame_sums[1] / frame_sums[2]).item(),
        "changed_psnr_db": metrics.changed_pixel_psnr(*changed),
        **usage.summary(),
    }


@torch.no_grad()
def reconstruction_speed(vqvae: VQVAE, clips: Clips, batch: int = 8, trials: int = 5) -> dict[str, float]:
    """Frames per second of encoding and of decoding `batch` clips at once: medians of a few trials."""
    frames = stack_frames(clips, clips.spread(batch).tolist()).to(vqvae.device)
    codes = vqvae.encode(frames)
    count = frames.shape[0] * frames.shape[1]
    rates: dict[str, list[float]] = {"encode_frames_per_s": [], "decode_frames_per_s": []}
    for _ in range(trials):
        for name, work in (("encode", lambda: vqvae.encode(frames)), ("decode", lambda: vqvae.decode(codes))):
            began = time.perf_counter()
            work().cpu()
            rates[f"{name}_frames_per_s"].append(count / (time.perf_counter() - began))
    return {name: median(values) for name, values in rates.items()}
