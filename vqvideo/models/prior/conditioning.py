"""How the actions of a latent step reach the backbone: a vector (b, t, d) from the flat actions, and three ways in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vqvideo.models.precision import SinglePrecisionBuffers
from vqvideo.models.prior.spec import ActionStats
from vqvideo.spaces import ActionSpace, Column

_FARTHEST = 1e4
"""Standard deviations from the mean: not one of 1e8 recorded actions is farther, and of those nothing was learnt."""
_NO_BOUND = 1e6
"""Half the range of a column from which on its bounds say nothing about its values."""


class ActionEncoder(SinglePrecisionBuffers):
    """Flat actions (b, t, s, a) to one vector per latent step (b, t, d).

    Categorical columns become one-hot, continuous ones are normalised by their recorded statistics; the s actions of
    a latent step are read together. Actions that are not known have a learnt vector of their own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, space: ActionSpace, stats: ActionStats, stride: int, dim: int, *, hides: bool = True) -> None:
        """`hides`: whether training hides actions; else nothing learns the vector of those that are not known."""
        super().__init__()
        self.pieces = tuple(_pieces(space.columns))
        self.register_buffer("mean", torch.tensor(stats.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(_units(space, stats), dtype=torch.float32))
        width = sum(column.categories or 1 for column in space.columns) * stride
        self.mlp = nn.Sequential(nn.Linear(width, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
        # Data-parallel training refuses a parameter that no loss depends on.
        self.unknown = nn.Parameter(torch.zeros(dim), requires_grad=hides)

    def forward(self, actions: Tensor, known: Tensor | None = None) -> Tensor:
        """`known`: (b, t) bool, or None if all are."""
        actions = actions.float()
        # In halves, for the difference of two numbers can be too large for one.
        scaled = ((actions / 2 - self.mean / 2) / (self.std / 2)).clamp_(-_FARTHEST, _FARTHEST)
        features = [
            F.one_hot((actions[..., first] - start).long(), categories).float()
            if categories
            else scaled[..., first:last]
            for first, last, start, categories in self.pieces
        ]
        together = rearrange(torch.cat(features, dim=-1), "b t s f -> b t (s f)")
        encoded = self.mlp(together.to(self.unknown.dtype))
        return encoded if known is None else torch.where(known[..., None], encoded, self.unknown.to(encoded.dtype))


def _pieces(columns: Sequence[Column]) -> Iterator[tuple[int, int, float, int]]:
    """First column and last, the next one's, of what is read at once, its least value and its categories: each
    categorical column by itself, and continuous ones together as long as they are neighbours.
    """
    for categorical, group in groupby(enumerate(columns), lambda pair: bool(pair[1].categories)):
        numbers = [number for number, _ in group]
        if categorical:
            yield from ((i, i + 1, columns[i].start, columns[i].categories or 0) for i in numbers)
        else:
            yield numbers[0], numbers[-1] + 1, 0, 0


def _units(space: ActionSpace, stats: ActionStats) -> list[float]:
    """How far apart two values of each column count as 1: by its standard deviation. Of a column that was hardly ever
    varied, by a thousandth of what it could have been, so that it does not explode when it is varied after all.
    """
    units = []
    for column, mean, std in zip(space.columns, stats.mean, stats.std, strict=True):
        reach = column.high / 2 - column.low / 2
        # Bounds like those of a float are none: what was recorded says more.
        size = reach if reach < _NO_BOUND else math.hypot(mean, std)
        # And what float32 cannot tell apart, so far from 0, is no difference.
        units.append(max(std, 1e-3 * min(1.0, size) or 1e-3, 1e-7 * abs(mean)))
    return units


class NoActions(nn.Module):
    """In the place of an `ActionEncoder` where there are no actions: one learnt vector for every latent step."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(dim))

    def forward(self, actions: Tensor, known: Tensor | None = None) -> Tensor:
        """Actions (b, t, s, 0) to (b, t, d)."""
        return self.vector.expand(*actions.shape[:2], -1)


class PlainNorm(nn.LayerNorm):
    """Layer norm that does not look at the action."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, bias=False)

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        return super().forward(x)


class AdaptiveNorm(nn.LayerNorm):
    """Layer norm whose scale and shift follow from the action (Peebles & Xie 2023, arXiv:2212.09748, without gates)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, bias=False)
        self.modulate = nn.Linear(dim, 2 * dim)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        assert action is not None
        scale, shift = self.modulate(F.silu(action))[:, :, None].chunk(2, dim=-1)
        return super().forward(x) * (1 + scale) + shift


class Conditioning(nn.Module):
    """One way in for the action, to a backbone of width `dim`."""

    norm: type[PlainNorm] | type[AdaptiveNorm] = PlainNorm
    """The norm of the backbone's blocks."""
    extra = 0
    """Places that stand beside those of the grid."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def enter(self, x: Tensor, action: Tensor) -> Tensor:
        """(b, t, n, d) and the action (b, t, d) to what the first block gets: (b, t, n + extra, d)."""
        return x

    def leave(self, x: Tensor) -> Tensor:
        """What the last block gives, less the extra places."""
        return x


class Add(Conditioning):
    """The action is added to every token (as in Genie, Bruce et al. 2024, arXiv:2402.15391)."""

    def enter(self, x: Tensor, action: Tensor) -> Tensor:
        return x + action[:, :, None]


class Token(Conditioning):
    """The action is a token of its own beside those of the frame, in space and along time."""

    extra = 1

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.mark = nn.Parameter(torch.randn(dim) * 0.02)

    def enter(self, x: Tensor, action: Tensor) -> Tensor:
        return torch.cat([x, (action + self.mark)[:, :, None].to(x.dtype)], dim=2)

    def leave(self, x: Tensor) -> Tensor:
        return x[:, :, :-1]


class AdaLN(Conditioning):
    """The action sets scale and shift of every norm."""

    norm = AdaptiveNorm
