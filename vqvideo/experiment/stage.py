"""The two stages of training, from a store to exported models: what the scripts call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vqvideo.data.clips import Clip, Clips
from vqvideo.data.codes import CodeArrays, CodeClips, cached_codes
from vqvideo.data.config import StillsConfig
from vqvideo.data.images import Images
from vqvideo.data.store import Store
from vqvideo.evaluation import evaluate_prior, evaluate_tokenizer, stack_frames
from vqvideo.evaluation.pictures import dream_rows, reconstruction_rows, save_media
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.objective import TokenizerObjective
from vqvideo.experiment.warm_start import continue_tokenizer, warm_start
from vqvideo.models.prior import ActionStats, Prior, PriorSpec
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage import files
from vqvideo.storage.records import to_plain, write_yaml
from vqvideo.training.launch import make_accelerator
from vqvideo.training.loader import Loader, WithStills, check_shared_memory, explained
from vqvideo.training.processes import on_main_process
from vqvideo.training.run_folder import prepare_run, show_picture
from vqvideo.training.trainer import Trainer
from vqvideo.world import EnvFacts, WorldModel

MODEL = "model"
"""Folder of the exported tokenizer inside its stage's run folder."""


def vqvae_folder(cfg: Experiment) -> Path:
    """Where the exported tokenizer of an experiment is."""
    return cfg.folder / "vqvae" / MODEL


def world_folder(cfg: Experiment) -> Path:
    """Where the exported world model of an experiment is."""
    return cfg.folder / "world"


def train_vqvae(
    cfg: Experiment, store: Store, *, resume: bool = False, any_world_size: bool = False
) -> dict[str, float]:
    """Trains the tokenizer and exports it with its averaged weights. Returns its held-out figures.

    Args:
        cfg: the settings.
        store: the episodes.
        resume: go on from the newest checkpoint, if there is one.
        any_world_size: also if it was written by another number of processes.
    """
    stage, train = cfg.vqvae, cfg.vqvae.train
    accelerator = make_accelerator(train, cfg.folder / "vqvae", resume=resume)
    torch.manual_seed(train.seed)
    model = stage.model.build(store.meta.frame_size)
    clips = Clips(store, "train", model.clip_length(stage.latent_steps))
    held_out = Clips(store, "held_out", model.clip_length(stage.latent_steps))
    start = continue_tokenizer(model, stage.init) if stage.init else None
    with prepare_run(cfg.folder / "vqvae", resume=resume, settings=cfg, accelerator=accelerator) as run:
        identity = {
            "model": to_plain(stage.model),
            "latent_steps": stage.latent_steps,
            "stills": to_plain(stage.stills),
            "perceptual": to_plain(stage)["perceptual"],
            "adversarial": to_plain(stage)["adversarial"],
            "store": store.digest,
            # No entry without one: runs from before there was this choice must resume.
            **({"init": start.tokenizer} if start else {}),
        }
        objective = TokenizerObjective(model, stage.perceptual, stage.adversarial)
        trainer = Trainer(objective, train, run, accelerator, identity)
        resumed = resume and trainer.resume(any_world_size=any_world_size)
        _write_config(cfg, trainer)
        if start and not resumed:
            accelerator.print(start, flush=True)
        elif not resumed:
            # Every rank reads the same first clips, and rank 0's codebook counts.
            count = max(train.batch, _clips_to_start(model, stage.latent_steps))
            model.initialize(stack_frames(clips, clips.spread(count).tolist()).to(accelerator.device))

        def evaluate(vqvae: nn.Module, step: int) -> dict[str, float]:
            rows = reconstruction_rows(model, stack_frames(held_out, held_out.spread(4).tolist()))
            picture, _ = save_media(run.media / f"reconstruction_{step:06d}", rows, store.meta.fps)
            show_picture(accelerator, "reconstruction", picture, step)
            return evaluate_tokenizer(model, held_out, stage.validation_clips)

        batches: Loader | WithStills
        batches = video = Loader(clips, train, accelerator, _frames_only)
        if stage.stills.per_batch:
            beside = replace(train, batch=stage.stills.per_batch)
            batches = WithStills(video, Loader(_stills(stage.stills, store), beside, accelerator, _frames_only))
        with explained(train.workers):
            check_shared_memory(batches)
            figures = trainer.fit(batches, evaluate)
        _export(trainer, lambda: model.save_pretrained(cfg.folder / "vqvae" / MODEL))
        return figures


def train_prior(
    cfg: Experiment,
    store: Store,
    *,
    resume: bool = False,
    any_world_size: bool = False,
    tokenizer: Path | None = None,
) -> dict[str, float]:
    """Encodes the store, trains the prior and exports the world model. Returns the held-out figures.

    Args:
        cfg: the settings.
        store: the episodes.
        resume: go on from the newest checkpoint, if there is one.
        any_world_size: also if it was written by another number of processes.
        tokenizer: folder of the trained tokenizer; by default the experiment's own.
    """
    stage, train = cfg.prior, cfg.prior.train
    accelerator = make_accelerator(train, cfg.folder / "prior", resume=resume)
    vqvae = VQVAE.from_pretrained(tokenizer or vqvae_folder(cfg)).to(accelerator.device)
    with accelerator.main_process_first():
        arrays, held_out_arrays = (
            cached_codes(vqvae, vqvae.fingerprint(), store, split, stage.segments, accelerator.device)
            for split in ("train", "held_out")
        )
    clips, held_out = CodeClips(arrays, stage.latent_steps), CodeClips(held_out_arrays, stage.latent_steps)
    torch.manual_seed(train.seed)
    prior = Prior(stage.model, prior_spec(vqvae, store, arrays), vqvae.codebook)
    start = warm_start(prior, stage.init, continued=None if tokenizer else _ancestor(cfg)) if stage.init else None
    with prepare_run(cfg.folder / "prior", resume=resume, settings=cfg, accelerator=accelerator) as run:
        identity = {
            "model": to_plain(stage.model),
            "latent_steps": stage.latent_steps,
            "segments": to_plain(stage.segments),
            "store": store.digest,
            "tokenizer": prior.spec.tokenizer,
            **({"init": start.world} if start else {}),  # no entry without one, as for the tokenizer
        }
        trainer = Trainer(prior, train, run, accelerator, identity)
        resumed = resume and trainer.resume(any_world_size=any_world_size)
        if start and not resumed:
            accelerator.print(start, flush=True)
        _write_config(cfg, trainer)
        env = EnvFacts(store.meta.env_id, store.meta.fps, store.meta.action_repeat)
        shown = Clips(store, "held_out", vqvae.clip_length(stage.latent_steps))

        def evaluate(model: nn.Module, step: int) -> dict[str, float]:
            picks = shown.spread(4).tolist()
            actions = torch.stack([shown[i]["actions"] for i in picks])
            world = WorldModel(vqvae, prior, env)
            context = max(1, stage.latent_steps // 3)
            rows = dream_rows(world, stack_frames(shown, picks), actions, context, cfg.sampling, seed=0)
            picture, _ = save_media(run.media / f"dream_{step:06d}", rows, store.meta.fps)
            show_picture(accelerator, "dream", picture, step)
            return evaluate_prior(prior, held_out, stage.validation_clips, frame_size=vqvae.frame_size)

        with explained(train.workers):
            batches = Loader(clips, train, accelerator)
            check_shared_memory(batches)
            figures = trainer.fit(batches, evaluate)
        _export(trainer, lambda: WorldModel(vqvae, prior, env).save_pretrained(world_folder(cfg)))
        return figures


def _ancestor(cfg: Experiment) -> str | None:
    """Fingerprint of the tokenizer that the experiment's own one was continued from, if it was."""
    return VQVAE.from_pretrained(cfg.vqvae.init).fingerprint() if cfg.vqvae.init else None


def prior_spec(vqvae: VQVAE, store: Store, arrays: CodeArrays) -> PriorSpec:
    """What a prior for this tokenizer and this store is told."""
    return PriorSpec(
        grid=vqvae.grid,
        codebook_size=vqvae.quantizer.codebook_size,
        code_dim=vqvae.quantizer.dim,
        stride=vqvae.stride,
        action_space=store.meta.action_space,
        stats=action_stats(arrays),
        tokenizer=vqvae.fingerprint(),
    )


def action_stats(arrays: CodeArrays) -> ActionStats:
    """Scale of actions and rewards over the training segments."""
    following = np.ones(len(arrays.codes), bool)
    following[arrays.starts[:-1]] = False
    actions = arrays.actions[following].reshape(-1, arrays.actions.shape[-1]).astype(np.float64)
    rewards = arrays.rewards[following]
    return ActionStats(
        tuple(actions.mean(axis=0).tolist()),
        tuple(actions.std(axis=0).tolist()),
        float(rewards.min()),
        float(rewards.max()),
    )


def _write_config(cfg: Experiment, trainer: Trainer) -> None:
    """Puts the settings into the run folder, as a file that `--config` takes; not before a resume was accepted."""
    plain = to_plain(cfg)
    text = write_yaml({field.name: plain[field.name] for field in fields(Experiment)})
    on_main_process(lambda: files.write_file(trainer.run.path / "config.yaml", text.encode()), trainer.accelerator)


def _clips_to_start(model: VQVAE, latent_steps: int) -> int:
    """Clips that hold as many latents as the quantizer wants to start from."""
    return -(-model.quantizer.latents_to_start // (latent_steps * model.tokens))


def _stills(cfg: StillsConfig, store: Store) -> Dataset:
    return Clips(store, "train", 1) if cfg.folder is None else Images(cfg.folder, store.meta.frame_size)


def _frames_only(clips: list[Clip]) -> dict[str, Tensor]:
    return {"frames": torch.stack([clip["frames"] for clip in clips])}


def _export(trainer: Trainer, save: Callable[[], object]) -> None:
    """Saves the averaged weights, on the main process."""

    def save_average() -> None:
        with trainer.average.applied():
            save()

    on_main_process(save_average, trainer.accelerator)
    # Not `end_training`: it would also part the processes, which the next stage needs.
    for tracker in trainer.accelerator.trackers:
        tracker.finish()
