"""Imagines videos: a few real held-out frames, then the world model dreams on under given actions.

    python scripts/rollout.py --env CarRacing
    python scripts/rollout.py --env CarRacing --actions left       what if it had steered left?
    python scripts/rollout.py --env CarRacing --actions smooth     a policy of the recorder's
    python scripts/rollout.py --env CarRacing --actions=-0.5,0.2,0 a constant action
    python scripts/rollout.py --env CarRacing --actions left --beside right brake    a row for each
    python scripts/rollout.py --env CarRacing --export minari      the dreams as a dataset, beside the video

Writes a video with the rows real, reconstructed, imagined (or a row for each of several actions), a contact sheet, and
the figures per latent step. Where nothing was trained or recorded, the world and the start clips that come with vqvideo
are taken, and no simulator is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import tyro

from vqvideo import cli
from vqvideo.errors import InputError, at_least, suggest
from vqvideo.experiment.drawing import Drawing
from vqvideo.experiment.finding import Source, clips_to_dream

if TYPE_CHECKING:
    from torch import Tensor

    from vqvideo.data.clips import Clips
    from vqvideo.evaluation.horizon import HorizonReport
    from vqvideo.evaluation.pictures import Frames
    from vqvideo.world import WorldModel


@dataclass(frozen=True)
class Options(Source):
    """What to imagine."""

    out: Path | None = None
    """Where the results go; by default rollout/ beside the world model, for a shipped one runs/<name>/rollout."""
    clips: int = 4
    """Clips in the video; as many as there is no room for beside each other go into further ones (..._page2.mp4)."""
    evaluate: int = 32
    """Held-out clips for the figures, at least 2; 0 for none."""
    context: int = 3
    """Latent steps that the model sees."""
    length: int = 16
    """Latent steps to imagine."""
    actions: str = "true"
    """true (those of the episode), a constant action by name or as numbers, or a policy: random, smooth, ..."""
    beside: tuple[str, ...] = ()
    """Further actions of that kind: the picture then has a row for each, of dreams that begin alike."""
    columns: int = 12
    """Frames of each row in the picture, spread evenly; the video shows all."""
    sampling: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    """How codes are drawn."""
    seed: int = 0
    """Equal seeds dream equal dreams."""
    export: Literal["lerobot", "minari", "mp4"] | None = None
    """Also write the dreams under --actions as a dataset, into a new folder beside the videos: each an episode from the
    last real frame on, with actions and imagined rewards, up to where the model lets it end."""
    threads: int | None = None
    """CPU threads; by default measured."""
    compile: bool = False
    """Dream by torch.compile: it takes minutes before the first dream, and pays for long ones."""

    def __post_init__(self) -> None:
        # Clips lend each other their actions.
        at_least(self, "--", clips=1, context=1, length=1, columns=1, evaluate=2 if self.evaluate else 0)


class Result(NamedTuple):
    """What a rollout wrote."""

    picture: Path
    video: Path | None
    """None where PyAV is not installed."""
    report: HorizonReport | None
    """Figures under the true actions."""


def rollout(options: Options) -> Result:
    """Writes video, contact sheet and figures."""
    from vqvideo.data.export import check_free
    from vqvideo.evaluation.world import evaluate_world
    from vqvideo.storage import files
    from vqvideo.training.hardware import configure_threads

    configure_threads(options.threads)
    world, store = options.find()
    if options.compile:
        world.compile_steps()
    clips = clips_to_dream(world, store, context=options.context, length=options.length)
    out = options.out or options.results / "rollout"
    files.make_folder(out)
    if options.export:
        check_free(dreams_folder(options, out))
    picture, video = dream_pages(options, world, clips, out)
    if options.export:
        export_dreams(options, world, clips, out)
    report = None
    if options.evaluate:
        report = evaluate_world(
            world, clips, options.evaluate, options.context, options.sampling.of(world), options.seed
        )
        print(report.table())
        files.write_file(out / "figures.json", (json.dumps(report.to_json(), indent=2) + "\n").encode())
    return Result(picture, video, report)


def dream_pages(options: Options, world: WorldModel, clips: Clips, out: Path) -> tuple[Path, Path | None]:
    """Dreams and writes as many clips at once as a video shows; the first picture, and its video."""
    from vqvideo.evaluation.pictures import save_media

    count = sum(map(len, pages(options, world, clips)))
    if count < options.clips:
        print(f"{count} clips, which are all of this length, instead of --clips {options.clips}")
    written = []
    for number, page in enumerate(pages(options, world, clips)):
        labels, rows = labelled_rows(options, world, clips, page, number)
        name = f"{stem(options)}_page{number + 1}" if number else stem(options)
        written.append(save_media(out / name, rows, clips.store.meta.fps, columns=options.columns, labels=labels))
    kept = {picture.stem for picture, _ in written}
    for earlier in out.glob(f"{stem(options)}_page*.*"):
        if earlier.stem not in kept:
            earlier.unlink()
    picture, video = written[0]
    print(f"picture {picture}\nvideo   {video or 'none: it needs PyAV (pip install av)'}")
    if len(written) > 1:
        print(f"        {count} clips are on {len(written)} pages, the last one is {written[-1][0].stem}")
    return picture, video


def labelled_rows(
    options: Options, world: WorldModel, clips: Clips, page: list[int], number: int
) -> tuple[Sequence[str], list[list[Frames]]]:
    """What the rows of a page show, and the rows of each of its clips."""
    from vqvideo.evaluation.pictures import LABELS, dream_rows, what_if_rows

    frames, actions, seed = to_dream(options, world, clips, page, number)
    if not options.beside:
        return LABELS, dream_rows(world, frames, actions, options.context, options.sampling.of(world), seed)
    names = (options.actions, *options.beside)
    choices = [to_dream(replace(options, actions=name), world, clips, page, number)[1] for name in names]
    return ("real", *names), what_if_rows(world, frames, choices, options.context, options.sampling.of(world), seed)


def export_dreams(options: Options, world: WorldModel, clips: Clips, out: Path) -> None:
    """Writes what the videos show as a dataset. Dreamt once more, alike: few dreams are in memory."""
    from vqvideo.data.export import export_episodes
    from vqvideo.data.exporting import exporter_class
    from vqvideo.evaluation.dream_episodes import dream_episodes, dream_meta

    dreams = (
        dream
        for number, page in enumerate(pages(options, world, clips))
        for frames, actions, seed in [to_dream(options, world, clips, page, number)]
        for dream in dream_episodes(world, frames, actions, options.context, options.sampling.of(world), seed)
    )
    meta = dream_meta(world, clips.store.meta, options.actions, options.seed)
    folder = export_episodes(dreams, meta, options.export or "", dreams_folder(options, out))
    print(f"dreams  {folder}: read them with {exporter_class(options.export or '').read_with.format(folder=folder)}")


def dreams_folder(options: Options, out: Path) -> Path:
    """Where dreams are exported to."""
    return out / f"{stem(options)}_{options.export}"


def stem(options: Options) -> str:
    """How the names of all that is written begin."""
    return f"dream_{'_'.join((options.actions, *options.beside)).replace(',', '_')[:100]}"


def pages(options: Options, world: WorldModel, clips: Clips) -> list[list[int]]:
    """The clips to dream on from, as many at once as a video shows."""
    import numpy as np

    from vqvideo.evaluation.pictures import LABELS, clips_on_page

    picks = clips.spread(options.clips)
    rows = 2 + len(options.beside) if options.beside else len(LABELS)
    return [
        page.tolist() for page in np.array_split(picks, -(-len(picks) // clips_on_page(world.vqvae.frame_size, rows)))
    ]


def to_dream(
    options: Options, world: WorldModel, clips: Clips, page: list[int], number: int
) -> tuple[Tensor, Tensor, int]:
    """Of a page by its number: real frames (b, t, c, h, w), actions to dream under (b, t - 1, a), the seed."""
    import torch

    from vqvideo.data.clips import stack_frames

    true = torch.stack([clips[i]["actions"] for i in page])
    return stack_frames(clips, page), chosen_actions(options, world, true), options.seed + number


def chosen_actions(options: Options, world: WorldModel, true: Tensor) -> Tensor:
    """(b, t - 1, a): the true actions in the context, then those that were asked for."""
    import torch

    if options.actions == "true":
        return true
    if not world.action_space.size:
        raise InputError(f"--actions {options.actions}: this world was trained without actions; leave the option away")
    start = world.vqvae.clip_length(options.context) - 1
    future = torch.as_tensor(other_actions(options, world, true.shape[1] - start), dtype=torch.float32)
    return torch.cat([true[:, :start], future.expand(len(true), -1, -1)], dim=1)


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
        return envs.named_actions(world.env.env_id, world.action_space)
    except InputError:
        return {}


def main() -> None:
    """Reads the command line and imagines."""
    rollout(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
