"""Tries every promise many times and prints the table.

    python tests/reliability                                        everything
    python tests/reliability kill-prior crash-points --trials 20    some
    python tests/reliability --work /mnt/network                    on the disk that you mean to use
    python tests/reliability --json figures.json                    with hardware and versions
    python tests/reliability --show figures.json                    those figures as the table of the docs

It takes about an hour on two CPU cores, and exits with code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.guarantees import GUARANTEES
from reliability.outcome import Guarantee, NotPossibleHereError
from reliability.table import line, markdown
from vqvideo.storage import files
from vqvideo.training.hardware import hardware, versions


def main() -> int:
    """Reads the command line, runs, prints, writes. The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which: " + ", ".join(g.key for g in GUARANTEES))
    parser.add_argument("--trials", type=int, help="of each, instead of its own number")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--work", type=Path, help="folder to work in; by default a temporary one")
    parser.add_argument("--json", type=Path, help="file for the figures; what it holds of other experiments stays")
    parser.add_argument("--show", type=Path, help="only print such a file")
    options = parser.parse_args()
    if options.show is not None:
        print(markdown(json.loads(options.show.read_text())))
        return 0
    unknown = set(options.names) - {g.key for g in GUARANTEES}
    if unknown:
        parser.error(f"{sorted(unknown)[0]} is none of them")
    chosen = [g for g in GUARANTEES if not options.names or g.key in options.names]
    broken = False
    with tempfile.TemporaryDirectory(dir=options.work, prefix="reliability-") as place:
        for guarantee in chosen:
            record = run(guarantee, options.trials or guarantee.long, options.seed, Path(place) / guarantee.key)
            broken |= bool(record["failures"])
            print(line(guarantee, record), *(f"    {failure}" for failure in record["failures"]), sep="\n", flush=True)
            if options.json is not None:
                add(options.json, guarantee.key, record)
    return int(broken)


def run(guarantee: Guarantee, trials: int, seed: int, work: Path) -> dict[str, Any]:
    """What came of one experiment, as plain JSON."""
    began = time.monotonic()
    work.mkdir()
    try:
        outcome = guarantee.experiment(work, trials, seed)
    except NotPossibleHereError as reason:
        return {"trials": 0, "failures": [], "figures": {}, "not possible here": str(reason), "seconds": 0.0}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    failures = [*outcome.failures, *([] if outcome.trials else ["nothing was tried"])]
    seconds = round(time.monotonic() - began, 1)
    return {
        "trials": outcome.trials,
        "failures": failures,
        "figures": outcome.figures,
        "seed": seed,
        "seconds": seconds,
    }


def add(path: Path, key: str, record: dict[str, Any]) -> None:
    """Puts a record among those of a file."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"results": {}}
    order = [g.key for g in GUARANTEES]
    results = known["results"] | {key: record}
    ordered = {name: results[name] for name in sorted(results, key=order.index)}
    report = {"hardware": hardware(), "versions": versions(), "results": ordered}
    files.write_file(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
