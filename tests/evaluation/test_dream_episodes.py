"""Dreams as episodes: what was imagined, from the last real frame up to the end that was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stores import make_meta
from tiny_models import FIVE, SIZE, noise_frames, tiny_world

from vqvideo.data.exporting import Outgoing
from vqvideo.evaluation.dream_episodes import dream_episodes, dream_meta
from vqvideo.models.imagination import Imagination
from vqvideo.models.prior import Sampling
from vqvideo.world import WorldModel

CONTEXT = 2


def dreamt(world: WorldModel, ends: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Outgoing], Imagination, Any]:
    """Dreams of two clips that end with the probabilities `ends` (2, m), and what they are made of."""
    frames, actions = noise_frames(2, 13), torch.arange(24).reshape(2, 12, 1) % 5
    dream = world.imagine(frames[:, :3], actions, seed=3)._replace(termination=torch.tensor(ends))
    monkeypatch.setattr(world, "imagine", lambda *_, **__: dream)
    return list(dream_episodes(world, frames, actions, CONTEXT, Sampling(), 3)), dream, (frames, actions)


def test_an_episode_is_the_dream_from_the_last_real_frame_on(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world()
    ends = [[0.0] * 5, [0.0, 0.0, 1.0, 1.0, 0.0]]
    (whole, cut), dream, (frames, actions) = dreamt(world, ends, monkeypatch)
    pictures = np.concatenate(list(whole.frames))
    assert pictures.shape == (11, SIZE, SIZE, 3)
    assert np.array_equal(pictures[0], frames[0, 2].permute(1, 2, 0))
    assert np.array_equal(pictures[1:], dream.frames[0].permute(0, 2, 3, 1))
    assert whole.steps.actions[:, 0].tolist() == actions[0, 2:, 0].tolist()
    assert whole.steps.rewards[1::2].tolist() == dream.rewards[0].tolist()
    assert not whole.steps.rewards[::2].any()
    assert (whole.steps.terminated[-1], whole.steps.truncated[-1]) == (False, True)
    assert len(cut.steps.rewards) == 6
    assert len(np.concatenate(list(cut.frames))) == 7
    assert (cut.steps.terminated[-1], cut.steps.truncated[-1]) == (True, False)
    for one in (whole, cut):
        one.steps.validate(len(one.steps.rewards), FIVE)


def test_the_meta_says_that_they_are_dreams_and_what_is_not_known() -> None:
    meta = dream_meta(tiny_world(), make_meta(action_space=FIVE), "left", 7)
    assert (meta.imported, meta.policy, meta.seed, meta.missing) == ("dreams", "left", 7, ())
