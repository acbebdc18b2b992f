"""Recording and training do not grow, however long they go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from stores import make_meta
from stub_envs import SamplePolicy, StubEnv
from tiny_models import tiny_experiment, tiny_store

from reliability.outcome import Guarantee, Outcome
from reliability.usage import Watch
from vqvideo import envs
from vqvideo.data.collect import collect
from vqvideo.data.episode import Episode
from vqvideo.data.store import StoreWriter
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.prior import Prior
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts.benchmarks.memory import in_fresh_process
from vqvideo.spaces import ActionSpace

TRAINING_MIB = 16.0
RECORDING_MIB = 5.0
RECORDED = 10_000
"""Episodes over which a recording, which remembers the number and the return of each, may grow by so much."""
EVERY = 50
"""Steps from one checkpoint and validation to the next."""


# ---------------------------------------------------------------- recording


class _Watched:
    """A store's writer, with a look at the process after each episode."""

    def __init__(self, writer: StoreWriter, watch: Watch) -> None:
        self._writer, self._watch = writer, watch

    @property
    def indices(self) -> set[int]:
        return self._writer.indices

    def add(self, index: int, episode: Episode, split: str) -> None:
        self._writer.add(index, episode, split)
        self._watch.after(len(self.indices))


def recording(work: Path, trials: int, seed: int) -> Outcome:
    """`trials` short episodes of an environment that costs nothing, recorded into a store by one process."""
    watch = in_fresh_process(_record, work, trials, seed, partial(StubEnv, side=8, length=5), 5)
    # Below a MiB, how the heap happens to lie is more than what a few episodes leave.
    most = max(1.0, RECORDING_MIB * trials / RECORDED)
    return Outcome(trials, tuple(watch.failures(most)), {"growth, MiB": watch.growth})


def real_recording(work: Path, trials: int, seed: int) -> Outcome:
    """`trials` short episodes of CarRacing, which once leaked at each reset, recorded into a store by one process."""
    make_env = partial(envs.make, envs.resolve("CarRacing"))
    watch = in_fresh_process(_record, work, trials, seed, make_env, 5)
    return Outcome(trials, tuple(watch.failures(RECORDING_MIB)), {"growth, MiB": watch.growth})


def _record(work: Path, episodes: int, seed: int, make_env: Callable[[], Any], steps: int) -> Watch:
    torch.set_num_threads(1)
    env, size = make_env(), (8, 8)
    meta = make_meta(action_space=ActionSpace.from_gymnasium(env.action_space), frame_size=size)
    env.close()
    watch = Watch(max(1, episodes // 10), episodes)
    with StoreWriter.open(work / "data", meta) as writer:
        collect(
            make_env,
            SamplePolicy,
            _Watched(writer, watch),
            episodes=episodes,
            max_steps=steps,
            frame_size=size,
            seed=seed,
            workers=0,
            progress=False,
        )
    return watch


# ---------------------------------------------------------------- training

STAGES: dict[str, tuple[Callable[..., Any], type[torch.nn.Module]]] = {
    "tokenizer": (train_vqvae, VQVAE),
    "prior": (train_prior, Prior),
}


def training(work: Path, trials: int, seed: int) -> Outcome:
    """`trials` steps of both stages with their checkpoints, validations and pictures, one after the other."""
    watches = in_fresh_process(_train, work, trials, seed)
    failures = [line for name, watch in watches.items() for line in watch.failures(TRAINING_MIB, f"{name}: ")]
    return Outcome(trials, tuple(failures), {f"growth of the {name}, MiB": w.growth for name, w in watches.items()})


def _train(work: Path, steps: int, seed: int) -> dict[str, Watch]:
    every = min(EVERY, steps)
    cfg = tiny_experiment(work, steps=steps, seed=seed, validate_every=every, checkpoint_every=every, log_every=10)
    store, watches = tiny_store(work / "data"), {}
    for name, (train, model) in STAGES.items():
        watches[name] = Watch(max(1, steps // 4), steps)
        with _watching(model, watches[name]), silence():
            train(cfg, store)
    return watches


@contextmanager
def _watching(model: Any, watch: Watch) -> Iterator[None]:
    """Looks at the process after each training step of the models of a class."""
    after_step, numbers = model.after_step, iter(range(1, watch.rounds + 1))

    def watched(self: torch.nn.Module) -> None:
        after_step(self)
        watch.after(next(numbers))

    with patch.object(model, "after_step", watched):
        yield


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is printed."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "long-recording",
        "A recording of 10,000 episodes grows by at most 5 MiB and opens no file that it does not close.",
        recording,
        fast=200,
        long=10_000,
    ),
    Guarantee(
        "long-recording-car-racing",
        "A recording of CarRacing grows by at most 5 MiB over 500 resets.",
        real_recording,
        fast=0,
        long=500,
    ),
    Guarantee(
        "long-training",
        "Training grows by at most 16 MiB after its first quarter, with all its checkpoints, validations and pictures; "
        "open files and threads stay as many as they were.",
        training,
        fast=100,
        long=2_000,
    ),
)
