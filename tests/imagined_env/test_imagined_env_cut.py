"""Dreams that are cut where the model is unsure, and thresholds for that from real episodes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imagined import MODES, dream, dreams, endless, play, same, some_world
from tiny_models import tiny_store, tiny_world

from vqvideo.data.clips import Clips
from vqvideo.errors import InputError
from vqvideo.imagined_env import ImaginedVectorEnv, cut_thresholds
from vqvideo.imagined_env.cut import FIGURES
from vqvideo.models.prior.sampling import Sampling
from vqvideo.world import WorldModel

GREEDY = Sampling(temperature=0.0)
"""Draws codes that need no random numbers."""


def steps_of(envs: ImaginedVectorEnv, steps: int = 16) -> list[dict[str, Any]]:
    """Of every env and step what the infos tell, and how it ended."""
    told = []
    for _, _, terminated, truncated, infos in play(envs, steps, seed=0)[1:]:
        over = terminated | truncated
        for i in range(envs.num_envs):
            own = infos["final_info"] if "final_info" in infos and over[i] else infos
            if own.get("_entropy", [False] * envs.num_envs)[i]:
                figures = {name: own[name][i] for name in (*FIGURES, "cut") if name in own}
                told.append({**figures, "terminated": terminated[i], "truncated": truncated[i]})
    return told


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("figure", FIGURES)
def test_a_step_above_its_threshold_truncates_and_says_so(mode: str, figure: str) -> None:
    free = steps_of(dreams(some_world(), horizon=math.inf, autoreset_mode=mode))
    middle = float(np.median([step[figure] for step in free]))
    told = steps_of(dreams(some_world(), horizon=math.inf, autoreset_mode=mode, cut_above={figure: middle}))
    for step in told:
        unsure = step[figure] > middle
        assert step["cut"] == step["truncated"] == (unsure and not step["terminated"])
    assert {bool(step["cut"]) for step in told} == {False, True}
    assert any(step["terminated"] and step[figure] > middle for step in told), "an end is no cut"
    assert not any("cut" in step for step in free)


@pytest.mark.parametrize("mode", MODES)
def test_thresholds_that_nothing_exceeds_change_nothing_but_the_info(mode: str) -> None:
    plain = play(dreams(some_world(), autoreset_mode=mode), seed=0)
    envs = dreams(some_world(), autoreset_mode=mode, cut_above=dict.fromkeys(FIGURES, math.inf))
    for one, other in zip(plain, play(envs, seed=0), strict=True):
        assert all(same(mine, its) for mine, its in zip(one[:-1], other[:-1], strict=True))


def test_the_horizon_still_counts_and_is_no_cut() -> None:
    told = steps_of(dreams(endless(), horizon=3, cut_above={"entropy": math.inf}))
    assert sum(step["truncated"] for step in told) == 3 * (16 // 4)
    assert not any(step["cut"] for step in told)


def test_a_single_dream_is_cut_too() -> None:
    env = dream(endless(), cut_above={"entropy": 0.0})
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, bool(info["cut"])) == (False, True, True)


@pytest.mark.parametrize(
    ("above", "message"),
    [({"entrop": 1.0}, "names 'entrop': did you mean entropy"), ({"entropy": math.nan}, r"\['entropy'\] is nan")],
)
def test_thresholds_that_make_no_sense_are_refused(above: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"cut_above{message}|cut_above {message}"):
        dreams(cut_above=above)


# ---------------------------------------------------------------- figures


def outcome_entropy(world: WorldModel) -> float:
    """Of the first step of a dream that begins in the dark."""
    state = world.start(torch.zeros(1, 1, 3, 16, 16), np.zeros((1, 0, 1)))
    found = world.step(state, np.zeros((1, 2, 1)))[0].outcome_entropy
    assert found is not None
    return float(found)


def test_outcome_entropy_is_that_of_reward_and_end() -> None:
    world = endless()
    world.prior.reward.out.weight.zero_()
    world.prior.reward.out.bias.zero_()
    bins = world.prior.reward.out.bias.numel()
    assert outcome_entropy(world) == pytest.approx(math.log(bins), abs=1e-5)
    world.prior.termination.weight.zero_()
    world.prior.termination.bias.zero_()
    assert outcome_entropy(world) == pytest.approx(math.log(2 * bins), abs=1e-5)
    constant = tiny_world(rewards=(1.0, 1.0))
    constant.prior.termination.bias.fill_(-100.0)
    assert outcome_entropy(constant) == pytest.approx(0.0, abs=1e-6), "one reward is the only one there is"


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize(("stride", "context"), [(1, 1), (2, 1), (2, 2)])
def test_thresholds_are_quantiles_of_what_the_model_says_while_it_follows_held_out_episodes(
    tmp_path: Path, stride: int, context: int
) -> None:
    world, store = tiny_world(stride, window=13), tiny_store(tmp_path, steps=12 * stride)
    found = cut_thresholds(world, store, 1.0, context=context, sampling=GREEDY)
    expected = dict.fromkeys(FIGURES, 0.0)
    clips = Clips(store, "held_out", 1 + 12 * stride)
    for clip in (clips[index] for index in range(len(clips))):
        codes, actions = world.vqvae.encode(clip["frames"][None]), clip["actions"][None].unflatten(1, (12, stride))
        for k in range(context, 13):
            state = world.prior.start(codes[:, :k], actions[:, : k - 1])
            step, _ = world.prior.step(state, actions[:, k - 1], GREEDY)
            expected = {name: max(most, float(getattr(step, name))) for name, most in expected.items()}
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_higher_quantile_cuts_less(tmp_path: Path) -> None:
    world, store = tiny_world(), tiny_store(tmp_path)
    low, high = (cut_thresholds(world, store, quantile) for quantile in (0.1, 0.9))
    assert all(0 <= low[name] < high[name] for name in FIGURES)
    assert cut_thresholds(world, store, 0.1) == low


def test_what_no_threshold_can_be_read_off_is_refused(tmp_path: Path) -> None:
    store = tiny_store(tmp_path, steps=2)
    with pytest.raises(InputError, match=r"held-out episode of .* goes on for 1 latent steps, expected at least 3"):
        cut_thresholds(tiny_world(), store, context=3)
    with pytest.raises(InputError, match=r"quantile is 99, expected 0 \.\. 1"):
        cut_thresholds(tiny_world(), store, 99)
