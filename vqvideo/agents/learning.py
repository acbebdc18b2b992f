"""PPO of Stable-Baselines3, in a dream or in the real environment, with the same network and settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
from tqdm import tqdm

from vqvideo.adapters.sb3 import SB3VecEnv
from vqvideo.agents.agent import Agent, policy_tensors, trainable_space
from vqvideo.agents.config import AgentStage
from vqvideo.agents.memory import MemoryView, RememberedVec, View, pasts, view_of
from vqvideo.agents.run import AgentRun
from vqvideo.data.moments import Choice
from vqvideo.data.store import Store
from vqvideo.errors import InputError, MissingExtraError
from vqvideo.imagined_env import ImaginedVectorEnv, cut_thresholds
from vqvideo.imagined_env.starts import Starts, start_contexts
from vqvideo.models.imagination import Imaginer
from vqvideo.models.prior.sampling import Sampling
from vqvideo.spaces import ActionSpace
from vqvideo.storage.checkpoint import fingerprint, model_tensors
from vqvideo.storage.records import to_plain
from vqvideo.training.hardware import default_device

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.vec_env import VecEnv, VecMonitor
except ModuleNotFoundError as error:
    raise MissingExtraError(error, "agent") from error

_REPORTS = ("checks", "episodes", "longest")
"""Settings that change nothing of what is learnt."""
_LEAST_STEPS = 1024
"""Between two updates, over all real envs: a few of them need longer rollouts than many dreams."""


def learn_in_dream(
    world: Imaginer,
    store: Store,
    stage: AgentStage,
    sampling: Sampling,
    *,
    first: Agent | None = None,
    run: AgentRun | None = None,
) -> Agent:
    """Trains an agent in nothing but dreams.

    Args:
        world: the model.
        store: from whose training episodes dreams begin.
        stage: how.
        sampling: how codes are drawn.
        first: whose weights to begin with; None for fresh ones.
        run: keeps checkpoints, from which an interrupted training goes on, and has the agent judged on the way.

    Raises:
        InputError: actions that an agent does not choose, or no reward to learn from.
    """
    trainable_space(world.action_space)
    if "rewards" in world.prior.spec.missing:
        raise InputError(
            "nobody wrote down the rewards of the episodes that this world was trained on: nothing to learn. Import "
            "them with their rewards (--columns rewards=NAME), and train the world again"
        )
    if world.prior.spec.stats.unrewarded:
        raise InputError(
            "every reward is 0 in the episodes that this world was trained on: nothing to learn. Record more or longer "
            "ones, an environment that rewards, or with another --policy, and train the world again"
        )
    cut = (
        None if stage.cut is None else cut_thresholds(world, store, stage.cut, context=stage.context, sampling=sampling)
    )
    envs = dreams_for(world, store, stage, sampling, num_envs=stage.num_envs, cut_above=cut)
    view = view_of(world, stage)
    learnt_from = fingerprint({"sampling": to_plain(sampling)}, model_tensors(world)) if run else ""
    rollout, run = stage.ppo.rollout, run or AgentRun()
    policy = _learn(VecMonitor(envs), view, stage.steps, stage, rollout, first, run, learnt_from)
    return Agent(policy, view, world.action_space)


def dreams_for(world: Imaginer, store: Store, stage: AgentStage, sampling: Sampling, **options: Any) -> VecEnv:
    """Dreams as an agent meets them; other `options` as of `ImaginedVectorEnv`."""
    contexts = start_contexts(world, store, stage.context, start_choice(stage, world.stride))
    options |= {"horizon": stage.horizon, "observe": stage.observe, "sampling": sampling, "autoreset_mode": "SameStep"}
    dreams = ImaginedVectorEnv(world, Starts.read(world, *contexts), **options)
    view, envs = view_of(world, stage), SB3VecEnv(dreams)
    return RememberedVec(envs, view, pasts(world.vqvae, contexts, view)) if isinstance(view, MemoryView) else envs


def start_choice(stage: AgentStage, stride: int) -> Choice:
    """At which moments the dreams of an agent begin."""
    return Choice(stage.starts, stage.newest, stage.eventful, reach=stride * stage.horizon)


def learn_directly(
    make_env: Callable[[], gymnasium.Env], view: View, steps: int, stage: AgentStage, *, run: AgentRun | None = None
) -> Agent:
    """Trains an agent in the real environment for `steps` steps, with the settings of the one that dreams.

    Args:
        make_env: makes an env whose observation is what the view is of: the frame (h, w, 3) uint8, codes, or what
            `Remembered` makes of either.
        view: what the agent looks at.
        steps: real steps over all envs.
        stage: how.
        run: as of `learn_in_dream`.
    """
    rollout = max(-(-_LEAST_STEPS // stage.direct_envs), stage.ppo.rollout)
    return _learn_for_real(make_env, view, stage.direct_envs, steps, rollout, stage, None, run)


def learn_in_perfect_dream(
    make_env: Callable[[], gymnasium.Env],
    view: View,
    stage: AgentStage,
    *,
    first: Agent | None = None,
    run: AgentRun | None = None,
) -> Agent:
    """Trains the agent that dreams, but in real environments in the place of its dreams: as many side by side, and as
    many steps. What it learns is what a world model without any error would have let it learn.

    Args:
        make_env: makes an env that begins and is cut as dreams are, and shows what they show.
        view: what the agent looks at.
        stage: how.
        first: whose weights to begin with; None for fresh ones.
        run: as of `learn_in_dream`.
    """
    return _learn_for_real(make_env, view, stage.num_envs, stage.steps, stage.ppo.rollout, stage, first, run)


def _learn_for_real(
    make_env: Callable[[], gymnasium.Env],
    view: View,
    num_envs: int,
    steps: int,
    rollout: int,
    stage: AgentStage,
    first: Agent | None,
    run: AgentRun | None,
) -> Agent:
    envs = make_vec_env(make_env, num_envs, seed=stage.seed)
    try:
        policy = _learn(envs, view, steps, stage, rollout, first, run or AgentRun())
        return Agent(policy, view, ActionSpace.from_gymnasium(envs.action_space))
    finally:
        envs.close()


def _learn(
    envs: VecEnv,
    view: View,
    steps: int,
    stage: AgentStage,
    rollout: int,
    first: Agent | None,
    run: AgentRun,
    learnt_from: str = "",
) -> ActorCriticPolicy:
    """Stable-Baselines3's policy after PPO."""
    saved = run.newest(_identity(stage, steps, first, learnt_from))
    done = saved.progress["step"] if saved else 0
    cfg, steps_per_update = stage.ppo, rollout * envs.num_envs
    ppo = PPO(
        view.policy,
        envs,
        learning_rate=lambda left: cfg.learning_rate * left,
        n_steps=rollout,
        batch_size=min(cfg.batch, steps_per_update),
        n_epochs=cfg.epochs,
        gamma=cfg.discount,
        gae_lambda=cfg.gae_lambda,
        ent_coef=cfg.entropy,
        clip_range=cfg.clip,
        policy_kwargs=view.architecture,
        # What goes on must not meet the same random numbers again.
        seed=stage.seed + done,
        device=default_device(),
    )
    view.begin(ppo.policy)
    if saved is not None:
        run.restore(ppo, saved)
    elif first is not None:
        _begin_with(ppo, first)
    agent = Agent(ppo.policy, view, ActionSpace.from_gymnasium(envs.action_space))
    callbacks = [_Progress(steps, done), _BetweenUpdates(run, agent, steps)]
    ppo.learn(steps - done, callback=callbacks, reset_num_timesteps=False)
    run.check(agent, ppo.num_timesteps, steps)
    run.save(ppo, now=True)
    ppo.policy.set_training_mode(False)
    return ppo.policy.to("cpu")


def _identity(stage: AgentStage, steps: int, first: Agent | None, learnt_from: str) -> str:
    """What a training must have in common with a checkpoint that it goes on from."""
    learning = replace(stage, **{name: getattr(AgentStage, name) for name in _REPORTS})
    settings = {"stage": to_plain(learning), "steps": steps, "from": learnt_from}
    return fingerprint(settings, {} if first is None else policy_tensors(first.policy))


def _begin_with(ppo: PPO, first: Agent) -> None:
    try:
        ppo.policy.load_state_dict(first.policy.state_dict())
    except RuntimeError as error:
        raise InputError(f"the agent to begin with is of another shape: {str(error).splitlines()[0]}") from error


class _Progress(BaseCallback):
    """A bar with the mean return of the last episodes."""

    def __init__(self, steps: int, done: int) -> None:
        super().__init__()
        self._bar = tqdm(total=steps, initial=done, unit="step", unit_scale=True, desc="learning", mininterval=2)

    def _on_step(self) -> bool:
        self._bar.update(self.training_env.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.ep_info_buffer
        if buffer:
            self._bar.set_postfix({"return": f"{sum(e['r'] for e in buffer) / len(buffer):.2f}"})

    def _on_training_end(self) -> None:
        self._bar.close()


class _BetweenUpdates(BaseCallback):
    """Has the agent judged, and writes checkpoints."""

    def __init__(self, run: AgentRun, agent: Agent, steps: int) -> None:
        super().__init__()
        self.run, self.agent, self.steps = run, agent, steps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.run.check(self.agent, self.num_timesteps, self.steps)
        self.run.save(self.model)  # type: ignore[arg-type]
