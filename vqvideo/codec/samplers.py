"""What decides the codes of a prior while a file is written or read, in the place of what draws them in a dream.

A head asks for codes and shows its logits. Who writes knows the codes, and notes how they follow from the logits; who
reads finds them by the same logits. So any head can be coded with that asks for each of its tokens once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqvideo.codec.range_coder import RangeDecoder, RangeEncoder
from vqvideo.codec.tables import tables
from vqvideo.errors import InputError
from vqvideo.models.prior.sampling import Sampling, TokenSampler


class CodingSampler(TokenSampler):
    """Takes the tokens of a latent step in the order in which a head asks for them, for a single clip."""

    def __init__(self) -> None:
        super().__init__(Sampling())
        self.revises = False
        self.asked = 0
        """How often a head has asked, in all steps of a chunk."""

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        return self(logits(x))

    def order(self, rows: int, n: int, device: torch.device) -> Tensor:
        raise InputError("a head that fills in tokens in an order of its own draws some of them twice: not to be coded")


class WritingSampler(CodingSampler):
    """Knows the codes, and encodes them."""

    def __init__(self, coder: RangeEncoder) -> None:
        super().__init__()
        self.coder, self.flat = coder, list[int]()
        """Which times another machine might have found other tables: coded without."""
        self._codes = torch.empty(1, 0, dtype=torch.int64)

    def takes(self, codes: Tensor) -> None:
        """The codes (1, h, w) of the next latent step."""
        self._codes = codes.flatten(1)

    def __call__(self, logits: Tensor) -> Tensor:
        count = logits.shape[1]
        codes, self._codes = self._codes[:, :count], self._codes[:, count:]
        found, symbols = tables(logits), codes[0].cpu().numpy()
        if found.certain:
            self.coder.encode(symbols, found.weights)
        else:
            self.coder.encode_flat(symbols, logits.shape[-1])
            self.flat.append(self.asked)
        self.asked += 1
        return codes


class ReadingSampler(CodingSampler):
    """Decodes the codes."""

    def __init__(self, coder: RangeDecoder, flat: set[int]) -> None:
        super().__init__()
        self.coder, self.flat = coder, flat

    def __call__(self, logits: Tensor) -> Tensor:
        if self.asked in self.flat:
            symbols = self.coder.decode_flat(logits.shape[1], logits.shape[-1])
        else:
            symbols = self.coder.decode(tables(logits).weights)
        self.asked += 1
        return torch.from_numpy(symbols)[None].to(logits.device)
