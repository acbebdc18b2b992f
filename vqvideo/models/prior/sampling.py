"""Choosing codes from logits: temperature, top-k, top-p, guidance. Pure functions of logits and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vqvideo.models.prior.config import Sampling
from vqvideo.models.row_parts import in_parts
from vqvideo.models.rows import Randomness, uniform


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (..., k) with all but the `k` largest at -inf."""
    if k >= logits.shape[-1]:
        return logits
    return logits.masked_fill(logits < logits.topk(k, dim=-1).values[..., -1:], -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Nucleus (Holtzman et al. 2019, arXiv:1904.09751): the likeliest code always stays."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probability = ordered.softmax(dim=-1)
    # A code stays if the likelier ones before it do not yet hold p.
    drop = (probability.cumsum(dim=-1) - probability) >= p
    # Also where p is nothing in single precision.
    drop[..., 0] = False
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)


_COLD = 1e-4
"""Temperatures below could make numbers of logits that are too large for single precision."""


def cooled(logits: Tensor, temperature: float) -> Tensor:
    """Logits (..., k) over a temperature above 0, however small: of equal softmax, and never infinite or NaN on top."""
    if temperature >= _COLD:
        return logits / temperature
    # The largest at 0 stays there, and what overflows below it is as unlikely as it should be.
    least = torch.finfo(logits.dtype).tiny
    return (logits - logits.amax(dim=-1, keepdim=True)) / max(temperature, least)


class Drawn(NamedTuple):
    """Codes, and what it takes to draw again where the first draw fell outside of the nucleus."""

    codes: Tensor
    """(r,) int64."""
    outside: Tensor
    """(x,) int64: which of them do not count."""
    probability: Tensor
    """(x, k): of those."""

    @classmethod
    def all_count(cls, codes: Tensor, like: Tensor) -> Drawn:
        """Codes (...), all of which count; `like`: probabilities (..., k)."""
        return cls(codes.flatten(), codes.new_empty(0), like.new_empty(0, like.shape[-1]))


def sample(logits: Tensor, how: Sampling, generator: Randomness = None) -> Tensor:
    """Codes (...) int64 drawn from logits (..., k)."""
    shape = logits.shape[:-1]
    drawn = first_draw(logits, how, numbers(shape, how, generator, logits.device))
    return redrawn(drawn, how.top_p, shape, generator)


def numbers(shape: tuple[int, ...], how: Sampling, generator: Randomness, device: torch.device) -> Tensor:
    """What the first draw of codes of `shape` takes: a random number for each, of which none is taken without need."""
    return torch.zeros(shape, device=device) if how.temperature == 0 else uniform(shape, generator, device)


def first_draw(logits: Tensor, how: Sampling, u: Tensor, probability: Tensor | None = None) -> Drawn:
    """Codes for logits (..., k) and random numbers u (...). `probability` (..., k): their softmax, if it is at hand."""
    if how.temperature == 0:
        return Drawn.all_count(logits.argmax(dim=-1), logits)
    plain = how.temperature == 1 and not how.top_k
    logits = logits.float() if plain else cooled(logits.float(), how.temperature)
    if how.top_k:
        logits = keep_top_k(logits, how.top_k)
    if how.top_p < 1 and not _redraws(logits, how):
        p = keep_top_p(logits, how.top_p).softmax(dim=-1)
        return Drawn.all_count(_inverse(p.cumsum(dim=-1), u), p)
    p = probability if plain and probability is not None else logits.softmax(dim=-1)
    if how.top_p == 1:
        return Drawn.all_count(_inverse(p.cumsum(dim=-1), u), p)
    return _try_nucleus(p.flatten(0, -2), how.top_p, u.flatten())


def _redraws(logits: Tensor, how: Sampling) -> bool:
    """Drawing again needs to know from the device whether it must, and pays where most draws are accepted."""
    return logits.device.type == "cpu" and how.top_p >= 0.5


def draw(probability: Tensor, generator: Randomness = None) -> Tensor:
    """Codes (...) drawn from probabilities (..., k) by the inverse of their cumulative sum: one random number each."""
    return _inverse(probability.cumsum(dim=-1), uniform(probability.shape[:-1], generator, probability.device))


def _inverse(cumulative: Tensor, u: Tensor) -> Tensor:
    """Codes (...) of cumulative sums (..., k) of probabilities at u (...).

    In double precision: 24 random bits times the total could round up to the total itself, beyond the last code. Of
    sums that are not finite comes any code, but one that there is: on a GPU another one would end the whole process.
    """
    total = cumulative[..., -1:]
    at = torch.minimum((u[..., None] * total).to(total.dtype), torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, at, right=True)[..., 0].clamp(max=cumulative.shape[-1] - 1)


def draw_from_nucleus(probability: Tensor, p: float, generator: Randomness = None) -> Tensor:
    """As `draw` from what `keep_top_p` keeps, without sorting: draws from all codes, and again where the draw fell
    outside. Rejection leaves the distribution inside as it was; on average it takes 1 / p draws or fewer.
    """
    shape = probability.shape[:-1]
    u = uniform(shape, generator, probability.device)
    return redrawn(_try_nucleus(probability.flatten(0, -2), p, u.flatten()), p, shape, generator)


def _try_nucleus(probability: Tensor, p: float, u: Tensor) -> Drawn:
    """Codes (r,) drawn from all codes, with probabilities (r, k)."""
    codes = _inverse(probability.cumsum(dim=-1), u)
    outside = (~_in_nucleus(probability, codes, p)).nonzero()[:, 0]
    return Drawn(codes, outside, probability[outside])


def redrawn(drawn: Drawn, p: float, shape: tuple[int, ...], generator: Randomness) -> Tensor:
    """Codes of `shape`, with those that do not count drawn again until they do."""
    codes, outside, probability = drawn
    while len(outside):
        again = _inverse(probability.cumsum(dim=-1), uniform(shape, generator, codes.device, outside))
        codes[outside] = again
        still = ~_in_nucleus(probability, again, p)
        outside, probability = outside[still], probability[still]
    return codes.reshape(shape)


def _in_nucleus(probability: Tensor, codes: Tensor, p: float) -> Tensor:
    """Whether the codes likelier than `codes` do not yet hold p: (r, k), (r,) -> (r,) bool."""
    own = probability.gather(-1, codes[:, None])
    # Likelier codes hold at most what the code itself leaves: only of an unlikely one they must be added up.
    inside = own[:, 0] > 1 - p + _ROUNDING
    unsure = (~inside).nonzero()[:, 0]
    rows = probability[unsure]
    # Not `< p`: what is not finite would be drawn again for ever.
    inside[unsure] = ~((rows * (rows > own[unsure])).sum(dim=-1) >= p)
    return inside


_ROUNDING = 1e-4
"""Of sums of probabilities; where it matters, they are added up."""


def entropy(logits: Tensor, probability: Tensor | None = None) -> Tensor:
    """Entropy in nats of logits (..., k) -> (...). `probability` (..., k): their softmax, if it is at hand."""
    logits = logits.float()
    p = logits.softmax(dim=-1) if probability is None else probability
    top, at = p.max(dim=-1, keepdim=True)
    # log p = logits - z for every code; z is read off the likeliest, whose p cannot be 0.
    z = logits.gather(-1, at) - top.log()
    return (z[..., 0] - (p * logits.clamp(min=torch.finfo(p.dtype).min)).sum(dim=-1)).clamp(min=0)


class TokenSampler:
    """Draws the codes of one latent step for a head, and keeps account of their entropy.

    With guidance the rows come twice, first with and then without the actions. A code is then drawn from
    without + guidance (with - without) (classifier-free guidance, Ho & Salimans 2022, arXiv:2207.12598, on logits), and
    both halves get it: a head need not know.

    Args:
        how: how codes are drawn.
        generator: source of randomness, on the device of the logits.
    """

    def __init__(self, how: Sampling, generator: Randomness = None) -> None:
        self.how, self.generator = how, generator
        self._entropies: list[Tensor] = []

    def __call__(self, logits: Tensor) -> Tensor:
        """Codes (r, m) for logits (r, m, k)."""
        return self._drawn(logits, lambda rows: rows)

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        """As of `logits(x)`, for x (r, m, e): those of all rows are never there at once, if they are many."""
        return self._drawn(x, logits)

    def _drawn(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        known, *blind = x.chunk(2) if self.how.compares else (x,)
        shape = known.shape[:2]
        u = numbers(shape, self.how, self.generator, x.device)

        def compute(rows: slice) -> tuple[Tensor, ...]:
            own = logits(known[rows]).float()
            if blind:
                without = logits(blind[0][rows]).float()
                own = without + self.how.guidance * (own - without)
            probability = own.softmax(dim=-1)
            codes, outside, again = first_draw(own, self.how, u[rows], probability)
            return codes, outside + rows.start * shape[1], again, entropy(own, probability)

        codes, outside, again, nats = in_parts(compute, shape[0], x.device)
        self._entropies.append(nats)
        drawn = redrawn(Drawn(codes, outside, again), self.how.top_p, shape, self.generator)
        return drawn.repeat(2, 1) if self.how.compares else drawn

    def order(self, rows: int, n: int, device: torch.device) -> Tensor:
        """(r, n): the places of each row in random order."""
        own = rows // 2 if self.how.compares else rows
        order = uniform((own, n), self.generator, device).argsort(dim=-1)
        return order.repeat(2, 1) if self.how.compares else order

    @property
    def entropy(self) -> Tensor:
        """(b,): mean entropy of the tokens drawn so far, in nats, before temperature, top-k and top-p."""
        return torch.cat(self._entropies, dim=-1).mean(dim=-1)
