"""Improves world model and agent in turns: the agent plays, the world learns from it, the agent learns in the dream.

    python scripts/improve.py                                          TinyWorld
    python scripts/improve.py --env MinAtar/Breakout-v1                any environment whose actions an agent can choose
    python scripts/improve.py --config configs/car_racing_stepwise.yaml --improve.rounds 4

Round 0 learns from the config's own recording. In each further round the agent of the round before plays more episodes,
the prior trains on with all of them, the newest ones most, and the agent learns on in dreams of the new world; then it
plays whole episodes of the real environment. Beside it learns the agent of the perfect dream: as many steps in the real
environment itself, from the same moments. The episodes are in runs/<name>/data, a round's models in
runs/<name>/round_<r>, who played what, and how well, in runs/<name>/rounds.json and rounds.png. Killed at any time, the
same command continues; with a larger --improve.rounds it goes further.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo import cli
from vqvideo.experiment.rounds import ImproveConfig
from vqvideo.scripts.train_agent import (
    CONFIG,
    CONTROL,
    DIRECT,
    checkpoints_folder,
    dream_run,
    judged,
    load,
    perfect_dreams,
    played_env,
)

if TYPE_CHECKING:
    from vqvideo.data.playing import Policy
    from vqvideo.data.store import Store
    from vqvideo.experiment.checks import Stage
    from vqvideo.experiment.config import Experiment
    from vqvideo.experiment.rounds import Figures, Round

TRAINED: tuple[Stage, ...] = ("vqvae", "prior", "agent")
"""What each round trains."""
DIRECT_ENVS = (8, 16, 64)
"""Environments side by side of those that learn without a dream: which number is best depends on the game."""


def improve(cfg: Experiment, how: ImproveConfig) -> list[Figures]:
    """Does what is not done yet of all stages of all rounds.

    Returns:
        Of each round its figures by stage, as they are in rounds.json.

    Raises:
        InputError: actions that agents cannot choose, a run that is under way or began with other settings, a store
            with episodes of someone else's.
    """
    from vqvideo.experiment.checks import check_settings
    from vqvideo.experiment.rounds import RoundLog, nth_round, round_line
    from vqvideo.storage.locks import FolderLock

    refuse_untrainable(cfg)
    check_settings(nth_round(cfg, how, 0).cfg, *TRAINED)
    cfg.folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(cfg.folder):
        cfg, how = settled(cfg, how)
        log = RoundLog.open(cfg.folder / "rounds.json", cfg, how)
        for number in range(how.rounds):
            last = how.direct and number == how.rounds - 1
            for name, stage in (STAGES | (LAST if last else {})).items():
                if not log.has(number, name):
                    print(f"\n[round {number}] {name}", flush=True)
                    began = time.monotonic()
                    figures = stage(nth_round(cfg, how, number))
                    log.add(number, name, {**figures, "seconds": round(time.monotonic() - began, 1)})
            print(round_line(log.rounds, number), flush=True)
    return log.rounds


def settled(cfg: Experiment, how: ImproveConfig) -> tuple[Experiment, ImproveConfig]:
    """The settings for all rounds, with what follows from the episodes of round 0, which are recorded for that."""
    from vqvideo.data.store import Store
    from vqvideo.envs.recording import record, until_rewarded, with_enough
    from vqvideo.experiment.rounds import EPISODES, nth_round
    from vqvideo.experiment.suited import suited

    first, asked = nth_round(cfg, how, 0).cfg, how.episodes
    if not cfg.measured and first.record.frames is None:
        return cfg, replace(how, episodes=asked or EPISODES)
    folder, enough = record(first.record), with_enough(first.record)
    more = replace(how, episodes=asked or round(EPISODES * enough.episodes / cfg.record.episodes))
    episodes = until_rewarded(enough).episodes
    own, reasons = suited(first, Store.open(folder))
    print("".join(f"{line}\n" for line in reasons), end="", flush=True)
    recorded = replace(cfg.record, episodes=episodes, frames=None)
    return replace(cfg, record=recorded, vqvae=own.vqvae, prior=own.prior, sampling=own.sampling, measured=()), more


def refuse_untrainable(cfg: Experiment) -> None:
    """InputError if the environment's actions are none that an agent can choose: now, and not after hours."""
    from vqvideo import envs
    from vqvideo.agents.agent import trainable_space
    from vqvideo.envs.recording import chosen_preset
    from vqvideo.spaces import ActionSpace

    env = envs.make(chosen_preset(cfg.record))
    try:
        trainable_space(ActionSpace.from_gymnasium(env.action_space))
    finally:
        env.close()


# ---------------------------------------------------------------- the stages of a round


def collect_episodes(turn: Round) -> Figures:
    """Records the round's episodes: by the config's policy in round 0, later by the agent of the round before."""
    from vqvideo.data.store import Store
    from vqvideo.envs.recording import record
    from vqvideo.experiment.checks import check_store
    from vqvideo.models.tokenizer.vqvae import VQVAE

    options = turn.cfg.record
    first = turn.before.record.episodes if turn.before else 0
    player = play_on(turn) if turn.before else {"player": Store.open(record(options)).meta.policy}
    store = Store.open(options.folder)
    refuse_others(store, options.episodes)
    if turn.before:
        check_store(turn.cfg, store, "prior", "agent", tokenizer=VQVAE.from_pretrained(turn.tokenizer))
    else:
        check_store(turn.cfg, store, *TRAINED)
    new = store.entries[first:]
    return {
        **player,
        "first": first,
        "last": options.episodes - 1,
        "mean_return": sum(entry.total_reward for entry in new) / len(new),
        "real_frames": sum(entry.length + 1 for entry in store.entries),
    }


def refuse_others(store: Store, episodes: int) -> None:
    """InputError if the store holds other episodes than those of this run."""
    from vqvideo.errors import InputError

    if len(store.entries) != episodes:
        raise InputError(
            f"{store.path} holds {len(store.entries)} episodes, expected {episodes}: not all are of this run. Leave "
            "--record.out away, or name a folder that nothing else is recorded into"
        )


def play_on(turn: Round) -> Figures:
    """The agent of the round before plays the episodes that the store does not hold yet. Returns who it is."""
    from vqvideo.data.store import Store, StoreWriter
    from vqvideo.envs.recording import collect_episodes
    from vqvideo.experiment.rounds import agent_folder
    from vqvideo.storage.files import read_manifest

    assert turn.before is not None
    options, player = turn.cfg.record, agent_folder(turn.before)
    # The store goes on saying how it began; who played the episodes that followed is in rounds.json.
    meta = Store.open(options.folder).meta
    with StoreWriter.open(options.folder, meta) as writer:
        hold = turn.cfg.vqvae.model.backbone.strides[0]
        collect_episodes(writer, options, partial(agent_policy, player, turn.how.exploration, hold, turn.tokenizer))
    return {"player": str(player), "digest": read_manifest(player).digest, "exploration": turn.how.exploration}


def train_tokenizer(turn: Round) -> Figures:
    """Trains the tokenizer of all rounds, in round 0."""
    from vqvideo.data.store import Store
    from vqvideo.experiment.tokenizer import train_vqvae
    from vqvideo.storage.files import read_manifest

    if turn.before:
        return {"kept": read_manifest(turn.tokenizer).digest}
    return train_vqvae(turn.cfg, Store.open(turn.cfg.record.folder), resume=True)


def train_prior(turn: Round) -> Figures:
    """Trains the prior, on from that of the round before, and puts the world together."""
    from vqvideo.data.store import Store
    from vqvideo.experiment import prior

    return prior.train_prior(turn.cfg, Store.open(turn.cfg.record.folder), resume=True, tokenizer=turn.tokenizer)


def train_agent(turn: Round) -> Figures:
    """Trains the agent in the dream, on from that of the round before."""
    from vqvideo.agents.agent import Agent
    from vqvideo.agents.learning import learn_in_dream
    from vqvideo.evaluation.returns import dream_and_game_table
    from vqvideo.experiment.rounds import agent_folder

    world, store = load(turn.cfg)
    first = Agent.load(agent_folder(turn.before)) if turn.before else None
    run = dream_run(turn.cfg, world, store)
    learn_in_dream(world, store, turn.cfg.agent, turn.cfg.sampling, first=first, run=run).save(agent_folder(turn.cfg))
    run.forget()
    if run.checks:
        print(dream_and_game_table(run.checks), flush=True)
    return {"imagined_steps": turn.cfg.agent.steps, "checks": run.checks}


def train_control(turn: Round) -> Figures:
    """Trains the agent of the perfect dream, on from that of the round before, if that is asked for."""
    from vqvideo.agents.agent import Agent
    from vqvideo.agents.learning import learn_in_perfect_dream
    from vqvideo.agents.memory import view_of
    from vqvideo.agents.run import AgentRun
    from vqvideo.experiment.rounds import control_folder

    if not turn.how.control:
        return {}
    world, store = load(turn.cfg)
    first = Agent.load(control_folder(turn.before)) if turn.before else None
    make_env, view = perfect_dreams(turn.cfg, world, store), view_of(world, turn.cfg.agent)
    run = AgentRun(checkpoints_folder(turn.cfg, CONTROL))
    learn_in_perfect_dream(make_env, view, turn.cfg.agent, first=first, run=run).save(control_folder(turn.cfg))
    run.forget()
    return {"real_steps": turn.cfg.agent.steps}


def play_for_real(turn: Round) -> Figures:
    """Returns of the agents in the real environment, and in round 0 those of random actions and of the best player in
    the same episodes.
    """
    from vqvideo.agents.agent import Agent
    from vqvideo.experiment.rounds import agent_folder, control_folder

    world, store = load(turn.cfg)
    folders = {"agent": agent_folder(turn.cfg)} | ({"control": control_folder(turn.cfg)} if turn.how.control else {})
    agents = {name: Agent.load(folder) for name, folder in folders.items()}
    return judged(turn.cfg, world, store, agents, others=turn.before is None)


def learn_directly(turn: Round) -> Figures:
    """Returns of agents that learnt in the real environment alone, by how many environments were side by side."""
    from vqvideo.agents import learning
    from vqvideo.agents.memory import view_of
    from vqvideo.agents.run import AgentRun

    world, store = load(turn.cfg)
    make_env, view = partial(played_env, turn.cfg, world, store), view_of(world, turn.cfg.agent)
    steps = sum(entry.length for entry in store.entries) // world.stride
    agents = {}
    for count in DIRECT_ENVS:
        name = f"{DIRECT}, {count} envs"
        print(f"{name}: {steps} steps", flush=True)
        run, how = AgentRun(checkpoints_folder(turn.cfg, name)), replace(turn.cfg.agent, direct_envs=count)
        agents[name] = learning.learn_directly(make_env, view, steps, how, run=run)
        run.forget()
    played = judged(turn.cfg, world, store, agents, others=False)
    return {"real_steps": steps, "returns": {name: played[name] for name in agents}}


STAGES: dict[str, Callable[[Round], Figures]] = {
    "episodes": collect_episodes,
    "tokenizer": train_tokenizer,
    "prior": train_prior,
    "agent": train_agent,
    "control": train_control,
    "returns": play_for_real,
}
"""Each leaves a durable result, and goes on with what a call that was killed has left of it."""
LAST: dict[str, Callable[[Round], Figures]] = {"direct": learn_directly}
"""Those after the last round, if they are asked for."""


# ---------------------------------------------------------------- the agent as a policy


def agent_policy(folder: Path, exploration: float, hold: int, tokenizer: Path) -> Policy:
    """The agent of a folder, acting as it does in the dream."""
    from vqvideo.agents.agent import AgentPolicy

    return AgentPolicy(folder, exploration, hold, tokenizer)


# ---------------------------------------------------------------- the command


@contextmanager
def telling_how_to_go_on() -> Iterator[None]:
    """A training that a signal stopped names the flag of its own script; here the same command goes on."""
    from vqvideo.errors import RunStoppedError
    from vqvideo.training.signals import InterruptedRunError

    try:
        yield
    except InterruptedRunError as stopped:
        again = RunStoppedError(f"{str(stopped).partition(';')[0]}; the same command goes on")
        again.exit_code = stopped.exit_code
        raise again from stopped


def main() -> None:
    """Reads the settings, goes through the rounds and prints the table."""
    from vqvideo.experiment.config import EnvOptions, parse
    from vqvideo.experiment.rounds import round_table

    @dataclass(frozen=True)
    class Options(EnvOptions):
        """Settings of the experiment."""

        improve: ImproveConfig = field(default_factory=ImproveConfig)
        """The rounds."""

    from vqvideo.envs.recording import with_frame_size

    given = parse(Options, CONFIG, __doc__ or "", measures=True)
    cfg = replace(given, record=with_frame_size(given.record))
    with telling_how_to_go_on():
        rounds = improve(cfg, cfg.improve)
    last = cfg.folder / f"round_{len(rounds) - 1}"
    if find_spec("matplotlib"):
        from vqvideo.scripts.rounds_plot import plot_rounds

        plot_rounds(rounds, f"{cfg.record.env} in rounds", cfg.folder / "rounds.png")
    print("", round_table(rounds), f"world in {last / 'world'}, agent in {last / 'agent' / 'model'}", sep="\n")


if __name__ == "__main__":
    cli.run(main)
