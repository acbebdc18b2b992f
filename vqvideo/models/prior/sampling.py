"""Choosing codes from logits: temperature, top-k, top-p, guidance. Pure functions of logits and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    if how.top_p == 1 or not _redraws(logits, how):
        return Drawn.all_count(only_draw(logits, how, u, probability), logits)
    return _try_nucleus(_probability(_kept(logits, how), how, probability).flatten(0, -2), how.top_p, u.flatten())


def only_draw(logits: Tensor, how: Sampling, u: Tensor, probability: Tensor | None = None) -> Tensor:
    """As `first_draw`, codes (...) that all count: they follow from logits and random numbers alone."""
    if how.temperature == 0:
        return logits.argmax(dim=-1)
    logits = _kept(logits, how)
    p = keep_top_p(logits, how.top_p).softmax(dim=-1) if how.top_p < 1 else _probability(logits, how, probability)
    return _inverse(p.cumsum(dim=-1), u)


def _kept(logits: Tensor, how: Sampling) -> Tensor:
    logits = logits.float() if _is_plain(how) else cooled(logits.float(), how.temperature)
    return keep_top_k(logits, how.top_k) if how.top_k else logits


def _probability(kept: Tensor, how: Sampling, probability: Tensor | None) -> Tensor:
    return probability if _is_plain(how) and probability is not None else kept.softmax(dim=-1)


def _is_plain(how: Sampling) -> bool:
    return how.temperature == 1 and not how.top_k


def _redraws(logits: Tensor, how: Sampling) -> bool:
    """Drawing again needs to know from the device whether it must, and pays where most draws are accepted."""
    return logits.device.type == "cpu" and how.top_p >= 0.5 and how.temperature > 0


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
        self.revises = how.temperature == 0 or how.top_p == 1
        """Whether a head may ask for the same token again, in the light of what else was drawn: not where draws that
        fall outside of the nucleus take more random numbers.
        """
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
            own = self._guided(logits, known[rows], *(part[rows] for part in blind))
            probability = own.softmax(dim=-1)
            codes, outside, again = first_draw(own, self.how, u[rows], probability)
            return codes, outside + rows.start * shape[1], again, entropy(own, probability)

        codes, outside, again, nats = in_parts(compute, shape[0], x.device)
        self._entropies.append(nats)
        drawn = redrawn(Drawn(codes, outside, again), self.how.top_p, shape, self.generator)
        return drawn.repeat(2, 1) if self.how.compares else drawn

    def _guided(self, logits: Callable[[Tensor], Tensor], known: Tensor, blind: Tensor | None = None) -> Tensor:
        own = logits(known).float()
        if blind is None:
            return own
        without = logits(blind).float()
        return without + self.how.guidance * (own - without)

    def settled(
        self, hidden: Tensor, logits: Callable[[Tensor, Tensor], Tensor], draw: Callable[[Tensor, TokenSampler], Tensor]
    ) -> Tensor:
        """Codes (r, n) of tokens each of which depends on those before it, for hidden (r, n, e). Of few rows, on CPUs,
        all are drawn at once, and again given what was drawn, with the same random numbers, until nothing changes any
        more. Then each is what it would be if they were drawn one after the other (Jacobi iteration: Song et al. 2021,
        arXiv:2002.03629): where most of a step follows from the past, that takes two or three passes instead of n.

        Args:
            hidden: (r, n, e).
            logits: of hidden (x, n, e) and codes (x, n): (x, n, k), each token's given the codes before it.
            draw: draws them one after the other: for rows that do not settle soon.
        """
        parts = hidden.chunk(2) if self.how.compares else (hidden,)
        rows, n = parts[0].shape[:2]
        u = numbers((rows, n), self.how, self.generator, hidden.device)
        codes = torch.zeros(rows, n, dtype=torch.int64, device=hidden.device)
        nats = torch.zeros(rows, n, device=hidden.device)
        going = torch.arange(rows, device=hidden.device)

        def guess(going: Tensor, some: slice) -> tuple[Tensor, ...]:
            at = going[some]
            own = self._guided(lambda x: logits(x, codes[at]), *(part[at] for part in parts))
            return only_draw(own, self.how, u[at]), entropy(own)

        # To know what has settled is to wait for a GPU.
        quick = rows <= _FEW and hidden.device.type == "cpu"
        for passes in range(n if quick else 0):
            drawn, unsure = in_parts(partial(guess, going), len(going), hidden.device)
            changed = drawn != codes[going]
            codes[going], nats[going] = drawn, unsure
            going = going[changed.any(dim=1)]
            if not len(going) or changed.int().argmax(dim=1).amax() < _PLACES * (passes - 1):
                break
        if len(going):
            rest = _GivenNumbers(self.how, u[going])
            codes[going] = draw(torch.cat([part[going] for part in parts]), rest)[: len(going)]
            nats[going] = torch.cat(rest._entropies, dim=-1)
        self._entropies.append(nats)
        return codes.repeat(2, 1) if self.how.compares else codes

    def order(self, rows: int, n: int, device: torch.device) -> Tensor:
        """(r, n): the places of each row in random order."""
        own = rows // 2 if self.how.compares else rows
        order = uniform((own, n), self.generator, device).argsort(dim=-1)
        return order.repeat(2, 1) if self.how.compares else order

    @property
    def entropy(self) -> Tensor:
        """(b,): mean entropy of the tokens drawn so far, in nats, before temperature, top-k and top-p."""
        return torch.cat(self._entropies, dim=-1).mean(dim=-1)


_FEW = 8
"""Rows of which all tokens are guessed at once. Of many it takes longer than one after the other: 64 boards of 36
tokens took 345 ms a step with guesses and 218 without, a single one 21 and 75 (AVX512, one thread, busy cores).
"""
_PLACES = 4
"""Places by which each pass moves the first token that still changes, or it is quicker to go on one by one."""


class _GivenNumbers(TokenSampler):
    """Draws with random numbers u (b, n) that there are already, from the first to the last."""

    def __init__(self, how: Sampling, u: Tensor) -> None:
        super().__init__(how)
        self._u, self.revises = u, False

    def draw(self, x: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        own = self._guided(logits, *(x.chunk(2) if self.how.compares else (x,)))
        u, self._u = self._u[:, : own.shape[1]], self._u[:, own.shape[1] :]
        codes = only_draw(own, self.how, u)
        self._entropies.append(entropy(own))
        return codes.repeat(2, 1) if self.how.compares else codes

    def __call__(self, logits: Tensor) -> Tensor:
        return self.draw(logits, lambda rows: rows)
