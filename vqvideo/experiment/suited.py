"""Settings that suit the episodes: those that neither a file nor a flag names follow from what the store shows.

Each rule is a function of what was seen, and says why. What somebody names stays as it is named, and a run that goes on
keeps what it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from vqvideo.data.store import Store
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.frame_sizes import fitted
from vqvideo.experiment.seen import FEW, LEAST, Seen, look
from vqvideo.models.prior import (
    AttentionPoolingConfig,
    AutoregressiveHeadConfig,
    DrawnPoolingConfig,
    MeanPoolingConfig,
    PriorConfig,
)
from vqvideo.models.quantizers.config import EMAVQConfig
from vqvideo.models.tokenizer import FactorisedConv, FrameConv, ReconstructionConfig, VQVAEConfig
from vqvideo.storage.checkpoint import training_checkpoints
from vqvideo.storage.records import read_yaml, typed

_STILL = 1 / 3
"""Share of the pixels that change within a second, up to which small things move on a ground that stays."""
_RARE = 0.25
"""Share of the steps, up to which a reward other than the commonest one is an event."""
_SELDOM = 0.05
"""Share of the steps, up to which events are too few to be learnt from clips that are drawn alike."""
_MOST_COVERED = 0.9
"""Share of the episodes that a training clip is not longer than."""
_STEPS_PER_KIND = 300
"""Steps of a tokenizer of tiles for each kind of them: the rarest ones are seen last, and may matter most."""
_TIMES = 8
"""How often the prior of tiles learns from each frame, at least."""
_PLACES = 2048
"""Places of the prior, over all steps that a batch predicts, that a training step is worth."""


class Suited(NamedTuple):
    """Settings, and why they are so."""

    cfg: Experiment
    """With nothing left to be measured."""
    reasons: tuple[str, ...]
    """A line for each setting that was measured, to be shown."""


class Rule(NamedTuple):
    """What a setting becomes."""

    value: Any
    reason: str


def suited(cfg: Experiment, store: Store, tokenizer: VQVAEConfig | None = None) -> Suited:
    """The experiment with all of `cfg.measured` as the episodes want them, or as its run began.

    Args:
        cfg: the settings.
        store: the episodes.
        tokenizer: what the tokenizer is, if it is trained: what the prior is measured for.
    """
    names: tuple[str, ...] = cfg.measured
    cfg = replace(cfg, measured=())
    if not names:
        return Suited(cfg, ())
    for stage in ("vqvae", "prior"):
        cfg, names = _as_begun(cfg, stage, names)
    if tokenizer is not None:
        cfg, names = with_setting(cfg, "vqvae.model", tokenizer), tuple(n for n in names if not n.startswith("vqvae."))
    seen = look(store)
    if seen is None:
        few = f"fewer than {LEAST} changes from frame to frame in the training episodes of {store.path}"
        return Suited(
            with_dividing_patch(cfg, store.meta.frame_size), (f"{few}: nothing is measured, all stays as it was",)
        )
    reasons = []
    for name, rule in RULES.items():
        if name in names:
            value, reason = rule(fitted(cfg, store.meta.frame_size), seen, store.meta.frame_size)
            cfg = with_setting(cfg, name, value)
            reasons.append(f"{name}: {reason}")
    return Suited(cfg, tuple(reasons))


def with_dividing_patch(cfg: Experiment, frame_size: tuple[int, int]) -> Experiment:
    """The experiment with the largest `prior.model.patch`, up to its own, that divides the grid of tokens."""
    patch = _dividing(fitted(cfg, frame_size), frame_size, cfg.prior.model.patch)
    return with_setting(cfg, "prior.model.patch", patch)


def with_setting(value: Any, name: str, item: Any) -> Any:
    """A dataclass of settings with one of them, of a dotted name, replaced."""
    first, _, rest = name.partition(".")
    return replace(value, **{first: with_setting(getattr(value, first), rest, item) if rest else item})


def _as_begun(cfg: Experiment, stage: str, names: tuple[str, ...]) -> tuple[Experiment, tuple[str, ...]]:
    """The settings of a stage that its run began with, and the names that are left."""
    folder = cfg.folder / stage
    written = folder / "config.yaml"
    if not (training_checkpoints(folder / "checkpoints") and written.is_file()):
        return cfg, names
    begun = typed(Experiment, read_yaml(written), str(written))
    # How dreams are drawn follows from the prior that draws.
    of_stage = (f"{stage}.", "sampling.") if stage == "prior" else (f"{stage}.",)
    for name in names:
        if name.startswith(of_stage):
            item: Any = begun
            for part in name.split("."):
                item = getattr(item, part)
            cfg = with_setting(cfg, name, item)
    return cfg, tuple(name for name in names if not name.startswith(of_stage))


# ---------------------------------------------------------------- the tokenizer


def _backbone(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    if seen.tile:
        cells = FrameConv((1, seen.tile, seen.tile), seen.tile, (64,), 0, 0)
        what = f"pictures are drawn of squares of {seen.tile} pixels, {seen.kinds} kinds of them"
        return Rule(cells, f"{what}: each is a token, and no more")
    moves = f"{seen.moving:.0%} of the pixels change at some time in 25 frames"
    if seen.moving <= _STILL:
        return Rule(
            FrameConv((1, 4, 4), 4, (64,), 0, 0), f"{moves}: small things move, a token is 4x4 pixels of a frame"
        )
    own = cfg.vqvae.model.backbone
    coarse = own if isinstance(own, FactorisedConv) else FactorisedConv((2, 8, 8), 4, (48, 96))
    t = 1 if seen.chosen else 2
    why = "an agent chooses at each" if seen.chosen else "no action is a choice for one frame alone"
    how = (
        f"the whole picture moves, tokens of {coarse.strides[1]}x{coarse.strides[2]} pixels see the past; {t} frame(s)"
    )
    return Rule(replace(coarse, strides=(t, *coarse.strides[1:])), f"{moves}: {how} to a step, as {why}")


def _quantizer(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    if seen.moving > _STILL and not seen.tile:
        return Rule(EMAVQConfig(), "pictures in motion use all of 1024 codes")
    size = next(k for k in (64, 128, 256, 512, 1024) if k >= min(2 * seen.kinds, 1024))
    how_many = f"{seen.kinds:,} kinds of squares make {size} codes"
    return Rule(
        EMAVQConfig(codebook_size=size, revive_below=0.02), f"{how_many}; small things are rare, their codes stay"
    )


def _reconstruction(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    if seen.tile or seen.moving <= _STILL:
        few = f"moving 5: {seen.changed:.1%} of the pixels change from frame to frame, and these count"
        return Rule(ReconstructionConfig(moving=5.0), few)
    return Rule(ReconstructionConfig(), "moving 0: the whole picture moves, and all of it counts alike")


def _tokenizer_steps(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    train = cfg.vqvae.train
    steps = (
        train.steps
        if seen.tile is None or train.min_seconds
        else max(train.steps, _STEPS_PER_KIND * min(seen.kinds, 20))
    )
    return Rule(steps, f"{steps:,}, for {seen.kinds:,} kinds of squares")


# ---------------------------------------------------------------- the prior


def _latent_steps(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    stride, longest = cfg.vqvae.model.backbone.strides[0], cfg.prior.segments.latent_steps
    # Of what is soon learnt, many short clips show more than a few long ones.
    longest = min(longest, 5) if seen.kinds <= FEW else longest

    def covered(steps: int) -> float:
        return sum(length >= stride * (steps - 1) for length in seen.lengths) / len(seen.lengths)

    steps = next((n for n in (9, 5, 3) if n <= longest and covered(n) >= _MOST_COVERED), 2)
    return Rule(steps, f"{steps}, as {covered(steps):.0%} of the episodes are that long")


def _eventful(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    events = seen.ends + (seen.rewards if seen.rewards <= _RARE else 0)
    share = 0.25 if 0 < events <= _SELDOM else 0.0
    return Rule(share, f"{share:g}, as {events:.1%} of the steps bring a rare reward or an end")


def _window(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    window = min(8, cfg.prior.latent_steps - 1)
    return Rule(window, f"{window}, what training clips show")


def _patch(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    grid, patch = cfg.vqvae.model.grid_of(frame_size), _dividing(cfg, frame_size, 2)
    return Rule(patch, f"{patch}, of a grid of {grid[0]}x{grid[1]} tokens")


def _dividing(cfg: Experiment, frame_size: tuple[int, int], most: int) -> int:
    """The largest patch of the prior, up to `most`, that divides the grid of tokens; its own where none does."""
    fitting = cfg.prior.model.patches_for(cfg.vqvae.model.grid_of(frame_size))
    return max((patch for patch in fitting if patch <= most), default=cfg.prior.model.patch)


def _dim(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    return _small(seen, 128, cfg.prior.model.dim)


def _layers(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    return _small(seen, max(3, cfg.prior.model.time_every), cfg.prior.model.layers)


def _time_every(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    return _small(seen, min(3, cfg.prior.model.layers), cfg.prior.model.time_every)


def _small(seen: Seen, small: int, own: int) -> Rule:
    """A size of the prior: small where there is little to learn, so that it takes more steps in the same time."""
    few = seen.kinds <= FEW
    return Rule(
        small if few else own,
        f"{small if few else own}, as {seen.kinds:,} kinds of squares are {'few' if few else 'many'}",
    )


def _head(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    if seen.tile is None:
        return Rule(cfg.prior.model.head, "as it was")
    # Measured in MinAtar's Breakout, where all that is seen seems certain: of 64 dreams of an agent that plays other
    # than the recording, 26 had no ball left after ten steps where tokens were drawn independently, and 7 so.
    return Rule(AutoregressiveHeadConfig(layers=1), "a token knows of those before it: things stay whole")


def _pooling(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    if seen.ends or 0 < seen.rewards <= _RARE:
        if seen.tile:
            return Rule(DrawnPoolingConfig(), "what was drawn at one place decides what an event is")
        return Rule(AttentionPoolingConfig(), "attention: one place decides what an event is")
    return Rule(MeanPoolingConfig(), "mean: no rewards or ends that are rare")


def _corruption(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    if seen.tile or seen.moving <= _STILL:
        # Measured in TinyWorld: a prior that expects random codes among those that it sees takes things for noise, and
        # in 8% of its steps one is gone.
        return Rule(0.0, "0: a small thing is a few tokens, not to be taken for noise")
    return Rule(PriorConfig().corruption, f"{PriorConfig().corruption:g}: against drift in long dreams")


def _reward_weight(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    rare = 0 < seen.rewards <= _RARE
    return Rule(3.0 if rare else 0.1, f"{3.0 if rare else 0.1:g}: {seen.rewards:.1%} of the steps bring another reward")


def _termination_weight(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    weight = 1.0 if seen.ends else 0.1
    return Rule(weight, f"{weight:g}: {seen.ends:.1%} of the steps end an episode")


def _batch(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    places = prod(cfg.prior.model.places(cfg.vqvae.model.grid_of(frame_size))) * (cfg.prior.latent_steps - 1)
    batch = max(4, 4 * round(_PLACES / places / 4))
    return Rule(batch, f"{batch} clips of {places:,} places")


def _prior_steps(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    train = cfg.prior.train
    if seen.tile is None or train.min_seconds:
        return Rule(train.steps, f"{train.steps:,}, as it was")
    frames, a_step = sum(seen.lengths), train.batch * (cfg.prior.latent_steps - 1)
    steps = max(train.steps, 100 * round(_TIMES * frames / a_step / 100))
    return Rule(steps, f"{steps:,}, in which it learns {steps * a_step / frames:.0f} times from each frame")


def _top_p(cfg: Experiment, seen: Seen, frame_size: tuple[int, int]) -> Rule:
    if seen.tile is None:
        return Rule(cfg.sampling.top_p, f"{cfg.sampling.top_p:g}, as it was")
    return Rule(1.0, "1: each token knows of those before it, and what is unlikely may happen")


RULES: Mapping[str, Callable[[Experiment, Seen, tuple[int, int]], Rule]] = {
    "vqvae.model.backbone": _backbone,
    "vqvae.model.quantizer": _quantizer,
    "vqvae.model.reconstruction": _reconstruction,
    "vqvae.train.steps": _tokenizer_steps,
    "prior.latent_steps": _latent_steps,
    "prior.eventful": _eventful,
    "prior.model.window": _window,
    "prior.model.patch": _patch,
    "prior.model.dim": _dim,
    "prior.model.layers": _layers,
    "prior.model.time_every": _time_every,
    "prior.model.head": _head,
    "prior.model.pooling": _pooling,
    "prior.model.corruption": _corruption,
    "prior.model.reward_weight": _reward_weight,
    "prior.model.termination_weight": _termination_weight,
    "prior.train.batch": _batch,
    "prior.train.steps": _prior_steps,
    "sampling.top_p": _top_p,
}
"""By the name of the setting, in the order in which they follow from each other."""
