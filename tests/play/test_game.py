"""The real environment under a player's keys: beside the dream, in a process of its own, kept as episodes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import stub_envs
from players import CONTEXT, session, tiny_game, world
from stores import make_meta
from tiny_models import FIVE, SIZE

from vqvideo.data.clips import Clips
from vqvideo.data.store import Store, StoreWriter
from vqvideo.envs.tiny_world import TinyWorld
from vqvideo.errors import InputError
from vqvideo.models.prior.config import Sampling
from vqvideo.play.game import Game
from vqvideo.play.messages import Start, Step
from vqvideo.play.reality import Reality
from vqvideo.play.recorder import SHORTEST, Recorder
from vqvideo.play.session import Answer, Session

IDLE = world().vqvae.clip_length(CONTEXT) - 1


@contextmanager
def played(game: Game) -> Iterator[Session]:
    """A session that is closed at the end."""
    playing = session(game)
    try:
        yield playing
    finally:
        playing.close()


@contextmanager
def reality(make: Callable[[], gymnasium.Env], patience: float = 60.0) -> Iterator[Reality]:
    real = Reality(make, FIVE, patience)
    try:
        yield real
    finally:
        real.close()


def begin(playing: Session, seed: int = 0) -> Answer:
    return playing.start(Start(1, 0, seed))


def go(playing: Session, number: int, action: int) -> Answer:
    return playing.step(Step(1, number, ((float(action),),) * 2, Sampling()))


def noise(length: int = 50, recorder: Recorder | None = None) -> Game:
    """A game of noise that ends after so many steps."""
    return Game(Reality(partial(stub_envs.StubEnv, "discrete", SIZE, length), FIVE), recorder)


def test_the_real_game_gets_the_same_seed_and_actions() -> None:
    env = TinyWorld(SIZE)
    env.reset(seed=3)
    for _ in range(IDLE):
        frame, *_ = env.step(0)
    with played(tiny_game()) as playing:
        first = begin(playing, seed=3)
        assert first.real is not None
        np.testing.assert_array_equal(first.real[0], frame)
        for number, action in enumerate((4, 1, 4), 1):
            answer = go(playing, number, action)
            expected = [env.step(action) for _ in range(2)]
            np.testing.assert_array_equal(answer.real, np.stack([frame for frame, *_ in expected]))
            assert answer.fields["real_reward"] == sum(reward for _, reward, *_ in expected)
            assert answer.fields["real_ended"] is False


def test_the_dream_goes_on_from_what_the_real_game_showed() -> None:
    with played(noise()) as playing:
        one, other, again = (begin(playing, seed).frames for seed in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_nothing_is_beside_a_recorded_clip() -> None:
    with played(tiny_game()) as playing:
        begin(playing)
        assert playing.start(Start(2, 1, 0)).real is None
        answer = playing.step(Step(2, 1, ((0.0,),) * 2, Sampling()))
        assert answer.real is None
        assert "real_reward" not in answer.fields
        with pytest.raises(InputError, match="start 3, expected 0 to 2"):
            playing.start(Start(3, 3, 0))


def test_after_the_end_of_the_real_episode_the_dream_goes_on_alone() -> None:
    with played(noise(IDLE + 3)) as playing:
        begin(playing)
        answers = [go(playing, number, 0) for number in (1, 2, 3)]
        assert [answer.fields["real_ended"] for answer in answers] == [False, True, True]
        assert [answer.fields.get("real_end") for answer in answers] == [None, "terminated", None]
        last = answers[1].real
        assert last is not None
        np.testing.assert_array_equal(last[0], last[1])
        np.testing.assert_array_equal(answers[2].real, last)
        assert begin(playing, 1).real is not None


def test_an_episode_that_ends_at_once_is_an_error() -> None:
    with played(noise(2)) as playing:
        with pytest.raises(InputError, match="the game ended within 2 steps"):
            begin(playing)
        playing.start(Start(1, 1, 0))


@pytest.mark.parametrize(("how", "expected"), [("exits", "code 3"), ("hangs", "no answer in 1 s")])
def test_a_game_that_breaks_down_leaves_the_dream_and_can_begin_again(how: str, expected: str) -> None:
    make, others = partial(stub_envs.BreakingEnv, how, 0), set(multiprocessing.active_children())
    with reality(make) as real:
        actions = np.zeros((2, 1))
        real.reset(0)
        for _ in range(3):
            real.begin_step(actions[:1])
            real.finish()
        real.patience = 1
        real.begin_step(actions)
        with pytest.raises(InputError, match=expected):
            real.finish()
        assert set(multiprocessing.active_children()) <= others
        real.patience = 60
        assert real.reset(1).shape == (20, 20, 3)


def test_the_page_is_told_that_the_game_broke_down() -> None:
    with played(tiny_game()) as playing:
        begin(playing)
        for process in multiprocessing.active_children():
            process.kill()
        answer = go(playing, 1, 1)
        assert "ended with code -9" in answer.fields["real_error"]
        assert answer.real is None
        assert go(playing, 2, 1).real is None


def test_a_game_that_cannot_be_made_says_why() -> None:
    with reality(partial(TinyWorld, 3)) as real, pytest.raises(InputError, match="TinyWorld's size is 3"):
        real.reset(0)


def test_closing_ends_the_process_whatever_it_does() -> None:
    with reality(partial(stub_envs.Slow, "step", 600.0)) as real:
        real.reset(0)
        real.begin_step(np.zeros((1, 1)))
        assert multiprocessing.active_children()
    assert multiprocessing.active_children() == []


# ---------------------------------------------------------------- what was played


def test_what_was_played_can_be_trained_on(tmp_path: Path) -> None:
    meta = make_meta(frame_size=(SIZE, SIZE), policy="player", held_out_every=2)
    shown = []
    with StoreWriter.open(tmp_path, meta) as writer, played(noise(18, Recorder(writer))) as playing:
        for seed, steps in enumerate((10, 7)):
            shown.append([begin(playing, seed)])
            shown[-1] += [go(playing, number, number % 5) for number in range(1, steps + 1)]
        begin(playing, 2)  # left at once
    store = Store.open(tmp_path)
    found = [(entry.split, entry.seed, entry.length, entry.terminated) for entry in store.entries]
    assert found == [("train", 0, 18, True), ("held_out", 1, SHORTEST, False)]
    for entry, answers in zip(store.entries, shown, strict=True):
        episode = store.reader(entry).episode()
        real = np.concatenate([answer.real for answer in answers if answer.real is not None])
        kept = episode.frames[IDLE:]
        np.testing.assert_array_equal(kept, real[: len(kept)])
        assert episode.rewards.tolist() == [0.5] * entry.length
        assert episode.actions[: IDLE + 4].ravel().tolist() == [0] * IDLE + [1, 1, 2, 2]
        assert episode.truncated[-1] != episode.terminated[-1]
    assert len(Clips(store, "train", 9)) > 0
