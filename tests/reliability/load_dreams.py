"""Dreams and imagined environments do not grow, however long they go on."""

from __future__ import annotations

import hashlib
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from imagined import dreams, some_world
from tiny_models import noise_frames, tiny_world

from reliability.outcome import Guarantee, Outcome
from reliability.usage import Watch
from vqvideo.scripts.benchmarks.memory import in_fresh_process

MOST_MIB = 8.0
"""Growth allowed."""
SLOWER = 1.5
"""How many times longer a late step of a long dream may take than an early one, in both of two runs."""
TIMED = 50_000
"""Steps from which on a slowdown counts: the median over a hundredth of fewer tells of the machine."""
STREAMS = 16


@dataclass(frozen=True)
class Played:
    """What came of playing on and on."""

    watch: Watch
    """Memory, files and threads while it went on."""
    digest: str
    """SHA-256 of everything that was imagined."""
    impossible: int = 0
    """Steps with a code that the codebook does not have."""
    seconds: array[float] = field(default_factory=lambda: array("d"))
    """Of each step."""

    @property
    def slowdown(self) -> float:
        """Median time of the last hundredth of the steps over that of the third hundredth."""
        part = max(1, len(self.seconds) // 100)
        return median(self.seconds[-part:]) / median(self.seconds[2 * part : 3 * part])


def long_dream(work: Path, trials: int, seed: int) -> Outcome:
    """One stream of `trials` latent steps in a tiny world, in two processes from one seed."""
    runs = [in_fresh_process(_dream, trials, seed) for _ in range(2)]
    slower = min(run.slowdown for run in runs)
    failures = _differences(runs)
    if any(run.impossible for run in runs):
        failures.append(f"{runs[0].impossible} of {trials} steps have codes that are not in the codebook")
    if trials >= TIMED and slower > SLOWER:
        failures.append(f"a late step takes {slower:.2f} times as long as an early one, expected at most {SLOWER}")
    figures = {"growth, MiB": _growth(runs), "late step / early step": slower}
    return Outcome(trials, tuple(failures), figures | {"ms per step": 1e3 * median(runs[0].seconds)})


def _dream(steps: int, seed: int) -> Played:
    torch.set_num_threads(1)
    world = tiny_world(seed=seed)
    watch, digest, impossible = Watch(max(1, steps // 50), steps), hashlib.sha256(), 0
    seconds = array("d", bytes(8 * steps))  # at once: a list would grow
    state = world.start(noise_frames(1, 1, seed), torch.zeros(1, 0, 1))
    chance, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for number in range(1, steps + 1):
        actions = chance.integers(5, size=(1, world.stride, 1))
        began = time.perf_counter()
        step, state = world.step(state, actions, generator=generator)
        seconds[number - 1] = time.perf_counter() - began
        impossible += not 0 <= int(step.codes.min()) <= int(step.codes.max()) < world.prior.spec.codebook_size
        digest.update(step.codes.numpy().tobytes())
        watch.after(number)
    return Played(watch, digest.hexdigest(), impossible, seconds)


def long_play(work: Path, trials: int, seed: int) -> Outcome:
    """`trials` imagined steps in 16 environments whose episodes are short, in two processes from one seed."""
    runs = [in_fresh_process(_play, -(-trials // STREAMS), seed) for _ in range(2)]
    return Outcome(trials, tuple(_differences(runs)), {"growth, MiB": _growth(runs)})


def _play(calls: int, seed: int) -> Played:
    torch.set_num_threads(1)
    watch, digest = Watch(max(1, calls // 10), calls), hashlib.sha256()
    rows = dreams(some_world(), STREAMS)
    rows.action_space.seed(seed)
    rows.reset(seed=seed)
    for number in range(1, calls + 1):
        frames, rewards, *ends, _ = rows.step(rows.action_space.sample())
        for part in (frames, rewards, *ends):
            digest.update(np.ascontiguousarray(part).tobytes())
        watch.after(number)
    return Played(watch, digest.hexdigest())


def _differences(runs: list[Played]) -> list[str]:
    failures = [line for run in runs for line in run.watch.failures(MOST_MIB)]
    if len({run.digest for run in runs}) > 1:
        failures.append("two runs with one seed imagined different things")
    return failures


def _growth(runs: list[Played]) -> float:
    return max(run.watch.growth for run in runs)


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "long-dream",
        "A dream of 100,000 latent steps takes no more memory (8 MiB at most) and no more time per step than one of "
        "2,000; every code is in the codebook, and the same seed dreams the same.",
        long_dream,
        fast=600,
        long=100_000,
    ),
    Guarantee(
        "long-play",
        "Imagined environments whose episodes end and begin anew do not grow (8 MiB at most), and the same seed plays "
        "the same.",
        long_play,
        fast=960,
        long=100_000,
    ),
)
