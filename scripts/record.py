"""Records episodes of any Gymnasium environment into a store.

    python scripts/record.py                                   CarRacing, 120 episodes
    python scripts/record.py --env CartPole-v1 --policy random  any Gymnasium id
    python scripts/record.py --env my_env:My-v0                what my_env.py in the working directory registers

The same command continues a recording that was interrupted, and does nothing when all episodes exist.
"""

from __future__ import annotations

from vqvideo import cli
from vqvideo.data.config import RecordConfig


def main() -> None:
    """Reads the command line and records."""
    import tyro

    options = tyro.cli(RecordConfig, description=__doc__)
    from vqvideo.envs.recording import record

    record(options)


if __name__ == "__main__":
    cli.run(main)
