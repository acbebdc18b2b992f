"""Drawing codes inside a graph: what `vqvideo.models.prior.sampling` does, from random numbers that are given.

TorchScript, for there are decisions and a loop in it, which become ONNX's `If` and `Loop`. Where most time goes, the
passes over all probabilities are few.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _scripted(function: Callable[..., Tensor]) -> Any:
    with warnings.catch_warnings():
        # Of the age of TorchScript, by which alone loops reach ONNX without another package.
        warnings.simplefilter("ignore")
        return torch.jit.script(function)


@_scripted
def guided(logits: Tensor, guidance: Tensor, told: Tensor, untold: Tensor) -> Tensor:
    """Logits (b, m, k) of rows that know the actions, away from those of rows that do not."""
    if bool(guidance != 1):
        without = logits[untold]
        logits = without + guidance * (logits[told] - without)
    return logits


@_scripted
def picked(p: Tensor, noise: Tensor, group: int) -> Tensor:
    """Codes (r, j) by the inverse of the cumulative sum of probabilities (r, k), at noise (r, j) in 0 .. 2^31 - 1.

    In two steps, for a sum over all codes takes longer than all else: the group of so many codes first, and then the
    place in it. In double precision, so that rounding never leads beyond the last code or to one that cannot be.
    """
    groups = p.reshape(-1, p.shape[1] // group, group)
    sums = groups.sum(dim=-1).double()
    ends = sums.cumsum(-1)
    at = noise.double() / 2147483648.0 * ends[:, -1:]
    chosen = (ends[:, None] <= at[:, :, None]).long().sum(dim=-1)
    size = sums.gather(1, chosen)
    share = (at - (ends.gather(1, chosen) - size)) / size
    inside = groups.gather(1, chosen[:, :, None].expand(-1, -1, group)).double().cumsum(-1)
    place = (inside <= share.clamp(0.0, 1.0 - 2.0**-52)[:, :, None] * inside[:, :, -1:]).long().sum(dim=-1)
    return chosen * group + place


@_scripted
def likelier(p: Tensor, own: Tensor) -> Tensor:
    """(r, j): what the codes likelier than those of probabilities own (r, j) hold, of p (r, k)."""
    p = p[:, None]
    return torch.where(p > own[:, :, None], p, torch.zeros_like(p)).sum(dim=-1)


@_scripted
def drawn(p: Tensor, noise: Tensor, top_p: Tensor, group: int, factors: Tensor, summands: Tensor) -> Tensor:
    """Codes (r,) of probabilities (r, k), drawn again until they are in the nucleus (see `draw_from_nucleus`).

    Several times at once, by the next numbers of a linear congruential generator, of which the first that leads into
    the nucleus counts: so one pass is nearly always enough.
    """
    codes = picked(p, noise[:, None], group)
    own = p.gather(1, codes)
    codes = codes[:, 0]
    if bool(top_p < 1):
        # Likelier codes hold at most what the code itself leaves: only of an unlikely one they must be added up.
        rows = (own[:, 0] <= 1.0001 - top_p).nonzero()[:, 0]
        q, last = p[rows], noise[rows]
        outside = likelier(q, own[rows])[:, 0] >= top_p
        while bool(outside.any()):
            still = outside.nonzero()[:, 0]
            rows, q = rows[still], q[still]
            again = (last[still][:, None] * factors + summands) % 2147483648
            found = picked(q, again, group)
            fits = likelier(q, q.gather(1, found)) < top_p
            first = fits.long().argmax(dim=1, keepdim=True)
            codes = codes.scatter(0, rows, found.gather(1, first)[:, 0])
            outside, last = ~fits.any(dim=1), again[:, -1]
    return codes


@_scripted
def sampled(
    logits: Tensor,
    p: Tensor,
    noise: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    group: int,
    factors: Tensor,
    summands: Tensor,
) -> Tensor:
    """Codes (r,) of logits (r, k), whose softmax is p."""
    if bool(temperature == 0):
        codes = logits.argmax(dim=-1)
    else:
        if bool(temperature != 1):
            # However small the temperature, nothing overflows: the largest at 0 stays there.
            p = ((logits - logits.amax(dim=-1, keepdim=True)) / temperature.clamp(min=1e-38)).softmax(dim=-1)
        codes = drawn(p, noise, top_p, group, factors, summands)
    return codes


def later_numbers(count: int = 8) -> tuple[Tensor, Tensor]:
    """What to multiply a number by, and what to add modulo 2^31, for the next `count` numbers of the generator."""
    factors, summands = [1], [0]
    for _ in range(count):
        factors.append(factors[-1] * 1103515245 % 2**31)
        summands.append((summands[-1] * 1103515245 + 12345) % 2**31)
    return torch.tensor(factors[1:]), torch.tensor(summands[1:])


class GraphSampler:
    """In the place of a `TokenSampler` where a head is traced.

    Args:
        inputs: noise, temperature, top_p, guidance, told and untold, as `StepGraph` has them.
    """

    revises = False

    def __init__(self, inputs: dict[str, Tensor]) -> None:
        self._inputs, self.numbers = inputs, 0
        self.entropies: list[Tensor] = []
        self.logits: list[Tensor] = []

    def __call__(self, logits: Tensor) -> Tensor:
        """Codes (r, m) for logits (r, m, k)."""
        given = self._inputs
        logits = guided(logits, *(given[name] for name in ("guidance", "told", "untold")))
        p = logits.softmax(dim=-1)
        # Log of the sum of exponentials, from the likeliest code.
        total = logits.amax(dim=-1) - p.amax(dim=-1).log()
        self.entropies.append(total - (p * logits).sum(dim=-1))
        self.logits.append(logits)
        noise = self._noise(logits.shape[1]).flatten().long()
        how = given["temperature"], given["top_p"], group_size(p.shape[-1])
        codes = sampled(logits.flatten(0, 1), p.flatten(0, 1), noise, *how, *later_numbers())
        return codes.unflatten(0, (-1, logits.shape[1]))

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        """Of `logits(x)`."""
        return self(logits(x))

    def order(self, rows: int, n: int, device: torch.device) -> Tensor:
        """(r, n): the places of each row in random order."""
        return self._noise(n).argsort(dim=-1)

    def _noise(self, count: int) -> Tensor:
        first, self.numbers = self.numbers, self.numbers + count
        return self._inputs["noise"][:, first : self.numbers]


def group_size(k: int) -> int:
    """The divisor of k nearest to its root."""
    return min((size for size in range(1, k + 1) if k % size == 0), key=lambda size: abs(size * size - k))
