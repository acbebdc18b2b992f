"""Whole stages: resume equals never stopped, and what must not be continued is refused."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import no_figures, stop_at, toy_batches, toy_trainer
from stores import flip
from tiny_models import same_tensors, tiny_experiment, tiny_store
from torch import nn

from vqvideo.data.clips import Clips
from vqvideo.data.config import StillsConfig
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, vqvae_folder, world_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.prior import MaskedHeadConfig, Prior
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import load_training, save_training, training_checkpoints
from vqvideo.storage.records import read_yaml, typed
from vqvideo.training.config import TrainConfig
from vqvideo.training.launch import make_accelerator
from vqvideo.training.run_folder import RunFolder
from vqvideo.training.signals import InterruptedRunError
from vqvideo.world import WorldModel

Train = Callable[..., dict[str, float]]
STAGES: dict[str, tuple[Train, type[nn.Module]]] = {"vqvae": (train_vqvae, VQVAE), "prior": (train_prior, Prior)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Experiment:
    """Both stages, trained without a stop."""
    cfg = tiny_experiment(tmp_path_factory.mktemp("whole"))
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    return cfg


def beside(cfg: Experiment, folder: Path, stage: str) -> Experiment:
    """The same experiment in another folder; for the prior with the same trained tokenizer."""
    other = tiny_experiment(folder)
    if stage == "prior":
        vqvae_folder(other).parent.mkdir(parents=True)
        VQVAE.from_pretrained(vqvae_folder(cfg)).save_pretrained(vqvae_folder(other))
    return other


def results(cfg: Experiment, stage: str) -> dict[str, Any]:
    """Weights, codebook, optimizer, averages and logged figures of a finished stage, but for the time it took."""
    state = load_training(training_checkpoints(cfg.folder / stage / "checkpoints")[-1])
    tensors = {f"{i}/{name}": value for i, part in enumerate(state[:3]) for name, value in part.items()}
    records = RunFolder(cfg.folder / stage).records()
    exported = vqvae_folder(cfg) if stage == "vqvae" else world_folder(cfg)
    return {
        "tensors": tensors,
        "step": state.progress["step"],
        "records": [{k: v for k, v in record.items() if k != "seconds"} for record in records],
        "exported": (exported / "model.safetensors").read_bytes(),
    }


def assert_same_results(one: Experiment, two: Experiment, stage: str) -> None:
    a, b = results(one, stage), results(two, stage)
    assert same_tensors(a.pop("tensors"), b.pop("tensors"))
    assert a == b


@pytest.mark.parametrize("stage", STAGES)
def test_equal_seeds_train_equal_models(tmp_path: Path, store: Store, whole: Experiment, stage: str) -> None:
    again = beside(whole, tmp_path, stage)
    STAGES[stage][0](again, store)
    assert_same_results(again, whole, stage)


@pytest.mark.parametrize("stop", [1, 4, 5])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, store: Store, whole: Experiment, stage: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, model = STAGES[stage]
    cfg = beside(whole, tmp_path, stage)
    with monkeypatch.context() as patch:
        stop_at(patch, model, stop)
        with pytest.raises(InterruptedRunError, match=r"stopped by SIGTERM; go on with --resume") as stopped:
            train(cfg, store)
    assert stopped.value.exit_code == 143
    assert results_step(cfg, stage) == stop
    torch.manual_seed(stop)  # a resumed run must not depend on what happened before in the process
    train(cfg, store, resume=True)
    assert_same_results(cfg, whole, stage)


def results_step(cfg: Experiment, stage: str) -> int:
    return load_training(training_checkpoints(cfg.folder / stage / "checkpoints")[-1]).progress["step"]


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    tmp_path: Path, store: Store, whole: Experiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = beside(whole, tmp_path, "prior")
    with monkeypatch.context() as patch:
        stop_at(patch, Prior, 5)
        with pytest.raises(InterruptedRunError):
            train_prior(cfg, store)
    flip(training_checkpoints(cfg.folder / "prior" / "checkpoints")[-1] / "model.safetensors", -1)
    with open(cfg.folder / "prior" / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "split": "tr')
    with caplog.at_level(logging.WARNING):
        train_prior(cfg, store, resume=True)
    assert "skipping a damaged checkpoint" in caplog.text
    assert_same_results(cfg, whole, "prior")


def test_resuming_a_finished_run_changes_nothing_and_returns_its_figures(
    tmp_path: Path, store: Store, whole: Experiment
) -> None:
    cfg = beside(whole, tmp_path, "prior")
    figures = train_prior(cfg, store)
    assert train_prior(cfg, store, resume=True) == pytest.approx(figures, abs=0, rel=0, nan_ok=True)
    assert_same_results(cfg, whole, "prior")


def test_resuming_where_nothing_was_saved_starts_anew(tmp_path: Path, store: Store, whole: Experiment) -> None:
    cfg = beside(whole, tmp_path, "prior")
    (cfg.folder / "prior").mkdir()
    (cfg.folder / "prior" / "metrics.jsonl").write_text('{"step": 1, "split": "train", "seconds": 1}\n{"st')
    train_prior(cfg, store, resume=True)
    assert_same_results(cfg, whole, "prior")


def test_a_run_that_exists_is_not_overwritten_without_resume(store: Store, whole: Experiment) -> None:
    files = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    for train, _ in STAGES.values():
        with pytest.raises(InputError, match="holds a run already: go on with --resume, or name a new one with --name"):
            train(whole, store)
    assert files == {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}


def test_a_run_folder_holds_settings_figures_pictures_checkpoints_and_the_model(whole: Experiment) -> None:
    for stage, picture in (("vqvae", "reconstruction"), ("prior", "dream")):
        run = RunFolder(whole.folder / stage)
        assert (run.path / "config.yaml").read_text().startswith("name: tiny\n")
        assert {f"{picture}_{step:06d}.png" for step in (4, 8)} <= {path.name for path in run.media.iterdir()}
        assert [path.name for path in training_checkpoints(run.checkpoints)] == ["step-00000006", "step-00000008"]
        train = [record for record in run.records() if record["split"] == "train"]
        held_out = [record for record in run.records() if record["split"] == "held_out"]
        assert [record["step"] for record in train] == list(range(1, 9))
        assert [record["step"] for record in held_out] == [4, 8]
        assert {"loss", "learning_rate", "gradient_norm", "seconds"} <= train[0].keys()
    assert (
        VQVAE.from_pretrained(vqvae_folder(whole)).fingerprint()
        == WorldModel.from_pretrained(world_folder(whole)).prior.spec.tokenizer
    )


def test_the_exported_weights_are_the_averaged_ones_beside_the_live_codebook(whole: Experiment) -> None:
    state = load_training(training_checkpoints(whole.folder / "vqvae" / "checkpoints")[-1])
    exported = VQVAE.from_pretrained(vqvae_folder(whole)).state_dict()
    recorded = {f"vqvae.{name}": value for name, value in exported.items()}
    assert same_tensors(recorded, state.model | state.average)
    name = "vqvae.encoder.layers.0.project.weight"
    assert not torch.equal(state.average[name], state.model[name])


def test_stages_may_have_different_precisions(tmp_path: Path, store: Store) -> None:
    cfg = tiny_experiment(tmp_path)
    half = replace(cfg.prior, train=replace(cfg.prior.train, precision="bf16"))
    train_vqvae(cfg, store)
    train_prior(replace(cfg, prior=half), store)
    newest = training_checkpoints(cfg.folder / "prior" / "checkpoints")[-1]
    assert load_training(newest).progress["precision"] == "bf16"


# ---------------------------------------------------------------- refusals


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    trainer.fit(toy_batches(4), no_figures)
    (path,) = [p for p in trainer.run.checkpoints.iterdir() if p.name.endswith("6")]
    state = load_training(path)
    save_training(trainer.run.checkpoints, 6, state._replace(progress=state.progress | {"world": 4}), keep=2)
    with pytest.raises(
        InputError, match=r"was trained by 4 process\(es\), now there are 1: resume with the same number"
    ):
        trainer.resume()
    assert trainer.resume(any_world_size=True)


def test_a_run_is_not_resumed_with_settings_that_shape_other_weights(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit(toy_batches(4), no_figures)
    trainer = toy_trainer(tmp_path, resume=True, learning_rate=0.5, seed=7, log_every=3)
    with pytest.raises(InputError, match=r"learning_rate .* -> 0.5, train.seed 0 -> 7. Resume") as refused:
        trainer.resume()
    assert "log_every" not in str(refused.value)
    assert trainer.step == 0


def test_a_prior_is_not_resumed_on_another_tokenizer_nor_with_another_model(tmp_path: Path, store: Store) -> None:
    cfg = tiny_experiment(tmp_path)
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    world = WorldModel.from_pretrained(world_folder(cfg)).fingerprint()
    other = replace(cfg, prior=replace(cfg.prior, model=replace(cfg.prior.model, window=2)))
    with pytest.raises(InputError, match=r"model.window \d -> 2"):
        train_prior(other, store, resume=True)
    longer = replace(cfg.vqvae.train, steps=cfg.vqvae.train.steps + 2)
    train_vqvae(replace(cfg, vqvae=replace(cfg.vqvae, train=longer)), store, resume=True)
    with pytest.raises(InputError, match=r"tokenizer '[0-9a-f]{64}' -> .* or remove .*prior"):
        train_prior(cfg, store, resume=True)
    assert WorldModel.from_pretrained(world_folder(cfg)).fingerprint() == world


def test_a_refused_resume_leaves_the_recorded_settings_and_they_can_be_given_to_any_script(
    tmp_path: Path, store: Store
) -> None:
    cfg = tiny_experiment(tmp_path)
    train_vqvae(cfg, store)
    recorded = cfg.folder / "vqvae" / "config.yaml"
    before = recorded.read_bytes()
    wrong = replace(cfg.vqvae.train, batch=2 * cfg.vqvae.train.batch)
    with pytest.raises(InputError, match=r"other settings: train\.batch"):
        train_vqvae(replace(cfg, vqvae=replace(cfg.vqvae, train=wrong)), store, resume=True)
    assert recorded.read_bytes() == before
    assert typed(Experiment, read_yaml(recorded)) == cfg


def test_damaged_checkpoints_do_not_push_out_good_ones(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, checkpoint_every=2)
    trainer.fit(toy_batches(4), no_figures)
    older, newest = training_checkpoints(trainer.run.checkpoints)
    (newest / "model.safetensors").write_bytes(b"damaged")
    again = toy_trainer(tmp_path, resume=True, checkpoint_every=2)
    assert again.resume()
    assert again.step == 4
    assert [p.name for p in training_checkpoints(again.run.checkpoints)] == [older.name]
    assert (again.run.checkpoints / f"damaged-{newest.name}").is_dir()
    (older / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"none of its 1 checkpoints can be read\. Remove the folder"):
        toy_trainer(tmp_path, resume=True).resume()


def test_a_resumed_run_keeps_the_precision_and_the_threads_that_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy_trainer(tmp_path)
    trainer.fit(toy_batches(4), no_figures)
    (newest,) = [p for p in trainer.run.checkpoints.iterdir() if p.name.endswith("6")]
    recorded = load_training(newest).progress
    assert (recorded["precision"], recorded["threads"]) == ("no", torch.get_num_threads())
    monkeypatch.setattr("vqvideo.training.launch.best_precision", lambda: pytest.fail("measured again"))
    cfg = TrainConfig(precision="auto")
    assert make_accelerator(cfg, tmp_path, resume=True).mixed_precision == "no"


def forget(cfg: Experiment, stage: str, *settings: str) -> None:
    """Makes the newest checkpoint one from before there were some settings."""
    folder = cfg.folder / stage / "checkpoints"
    path = training_checkpoints(folder)[-1]
    state = load_training(path)
    kept = {name: value for name, value in state.progress["settings"].items() if name not in settings}
    assert len(kept) == len(state.progress["settings"]) - len(settings)
    save_training(folder, int(path.name[-8:]), state._replace(progress=state.progress | {"settings": kept}), keep=2)


def test_a_run_from_before_there_was_a_setting_goes_on_with_its_default(
    tmp_path: Path, store: Store, whole: Experiment
) -> None:
    shutil.copytree(whole.runs, tmp_path / "runs")
    cfg = replace(whole, runs=tmp_path / "runs")
    forget(cfg, "vqvae", "model.quantizer.revive_below", "perceptual.kind", "stills.per_batch", "train.clip_norm")
    forget(cfg, "prior", "model.corruption", "model.head.kind", "model.pooling.kind", "train.betas")
    train_vqvae(cfg, store, resume=True)
    train_prior(cfg, store, resume=True)
    for stage in STAGES:
        assert_same_results(cfg, whole, stage)


def test_a_setting_that_is_newer_than_the_run_must_have_its_default(
    tmp_path: Path, store: Store, whole: Experiment
) -> None:
    shutil.copytree(whole.runs, tmp_path / "runs")
    cfg = replace(whole, runs=tmp_path / "runs")
    forget(cfg, "prior", "model.corruption", "model.head.kind")
    other = replace(cfg.prior.model, corruption=0.5)
    with pytest.raises(InputError, match=r"other settings: model\.corruption 0\.1 -> 0\.5\. Resume"):
        train_prior(replace(cfg, prior=replace(cfg.prior, model=other)), store, resume=True)
    other = replace(cfg.prior.model, head=MaskedHeadConfig(layers=1, heads=2))
    with pytest.raises(InputError, match=r"other settings: model\.head\.kind 'ParallelHead' -> 'MaskedHead'"):
        train_prior(replace(cfg, prior=replace(cfg.prior, model=other)), store, resume=True)


def test_frames_are_cached_in_the_memory_that_the_settings_give(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Clips] = []

    class Noted(Clips):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr("vqvideo.experiment.tokenizer.Clips", Noted)
    cfg = tiny_experiment(tmp_path, steps=2)
    train_vqvae(replace(cfg, vqvae=replace(cfg.vqvae, stills=StillsConfig(per_batch=4), cache_gib=0.0)), store)
    assert len(made) == 3
    assert not any(clips._cache for clips in made)
    made.clear()
    train_vqvae(replace(cfg, name="cached"), store)
    assert all(clips._cache for clips in made)
