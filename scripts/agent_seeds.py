"""Puts agents of several seeds into one table: interquartile mean, its 95 % interval, and the minimum.

    python scripts/agent_seeds.py runs/tiny_world*/agent/results.json          what train_agent.py has written
    python scripts/agent_seeds.py runs/tiny_world*/rounds.json --json seeds.json   what improve.py has: the last rounds

Every agent stands beside random actions, the perfect dream, the best of those that learnt directly, and the best
possible player, where they played.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vqvideo import cli
from vqvideo.errors import InputError
from vqvideo.scripts.train_agent import BEST, CONTROL, DIRECT, DREAM, RANDOM, SHARES

_OF_ROUNDS = {"agent": DREAM, "control": CONTROL, DIRECT: DIRECT, RANDOM: RANDOM, BEST: BEST}
"""What the agents of a round are called elsewhere."""


@dataclass(frozen=True)
class Options:
    """What to put together."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files of figures, one for each seed."""
    json: Path | None = None
    """Where to write the figures, with those of every seed."""


def compare(options: Options) -> dict[str, Any]:
    """Reads, compares, prints and writes; returns what is written.

    Raises:
        InputError: no file, one that is something else, or two of one seed, or of different environments.
    """
    from vqvideo.evaluation.seeds import compare_seeds, seed_table
    from vqvideo.storage.files import check_writable, write_file

    if not options.results:
        raise InputError("no results: python scripts/agent_seeds.py runs/*/agent/results.json")
    runs = [read_run(path) for path in options.results]
    for name in ("env", "seed"):
        found = [run[name] for run in runs]
        if (len(set(found)) > 1) if name == "env" else (len(set(found)) < len(found)):
            listed = ", ".join(f"{path}: {value}" for path, value in zip(options.results, found, strict=True))
            raise InputError(f"{name} of {listed}: expected one environment, and every seed once")
    if options.json:
        check_writable(options.json.parent)
    figures = compare_seeds([run["returns"] for run in runs], RANDOM, SHARES)
    print(seed_table(figures))
    record = {"env": runs[0]["env"], "seeds": [run["seed"] for run in runs], **figures, "runs": runs}
    if options.json:
        write_file(options.json, (json.dumps(record, indent=2) + "\n").encode())
    return record


def read_run(path: Path) -> dict[str, Any]:
    """Environment, seed, and mean returns by agent, of a file of either script."""
    from vqvideo.storage.files import parse_json, read_small

    found = parse_json(read_small(path), str(path))
    try:
        if "rounds" in found:
            played = [each["returns"] for each in found["rounds"] if "returns" in each]
            direct = [best_of(each["direct"]["returns"]) for each in found["rounds"] if "direct" in each]
            agents = {**played[0], **played[-1], **({DIRECT: direct[-1]} if direct else {})}
            named = {name: agents[own] for own, name in _OF_ROUNDS.items() if own in agents}
            settings = found["settings"]
            env, seed = settings["record.env"], settings["agent.seed"]
        else:
            env, seed, named = found["env"], found["seed"], found["agents"]
        returns = {name: float(figures["mean_return"]) for name, figures in named.items()}
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path}: no returns of agents: expected results.json of train_agent.py, or rounds.json of improve.py"
        ) from error
    return {"file": path.name, "env": env, "seed": seed, "returns": returns}


def best_of(agents: dict[str, Any]) -> dict[str, Any]:
    """Figures of the one with the highest mean return."""
    return max(agents.values(), key=lambda figures: figures["mean_return"])


def main() -> None:
    """Reads the command line and compares."""
    compare(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
