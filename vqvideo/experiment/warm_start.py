"""A prior that starts from the weights of another one. It takes what agrees in name and shape, so that heads can be
compared on one trained backbone, or a slower head be trained where a fast one has shown the way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from vqvideo.errors import InputError
from vqvideo.models.prior import Prior
from vqvideo.world import WorldModel


@dataclass(frozen=True)
class WarmStart:
    """Where the first weights of a prior come from."""

    source: Path
    """Folder of the world model."""
    world: str
    """Its fingerprint."""
    taken: tuple[str, ...]
    """Parameters that start from there."""
    fresh: tuple[str, ...]
    """Parameters that start anew."""

    def __str__(self) -> str:
        return f"from the prior of {self.source}: {_parts(self.taken)}; fresh: {_parts(self.fresh)}"


@torch.no_grad()
def warm_start(prior: Prior, folder: Path, *, continued: str | None = None) -> WarmStart:
    """Copies the parameters of another world's prior into `prior` where name and shape are the same.

    Nothing is taken of a head of another kind: some names might happen to agree, and heads that are compared would not
    start alike. Buffers stay: they are facts of the tokenizer and of the store.

    Args:
        prior: changed in place.
        folder: the other world model's.
        continued: fingerprint of the tokenizer that the prior's one was continued from, if it was: most of its codes
            still mean the same.

    Raises:
        InputError: no world model there, one of another tokenizer, or nothing agrees; `prior` is as before.
    """
    world = WorldModel.from_pretrained(folder)
    other = world.prior
    if other.spec.tokenizer not in (prior.spec.tokenizer, continued):
        own_codes = prior.spec.tokenizer[:16] or "one that is yet to be trained"
        raise InputError(
            f"prior.init: the prior of {folder} speaks the codes of tokenizer {other.spec.tokenizer[:16]}, this one "
            f"those of {own_codes}: name a world of the same tokenizer, or of the one that this one "
            "was continued from (vqvae.init)"
        )
    same_head = type(other.cfg.head) is type(prior.cfg.head)
    known = {n: p for n, p in other.named_parameters() if same_head or not n.startswith("head.")}
    own = dict(prior.named_parameters())
    taken = tuple(name for name, value in own.items() if name in known and known[name].shape == value.shape)
    # Of two priors of different width, some biases still agree: that is no start.
    if not any(own[name].ndim > 1 for name in taken):
        raise InputError(
            f"prior.init: no matrix of the prior of {folder} (dim {other.cfg.dim}, {other.cfg.layers} layers) has name "
            f"and shape of one here (dim {prior.cfg.dim}, {prior.cfg.layers} layers): name a world of the same shape"
        )
    for name in taken:
        own[name].copy_(known[name])
    return WarmStart(folder, world.fingerprint(), taken, tuple(name for name in own if name not in taken))


def _parts(names: tuple[str, ...]) -> str:
    """How many tensors of each part of the model."""
    counts = Counter(name.split(".")[0] for name in names)
    return ", ".join(f"{part} ({count})" for part, count in counts.items()) or "nothing"
