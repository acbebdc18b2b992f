"""The training of the tokenizer: from a store to a model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import ceil

import torch
from torch import Tensor, nn

from vqvideo.data.clips import Clip, Clips, stack_frames
from vqvideo.data.images import Images
from vqvideo.data.store import Store
from vqvideo.evaluation.pictures import Frames, reconstruction_rows
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.experiment.checks import check_store
from vqvideo.experiment.config import MAY_CHANGE, Experiment, vqvae_folder
from vqvideo.experiment.frame_sizes import about_tokens, fitted
from vqvideo.experiment.objective import TokenizerObjective, continue_tokenizer
from vqvideo.experiment.stage import Training, run_training, show_clips
from vqvideo.experiment.suited import suited
from vqvideo.training.config import Identity
from vqvideo.training.launch import join_processes, make_accelerator
from vqvideo.training.loader import Loader, WithStills
from vqvideo.training.processes import together


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
    named, reasons = suited(cfg, store)
    cfg = fitted(named, store.meta.frame_size)
    stage, train = cfg.vqvae, cfg.vqvae.train
    processes = join_processes().num_processes
    together(lambda: check_store(cfg, store, "vqvae", processes=processes, resume=resume))
    accelerator = make_accelerator(train, cfg.folder / "vqvae", resume=resume)
    said = [*reasons, about_tokens(named, cfg, store.meta.frame_size)]
    accelerator.print("".join(f"{line}\n" for line in said if line), end="", flush=True)
    torch.manual_seed(train.seed)
    model = stage.model.build(store.meta.frame_size)
    length = model.clip_length(stage.latent_steps)
    from_clips = stage.stills.per_batch and stage.stills.folder is None
    wanted = [("train", length), ("held_out", length), *([("train", 1)] if from_clips else [])]
    clips, held_out, *single_frames = _clips_with_one_cache(store, wanted, stage.cache_gib)
    start = continue_tokenizer(model, stage.init) if stage.init else None
    if stage.learns == "decoder":
        model.keep_codes()
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
