"""A tokenizer that suits the size of the frames: large ones would make a prior slow by the number of their tokens."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from vqvideo.experiment.config import MOST_TOKENS, Experiment
from vqvideo.storage.checkpoint import newest_progress
from vqvideo.storage.records import flat_settings


def fitted(cfg: Experiment, frame_size: tuple[int, int]) -> Experiment:
    """The experiment with the backbone that it has for frames of (h, w) pixels: no more than `vqvae.most_tokens`."""
    most, model = cfg.vqvae.most_tokens, cfg.vqvae.model
    if most is None or _began_as_named(cfg):
        return cfg
    backbone = model.backbone.coarsened(frame_size, most, cfg.prior.model.patch)
    return replace(cfg, vqvae=replace(cfg.vqvae, model=replace(model, backbone=backbone)))


def about_tokens(named: Experiment, cfg: Experiment, frame_size: tuple[int, int]) -> str:
    """What a user should know of the number of tokens before a training; empty if it is an ordinary one.

    Args:
        named: the settings as they were given.
        cfg: as `fitted` made them.
        frame_size: (h, w) in pixels.
    """
    before, after = named.vqvae.model, cfg.vqvae.model
    shown = "x".join(map(str, frame_size))
    tokens = prod(after.grid_of(frame_size))
    if after != before:
        _, h, w = after.backbone.strides
        return (
            f"frames of {shown}: a token covers {h}x{w} pixels (strides {after.backbone.strides}, patch "
            f"{after.backbone.patch}), so that a latent step has {tokens:,} tokens in place of "
            f"{prod(before.grid_of(frame_size)):,}; --vqvae.most-tokens sets the limit"
        )
    if tokens <= MOST_TOKENS:
        return ""
    return (
        f"note: frames of {shown} make {tokens:,} tokens per latent step: the prior will take about "
        f"{tokens / MOST_TOKENS:.0f} times as long as with {MOST_TOKENS}, or more. Fewer: --vqvae.most-tokens "
        f"{MOST_TOKENS}, with sides that are multiples of 32 or 64; or a smaller --record.frame-size"
    )


def _began_as_named(cfg: Experiment) -> bool:
    """Whether the run's tokenizer is trained already with the backbone as it is named, as before there was a limit."""
    began = newest_progress(cfg.folder / "vqvae" / "checkpoints").get("settings", {})
    named = {name: value for name, value in flat_settings(cfg.vqvae).items() if name.startswith("model.backbone.")}
    return bool(began) and all(began.get(name, value) == value for name, value in named.items())
