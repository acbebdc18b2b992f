"""How faithful dreams are: right where what is dreamt, and what really happened, is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from stores import make_episode, make_meta
from tiny_models import STEERING, tiny_store, tiny_world
from torch import Tensor

from vqvideo.data.episode import Episode, EpisodeReader
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.evaluation.agreement import balanced_accuracy, correlation
from vqvideo.evaluation.fidelity import FidelityReport, evaluate_fidelity
from vqvideo.evaluation.replay import Replay, dream_again
from vqvideo.models.prior.sampling import Sampling

pytestmark = pytest.mark.filterwarnings("error")

# ---------------------------------------------------------------- episodes and worlds whose outcome is known


def episode(length: int, seed: int, ends: bool = True) -> Episode:
    """Reward t at step t, as `make_episode`; ended by the environment or cut. Its action is always seed mod 5."""
    found = make_episode(length, seed, actions=np.full((length, 1), seed % 5.0))
    return found if ends else replace(found, terminated=found.truncated)


def store_of(path: Path, held_out: list[Episode], train: tuple[Episode, ...] = ()) -> Store:
    with StoreWriter.open(path, make_meta()) as writer:
        for index, one in enumerate(held_out):
            writer.add(index, one, "held_out")
        for index, one in enumerate(train, len(held_out)):
            writer.add(index, one, "train")
    return Store.open(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four held-out episodes, of which one was cut late, and two to train on."""
    held_out = [episode(n, seed) for seed, n in enumerate((7, 12, 20))]
    return store_of(tmp_path, [*held_out, episode(40, 3, ends=False)], (episode(9, 10), episode(40, 11)))


class Tokenizer(NamedTuple):
    stride: int
    frame_size: tuple[int, int] = (4, 6)

    def clip_length(self, latent_steps: int) -> int:
        return 1 + self.stride * (latent_steps - 1)


Outcome = Callable[[int, int, Tensor], tuple[float, float]]
"""Reward and probability of the end, for the seed of an episode, the time in it, and the actions of a step."""


class Fake:
    """Reads episode and time of its dreams from the first pixel of the last frame; says what `outcome` tells it."""

    device, action_space, sampling = torch.device("cpu"), make_meta().action_space, Sampling()

    def __init__(self, outcome: Outcome, stride: int = 1) -> None:
        self.outcome, self.stride, self.vqvae = outcome, stride, Tokenizer(stride)

    def start(self, frames: Tensor, actions: Tensor) -> Tensor:
        assert actions.shape == (len(frames), frames.shape[1] - 1, 1)
        return frames[:, -1, :2, 0, 0].long()

    def step(self, state: Tensor, action: Tensor, **_: Any) -> tuple[SimpleNamespace, Tensor]:
        assert action.shape == (len(state), self.stride, 1)
        said = [self.outcome(seed, time, one) for (time, seed), one in zip(state.tolist(), action, strict=True)]
        reward, termination = torch.tensor(said, dtype=torch.float32).T
        return SimpleNamespace(reward=reward, termination=termination), state + torch.tensor([self.stride, 0])


def oracle(store: Store, stride: int) -> Fake:
    """Says what really happened, and nonsense after the end."""
    episodes = {entry.seed: store.episode(entry) for entry in store.entries}

    def outcome(seed: int, time: int, actions: Tensor) -> tuple[float, float]:
        part = slice(time, time + stride)
        rewards, terminated = episodes[seed].rewards[part], episodes[seed].terminated[part]
        return (float(rewards.sum()), float(terminated.any())) if len(rewards) else (-1000.0, 0.5)

    return Fake(outcome, stride)


def constant(reward: float, end: float, stride: int = 1) -> Fake:
    """Always the same."""
    return Fake(lambda *_: (reward, end), stride)


def obedient() -> Fake:
    """Rewards are actions, and nothing ever ends."""
    return Fake(lambda seed, time, actions: (float(actions.sum()), 0.0))


def fading() -> Fake:
    """Rewards are actions; the end is unsure, and less likely the later."""
    return Fake(lambda seed, time, actions: (float(actions.sum()), 1 / (3 + seed + time)), stride=2)


def measured(world: Any, store: Store, **settings: Any) -> FidelityReport:
    return evaluate_fidelity(world, store, **{"horizon": 10, "context": 1, "samples": 2} | settings)


# ---------------------------------------------------------------- against what is known


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_dream_that_is_the_truth_makes_no_error(store: Store, stride: int, context: int) -> None:
    report = measured(oracle(store, stride), store, context=context)
    for found in (report.returns, report.lengths):
        assert found["dream"] == found["real"]
        assert (found["error"], found["correlation"]) == (0, pytest.approx(1))
        assert found["real_se"] == found["dream_se"] > 0
        assert found["error_training_mean"] > 0
    steps = report.steps
    assert steps["reward_rmse"] == steps["ended_brier"] == [0] * 10
    assert steps["alive_dream"] == steps["alive_real"]
    assert steps["alive_real"][0] > steps["alive_real"][-1] > 0
    assert {value for value in steps["ended_accuracy"] if not math.isnan(value)} == {1.0}
    assert (report.ends["average_precision"], report.ends["calibration_error"]) == (1, 0)


def test_lengths_and_returns_are_counted_in_latent_steps_after_the_context(store: Store) -> None:
    """With three frames of context, seven actions end in the third step of two, of which it takes only the first."""
    report = measured(oracle(store, 2), store, context=2, horizon=6)
    assert report.lengths["real"] == [3, 5, 6, 6]
    assert report.returns["real"] == [sum(range(2, stop)) for stop in (7, 12, 14, 14)]
    assert report.steps["alive_real"] == [1, 1, 0.75, 0.75, 0.5, 0.5]
    assert report.ends["rate"] == pytest.approx(2 / (3 + 5 + 6 + 6))


def test_errors_of_a_constant_dream_are_those_computed_by_hand(store: Store) -> None:
    report = measured(constant(2.0, 0.0), store)
    real = np.array([21, 45, 45, 45])
    assert report.returns["real"] == real.tolist()
    assert report.returns["dream"] == [20] * 4
    assert report.returns["error"] == report.returns["error_other_actions"] == np.abs(real - 20).mean()
    assert report.returns["real_se"] == pytest.approx(real.std(ddof=1) / 2)
    assert (report.returns["dream_se"], report.lengths["dream_mean"]) == (0, 10)
    assert report.lengths["error"] == 3 / 4
    assert report.steps["reward_rmse"] == pytest.approx([abs(t - 2) for t in range(10)])
    assert report.steps["ended_accuracy"] == pytest.approx([math.nan] * 6 + [0.5] * 4, nan_ok=True)
    assert report.steps["ended_brier"] == [0] * 6 + [0.25] * 4
    undefined = [report.returns["correlation"], report.lengths["correlation"], *report.steps["reward_correlation"]]
    assert all(map(math.isnan, undefined))
    assert report.ends["average_precision"] == report.ends["rate"] == pytest.approx(1 / 37)


def test_the_training_episodes_are_a_baseline(store: Store) -> None:
    """One ends after nine of ten steps, with a return of 36; the other goes on."""
    report = measured(constant(0.0, 0.0), store)
    assert report.training_episodes == 2
    assert report.returns["error_training_mean"] == np.abs(np.array([21, 45, 45, 45]) - (36 + 45) / 2).mean()
    assert report.lengths["error_training_mean"] == np.abs(np.array([7, 10, 10, 10]) - 9.5).mean()
    assert report.steps["reward_rmse_training_mean"] == [0] * 10
    ended = [0] * 6 + [0.25] * 2 + [(0.25 + 3 * 0.25) / 4] * 2
    assert report.steps["ended_brier_training_rate"] == ended


def test_without_training_episodes_there_is_no_baseline_and_nothing_else_is_missing(tmp_path: Path) -> None:
    report = measured(constant(1.0, 0.0), store_of(tmp_path, [episode(20, 0), episode(5, 1)]))
    missing = [report.returns["error_training_mean"], *report.steps["reward_rmse_training_mean"]]
    assert all(map(math.isnan, [*missing, *report.steps["ended_brier_training_rate"]]))
    assert report.returns["error"] > 0


def test_the_probability_of_having_ended_is_that_of_any_end_before(store: Store) -> None:
    report = measured(constant(0.0, 0.25), store, horizon=3)
    assert report.steps["ended_brier"] == pytest.approx([(1 - 0.75**k) ** 2 for k in (1, 2, 3)])


def test_dreams_end_as_often_as_their_probability_says(store: Store) -> None:
    report = measured(constant(1.0, 0.25), store, horizon=4, samples=1000)
    assert report.steps["alive_dream"] == pytest.approx([0.75**k for k in range(1, 5)], abs=0.03)
    assert report.lengths["dream_mean"] == pytest.approx(1 + 0.75 + 0.75**2 + 0.75**3, abs=0.05)
    assert report.returns["dream"] == report.lengths["dream"]


def test_rewards_after_the_end_of_a_dream_do_not_count(store: Store) -> None:
    report = measured(constant(5.0, 1.0), store)
    assert report.returns["dream"] == [5] * 4
    assert report.lengths["dream"] == [1] * 4
    assert report.steps["alive_dream"] == [0] * 10
    assert report.steps["reward_rmse"][1:] == list(range(1, 10))


def test_other_actions_are_those_of_the_episode_before(tmp_path: Path) -> None:
    held_out = [episode(20, seed) for seed in (1, 2, 4)]
    report = measured(obedient(), store_of(tmp_path, held_out))
    assert report.returns["dream"] == [10, 20, 40]
    assert report.returns["other_actions"] == [40, 10, 20]


def test_flags_are_judged_by_the_mean_accuracy_of_both_classes(store: Store) -> None:
    """Of four episodes one has ended. Its two dreams: one has; those of the others: none, one, two have."""
    flags = torch.tensor([[True, False], [False, False], [True, False], [True, True]])[..., None]
    real = torch.tensor([True, False, False, False])[:, None]
    assert balanced_accuracy(flags, real).item() == pytest.approx((1 / 2 + 3 / 6) / 2)
    assert balanced_accuracy(flags[:1], real[:1]).isnan().all()


# ---------------------------------------------------------------- what is repeatable


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_the_batch_does_not_change_the_report(store: Store, batch: int) -> None:
    assert measured(fading(), store, batch=batch).to_json() == measured(fading(), store).to_json()


def test_equal_seeds_give_equal_reports_and_others_other_ends(tmp_path: Path) -> None:
    world, store = tiny_world(), tiny_store(tmp_path)
    one, same, other = (measured(world, store, horizon=4, context=2, seed=seed).to_json() for seed in (0, 0, 1))
    assert one == same
    assert one["returns"]["dream"] != other["returns"]["dream"]
    assert one["returns"]["real"] == other["returns"]["real"]


def test_the_dreams_are_those_that_the_world_imagines(tmp_path: Path) -> None:
    world, store = tiny_world(), tiny_store(tmp_path)
    replay, how = Replay(store, "held_out", 9, seen=3, stride=2, horizon=5), Sampling(temperature=0)
    dreams, other = dream_again(world, replay, 2, how, seed=0, batch=3)
    frames, known = replay.context([0, 1])
    future = torch.stack([torch.from_numpy(store.episode(e).actions[2:12]) for e in store.split("held_out")])
    for found, actions in ((dreams, future), (other, future.roll(1, dims=0))):
        dream = world.imagine(frames, torch.cat([known, actions], dim=1), sampling=how, seed=0)
        for sample in (0, 1):
            torch.testing.assert_close(found.outcomes.rewards[:, sample].float(), dream.rewards)
            torch.testing.assert_close(found.termination[:, sample].float(), dream.termination)


def test_no_frame_after_the_context_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = EpisodeReader.frames
    asked = []
    monkeypatch.setattr(EpisodeReader, "frames", lambda self, *span: asked.append(span) or read(self, *span))
    measured(constant(0.0, 0.0, stride=2), store, context=3)
    assert asked == [(0, 5)] * 4


# ---------------------------------------------------------------- which episodes, which actions


def test_actions_go_on_with_stretches_of_other_episodes_after_an_end(store: Store) -> None:
    replay = Replay(store, "held_out", 9, seen=1, stride=1, horizon=15)
    actions = replay.actions(torch.Generator().manual_seed(0))[..., 0]
    assert actions.shape == (4, 15)
    for row, (own, ends) in enumerate(((0, 7), (1, 12), (2, 15), (3, 15))):
        assert (actions[row, :ends] == own).all()
        assert not (actions[row, ends:] == own).any()
    assert (actions == replay.actions(torch.Generator().manual_seed(0))[..., 0]).all()
    assert len({tuple(replay.actions(torch.Generator().manual_seed(seed))[0, :, 0].tolist()) for seed in range(9)}) > 1


def test_episodes_that_were_cut_or_have_no_future_are_left_out_and_counted(tmp_path: Path) -> None:
    kinds = [(20, False), (9, False), (10, False), (3, True), (2, True), (1, False)]
    store = store_of(tmp_path, [episode(n, seed, ends) for seed, (n, ends) in enumerate(kinds)])
    report = measured(constant(0.0, 0.0), store, context=3, horizon=8)
    assert report.lengths["real"] == [8, 8, 1]
    assert (report.episodes, report.episodes_cut, report.episodes_too_short) == (3, 1, 2)


def test_an_episode_that_ended_is_known_for_every_horizon(tmp_path: Path) -> None:
    store = store_of(tmp_path, [episode(30, 0, ends=False), episode(4, 1)])
    assert measured(constant(0.0, 0.0, 2), store, context=2, horizon=14).lengths["real"] == [14, 1]


def test_few_of_many_episodes_are_spread_over_the_split(tmp_path: Path) -> None:
    store = store_of(tmp_path, [episode(10, seed) for seed in range(9)])
    assert [entry.index for entry in Replay(store, "held_out", 3, seen=1, stride=1, horizon=5).entries] == [0, 4, 8]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([(30, False), (21, False), (9, False)], "1 of 3 .* for 12 latent steps after 3 .* 2 were cut .* horizon is 9"),
        ([(30, False), (2, True)], "no horizon is usable"),
        ([(30, False)], "no horizon is usable"),
    ],
)
def test_fewer_than_two_episodes_are_refused_with_the_longest_horizon(
    tmp_path: Path, kinds: list[tuple[int, bool]], message: str
) -> None:
    store = store_of(tmp_path, [episode(n, seed, ends) for seed, (n, ends) in enumerate(kinds)])
    with pytest.raises(InputError, match=message):
        measured(constant(0.0, 0.0, 2), store, context=2, horizon=12)


@pytest.mark.parametrize("name", ["horizon", "context", "samples", "batch", "episodes"])
def test_settings_below_their_least_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0, expected at least"):
        measured(constant(0.0, 0.0), store, **{name: 0})


def test_a_store_of_another_environment_is_refused(store: Store) -> None:
    world = constant(0.0, 0.0)
    world.vqvae = Tokenizer(1, (64, 64))
    with pytest.raises(InputError, match=r"frames of \(h, w\) \(4, 6\), the world model takes \(64, 64\)"):
        measured(world, store)
    world.action_space = STEERING
    with pytest.raises(InputError, match=r"actions in Discrete\(5\), the world model takes Box"):
        measured(world, store)


# ---------------------------------------------------------------- small parts, text, JSON, picture


def test_correlation_is_pearsons_and_rounding_is_no_signal() -> None:
    x, y = torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([3.0, 1.0, 0.5]).double()
    assert correlation(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    for constant in (torch.full((3,), 0.1), 5 + torch.tensor([0.0, 1e-7, 0.0]).double(), torch.zeros(3)):
        assert math.isnan(correlation(x, constant.double()))
    assert math.isnan(correlation(x[:1], y[:1]))


def test_what_is_no_number_becomes_null(store: Store) -> None:
    plain = measured(constant(1.0, 0.0), store).to_json()
    assert plain["returns"]["correlation"] is None
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_the_table_names_its_settings_and_has_a_line_per_step(store: Store) -> None:
    text = measured(oracle(store, 1), store, context=2, samples=3, seed=7).table()
    assert "split held_out: 4 episodes, 3 dream(s) of each, context 2 and horizon 10 latent steps, seed 7" in text
    table = text.split("\n\n")[2].splitlines()
    assert [line.split()[1] for line in table[3:]] == [str(step) for step in range(1, 11)]
    assert table[3].split()[1::2] == ["1", "0.000", "0.000", "-", "100.0%", "100.0%", "-", "0.0000", "0.0000"]
