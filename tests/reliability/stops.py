"""Signals, whatever a training does just then, and launchers that are gone: the right exit code, no orphan, no hang."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
from processes import BIN, SCRIPTS, free_port
from tiny_models import tiny_experiment

from reliability.lives import Life, Plan, Poison
from reliability.outcome import Guarantee, Outcome
from reliability.references import beside, reference
from reliability.results import differences, leftovers, results
from vqvideo.data.clips import Clips
from vqvideo.experiment import tokenizer
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import training_checkpoints
from vqvideo.storage.records import write_yaml
from vqvideo.training import trainer as training

HANGS_AFTER = 30.0
"""Seconds from a signal to the end, on however busy a machine. How long it really took is a figure."""
SECONDS_WITHOUT_LAUNCHER = 60.0


# ---------------------------------------------------------------- where a signal can come


MARK = "slow-part-reached"
"""A file in the folder of the life, made when it comes to the part where the signal shall reach it."""


def slow_steps(rank: int, folder: Path) -> None:
    """Every step takes a tenth of a second, so that a signal comes in the midst of one."""
    _slow_down(VQVAE, "after_step", 0.1, folder)


def slow_validation(rank: int, folder: Path) -> None:
    """A validation takes for ever, as far as this experiment is concerned."""
    _slow_down(tokenizer, "evaluate_tokenizer", 30.0, folder)


def slow_save(rank: int, folder: Path) -> None:
    """A checkpoint takes a second."""
    _slow_down(training, "save_training", 1.0, folder)


def slow_loading(rank: int, folder: Path) -> None:
    """A clip takes a fifth of a second."""
    _slow_down(Clips, "__getitem__", 0.2, folder)


def _slow_down(where: object, name: str, seconds: float, folder: Path) -> None:
    real, metrics = getattr(where, name), folder / "runs" / "tiny" / "vqvae" / "metrics.jsonl"

    def slow(*args: object, **kwargs: object) -> object:
        # Not the clips that the codebook starts from: from there on there is something to be saved.
        if metrics.exists() and metrics.stat().st_size:
            (folder / MARK).touch()
            time.sleep(seconds)
        return real(*args, **kwargs)

    setattr(where, name, slow)


PLACES: dict[str, Poison] = {
    "in a step": slow_steps,
    "in a validation": slow_validation,
    "in a save": slow_save,
    "in the loader": slow_loading,
}


def signals_everywhere(work: Path, trials: int, seed: int) -> Outcome:
    """SIGTERM and SIGINT in a step, a validation, a save and the loader, once and twice."""
    rng = random.Random(seed)
    whole, expected, _ = reference(work, "vqvae")
    cases = [(p, n, twice) for twice in (False, True) for p in PLACES for n in (signal.SIGTERM, signal.SIGINT)]
    rng.shuffle(cases)
    failures: list[str] = []
    slowest = {False: 0.0, True: 0.0}
    chosen = [cases[i % len(cases)] for i in range(trials)]
    for number, (place, sign, twice) in enumerate(chosen):
        plan = beside(whole, work / f"case_{number}")
        took, wrong = _signalled(plan, PLACES[place], sign, twice, expected)
        slowest[twice] = max(slowest[twice], took)
        failures += [f"{sign.name}{' twice' if twice else ''} {place}: {what}" for what in wrong]
    figures = {"slowest save after one signal, s": slowest[False], "slowest end after two, s": slowest[True]}
    return Outcome(len(chosen), tuple(failures), figures)


def _signalled(
    plan: Plan, slow: Poison, sign: signal.Signals, twice: bool, expected: dict[str, str]
) -> tuple[float, list[str]]:
    """Seconds from the signal to the end, and what was wrong."""
    life = Life(replace(plan, poison=slow))
    if not life.wait_until((plan.folder / MARK).exists):
        return 0.0, [f"over before the signal, with {life.wait()}: {life.last_words()}"]
    before = len(training_checkpoints(plan.run / "checkpoints"))
    life.send(sign)
    began = time.monotonic()
    if twice:
        time.sleep(0.05)
        life.send(sign)
    codes, took = life.wait(), time.monotonic() - began
    wrong = [f"exit codes {codes}, expected {128 + sign}"] if codes != [128 + sign] else []
    wrong += [f"it took {took:.1f} s"] if took > HANGS_AFTER else []
    saved = training_checkpoints(plan.run / "checkpoints")
    wrong += ["no checkpoint was saved"] if not twice and not saved and not before else []
    codes = Life(plan).wait()
    wrong += [f"exit codes {codes} of the resumed run"] if any(codes) else differences(results(plan), expected)
    return took, wrong + leftovers(plan)


# ---------------------------------------------------------------- launchers


def lone_launcher(work: Path, trials: int, seed: int) -> Outcome:
    """`accelerate launch` of one process and of two: the launcher gets SIGKILL or SIGTERM, or one of its processes
    SIGKILL, at any moment; within a minute nobody is left, and the resumed run shows no difference.
    """
    rng = random.Random(seed)
    failures: list[str] = []
    slowest = 0.0
    wholes: dict[int, tuple[Plan, dict[str, str]]] = {}
    victims = [(2, "launcher", signal.SIGKILL), (2, "a rank", signal.SIGKILL), (1, "launcher", signal.SIGTERM)]
    victims += [(1, "launcher", signal.SIGKILL), (2, "launcher", signal.SIGTERM), (2, "launcher", signal.SIGINT)]
    for number in range(trials):
        world, victim, sign = victims[number % len(victims)]
        if world not in wholes:
            wholes[world] = reference(work, "vqvae", world)[:2]
        whole, expected = wholes[world]
        plan = beside(whole, work / f"launch_{number}")
        launcher, ranks = _launch(plan, world)
        target = launcher if victim == "launcher" else rng.choice(ranks)
        time.sleep(rng.uniform(0, 0.5))
        began = time.monotonic()
        target.send_signal(sign)
        _, alive = psutil.wait_procs([launcher, *ranks], timeout=SECONDS_WITHOUT_LAUNCHER)
        slowest = max(slowest, time.monotonic() - began)
        for process in alive:
            process.kill()
        what = f"{sign.name} to {victim} of {world} process(es)"
        failures += [f"{what}: {len(alive)} alive after {SECONDS_WITHOUT_LAUNCHER:g} s"] if alive else []
        codes = Life(plan, world).wait()
        wrong = [f"exit codes {codes}"] if any(codes) else differences(results(plan), expected)
        failures += [f"{what}: resumed, {', '.join(wrong[:4])}"] if wrong else []
    return Outcome(trials, tuple(failures), {"slowest end, s": slowest})


def _launch(plan: Plan, world: int) -> tuple[psutil.Popen, list[psutil.Process]]:
    """The launcher and its processes, once the run is under way; its steps are slow, so that it stays so."""
    config = plan.folder / "tiny.yaml"
    config.write_text(write_yaml(tiny_experiment(plan.folder, **dict(plan.train))))
    several = ["--multi_gpu"] if world > 1 else []
    script = Path(__file__).with_name("slow_training.py")
    with open(plan.log, "w") as log:
        launcher = psutil.Popen(
            [BIN / "accelerate", "launch", *several, "--num_processes", str(world), "--main_process_port",
             str(free_port()), script, SCRIPTS, config],
            cwd=plan.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    end = time.monotonic() + 120
    metrics = plan.run / "metrics.jsonl"
    while not (metrics.exists() and re.search(rb"\n", metrics.read_bytes())):
        if time.monotonic() > end or launcher.poll() is not None:
            raise RuntimeError(f"the launch did not come to its first steps: {plan.log.read_text()[-500:]}")
        time.sleep(0.05)
    ranks = [p for p in launcher.children(recursive=True) if script.name in " ".join(p.cmdline())]
    if len(ranks) != world:
        raise RuntimeError(f"{len(ranks)} processes instead of {world}")
    return launcher, ranks


GUARANTEES = (
    Guarantee(
        "signals",
        "SIGTERM and SIGINT save a checkpoint at the next step and exit with 143 and 130; a second one exits at once.",
        signals_everywhere,
        fast=4,
        long=48,
    ),
    Guarantee(
        "launcher",
        "When the launcher or one of its processes is killed, nobody is left behind, and the run goes on bit for bit.",
        lone_launcher,
        fast=1,
        long=18,
    ),
)
