"""Bits per dimension of a tokenizer, bounded as by van den Oord et al. (2017, arXiv:1711.00937, section 3.2).

Of frames x whose codes are z(x), since p(x) is a sum over all codes, those of x among them:

    -log2 p(x) <= -log2 p(x | z(x)) - log2 p(z(x))

- The first term is the distortion: how surprised the decoder is. A decoder that learns by squared error is the mean
  of a Gaussian, whose spread sigma is one number: the root of its mean squared error on training frames. Frames are
  whole grey levels, so what counts is not the density but its mass in a level, the lowest and the highest one open
  to the outside: the 256 levels have a probability of 1 together, and the bits are those of a lossless code.
- The second term is the rate. The codes are taken to be uniform and independent, as while the article's tokenizers
  train: log2 K for each of N tokens. A prior that was trained needs fewer: the bits_per_dim of its own figures.

Both are divided by the number of values, t h w 3. The article does not say which distribution its decoder has. (A
uniform prior of 8x8x10 tokens and K = 512 takes 1.875 bits per dimension of CIFAR-10.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.data.store import Store
from vqvideo.evaluation.metrics import to_double
from vqvideo.models.pixels import to_unit
from vqvideo.models.tokenizer.vqvae import VQVAE


def grey_level_bits(predicted: Tensor, target: Tensor, sigma: float) -> Tensor:
    """-log2 of the mass that a Gaussian around each predicted value has in the grey level that is there.

    Args:
        predicted: float in 0 .. 1, of any shape.
        target: uint8 of the same shape.
        sigma: the spread, in the unit of `predicted`.

    Returns:
        Bits of the same shape, float64 on the CPU.
    """
    level, spread = to_double(target), max(sigma, 1e-6) * 255
    mean = to_double(predicted) * 255
    low = ((level - 0.5 - mean) / spread).masked_fill(level == 0, -math.inf)
    high = ((level + 0.5 - mean) / spread).masked_fill(level == 255, math.inf)
    # Both in the lower tail, where differences of small masses are exact.
    flipped = low + high > 0
    low, high = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
    upper = torch.special.log_ndtr(high)
    return -(upper + torch.log1p(-torch.exp(torch.special.log_ndtr(low) - upper))) / math.log(2)


def rate_per_dim(vqvae: VQVAE, frames: int) -> float:
    """Bits per dimension of the codes of a clip of so many frames, all codes alike."""
    h, w = vqvae.frame_size
    return vqvae.latent_length(frames) * vqvae.bits_per_latent_step / (frames * h * w * 3)


def spread_in_training(vqvae: VQVAE, store: Store, length: int) -> float | None:
    """The spread over clips of `length` frames of the training episodes; None where there are none to learn it from."""
    if all(entry.length + 1 < length for entry in store.split("train")):
        return None
    return error_spread(vqvae, Clips(store, "train", length))


@torch.no_grad()
def error_spread(vqvae: VQVAE, clips: Clips, count: int = 128, batch: int = 16) -> float:
    """The root of the mean squared error, in the unit of 0 .. 1, over `count` clips spread over training episodes."""
    errors, picks = [], clips.spread(min(count, len(clips))).tolist()
    for start in range(0, len(picks), batch):
        frames = stack_frames(clips, picks[start : start + batch]).to(vqvae.device)
        error = vqvae.decode(vqvae.encode(frames)) - to_unit(frames)
        errors.append(to_double(error.square().mean(dim=(1, 2, 3, 4))))
    return torch.cat(errors).mean().sqrt().item()
