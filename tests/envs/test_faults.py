"""Faults: up to the onset the recorded episode comes again, and after it another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vqvideo import envs
from vqvideo.data.config import RecordConfig
from vqvideo.data.episode import Episode
from vqvideo.data.store import Store
from vqvideo.envs.faults import FAULTS, Fault, replayed
from vqvideo.envs.recording import record


def recorded(path: Path, env: str, steps: int) -> tuple[Store, Episode]:
    record(RecordConfig(env=env, episodes=1, steps=steps, out=path, workers=0, frame_size=16, policy="random"))
    store = Store.open(path)
    return store, store.episode(store.entries[0])


class Nothing(Fault):
    severities = (0.0,)

    def step(self, env, action, last, rng):  # type: ignore[no-untyped-def]
        return env.step(action)[0], action


@pytest.mark.parametrize(("name", "steps"), [("TinyWorld", 60), ("CarRacing", 24)])
def test_an_episode_comes_again_up_to_the_onset_and_goes_on_with_faults(name: str, steps: int, tmp_path: Path) -> None:
    store, episode = recorded(tmp_path / "data", name, steps)
    count = min(episode.length - 4, 40)
    kinds = [*FAULTS, *envs.resolve(name).faults]
    faults = [Nothing(0.0), *(kind(kind.severities[-1]) for kind in kinds)]
    env = envs.as_recorded(store.meta)
    films = list(replayed(env, episode, 4, count, faults))
    env.close()
    assert films[0] is not None
    assert np.array_equal(films[0], episode.frames[5 : 5 + count])
    for fault, film in zip(faults[1:], films[1:], strict=True):
        assert film is not None
        assert not np.array_equal(film, films[0]), fault


def test_another_episode_is_noticed(tmp_path: Path) -> None:
    store, episode = recorded(tmp_path / "data", "TinyWorld", 30)
    other = Episode(**{**vars(episode), "seed": episode.seed + 1})
    env = envs.as_recorded(store.meta)
    assert list(replayed(env, other, 4, 4, [Nothing(0.0)])) == [None]
    env.close()
