"""Trainings that are killed at any moment and started again: nothing shows that they were."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from reliability.lives import Life, Plan
from reliability.outcome import Guarantee, Outcome
from reliability.references import beside, reference
from reliability.results import differences, leftovers, results
from vqvideo.storage.locks import LOCK

MOST_LIVES = 60
"""Of one run: one that needs more makes no progress."""

Interrupt = Callable[[Life, random.Random, float], bool]
"""Waits for its moment in a life of about so many seconds and ends it; False if the life was over before."""


def kill_at_random(life: Life, rng: random.Random, seconds: float) -> bool:
    """SIGKILL at any moment, from the first import of the run to the last file of the export."""
    end = life.began + rng.uniform(0, seconds)
    while time.monotonic() < end and life.alive:
        time.sleep(0.002)
    return life.alive and -signal.SIGKILL in life.kill()


def kill_one_rank(life: Life, rng: random.Random, seconds: float) -> bool:
    """SIGKILL to one rank alone; the other must not wait for it for ever."""
    end = life.began + rng.uniform(0.2, 1) * seconds
    while time.monotonic() < end and life.alive:
        time.sleep(0.002)
    if not all(rank.is_alive() for rank in life.ranks):
        return False
    life.send(signal.SIGKILL, rng.randrange(len(life.ranks)))
    # What a launcher does when it sees a rank die.
    time.sleep(0.1)
    life.send(signal.SIGTERM)
    return any(life.wait(60))


def kill_inside_a_save(life: Life, rng: random.Random, seconds: float) -> bool:
    """SIGKILL while a checkpoint is written: as soon as one of its temporary names is seen."""
    checkpoints = life.plan.run / "checkpoints"
    skipped = rng.randrange(3)
    seen: set[str] = set()

    def saving() -> bool:
        if checkpoints.is_dir():
            seen.update(p.name for p in checkpoints.glob(".tmp-*"))
        return len(seen) > skipped

    return life.wait_until(saving) and -signal.SIGKILL in life.kill()


def stop_at_random(life: Life, rng: random.Random, seconds: float) -> bool:
    """SIGTERM at any moment from the locking of the run on: it ends with code 143."""
    if not life.wait_until((life.plan.run / LOCK).exists):
        return False
    time.sleep(rng.uniform(0, seconds / 2))
    life.send(signal.SIGTERM)
    codes = life.wait()
    if set(codes) - {0, 143}:
        raise RuntimeError(f"exit codes {codes} after SIGTERM: {life.last_words()}")
    return 143 in codes


def interrupted(stage: str, interrupt: Interrupt, world: int, work: Path, trials: int, seed: int) -> Outcome:
    """Runs that are interrupted again and again until they are done, as many as `trials` interruptions need."""
    rng = random.Random(f"{seed} {stage} {world} {getattr(interrupt, '__name__', '')}")
    whole, expected, seconds = reference(work, stage, world)
    done = bits = runs = 0
    failures: list[str] = []
    while done < trials and len(failures) < 5:
        runs += 1
        plan = beside(whole, work / f"run_{runs}")
        try:
            done += _live_through(plan, interrupt, world, rng, seconds, trials - done)
            wrong = differences(results(plan), expected) + leftovers(plan)
        except (RuntimeError, TimeoutError, OSError) as error:
            failures.append(f"run {runs} of seed {seed}: {error}")
            continue
        bits += len(wrong)
        if wrong:
            failures.append(f"run {runs} of seed {seed} differs in {', '.join(wrong[:5])} ({len(wrong)} in all)")
        else:
            shutil.rmtree(plan.folder)
    return Outcome(done, tuple(failures), {"runs to the end": runs, "differing results": bits})


def _live_through(plan: Plan, interrupt: Interrupt, world: int, rng: random.Random, seconds: float, most: int) -> int:
    """Lives until the run is done. How many were interrupted, at most `most`."""
    count = 0
    for _ in range(MOST_LIVES):
        life = Life(plan, world)
        if count < most and interrupt(life, rng, seconds):
            count += 1
            continue
        codes = life.wait()
        if not any(codes):
            return count
        raise RuntimeError(f"exit codes {codes} after {count} interruptions: {life.last_words()}")
    raise RuntimeError(f"not done after {MOST_LIVES} lives")


GUARANTEES = (
    Guarantee(
        "kill-tokenizer",
        "A tokenizer's training that is killed at any moment and started again logs and learns the same, bit for bit.",
        partial(interrupted, "vqvae", kill_at_random, 1),
        fast=6,
        long=100,
    ),
    Guarantee(
        "kill-prior",
        "So does a prior's.",
        partial(interrupted, "prior", kill_at_random, 1),
        fast=6,
        long=100,
    ),
    Guarantee(
        "kill-two-ranks",
        "So do two processes, when both are killed.",
        partial(interrupted, "vqvae", kill_at_random, 2),
        fast=2,
        long=30,
    ),
    Guarantee(
        "kill-one-rank",
        "When one of two processes is killed the other ends too, and the run goes on bit for bit.",
        partial(interrupted, "prior", kill_one_rank, 2),
        fast=1,
        long=20,
    ),
    Guarantee(
        "kill-in-save",
        "Killed in the midst of saving a checkpoint, a training goes on from the one before, bit for bit.",
        partial(interrupted, "vqvae", kill_inside_a_save, 1),
        fast=3,
        long=60,
    ),
    Guarantee(
        "stop-and-resume",
        "A run that SIGTERM stops again and again (exit code 143) logs and learns the same, bit for bit.",
        partial(interrupted, "vqvae", stop_at_random, 1),
        fast=3,
        long=100,
    ),
    Guarantee(
        "stop-two-ranks",
        "So do two processes.",
        partial(interrupted, "prior", stop_at_random, 2),
        fast=1,
        long=20,
    ),
)
