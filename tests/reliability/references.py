"""Runs that nothing interrupts, to which all others are compared."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

from tiny_models import tiny_store

from reliability.lives import Life, Plan, warm_up
from reliability.results import results

TRAIN = (("steps", 24), ("checkpoint_every", 2), ("validate_every", 6), ("log_every", 3))
"""Checkpoints between log lines and validations, so that runs go on from the midst of a window of the log."""


def reference(work: Path, stage: str, world: int = 1) -> tuple[Plan, dict[str, str], float]:
    """A run that nothing interrupts: its plan, its results and the seconds it took. All experiments that have their
    folders beside each other share it.
    """
    folder = work.parent / f"reference-{stage}-{world}"
    plan, taken = Plan(folder, stage, TRAIN), folder / "seconds.json"
    if not taken.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        warm_up()
        tiny_store(folder / "data")
        if stage == "prior":
            _train(replace(plan, stage="vqvae"), world)
        taken.write_text(json.dumps(_train(plan, world)))
    return plan, results(plan), json.loads(taken.read_text())


def beside(plan: Plan, folder: Path) -> Plan:
    """The same plan in a folder of its own, with the same episodes and, for a prior, the same tokenizer."""
    shutil.copytree(plan.folder / "data", folder / "data")
    if plan.stage == "prior":
        shutil.copytree(plan.folder / "runs" / "tiny" / "vqvae", folder / "runs" / "tiny" / "vqvae")
        shutil.rmtree(folder / "data" / "codes", ignore_errors=True)
    return replace(plan, folder=folder)


def _train(plan: Plan, world: int) -> float:
    life = Life(plan, world)
    codes = life.wait()
    if any(codes):
        raise RuntimeError(f"exit codes {codes}: {life.last_words()}")
    return time.monotonic() - life.began
