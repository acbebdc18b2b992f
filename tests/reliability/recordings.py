"""Recordings that are killed, stopped, or whose environments break: the store is the one that nothing disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

from stores import make_meta
from stub_envs import BreakingEnv, SamplePolicy, StubEnv

from reliability.lives import running, warm_up
from reliability.outcome import Guarantee, Outcome
from vqvideo import cli
from vqvideo.data.collect import collect
from vqvideo.data.playing import episode_seeds
from vqvideo.data.store import Store, StoreWriter
from vqvideo.spaces import ActionSpace

EPISODES = 20
STEPS = 12
HANGS_AFTER = 2.0
WAYS = ("raises", "exits", "segfaults", "hangs")
BROKEN_EPISODE = 5


def record(folder: Path, workers: int = 0, broken: tuple[str, Path] | None = None) -> None:
    """Records what is missing, as scripts/record.py does; `broken` says how an episode breaks, once, and where it is
    noted that it did.
    """
    space = ActionSpace.from_gymnasium(StubEnv().action_space)
    make_env = StubEnv if broken is None else partial(BreakingEnv, broken[0], _broken_seed(), broken[1])
    with StoreWriter.open(folder, make_meta(frame_size=(16, 16), action_space=space)) as writer:
        collect(
            make_env, SamplePolicy, writer, episodes=EPISODES, max_steps=STEPS, frame_size=(16, 16),
            workers=workers, step_timeout=HANGS_AFTER, progress=False,
        )  # fmt: skip


def interrupted_recordings(sign: signal.Signals, code: int, work: Path, trials: int, seed: int) -> Outcome:
    """A recording gets a signal at any moment and is started again, until it is done; the files are the same."""
    rng = random.Random(seed)
    expected, seconds = _reference(work)
    done = runs = 0
    failures: list[str] = []
    while done < trials and len(failures) < 5:
        runs += 1
        folder = work / f"store_{runs}"
        while done <= 10 * trials:
            process = running(_record_script, folder)
            time.sleep(rng.uniform(0, seconds))
            if process.is_alive() and done < trials and (folder / ".lock").exists():
                os.kill(int(process.pid or 0), sign)
            process.join(60)
            if process.exitcode == 0:
                break
            if process.exitcode != code:
                failures.append(f"run {runs}: exit code {process.exitcode}, expected {code}")
                process.kill()
                break
            done += 1
        if (wrong := _differences(_files(folder), expected)) and not failures:
            failures.append(f"run {runs} differs in {', '.join(wrong[:4])}")
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(done, tuple(failures), {"recordings to the end": runs})


def breaking_environments(work: Path, trials: int, seed: int) -> Outcome:
    """An environment raises, exits, crashes or hangs in one of four workers: its episode is played again elsewhere."""
    expected, _ = _reference(work)
    failures: list[str] = []
    for number in range(trials):
        how, folder = WAYS[number % len(WAYS)], work / f"store_{number}"
        process = running(_record_broken, folder, how, work / f"broke_{number}")
        process.join(60)
        if process.exitcode != 0:
            failures.append(f"{how}: exit code {process.exitcode}")
            process.kill()
        elif not (work / f"broke_{number}").exists():
            failures.append(f"{how}: the environment did not break")
        failures += [f"{how}: differs in {name}" for name in _differences(_files(folder), expected)[:3]]
    return Outcome(trials, tuple(failures))


def _record_script(folder: Path) -> None:
    code = 0
    try:
        cli.run(lambda: record(folder))
    except SystemExit as end:
        code = int(end.code or 0)
    os._exit(code)


def _record_broken(folder: Path, how: str, note: Path) -> None:
    _leave_daemons_alone()
    record(folder, workers=4, broken=(how, note))


def _leave_daemons_alone() -> None:
    """A process of multiprocessing's may start no others while it is called a daemon."""
    import multiprocessing

    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


def _broken_seed() -> int:
    return episode_seeds(0, BROKEN_EPISODE).env


def _reference(work: Path) -> tuple[dict[str, bytes], float]:
    warm_up()
    began = time.monotonic()
    process = running(_record_script, work / "whole")
    process.join()
    seconds = time.monotonic() - began
    Store.open(work / "whole").verify()
    return _files(work / "whole"), seconds


def _files(folder: Path) -> dict[str, bytes]:
    """All files of a store, the lines of its manifest in the order of the episodes."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    lines = found.get("manifest.jsonl", b"").splitlines(keepends=True)
    return found | {"manifest.jsonl": b"".join(sorted(lines))}


def _differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]


GUARANTEES = (
    Guarantee(
        "kill-recording",
        "A recording that is killed at any moment and started again gives the same store, byte for byte.",
        partial(interrupted_recordings, signal.SIGKILL, -signal.SIGKILL),
        fast=6,
        long=100,
    ),
    Guarantee(
        "stop-recording",
        "So does one that SIGTERM stops, with exit code 143.",
        partial(interrupted_recordings, signal.SIGTERM, 143),
        fast=3,
        long=50,
    ),
    Guarantee(
        "environment-breaks",
        "An environment that raises, exits, crashes or hangs costs its episode a second try, and the store nothing.",
        breaking_environments,
        fast=0,
        long=8,
    ),
)
