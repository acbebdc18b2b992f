"""Says where a film or an episode is unlike what a world has learnt, by how unexpected its codes and pictures are.

    python scripts/anomaly.py data/suspicious --episode 3 --normal data/car_racing --world runs/car_racing/world
    python scripts/anomaly.py film.mp4 --normal data/my_videos --world runs/my_videos/world

The threshold comes from held-out episodes that are known to be normal, for a rate of false alarms that you choose.
Writes a table (a row for each latent step), a plot, and the film with unexpected places coloured and alarms framed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from vqvideo import cli
from vqvideo.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqvideo.data.sources import Source
    from vqvideo.evaluation.anomaly import Calibration, Seen
    from vqvideo.world import WorldModel

COLUMNS = ("step", "frame", "seconds", "score", "alarm")
"""Of the table; then come the signals."""


@dataclass(frozen=True)
class Options:
    """What to watch, and what is normal."""

    source: tyro.conf.Positional[Path]
    """A film, or the folder of a store."""
    normal: Path | None = None
    """Store of normal episodes, of which the held-out ones are taken; by default the one that is watched."""
    world: str = "carracing"
    """Folder of a world model, such as runs/car_racing/world, or the name of one that comes along."""
    episode: int = 0
    """Which episode of a store to watch."""
    rate: float = 0.005
    """Share of the steps of normal episodes that may be false alarms."""
    out: Path | None = None
    """Folder for table, plot and film; by default anomalies/<source>."""
    resize: Literal["crop", "pad", "stretch"] | None = None
    """What to do with a film of another size than the world takes; by default it is refused."""
    fps: float | None = None
    """Frames per second of a film that does not say it."""
    threads: int | None = None
    """CPU threads; by default measured."""


def watch(options: Options) -> None:
    """Calibrates, watches, writes and prints."""
    import numpy as np

    from vqvideo import WorldModel
    from vqvideo.evaluation.anomaly import watched
    from vqvideo.storage import files
    from vqvideo.training.hardware import configure_threads

    if not options.source.exists():
        raise InputError(f"{options.source}: no such film or store")
    configure_threads(options.threads)
    world = WorldModel.from_pretrained(options.world).eval()
    source, out = _source(options, world), options.out or Path("anomalies") / options.source.stem
    normal = _calibrated(options, world)
    seen = list(watched(world, source.frames, source.actions))
    if not seen:
        raise InputError(f"{options.source}: fewer frames than a latent step of {world.stride} and one before it")
    scores = normal.scores(np.array([one.signals for one in seen]))
    files.make_folder(out)
    _write(out, seen, scores, normal.threshold, source.fps)
    alarms = np.flatnonzero(scores > normal.threshold)
    began = [seen[number].frame for number in alarms[:1]]
    first = "".join(f", the first at frame {frame} ({frame / source.fps:.2f} s)" for frame in began)
    print(
        f"{source.name}: {len(alarms)} of {len(seen)} latent steps are alarms{first}; the threshold is "
        f"{normal.threshold:.2f}, for {options.rate:g} false alarms a step, by {normal.steps} normal steps"
    )
    print(f"table   {out / 'steps.csv'}\nplot    {out / 'scores.png'}\nfilm    {out / 'film.mp4'}")


def _source(options: Options, world: WorldModel) -> Source:
    from vqvideo.data import sources

    if options.source.is_dir():
        return sources.episode(options.source, options.episode)
    return sources.film(options.source, world.vqvae.frame_size, options.resize, options.fps)


def _calibrated(options: Options, world: WorldModel) -> Calibration:
    """By the held-out episodes of the normal store, without the one that is watched."""
    import numpy as np

    from vqvideo.data.store import Store
    from vqvideo.evaluation.anomaly import Calibration, watched

    folder = options.normal or options.source
    if not folder.is_dir():
        raise InputError(f"{folder}: what is normal? Name a store of normal episodes: --normal data/car_racing")
    store = Store.open(folder)
    store.require(world.action_space, world.vqvae.frame_size)
    normal: list[NDArray[np.float64]] = []
    for entry in store.split("held_out"):
        if folder != options.source or entry.index != options.episode:
            episode = store.episode(entry)
            normal.append(np.array([seen.signals for seen in watched(world, episode.frames, episode.actions)]))
    return Calibration.of([episode for episode in normal if len(episode)], options.rate)


def _write(out: Path, seen: list[Seen], scores: NDArray[np.float64], threshold: float, fps: float) -> None:
    import numpy as np

    from vqvideo.evaluation.anomaly import SIGNALS
    from vqvideo.evaluation.anomaly_pictures import overlaid, score_plot
    from vqvideo.evaluation.pictures import write_mp4, write_png

    with open(out / "steps.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *(name.replace(" ", "_") for name in SIGNALS[: len(seen[0].signals)])])
        for number, (one, score) in enumerate(zip(seen, scores, strict=True), 1):
            figures = [f"{value:.6g}" for value in one.signals]
            alarm = int(score > threshold)
            writer.writerow([number, one.frame, f"{one.frame / fps:.4f}", f"{score:.6g}", alarm, *figures])
    write_png(out / "scores.png", score_plot(scores, threshold, np.array([one.frame for one in seen]) / fps))

    def frames() -> Iterator[NDArray[np.uint8]]:
        for one, score in zip(seen, scores, strict=True):
            yield from overlaid(one, alarm=bool(score > threshold))

    write_mp4(out / "film.mp4", frames(), fps)


def main() -> None:
    """Reads the command line and watches."""
    watch(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
