"""Dreams that people watch: in a window, as lists of frames, and under Gymnasium's keyboard."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.play import play
from imagined import dream, dreams, endless, same, some_starts

from vqvideo.errors import InputError
from vqvideo.imagined_env import window

pygame = pytest.importorskip("pygame")


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.quit()


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the window shows, (h, w, 3) each, in its own size."""
    pictures: list[np.ndarray] = []

    def flip() -> None:
        pictures.append(pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1))

    monkeypatch.setattr(pygame.display, "flip", flip)
    return pictures


def by_name(**options: Any) -> dict[str, Any]:
    world = endless()
    return {"world": world, "starts": some_starts(world), "horizon": 2, **options}


def test_a_window_shows_all_frames_of_the_steps_in_a_size_to_watch(shown: list[np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("vqvideo/Imagined-v0", render_mode="human", **by_name())
        first, _ = env.reset(seed=0)
        _, _, _, _, info = env.step(0)
        assert env.render() is None
    frames = [first, *info["frames"]]
    assert [picture.shape for picture in shown] == [(512, 512, 3)] * 3
    assert all(np.array_equal(picture[::32, ::32], frame) for picture, frame in zip(shown, frames, strict=True))
    env.close()
    assert not pygame.display.get_init()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_of_a_batch_it_shows_the_first_env_from_episode_to_episode(mode: str, shown: list[np.ndarray]) -> None:
    options = by_name(autoreset_mode=mode)
    watched, unseen = (
        gymnasium.make_vec("vqvideo/Imagined-v0", num_envs=3, render_mode=seen, **options) for seen in ("human", None)
    )
    found = [env.reset(seed=0) for env in (watched, unseen)]
    for _ in range(5):
        assert same(*found)
        found = [env.step(np.zeros(3, int)) for env in (watched, unseen)]
        newest = found[0][0][0] if mode == "NextStep" else found[0][-1].get("final_obs", found[0][0])[0]
        assert np.array_equal(shown[-1][::32, ::32], newest)
    watched.close()


def test_frames_follow_each_other_in_the_time_of_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Clock:
        def tick(self, rate: float) -> None:
            rates.append(rate)

    monkeypatch.setattr(pygame.time, "Clock", Clock)
    env = dream(endless(), render_mode="human")
    env.reset(seed=0)
    env.step(0)
    assert rates == [10.0] * 3


def test_without_pygame_or_a_display_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no_such_driver")
    with pytest.raises(InputError, match=r"finds no display \(.*\): without one, take render_mode='rgb_array'"):
        dream(render_mode="human").reset(seed=0)
    monkeypatch.setitem(sys.modules, "pygame", None)
    for make in (dream, dreams):
        with pytest.raises(InputError, match="by pygame, which is not installed: pip install"):
            make(render_mode="human")


def test_frames_are_collected_as_gymnasium_does() -> None:
    env = gymnasium.make("vqvideo/Imagined-v0", render_mode="rgb_array_list", **by_name())
    first, _ = env.reset(seed=0)
    second = env.step(0)[0]
    assert same([*env.render()], [first, second])


def test_gymnasiums_keyboard_plays_a_dream() -> None:
    played: list[int] = []

    def watch(before: Any, after: Any, action: int, *rest: Any) -> None:
        played.append(action)
        pressed = pygame.event.Event(pygame.KEYDOWN, key=ord("d"))
        pygame.event.post(pressed if len(played) < 4 else pygame.event.Event(pygame.QUIT))

    env = gymnasium.make("vqvideo/Imagined-v0", render_mode="rgb_array", **by_name())
    play(env, keys_to_action={"d": 3}, noop=1, callback=watch, seed=0)
    assert played == [1, 3, 3, 3]


def test_a_window_is_as_large_as_its_frames_at_least(shown: list[np.ndarray]) -> None:
    frames = np.zeros((1, 600, 700, 3), np.uint8)
    window.Window(1000).show(frames)
    assert shown[0].shape == (600, 700, 3)
