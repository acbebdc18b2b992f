"""Keys to play with: read off the names of an environment's actions, or off the space where it has no names.

Actions called after directions are on the arrow keys ("left", "turn_left", "upright" = both at once), firing and
jumping on the space bar, all others on digits and letters. Several keys at once: continuous columns add up, categorical
ones take what was pressed last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import gymnasium

from vqvideo import envs
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace, Column

_DIRECTIONS = {
    "left": "ArrowLeft",
    "right": "ArrowRight",
    "up": "ArrowUp",
    "forward": "ArrowUp",
    "straight": "ArrowUp",
    "faster": "ArrowUp",
    "down": "ArrowDown",
    "back": "ArrowDown",
    "backward": "ArrowDown",
    "brake": "ArrowDown",
    "slower": "ArrowDown",
    "fire": "Space",
    "jump": "Space",
    "attack": "Space",
}
_WORD = re.compile("|".join(sorted(_DIRECTIONS, key=len, reverse=True)))
_FILLING = re.compile(r"turn|move|[ _-]")
"""What may stand between directions in a name."""
_IDLE = ("noop", "idle", "stay", "still", "coast", "nothing", "wait")
_SPARE = "1234567890qwetyuiofghjklzxcvbm"
"""Keys for everything else, without those that also steer (a, s, d) or that a player itself uses (p, n, r)."""
_UNLIMITED = 1e6
"""Bounds beyond are none that a slider could show."""
_PYGAME = {
    "ArrowLeft": "K_LEFT",
    "ArrowRight": "K_RIGHT",
    "ArrowUp": "K_UP",
    "ArrowDown": "K_DOWN",
    "Space": "K_SPACE",
}
"""What pygame calls keys whose names are no single character."""
_MOST_HELD = 3
"""Keys that are held at once in a window: it takes an action for each choice."""
_AXES = (("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp"))


class Key(NamedTuple):
    """What to hold, and what it does."""

    keys: tuple[str, ...]
    """Names as browsers give them: "ArrowLeft", "Space", "q"; all are held together."""
    label: str
    """Name of the action."""
    action: tuple[float, ...]
    """Flat."""


class Controls(NamedTuple):
    """How an environment is played."""

    keys: tuple[Key, ...]
    neutral: tuple[float, ...]
    """The flat action while nothing is held."""
    turns: bool
    """Whether there is no action that waits: time then passes only while a key is held."""
    labels: tuple[str, ...]
    """Names of the values of a single categorical column, if they have some."""


def controls(env_id: str, space: ActionSpace) -> Controls:
    """How to play an environment, a preset or an id; one that is not installed here is played without names."""
    try:
        named = envs.named_actions(env_id, space)
    except InputError:
        named = {}
    named = {name: tuple(map(float, action)) for name, action in named.items() if len(action) == space.size}
    idle = next((named[name] for name in _IDLE if name in named), None)
    neutral = idle or tuple(min(max(0.0, column.low), column.high) for column in space.columns)
    wanted = [(name, action) for name, action in named.items() if action != idle]
    keys = tuple(_named_keys(wanted) if wanted else _plain_keys(space.columns, neutral))
    categorical = bool(space.size) and all(column.categories for column in space.columns)
    return Controls(keys, neutral, categorical and bool(named) and idle is None, _labels(space.columns, named))


def _named_keys(named: Sequence[tuple[str, tuple[float, ...]]]) -> Iterator[Key]:
    taken: set[frozenset[str]] = set()
    spare = iter(_SPARE)
    for name, action in named:
        keys = _directions(name)
        if not keys or frozenset(keys) in taken:
            free = next(spare, None)
            if free is None:
                continue
            keys = (free,)
        taken.add(frozenset(keys))
        yield Key(keys, name.replace("_", " "), action)


def _directions(name: str) -> tuple[str, ...]:
    """The keys of a name that is made of directions only; none of another."""
    words = _WORD.findall(name.lower())
    rest = _FILLING.sub("", _WORD.sub("", name.lower()))
    return () if rest else tuple(dict.fromkeys(_DIRECTIONS[word] for word in words))


def _plain_keys(columns: Sequence[Column], neutral: tuple[float, ...]) -> Iterator[Key]:
    """Of a space without names: a key for each value of a Discrete or bit, two for each number that has limits."""
    spare, axes = iter(_SPARE), iter(_AXES)
    for at, column in enumerate(columns):
        if column.categories and (len(columns) == 1 or column.categories == 2):
            values = [column.low + value for value in range(column.categories)]
            pairs = [((free,), value) for value in values if value != neutral[at] and (free := next(spare, None))]
        elif column.categories is None and -_UNLIMITED < column.low <= column.high < _UNLIMITED:
            two = next(axes, None) or (next(spare, None), next(spare, None))
            pairs = [((free,), end) for free, end in zip(two, (column.low, column.high), strict=True) if free]
        else:
            continue
        for keys, value in pairs:
            if value != neutral[at]:
                yield Key(keys, f"{column.leaf or at}: {value:g}", (*neutral[:at], float(value), *neutral[at + 1 :]))


def _labels(columns: Sequence[Column], named: Mapping[str, tuple[float, ...]]) -> tuple[str, ...]:
    if len(columns) != 1 or not columns[0].categories or not named:
        return ()
    by_value = {action[0]: name.replace("_", " ") for name, action in named.items()}
    start = columns[0].start
    return tuple(by_value.get(value, f"{value:g}") for value in range(start, start + columns[0].categories))


def to_json(space: ActionSpace, how: Controls, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """What a page needs to be played. `mean` and `std` of recorded actions end the sliders of what has no limits."""
    columns = [
        {
            "name": column.leaf or (str(at) if space.size > 1 else ""),
            "categories": column.categories,
            "start": column.start,
            "low": column.low if column.low > -_UNLIMITED else mean[at] - 3 * std[at],
            "high": column.high if column.high < _UNLIMITED else mean[at] + 3 * std[at],
            "neutral": how.neutral[at],
            "labels": list(how.labels),
        }
        for at, column in enumerate(space.columns)
    ]
    return {"columns": columns, "keys": [key._asdict() for key in how.keys], "turns": how.turns}


def for_gymnasium(env_id: str, space: gymnasium.Space) -> dict[str, Any]:
    """The same keys as arguments of `gymnasium.utils.play.play`, which plays an environment in a window.

    Args:
        env_id: of the real environment, a preset or an id.
        space: of the actions of what is played, such as a dream.

    Example:
        >>> env = gymnasium.make("vqvideo/Imagined-v0", world="carracing", horizon=500, render_mode="rgb_array")
        >>> play(env, zoom=6, **keys.for_gymnasium("CarRacing", env.action_space))
    """
    import pygame

    ours = ActionSpace.from_gymnasium(space)
    how = controls(env_id, ours)
    numbers = {key: getattr(pygame, _PYGAME.get(key, f"K_{key}")) for one in how.keys for key in one.keys}
    held = [choice for count in range(1, _MOST_HELD + 1) for choice in combinations(numbers, count)]
    actions = {tuple(numbers[key] for key in keys): ours.unflatten(_together(ours, how, set(keys))) for keys in held}
    return {"keys_to_action": actions, "noop": ours.unflatten(how.neutral), "wait_on_player": how.turns}


def _together(space: ActionSpace, how: Controls, held: set[str]) -> tuple[float, ...]:
    """The flat action while these keys are held."""
    chords = [key for key in how.keys if held.issuperset(key.keys)]
    # Of up, right, and both at once only the last counts.
    chords = [one for one in chords if not any(set(one.keys) < set(other.keys) for other in chords)]
    values = []
    for at, (column, neutral) in enumerate(zip(space.columns, how.neutral, strict=True)):
        changes = [key.action[at] - neutral for key in chords if key.action[at] != neutral]
        change = sum(changes) if column.categories is None else sum(changes[-1:])
        values.append(min(max(neutral + change, column.low), column.high))
    return tuple(values)
