"""Tries every promise many times and prints a table.

    python tests/reliability                                        everything
    python tests/reliability kill-prior crash-points --trials 20    some
    python tests/reliability --work /mnt/network                    on the disk that you mean to use

Exits with code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.guarantees import GUARANTEES
from reliability.outcome import Guarantee


def main() -> int:
    """Reads the command line, runs, prints. The exit code."""
    names = [guarantee.key for guarantee in GUARANTEES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which: " + ", ".join(names))
    parser.add_argument("--trials", type=int, help="of each, instead of its own number")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--work", type=Path, help="folder to work in; by default a temporary one")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"{sorted(unknown)[0]} is not the name of an experiment, expected one of {', '.join(names)}")
    # What the experiments provoke is warned of thousands of times.
    logging.getLogger("vqvideo").addHandler(logging.NullHandler())
    broken = False
    with tempfile.TemporaryDirectory(dir=options.work, prefix="reliability-") as place:
        for guarantee in GUARANTEES:
            if not options.names or guarantee.key in options.names:
                work = Path(place) / guarantee.key
                broken |= not kept(guarantee, options.trials or guarantee.long, options.seed, work)
    return int(broken)


def kept(guarantee: Guarantee, trials: int, seed: int, work: Path) -> bool:
    """Runs an experiment and prints its line, with each failure below."""
    began = time.monotonic()
    work.mkdir()
    outcome = guarantee.experiment(work, trials, seed)
    shutil.rmtree(work, ignore_errors=True)
    failures = outcome.failures or (() if outcome.trials else ("nothing was tried",))
    figures = ", ".join(f"{name} {value:,}" for name, value in outcome.figures.items())
    seconds = time.monotonic() - began
    print(f"{guarantee.key:15s} {outcome.trials:6,d} trials {len(failures):3d} broken {seconds:6.0f} s  {figures}")
    print(*(f"    {failure}\n" for failure in failures), sep="", end="", flush=True)
    return not failures


if __name__ == "__main__":
    sys.exit(main())
