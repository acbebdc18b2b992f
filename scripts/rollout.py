"""Imagines videos: a few real held-out frames, then the world model dreams on under given actions.

    python scripts/rollout.py --env CarRacing
    python scripts/rollout.py --env CarRacing --actions left       what if it had steered left?
    python scripts/rollout.py --env CarRacing --actions smooth     a policy of the recorder's
    python scripts/rollout.py --env CarRacing --actions=-0.5,0.2,0 a constant action

Writes a video with the rows real, reconstructed, imagined, a contact sheet, and the figures per latent step. Where
nothing was trained or recorded, the world and the start clips that come with vqvideo are taken, and no simulator is
needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import tyro

from vqvideo import cli
from vqvideo.data.recording import snake_case
from vqvideo.errors import InputError, suggest
from vqvideo.models.prior import Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from vqvideo.data.clips import Clips
    from vqvideo.data.store import Store
    from vqvideo.evaluation import HorizonReport
    from vqvideo.world import WorldModel


@dataclass(frozen=True)
class Source:
    """Which world model, and which episodes."""

    env: str = "CarRacing"
    """Environment that was recorded: a preset or a Gymnasium id."""
    name: str | None = None
    """Name of the run that trained the world model; by default the environment's, such as car_racing."""
    world: Path | None = None
    """Folder of the world model, or the name of a shipped one; by default runs/<name>/world, and where nothing was
    trained, the shipped one of the environment."""
    store: Path | None = None
    """Folder of the episodes; by default data/<environment>, such as data/car_racing, and where nothing was recorded,
    the shipped clips."""


@dataclass(frozen=True)
class Options(Source):
    """What to imagine."""

    out: Path | None = None
    """Where the results go; by default rollout/ beside the world model, for a shipped one runs/<name>/rollout."""
    clips: int = 4
    """Clips in the video."""
    evaluate: int = 32
    """Held-out clips for the figures; 0 for none."""
    context: int = 3
    """Latent steps that the model sees."""
    length: int = 16
    """Latent steps to imagine."""
    actions: str = "true"
    """true (those of the episode), a constant action by name or as numbers, or a policy: random, smooth, ..."""
    sampling: tyro.conf.OmitArgPrefixes[Sampling] = field(default_factory=Sampling)
    """How codes are drawn."""
    seed: int = 0
    """Equal seeds dream equal dreams."""
    threads: int | None = None
    """CPU threads; by default measured."""


class Result(NamedTuple):
    """What a rollout wrote."""

    picture: Path
    video: Path
    report: HorizonReport | None
    """Figures under the true actions."""


def rollout(options: Options) -> Result:
    """Writes video, contact sheet and figures."""
    from vqvideo.data.clips import stack_frames
    from vqvideo.evaluation import evaluate_world
    from vqvideo.evaluation.pictures import dream_rows, save_media
    from vqvideo.storage import files
    from vqvideo.training.hardware import configure_threads

    configure_threads(options.threads)
    name = options.name or snake_case(options.env)
    world = load_world(options, name)
    store = open_store(options)
    if store.meta.action_space != world.action_space:
        raise InputError(
            f"the store has actions {store.meta.action_space}, the world model takes {world.action_space}: "
            "they are of different environments"
        )
    clips = held_out_clips(options, world, store)
    picks = clips.spread(options.clips).tolist()
    actions = chosen_actions(options, world, clips, picks)
    rows = dream_rows(world, stack_frames(clips, picks), actions, options.context, options.sampling, options.seed)
    beside = options.world.parent if options.world and options.world.is_dir() else Path("runs") / name
    out = options.out or beside / "rollout"
    stem = out / f"dream_{options.actions.replace(',', '_')}"
    picture, video = save_media(stem, rows, store.meta.fps)
    report = None
    if options.evaluate:
        report = evaluate_world(world, clips, options.evaluate, options.context, options.sampling, options.seed)
        print(report.table())
        files.write_file(out / "figures.json", (json.dumps(report.to_json(), indent=2) + "\n").encode())
    print(f"picture {picture}\nvideo   {video}")
    return Result(picture, video, report)


def load_world(options: Source, name: str) -> WorldModel:
    """The world model that was asked for or trained here, or else the shipped one.

    Raises:
        InputError: there is none, with the commands that train one.
    """
    from vqvideo.training.hardware import default_device
    from vqvideo.world import WorldModel

    folder = options.world or Path("runs") / name / "world"
    if not folder.is_dir():
        shipped = shipped_world(options)
        if shipped is None:
            raise InputError(no_world(options, name, folder))
        print(f"no world model in {folder}: taking {shipped.name}, which comes with vqvideo")
        folder = shipped
    return WorldModel.from_pretrained(folder).to(default_device())


def shipped_world(options: Source) -> Path | None:
    """The folder of the shipped world that stands in for one that is not there."""
    from vqvideo import pretrained

    if options.world is not None:
        return pretrained.find(str(options.world))
    # Who names a run of their own wants no other one.
    return pretrained.find(options.env) if options.name is None else None


def no_world(options: Source, name: str, folder: Path) -> str:
    """What to do when there is no world model: the commands that train one, and the shipped ones."""
    from vqvideo import pretrained

    config = Path(__file__).parents[1] / "configs" / f"{name}.yaml"
    settings = f"--config configs/{name}.yaml" if config.is_file() else f"--name {name} --record.env {options.env}"
    shipped = ", ".join(pretrained.worlds())
    return (
        f"no world model in {folder}. Train one:\n"
        f"  accelerate launch scripts/train_vqvae.py {settings}\n"
        f"  accelerate launch scripts/train_prior.py {settings}\n"
        "or take the quickstart's (python scripts/quickstart.py, CarRacing, about nine minutes):\n"
        "  python scripts/rollout.py --world runs/quickstart/world --store data/quickstart"
    ) + (f"\nor one that comes with vqvideo: --env {shipped}" if shipped else "")


def open_store(options: Source) -> Store:
    """The episodes that were asked for or recorded here, or else the clips of the shipped world."""
    from vqvideo import pretrained
    from vqvideo.data.store import Store

    folder = options.store or Path("data") / snake_case(options.env)
    shipped = shipped_world(options) or pretrained.find(options.env)
    if options.store is not None or folder.is_dir() or shipped is None:
        return Store.open(folder)
    store = pretrained.start_store(shipped.name)
    print(f"no episodes in {folder}: taking the {len(store.entries)} start clips of {shipped.name}")
    return store


def held_out_clips(options: Options, world: WorldModel, store: Store) -> Clips:
    """Held-out clips that hold context and horizon."""
    from vqvideo.data.clips import Clips

    for name in ("context", "length", "clips"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; it must be at least 1")
    try:
        return Clips(store, "held_out", world.vqvae.clip_length(options.context + options.length))
    except InputError as error:
        raise InputError(f"{error}: here with --context {options.context} and --length {options.length}") from error


def chosen_actions(options: Options, world: WorldModel, clips: Clips, picks: list[int]) -> Tensor:
    """(b, t - 1, a): the true actions in the context, then those that were asked for."""
    import torch

    actions = torch.stack([clips[i]["actions"] for i in picks])
    if options.actions == "true":
        return actions
    start = world.vqvae.clip_length(options.context) - 1
    future = torch.as_tensor(other_actions(options, world, actions.shape[1] - start), dtype=torch.float32)
    return torch.cat([actions[:, :start], future.expand(len(actions), -1, -1)], dim=1)


def other_actions(options: Options, world: WorldModel, count: int) -> list[list[float]]:
    """`count` flat actions: a constant one or a policy's."""
    from vqvideo.envs.policies import POLICIES, imagined_actions

    named = named_actions(world)
    if options.actions in named:
        return [list(named[options.actions])] * count
    try:
        constant = [float(word) for word in options.actions.split(",")]
    except ValueError:
        if options.actions not in POLICIES:
            known = ["true", *named, *POLICIES]
            raise InputError(f"--actions {options.actions!r}: {suggest(options.actions, known)}") from None
        return imagined_actions(options.actions, world.action_space.native(), count, options.seed)
    world.action_space.validate(constant, "--actions")
    return [constant] * count


def named_actions(world: WorldModel) -> Mapping[str, tuple[float, ...]]:
    """Constant actions by name; none for an environment that is not installed here."""
    from vqvideo import envs

    try:
        return envs.resolve(world.env.env_id).actions
    except InputError:
        return {}


def main() -> None:
    """Reads the command line and imagines."""
    rollout(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
