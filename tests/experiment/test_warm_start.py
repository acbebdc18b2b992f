"""Priors and tokenizers that start from the weights of others: what is taken, what is fresh, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import (
    make_spec,
    noise_frames,
    same_tensors,
    tiny_experiment,
    tiny_prior,
    tiny_store,
    tiny_vqvae,
    tiny_world,
    vqvae_config,
)

from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, vqvae_folder, world_folder
from vqvideo.experiment.objective import continue_tokenizer
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.experiment.warm_start import warm_start
from vqvideo.models.prior import AutoregressiveHeadConfig, MaskedHeadConfig, ParallelHeadConfig, PixelCNNConfig, Prior
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import latest_training, model_tensors, save_training
from vqvideo.storage.records import read_yaml, typed
from vqvideo.training.trainer import Trainer
from vqvideo.world import WorldModel

HEADS = (
    ParallelHeadConfig(),
    MaskedHeadConfig(layers=1, heads=2),
    AutoregressiveHeadConfig(layers=1, heads=2),
    PixelCNNConfig(),
)


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
    for continued in (None, "a third"):
        with pytest.raises(InputError, match=r"those of another: name a world of the same tokenizer"):
            warm_start(prior, world, continued=continued)


def test_a_world_of_the_tokenizer_that_the_new_one_was_continued_from_is_taken(world: Path) -> None:
    other = WorldModel.from_pretrained(world).prior
    prior = tiny_prior(replace(other.spec, tokenizer="continued"), seed=1)
    warm_start(prior, world, continued=other.spec.tokenizer)
    assert agreeing(prior, other) == {name for name, _ in prior.named_parameters()}
    assert prior.spec.tokenizer == "continued"


def test_a_world_that_shares_nothing_but_small_vectors_is_refused_and_changes_nothing(world: Path) -> None:
    prior = beside(world, dim=16)
    before = {name: p.clone() for name, p in prior.named_parameters()}
    with pytest.raises(InputError, match=r"no matrix of the prior of .* \(dim 32, 4 layers\).*\(dim 16, 4 layers\)"):
        warm_start(prior, world)
    assert all(torch.equal(p, before[name]) for name, p in prior.named_parameters())


# ---------------------------------------------------------------- tokenizers


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "model"
    tiny_vqvae().save_pretrained(folder)
    return folder


def test_a_continued_tokenizer_is_the_other_one_codebook_and_all(tokenizer: Path) -> None:
    other, vqvae = VQVAE.from_pretrained(tokenizer), vqvae_config().build((16, 16))
    start = continue_tokenizer(vqvae, tokenizer)
    assert same_tensors(model_tensors(vqvae), model_tensors(other))
    assert start == other.fingerprint() == vqvae.fingerprint()
    frames = noise_frames(2, 5, seed=9)
    assert vqvae.eval().encode(frames).equal(other.encode(frames))


def test_a_continued_tokenizer_may_have_another_loss(tokenizer: Path) -> None:
    cfg = vqvae_config()
    continue_tokenizer(replace(cfg, reconstruction=replace(cfg.reconstruction, l1=0.0)).build((16, 16)), tokenizer)


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        ({"quantizer": replace(vqvae_config().quantizer, codebook_size=32)}, 16, r"codebook_size 16 -> 32\)"),
        ({"quantizer": replace(vqvae_config().quantizer, decay=0.5)}, 16, r"decay 0.95 -> 0.5\)"),
        ({"backbone": vqvae_config(stride=1).backbone}, 16, r"strides \[2, 8, 8\] -> \[1, 8, 8\]\)"),
        ({}, 32, r"frame_size \[16, 16\] -> \[32, 32\]\)"),
    ],
)
def test_a_tokenizer_of_another_make_is_refused_and_changes_nothing(
    tokenizer: Path, change: dict[str, Any], size: int, message: str
) -> None:
    vqvae = replace(vqvae_config(), **change).build((size, size))
    before = {name: value.clone() for name, value in model_tensors(vqvae).items()}
    with pytest.raises(InputError, match=rf"vqvae.init: the tokenizer of .* made otherwise .*{message}"):
        continue_tokenizer(vqvae, tokenizer)
    assert same_tensors(model_tensors(vqvae), before)


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


def test_a_run_from_before_the_choice_of_targets_goes_on_with_those_that_it_began_with(
    tmp_path: Path, store: Store, trained: Experiment
) -> None:
    older = replace(trained.prior, model=replace(trained.prior.model, two_hot="symlog"))
    cfg = replace(trained, runs=tmp_path, prior=replace(older, train=replace(older.train, steps=2)))
    train_prior(cfg, store, tokenizer=vqvae_folder(trained))
    checkpoints = cfg.folder / "prior" / "checkpoints"
    state = latest_training(checkpoints)
    del state.progress["settings"]["model.two_hot"]
    save_training(checkpoints, 2, state, keep=2)
    train_prior(replace(trained, runs=tmp_path), store, resume=True, tokenizer=vqvae_folder(trained))
    assert WorldModel.from_pretrained(world_folder(cfg)).prior.cfg.two_hot == "symlog"
    assert WorldModel.from_pretrained(world_folder(trained)).prior.cfg.two_hot == "value"
    assert typed(Experiment, read_yaml(cfg.folder / "prior" / "config.yaml")).prior.model.two_hot == "symlog"


def continued(cfg: Experiment, folder: Path, init: Path | None, **train: Any) -> Experiment:
    """The same experiment in another folder, its tokenizer trained on from another one."""
    return replace(cfg, runs=folder, vqvae=replace(cfg.vqvae, init=init, train=replace(cfg.vqvae.train, **train)))


def losses(cfg: Experiment) -> list[float]:
    """Of all training steps of a tokenizer."""
    records = map(json.loads, (cfg.folder / "vqvae" / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["split"] == "train"]


def test_a_training_goes_on_from_a_tokenizer_as_it_was(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = continued(tiny_experiment(tmp_path, steps=40, learning_rate=3e-3), tmp_path / "first", None)
    train_vqvae(first, store)
    before = []
    fit = Trainer.fit

    def watched(self: Trainer, *args: Any) -> dict[str, float]:
        before.append({name: value.clone() for name, value in model_tensors(self.model.vqvae).items()})
        return fit(self, *args)

    monkeypatch.setattr(Trainer, "fit", watched)
    cfg = continued(first, tmp_path / "second", vqvae_folder(first), steps=3)
    train_vqvae(cfg, store)
    # Codebook, its running statistics and the variance of the data are in there.
    assert same_tensors(before[0], model_tensors(VQVAE.from_pretrained(vqvae_folder(first))))
    began, ended = losses(first)[0], sum(losses(first)[-5:]) / 5
    assert abs(losses(cfg)[0] - ended) < 0.2 * (began - ended)
    assert f"goes on from the tokenizer of {vqvae_folder(first)}" in capsys.readouterr().out


def test_a_decoder_learns_alone_and_clips_keep_their_codes(tmp_path: Path, store: Store, trained: Experiment) -> None:
    cfg = continued(trained, tmp_path / "sharper", vqvae_folder(trained), steps=12)
    cfg = replace(cfg, vqvae=replace(cfg.vqvae, learns="decoder"))
    figures = train_vqvae(cfg, store)
    old, new = (VQVAE.from_pretrained(vqvae_folder(c)) for c in (trained, cfg))
    frames = noise_frames(2, 9)
    assert torch.equal(old.encode(frames), new.encode(frames))
    before, after = model_tensors(old), model_tensors(new)
    changed = {name.partition(".")[0] for name in before if not before[name].equal(after[name])}
    assert changed == {"decoder"}
    assert figures["codes_used"] > 0
    with pytest.raises(InputError, match=r"vqvae\.learns is decoder, expected a tokenizer whose codes are kept"):
        replace(cfg.vqvae, init=None)


def test_a_tokenizer_resumes_with_its_own_init_and_with_no_other(
    tmp_path: Path, store: Store, trained: Experiment
) -> None:
    init = vqvae_folder(trained)
    whole = continued(trained, tmp_path / "whole", init, steps=4)
    stopped = continued(trained, tmp_path / "stopped", init, steps=3)
    train_vqvae(whole, store)
    train_vqvae(stopped, store)
    other = tmp_path / "other"
    tiny_vqvae(seed=5).save_pretrained(other)
    for strange in (None, other):
        with pytest.raises(InputError, match="trained with other settings: init '"):
            train_vqvae(continued(trained, tmp_path / "stopped", strange, steps=4), store, resume=True)
    train_vqvae(continued(trained, tmp_path / "stopped", init, steps=4), store, resume=True)
    assert len(losses(stopped)) == len(losses(whole)) == 4


def test_a_prior_follows_its_tokenizer_and_no_stranger(tmp_path: Path, store: Store, trained: Experiment) -> None:
    still = replace(trained.prior.train, steps=1, learning_rate=0.0, weight_decay=0.0)
    prior = replace(trained.prior, init=world_folder(trained), train=still)
    cfg = replace(continued(trained, tmp_path / "on", vqvae_folder(trained), steps=3), prior=prior)
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    new, old = (WorldModel.from_pretrained(world_folder(c)) for c in (cfg, trained))
    assert new.vqvae.fingerprint() != old.vqvae.fingerprint()
    assert agreeing(new.prior, old.prior) == {name for name, _ in new.prior.named_parameters()}
    tiny_world().save_pretrained(tmp_path / "stranger")
    for strange in (
        replace(cfg, prior=replace(prior, init=tmp_path / "stranger")),
        replace(cfg, vqvae=replace(cfg.vqvae, init=None)),
    ):
        with pytest.raises(InputError, match=r"speaks the codes of tokenizer .* continued from \(vqvae.init\)"):
            train_prior(strange, store, resume=True)
    with pytest.raises(InputError, match="speaks the codes of tokenizer"):
        train_prior(cfg, store, resume=True, tokenizer=vqvae_folder(cfg))
