"""How a codebook is used, from one count of its codes."""

from __future__ import annotations

import torch
from torch import Tensor

from vqvideo.models.quantizers.ranks import sum_over_ranks


class CodeUsage:
    """Counts codes. All figures come from counts that are added up first, over batches, ranks and a whole set or
    window: the perplexity of a single batch is far too low (220 of 1,024 evenly used codes in 256 latents), and the
    mean of such perplexities no better.
    """

    def __init__(self, codebook_size: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(codebook_size, dtype=torch.int64, device=device)
        """(k,) int64: how often each code was added."""

    @torch.no_grad()
    def add(self, indices: Tensor) -> None:
        """Counts codes (...) int64."""
        codes = indices.detach().reshape(-1).to(self.counts.device)
        # At a cost that does not grow with k, and on a GPU without waiting for it: bincount does neither.
        self.counts.scatter_add_(0, codes, torch.ones_like(codes))

    def reduce(self) -> CodeUsage:
        """The usage over all ranks, as a new object. Collective."""
        total = CodeUsage(len(self.counts), self.counts.device)
        total.counts.copy_(self.counts)
        sum_over_ranks(total.counts)
        return total

    def summary(self) -> dict[str, float]:
        """codes_used (share of the codes that occur), effective_bits (entropy of a code: what a token carries without
        context) and perplexity, 2 to that power. Of nothing counted: 0 and twice nan.
        """
        # On the host, which waits for the figures anyway, and has float64.
        counts = self.counts.cpu()
        p = counts.double() / counts.sum()
        bits = (p * -p.clamp(min=1e-12).log2()).sum().item()
        used = (counts > 0).double().mean().item()
        return {"codes_used": used, "effective_bits": bits, "perplexity": 2**bits}
