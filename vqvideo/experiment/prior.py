"""The prior's training: from a store and a tokenizer to a world model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import nn

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.data.code_cache import CodeCache
from vqvideo.data.codes import CodeArrays, CodeClips
from vqvideo.data.store import Store
from vqvideo.evaluation.pictures import Frames, dream_rows
from vqvideo.evaluation.prior import evaluate_prior
from vqvideo.experiment.checks import Known, check_store
from vqvideo.experiment.config import MAY_CHANGE, Experiment, PriorStage, codes_folder, vqvae_folder, world_folder
from vqvideo.experiment.stage import Training, run_training, show_clips
from vqvideo.experiment.suited import suited
from vqvideo.experiment.warm_start import warm_start
from vqvideo.models.prior import ActionStats, Prior, PriorSpec
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import newest_progress
from vqvideo.training.config import Identity
from vqvideo.training.launch import join_processes, make_accelerator
from vqvideo.training.loader import Loader
from vqvideo.training.processes import together
from vqvideo.world import EnvFacts, WorldModel

if TYPE_CHECKING:
    from accelerate import Accelerator


def train_prior(
    cfg: Experiment,
    store: Store,
    *,
    resume: bool = False,
    any_world_size: bool = False,
    tokenizer: Path | None = None,
    codes: Path | None = None,
) -> dict[str, float]:
    """Encodes the store, trains the prior and exports the world model. Returns the held-out figures.

    Codes are kept beside the episodes, for all priors on the same tokenizer.

    Args:
        cfg: the settings.
        store: the episodes.
        resume: as for `train_vqvae`.
        any_world_size: as for `train_vqvae`.
        tokenizer: folder of the trained tokenizer; by default the experiment's own.
        codes: folder for the codes where the store cannot be written; by default in the run's folder.
    """
    vqvae = VQVAE.from_pretrained(tokenizer or vqvae_folder(cfg))
    cfg, reasons = suited(cfg, store, vqvae.cfg)
    stage = as_begun(cfg.prior, cfg.folder / "prior") if resume else cfg.prior
    cfg, train, processes = replace(cfg, prior=stage), stage.train, join_processes().num_processes
    ancestor = None if tokenizer else _ancestor(cfg)
    known: Known = {"processes": processes, "resume": resume, "tokenizer": vqvae, "continued": ancestor}
    together(lambda: check_store(cfg, store, "prior", **known))
    accelerator = make_accelerator(train, cfg.folder / "prior", resume=resume)
    accelerator.print(*reasons, sep="\n", end="\n" if reasons else "", flush=True)
    vqvae.to(accelerator.device)
    encoded = partial(_encoded, vqvae, store, cfg=cfg, accelerator=accelerator, elsewhere=codes or codes_folder(cfg))
    train_codes, held_out_codes = encoded("train"), encoded("held_out")
    clips = CodeClips(train_codes, stage.latent_steps, beyond=True, newest=stage.newest, eventful=stage.eventful)
    held_out = CodeClips(held_out_codes, stage.latent_steps, beyond=True)
    torch.manual_seed(train.seed)
    prior = Prior(stage.model, prior_spec(vqvae, store, train_codes), vqvae.codebook)
    start = warm_start(prior, stage.init, continued=ancestor) if stage.init else None
    world = WorldModel(
        vqvae, prior, EnvFacts(store.meta.env_id, store.meta.fps, store.meta.action_repeat), cfg.sampling
    )
    pictured = Clips(store, "held_out", vqvae.clip_length(stage.latent_steps), cache_gib=0.0)
    dreamt = partial(_dreamt, world, pictured, min(stage.model.window, max(1, stage.latent_steps // 3)))
    facts = {"store": store.digest, "tokenizer": prior.spec.tokenizer, **({"init": start.world} if start else {})}

    def begin() -> None:
        if start:
            accelerator.print(start, flush=True)

    def evaluate(averaged: nn.Module, step: int) -> dict[str, float]:
        show_clips(accelerator, cfg.folder / "prior", "dream", step, dreamt, store.meta.fps)
        return evaluate_prior(prior, held_out, stage.validation_clips, frame_size=vqvae.frame_size)

    identity, save = Identity(stage, MAY_CHANGE, facts), partial(world.save_pretrained, world_folder(cfg))
    batches = Loader(clips, train, accelerator)
    training = Training("prior", train, prior, identity, begin, batches, evaluate, save)
    return run_training(cfg, training, accelerator, resume=resume, any_world_size=any_world_size)


def _dreamt(world: WorldModel, clips: Clips, context: int) -> list[list[Frames]]:
    """Rows of a picture: a few clips, and how the world dreams them."""
    picks = clips.spread(4).tolist()
    actions = torch.stack([clips[i]["actions"] for i in picks])
    return dream_rows(world, stack_frames(clips, picks), actions, context, world.sampling, seed=0)


def as_begun(stage: PriorStage, run: Path) -> PriorStage:
    """The stage as a run that goes on began it: before there was `two_hot`, with the targets of that time."""
    before = newest_progress(run / "checkpoints").get("settings", {"model.two_hot": ""})
    return stage if "model.two_hot" in before else replace(stage, model=replace(stage.model, two_hot="symlog"))


def _encoded(
    vqvae: VQVAE, store: Store, split: str, cfg: Experiment, accelerator: Accelerator, elsewhere: Path
) -> list[CodeArrays]:
    """The codes of a split, encoded by all ranks together, each its share. Collective."""
    cache = CodeCache(vqvae, vqvae.fingerprint(), store, split, cfg.prior.segments, elsewhere)
    share = partial(cache.encode_share, accelerator.device)
    together(lambda: share(accelerator.process_index, accelerator.num_processes))
    # Machines with disks of their own lack what the others encoded.
    together(lambda: share(accelerator.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return cache.read()


def _ancestor(cfg: Experiment) -> str | None:
    """Fingerprint of the tokenizer that the experiment's own one was continued from, if it was."""
    return VQVAE.from_pretrained(cfg.vqvae.init).fingerprint() if cfg.vqvae.init else None


def prior_spec(vqvae: VQVAE, store: Store, codes: Sequence[CodeArrays]) -> PriorSpec:
    """What a prior has to know of its tokenizer and its store."""
    return PriorSpec(
        grid=vqvae.grid,
        codebook_size=vqvae.quantizer.codebook_size,
        code_dim=vqvae.quantizer.dim,
        stride=vqvae.stride,
        action_space=store.meta.action_space,
        stats=action_stats(codes),
        tokenizer=vqvae.fingerprint(),
        missing=store.meta.missing,
    )


def action_stats(codes: Sequence[CodeArrays]) -> ActionStats:
    """Scale of actions and rewards over the training segments; one part in memory at a time."""
    count = sum(len(_actions(part)) for part in codes)
    mean = sum(_actions(part).sum(axis=0) for part in codes) / count
    variance = sum(np.square(_actions(part) - mean).sum(axis=0) for part in codes) / count
    rewards = [part.rewards[_following(part)] for part in codes]
    return ActionStats(
        tuple(mean.tolist()),
        tuple(np.sqrt(variance).tolist()),
        float(min(part.min() for part in rewards)),
        float(max(part.max() for part in rewards)),
    )


def _following(part: CodeArrays) -> NDArray[np.bool_]:
    """(S,): the steps that actions led to, which are all but the first of each segment."""
    following = np.ones(len(part.codes), bool)
    following[part.starts[:-1]] = False
    return following


def _actions(part: CodeArrays) -> NDArray[np.float64]:
    return rearrange(part.actions[_following(part)], "t s a -> (t s) a").astype(np.float64)
