"""Imagined environments in forked processes: OpenMP's threads do not come along, and nobody waits for them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import ROOT, run

BEGIN = """
import sys
sys.path.insert(0, {tests!r})
import os, torch
from imagined import dream, some_world

def make():
    return dream(some_world())

def play(env):
    env.reset(seed=0)
    for _ in range(3):
        env.step(0)
    # Enough for several threads, whatever the size of the world.
    return float(torch.ones(2**20).add(1).sum())

if __name__ == "__main__":
    assert torch.get_num_threads() == 2
    play(make())
"""
WAYS = {
    "os.fork": """
    child = os.fork()
    if not child:
        os._exit(play(make()) != 2**21)
    assert os.waitpid(child, 0)[1] == 0
    """,
    "multiprocessing.Process": """
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=lambda: play(make()))
    process.start()
    process.join()
    assert process.exitcode == 0
    """,
    "AsyncVectorEnv": """
    from gymnasium.vector import AsyncVectorEnv
    envs = AsyncVectorEnv([make, make], context="fork")
    envs.reset(seed=0)
    assert envs.step(envs.action_space.sample())[0].shape == (2, 16, 16, 3)
    envs.close()
    """,
    "SubprocVecEnv": """
    from stable_baselines3.common.vec_env import SubprocVecEnv
    envs = SubprocVecEnv([make, make], start_method="fork")
    assert envs.reset().shape == (2, 16, 16, 3)
    assert envs.step([0, 1])[0].shape == (2, 16, 16, 3)
    envs.close()
    """,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_dream_goes_on_in_a_process_that_was_forked_after_torch_computed_on_several_threads(
    way: str, tmp_path: Path
) -> None:
    if way == "SubprocVecEnv" and not find_spec("stable_baselines3"):
        pytest.skip("Stable-Baselines3 is not installed")
    end = '    assert torch.get_num_threads() == 2\n    print("ended")\n'
    (tmp_path / "fork.py").write_text(BEGIN.format(tests=str(ROOT / "tests")) + WAYS[way] + "\n" + end)
    ended = run(sys.executable, "fork.py", cwd=tmp_path, seconds=60, OMP_NUM_THREADS="2", PYTHONPATH=str(ROOT))
    assert ended.code == 0, ended.err
    assert ended.out == "ended\n"
