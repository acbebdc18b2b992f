"""Stores of arrays that somebody has: the five-line way in.

from vqvideo.data import write_store

frames = numpy.random.randint(0, 256, (41, 64, 64, 3), numpy.uint8)
actions, rewards = numpy.random.randint(0, 4, 40), numpy.zeros(40)
write_store("data/mine", [{"frames": frames, "actions": actions, "rewards": rewards}] * 6, fps=10)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL

from vqvideo import __version__
from vqvideo.data.action_inference import inferred
from vqvideo.data.array_episode import Alignment, ArrayEpisode
from vqvideo.data.collect import split_of
from vqvideo.data.config import height_and_width
from vqvideo.data.episode_writer import EpisodeWriter
from vqvideo.data.index import META, StoreMeta, read_meta
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError, suggest
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import AnyPath, DiskError

IMPORTED = "arrays"
"""What `StoreMeta.imported` says of these stores."""

_NOBODY_PLAYED: dict[str, Any] = {
    **{"action_repeat": 1, "skip_first": 0, "policy": "none", "seed": 0},
    "versions": {"vqvideo": __version__, "numpy": np.__version__, "pillow": PIL.__version__},
}
"""What the meta says where there was no recorder."""

logger = logging.getLogger(__name__)


def write_store(
    folder: AnyPath,
    episodes: Iterable[Mapping[str, Any]],
    *,
    fps: float,
    action_space: Any = None,
    frame_size: int | str | tuple[int, int] | None = None,
    held_out_every: int = 6,
    name: str | None = None,
    source: str = "",
    align: Alignment | None = None,
) -> Store:
    """Writes episodes of arrays into a store, on which tokenizers and worlds train. Each is complete or absent.

    An episode is a mapping of `frames` (T+1, h, w, 3) uint8, or (T+1, h, w) for gray ones; `actions` (T,) or (T, a), of
    which `actions[t]` leads from `frames[t]` to `frames[t + 1]`; `rewards` (T,); `terminated` and `truncated`, one bool
    for the end of the episode, or (T,) of which only the last may be True. All but the frames may be absent. Rewards
    or ends that no episode has are known to be missing, and nothing is trained on them.

    Args:
        folder: of the store. Episodes are added to one that is there and has the same settings.
        episodes: any number, one in memory at a time if they come from a generator.
        fps: frames per second.
        action_space: a Gymnasium space, whose flat actions (see `vqvideo.spaces`) the actions are. By default that of
            the store, or inferred (see `vqvideo.data.action_inference`) from all episodes, which are gone through twice
            for it, and said in the log. For a generator it must be given.
        frame_size: (h, w) or a side, at which frames are stored; of another shape their middle is kept. By default
            that of the first episode.
        held_out_every: every n-th episode is held out for evaluation; 0 for none.
        name: of what is shown; by default that of the folder.
        source: where it is from, in your own words.
        align: for episodes of as many frames as actions, whose last action leads to a frame that is missing:
            "drop-last" leaves that action out, with its reward and end, "repeat-last" shows the last frame again.

    Raises:
        InputError: arrays that do not fit together, or do not fit the store; names the episode, and says how many
            before it are stored already.
    """
    folder = Path(folder)
    first, episodes = _first(episodes, align)
    recorded = read_meta(folder)[0] if (folder / META).exists() else None
    space = _space(action_space, recorded, first, episodes, align)
    meta = StoreMeta(
        env_id=folder.resolve().name if name is None else name,
        env_spec=json.dumps({"imported": IMPORTED, "source": source}),
        action_space=space,
        frame_size=_size(frame_size, recorded, first),
        fps=float(fps),
        held_out_every=held_out_every,
        missing=first.missing if space.size else (),
        **_NOBODY_PLAYED,
    )
    with StoreWriter.open(folder, meta) as writer:
        _write(writer, episodes, align)
    return _opened(folder)


def _first(
    episodes: Iterable[Mapping[str, Any]], align: Alignment | None
) -> tuple[ArrayEpisode, Iterable[Mapping[str, Any]]]:
    """The first episode, and all of them."""
    if align not in (None, *get_args(Alignment)):
        raise InputError(f"align is {align!r}: {suggest(str(align), get_args(Alignment))}")
    if isinstance(episodes, Mapping):
        raise InputError("episodes is one mapping, expected several: put it into a list, [episode]")
    iterator = iter(episodes)
    begin = next(iterator, None)
    if begin is None:
        raise InputError("no episodes were given, expected at least one")
    with _named(0):
        first = ArrayEpisode.of(begin, align)
    return first, chain([begin], iterator) if iterator is episodes else episodes


def _space(
    given: Any,
    recorded: StoreMeta | None,
    first: ArrayEpisode,
    episodes: Iterable[Mapping[str, Any]],
    align: Alignment | None,
) -> ActionSpace:
    """The space that was given, that of the store, or what the actions look like."""
    if given is not None:
        return given if isinstance(given, ActionSpace) else ActionSpace.from_gymnasium(given)
    if recorded is not None:
        return recorded.action_space
    if not first.actions.size:
        return ActionSpace.none()
    if iter(episodes) is episodes:
        raise InputError(
            "episodes can be gone through only once, and the action space would be inferred from all of them: give "
            "action_space=, such as gymnasium.spaces.Discrete(4), or the episodes in a list"
        )
    space = inferred((one.actions, one.vector) for one in _checked(episodes, align))
    logger.warning("action space inferred: %s. If other actions are possible, give action_space=", space)
    return space


def _size(
    given: int | str | tuple[int, int] | None, recorded: StoreMeta | None, first: ArrayEpisode
) -> tuple[int, int]:
    if given is not None:
        return height_and_width(given)
    return recorded.frame_size if recorded else first.size


def _checked(episodes: Iterable[Mapping[str, Any]], align: Alignment | None) -> Iterator[ArrayEpisode]:
    for number, episode in enumerate(episodes):
        with _named(number):
            yield ArrayEpisode.of(episode, align)


def _write(writer: StoreWriter, episodes: Iterable[Mapping[str, Any]], align: Alignment | None) -> None:
    done = 0
    try:
        for number, episode in enumerate(episodes):
            with _named(number):
                _add(writer, ArrayEpisode.of(episode, align))
            done += 1
    except BaseException:
        if done:
            logger.warning("%s: the first %d episodes are stored; go on with those after them", writer.path, done)
        raise


def _add(writer: StoreWriter, episode: ArrayEpisode) -> None:
    if writer.meta.action_space.size and episode.missing != writer.meta.missing:
        absent, before = (" and ".join(names) or "none" for names in (episode.missing, writer.meta.missing))
        raise InputError(
            f"missing of rewards and ends (terminated or truncated): {absent}; of those before: {before}. Give them in "
            "all episodes, or in none"
        )
    index = max(writer.indices, default=-1) + 1
    with EpisodeWriter(writer.folder) as file:
        for frames in episode.frames(writer.meta.frame_size):
            file.add_frames(frames)
        writer.add(index, file.finish(episode.steps, seed=0), split_of(index, writer.meta.held_out_every))


def _opened(folder: Path) -> Store:
    store = Store.open(folder)
    if not store.split("held_out") or not store.split("train"):
        logger.warning("%s: all episodes are in one split, and trainings need both: see held_out_every", folder)
    return store


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Errors inside say which of the episodes is wrong."""
    try:
        yield
    except DiskError:
        raise
    except InputError as error:
        raise InputError(f"episodes[{number}]: {error}") from error
