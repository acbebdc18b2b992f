"""Improving in rounds: what a round goes on from, what it leaves, and that a killed run ends as one that was not.

All trainings are a few steps long: what is tested is the order of things, not how well anything is learnt.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from processes import SCRIPTS
from stable_baselines3 import PPO
from stub_envs import MemoryWriter, StubEnv
from tiny_models import tiny_experiment

sys.path.insert(0, str(SCRIPTS))

from vqvideo import envs
from vqvideo.agents.agent import Agent
from vqvideo.agents.config import AgentStage, PPOConfig
from vqvideo.data.collect import collect, split_of
from vqvideo.data.config import RecordConfig
from vqvideo.data.store import Store, StoreWriter
from vqvideo.envs import recording
from vqvideo.envs.recording import record as record_episodes
from vqvideo.errors import InputError, RunStoppedError
from vqvideo.evaluation.returns import dream_and_game_table
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.rounds import (
    EPISODES,
    ImproveConfig,
    RoundLog,
    agent_folder,
    control_folder,
    nth_round,
    round_line,
    round_table,
)
from vqvideo.scripts import agent_seeds, rounds_plot, train_agent
from vqvideo.scripts import improve as script
from vqvideo.storage import files
from vqvideo.storage.locks import FolderLock
from vqvideo.storage.records import to_plain, write_yaml
from vqvideo.training.signals import InterruptedRunError
from vqvideo.training.trainer import Trainer
from vqvideo.world import WorldModel

TWO_ROUNDS = ImproveConfig(rounds=2, episodes=3, exploration=0.25, share=0.5)
FIRST_EPISODES = 4


def settings(folder: Path) -> Experiment:
    """An experiment of seconds, with a time stride of 2."""
    # With this seed, one of the few episodes to train on meets the goal.
    record = RecordConfig(
        env="TinyWorld", episodes=FIRST_EPISODES, steps=16, frame_size=16, held_out_every=2, policy="random", seed=3,
        workers=0,
    )  # fmt: skip
    agent = AgentStage(
        steps=32, num_envs=4, horizon=4, starts=8, episodes=3, longest=8, checks=2, context=2, memory=1,
        ppo=PPOConfig(rollout=4, batch=16, epochs=1),
    )  # fmt: skip
    return replace(tiny_experiment(folder), record=record, agent=agent)


class Finished(NamedTuple):
    """A run of two rounds, started from the command line and never stopped."""

    cfg: Experiment
    rounds: list[dict[str, Any]]
    out: str

    def round(self, number: int) -> Experiment:
        """The settings of one of its rounds."""
        return nth_round(self.cfg, TWO_ROUNDS, number).cfg

    @property
    def store(self) -> Store:
        """Its episodes."""
        return Store.open(self.cfg.folder / "data")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    cfg = settings(folder)
    (folder / "tiny.yaml").write_text(write_yaml(to_plain(cfg)))
    how = "--improve.rounds 2 --improve.episodes 3 --improve.exploration 0.25 --improve.share 0.5"
    with pytest.MonkeyPatch.context() as monkeypatch, redirect_stdout(io.StringIO()) as out:
        monkeypatch.setattr(sys, "argv", ["improve.py", "--config", str(folder / "tiny.yaml"), *how.split()])
        script.main()
    rounds = json.loads((cfg.folder / "rounds.json").read_text())["rounds"]
    return Finished(cfg, rounds, out.getvalue())


# ---------------------------------------------------------------- what a run leaves


def test_the_store_grows_by_the_episodes_asked_for_each_in_its_split(finished: Finished) -> None:
    entries = finished.store.entries
    assert [entry.index for entry in entries] == list(range(FIRST_EPISODES + 3))
    assert [entry.split for entry in entries] == [split_of(index, 2) for index in range(FIRST_EPISODES + 3)]
    assert finished.store.meta.policy == "random"


def test_the_log_says_who_played_which_episodes(finished: Finished) -> None:
    first, second = (figures["episodes"] for figures in finished.rounds)
    assert (first["player"], first["first"], first["last"]) == ("random", 0, 3)
    player = agent_folder(finished.round(0))
    assert (second["player"], second["first"], second["last"]) == (str(player), 4, 6)
    assert second["digest"] == files.read_manifest(player).digest
    entries = finished.store.entries
    assert second["real_frames"] == sum(entry.length + 1 for entry in entries)
    assert second["mean_return"] == pytest.approx(np.mean([entry.total_reward for entry in entries[4:]]))


def test_the_later_episodes_are_the_agents(finished: Finished) -> None:
    again, first = MemoryWriter(), finished.round(0)
    again.indices.update(range(FIRST_EPISODES))
    collect(
        lambda: envs.make(replace(envs.resolve("TinyWorld"), policy="random")),
        lambda: script.agent_policy(agent_folder(first), 0.25, 2, first.folder / "vqvae" / "model"),
        again, episodes=FIRST_EPISODES + 3, max_steps=16, frame_size=(16, 16), seed=3, workers=0, progress=False,
    )  # fmt: skip
    for entry in finished.store.entries[FIRST_EPISODES:]:
        np.testing.assert_array_equal(finished.store.episode(entry).actions, again.episodes[entry.index].actions)


def test_an_agent_holds_its_actions_as_in_the_dream(finished: Finished) -> None:
    for entry in finished.store.entries[FIRST_EPISODES:]:
        actions = finished.store.episode(entry).actions
        np.testing.assert_array_equal(actions[1::2], actions[0::2][: len(actions[1::2])])


def test_each_round_has_a_world_and_an_agent_of_its_own(finished: Finished) -> None:
    worlds = [WorldModel.from_pretrained(finished.round(number).folder / "world") for number in (0, 1)]
    assert worlds[0].vqvae.fingerprint() == worlds[1].vqvae.fingerprint()
    priors = [world.prior.state_dict() for world in worlds]
    assert any(not value.equal(priors[1][name]) for name, value in priors[0].items())
    for folder in (agent_folder, control_folder):
        agents = [Agent.load(folder(finished.round(number))).policy.state_dict() for number in (0, 1)]
        assert any(not value.equal(agents[1][name]) for name, value in agents[0].items())


def test_a_further_round_goes_on_from_the_one_before_for_a_share_of_the_steps(finished: Finished) -> None:
    out, before = finished.out, finished.round(0).folder
    assert f"from the prior of {before / 'world'}" in out
    steps = [json.loads(line)["step"] for line in (finished.round(1).folder / "prior" / "metrics.jsonl").open()]
    assert max(steps) == finished.cfg.prior.train.steps // 2
    assert finished.rounds[1]["tokenizer"]["kept"] == files.read_manifest(before / "vqvae" / "model").digest


def test_a_further_round_looks_most_at_what_is_new(finished: Finished) -> None:
    first, second = (finished.round(number) for number in (0, 1))
    assert (first.prior.newest, first.agent.newest) == (0.0, 0.0)
    assert (second.prior.newest, second.agent.newest) == (TWO_ROUNDS.newest, TWO_ROUNDS.newest) != (0.0, 0.0)


def test_an_agent_begins_with_the_one_of_the_round_before(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = replace(finished.cfg.agent, ppo=replace(finished.cfg.agent.ppo, learning_rate=0.0))
    turn = nth_round(replace(finished.cfg, agent=still), TWO_ROUNDS, 1)
    save = Agent.save
    monkeypatch.setattr(Agent, "save", lambda agent, folder: save(agent, tmp_path / "agent"))
    script.train_agent(turn)
    before = Agent.load(agent_folder(finished.round(0))).policy.state_dict()
    assert all(value.equal(before[name]) for name, value in Agent.load(tmp_path / "agent").policy.state_dict().items())


def test_a_line_per_round_and_a_table_stand_beside_random_actions(finished: Finished) -> None:
    random = finished.rounds[0]["returns"]["random"]
    for number in (0, 1):
        assert round_line(finished.rounds, number) in finished.out
        assert f"random {random['mean_return']:.2f} [" in round_line(finished.rounds, number)
    shown = round_table(finished.rounds)
    assert [line.split("|")[1].strip() for line in shown.splitlines()[2:]] == ["random", "round 0", "round 1"]
    assert shown in finished.out
    for figures in finished.rounds:
        names = {"agent", "agent, greedy", "control", "control, greedy"}
        played = {name: returns for name, returns in figures["returns"].items() if name != "seconds"}
        assert played.keys() == (names if figures["round"] else names | {"random"})
        assert all(returns["episodes"] == 3 for returns in played.values())
    assert (finished.cfg.folder / "rounds.png").stat().st_size > 10_000


def test_returns_in_the_dream_stand_beside_those_in_the_game(finished: Finished) -> None:
    for figures in finished.rounds:
        checks = figures["agent"]["checks"]
        assert [check["steps"] for check in checks] == [0, 32]
        for returns in (check[place] for check in checks for place in ("dream", "game")):
            assert returns["episodes"] == train_agent.CHECK_EPISODES
            assert 0 < returns["mean_length"] <= 4
        assert dream_and_game_table(checks) in finished.out


def test_without_a_control_nothing_stands_beside_the_agent(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = nth_round(finished.cfg, replace(TWO_ROUNDS, control=False), 1)
    monkeypatch.setattr("vqvideo.agents.learning.learn_in_perfect_dream", None)
    assert script.train_control(turn) == {}
    played = script.play_for_real(turn)
    assert played.keys() == {"agent", "agent, greedy"}
    rounds = [finished.rounds[0], {**finished.rounds[1], "returns": played}]
    rounds_plot.plot_rounds(rounds, "as it went on", finished.cfg.folder / "without.png")
    assert (finished.cfg.folder / "without.png").is_file()
    assert "perfect" not in round_line(rounds, 1)
    *_, control, share, _ = round_table(rounds).splitlines()[-1].split("|")
    assert not control.strip() + share.strip()


def test_an_agent_is_reported_beside_the_perfect_dream_and_random_actions(finished: Finished) -> None:
    results = train_agent.train_agent(finished.round(0), direct=False)
    # With a time stride of 2 nobody is known to play best: who decides at every step has an advantage.
    names = (train_agent.DREAM, train_agent.CONTROL)
    expected = {*names, *(f"{name}, greedy" for name in names), train_agent.RANDOM}
    assert results["agents"].keys() == expected
    assert json.loads((finished.round(0).folder / "agent" / "results.json").read_text())["checks"] == results["checks"]
    means = {name: figures["mean_return"] for name, figures in results["agents"].items()}
    assert results["shares"].keys() <= {f"{train_agent.DREAM} / {train_agent.CONTROL}"}
    assert means[train_agent.RANDOM] == pytest.approx(finished.rounds[0]["returns"]["random"]["mean_return"])


def test_shares_are_of_the_gain_over_random_actions() -> None:
    agents = {train_agent.DREAM: 2.0, train_agent.CONTROL: 5.0, train_agent.BEST: 9.0, train_agent.RANDOM: 1.0}
    found = train_agent.shares({name: {"mean_return": mean} for name, mean in agents.items()})
    assert list(found.values()) == [0.25, 0.5, 0.125]
    assert train_agent.shares({name: {"mean_return": 0.0} for name in agents}) == {}


# ---------------------------------------------------------------- killed and continued


class KilledError(BaseException):
    """Stands for the end of the process."""


@contextmanager
def killed_at(owner: Any, name: str, call: int) -> Iterator[None]:
    """The process ends in call number `call`, from 1, of a method; nothing of that call happens."""
    calls, method = Counter[str](), getattr(owner, name)

    def counted(*args: Any, **options: Any) -> Any:
        calls[name] += 1
        if calls[name] == call:
            raise KilledError
        return method(*args, **options)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(owner, name, counted)
        yield


KILLS: tuple[tuple[Any, str, int], ...] = (
    (StoreWriter, "add", 3),  # in the recording
    (Trainer, "_after_step", 5),  # in the tokenizer of round 0, a checkpoint after step 3
    (Trainer, "__init__", 2),  # in the prior's stage, before its first step
    (Trainer, "_after_step", 5),  # in the prior
    (Agent, "save", 1),  # at the end of learning
    (Agent, "save", 2),  # at the end of learning in the perfect dream
    (train_agent, "play", 2),  # between the agents
    (StoreWriter, "add", 2),  # while the agent records
    (Trainer, "_after_step", 4),  # in the prior of round 1
    (RoundLog, "add", 1),  # after it, before that is noted
    (script, "load", 1),  # between prior and agent of round 1
)


def test_a_run_that_is_killed_everywhere_ends_as_one_that_was_not(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, ended = settings(tmp_path), []

    def noted(name: str, stage: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(turn: Any) -> Any:
            figures = stage(turn)
            ended.append((turn.cfg.name, name))
            return figures

        return run

    monkeypatch.setattr(script, "STAGES", {name: noted(name, stage) for name, stage in script.STAGES.items()})
    for kill in KILLS:
        with pytest.raises(KilledError), killed_at(*kill):
            script.improve(cfg, TWO_ROUNDS)
    rounds = script.improve(cfg, TWO_ROUNDS)
    assert Store.open(cfg.folder / "data").digest == finished.store.digest
    assert timeless(rounds) == timeless(finished.rounds)
    # What ended without being noted ends again; everything else ends once, in this order.
    assert list(dict.fromkeys(ended)) == [(f"round_{r}", name) for r in (0, 1) for name in script.STAGES]
    again = {stage: count for stage, count in Counter(ended).items() if count > 1}
    assert again == {("round_1", "prior"): 2}


def test_an_agent_that_is_killed_while_it_learns_goes_on_and_leaves_no_checkpoint(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, train, steps = nth_round(finished.cfg, TWO_ROUNDS, 1), PPO.train, []
    folder = train_agent.checkpoints_folder(turn.cfg, train_agent.DREAM)
    save = Agent.save
    monkeypatch.setattr(Agent, "save", lambda agent, folder: save(agent, tmp_path / "agent"))
    monkeypatch.setattr("vqvideo.agents.run.SECONDS", 0.0)
    monkeypatch.setattr(PPO, "train", lambda ppo: (steps.append(ppo.num_timesteps), train(ppo)))
    with pytest.raises(KilledError), killed_at(PPO, "train", 2):
        script.train_agent(turn)
    assert folder.is_dir()
    script.train_agent(turn)
    assert steps == [16, 32]
    assert not folder.exists()


def timeless(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures that do not depend on where and how fast it was."""
    stages = script.STAGES
    return [
        {name: {k: v for k, v in figures[name].items() if k not in ("seconds", "player")} for name in stages}
        for figures in rounds
    ]


def test_a_finished_run_does_nothing_again_and_takes_other_settings_of_the_machine(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "STAGES", dict.fromkeys(script.STAGES))
    train = replace(finished.cfg.vqvae.train, threads=2, keep=5, validate_every=7)
    cfg = replace(finished.cfg, vqvae=replace(finished.cfg.vqvae, train=train))
    cfg = replace(cfg, record=replace(cfg.record, workers=1))
    assert script.improve(cfg, replace(TWO_ROUNDS, rounds=1)) == finished.rounds


def test_a_run_with_more_rounds_goes_further(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(RoundLog, "add", lambda self, number, name, figures: seen.append((number, name)))
    stages = dict.fromkeys(script.STAGES, lambda turn: {})
    monkeypatch.setattr(script, "STAGES", stages)
    monkeypatch.setattr("vqvideo.experiment.rounds.round_line", lambda rounds, number: "")
    # The game may turn out not to repeat itself, so that nothing real can begin where dreams do.
    script.improve(finished.cfg, replace(TWO_ROUNDS, rounds=3, control=False))
    assert seen == [(2, name) for name in stages]


def test_agents_that_learn_directly_stand_beside_a_finished_run(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "STAGES", dict.fromkeys(script.STAGES))
    monkeypatch.setattr(script, "DIRECT_ENVS", (2, 4))
    rounds = script.improve(finished.cfg, replace(TWO_ROUNDS, direct=True))
    names = ["learnt directly, 2 envs", "learnt directly, 4 envs"]
    first, last = rounds
    assert "direct" not in first
    assert list(last["direct"]["returns"]) == names
    log = finished.cfg.folder / "rounds.json"
    best = max(last["direct"]["returns"][name]["mean_return"] for name in names)
    assert agent_seeds.read_run(log)["returns"]["learnt directly"] == best
    shown = [line.split("|")[1].strip() for line in round_table(rounds).splitlines()[2:]]
    assert shown == ["random", "round 0", "round 1", *names]
    log.write_text(json.dumps({"settings": json.loads(log.read_text())["settings"], "rounds": finished.rounds}))


def test_where_episodes_end_early_rounds_take_more_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_REWARDS", 0)
    cfg = settings(tmp_path)
    assert script.settled(cfg, ImproveConfig()) == (cfg, ImproveConfig(episodes=60))
    wanted = replace(cfg, record=replace(cfg.record, frames=4 * 17 * 3 // 2))
    first, how = script.settled(wanted, ImproveConfig())
    assert (first.record.episodes, first.record.frames) == (6, None)
    assert how.episodes == 90
    assert script.settled(wanted, TWO_ROUNDS)[1] == TWO_ROUNDS


def test_the_first_round_goes_on_until_rewards_of_both_signs_were_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_REWARDS", 4)
    cfg = settings(tmp_path)
    wanted = replace(cfg, record=replace(cfg.record, frames=1))
    first, how = script.settled(wanted, ImproveConfig())
    store = Store.open(cfg.folder / "data")
    assert cfg.record.episodes < first.record.episodes == len(store.entries) <= 3 * cfg.record.episodes
    assert how.episodes == EPISODES
    assert "rewards of the rarer sign, so it goes on up to" in capsys.readouterr().out
    seen = recording.rarer_rewards(nth_round(first, how, 0).cfg.record)
    assert seen >= 4 or len(store.entries) == 3 * cfg.record.episodes
    assert script.settled(wanted, ImproveConfig())[0] == first


# ---------------------------------------------------------------- what is refused


def test_a_run_is_not_continued_with_other_settings(finished: Finished) -> None:
    cfg = finished.cfg
    longer = replace(cfg.vqvae, train=replace(cfg.vqvae.train, steps=20))
    for other, how, message in (
        (cfg, replace(TWO_ROUNDS, episodes=5), "improve.episodes 3 -> 5"),
        (replace(cfg, record=replace(cfg.record, steps=20)), TWO_ROUNDS, "record.steps 16 -> 20"),
        (replace(cfg, vqvae=longer), TWO_ROUNDS, "vqvae.train.steps 8 -> 20"),
    ):
        with pytest.raises(InputError, match=f"rounds.json began with other settings: {message}. Repeat them"):
            script.improve(other, how)


def test_two_processes_do_not_improve_one_run(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    cfg.folder.mkdir(parents=True)
    with FolderLock(cfg.folder), pytest.raises(InputError, match="is being written by another process"):
        script.improve(cfg, TWO_ROUNDS)


def test_a_store_with_episodes_of_someone_else_is_refused(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    record = replace(cfg.record, out=tmp_path / "shared", episodes=6)
    record_episodes(record)
    with pytest.raises(InputError, match=r"shared holds 6 episodes, expected 4: not all are of this run"):
        script.improve(replace(cfg, record=replace(record, episodes=4)), TWO_ROUNDS)


def test_a_recording_without_any_reward_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    with pytest.raises(InputError, match=r"no reward in the 2 training episodes of .*data: nothing to learn"):
        script.improve(replace(cfg, record=replace(cfg.record, seed=0)), TWO_ROUNDS)


def test_actions_that_no_agent_chooses_are_refused_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = settings(tmp_path)
    monkeypatch.setattr(envs, "make", lambda preset: StubEnv("dict"))
    with pytest.raises(InputError, match="agents choose from Box, Discrete"):
        script.improve(cfg, TWO_ROUNDS)
    assert not cfg.folder.exists()


# ---------------------------------------------------------------- small parts


def test_a_training_that_a_signal_stopped_is_continued_by_the_same_command() -> None:
    with (
        pytest.raises(RunStoppedError, match=r"^stopped by SIGTERM; the same command goes on$") as stopped,
        script.telling_how_to_go_on(),
    ):
        raise InterruptedRunError(15, Path("checkpoints"))
    assert stopped.value.exit_code == 143
