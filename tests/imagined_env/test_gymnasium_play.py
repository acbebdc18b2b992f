"""Dreams in Gymnasium's own window for players, under the keys of the real environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pygame
import pytest
from gymnasium.utils.play import play

import vqvideo.imagined_env  # noqa: F401  registers the name
from vqvideo.envs import keys

HELD = [(), ("K_LEFT",), ("K_RIGHT",), ("K_LEFT", "K_UP"), ("K_RIGHT", "K_DOWN")]
"""Keys at one step after the other."""
EXPECTED = [[0, 0, 0], [-0.5, 0.2, 0], [0.5, 0.2, 0], [-0.5, 0.7, 0], [0.5, 0.2, 0.8]]


def test_a_dream_is_played_in_a_window_with_the_keys_of_the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gymnasium.make("vqvideo/Imagined-v0", world="carracing", max_starts=4, render_mode="rgb_array")
    actions, frames = [], []

    def press(before: Any, after: np.ndarray, action: np.ndarray, *others: Any) -> None:
        actions.append(action)
        frames.append(after)
        if len(actions) == len(HELD):
            pygame.event.post(pygame.event.Event(pygame.QUIT))
            return
        for kind, at in ((pygame.KEYUP, -1), (pygame.KEYDOWN, 0)):
            for name in HELD[len(actions) + at]:
                pygame.event.post(pygame.event.Event(kind, key=getattr(pygame, name)))

    play(env, fps=10000, zoom=2, seed=0, callback=press, **keys.for_gymnasium("CarRacing", env.action_space))
    np.testing.assert_allclose(actions, EXPECTED, atol=1e-6)
    assert all(frame.shape == (64, 64, 3) for frame in frames)
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_of_discrete_actions_the_keys_count_that_are_held_together(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"noop": (0.0,), "up": (1.0,), "right": (2.0,), "upright": (3.0,), "fire": (4.0,)}
    monkeypatch.setattr("vqvideo.envs.named_actions", lambda *_: named)
    arguments = keys.for_gymnasium("Boxing", gymnasium.spaces.Discrete(5))
    actions = {frozenset(held): action for held, action in arguments["keys_to_action"].items()}
    up, right, fire = pygame.K_UP, pygame.K_RIGHT, pygame.K_SPACE
    assert (arguments["noop"], arguments["wait_on_player"]) == (0, False)
    assert (actions[frozenset([up])], actions[frozenset([up, right])], actions[frozenset([fire])]) == (1, 3, 4)
    assert actions[frozenset([up, right, fire])] == 4
