"""Plays episodes in an environment and writes them to a store, in worker processes that may die.

Nothing here knows an environment by name: `collect` gets one factory for the environment and one for the
policy. Every episode is a function of the run's seed and of its index alone, so it is the same for any
number of workers and in a recording that was interrupted and continued.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, Protocol

import cloudpickle
import gymnasium
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vqvideo.data.episode import Episode
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""How often an episode is tried before the recording gives up: once, and three more times."""
START_TIMEOUT = 300.0
"""Seconds in which a worker must have imported its packages and made its environment."""
POLL_SECONDS = 0.1
RESIZE_BATCH = 64


class Policy(Protocol):
    """Chooses actions; all its randomness comes from the generator that `reset` hands over."""

    def reset(self, env: gymnasium.Env, rng: np.random.Generator) -> None:
        """Begins an episode of `env`, which has just been reset."""
        ...

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        """The action for `frame`, (h, w, 3) uint8, as `env.step` takes it."""
        ...


class Writer(Protocol):
    """Where episodes go: `vqvideo.data.store.StoreWriter`."""

    @property
    def indices(self) -> set[int]:
        """Indices of the episodes that are recorded already."""
        ...

    def add(self, index: int, episode: Episode, split: str) -> object:
        """Writes an episode durably."""
        ...


class EpisodeSeeds(NamedTuple):
    """All the randomness of one episode."""

    env: int
    action_space: int
    policy: np.random.SeedSequence


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
    writer: Writer,
    *,
    episodes: int,
    max_steps: int,
    frame_size: tuple[int, int],
    seed: int = 0,
    held_out_every: int = 6,
    workers: int | None = None,
    step_timeout: float = 60.0,
    progress: bool = True,
) -> CollectReport:
    """Records the episodes `0 .. episodes - 1` that `writer` does not hold yet.

    A worker that hangs or dies is replaced and its episode is played again, up to three times. Ctrl-C
    stops the workers and keeps the finished episodes; the same call continues.

    Args:
        make_env: makes an env whose observation is the frame, (h, w, 3) uint8. It is called in the
            workers, so it must be picklable (a function, a `functools.partial`, a lambda).
        make_policy: makes a policy, likewise.
        episodes: how many episodes the store holds in the end.
        max_steps: an episode that has not ended by then is cut, which counts as truncated.
        frame_size: (height, width) of stored frames.
        held_out_every: each n-th episode is held out; 0 for none.
        workers: processes; None for one per core, 0 to play in this process (for debugging).
        step_timeout: seconds after which a step or a reset counts as hung.

    Raises:
        InputError: the policy's action or the env's frame is not valid, so that no retry can help; or an
            episode failed at every attempt. Names the episode and its seed.
    """
    todo = [index for index in range(episodes) if index not in writer.indices]
    job = Job(make_env, make_policy, max_steps, frame_size, seed)
    workers = min(available_cores() if workers is None else workers, len(todo))
    returns: dict[int, float] = {}
    frames, began = 0, time.monotonic()
    with _farewell(writer, episodes), _Bar(len(todo) * max_steps, progress) as bar:
        played = _play_here(job, todo, bar) if workers == 0 else _Pool(job, todo, workers, step_timeout, bar).play()
        with contextlib.closing(played) as results:
            for index, episode in results:
                warn_if_blank(episode, index)
                writer.add(index, episode, split_of(index, held_out_every))
                returns[index] = float(episode.rewards.sum())
                frames += len(episode.frames)
    ordered = tuple(returns[index] for index in sorted(returns))
    return CollectReport(len(returns), frames, ordered, time.monotonic() - began)


@contextlib.contextmanager
def _farewell(writer: Writer, episodes: int) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        done = len(writer.indices)
        log.warning("stopped: %d of %d episodes are recorded. The same command continues.", done, episodes)
        raise


def available_cores() -> int:
    """Cores that this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def split_of(index: int, held_out_every: int) -> str:
    """ "held_out" for the last of each `held_out_every` episodes, "train" for the others."""
    return "held_out" if held_out_every and index % held_out_every == held_out_every - 1 else "train"


def episode_seeds(seed: int, index: int) -> EpisodeSeeds:
    """The seeds of episode `index` of a run with seed `seed`."""
    env, action_space, policy = np.random.SeedSequence([seed, index]).spawn(3)
    return EpisodeSeeds(_number(env), _number(action_space), policy)


def _number(sequence: np.random.SeedSequence) -> int:
    # Some environments refuse seeds of 32 bits and more.
    return int(sequence.generate_state(1)[0] >> 1)


def warn_if_blank(episode: Episode, index: int) -> None:
    """Warns about frames that are all equal or all black: often a renderer without a display."""
    if not episode.frames.any():
        log.warning("episode %d: every frame is black. Does the environment render off screen?", index)
    elif (episode.frames == episode.frames[0]).all():
        log.warning("episode %d: all its %d frames are equal.", index, len(episode.frames))


# --- one episode ---


@dataclass(frozen=True)
class Job:
    """What a worker must know to play any episode of the run."""

    make_env: Callable[[], gymnasium.Env]
    make_policy: Callable[[], Policy]
    max_steps: int
    frame_size: tuple[int, int]
    seed: int


@dataclass
class FrameBuffer:
    """Gathers frames at the stored size. Resizes in batches: one by one takes four times as long."""

    size: tuple[int, int]
    where: str
    shape: tuple[int, ...] | None = None
    fresh: list[NDArray[np.uint8]] = field(default_factory=list)
    done: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, frame: Any, step: int) -> None:
        """Takes the frame after `step` steps; a frame that is no frame is an InputError."""
        self._check(frame, step)
        # Some environments draw every frame into the same array.
        self.fresh.append(frame.copy())
        if len(self.fresh) == RESIZE_BATCH:
            self._flush()

    def finish(self) -> NDArray[np.uint8]:
        """All frames, (t, h, w, 3) uint8."""
        self._flush()
        return np.concatenate(self.done)

    def _flush(self) -> None:
        if self.fresh:
            self.done.append(resize(np.stack(self.fresh), self.size))
            self.fresh = []

    def _check(self, frame: Any, step: int) -> None:
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise InputError(f"{self.where}, step {step}: the frame is {got}; expected (h, w, 3) uint8.")
        if self.shape is None:
            self.shape = frame.shape
        if frame.shape != self.shape:
            raise InputError(
                f"{self.where}, step {step}: the frame's shape changed from {self.shape} to {frame.shape}. "
                "Frames of an episode have one size."
            )


def resize(frames: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames (t, h, w, 3) uint8 at `size` (height, width), antialiased."""
    if frames.shape[1:3] == tuple(size):
        return frames
    import torch
    from torch.nn.functional import interpolate

    video = torch.from_numpy(frames).permute(0, 3, 1, 2)  # t c h w, channels last in memory
    small = interpolate(video, size=size, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())


def play(job: Job, index: int, env: gymnasium.Env, policy: Policy, on_step: Callable[[int], None]) -> Episode:
    """Plays episode `index`. `on_step(step)` is called before each step, with the steps that are done."""
    seeds = episode_seeds(job.seed, index)
    where = f"episode {index} (seed {seeds.env})"
    space = ActionSpace.from_gymnasium(env.action_space)
    frames = FrameBuffer(job.frame_size, where)
    actions, rewards, ends = [], [], []
    env.action_space.seed(seeds.action_space)
    frame, _ = env.reset(seed=seeds.env)
    frames.add(frame, 0)
    policy.reset(env, np.random.default_rng(seeds.policy))
    for step in range(job.max_steps):
        on_step(step)
        action = policy(frame)
        actions.append(_flatten(space, action, f"{where}, step {step}"))
        frame, reward, terminated, truncated, _ = env.step(action)
        frames.add(frame, step + 1)
        rewards.append(_finite(reward, f"{where}, step {step}"))
        ends.append((bool(terminated), bool(truncated) or (step + 1 == job.max_steps and not terminated)))
        if any(ends[-1]):
            break
    terminations, truncations = np.array(ends, bool).T.copy()
    return Episode(
        frames=frames.finish(),
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        terminated=terminations,
        truncated=truncations,
        seed=seeds.env,
    )


def _flatten(space: ActionSpace, action: Any, where: str) -> NDArray[np.float64]:
    try:
        return space.flatten(action)
    except InputError as error:
        raise InputError(f"{where}: the policy's action {action!r} is not in {space}: {error}") from error


def _finite(reward: Any, where: str) -> float:
    if not np.isfinite(reward):
        raise InputError(f"{where}: the environment's reward is {reward}; expected a finite number.")
    return float(reward)


def _play_here(job: Job, todo: list[int], bar: _Bar) -> Generator[tuple[int, Episode], None, None]:
    env, policy = job.make_env(), job.make_policy()
    try:
        for index in todo:
            bar.begin(index)
            episode = play(job, index, env, policy, lambda step, index=index: bar.at(index, step))  # type: ignore[misc]
            bar.finish(index, len(episode.rewards), job.max_steps)
            yield index, episode
    finally:
        env.close()


# --- worker processes ---

# Messages of a worker: (READY, None, None), (DONE, index, Episode),
# (REFUSED, index, message of an InputError), (CRASHED, index, traceback).
READY, DONE, REFUSED, CRASHED = "ready", "done", "refused", "crashed"
NO_STEP = -1


def _work(pipe: connection.Connection, pickled: bytes, step: Any) -> None:
    """A worker's life: makes its environment, then plays the episodes that it is sent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the main process, which stops the workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    index = None
    try:
        import torch

        torch.set_num_threads(1)
        job: Job = cloudpickle.loads(pickled)
        env, policy = job.make_env(), job.make_policy()
        pipe.send((READY, None, None))
        while (index := pipe.recv()) is not None:
            pipe.send((DONE, index, play(job, index, env, policy, lambda done: setattr(step, "value", done))))
        env.close()
    except EOFError:
        pass
    except InputError as error:
        pipe.send((REFUSED, index, str(error)))
    except Exception:
        pipe.send((CRASHED, index, traceback.format_exc()))


def _die_with_parent() -> None:
    """Ends this process when the main one is gone, even while the environment hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


class _Worker:
    """One worker process and what the main process knows about it."""

    def __init__(self, number: int, context: Any, pickled: bytes) -> None:
        self.number = number
        self.pipe, theirs = context.Pipe()
        # Read by polling: a message per step would cost fast environments a tenth of their speed.
        self.step = context.RawValue(ctypes.c_longlong, NO_STEP)
        self.process: SpawnProcess = context.Process(
            target=_work, args=(theirs, pickled, self.step), name=f"collect-{number}", daemon=True
        )
        self.process.start()
        theirs.close()
        self.index: int | None = None
        self.ready = False
        self.touch()

    def send(self, index: int | None) -> None:
        self.index = index
        self.step.value = NO_STEP
        self.touch()
        # A worker that died while idle is found by its sentinel.
        with contextlib.suppress(OSError):
            self.pipe.send(index)

    def touch(self) -> None:
        """Notes a sign of life."""
        self.seen, self.seen_step = time.monotonic(), self.step.value

    def hangs(self, timeout: float) -> bool:
        if self.step.value != self.seen_step:
            self.touch()
        busy = not self.ready or self.index is not None
        return busy and time.monotonic() - self.seen > (timeout if self.ready else START_TIMEOUT)

    def place(self) -> str:
        """Where it is, for messages."""
        if not self.ready:
            return "while it started"
        step = self.step.value
        return "in the reset" if step == NO_STEP else f"at step {step}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class _Pool:
    """Plays episodes in processes and yields (index, episode) in the order in which they end."""

    def __init__(self, job: Job, todo: list[int], workers: int, step_timeout: float, bar: _Bar) -> None:
        self.job, self.step_timeout, self.bar = job, step_timeout, bar
        self.todo, self.remaining = deque(todo), len(todo)
        self.attempts: dict[int | None, int] = {}
        self.context = multiprocessing.get_context("spawn")
        self.pickled = cloudpickle.dumps(job)
        self.workers: list[_Worker] = []
        self.size = workers

    def play(self) -> Generator[tuple[int, Episode], None, None]:
        """Yields the episodes; stops the workers when it is closed."""
        try:
            self.workers = [self._start(number) for number in range(self.size)]
            while self.remaining:
                yield from self._results()
                self._check_on_workers()
        finally:
            self._stop()

    def _start(self, number: int) -> _Worker:
        return _Worker(number, self.context, self.pickled)

    def _results(self) -> Iterator[tuple[int, Episode]]:
        """Waits a moment for messages and yields the episodes among them."""
        connection.wait([worker.pipe for worker in self.workers], timeout=POLL_SECONDS)
        for worker in list(self.workers):
            try:
                # One at a time: a worker that said anything waits for an answer, or is ending.
                message = worker.pipe.recv() if worker.pipe.poll() else None
            except (EOFError, OSError):
                self._replace(worker, f"died (exit code {_exit_code(worker)})")
                continue
            if message is not None:
                yield from self._handle(worker, *message)

    def _handle(self, worker: _Worker, kind: str, index: int | None, body: Any) -> Iterator[tuple[int, Episode]]:
        if kind == REFUSED:
            raise InputError(body)
        if kind == CRASHED:
            self._replace(worker, "raised an error", body)
            return
        worker.ready = True
        worker.send(self._next())
        if kind == DONE:
            assert index is not None
            self.remaining -= 1
            self.bar.finish(index, len(body.rewards), self.job.max_steps)
            yield index, body

    def _next(self) -> int | None:
        index = self.todo.popleft() if self.todo else None
        if index is not None:
            self.bar.begin(index)
        return index

    def _check_on_workers(self) -> None:
        for worker in list(self.workers):
            if worker.index is not None and worker.step.value >= 0:
                self.bar.at(worker.index, worker.step.value)
            limit = self.step_timeout
            if worker.hangs(limit):
                self._replace(worker, f"gave no sign of life for {limit if worker.ready else START_TIMEOUT:g} s")

    def _replace(self, worker: _Worker, what: str, details: str = "") -> None:
        """Ends a worker that failed, puts its episode back and starts another in its place."""
        index, place = worker.index, worker.place()
        if index is None and worker.ready:  # it had nothing left to do
            self._drop(worker)
            return
        seed = "" if index is None else f"episode {index} (env seed {episode_seeds(self.job.seed, index).env}): "
        message = f"{seed}worker {worker.number} {what} {place}"
        self.attempts[index] = self.attempts.get(index, 0) + 1
        log.error("%s%s", message, f"\n{details.rstrip()}" if details else "")
        if self.attempts[index] >= ATTEMPTS:
            raise InputError(f"{message}; that was attempt {ATTEMPTS}, the last. The log above has the details.")
        self._drop(worker)
        if index is not None:
            self.bar.at(index, 0)
            self.todo.appendleft(index)
        self.workers.append(self._start(worker.number))

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        self.workers.remove(worker)

    def _stop(self) -> None:
        for worker in self.workers:
            if worker.ready and worker.index is None:
                worker.process.join(timeout=5.0)  # it is closing its environment
            worker.kill()
        self.workers = []


def _exit_code(worker: _Worker) -> int | None:
    worker.process.join(timeout=1.0)
    return worker.process.exitcode


# --- progress ---


class _Bar:
    """Frames played so far, with frames per second and the time that is left."""

    def __init__(self, total: int, shown: bool) -> None:
        self.total, self.shown = total, shown
        self.steps: dict[int, int] = {}

    def __enter__(self) -> _Bar:
        # Smoothing off: workers report in bursts.
        self.bar = tqdm(total=self.total, unit=" frames", disable=not self.shown, smoothing=0.0, leave=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def begin(self, index: int) -> None:
        self.at(index, 0)

    def at(self, index: int, step: int) -> None:
        """Episode `index` has come to `step`; smaller than before when it is played again."""
        self.bar.update(step - self.steps.get(index, 0))
        self.steps[index] = step

    def finish(self, index: int, steps: int, max_steps: int) -> None:
        """Episode `index` is done after `steps`; those that it did not need are no longer awaited."""
        self.total -= max_steps - steps
        self.bar.total = self.total
        self.at(index, steps)
