"""What would be refused in the midst of a run is refused before its first second: all that follows from the settings,
and, once there are episodes, from these.

    check_settings(cfg, "vqvae", "prior")     before episodes are recorded
    check_store(cfg, store, "prior")          before a training

Rules are those of the models: of their settings, and of the models themselves, which are built without weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, Unpack

import torch
from torch import nn

from vqvideo.data.collect import split_of
from vqvideo.data.config import RecordConfig
from vqvideo.data.images import Images
from vqvideo.data.index import SPLITS
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, vqvae_folder
from vqvideo.experiment.frame_sizes import fitted
from vqvideo.experiment.objective import TokenizerObjective, tokenizer_to_continue
from vqvideo.experiment.suited import suited, with_dividing_patch
from vqvideo.experiment.warm_start import warm_start
from vqvideo.models.prior import ActionStats, Prior, PriorSpec
from vqvideo.models.tokenizer.backbone_config import fitting_sizes
from vqvideo.models.tokenizer.config import VQVAEConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.spaces import ActionSpace
from vqvideo.storage import files
from vqvideo.storage.checkpoint import model_tensors
from vqvideo.storage.files import DiskError
from vqvideo.training.config import TrainConfig
from vqvideo.training.run_folder import RunFolder
from vqvideo.training.trackers import chosen_trackers

Stage = Literal["vqvae", "prior", "agent"]
"""What is going to be trained. An agent's rules about episodes and actions count only where one is."""
_ANY_ACTIONS = ActionSpace.from_json({"kind": "discrete", "shape": [], "dtype": "int64", "low": [0], "high": [1]})
"""Stands in for the actions of an environment that was not looked at yet; what is checked depends on none."""


class Known(TypedDict, total=False):
    """What a check may know besides the settings."""

    processes: int
    """Processes that share a batch of the next stage; by default 1."""
    resume: bool
    """Whether the next stage may go on with a run; false refuses one that is there. By default true."""
    tokenizer: VQVAE
    """The trained tokenizer of a prior; by default what the settings describe."""
    continued: str | None
    """With `tokenizer`: fingerprint of the one that it was continued from, if it was."""
    dreams: tuple[int, int]
    """Latent steps to see and to dream on with, of held-out clips that are going to be compared."""


class Episodes(NamedTuple):
    """What there is to train on, or will be."""

    source: str
    """Names them in errors about how many and how long they are."""
    pictures: str
    """Names them in errors about the frames."""
    frame_size: tuple[int, int]
    """(h, w) in pixels."""
    frames: Mapping[str, Sequence[int]]
    """Frames of each episode, by split."""
    lacking: Mapping[str, str]
    """What to say where a split has none."""
    action_space: ActionSpace = _ANY_ACTIONS
    """Of the actions."""

    def longest(self, split: str) -> int:
        """Frames of the longest episode of a split. InputError if there is none."""
        if not self.frames[split]:
            raise InputError(self.lacking[split])
        return max(self.frames[split])


def planned(record: RecordConfig) -> Episodes:
    """What is going to be recorded, if no episode ends early."""
    every, count = record.held_out_every, record.episodes
    splits = [split_of(index, every) for index in range(count)]
    fitting = f"take 2 to {count}" if count > 1 else "record at least 2 episodes"
    found = f"--record.held-out-every {every} of --record.episodes {count}"
    return Episodes(
        source=f"--record.steps {record.steps}",
        pictures=f"--record.frame-size {_shown(record.size)}",
        frame_size=record.size,
        frames={split: [record.steps + 1] * splits.count(split) for split in SPLITS},
        lacking={
            "train": f"{found} holds every episode out and leaves none to train on: {fitting}",
            "held_out": f"{found} holds no episode out, and validation needs one: {fitting}",
        },
    )


def recorded(store: Store) -> Episodes:
    """What a store holds."""
    every = store.meta.held_out_every
    found = f"{store.path}: of its {len(store.entries)} episodes"
    more = f"record {every} or more into it" if every > 1 else "record into another folder with --held-out-every 6"
    if store.meta.imported:
        more = "import into another folder with fewer --steps, or with --held-out-every 2"
    return Episodes(
        source=str(store.path),
        pictures=str(store.path),
        frame_size=store.meta.frame_size,
        frames={split: [entry.length + 1 for entry in store.split(split)] for split in SPLITS},
        lacking={
            "train": f"{found} all are held out, and none is left to train on: {more}",
            "held_out": f"{found} none is held out, and validation needs one: {more}",
        },
        action_space=store.meta.action_space,
    )


# ---------------------------------------------------------------- the two doors


def check_settings(cfg: Experiment, *stages: Stage, **known: Unpack[Known]) -> None:
    """Raises what some stages would raise sooner or later, before anything is recorded for them.

    Args:
        cfg: the settings. The episodes are those that `cfg.record` asks for.
        stages: those to come, the next one first.
        known: what else is known of them.

    Raises:
        InputError: two settings do not fit each other, what they name is not there, or an extra is missing; it names
            the settings, and values that fit.
        DiskError: the run's folder cannot be written, or has no room for the checkpoints.
    """
    _check(cfg, planned(cfg.record), stages, known)


def check_store(cfg: Experiment, store: Store, *stages: Stage, **known: Unpack[Known]) -> None:
    """As `check_settings`, of episodes that are there: instead of those that `cfg.record` asks for, the ones of
    `store`, with its frame size and its actions, whatever `cfg.record` says.
    """
    if "agent" in stages:
        check_rewards(store)
    tokenizer = known.get("tokenizer")
    _check(suited(cfg, store, tokenizer.cfg if tokenizer else None).cfg, recorded(store), stages, known)


def check_rewards(store: Store) -> None:
    """Raises InputError if no training episode of a store has any reward, from which an agent could learn."""
    train = store.split("train")
    if any(entry.total_reward for entry in train) or any(store.reader(e).steps.rewards.any() for e in train):
        return
    raise InputError(
        f"no reward in the {len(train)} training episodes of {store.path}: nothing to learn. Record more or longer "
        "ones, or with another --record.policy"
    )


def _check(cfg: Experiment, episodes: Episodes, stages: Sequence[Stage], known: Known) -> None:
    if "prior.model.patch" in cfg.measured:
        with _about(episodes.pictures):
            cfg = with_dividing_patch(cfg, episodes.frame_size)
    cfg = fitted(cfg, episodes.frame_size)
    if not known.get("resume", True):
        RunFolder(cfg.folder / stages[0]).refuse_run()
    for number, stage in enumerate(stages):
        # Stages that come later may be started with another number.
        _check_training(cfg, stage, 1 if number else known.get("processes", 1))
    tokenizer = known.get("tokenizer")
    trained: dict[Stage, nn.Module] = {}
    if "vqvae" in stages:
        trained["vqvae"] = _check_vqvae(cfg, episodes)
    if "prior" in stages:
        trained["prior"] = _check_prior(cfg, episodes, tokenizer, known.get("continued"))
    if "agent" in stages:
        _check_agent(cfg, episodes, tokenizer.cfg if tokenizer else cfg.vqvae.model)
    if "dreams" in known:
        _check_dreams(cfg, episodes, tokenizer.cfg if tokenizer else cfg.vqvae.model, *known["dreams"])
    _check_disk(cfg, stages, trained)


# ---------------------------------------------------------------- stage by stage


def _check_vqvae(cfg: Experiment, episodes: Episodes) -> nn.Module:
    """Returns what is trained, without weights."""
    stage, size = cfg.vqvae, episodes.frame_size
    with _about(episodes.pictures):
        grid = stage.model.grid_of(size)
    least = getattr(stage.adversarial, "least_side", 1)
    if min(size) < least:
        raise InputError(f"{episodes.pictures}: vqvae.adversarial takes frames of {least}x{least} or more")
    for split in SPLITS:
        _check_length(episodes, split, stage.model, stage.latent_steps, "--vqvae.latent-steps", least=1)
    if stage.stills.per_batch and stage.stills.folder is not None:
        Images(stage.stills.folder, size)
    stage.perceptual.build()
    with torch.device("meta"):
        objective = TokenizerObjective(stage.model.build(size), adversarial=stage.adversarial)
    vqvae = objective.vqvae
    if stage.init is not None:
        tokenizer_to_continue(vqvae, stage.init)
        return objective
    length = stage.model.clip_length(stage.latent_steps)
    clips = sum(max(0, frames + 1 - length) for frames in episodes.frames["train"])
    latents, needed = clips * stage.latent_steps * grid[0] * grid[1], vqvae.quantizer.least_latents
    if latents < needed:
        raise InputError(
            f"{episodes.source}: its {len(episodes.frames['train'])} training episodes give {latents} latents to start "
            f"the {needed} codes of vqvae.model.quantizer from: record more, or take at most {latents} codes"
        )
    return objective


def _check_prior(cfg: Experiment, episodes: Episodes, tokenizer: VQVAE | None, continued: str | None) -> nn.Module:
    """Returns what is trained, without weights."""
    stage, size = cfg.prior, episodes.frame_size
    model = tokenizer.cfg if tokenizer else cfg.vqvae.model
    if tokenizer is not None and tokenizer.frame_size != size:
        raise InputError(
            f"{episodes.pictures}: frames of {_shown(size)}, but the tokenizer takes {_shown(tokenizer.frame_size)}: "
            "name the store that it was trained on with --record.out, or train one on these"
        )
    _check_patch(cfg, episodes, model)
    for split in SPLITS:
        _check_length(episodes, split, model, stage.latent_steps, "--prior.latent-steps", least=2)
    if stage.segments.latent_steps < stage.latent_steps:
        raise InputError(
            f"--prior.segments.latent-steps {stage.segments.latent_steps} cuts episodes into segments that are shorter "
            f"than the clips of --prior.latent-steps {stage.latent_steps}: take at least {stage.latent_steps}"
        )
    with _about("--sampling.guidance"):
        stage.model.check_sampling(cfg.sampling, episodes.action_space.size)
    with _about("--agent.context"):
        stage.model.check_context(cfg.agent.context)
    if stage.init is None:
        return _sketch(cfg, episodes, tokenizer, "")
    if tokenizer is None:
        continued = _fingerprint(cfg.vqvae.init)
    trained = tokenizer.fingerprint() if tokenizer else _fingerprint(vqvae_folder(cfg))
    prior = _sketch(cfg, episodes, tokenizer, trained or "")
    warm_start(prior, stage.init, continued=continued)
    return prior


def _fingerprint(folder: Path | None) -> str | None:
    """Of the tokenizer in a folder, if there is one."""
    return VQVAE.from_pretrained(folder).fingerprint() if folder and files.standing(folder).is_dir() else None


def _sketch(cfg: Experiment, episodes: Episodes, tokenizer: VQVAE | None, fingerprint: str) -> Prior:
    """The prior, without weights, for the tokenizer that is there or that will be."""
    with torch.device("meta"):
        vqvae = tokenizer or cfg.vqvae.model.build(episodes.frame_size)
    quantizer, width = vqvae.quantizer, episodes.action_space.size
    spec = PriorSpec(
        grid=vqvae.grid,
        codebook_size=quantizer.codebook_size,
        code_dim=quantizer.dim,
        stride=vqvae.stride,
        action_space=episodes.action_space,
        stats=ActionStats((0.0,) * width, (1.0,) * width, 0.0, 1.0),
        tokenizer=fingerprint,
    )
    with torch.device("meta"):
        return Prior(cfg.prior.model, spec, torch.empty(spec.codebook_size, spec.code_dim))


def _check_patch(cfg: Experiment, episodes: Episodes, model: VQVAEConfig) -> None:
    with _about(episodes.pictures):
        grid, prior = model.grid_of(episodes.frame_size), cfg.prior.model
    try:
        prior.places(grid)
    except InputError as error:
        ch, cw = model.backbone.cell
        sizes = fitting_sizes(episodes.frame_size, (ch * prior.patch, cw * prior.patch))
        raise InputError(
            f"{episodes.pictures}: the tokenizer makes a grid of {grid[0]}x{grid[1]} tokens of frames of "
            f"{_shown(episodes.frame_size)}, which --prior.model.patch {prior.patch} does not divide: record with "
            f"--frame-size {sizes}, or take --prior.model.patch {' or '.join(map(str, prior.patches_for(grid)))}"
        ) from error


def _check_agent(cfg: Experiment, episodes: Episodes, model: VQVAEConfig) -> None:
    from vqvideo.agents.agent import trainable_space

    trainable_space(episodes.action_space)
    split = "train" if episodes.frames["train"] else "held_out"
    # An episode goes on after the context that a dream begins from.
    needed = model.clip_length(cfg.agent.context) + 1
    if episodes.longest(split) < needed:
        raise InputError(
            f"{episodes.source}: the longest {split} episode has {episodes.longest(split)} frames, and "
            f"--agent.context {cfg.agent.context} needs {needed}: record longer ones, or take a smaller context"
        )


# ---------------------------------------------------------------- rules that stages share


def _check_dreams(cfg: Experiment, episodes: Episodes, model: VQVAEConfig, context: int, horizon: int) -> None:
    cfg.prior.model.check_context(context)
    longest, length = episodes.longest("held_out"), model.clip_length(context + horizon)
    if longest < length:
        raise InputError(
            f"{episodes.source}: the longest held_out episode has {longest} frames, and {context} latent steps to see "
            f"and {horizon} to dream on take {length}: record at least {length - 1} steps"
        )
    if sum(max(0, frames + 1 - length) for frames in episodes.frames["held_out"]) < 2:
        raise InputError(
            f"{episodes.source}: one held_out clip of {length} frames, and actions are compared on 2: record at least "
            f"{length} steps, or more episodes"
        )


def _check_length(
    episodes: Episodes, split: str, model: VQVAEConfig, latent_steps: int, flag: str, *, least: int
) -> None:
    longest, needed = episodes.longest(split), model.clip_length(latent_steps)
    if longest >= needed:
        return
    most = model.latent_steps(longest)
    lower = f", or lower {flag} to {most}" if most >= least else ""
    raise InputError(
        f"{episodes.source}: the longest {split} episode has {longest} frames, and {flag} {latent_steps} takes clips "
        f"of {needed}: record at least {needed - 1} steps{lower}"
    )


def _check_training(cfg: Experiment, stage: Stage, processes: int) -> None:
    if stage == "agent":
        return
    train: TrainConfig = getattr(cfg, stage).train
    chosen_trackers(train)
    with _about(f"--{stage}.train.batch"):
        train.micro_batch(processes)
    if stage == "vqvae" and cfg.vqvae.stills.per_batch:
        with _about("--vqvae.stills.per-batch"):
            replace(train, batch=cfg.vqvae.stills.per_batch).micro_batch(processes)


def _check_disk(cfg: Experiment, stages: Sequence[Stage], trained: Mapping[Stage, nn.Module]) -> None:
    """Raises DiskError if the folders of stages cannot be written, or have no room for all checkpoints."""
    try:
        for stage in stages:
            files.check_writable(cfg.folder / stage)
    except DiskError as error:
        raise DiskError(f"{error}: choose another place with --runs") from error
    needed = 0
    for name, model in trained.items():
        weights = [p for p in model.parameters() if p.requires_grad]
        # The averaged weights and two moments of the optimizer.
        size = sum(value.nbytes for value in [*model_tensors(model).values(), *(3 * weights)])
        needed += RunFolder(cfg.folder / name).missing_room(size, getattr(cfg, name).train.keep)
    place = next(p for p in (cfg.folder.absolute(), *cfg.folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskError(
            f"{cfg.folder}: checkpoints of {' and '.join(trained)} need {needed / 2**20:.1f} MiB, "
            f"{free / 2**20:.1f} MiB are free: make room, keep fewer (train.keep), or choose another place with --runs"
        )


@contextmanager
def _about(what: str) -> Iterator[None]:
    """Names in an InputError what it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"
