"""Models, stores and experiments of a few thousand weights, for the tests of prior, world model and training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stores import make_meta
from torch import Tensor, nn

from vqvideo.data.config import RecordConfig, SegmentConfig
from vqvideo.data.episode import Episode
from vqvideo.data.store import Store, StoreWriter
from vqvideo.envs.tiny_world import draw, first_state, next_state
from vqvideo.experiment.config import Experiment, PriorStage, VQVAEStage
from vqvideo.models.prior import ActionStats, Prior, PriorConfig, PriorSpec
from vqvideo.models.quantizers import EMAVQConfig
from vqvideo.models.tokenizer import FactorisedConv, VQVAEConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.spaces import ActionSpace
from vqvideo.training.config import TrainConfig
from vqvideo.world import EnvFacts, WorldModel

SIZE = 16
"""Height and width of the frames in pixels."""
FIVE = ActionSpace.from_gymnasium(spaces.Discrete(5))
NOTHING = ActionSpace.none()
STEERING = ActionSpace.from_gymnasium(spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 2.0]), dtype=np.float64))


@torch.no_grad()
def shake(model: nn.Module, seed: int = 0, scale: float = 0.3) -> None:
    """Moves all weights far from their start, so that no path of the network is (nearly) silent."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def noise_frames(batch: int, length: int, seed: int = 0) -> Tensor:
    """(b, t, 3, h, w) uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, length, 3, SIZE, SIZE), generator=generator).to(torch.uint8)


def vqvae_config(stride: int = 2) -> VQVAEConfig:
    """A tokenizer of 2 x 2 tokens per latent step and 16 codes for frames of 16 x 16 pixels."""
    backbone = FactorisedConv(strides=(stride, 8, 8), widths=(8, 8), encoder_blocks=1, decoder_blocks=1)
    return VQVAEConfig(backbone=backbone, quantizer=EMAVQConfig(codebook_size=16, dim=4))


def tiny_vqvae(stride: int = 2, seed: int = 0) -> VQVAE:
    """An untrained tokenizer whose codebook fits its latents, in eval mode."""
    torch.manual_seed(seed)
    vqvae = vqvae_config(stride).build((SIZE, SIZE))
    shake(vqvae, seed, scale=0.1)
    vqvae.initialize(noise_frames(8, 1 + 2 * stride, seed))
    return vqvae.eval().requires_grad_(False)


def make_spec(space: ActionSpace = FIVE, **changes: Any) -> PriorSpec:
    """2 x 2 tokens of 16 codes, time stride 2."""
    stats = ActionStats((0.5,) * space.size, (2.0,) * space.size, -1.0, 3.0)
    spec = PriorSpec((2, 2), 16, 4, 2, space, stats, tokenizer="")
    return replace(spec, **changes)


def tiny_prior(
    spec: PriorSpec | None = None, codebook: Tensor | None = None, *, seed: int = 0, **settings: Any
) -> Prior:
    """A shaken prior in eval mode."""
    spec = spec or make_spec()
    torch.manual_seed(seed)
    if codebook is None:
        codebook = torch.randn(spec.codebook_size, spec.code_dim)
    prior = Prior(PriorConfig(**({"dim": 32, "heads": 2, "window": 3} | settings)), spec, codebook)
    shake(prior, seed)
    return prior.eval()


def tiny_world(
    stride: int = 2,
    space: ActionSpace = FIVE,
    seed: int = 0,
    *,
    rewards: tuple[float, float] = (-1.0, 3.0),
    **settings: Any,
) -> WorldModel:
    """An untrained world model that reacts to everything, and whose latent steps earned from .. to `rewards`."""
    vqvae = tiny_vqvae(stride, seed)
    spec = make_spec(space, grid=vqvae.grid, stride=stride, tokenizer=vqvae.fingerprint())
    spec = replace(spec, stats=ActionStats(*spec.stats[:2], *rewards))
    world = WorldModel(vqvae, tiny_prior(spec, vqvae.codebook, seed=seed, **settings), EnvFacts("Tiny-v0", 10.0, 1))
    return world.eval().requires_grad_(False)


def tiny_episode(steps: int, seed: int) -> Episode:
    """TinyWorld under random actions, at 16 x 16 pixels; it ends early when the block meets the hazard."""
    rng = np.random.default_rng(seed)
    state = first_state(rng)
    frames, actions, rewards, terminated = [draw(state, SIZE)], [], [], [False]
    while len(actions) < steps and not terminated[-1]:
        actions.append([float(rng.integers(5))])
        state, reward, end = next_state(state, int(actions[-1][0]))
        frames.append(draw(state, SIZE))
        rewards.append(reward)
        terminated.append(end)
    return Episode(
        frames=np.stack(frames),
        actions=np.array(actions),
        rewards=np.array(rewards, np.float32),
        terminated=np.array(terminated[1:]),
        truncated=np.zeros(len(actions), bool),
        seed=seed,
    )


def tiny_store(path: Path, episodes: int = 6, steps: int = 24) -> Store:
    """A store of TinyWorld episodes; every third is held out."""
    meta = make_meta(env_id="TinyWorld", frame_size=(SIZE, SIZE), fps=10.0, action_repeat=1)
    long_ones = (e for seed in range(1000) if (e := tiny_episode(steps, seed)).length == steps)
    with StoreWriter.open(path, meta) as writer:
        for index, episode in zip(range(episodes), long_ones, strict=False):
            writer.add(index, episode, "held_out" if index % 3 == 2 else "train")
    return Store.open(path)


def film_world(stride: int = 2, seed: int = 0, **settings: Any) -> WorldModel:
    """An untrained world model of videos: without actions and rewards."""
    vqvae = tiny_vqvae(stride, seed)
    stats = ActionStats((), (), 0.0, 0.0)
    spec = make_spec(NOTHING, stats=stats, grid=vqvae.grid, stride=stride, tokenizer=vqvae.fingerprint())
    prior = tiny_prior(spec, vqvae.codebook, seed=seed, **settings)
    return WorldModel(vqvae, prior, EnvFacts("films", 10.0, 1)).eval().requires_grad_(False)


def film_store(path: Path, episodes: int = 6, steps: int = 24) -> Store:
    """The frames of `tiny_store` and nothing else, as if they came from videos."""
    meta = make_meta(env_id="films", action_space=NOTHING, frame_size=(SIZE, SIZE), fps=10.0, action_repeat=1)
    with StoreWriter.open(path, meta) as writer:
        long_ones = (e for seed in range(1000) if (e := tiny_episode(steps, seed)).length == steps)
        for index, filmed in zip(range(episodes), long_ones, strict=False):
            nothing = {"actions": np.zeros((steps, 0)), "rewards": np.zeros(steps, np.float32)}
            episode = replace(filmed, **nothing, terminated=np.zeros(steps, bool))
            writer.add(index, episode, "held_out" if index % 3 == 2 else "train")
    return Store.open(path)


def train_config(**changes: Any) -> TrainConfig:
    """Eight steps of full precision on one thread."""
    config = TrainConfig(
        steps=8, batch=4, warmup=2, precision="no", threads=1,
        validate_every=4, checkpoint_every=3, log_every=1, average_decay=0.9,
    )  # fmt: skip
    return replace(config, **changes)


def tiny_experiment(folder: Path, **train: Any) -> Experiment:
    """Both stages at their smallest, with results in `folder`/runs/tiny and episodes in `folder`/data."""
    vqvae = VQVAEStage(vqvae_config(), train_config(**train), latent_steps=3, validation_clips=4)
    prior = PriorStage(
        PriorConfig(dim=16, heads=2, layers=2, window=3),
        train_config(**train),
        latent_steps=4,
        segments=SegmentConfig(latent_steps=6, every=5),
        validation_clips=4,
    )
    record = RecordConfig(env="TinyWorld", out=folder / "data")
    return Experiment(name="tiny", runs=folder / "runs", record=record, vqvae=vqvae, prior=prior)


def same_tensors(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same names and, bit by bit, the same tensors."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
