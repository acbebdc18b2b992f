"""What a trained prior is worth: one trial, the same for all that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from statistics import mean

from vqvideo.data.clips import Clips
from vqvideo.data.code_cache import CodeCache
from vqvideo.data.codes import CodeClips
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation.frame_sets import FrechetConfig
from vqvideo.evaluation.horizon import HorizonReport
from vqvideo.evaluation.prior import evaluate_prior
from vqvideo.evaluation.speed import imagination_speed
from vqvideo.evaluation.world import evaluate_world
from vqvideo.experiment.config import PriorStage
from vqvideo.models.prior import MaskedHeadConfig, Prior, PriorConfig
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts.benchmarks.bakeoff_options import TrialConfig
from vqvideo.scripts.benchmarks.results import Row
from vqvideo.world import WorldModel

FIRST_STEPS = 8
"""Latent steps over which the gain is averaged."""
ACTION_STEPS = 16
"""Latent steps over which the true actions are compared with others."""
STREAMS = (1, 16)
"""Dreams at once, for the speed."""
SPEED_STEPS = 15
"""Latent steps of a trial of the speed; a slow head takes seconds for each."""


def check_comparable(cfg: TrialConfig, stages: Sequence[PriorStage], window: int) -> None:
    """Raises InputError if priors do not share their codes or cannot read the context, or if the horizon is shorter
    than the window.
    """
    segments = stages[0].segments
    if any(stage.segments != segments for stage in stages):
        raise InputError("the variants have different prior.segments, so they would not train on the same codes")
    shortest = min(stage.model.window for stage in stages)
    if cfg.context > shortest:
        raise InputError(f"--context is {cfg.context}, expected at most the smallest window, {shortest}")
    if window > cfg.horizon:
        raise InputError(f"--horizon is {cfg.horizon}, expected at least the window of {window} latent steps")


class Trial:
    """The held-out clips of one store, and what is measured on them.

    Args:
        cfg: how.
        vqvae: the tokenizer.
        store: the episodes.
        stages: all priors that are compared. Their clips of codes get one length, the longest of them, because a token
            is likelier the more past there is.
        window: latent steps after which the near figures are taken.
        codes: folder for the codes where the store cannot be written.

    Raises:
        InputError: the priors do not share their codes, cannot read the context, or the episodes are too short.
    """

    def __init__(
        self,
        cfg: TrialConfig,
        vqvae: VQVAE,
        store: Store,
        stages: Sequence[PriorStage],
        window: int,
        codes: Path | None = None,
    ) -> None:
        check_comparable(cfg, stages, window)
        self.cfg, self.window = cfg, window
        self.clips = Clips(store, "held_out", vqvae.clip_length(cfg.context + cfg.horizon))
        cache = CodeCache(vqvae, vqvae.fingerprint(), store, "held_out", stages[0].segments, codes)
        cache.encode_share(vqvae.device)
        self.codes = CodeClips(cache.read(), max(stage.latent_steps for stage in stages))

    @property
    def count(self) -> int:
        """How many clips are dreamt on."""
        return min(self.cfg.clips, len(self.clips))

    def figures(self, world: WorldModel, sampling: Sampling) -> Row:
        """Likelihood, dreams, outcomes and speed of a world model."""
        cfg, spec = self.cfg, world.prior.spec
        taught = evaluate_prior(world.prior, self.codes, cfg.code_clips)
        frechet = FrechetConfig(block=self.window, frames=cfg.frechet_frames) if cfg.frechet_frames else None
        report = evaluate_world(world, self.clips, cfg.clips, cfg.context, sampling, cfg.dream_seed, frechet=frechet)
        return {
            "token_nats": taught["bits_per_frame"] * log(2) * spec.stride / spec.tokens,
            "likelihood": report.likelihood_kind,
            "bits_per_frame": taught["bits_per_frame"],
            **self.dreams(report),
            "reward_error": None
            if not spec.knows_rewards
            else taught["reward_rmse"] / max(taught["reward_rmse_of_mean"], 1e-12),
            "parameters": sum(p.numel() for p in world.prior.parameters()),
            **{f"frames_per_s_{streams}": imagination_speed(world, streams, SPEED_STEPS) for streams in STREAMS},
        }

    def dreams(self, report: HorizonReport) -> Row:
        """The figures of a report that go into the table, and its curves."""
        gains, distances = report.psnr_gain_db.tolist(), report.fd_effnetlite0
        other = report.psnr.get("other_actions")
        gaps = None if other is None else (report.psnr["imagined"] - other).tolist()
        return {
            "gain_db": mean(gains[:FIRST_STEPS]),
            "controllability_db": mean(gaps[:ACTION_STEPS]) if gaps else None,
            "gain_at_window_db": gains[self.window - 1],
            "gain_at_horizon_db": gains[-1],
            "fd_at_window": distances.imagined[0] if distances else None,
            "fd_at_horizon": distances.imagined[-1] if distances else None,
            "repeat_rate": report.repeat_rate,
            "repeat_rate_real": report.repeat_rate_real,
            "curves": {
                "gain_db": gains,
                "fd_last_steps": distances.last_steps if distances else [],
                "fd_effnetlite0": distances.imagined if distances else [],
            },
        }


def as_trained(stage: PriorStage) -> PriorStage:
    """The settings that the weights depend on. How many passes a masked head takes only matters when it draws, so
    priors that differ in nothing else are one training.
    """
    head = stage.model.head
    if not isinstance(head, MaskedHeadConfig):
        return stage
    return replace(stage, model=replace(stage.model, head=replace(head, passes=1)))


def as_drawn(world: WorldModel, cfg: PriorConfig) -> WorldModel:
    """A trained world model with the settings `cfg`, which may differ from its own in how codes are drawn."""
    prior = Prior(cfg, world.prior.spec, world.vqvae.codebook)
    prior.load_state_dict(world.prior.state_dict())
    return WorldModel(world.vqvae, prior, world.env, world.sampling).eval().requires_grad_(False)
