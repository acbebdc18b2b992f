"""Plays episodes in an environment and writes them to a store, in worker processes that may die.

Nothing here knows an environment by name: `collect` gets one factory for the environment and one for the
policy. Every episode is a function of the run's seed and of its index alone, so it is the same for any
number of workers and in a recording that was interrupted and continued.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from vqvideo.data.episode_writer import WrittenEpisode
from vqvideo.data.main_guard import end_second_recording
from vqvideo.data.playing import Job, Policy, play
from vqvideo.data.workers import Pool, cores

if TYPE_CHECKING:
    import gymnasium

    from vqvideo.data.store import StoreWriter

log = logging.getLogger(__name__)


class CollectReport(NamedTuple):
    """What a call of `collect` recorded; episodes that existed before do not count."""

    episodes: int
    frames: int
    """Stored frames, first frames included."""
    returns: tuple[float, ...]
    """Sum of the rewards of each episode, by index."""
    seconds: float


def collect(
    make_env: Callable[[], gymnasium.Env],
    make_policy: Callable[[], Policy],
    writer: StoreWriter,
    *,
    episodes: int,
    max_steps: int,
    frame_size: tuple[int, int],
    seed: int = 0,
    held_out_every: int = 6,
    workers: int | None = None,
    step_timeout: float = 60.0,
    reset_timeout: float = 600.0,
    progress: bool = True,
) -> CollectReport:
    """Records the episodes `0 .. episodes - 1` that `writer` does not hold yet.

    A worker that hangs or dies is replaced and its episode is played again, up to three times; an error that comes
    again in the same way ends the recording. Ctrl-C stops the workers and keeps the finished episodes; the same call
    continues. A script calls this under `if __name__ == "__main__":`, since workers import it.

    Args:
        make_env: makes an env whose observation is the frame, (h, w, 3) uint8. It is called in the
            workers, so it must be picklable (a function, a `functools.partial`, a lambda).
        make_policy: makes a policy, likewise.
        writer: where episodes go.
        episodes: how many episodes the store holds in the end.
        max_steps: an episode that has not ended by then is cut, which counts as truncated.
        frame_size: (height, width) of stored frames.
        held_out_every: each n-th episode is held out; 0 for none.
        workers: processes; None for one per core, 0 to play in this process (for debugging).
        step_timeout: seconds after which a step counts as hung; 0 for no limit.
        reset_timeout: likewise for making the env (with a worker's imports) and for a reset.

    Raises:
        InputError: the policy's action or the env's frame is not valid, or the env cannot be made, so that no retry
            can help; or an episode failed at every attempt. Names the episode and its seed.
    """
    end_second_recording()
    todo = [index for index in range(episodes) if index not in writer.indices]
    job = Job(make_env, make_policy, max_steps, frame_size, seed, writer.folder.absolute())
    workers = min(cores() if workers is None else workers, len(todo))
    returns: dict[int, float] = {}
    frames, began = 0, time.monotonic()
    played = Pool(job, todo, workers, step_timeout, reset_timeout).play() if workers else _play_here(job, todo)
    bar = tqdm(total=len(todo), unit="episode", disable=not progress, leave=False)
    try:
        with bar, contextlib.closing(played) as results:
            for index, episode in results:
                warn_if_blank(episode, index)
                writer.add(index, episode, split_of(index, held_out_every))
                returns[index] = float(episode.steps.rewards.sum())
                frames += episode.length + 1
                bar.update()
    except KeyboardInterrupt:
        done = len(writer.indices)
        log.warning("stopped: %d of %d episodes are recorded. The same command continues.", done, episodes)
        raise
    ordered = tuple(returns[index] for index in sorted(returns))
    return CollectReport(len(returns), frames, ordered, time.monotonic() - began)


def split_of(index: int, held_out_every: int) -> str:
    """ "held_out" for the last of each `held_out_every` episodes, "train" for the others."""
    return "held_out" if held_out_every and index % held_out_every == held_out_every - 1 else "train"


def warn_if_blank(episode: WrittenEpisode, index: int) -> None:
    """Warns about frames that are all equal or all black: often a renderer without a display."""
    if episode.black:
        log.warning("episode %d: every frame is black. Does the environment render off screen?", index)
    elif episode.still:
        log.warning("episode %d: all its %d frames are equal.", index, episode.length + 1)


def _play_here(job: Job, todo: list[int]) -> Generator[tuple[int, WrittenEpisode], None, None]:
    env, policy = job.make_env(), job.make_policy()
    try:
        for index in todo:
            yield index, play(job, index, env, policy)
    finally:
        env.close()
