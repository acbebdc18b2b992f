"""Loader workers hand their batches over through /dev/shm; where there is too little of it, users are told so."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_models import SIZE, tiny_experiment, tiny_store

from reliability.load_runs import silence
from reliability.outcome import Guarantee, NotPossibleHereError, Outcome
from reliability.usage import MIB
from vqvideo.data.config import StillsConfig
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.scripts.benchmarks.memory import in_fresh_process
from vqvideo.training.run_folder import RunFolder

WORKERS = 2
CLIPS = 64
FRAMES = 5
"""Of a clip of the tiny experiment; as many stills as all clips have frames weigh as much."""
NEEDED = (2 * WORKERS + 2) * CLIPS * FRAMES * 3 * SIZE**2
"""Bytes: each worker makes two batches ahead, one is being trained on and one may be on its way."""
WORDS = ("/dev/shm", "--shm-size", "workers 0")
"""What the message must say."""
DEADLINE = 30.0
"""Seconds after which a training of seconds hangs."""
RAN, REFUSED = "", "refused"
_NEW_NAMESPACE, _PRIVATE = 0x20000, 0x40000 | 0x4000  # CLONE_NEWNS; MS_PRIVATE | MS_REC

Train = Callable[[Experiment, Store], object]


def small_shared_memory(
    work: Path, trials: int, seed: int, train: Train = train_vqvae, deadline: float = DEADLINE
) -> Outcome:
    """Trains in `trials` amounts of shared memory, from half to twice of what two workers need; every second time with
    stills beside the clips, which have workers of their own.
    """
    tiny_store(work / "data")
    failures = []
    for number, share in enumerate(np.geomspace(0.5, 2, trials)):
        stills = number % 2 == 1
        size = int(share * NEEDED * (2 if stills else 1))
        cfg = _experiment(work / str(number), seed, stills)
        try:
            found = in_fresh_process(_train_in, size, cfg, work / "data", train, deadline)
        except BrokenProcessPool:
            found = "the process died"
        if found is None:
            raise NotPossibleHereError("a /dev/shm of its own to a process: root may mount one")
        if found == REFUSED and share > 1.5:
            found = f"refused, though only {NEEDED / MIB:.1f} MiB are needed"
        if found not in (RAN, REFUSED):
            failures.append(f"{size / MIB:.1f} MiB{' with stills' if stills else ''}: {found}")
    return Outcome(trials, tuple(failures))


def _experiment(folder: Path, seed: int, stills: bool) -> Experiment:
    """More steps than batches are made ahead."""
    cfg = tiny_experiment(folder, workers=WORKERS, batch=CLIPS, steps=12, checkpoint_every=12, seed=seed)
    return replace(cfg, vqvae=replace(cfg.vqvae, stills=StillsConfig(per_batch=CLIPS * FRAMES if stills else 0)))


def _train_in(size: int, cfg: Experiment, data: Path, train: Train, deadline: float) -> str | None:
    """How a training in so many bytes of shared memory ended; None where they cannot be had."""
    if not _mount(size):
        return None
    multiprocessing.set_start_method("fork", force=True)  # as in scripts
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, deadline)
    try:
        with silence():
            train(cfg, Store.open(data))
    except Exception as error:
        return judged(error, len(RunFolder(cfg.folder / "vqvae").records()))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return RAN


def _give_up(*_: object) -> None:
    raise TimeoutError("the training hangs")


def judged(error: Exception, logged: int) -> str:
    """`REFUSED` if users are told what to do before the first of the `logged` lines; otherwise what is wrong."""
    lacking = [word for word in WORDS if word not in str(error)]
    if isinstance(error, InputError) and not lacking and not logged:
        return REFUSED
    last = str(error).strip().splitlines()[-1:]
    return f"{type(error).__name__} after {logged} lines, its message lacks {lacking}: {last}"


def _mount(size: int) -> bool:
    """Gives this process a /dev/shm of its own; False if it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NAMESPACE) or libc.mount(None, b"/", None, _PRIVATE, None):
        return False
    options = f"size={size // os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PAGE_SIZE')}".encode()
    return libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, options) == 0


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "small-shared-memory",
        "Where /dev/shm is too small for the loader workers, training says so before its first step, and what to do.",
        small_shared_memory,
        fast=4,
        long=40,
    ),
)
