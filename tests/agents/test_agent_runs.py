"""A training of an agent that is killed and goes on."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stable_baselines3 import PPO
from test_agents import QUICK, Signal, same_weights
from tiny_models import SIZE, tiny_store, tiny_world

from vqvideo.agents import run as runs
from vqvideo.agents.agent import Agent
from vqvideo.agents.config import AgentStage
from vqvideo.agents.learning import learn_in_dream, learn_in_perfect_dream
from vqvideo.agents.run import AgentRun
from vqvideo.agents.views import FrameView
from vqvideo.errors import InputError
from vqvideo.models.prior.sampling import Sampling
from vqvideo.storage.checkpoint import training_checkpoints

STAGE = replace(QUICK, steps=160)
"""Five updates of 32 steps."""


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each update the steps before it. A checkpoint follows each one."""
    monkeypatch.setattr(runs, "SECONDS", 0.0)
    seen: list[int] = []
    train = PPO.train
    monkeypatch.setattr(PPO, "train", lambda ppo: (seen.append(ppo.num_timesteps), train(ppo))[1])
    return seen


def learn(
    folder: Path | None, stage: AgentStage = STAGE, *, run: AgentRun | None = None, kill_after: int | None = None
) -> Agent:
    """Learns in real environments; with `kill_after`, the process ends in the update after so many."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if kill_after is not None:
            train, done = PPO.train, []

            def killed(ppo: PPO) -> None:
                if len(done) == kill_after:
                    raise KilledError
                done.append(train(ppo))

            monkeypatch.setattr(PPO, "train", killed)
        return learn_in_perfect_dream(Signal, FrameView((SIZE, SIZE)), stage, run=run or AgentRun(folder))


def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path, updates: list[int]) -> None:
    with pytest.raises(KilledError):
        learn(tmp_path / "c", kill_after=3)
    assert updates == [32, 64, 96]
    rates: list[float] = []
    step = PPO._update_learning_rate
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(
            PPO, "_update_learning_rate", lambda ppo, o: (step(ppo, o), rates.append(o.param_groups[0]["lr"]))[0]
        )
        learn(tmp_path / "c")
    assert updates == [32, 64, 96, 128, 160]
    shares = [rate / STAGE.ppo.learning_rate for rate in rates]
    assert shares == pytest.approx([0.2, 0.0], abs=1e-6), "the schedule goes on too"


def test_weights_and_moments_are_those_of_the_checkpoint(tmp_path: Path, updates: list[int]) -> None:
    still = replace(STAGE, ppo=replace(STAGE.ppo, learning_rate=0.0))
    with pytest.raises(KilledError):
        learn(tmp_path / "c", still, kill_after=4)
    seen: list[PPO] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(PPO, "train", lambda ppo: seen.append(ppo))
        goes_on = learn(tmp_path / "c", still)
    updates_of_each = {int(state["step"]) for state in seen[0].policy.optimizer.state.values()}
    assert updates_of_each == {4 * 2}, "4 updates of 2 batches"
    fresh = learn_in_perfect_dream(Signal, FrameView((SIZE, SIZE)), still)
    assert same_weights(goes_on.policy, fresh.policy)
    assert not same_weights(goes_on.policy, learn(tmp_path / "other").policy)


def test_a_finished_training_is_not_done_again_until_its_checkpoints_are_removed(
    tmp_path: Path, updates: list[int]
) -> None:
    first = learn(tmp_path / "c")
    assert len(training_checkpoints(tmp_path / "c")) == 2
    again = learn(tmp_path / "c")
    assert same_weights(first.policy, again.policy)
    assert len(updates) == 5
    AgentRun(tmp_path / "c").forget()
    assert not (tmp_path / "c").exists()
    learn(tmp_path / "c")
    assert len(updates) == 10


def test_checkpoints_of_another_training_are_not_gone_on_from(
    tmp_path: Path, updates: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    learn(tmp_path / "c")
    with caplog.at_level(logging.WARNING):
        learn(tmp_path / "c", replace(STAGE, seed=1))
    assert "with other settings or another world: beginning anew" in caplog.text
    assert len(updates) == 10
    store, run = tiny_store(tmp_path / "store"), AgentRun(tmp_path / "dream")
    learn_in_dream(tiny_world(), store, QUICK, Sampling(), run=run)
    learn_in_dream(tiny_world(), store, QUICK, Sampling(), run=run)
    assert len(updates) == 12
    learn_in_dream(tiny_world(seed=1), store, QUICK, Sampling(), run=run)
    assert len(updates) == 14


def test_a_damaged_checkpoint_is_skipped_and_many_are_refused(tmp_path: Path, updates: list[int]) -> None:
    learn(tmp_path / "c")
    _, newer = training_checkpoints(tmp_path / "c")
    (newer / "model.safetensors").write_bytes(b"")
    learn(tmp_path / "c")
    assert updates[5:] == [160]
    for path in training_checkpoints(tmp_path / "c"):
        (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="Remove the folder to start anew"):
        learn(tmp_path / "c")


def test_without_a_folder_nothing_is_written_and_time_is_counted(tmp_path: Path, updates: list[int]) -> None:
    run = AgentRun()
    learn_in_perfect_dream(Signal, FrameView((SIZE, SIZE)), STAGE, run=run)
    assert run.seconds > 0
    assert not list(tmp_path.iterdir())
    learn(tmp_path / "c")
    manifest = json.loads((training_checkpoints(tmp_path / "c")[-1] / "manifest.json").read_text())
    assert manifest["info"]["step"] == 160
    assert manifest["info"]["seconds"] > 0


# ---------------------------------------------------------------- judged on the way


def bias(agent: Agent) -> dict[str, float]:
    """A judge that uses up random numbers, and sees how the weights move."""
    return {"bias": float(agent.policy.action_net.bias[0].detach() + 0 * torch.rand(1))}  # type: ignore[index]


@pytest.mark.parametrize(
    ("count", "steps"), [(0, []), (1, [160]), (2, [0, 160]), (3, [0, 96, 160]), (100, [0, 32, 64, 96, 128, 160])]
)
def test_an_agent_is_judged_from_the_beginning_to_the_end_and_learns_the_same(count: int, steps: list[int]) -> None:
    run = AgentRun(None, bias, count)
    learnt = learn(None, run=run)
    assert [check["steps"] for check in run.checks] == steps
    # The last update, at a rate of 0, changes nothing.
    assert len({check["bias"] for check in run.checks}) == min(len(steps), 5)
    assert same_weights(learnt.policy, learn(None).policy)


def test_what_was_judged_before_a_kill_is_kept(tmp_path: Path, updates: list[int]) -> None:
    with pytest.raises(KilledError):
        learn(tmp_path / "c", run=AgentRun(tmp_path / "c", bias, 6), kill_after=3)
    run = AgentRun(tmp_path / "c", bias, 6)
    learn(tmp_path / "c", run=run)
    assert [check["steps"] for check in run.checks] == [0, 32, 64, 96, 128, 160]
    # Other reports are no other training.
    learn(tmp_path / "c", replace(STAGE, checks=0, episodes=9, longest=9))
    assert len(updates) == 5
