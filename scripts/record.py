"""Records episodes of any Gymnasium environment into a store.

    python scripts/record.py                                   CarRacing, 120 episodes
    python scripts/record.py --env CartPole-v1 --policy random  any Gymnasium id
    python scripts/record.py --env my_env:My-v0                what my_env.py in the working directory registers
    python scripts/record.py --env ALE/Pong-v5                 Atari; so are MinAtar/Breakout-v1, MiniGrid-Empty-5x5-v0,
                                                               BabyAI-GoToRedBall-v0, Ant-v5, dm_control/cheetah-run-v0,
                                                               Meta-World/reach-v3, FetchReach-v4, VizdoomBasic-v1,
                                                               highway-v0, ... by their usual names

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
