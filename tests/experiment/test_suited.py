"""Settings that nobody names follow from what the episodes show; those that somebody names stay."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stores import make_meta
from tiny_models import FIVE, tiny_experiment, tiny_store

from vqvideo.data.episode import Episode
from vqvideo.data.store import Store, StoreWriter
from vqvideo.experiment.checks import check_settings
from vqvideo.experiment.config import (
    MOST_FRAMES,
    Experiment,
    Measured,
    PriorStage,
    TrainingOptions,
    VQVAEStage,
    parse,
)
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.seen import look
from vqvideo.experiment.suited import suited
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.prior import (
    AttentionPoolingConfig,
    AutoregressiveHeadConfig,
    DrawnPoolingConfig,
    MeanPoolingConfig,
)
from vqvideo.models.quantizers import EMAVQConfig
from vqvideo.models.tokenizer import FactorisedConv, FrameConv
from vqvideo.scripts.train_vqvae import CONFIG
from vqvideo.spaces import ActionSpace
from vqvideo.storage.records import read_yaml, typed
from vqvideo.training.config import TrainConfig

SIDE, ALL = 32, get_args(Measured)
Picture = Callable[[np.random.Generator], NDArray[np.uint8]]


def tiles(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A board of squares of 8 pixels, one of which is another."""
    board = np.zeros((4, 4, 3), np.uint8)
    board[tuple(rng.integers(4, size=2))] = 200
    return board.repeat(8, axis=0).repeat(8, axis=1)


def things(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A board of squares of 8 pixels with a thing on it that fills a part of its square, and looks one of four ways."""
    board = np.zeros((SIDE, SIDE, 3), np.uint8)
    square = np.zeros((8, 8, 3), np.uint8)
    square[1:4, 2:6] = 200
    top, left = 8 * rng.integers(4, size=2)
    board[top : top + 8, left : left + 8] = np.rot90(square, rng.integers(4))
    return board


def marching() -> Picture:
    """A board of squares of 8 pixels, over which one walks from left to right."""
    place = itertools.count()

    def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
        board = np.zeros((4, 4, 3), np.uint8)
        board[1, next(place) % 4] = 200
        return board.repeat(8, axis=0).repeat(8, axis=1)

    return picture


def court() -> Picture:
    """A ground of two colours, over which a ball moves pixel by pixel, in each episode alike at first."""
    ground = np.zeros((SIDE, SIDE, 3), np.uint8)
    ground[:, ::16] = 120
    place = itertools.count()

    def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
        frame, at = ground.copy(), next(place)
        top, left = at % 29, (7 * at) % 29
        frame[top : top + 3, left : left + 3] = 255
        return frame

    return picture


def dot(rng: np.random.Generator) -> NDArray[np.uint8]:
    """One bright pixel on a ground of noise that stays."""
    frame = np.random.default_rng(0).integers(100, size=(SIDE, SIDE, 3)).astype(np.uint8)
    frame[tuple(rng.integers(SIDE, size=2))] = 255
    return frame


def noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A picture all of which is new."""
    return rng.integers(256, size=(SIDE, SIDE, 3)).astype(np.uint8)


def panned() -> Picture:
    """A ground with few marks, seen by a camera that moves sideways: few pixels change at a time, but all do once."""
    ground = np.zeros((SIDE, SIDE, 3), np.uint8)
    ground[:, ::12] = 200
    place = itertools.count()
    return lambda rng: np.roll(ground, next(place), axis=1)


def made_store(
    folder: Path, picture: Picture, *, episodes: int = 12, steps: int = 16, reward: float = 0.0, ends: bool = False,
    actions: ActionSpace = FIVE,
) -> Store:  # fmt: skip
    """Episodes of pictures that follow each other at random; `reward` comes with their last steps, every sixth is
    held out.
    """
    meta, rng = make_meta(env_id="Made-v0", frame_size=(SIDE, SIDE), action_space=actions), np.random.default_rng(1)
    with StoreWriter.open(folder, meta) as writer:
        for index in range(episodes):
            last = np.arange(steps) == steps - 1
            episode = Episode(
                frames=np.stack([picture(rng) for _ in range(steps + 1)]),
                actions=np.zeros((steps, actions.size)),
                rewards=np.where(last, reward, 0).astype(np.float32),
                terminated=last & ends,
                truncated=last & (not ends),
                seed=index,
            )
            writer.add(index, episode, "held_out" if index % 6 == 5 else "train")
    return Store.open(folder)


def measured(store: Store, cfg: Experiment | None = None) -> Experiment:
    return suited(replace(cfg or Experiment(), measured=ALL), store).cfg


# ---------------------------------------------------------------- what is measured


@pytest.mark.parametrize("picture", [tiles, things])
def test_a_picture_of_tiles_gets_a_token_for_each(tmp_path: Path, picture: Picture) -> None:
    model = measured(made_store(tmp_path, picture)).vqvae.model
    assert isinstance(model.backbone, FrameConv)
    assert (model.backbone.strides, model.backbone.encoder_blocks) == ((1, 8, 8), 0)
    assert isinstance(model.quantizer, EMAVQConfig)
    assert (model.quantizer.codebook_size, model.quantizer.revive_below) == (64, 0.02)


@pytest.mark.parametrize("picture", [tiles, marching()], ids=["random", "told"])
def test_tiles_are_drawn_knowing_of_each_other(tmp_path: Path, picture: Picture) -> None:
    cfg = measured(made_store(tmp_path, picture))
    assert isinstance(cfg.prior.model.head, AutoregressiveHeadConfig)
    assert cfg.sampling.top_p == 1


def test_without_tiles_tokens_are_drawn_as_they_were(tmp_path: Path) -> None:
    cfg = measured(made_store(tmp_path, noise))
    assert (cfg.prior.model.head, cfg.sampling) == (Experiment().prior.model.head, Experiment().sampling)


def test_tiles_are_learnt_until_the_rare_ones_are_and_frames_several_times(tmp_path: Path) -> None:
    cfg = Experiment(vqvae=VQVAEStage(train=TrainConfig(steps=100)), prior=PriorStage(train=TrainConfig(steps=20)))
    few, many = (made_store(tmp_path / f"{n}", things, episodes=n) for n in (12, 600))
    assert [measured(store, cfg).vqvae.train.steps for store in (few, many)] == [5 * 300, 5 * 300]
    steps = [measured(store, cfg).prior.train.steps for store in (few, many)]
    assert steps == [20, 100]
    assert all(isinstance(each, int) for each in steps)
    timed = replace(cfg, vqvae=replace(cfg.vqvae, train=TrainConfig(steps=100, min_seconds=60.0)))
    assert measured(few, timed).vqvae.train.steps == 100


@pytest.mark.parametrize(("picture", "side"), [(tiles, 8), (things, 8), (dot, None), (court(), None), (noise, None)])
def test_tiles_are_what_pictures_are_drawn_of(tmp_path: Path, picture: Picture, side: int | None) -> None:
    seen = look(made_store(tmp_path, picture, episodes=48))
    assert seen is not None
    assert seen.tile == side


def test_small_things_get_small_tokens_and_what_moves_as_a_whole_large_ones(tmp_path: Path) -> None:
    small, large = (measured(made_store(tmp_path / p.__name__, p)).vqvae.model.backbone for p in (dot, noise))
    assert isinstance(small, FrameConv)
    assert small.strides == (1, 4, 4)
    assert measured(Store.open(tmp_path / "dot")).vqvae.model.reconstruction.moving > 0
    assert isinstance(large, FactorisedConv)
    assert large.strides == (1, 8, 8)


def test_where_a_token_is_a_thing_the_prior_learns_without_noise(tmp_path: Path) -> None:
    small, large = (measured(made_store(tmp_path / p.__name__, p)).prior.model for p in (dot, noise))
    assert (small.corruption, large.corruption) == (0.0, Experiment().prior.model.corruption)


def test_a_camera_that_moves_is_told_from_small_things_that_do(tmp_path: Path) -> None:
    model = measured(made_store(tmp_path, panned())).vqvae.model
    assert isinstance(model.backbone, FactorisedConv)
    assert model.reconstruction.moving == 0


def test_two_frames_are_a_step_only_where_no_action_is_a_choice(tmp_path: Path) -> None:
    steering = ActionSpace.from_gymnasium(spaces.Box(-1, 1, (2,)))
    backbone = measured(made_store(tmp_path, noise, actions=steering)).vqvae.model.backbone
    assert backbone.strides == (2, 8, 8)


@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("ends", [False, True])
def test_events_that_are_rare_weigh_more_and_are_looked_for_at_one_place(
    tmp_path: Path, reward: float, ends: bool
) -> None:
    model = measured(made_store(tmp_path, tiles, reward=reward, ends=ends)).prior.model
    assert model.reward_weight == (3.0 if reward else 0.1)
    assert model.termination_weight == (1.0 if ends else 0.1)
    assert isinstance(model.pooling, DrawnPoolingConfig if reward or ends else MeanPoolingConfig)


def test_without_tiles_rare_events_are_looked_for_at_one_place(tmp_path: Path) -> None:
    assert isinstance(measured(made_store(tmp_path, noise, ends=True)).prior.model.pooling, AttentionPoolingConfig)


@pytest.mark.parametrize(("steps", "reward", "share"), [(40, 1.0, 0.25), (16, 1.0, 0.0), (40, 0.0, 0.0)])
def test_events_that_are_seldom_are_shown_more_often(tmp_path: Path, steps: int, reward: float, share: float) -> None:
    assert measured(made_store(tmp_path, tiles, steps=steps, reward=reward)).prior.eventful == share


@pytest.mark.parametrize(("steps", "latent_steps"), [(3, 3), (1, 2), (16, 5)])
def test_clips_are_no_longer_than_episodes(tmp_path: Path, steps: int, latent_steps: int) -> None:
    prior = measured(made_store(tmp_path, tiles, steps=steps, episodes=48)).prior
    assert (prior.latent_steps, prior.model.window) == (latent_steps, min(8, latent_steps - 1))


def test_few_places_make_large_batches(tmp_path: Path) -> None:
    long, short = (made_store(tmp_path / f"{steps}", tiles, steps=steps, episodes=48) for steps in (16, 1))
    assert measured(short).prior.train.batch == 4 * measured(long).prior.train.batch


def test_what_is_soon_learnt_gets_a_small_prior_and_short_clips(tmp_path: Path) -> None:
    few, many = (measured(made_store(tmp_path / p.__name__, p)).prior for p in (tiles, noise))
    assert (few.model.dim, few.model.layers, few.latent_steps) == (128, 3, 5)
    own = Experiment().prior.model
    assert (many.model.dim, many.model.layers, many.latent_steps) == (own.dim, own.layers, 9)


def test_every_reason_names_its_setting(tmp_path: Path) -> None:
    store = made_store(tmp_path, tiles)
    own = suited(replace(Experiment(), measured=ALL), store)
    assert [line.partition(":")[0] for line in own.reasons] == list(ALL)
    assert own.cfg.measured == ()


def test_too_few_frames_say_nothing(tmp_path: Path) -> None:
    own = suited(replace(Experiment(), measured=ALL), made_store(tmp_path, tiles, episodes=2, steps=9))
    assert own.cfg == Experiment()
    assert "fewer than 30 changes" in own.reasons[0]


# ---------------------------------------------------------------- what is given


def test_what_is_not_to_be_measured_stays(tmp_path: Path) -> None:
    store = made_store(tmp_path, tiles)
    assert suited(Experiment(), store) == (Experiment(), ())
    only = suited(replace(Experiment(), measured=("prior.latent_steps",)), store).cfg
    assert replace(only, prior=replace(only.prior, latent_steps=Experiment().prior.latent_steps)) == Experiment()


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str) -> TrainingOptions:
    monkeypatch.setattr(sys, "argv", ["train_vqvae.py", *words])
    return parse(TrainingOptions, CONFIG, "", measures=True)


def test_flags_win_over_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ("--record.env", "TinyWorld")
    assert parsed(monkeypatch, *other).measured == ALL
    given = parsed(monkeypatch, *other, "--vqvae.model.quantizer.codebook-size", "99", "--prior.model.window=3")
    assert set(ALL) - set(given.measured) == {"vqvae.model.quantizer", "prior.model.window"}
    assert (given.vqvae.model.quantizer.codebook_size, given.prior.model.window) == (99, 3)
    assert parsed(monkeypatch, *other, "--measured").measured == ()


def test_env_names_the_store_and_the_run_unless_flags_do(monkeypatch: pytest.MonkeyPatch) -> None:
    other = parsed(monkeypatch, "--env", "MinAtar/Breakout-v1")
    assert other.measured == ALL
    assert (other.record.env, other.name) == ("MinAtar/Breakout-v1", "min_atar_breakout_v1")
    assert other.record.folder == Path("data/min_atar_breakout_v1")
    own = parsed(monkeypatch, "--env", "TinyWorld", "--name", "mine", "--record.out", "data/mine")
    assert (own.name, own.record.folder) == ("mine", Path("data/mine"))
    tiny = parsed(monkeypatch, "--config", str(CONFIG.with_name("tiny_world.yaml")), "--env", "FrozenLake-v1")
    assert (tiny.record.env, tiny.name, tiny.measured) == ("FrozenLake-v1", "frozen_lake_v1", ())


def test_a_file_that_names_a_backbone_is_obeyed_and_a_tiny_one_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert parsed(monkeypatch).measured == ()
    for path in sorted(CONFIG.parent.glob("*.yaml")):
        if "backbone" in path.read_text():
            assert parsed(monkeypatch, "--config", str(path), "--record.env", "Pendulum-v1").measured == ()
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text("{name: mine, prior: {model: {reward_weight: 2.0}}}")
    cfg = parsed(monkeypatch, "--config", str(tiny))
    assert set(ALL) - set(cfg.measured) == {"prior.model.reward_weight"}
    assert cfg.vqvae.most_tokens == 256


def test_of_the_default_file_only_the_amount_counts_for_other_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    flagship = parsed(monkeypatch).record
    other = parsed(monkeypatch, "--record.env", "TinyWorld", "--record.steps", "50").record
    assert (other.steps, other.episodes, other.frames) == (50, MOST_FRAMES // 50, MOST_FRAMES)
    assert flagship.frames is None
    assert parsed(monkeypatch, "--record.env", "TinyWorld", "--record.episodes", "7").record.frames is None


def test_a_patch_that_does_not_divide_the_grid_is_no_reason_not_to_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cfg = parsed(monkeypatch, "--record.env", "TinyWorld", "--record.frame-size", "40", "--runs", str(tmp_path))
    check_settings(cfg, "vqvae", "prior")


# ---------------------------------------------------------------- a run that goes on


def test_a_run_keeps_what_it_began_with_and_tells_the_next_stage(tmp_path: Path) -> None:
    cfg, store = tiny_experiment(tmp_path), tiny_store(tmp_path / "data")
    names = ("vqvae.model.quantizer", "prior.model.reward_weight", "prior.model.patch", "prior.latent_steps")
    cfg = replace(cfg, measured=names)
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    written = cfg.folder / "prior" / "config.yaml"
    begun = typed(Experiment, read_yaml(written), str(written))
    assert begun == suited(cfg, store).cfg
    assert begun.measured == ()
    # As if it were measured otherwise today.
    other = begun.prior.model.reward_weight + 1
    written.write_text(
        written.read_text().replace(f"reward_weight: {begun.prior.model.reward_weight}", f"reward_weight: {other}")
    )
    assert suited(cfg, store).cfg.prior.model.reward_weight == other
    assert suited(cfg, store).reasons == ()
