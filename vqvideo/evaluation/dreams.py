"""Dreams of recorded episodes: the same beginnings, the same actions, and what the world model makes of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vqvideo.evaluation.replay import Outcomes, Replay, first_end
from vqvideo.models.imagination import Imaginer, WorldState
from vqvideo.models.prior.sampling import Sampling


class Dreams(NamedTuple):
    """What S dreams of each of n episodes bring in m latent steps."""

    outcomes: Outcomes
    """Rewards (n, S, m), ends (n, S)."""
    termination: Tensor
    """(n, S, m) float64: the probability of ending in the step."""

    @classmethod
    def drawn(cls, dreamt: Tensor, luck: Tensor) -> Dreams:
        """From rewards and probabilities (2, n S, m), with the ends drawn by numbers of 0 .. 1 (n, S, m)."""
        rewards, termination = dreamt.unflatten(1, luck.shape[:2])
        return cls(Outcomes(rewards, first_end(luck < termination)), termination)


@torch.no_grad()
def dream_again(
    world: Imaginer, replay: Replay, samples: int, sampling: Sampling, seed: int, batch: int
) -> tuple[Dreams, Dreams]:
    """Dreams `samples` times of all n episodes under their own actions, and under those of the episode before.

    Args:
        world: the model.
        replay: the episodes.
        samples: S, dreams of each.
        sampling: how codes are drawn.
        seed: of the codes and the ends, the same for both, and of the actions lent to episodes that ended early.
        batch: dreams at once.
    """
    n, chance = len(replay.entries), torch.Generator().manual_seed(seed)
    own = replay.actions(chance)
    plans = (own, own.roll(1, dims=0))
    # One number for each dream and step whatever the batch, and the same under other actions.
    luck = torch.rand(n, samples, replay.window.horizon, generator=chance, dtype=torch.float64)
    # Of their own seed: the same one on the same kind of device would draw ends and codes from the same numbers.
    of_codes = int(torch.randint(2**62, (1,), generator=chance))
    generators = [torch.Generator(world.device).manual_seed(of_codes) for _ in plans]
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    with tqdm(total=n, desc="dreaming", unit="episode", leave=False) as progress:
        for picks in torch.arange(n).split(max(1, batch // samples)):
            frames, actions = (x.repeat_interleave(samples, dim=0) for x in replay.context(picks.tolist()))
            state = world.start(frames, actions)
            for plan, generator, found in zip(plans, generators, parts, strict=True):
                rows = plan[picks].repeat_interleave(samples, dim=0)
                found.append(_dreamt(world, state, rows, sampling, generator))
            progress.update(len(picks))
    dreams, other = (Dreams.drawn(torch.cat(found, dim=1), luck) for found in parts)
    return dreams, other


def _dreamt(
    world: Imaginer, state: WorldState, actions: Tensor, sampling: Sampling, generator: torch.Generator
) -> Tensor:
    """Rewards and probabilities of ending (2, b, m) under the actions (b, s m, a)."""
    found = []
    for action in actions.split(world.stride, dim=1):
        step, state = world.step(state, action, sampling=sampling, generator=generator)
        found.append(torch.stack([step.reward, step.termination]))
    return torch.stack(found, dim=-1).cpu().double()
