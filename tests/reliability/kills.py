"""Trainings and recordings that are killed at any moment and started again: nothing shows that they were."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stores import make_meta
from stub_envs import SamplePolicy, StubEnv
from tiny_models import tiny_experiment, tiny_store

from reliability.children import Child
from reliability.outcome import Guarantee, Outcome
from vqvideo.data.collect import collect
from vqvideo.data.store import Store, StoreWriter
from vqvideo.experiment.config import Experiment, vqvae_folder, world_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.spaces import ActionSpace
from vqvideo.storage.checkpoint import load_training, training_checkpoints
from vqvideo.training.run_folder import RunFolder

MOST_LIVES = 60
"""Of one job: one that needs more makes no progress."""
MOST_FAILURES = 5
"""After which an experiment ends."""
COUNTED = ("codes_used", "effective_bits", "perplexity")
"""Of a logged line of training: from the last line on, or from the start of the process."""


@dataclass(frozen=True)
class Job:
    """Something that goes on where it was killed."""

    prepare: Callable[[Path], object]
    """Fills a folder with what the job begins from."""
    run: Callable[[Path], object]
    """Does the job in a folder, or the rest of it; in a child."""
    results: Callable[[Path], dict[str, str]]
    """Digests of all that must not depend on kills, by name."""


def killed(job: Job, work: Path, trials: int, seed: int) -> Outcome:
    """Jobs that are killed again and again until they are done, as many as `trials` kills need."""
    rng = random.Random(seed)
    job.prepare(work / "start")
    for name in ("warm_up", "whole"):  # the first child also starts the server that all are forked from
        shutil.copytree(work / "start", work / name)
    Child(job.run, work / "warm_up").exit_code()
    began = time.monotonic()
    if code := (whole := Child(job.run, work / "whole")).exit_code():
        return Outcome(0, (f"exit code {code} without a kill: {whole.last_words()}",))
    seconds, expected = time.monotonic() - began, job.results(work / "whole")
    kills = runs = 0
    failures: list[str] = []
    while kills < trials and len(failures) < MOST_FAILURES:
        runs += 1
        folder = work / f"run_{runs}"
        shutil.copytree(work / "start", folder)
        try:
            kills += _live_through(job, folder, rng, seconds, trials - kills)
            found = job.results(folder)
        except (RuntimeError, TimeoutError, OSError) as error:
            failures.append(f"run {runs} of seed {seed}: {error}")
            continue
        wrong = [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
        wrong += [str(p.relative_to(folder)) for p in folder.rglob(".tmp-*")]
        if wrong:
            failures.append(f"run {runs} of seed {seed} differs in {', '.join(wrong[:5])} ({len(wrong)} in all)")
        shutil.rmtree(folder)
    return Outcome(kills, tuple(failures), {"runs to the end": runs})


def _live_through(job: Job, folder: Path, rng: random.Random, seconds: float, most: int) -> int:
    """Lives until the job is done. How often it was killed, at most `most` times."""
    kills = 0
    for _ in range(MOST_LIVES):
        child = Child(job.run, folder)
        # At any moment, from the first file that is opened to the last one of the export.
        if kills < most and child.killed_after(rng.uniform(0, seconds)):
            kills += 1
        elif code := child.exit_code():
            raise RuntimeError(f"exit code {code} after {kills} kills: {child.last_words()}")
        else:
            return kills
    raise RuntimeError(f"not done after {MOST_LIVES} lives")


# ---------------------------------------------------------------- trainings


def _experiment(folder: Path) -> Experiment:
    # Checkpoints between log lines and validations, so that runs go on from the midst of a window of the log.
    return tiny_experiment(folder, steps=24, checkpoint_every=2, validate_every=6, log_every=3)


def _episodes(folder: Path) -> None:
    tiny_store(folder / "data")


def _episodes_and_tokenizer(folder: Path) -> None:
    _episodes(folder)
    if code := (child := Child(_train_tokenizer, folder)).exit_code():
        raise RuntimeError(f"exit code {code} of the tokenizer's training: {child.last_words()}")


def _train_tokenizer(folder: Path) -> None:
    train_vqvae(_experiment(folder), Store.open(folder / "data"), resume=True)


def _train_prior(folder: Path) -> None:
    train_prior(_experiment(folder), Store.open(folder / "data"), resume=True)


def training_results(stage: str, folder: Path) -> dict[str, str]:
    """Logged lines, weights, optimizer and averages of the last checkpoint, the exported model."""
    cfg = _experiment(folder)
    checkpoints = training_checkpoints(cfg.folder / stage / "checkpoints")
    state = load_training(checkpoints[-1])
    found = {"checkpoints": f"{len(checkpoints)} up to {checkpoints[-1].name}"}
    for part in ("model", "optimizer", "average"):
        for name, value in getattr(state, part).items():
            found[f"{part} {name}"] = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    for number, record in enumerate(RunFolder(cfg.folder / stage).records(), 1):
        # JSON has floats with all their digits: a difference in the last bit is a difference.
        counted = COUNTED if record["split"] == "train" else ()
        kept = {key: value for key, value in record.items() if key not in ("seconds", *counted)}
        found[f"line {number} of metrics.jsonl"] = json.dumps(kept)
    exported = vqvae_folder(cfg) if stage == "vqvae" else world_folder(cfg)
    for name in ("model.safetensors", "config.json"):
        found[f"exported {name}"] = hashlib.sha256((exported / name).read_bytes()).hexdigest()
    return found


TOKENIZER = Job(_episodes, _train_tokenizer, partial(training_results, "vqvae"))
PRIOR = Job(_episodes_and_tokenizer, _train_prior, partial(training_results, "prior"))


# ---------------------------------------------------------------- recordings


def record(folder: Path) -> None:
    """Records what is missing, as scripts/record.py does."""
    space = ActionSpace.from_gymnasium(StubEnv().action_space)
    with StoreWriter.open(folder, make_meta(frame_size=(16, 16), action_space=space)) as writer:
        collect(
            StubEnv, SamplePolicy, writer, episodes=20, max_steps=12, frame_size=(16, 16), workers=0, progress=False
        )  # fmt: skip


def stored_files(folder: Path) -> dict[str, str]:
    """All files of a store but the lock."""
    names = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".lock"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


RECORDING = Job(Path.mkdir, record, stored_files)

GUARANTEES = (
    Guarantee(
        "kill-tokenizer",
        "A tokenizer's training that is killed at any moment and started again logs and learns the same, bit for bit.",
        partial(killed, TOKENIZER),
        fast=6,
        long=100,
    ),
    Guarantee("kill-prior", "So does a prior's.", partial(killed, PRIOR), fast=6, long=100),
    Guarantee(
        "kill-recording",
        "A recording that is killed at any moment and started again gives the same store, byte for byte.",
        partial(killed, RECORDING),
        fast=6,
        long=100,
    ),
)
