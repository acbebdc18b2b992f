"""Trainings that are not alone: a second writer, loader processes that die, another number of processes."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
from stores import make_meta

from reliability.endings import INPUT_ERROR, STOPPED, badly_ended, before_step, goes_on, in_fork
from reliability.lives import Life, Plan
from reliability.outcome import Guarantee, Outcome
from reliability.references import beside, reference
from vqvideo.data.store import StoreWriter
from vqvideo.storage.checkpoint import training_checkpoints
from vqvideo.storage.locks import LOCK
from vqvideo.training.run_folder import RunFolder


def two_writers(work: Path, trials: int, seed: int) -> Outcome:
    """A second training of one run, and a second recording of one store, are refused at once; a dead one's lock is
    taken over.
    """
    whole, expected, _ = reference(work, "vqvae")
    plan = beside(whole, work / "two")
    failures: list[str] = []
    first = Life(replace(plan, poison=patient))
    first.wait_until((plan.run / LOCK).exists)
    second = Life(replace(plan, folder=plan.folder))
    message = rf"is being written by process {first.ranks[0].pid} on \S+ since"
    failures += [f"second training: {what}" for what in badly_ended(second, INPUT_ERROR, message)]
    first.kill()
    if not (plan.run / LOCK).exists():
        failures.append("the killed training left no lock: nothing was tried")
    failures += [f"after a kill: {what}" for what in goes_on(plan, expected)]
    with StoreWriter.open(work / "store", make_meta()):
        began = time.monotonic()
        code = in_fork(lambda: StoreWriter.open(work / "store", make_meta()).__enter__())
        if code != 1 or time.monotonic() - began > 30:
            failures.append(f"second recording: exit code {code} after {time.monotonic() - began:.1f} s")
    return Outcome(3, tuple(failures))


def patient(rank: int, folder: Path) -> None:
    """Steps of a fifth of a second."""
    before_step(1, lambda: None, lambda model: time.sleep(0.2), every=True)


def loader_dies(work: Path, trials: int, seed: int) -> Outcome:
    """A loader process that is killed ends the training soon, with its number and the cause."""
    whole, expected, _ = reference(work, "vqvae")
    failures: list[str] = []
    slowest = 0.0
    for number in range(trials):
        plan = beside(whole, work / f"case_{number}")
        life = Life(replace(plan, train=(*plan.train, ("workers", 2)), poison=patient))
        metrics = plan.run / "metrics.jsonl"
        life.wait_until(lambda metrics=metrics: metrics.exists() and metrics.stat().st_size)
        workers = psutil.Process(life.ranks[0].pid).children()
        workers[number % len(workers)].send_signal(signal.SIGKILL)
        began = time.monotonic()
        failures += badly_ended(life, STOPPED, r"DataLoader worker \(pid.*(killed by|exited).*--resume")
        slowest = max(slowest, time.monotonic() - began)
        failures += goes_on(plan, expected)
    failures += [f"the end took {slowest:.1f} s"] if slowest > 60 else []
    return Outcome(trials, tuple(failures), {"slowest end, s": slowest})


def other_world_size(work: Path, trials: int, seed: int) -> Outcome:
    """A run of one process goes on with two, and with one again, when that is asked for: the losses are the same but
    for rounding. Unasked it is refused, with both numbers.
    """
    whole, _, _ = reference(work, "vqvae")
    failures: list[str] = []
    for number in range(trials):
        plan = beside(whole, work / f"case_{number}")
        for world, lines in ((1, 3), (2, 8), (1, 1000)):
            if lines > 3:
                refused = rf"was trained by {3 - world} process\(es\), now there are {world}.*--any-world-size"
                failures += badly_ended(Life(plan, world), INPUT_ERROR, refused)
            life = Life(replace(plan, any_world_size=True, poison=unhurried), world)
            if life.wait_until(partial(_has_lines, plan, lines)):
                life.send(signal.SIGTERM)
            codes = life.wait()
            expected = {0} if lines == 1000 else {143}
            failures += [f"exit codes {codes} on {world} process(es)"] if set(codes) != expected else []
        failures += _other_losses(plan, whole)
    return Outcome(trials, tuple(failures))


def unhurried(rank: int, folder: Path) -> None:
    """Steps of a tenth of a second."""
    before_step(1, lambda: None, lambda model: time.sleep(0.1), every=True)


def _has_lines(plan: Plan, count: int) -> bool:
    metrics = plan.run / "metrics.jsonl"
    return metrics.exists() and metrics.read_bytes().count(b"\n") >= count


def _other_losses(plan: Plan, whole: Plan) -> list[str]:
    def losses(of: Plan) -> dict[int, float]:
        return {r["step"]: r["loss"] for r in RunFolder(of.run).records() if r["split"] == "train"}

    one, two = losses(plan), losses(whole)
    far = [step for step in two if abs(one[step] - two[step]) > 1e-5 * abs(two[step])]
    kept = [] if len(training_checkpoints(plan.run / "checkpoints")) >= 2 else ["fewer than two checkpoints"]
    return [f"the loss of step {step} is {one[step]} instead of {two[step]}" for step in far] + kept


GUARANTEES = (
    Guarantee(
        "two-writers",
        "A second writer of a run or a store is refused at once, and a dead one's lock is taken over.",
        two_writers,
        fast=4,
        long=4,
    ),
    Guarantee(
        "loader-dies",
        "A loader process that dies ends the training with its number and cause, and the run goes on bit for bit.",
        loader_dies,
        fast=1,
        long=5,
    ),
    Guarantee(
        "other-world-size",
        "With another number of processes a run goes on only when asked to, and then with the same samples.",
        other_world_size,
        fast=1,
        long=4,
    ),
)
