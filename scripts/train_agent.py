"""Trains an agent in nothing but the dream of a world model, and then plays the real environment with it.

    python scripts/train_agent.py                                         TinyWorld
    python scripts/train_agent.py --config configs/dynamic_obstacles.yaml

Beside it stand random actions; the perfect dream, which is the same agent after as many steps in real environments that
begin and are cut as the dreams are; an agent that learnt in the real environment from as many frames as were recorded
for the world model; and the best possible player, where one is known. Dream over perfect dream judges the world,
perfect dream over best possible the agent. Needs a trained world: train_vqvae.py and train_prior.py with the same
--config. Killed at any time, the same command goes on; after it is done, it begins anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqvideo import cli

if TYPE_CHECKING:
    import gymnasium

    from vqvideo.agents.agent import Agent
    from vqvideo.agents.memory import Past
    from vqvideo.agents.run import AgentRun
    from vqvideo.data.moments import Moment
    from vqvideo.data.store import Store
    from vqvideo.evaluation.returns import Act, Returns
    from vqvideo.experiment.config import Experiment
    from vqvideo.world import WorldModel

CONFIG = Path(__file__).parents[1] / "configs" / "tiny_world.yaml"
SIDE_BY_SIDE = 8
"""Real episodes that are played at once."""
DREAM, CONTROL, DIRECT = "learnt in the dream", "learnt in the perfect dream", "learnt directly"
RANDOM, BEST = "random", "best possible"
SHARES = ((DREAM, CONTROL), (CONTROL, BEST), (DREAM, BEST))
"""Who is measured by whom: the world, the agent, and both."""
CHECK_EPISODES = 32
"""In the dream and in the real environment, each time."""
EVALUATION_SEED = 1_000_000
"""Of the first real episode that agents are judged by: far from the seeds of learning."""


def train_agent(cfg: Experiment, *, direct: bool = True, control: bool = True) -> dict[str, Any]:
    """Learns, plays and compares; writes agent and results to runs/<name>/agent.

    Args:
        cfg: the settings.
        direct: also train the agent that learns in the real environment.
        control: also train the agent of the perfect dream.
    """
    from vqvideo.agents.learning import learn_directly, learn_in_dream, learn_in_perfect_dream
    from vqvideo.agents.memory import view_of
    from vqvideo.agents.run import AgentRun
    from vqvideo.experiment.suited import suited
    from vqvideo.imagined_env.starts import check_same_spaces
    from vqvideo.storage.files import check_writable, write_file
    from vqvideo.training.hardware import configure_threads

    check_writable(cfg.folder / "agent")
    threads = configure_threads(None)
    world, store = load(cfg)
    cfg = suited(cfg, store, world.vqvae.cfg).cfg
    with contextlib.closing(real_env(store, 1)) as env:
        check_same_spaces(world, env)
    view = view_of(world, cfg.agent)
    real_steps = sum(entry.length for entry in store.entries) // world.stride
    runs: dict[str, AgentRun] = {}
    learners: dict[str, Agent] = {}

    def learn(name: str, steps: int, how: Callable[..., Agent], *args: Any) -> None:
        print(f"{name}: {steps} steps", flush=True)
        runs[name] = dream_run(cfg, world, store) if name == DREAM else AgentRun(checkpoints_folder(cfg, name))
        learners[name] = how(*args, run=runs[name])

    learn(DREAM, cfg.agent.steps, learn_in_dream, world, store, cfg.agent, cfg.sampling)
    learners[DREAM].save(cfg.folder / "agent" / "model")
    if control:
        perfect = perfect_dreams(cfg, world, store)
        learn(CONTROL, cfg.agent.steps, learn_in_perfect_dream, perfect, view, cfg.agent)
    if direct:
        learn(DIRECT, real_steps, learn_directly, partial(played_env, cfg, world, store), view, real_steps, cfg.agent)
    agents = judged(cfg, world, store, learners)
    results = {
        "env": store.meta.env_id,
        "threads": threads,
        "seed": cfg.agent.seed,
        "evaluation_seed": EVALUATION_SEED,
        "real_frames_used": sum(entry.length + 1 for entry in store.entries),
        "real_steps_used": real_steps,
        "imagined_steps_used": cfg.agent.steps,
        "imagined_frames_used": cfg.agent.steps * world.stride,
        "seconds": {name: run.seconds for name, run in runs.items()},
        "checks": runs[DREAM].checks,
        "agents": agents,
        "shares": shares(agents),
    }
    write_file(cfg.folder / "agent" / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    for run in runs.values():
        run.forget()
    return results


def checkpoints_folder(cfg: Experiment, name: str) -> Path:
    """Where the checkpoints of an agent are while it learns."""
    return cfg.folder / "agent" / f"checkpoints_{name.replace(' ', '_')}"


def shares(agents: dict[str, Any]) -> dict[str, float]:
    """How much of what one agent gains over random actions another one gains, of those that played."""
    from vqvideo.evaluation.returns import share_of_gain

    means = {name: figures["mean_return"] for name, figures in agents.items()}
    known = [(name, of) for name, of in SHARES if {name, of} <= means.keys() and means[of] > means[RANDOM]]
    return {f"{name} / {of}": share_of_gain(means[name], means[of], means[RANDOM]) for name, of in known}


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


def played_env(
    cfg: Experiment,
    world: WorldModel,
    store: Store,
    moments: list[Moment] | None = None,
    pasts: dict[int, Past] | None = None,
) -> gymnasium.Env:
    """The real environment as the agent sees it, its actions held as in dreams; from recorded moments on, if some
    are given with what came before them, and then cut as a dream is.
    """
    from gymnasium.wrappers import TimeLimit

    from vqvideo.agents.memory import MemoryView, Remembered, view_of
    from vqvideo.agents.views import CodeObservations
    from vqvideo.envs.moments import FromMoments
    from vqvideo.envs.wrappers import ActionRepeat

    env = real_env(store, 1)
    env = FromMoments(env, moments) if moments else env
    held = CodeObservations(env, world.vqvae) if cfg.agent.observe == "codes" else ActionRepeat(env, world.stride)
    view = view_of(world, cfg.agent)
    seen = Remembered(held, view, pasts) if isinstance(view, MemoryView) else held
    return TimeLimit(seen, cfg.agent.horizon) if moments else seen


def perfect_dreams(cfg: Experiment, world: WorldModel, store: Store) -> Callable[[], gymnasium.Env]:
    """Makes real environments that begin where the agent's dreams do, and are cut as they are."""
    from vqvideo.agents.learning import start_choice
    from vqvideo.agents.memory import MemoryView, pasts, view_of
    from vqvideo.imagined_env.starts import start_contexts, start_moments

    where = world, store, cfg.agent.context, start_choice(cfg.agent, world.stride)
    moments, view = start_moments(*where), view_of(world, cfg.agent)
    before = pasts(world.vqvae, start_contexts(*where), view, real=True) if isinstance(view, MemoryView) else {}
    return partial(played_env, cfg, world, store, moments, before)


def dream_run(cfg: Experiment, world: WorldModel, store: Store) -> AgentRun:
    """The training of the agent that dreams."""
    from vqvideo.agents.run import AgentRun

    judge = dream_and_game(cfg, world, store) if cfg.agent.checks else None
    return AgentRun(checkpoints_folder(cfg, DREAM), judge, cfg.agent.checks)


def dream_and_game(cfg: Experiment, world: WorldModel, store: Store) -> Callable[[Agent], dict[str, Any]]:
    """Gives figures of an agent's episodes in the dream and in the real environment, which begin at the same moments
    and are cut alike: what its dreams promise, and what comes of it.
    """
    from vqvideo.agents.learning import dreams_for
    from vqvideo.evaluation.returns import play_episodes, play_side_by_side

    few = replace(cfg, agent=replace(cfg.agent, starts=min(cfg.agent.starts, CHECK_EPISODES)))
    dreams = dreams_for(world, store, few.agent, cfg.sampling, num_envs=CHECK_EPISODES)
    make_env = perfect_dreams(few, world, store)

    def judge(agent: Agent) -> dict[str, Any]:
        with several(make_env) as envs:
            game = play_episodes(envs, agent, CHECK_EPISODES, EVALUATION_SEED, cfg.agent.horizon)
        return {"dream": play_side_by_side(dreams, agent, EVALUATION_SEED).to_json(), "game": game.to_json()}

    return judge


def best_player(store: Store, env: gymnasium.Env, hold: int) -> Act | None:
    """The policy that nobody plays better than, if one is known; it decides at every recorded step, so not where
    actions are held for more.
    """
    from vqvideo.envs import resolve
    from vqvideo.envs.policies import make_policy

    best = resolve(store.meta.env_id).best
    if best is None or hold > 1:
        return None
    policy = make_policy(best)
    policy.reset(env, np.random.default_rng(0))
    return lambda frames: [policy(frame) for frame in frames]


def judged(
    cfg: Experiment, world: WorldModel, store: Store, agents: dict[str, Agent], *, others: bool = True
) -> dict[str, Any]:
    """Figures of agents in the real environment, drawing their actions and greedy.

    Args:
        cfg: the settings.
        world: what they learnt in.
        store: of the environment.
        agents: by name.
        others: also of random actions and, where one is known, of the best player.
    """
    with several(partial(played_env, cfg, world, store)) as envs:
        played = {name: play(cfg, envs, agent) for name, agent in agents.items()}
        played |= {f"{name}, greedy": play(cfg, envs, partial(agent, greedy=True)) for name, agent in agents.items()}
        if others:
            played[RANDOM] = play(cfg, envs, random_actions(envs[0], cfg.agent.seed))
        if others and (best := best_player(store, envs[0], world.stride)):
            played[BEST] = play(cfg, envs[:1], best)
    return {name: returns.to_json() for name, returns in played.items()}


@contextlib.contextmanager
def several(make_env: Callable[[], gymnasium.Env]) -> Iterator[list[gymnasium.Env]]:
    """Environments to play in side by side, closed in the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(make_env())) for _ in range(SIDE_BY_SIDE)]


def play(cfg: Experiment, envs: Sequence[gymnasium.Env], act: Act) -> Returns:
    """Whole episodes of the real environment; every agent meets the same ones."""
    import torch

    from vqvideo.evaluation.returns import play_episodes

    torch.manual_seed(cfg.agent.seed)
    return play_episodes(envs, act, cfg.agent.episodes, EVALUATION_SEED, cfg.agent.longest)


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
    from vqvideo.experiment.config import EnvOptions, parse

    @dataclass(frozen=True)
    class Options(EnvOptions):
        """Settings of the experiment."""

        direct: bool = True
        """Also train an agent directly in the real environment, for comparison."""
        control: bool = True
        """Also train the agent of the perfect dream, for comparison: as many steps in the real environment."""

    cfg = parse(Options, CONFIG, __doc__ or "", measures=True)
    from vqvideo.evaluation.returns import dream_and_game_table

    results = train_agent(cfg, direct=cfg.direct, control=cfg.control)
    if results["checks"]:
        print(dream_and_game_table(results["checks"]), end="\n\n")
    print(agent_table(results["agents"]))
    for name, share in results["shares"].items():
        print(f"{name}: {share:.0%} of the gain over random")
    print(
        f"{results['agents']['random']['episodes']} episodes each; {results['real_frames_used']} real frames, "
        f"{results['imagined_frames_used']} imagined frames; "
        + ", ".join(f"{name} {value:.0f} s" for name, value in results["seconds"].items())
    )
    print(f"agent in {cfg.folder / 'agent' / 'model'}")


if __name__ == "__main__":
    cli.run(main)
