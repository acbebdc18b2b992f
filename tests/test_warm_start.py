"""A prior that starts from another world's weights: what is taken, what is fresh, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_spec, tiny_experiment, tiny_prior, tiny_store, tiny_world

from vqvideo.config import Experiment
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.prior import AutoregressiveHeadConfig, MaskedHeadConfig, ParallelHeadConfig, Prior
from vqvideo.stages import train_prior, train_vqvae, vqvae_folder, world_folder
from vqvideo.warm_start import warm_start
from vqvideo.world import WorldModel

HEADS = (ParallelHeadConfig(), MaskedHeadConfig(layers=1, heads=2), AutoregressiveHeadConfig(layers=1, heads=2))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained world with a parallel head, 32 wide."""
    folder = tmp_path_factory.mktemp("untrained") / "world"
    tiny_world().save_pretrained(folder)
    return folder


def beside(world: Path, seed: int = 1, **settings: Any) -> Prior:
    """Another prior for the tokenizer of a world, its weights far from that one's."""
    return tiny_prior(WorldModel.from_pretrained(world).prior.spec, seed=seed, **settings)


def agreeing(one: Prior, two: Prior) -> set[str]:
    """Names of the parameters that are equal in both."""
    others = dict(two.named_parameters())
    return {n for n, p in one.named_parameters() if n in others and p.shape == others[n].shape and p.equal(others[n])}


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_everything_but_a_head_of_another_kind_is_taken(world: Path, head: Any) -> None:
    prior, other = beside(world, head=head), WorldModel.from_pretrained(world).prior
    names = {name for name, _ in prior.named_parameters()}
    assert agreeing(prior, other) == set()
    start = warm_start(prior, world)
    same_kind = isinstance(head, ParallelHeadConfig)
    wanted = names if same_kind else {name for name in names if not name.startswith("head.")}
    assert agreeing(prior, other) == wanted == set(start.taken)
    assert set(start.fresh) == names - wanted
    assert str(start).endswith("fresh: nothing") == same_kind


def test_of_a_deeper_prior_the_layers_that_it_has_in_common_are_taken(world: Path) -> None:
    prior = beside(world, layers=6)
    start = warm_start(prior, world)
    assert {name.split(".")[2] for name in start.fresh} == {"4", "5"}
    assert agreeing(prior, WorldModel.from_pretrained(world).prior) == set(start.taken)


def test_buffers_stay_those_of_the_new_prior(world: Path) -> None:
    other = WorldModel.from_pretrained(world).prior
    spec = replace(other.spec, stats=other.spec.stats._replace(reward_high=9.0))
    prior = tiny_prior(spec, seed=1)
    buffers = {name: value.clone() for name, value in prior.named_buffers()}
    warm_start(prior, world)
    assert all(torch.equal(value, buffers[name]) for name, value in prior.named_buffers())


def test_a_world_of_another_tokenizer_is_refused(world: Path) -> None:
    prior = tiny_prior(make_spec(tokenizer="another"), seed=1)
    with pytest.raises(InputError, match=r"those of another: name a world of the same tokenizer"):
        warm_start(prior, world)


def test_a_world_that_shares_nothing_but_small_vectors_is_refused_and_changes_nothing(world: Path) -> None:
    prior = beside(world, dim=16)
    before = {name: p.clone() for name, p in prior.named_parameters()}
    with pytest.raises(InputError, match=r"no matrix of the prior of .* \(dim 32, 4 layers\).*\(dim 16, 4 layers\)"):
        warm_start(prior, world)
    assert all(torch.equal(p, before[name]) for name, p in prior.named_parameters())


def test_a_folder_without_a_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder, expected a saved world"):
        warm_start(tiny_prior(), tmp_path / "nothing")


# ---------------------------------------------------------------- as a setting of the training


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Experiment:
    """Both stages, with a parallel head."""
    cfg = tiny_experiment(tmp_path_factory.mktemp("trained"))
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    return cfg


def with_masked_head(cfg: Experiment, folder: Path, init: Path | None, **train: Any) -> Experiment:
    model = replace(cfg.prior.model, head=MaskedHeadConfig(layers=1, heads=2))
    stage = replace(cfg.prior, model=model, init=init, train=replace(cfg.prior.train, **train))
    return replace(cfg, runs=folder, prior=stage)


def test_training_starts_from_the_other_backbone_and_says_so(
    tmp_path: Path, store: Store, trained: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    still = {"steps": 1, "learning_rate": 0.0, "weight_decay": 0.0}
    cfg = with_masked_head(trained, tmp_path, world_folder(trained), **still)
    train_prior(cfg, store, tokenizer=vqvae_folder(trained))
    prior, other = (WorldModel.from_pretrained(world_folder(c)).prior for c in (cfg, trained))
    own = {name for name, _ in prior.named_parameters()}
    assert agreeing(prior, other) == {name for name in own if not name.startswith("head.")}
    assert f"from the prior of {world_folder(trained)}: backbone (" in capsys.readouterr().out


def test_a_run_resumes_with_its_own_init_and_with_no_other(tmp_path: Path, store: Store, trained: Experiment) -> None:
    cfg = with_masked_head(trained, tmp_path, world_folder(trained), steps=3)
    tokenizer = vqvae_folder(trained)
    figures = train_prior(cfg, store, tokenizer=tokenizer)
    assert train_prior(cfg, store, resume=True, tokenizer=tokenizer) == pytest.approx(figures, nan_ok=True)
    for init in (None, world_folder(cfg)):
        other = replace(cfg, prior=replace(cfg.prior, init=init))
        with pytest.raises(InputError, match="trained with other settings: init '"):
            train_prior(other, store, resume=True, tokenizer=tokenizer)
