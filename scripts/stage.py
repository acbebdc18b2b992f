"""What `play.py` puts before a player: a world, clips to start from, the real environment where it runs, the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo.errors import InputError
from vqvideo.experiment.finding import Source, clips_to_dream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vqvideo.data.clips import StartClips
    from vqvideo.data.index import StoreMeta
    from vqvideo.export.site_starts import Start
    from vqvideo.models.prior import Sampling
    from vqvideo.play.reality import Reality
    from vqvideo.play.recorder import Recorder
    from vqvideo.play.session import Session
    from vqvideo.world import WorldModel


@dataclass(frozen=True)
class Stage:
    """All that a player meets."""

    world: WorldModel
    meta: StoreMeta
    """Of the store that the clips are from."""
    clips: StartClips
    """To start from."""
    context: int
    """Latent steps that a dream has seen when it begins."""
    shown: list[Start]
    """The clips as the page shows them."""
    frame: NDArray[np.uint8] | None
    """(h, w, 3): what the real environment shows first; None where it does not run."""
    note: str
    """What to say of the real environment."""

    def session(self, recorder: Recorder | None = None) -> Session:
        """For one player."""
        from vqvideo.play.game import Game
        from vqvideo.play.session import Session

        game = None if self.frame is None else Game(real_environment(self.meta), recorder)
        return Session(self.world, self.clips, self.context, game)

    def files(self, sampling: Sampling) -> dict[str, bytes]:
        """The page, which draws codes like this at first."""
        from vqvideo.envs import keys
        from vqvideo.export.page import page_files, to_json, world_fields
        from vqvideo.export.site_starts import webp
        from vqvideo.play.server import SOCKET

        space, stats = self.world.action_space, self.world.prior.spec.stats
        controls = keys.to_json(space, keys.controls(self.world.env.env_id, space), stats.mean, stats.std)
        site = world_fields(self.world, sampling, controls) | {"engine": "socket", "socket": SOCKET, "note": self.note}
        site |= {"real": self.frame is not None, "starts": [one.record for one in self.shown]}
        pictures = {name: data for one in self.shown for name, data in one.files.items()}
        if self.frame is not None:
            site["starts"].insert(0, {"label": "the game itself", "thumbnail": "game.webp"})
            pictures["game.webp"] = webp(self.frame)
        return {**page_files(), **pictures, "site.json": to_json(site)}


def set_stage(source: Source, count: int, context: int, length: int, real: bool) -> Stage:
    """Finds the world and the clips, and looks whether the real environment runs here.

    Args:
        source: which world and episodes.
        count: clips to start from.
        context: latent steps that a dream has seen when it begins.
        length: latent steps of a clip that are shown beside its dream.
        real: whether the real environment is wanted.
    """
    import torch

    from vqvideo.data.clips import StartClips
    from vqvideo.export.site_starts import starts

    world, store = source.find()
    windows = clips_to_dream(world.eval(), store, context=context, length=length)
    picked = [windows[index] for index in windows.spread(count).tolist()]
    clips = StartClips(*(torch.stack([clip[name] for clip in picked]) for name in StartClips._fields))
    frame, note = first_frame(store.meta) if real else (None, "The dream alone, as --no-real asks.")
    return Stage(world, store.meta, clips, context, starts(world, windows, count, context), frame, note)


def first_frame(meta: StoreMeta) -> tuple[NDArray[np.uint8] | None, str]:
    """What the real environment shows first, if it runs here, and what to say of it."""
    reality = real_environment(meta)
    try:
        return reality.reset(0), f"The real {meta.env_id} is beside the dream, from its own start."
    except InputError as error:
        return None, f"The dream alone: {error}"
    finally:
        reality.close()


def real_environment(meta: StoreMeta) -> Reality:
    """As it was recorded, but without a limit of time: who plays well may go on."""
    from vqvideo import envs
    from vqvideo.play.reality import Reality

    endless = replace(meta, env_kwargs={**meta.env_kwargs, "max_episode_steps": -1})
    return Reality(partial(envs.as_recorded, endless), meta.action_space)


@contextmanager
def recording(folder: Path, stage: Stage) -> Iterator[Recorder]:
    """What keeps the games in a store, which says in the end how many there are."""
    from vqvideo.data.store import StoreWriter
    from vqvideo.envs.recording import played_by_hand
    from vqvideo.play.recorder import Recorder

    if stage.frame is None:
        raise InputError(f"--record: there is no real environment to record. {stage.note}")
    with StoreWriter.open(folder, played_by_hand(stage.meta)) as store:
        before = len(store.indices)
        try:
            yield Recorder(store)
        finally:
            print(f"{folder}: {len(store.indices) - before} new episodes ({before} before)")
