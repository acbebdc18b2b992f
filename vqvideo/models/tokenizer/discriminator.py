"""An adversarial term: a small 3-D patch discriminator that learns to tell clips from their reconstructions.

Off by default. Patches as in Isola et al. 2016 (arXiv:1611.07004); hinge losses as in Lim and Ye 2017
(arXiv:1705.02894); LeCam regularisation from Tseng et al. 2021 (arXiv:2104.03310). The weight of the generator's term
is a constant: it is not adapted to the ratio of gradients as VQGAN does (Esser et al. 2020, arXiv:2012.09841).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.tokenizer.losses import TermOutput

if TYPE_CHECKING:
    from vqvideo.models.tokenizer.config import PatchDiscriminator3D


class PatchDiscriminator(nn.Module):
    """Clips (b, t, 3, h, w) in -1 .. 1 to logits (b, t', h / 8, w / 8), one per overlapping patch; positive means real.

    Plain convolutions without any norm: it needs no causality, sees whole clips, and no clip sees another one.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        plan = ((3, width, (1, 2, 2)), (width, 2 * width, (2, 2, 2)), (2 * width, 4 * width, (2, 2, 2)))
        self.convs = nn.ModuleList(nn.Conv3d(c, d, (3, 4, 4), stride, padding=1) for c, d, stride in plan)
        self.head = nn.Conv3d(4 * width, 1, 3, padding=1)

    def forward(self, clips: Tensor) -> Tensor:
        x = rearrange(clips, "b t c h w -> b c t h w").contiguous(memory_format=torch.channels_last_3d)
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return rearrange(self.head(x).float(), "b 1 t h w -> b t h w")


class AdversarialTerm(nn.Module):
    """Both sides of the game in one forward and one backward pass.

    The generator's term sees the discriminator with detached parameters, the discriminator's loss sees a detached
    reconstruction; so the sum of both losses gives each side exactly its own gradient. The discriminator learns from
    the first step on, so that every parameter has a gradient in every step and it knows something when the
    generator's term sets in.
    """

    steps: Tensor
    level_real: Tensor
    level_fake: Tensor
    _sums: Tensor

    def __init__(self, cfg: PatchDiscriminator3D) -> None:
        super().__init__()
        self.cfg = cfg
        self.discriminator = PatchDiscriminator(cfg.width)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("level_real", torch.zeros(()))
        self.register_buffer("level_fake", torch.zeros(()))
        self.register_buffer("_sums", torch.zeros(3), persistent=False)

    def forward(self, reconstruction: Tensor, target: Tensor) -> TermOutput:
        """Clips (b, t, 3, h, w) in -1 .. 1."""
        real, fake = self.discriminator(torch.cat([target, reconstruction.detach()])).chunk(2)
        own = hinge(real, fake) + self.cfg.lecam_weight * lecam(real, fake, self.level_real, self.level_fake)
        generator = -self._as_judge(reconstruction).mean()
        if self.training:
            self._observe(real.detach(), fake.detach())
        metrics = {
            "generator": generator.detach(),
            "discriminator": own.detach(),
            "told_apart": ((real > 0).float().mean() + (fake < 0).float().mean()).detach() / 2,
        }
        return TermOutput(self._weight() * generator + own, metrics)

    def after_step(self) -> None:
        """Called after each optimizer step, on every rank."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._sums)
        real, fake, count = self._sums.unbind()
        # The first step sets the levels.
        keep = torch.where(self.steps > 0, self.cfg.lecam_decay, 0.0)
        self.level_real.lerp_(real / count, 1 - keep)
        self.level_fake.lerp_(fake / count, 1 - keep)
        self._sums.zero_()
        self.steps += 1

    def _as_judge(self, clips: Tensor) -> Tensor:
        """Logits of clips, with a gradient to the clips and none to the discriminator."""
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        return torch.func.functional_call(self.discriminator, fixed, (clips,))

    def _weight(self) -> Tensor:
        """0 before the start step. A tensor: a GPU need not be waited for."""
        return self.cfg.weight * (self.steps >= self.cfg.start_step)

    def _observe(self, real: Tensor, fake: Tensor) -> None:
        self._sums += torch.stack([real.mean(), fake.mean(), torch.ones_like(real.mean())])


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss on logits of any shape (scalar): mean max(0, 1 - real) + mean max(0, 1 + fake),
    halved.
    """
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def lecam(real: Tensor, fake: Tensor, level_real: Tensor, level_fake: Tensor) -> Tensor:
    """LeCam regularisation (scalar): mean (real - level of fakes)^2 + mean (fake - level of reals)^2, where the levels
    are moving averages of the logits (Tseng et al. 2021, arXiv:2104.03310).
    """
    return (real - level_fake).square().mean() + (fake - level_real).square().mean()
