"""The training of the tokenizer, with optional terms that judge its reconstructions: from a store to a model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqvideo.data.clips import Clip, Clips, stack_frames
from vqvideo.data.images import Images
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation.pictures import Frames, reconstruction_rows
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.experiment.config import MAY_CHANGE, Experiment, vqvae_folder
from vqvideo.experiment.stage import Training, run_training, show_clips
from vqvideo.models.pixels import to_signed
from vqvideo.models.tokenizer import AdversarialConfig, NoAdversary, NoPerceptual, PerceptualConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import load_into, model_tensors
from vqvideo.storage.records import flat_settings
from vqvideo.training.config import Identity
from vqvideo.training.launch import make_accelerator
from vqvideo.training.loader import Loader, WithStills
from vqvideo.training.optimizers import ParameterGroup


class ObjectiveOutput(NamedTuple):
    """What a training pass returns."""

    loss: Tensor
    """Scalar to minimise."""
    metrics: dict[str, Tensor]
    """Scalars to log."""


class TokenizerObjective(nn.Module):
    """A tokenizer with the terms of its training. Without optional terms it trains as the tokenizer alone does."""

    def __init__(
        self,
        vqvae: VQVAE,
        perceptual: PerceptualConfig | None = None,
        adversarial: AdversarialConfig | None = None,
    ) -> None:
        super().__init__()
        self.vqvae = vqvae
        self.perceptual = (perceptual or NoPerceptual()).build()
        self.adversary = (adversarial or NoAdversary()).build()

    def forward(self, **batch: Tensor) -> ObjectiveOutput:
        """One training pass over a batch of the tokenizer's; the further terms look at its clips, not at its stills."""
        output = self.vqvae(**batch)
        loss, metrics = output.loss, dict(output.metrics)
        for term in (self.perceptual, self.adversary):
            if term is not None:
                added = term(output.reconstruction, to_signed(batch["frames"]))
                loss, metrics = loss + added.loss, metrics | added.metrics
        return ObjectiveOutput(loss, metrics)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """The discriminator has an optimizer of its own, and is not averaged."""
        if self.adversary is None:
            return {}
        prefix, cfg = "adversary.discriminator.", self.adversary.cfg
        parameters = {name: p for name, p in self.named_parameters() if name.startswith(prefix)}
        return {"discriminator": ParameterGroup(parameters, cfg.learning_rate, cfg.betas, averaged=False)}

    def after_step(self) -> None:
        """Called by the training loop after each optimizer step, on every rank."""
        self.vqvae.after_step()
        if self.adversary is not None:
            self.adversary.after_step()

    def interval_metrics(self) -> dict[str, float]:
        """Usage of the codes since the last call, over all ranks. Collective."""
        return self.vqvae.take_usage()


def continue_tokenizer(vqvae: VQVAE, folder: Path) -> str:
    """Copies weights, codebook and data statistics of another tokenizer into `vqvae`, in place of `initialize`.
    Returns the other one's fingerprint.

    Args:
        vqvae: changed in place.
        folder: the other tokenizer's.

    Raises:
        InputError: no tokenizer there, or one that is made or quantizes differently; `vqvae` is as before.
    """
    other = VQVAE.from_pretrained(folder)
    # Not by shapes alone: with other strides or levels the same weights can mean something else.
    there, here = _make(other), _make(vqvae)
    differing = [f"{name} {there.get(name)} -> {value}" for name, value in here.items() if there.get(name) != value]
    if differing:
        raise InputError(
            f"vqvae.init: the tokenizer of {folder} is made otherwise than the one here ({', '.join(differing)}): name "
            "one with the same settings of vqvae.model and the same frame size, or train anew without vqvae.init"
        )
    load_into(vqvae, model_tensors(other), folder)
    return other.fingerprint()


def _make(vqvae: VQVAE) -> dict[str, str | int | float | bool]:
    """What its weights mean something for, by dotted name. The loss that they were trained with is no part of it."""
    settings = flat_settings(vqvae.config())
    return {
        name.removeprefix("model."): value
        for name, value in settings.items()
        if not name.startswith("model.reconstruction.")
    }


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
    length = model.clip_length(stage.latent_steps)
    from_clips = stage.stills.per_batch and stage.stills.folder is None
    wanted = [("train", length), ("held_out", length), *([("train", 1)] if from_clips else [])]
    clips, held_out, *single_frames = _clips_with_one_cache(store, wanted, stage.cache_gib)
    start = continue_tokenizer(model, stage.init) if stage.init else None
    # Of a tokenizer to go on from its content counts, and not where it lies.
    facts = {"store": store.digest, **({"init": start} if start else {})}

    def begin() -> None:
        if start:
            accelerator.print(f"goes on from the tokenizer of {stage.init}", flush=True)
            return
        # Every rank reads the same first clips, as many as hold what the quantizer wants to start from; rank 0's
        # codebook counts.
        count = max(train.batch, ceil(model.quantizer.latents_to_start / (stage.latent_steps * model.tokens)))
        model.initialize(stack_frames(clips, clips.spread(count).tolist()).to(accelerator.device))

    def pictured() -> list[list[Frames]]:
        return reconstruction_rows(model, stack_frames(held_out, held_out.spread(4).tolist()))

    def evaluate(averaged: nn.Module, step: int) -> dict[str, float]:
        show_clips(accelerator, cfg.folder / "vqvae", "reconstruction", step, pictured, store.meta.fps)
        return evaluate_tokenizer(model, held_out, stage.validation_clips)

    batches: Loader | WithStills
    batches = video = Loader(clips, train, accelerator, _frames_only)
    if stage.stills.per_batch:
        folder = stage.stills.folder
        stills = single_frames[0] if folder is None else Images(folder, store.meta.frame_size)
        beside = replace(train, batch=stage.stills.per_batch)
        batches = WithStills(video, Loader(stills, beside, accelerator, _frames_only))
    objective = TokenizerObjective(model, stage.perceptual, stage.adversarial)
    identity = Identity(stage, MAY_CHANGE, facts)
    save = partial(model.save_pretrained, vqvae_folder(cfg))
    training = Training("vqvae", train, objective, identity, begin, batches, evaluate, save)
    return run_training(cfg, training, accelerator, resume=resume, any_world_size=any_world_size)


def _clips_with_one_cache(store: Store, wanted: list[tuple[str, int]], gib: float) -> list[Clips]:
    """The clips of splits, of some length each; the memory for decoded frames is shared out by the splits' lengths."""
    frames = [sum(entry.length + 1 for entry in store.split(split)) for split, _ in wanted]
    shares = [gib * count / max(1, sum(frames)) for count in frames]
    return [Clips(store, split, length, share) for (split, length), share in zip(wanted, shares, strict=True)]


def _frames_only(clips: list[Clip]) -> dict[str, Tensor]:
    return {"frames": torch.stack([clip["frames"] for clip in clips])}
