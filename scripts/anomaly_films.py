"""Films of what only an environment can show: its own faults, and other environments. For `evaluate_anomalies.py`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from vqvideo import envs
from vqvideo.data.episode import Episode
from vqvideo.data.index import StoreMeta
from vqvideo.envs.faults import FAULTS, replayed
from vqvideo.envs.policies import make_policy
from vqvideo.envs.wrappers import ResizedFrames
from vqvideo.evaluation.made_anomalies import Case, Film, Played
from vqvideo.spaces import ActionSpace

logger = logging.getLogger(__name__)
_STRANGERS = 6
"""Films of another environment, which episodes take in turn."""


def faulty(meta: StoreMeta, episodes: Sequence[Episode], cases: Sequence[Case], most: int = 8) -> list[Played]:
    """The first cases, `most` of them, played again in the real environment, with each of its faults from the onset on;
    nothing, and a warning, where they cannot be played again.
    """
    env = envs.as_recorded(meta)
    kinds = (*FAULTS, *envs.resolve(meta.env_id).faults)
    faults = [kind(severity) for kind in kinds for severity in kind.severities]
    films: list[list[Film]] = []
    try:
        for case in cases[:most]:
            played = list(replayed(env, episodes[case.number], case.onset, case.count, faults))
            if any(frames is None for frames in played):
                logger.warning("no faults: episode %d is another one when it is played again", case.number)
                return []
            films.append([Film(frames, case.told) for frames in played if frames is not None])
    finally:
        env.close()
    # The others are left out: of them there is nothing.
    nothing = [Film(case.at([]), case.told[:0]) for case in cases[most:]]
    made = zip(faults, zip(*films, strict=True), strict=True)
    return [Played(fault.severity, [*shown, *nothing], fault.title, fault.family) for fault, shown in made]


def strangers(names: Sequence[str], meta: StoreMeta, count: int, seed: int) -> list[Played]:
    """Films of so many frames of other environments, by their own policies."""
    return [
        Played(name, [_stranger(name, meta, count, seed + number) for number in range(_STRANGERS)], "another", "world")
        for name in names
    ]


def _stranger(name: str, meta: StoreMeta, count: int, seed: int) -> Film:
    frames = np.stack(list(islice(_frames(name, meta, seed), count)))
    # Its actions are none of the world's: what is told are those of the episode.
    return Film(frames, np.zeros((count, 0)))


def _frames(name: str, meta: StoreMeta, seed: int) -> Iterator[np.ndarray]:
    """Episode after episode."""
    preset = envs.resolve(name)
    env, policy = ResizedFrames(envs.make(preset), meta.frame_size), make_policy(preset.policy)
    space = ActionSpace.from_gymnasium(env.action_space)
    rng = np.random.default_rng(seed)
    try:
        while True:
            frame, _ = env.reset(seed=int(rng.integers(2**31)))
            policy.reset(env, rng)
            ended = False
            while not ended:
                yield frame
                action = space.unflatten(space.flatten(policy(frame)))
                frame, _, terminated, truncated, _ = env.step(action)
                ended = terminated or truncated
    finally:
        env.close()
