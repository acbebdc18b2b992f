"""Random mutations of everything that is parsed, with digests that fit, so that the parsers behind them are reached.

Whatever comes out is a value or an error of ours: no other exception, no hang, no death for want of memory.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import shutil
import signal
from collections import Counter
from contextlib import redirect_stderr, suppress
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import torch

from reliability.children import MOST_GROWTH
from reliability.fuzz_targets import Input, targets
from reliability.outcome import Guarantee, Outcome
from reliability.things import Things, make_things
from vqvideo.errors import InputError

PATIENCE = 5
"""Seconds for one input."""


class HungError(BaseException):
    """Longer than anyone waits."""


def fuzzed(work: Path, trials: int, seed: int) -> Outcome:
    """Makes `trials` inputs, of each target in turn, and parses them in children."""
    things = make_things(work / "things")
    counts: Counter[str] = Counter()
    failures: list[str] = []
    growth, number = 0.0, 0
    while number < trials:
        # A child that grew or died is replaced, and the next one begins where it ended.
        copy_ = Things(work / f"copy-{number}")
        shutil.copytree(things.root, copy_.root)
        number = _watch(copy_, number, trials, seed, counts, failures)
        growth = max(growth, counts.pop("growth", 0))
        shutil.rmtree(copy_.root)
    figures = {"refused": float(counts["refused"]), "accepted": float(counts["accepted"])}
    return Outcome(trials, tuple(failures), {"targets": float(counts["targets"]), **figures, "growth, MiB": growth})


def _watch(things: Things, first: int, trials: int, seed: int, counts: Counter[str], failures: list[str]) -> int:
    """Follows a child from trial `first` on. Returns the first trial that it did not come to."""
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_fuzz, args=(things, first, trials, seed, there))
    child.start()
    there.close()
    number, name = first, "the start"
    try:
        while here.poll(4 * PATIENCE):
            kind, *rest = here.recv()
            if kind == "done":
                counts["growth"], counts["targets"] = rest[0], rest[1]
                return rest[2]
            if kind == "trial":
                number, name = rest
            elif kind == "failure":
                failures.append(f"{name}, trial {number} of seed {seed}: {rest[0]}")
            else:
                counts[kind] += 1
        failures.append(f"{name}, trial {number} of seed {seed}: hung")
    except EOFError:
        child.join()
        failures.append(f"{name}, trial {number} of seed {seed}: the process died with code {child.exitcode}")
    finally:
        child.kill()
        child.join()
    return number + 1


def _fuzz(things: Things, first: int, trials: int, seed: int, there: Connection) -> None:
    """What a child does: trial after trial, until an input took too much memory."""
    torch.set_num_threads(1)
    logging.disable()
    signal.signal(signal.SIGALRM, _hang)
    _limit_memory()
    whole = targets(things)
    healthy = {path: path.read_bytes() for path in things.root.rglob("*") if path.is_file()}
    most, number = 0.0, first
    with redirect_stderr(StringIO()):
        while number < trials and most <= MOST_GROWTH:
            name = list(whole)[number % len(whole)]
            there.send(("trial", number, name))
            made = whole[name](random.Random(f"{seed} {number}"))
            before = _forget_peak()
            kind, complaint = _parsed(made)
            grown = _status("VmHWM") - before
            if grown > MOST_GROWTH:
                kind, complaint = "failure", f"took {grown:.0f} MiB"
            there.send((kind, f"{complaint} from {made.shown:.600}"))
            for path in made.touched:
                path.write_bytes(healthy[path])
            most, number = max(most, grown), number + 1
    there.send(("done", most, len(whole), number))
    there.close()
    os._exit(0)


def _parsed(made: Input) -> tuple[str, str]:
    signal.alarm(PATIENCE)
    try:
        made.load()
    except InputError:
        return "refused", ""
    except HungError:
        return "failure", f"took more than {PATIENCE} s"
    except Exception as error:
        return "failure", f"{type(error).__name__}: {error!s:.300}"
    finally:
        signal.alarm(0)
    return "accepted", ""


def _hang(number: int, frame: FrameType | None) -> None:
    raise HungError


def _limit_memory() -> None:
    """An allocation of many GiB fails in the child, and the machine goes on."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, resource.RLIM_INFINITY))


def _forget_peak() -> float:
    """Lets the peak of the memory begin anew, where the kernel allows it. Returns what is used now, in MiB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "fuzz",
        "No manifest, line, config, header, space or action, however malformed, brings anything but a value or an "
        "error that says what is wrong.",
        fuzzed,
        fast=420,
        long=30_000,
    ),
)
