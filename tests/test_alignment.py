"""Interventions: the effect of an action, its reward and an end show at their own step, from the recorder to the dream.

Losses cannot tell: consecutive frames resemble each other, so that a world which is a step late looks well learnt. Here
every frame shows nothing but the action that led to it, and at every door two courses that differ in one action differ
in that step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stores import make_meta
from tiny_models import SIZE, vqvae_config

from vqvideo.data.arrays import write_store
from vqvideo.data.clips import Clips
from vqvideo.data.codes import CodeArrays, CodeClips, encode_episode
from vqvideo.data.collect import collect
from vqvideo.data.config import SegmentConfig
from vqvideo.data.store import Store, StoreWriter
from vqvideo.experiment.prior import prior_spec
from vqvideo.models.prior import Prior, PriorConfig, Sampling
from vqvideo.spaces import ActionSpace
from vqvideo.training.loader import StepBatches
from vqvideo.world import EnvFacts, WorldModel

CPU = torch.device("cpu")
PAYS, ENDS = 2, 3
"""The action that earns 1, and the one that ends the episode; 0 and 1 only show."""


class Echo(gymnasium.Env):
    """Shows the action that was taken last, as a level of gray, and a random level at first. To end an episode takes
    `stride` steps.
    """

    observation_space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
    action_space = spaces.Discrete(4)

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.ending = 0
        return shown(int(self.np_random.integers(3))), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.ending += action == ENDS
        return shown(action), float(action == PAYS), self.ending == self.stride, False, {}


class Held:
    """Draws one of the actions that go on, or now and then the end, and holds it for a latent step."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        self.rng, self.taken = rng, 0

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        if self.taken % self.stride == 0:
            self.action = ENDS if self.rng.random() < 0.1 else self.rng.integers(3)
        self.taken += 1
        return self.action


def shown(action: int) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), 30 + 60 * action, np.uint8)


@pytest.fixture(scope="module", params=(1, 2, 4))
def stride(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def store(stride: int, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """120 episodes of at most 8 latent steps."""
    folder = tmp_path_factory.mktemp("alignment") / "store"
    space = ActionSpace.from_gymnasium(Echo.action_space)
    meta = make_meta(action_space=space, frame_size=(SIZE, SIZE), held_out_every=6)
    with StoreWriter.open(folder, meta) as writer:
        options: dict[str, Any] = {"max_steps": 8 * stride, "frame_size": (SIZE, SIZE), "workers": 0, "progress": False}
        collect(lambda: Echo(stride), lambda: Held(stride), writer, episodes=120, **options)
    return Store.open(folder)


@pytest.fixture(scope="module")
def learnt(stride: int, store: Store) -> tuple[WorldModel, list[CodeArrays]]:
    """A world that was trained on the recording for a few seconds, and the codes of its held-out episodes."""
    torch.manual_seed(0)
    vqvae = vqvae_config(stride).build((SIZE, SIZE))
    clips = Clips(store, "train", vqvae.clip_length(2))
    vqvae.initialize(torch.stack([clips[int(index)]["frames"] for index in clips.spread(64)]))
    vqvae.eval().requires_grad_(False)
    segments = SegmentConfig(latent_steps=5, every=stride)
    long = [entry for entry in store.entries if entry.length >= stride]
    parts = {entry.index: encode_episode(vqvae, store.episode(entry), segments, CPU) for entry in long}
    train, held_out = ([parts[e.index] for e in long if e.split == split] for split in ("train", "held_out"))
    model = PriorConfig(dim=32, heads=2, layers=2, time_every=2, window=3, corruption=0.0, reward_weight=3.0)
    prior = Prior(model, prior_spec(vqvae, store, train), vqvae.codebook)
    samples, steps = CodeClips(train, 2), 250
    optimizer = torch.optim.AdamW(prior.parameters(), lr=5e-3)
    for batch in StepBatches(len(samples), 64, 0, stop=steps):
        rows = [samples[index] for index in batch]
        loss = prior(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prior.eval().requires_grad_(False)
    return WorldModel(vqvae, prior, EnvFacts("Echo-v0", 10.0, 1)), held_out


# ---------------------------------------------------------------- recorder, importer, codes


def test_recorded_frames_rewards_and_ends_are_those_of_the_action_that_led_to_them(stride: int, store: Store) -> None:
    for entry in store.entries:
        episode = store.episode(entry)
        actions = episode.actions[:, 0]
        assert episode.frames[1:, 0, 0, 0].tolist() == (30 + 60 * actions).tolist()
        assert episode.rewards.tolist() == (actions == PAYS).tolist()
        assert episode.terminated.tolist() == ((actions == ENDS).cumsum() == stride).tolist()


def test_an_import_keeps_every_step_where_it_was(store: Store, tmp_path: Path) -> None:
    episodes = [store.episode(entry) for entry in store.entries]
    names = ("frames", "actions", "rewards", "terminated", "truncated")
    arrays = [{name: getattr(episode, name) for name in names} for episode in episodes]
    again = write_store(tmp_path / "store", arrays, fps=10, action_space=Echo.action_space)
    for entry, episode in zip(again.entries, episodes, strict=True):
        for name in names:
            np.testing.assert_array_equal(getattr(again.episode(entry), name), getattr(episode, name))


# ---------------------------------------------------------------- prior and environment


def test_the_prior_knows_codes_rewards_and_ends_of_a_step_by_its_own_action(
    stride: int, learnt: tuple[WorldModel, list[CodeArrays]]
) -> None:
    world, held_out = learnt
    clips = CodeClips(held_out, 2)
    rows = [clips[index] for index in range(len(clips))]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    output = world.prior(**batch)
    assert output.metrics["top1"] > 0.9
    assert (output.reward - batch["rewards"]).abs().mean() < 0.15 * stride
    assert ((output.termination > 0) == batch["terminated"]).float().mean() > 0.97


def test_an_intervention_shows_in_a_dream_at_its_own_step_and_not_before(
    stride: int, learnt: tuple[WorldModel, list[CodeArrays]]
) -> None:
    """Env 0 takes action 0 all the time, the others do something else once, at step 2."""
    world, _ = learnt
    frame = np.repeat(shown(0)[None, None], 4, axis=0)
    envs = world.as_env(4, starts=frame, horizon=9, autoreset_mode="Disabled", sampling=Sampling(temperature=0))
    envs.reset(seed=[7] * 4)
    before, at = (envs.step(actions) for actions in (np.zeros(4, int), np.arange(4)))
    assert (before[0] == before[0][:1]).all()
    assert all((at[0][row] != at[0][0]).any() for row in (1, 2, 3))
    assert np.abs(before[1]).max() < 0.3 * stride
    np.testing.assert_allclose(at[1][:3], [0, 0, stride], atol=0.3 * stride)
    assert before[4]["termination"].max() < 0.3
    assert (at[4]["termination"] > 0.5).tolist() == [False, False, False, True]
