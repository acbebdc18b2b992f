"""Trains an agent in nothing but the dream of a world model, and then plays the real environment with it.

    python scripts/train_agent.py                                         TinyWorld
    python scripts/train_agent.py --config configs/dynamic_obstacles.yaml

Beside it stand random actions, and an agent that learnt in the real environment from as many frames as were recorded
for the world model. Needs a trained world: train_vqvae.py and train_prior.py with the same --config.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo import cli

if TYPE_CHECKING:
    import gymnasium

    from vqvideo.data.store import Store
    from vqvideo.evaluation.returns import Act, Returns
    from vqvideo.experiment.config import Experiment
    from vqvideo.world import WorldModel

CONFIG = Path(__file__).parents[1] / "configs" / "tiny_world.yaml"
EVALUATION_SEED = 1_000_000
"""Of the first real episode that agents are judged by: far from the seeds of learning."""


def train_agent(cfg: Experiment, *, direct: bool = True) -> dict[str, Any]:
    """Learns, plays and compares; writes the agent and the figures to runs/<name>/agent.

    Args:
        cfg: the settings.
        direct: also train the agent that learns in the real environment.
    """
    from vqvideo.agents.learning import learn_directly, learn_in_dream
    from vqvideo.imagined_env.starts import check_same_spaces
    from vqvideo.storage.files import check_writable
    from vqvideo.training.hardware import configure_threads

    check_writable(cfg.folder / "agent")
    threads = configure_threads(None)
    world, store = load(cfg)
    make_env = partial(real_env, store, world.stride)
    env = make_env()
    check_same_spaces(world, env)
    began = time.monotonic()
    print(f"{cfg.agent.steps} imagined steps in {cfg.agent.num_envs} dreams of {cfg.agent.horizon} steps", flush=True)
    agent = learn_in_dream(world, store, cfg.agent, cfg.sampling)
    seconds = {"learning_in_the_dream": time.monotonic() - began}
    agent.save(cfg.folder / "agent" / "model")
    played = {
        "learnt in the dream": play(cfg, env, agent),
        "random": play(cfg, env, random_actions(env, cfg.agent.seed)),
    }
    real_steps = sum(entry.length for entry in store.entries) // world.stride
    if direct:
        began = time.monotonic()
        print(f"the same agent, {real_steps} steps in the real environment", flush=True)
        played["learnt directly"] = play(cfg, env, learn_directly(make_env, real_steps, cfg.agent))
        seconds["learning_directly"] = time.monotonic() - began
    env.close()
    return {
        "env": store.meta.env_id,
        "threads": threads,
        "seed": cfg.agent.seed,
        "evaluation_seed": EVALUATION_SEED,
        "real_frames_used": sum(entry.length + 1 for entry in store.entries),
        "real_steps_used": real_steps,
        "imagined_steps_used": cfg.agent.steps,
        "imagined_frames_used": cfg.agent.steps * world.stride,
        "seconds": seconds,
        "agents": {name: returns.to_json() for name, returns in played.items()},
    }


def load(cfg: Experiment) -> tuple[WorldModel, Store]:
    """The trained world of the experiment, and its episodes."""
    from vqvideo.data.store import Store
    from vqvideo.errors import InputError
    from vqvideo.experiment.config import world_folder
    from vqvideo.storage.files import standing
    from vqvideo.training.hardware import default_device
    from vqvideo.world import WorldModel

    folder = world_folder(cfg)
    if not standing(folder).is_dir():
        raise InputError(
            f"no world model in {folder}. Train one with the same --config: accelerate launch scripts/train_vqvae.py, "
            "then accelerate launch scripts/train_prior.py"
        )
    return WorldModel.from_pretrained(folder).to(default_device()), Store.open(cfg.record.folder)


def real_env(store: Store, hold: int) -> gymnasium.Env:
    """The environment that the store was recorded from, as the world model shows it."""
    from vqvideo import envs

    return envs.as_recorded(store.meta, hold)


def play(cfg: Experiment, env: gymnasium.Env, act: Act) -> Returns:
    """Whole episodes of the real environment; every agent meets the same ones."""
    import torch

    from vqvideo.evaluation.returns import play_episodes

    torch.manual_seed(cfg.agent.seed)
    return play_episodes(env, act, cfg.agent.episodes, EVALUATION_SEED, cfg.agent.longest)


def random_actions(env: gymnasium.Env, seed: int) -> Act:
    """Any action of the space, whatever the frame."""
    env.action_space.seed(seed)
    return lambda frames: [env.action_space.sample() for _ in frames]


def agent_table(agents: dict[str, Any]) -> str:
    """The agents beside each other."""
    from vqvideo.evaluation.returns import HEADS, cells
    from vqvideo.evaluation.tables import table

    return table(("in the real environment", *HEADS), ((name, *cells(figures)) for name, figures in agents.items()))


def main() -> None:
    """Reads the settings, trains, plays and prints."""
    from vqvideo.experiment.config import Experiment, parse
    from vqvideo.storage import files

    @dataclass(frozen=True)
    class Options(Experiment):
        """Settings of the experiment."""

        direct: bool = True
        """Also train an agent directly in the real environment, for comparison."""

    cfg = parse(Options, CONFIG, __doc__ or "")
    results = train_agent(cfg, direct=cfg.direct)
    print(agent_table(results["agents"]))
    print(
        f"{results['agents']['random']['episodes']} episodes each; {results['real_frames_used']} real frames, "
        f"{results['imagined_frames_used']} imagined frames; "
        + ", ".join(f"{name.replace('_', ' ')} {value:.0f} s" for name, value in results["seconds"].items())
    )
    files.write_file(cfg.folder / "agent" / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    print(f"agent in {cfg.folder / 'agent' / 'model'}")


if __name__ == "__main__":
    cli.run(main)
