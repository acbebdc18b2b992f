"""Environments of one's own: modules in the working directory, constructor arguments, other APIs than Gymnasium's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from processes import script
from stub_envs import StubEnv

from vqvideo import envs
from vqvideo.data.config import RecordConfig
from vqvideo.data.store import Store
from vqvideo.envs.recording import record
from vqvideo.errors import InputError

MINE = """
import gymnasium
from my_parts import Level

class Mine(Level):
    pass

gymnasium.register("Mine-v0", entry_point="my_env:Mine")
"""
PARTS = """
from vqvideo.envs.tiny_world import TinyWorld

class Level(TinyWorld):
    def __init__(self, difficulty=1, map=None, render_mode=None):
        if difficulty > 5:
            raise ValueError("difficulty goes up to 5")
        super().__init__(32, render_mode)
        self.difficulty, self.map = difficulty, map

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.difficulty), terminated, truncated, info
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with an environment in it; what it leaves in this process goes with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known, loaded = dict(gymnasium.registry), set(sys.modules)
    (tmp_path / "my_env.py").write_text(MINE)
    (tmp_path / "my_parts.py").write_text(PARTS)
    yield tmp_path
    for name in gymnasium.registry.keys() - known.keys():
        del gymnasium.registry[name]
    for name in set(sys.modules) - loaded:
        if name.startswith(("my_", "broken")):
            del sys.modules[name]


def options(folder: Path, **settings: Any) -> RecordConfig:
    given: dict[str, Any] = {"env": "my_env:Mine-v0", "out": folder / "store", "episodes": 1, "steps": 3, "workers": 0}
    return RecordConfig(**(given | {"frame_size": 16} | settings))


# ---------------------------------------------------------------- modules


def test_the_script_and_its_workers_find_a_module_in_the_working_directory(folder: Path) -> None:
    flags = ("--env", "my_env:Mine-v0", "--episodes", 2, "--steps", 3, "--frame-size", 16, "--workers", 1)
    done = script("record", *flags, "--env-kwargs", "difficulty=3", "map=[1, a]", cwd=folder)
    assert done.code == 0, done.err
    store = Store.open(folder / "data" / "my_env_mine_v0")
    assert store.meta.env_kwargs == {"difficulty": 3, "map": [1, "a"]}
    assert [entry.total_reward for entry in store.entries] == [3.0 * entry.length for entry in store.entries]


def test_an_environment_that_was_registered_by_hand_is_known_to_workers(tmp_path: Path) -> None:
    gymnasium.register("stub/ByHand-v0", entry_point="stub_envs:StubEnv")
    try:
        record(options(tmp_path, env="stub/ByHand-v0", workers=1))
    finally:
        del gymnasium.registry["stub/ByHand-v0"]
    assert len(Store.open(tmp_path / "store").entries) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_evn:Mine-v0",
            r"module my_evn .* is not installed, and not in the working directory .*did you mean my_env",
        ),
        ("nope.deep:Mine-v0", r"module nope of .*folder that holds nope.py or nope/, or install it with pip"),
        ("my_env:Mine", "registers no environment 'Mine': did you mean --env my_env:Mine-v0"),
        ("my_env:Mine-v3", "did you mean --env my_env:Mine-v0"),
        (
            "my_parts:Level",
            r"Level is a class.*entry_point='my_parts:Level'\) into .*my_parts.py and record with --env my",
        ),
        ("my_parts:Level-v0", r"it registers none. Put gymnasium.register"),
        ("my_env.py:Mine-v0", "is a file; .*--env my_env:Mine-v0"),
        ("./my_env.py:Mine-v0", "is a file; .*--env my_env:Mine-v0"),
        ("my_env", "--env takes module and registered id, as in my_env:My-v0"),
        ("my_env.py", "as in my_env:My-v0"),
        ("my_env.Mine", "as in my_env:My-v0"),
        ("Mine-v0", "my_env.py names one: --env my_env:Mine-v0"),
    ],
)
def test_a_name_that_is_none_is_answered_with_the_right_one(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        envs.resolve(name)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import gymnasium\nimport no_such_thing\n",
            r"ModuleNotFoundError: No module named 'no_such_thing' \(.*line 2\)",
        ),
        ("import gymnasium\nif True\n    pass\n", r"SyntaxError: expected ':' \(.*broken.py, line 2\)"),
        ("from gymnasium import no_such_name\n", r"ImportError: cannot import name 'no_such_name'.*line 1\)"),
        ("\n\nx = undefined\n", r"NameError: name 'undefined' is not defined \(.*broken.py, line 3\)"),
    ],
)
def test_what_is_wrong_inside_a_module_is_told_with_file_and_line(folder: Path, code: str, message: str) -> None:
    (folder / "broken.py").write_text(code)
    with pytest.raises(InputError, match=f"the module broken cannot be imported: {message}"):
        envs.resolve("broken:Mine-v0")


def test_a_package_that_only_the_environment_imports_is_named_with_the_line(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_thing\n")
    (folder / "my_env.py").write_text("import gymnasium\ngymnasium.register('Mine-v0', entry_point='broken:Mine')\n")
    with pytest.raises(InputError, match=r"not installed: No module named 'no_such_thing' \(.*broken.py, line 1\)"):
        record(options(folder))


# ---------------------------------------------------------------- arguments of the constructor


def test_arguments_are_added_to_those_of_a_preset_and_kept(tmp_path: Path) -> None:
    meta = Store.open(record(options(tmp_path, env="TinyWorld", env_kwargs={"size": 64}, frame_size=64))).meta
    assert (meta.env_id, meta.env_kwargs) == ("TinyWorld", {"size": 64})
    assert '"size": 64' in (meta.env_spec or "")
    inner: Any = envs.as_recorded(meta).unwrapped
    assert inner.size == 64


def test_a_preset_with_other_arguments_is_still_that_preset(tmp_path: Path) -> None:
    given = options(
        tmp_path, env="CarRacingAnywhere", env_kwargs={"lap_complete_percent": 0.5}, policy="random", steps=1
    )
    meta = Store.open(record(given)).meta
    assert meta.env_id == "CarRacingAnywhere"
    inner: Any = envs.as_recorded(meta).unwrapped
    assert (inner.lap_complete_percent, inner.continuous) == (0.5, True)


def test_a_store_does_not_go_on_with_other_arguments(folder: Path) -> None:
    record(options(folder, env_kwargs={"map": (1, 2)}))
    record(options(folder, env_kwargs={"map": (1, 2)}, episodes=2))
    with pytest.raises(
        InputError, match=r"other settings.*\n  env_kwargs: \{'map': \[1, 2\]\} -> \{'difficulty': 2\}\nRec"
    ):
        record(options(folder, env_kwargs={"difficulty": 2}))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"dificulty": 2},
            "could not be made with {'dificulty': 2}: TypeError: .*unexpected keyword argument 'dificulty'$",
        ),
        ({"difficulty": 9}, r"ValueError: difficulty goes up to 5 \(.*my_parts.py, line 7\)"),
        ({"difficulty": "hard"}, r"TypeError: '>' not supported .*my_parts.py, line 6\)"),
        ({"render_mode": "human"}, "--env-kwargs: render_mode is set by the recorder"),
        ({"map": {1, 2}}, "--env-kwargs: Object of type set .*expected numbers, texts"),
        ({"map": float("nan")}, "--env-kwargs: .*expected numbers, texts"),
    ],
)
def test_wrong_arguments_are_answered_in_the_environments_own_words(
    folder: Path, kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        record(options(folder, env_kwargs=kwargs))


# ---------------------------------------------------------------- other APIs


class Answers(StubEnv):
    """Answers reset and step with what it is given."""

    def __init__(self, reset: Any = None, step: Any = None) -> None:
        super().__init__()
        self.on_reset, self.on_step = reset, step

    def reset(self, *, seed: int | None = None) -> Any:  # type: ignore[override]
        """Without options, as many are written."""
        frame = super().reset(seed=seed)[0]
        return self.on_reset(frame) if self.on_reset else (frame, {})

    def step(self, action: Any) -> Any:
        answer = super().step(action)
        return self.on_step(*answer) if self.on_step else answer


class OldReset(StubEnv):
    """Seeded by a method, as in old gym."""

    def seed(self, seed: int | None = None) -> None:
        super().reset(seed=seed)

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()[0]


class OldSpaces(StubEnv):
    """Has spaces of another package."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = object()  # type: ignore[assignment]


def rewarded(reward: Any) -> Callable[[], Answers]:
    return lambda: Answers(step=lambda o, r, end, cut, info: (o, reward, end, cut, info))


def ended(end: Any) -> Callable[[], Answers]:
    return lambda: Answers(step=lambda o, r, _, cut, info: (o, r, end, cut, info))


@pytest.fixture
def made() -> Iterator[Callable[..., gymnasium.Env]]:
    """Makes an environment of a stub, with a time limit around it as those that are registered have."""

    def make(stub: Callable[[], gymnasium.Env], **settings: Any) -> gymnasium.Env:
        gymnasium.register("stub/Answers-v0", entry_point=stub, max_episode_steps=9)
        return envs.make(envs.Preset("stub/Answers-v0", **settings))

    yield make
    del gymnasium.registry["stub/Answers-v0"]


BROKEN: dict[str, tuple[Callable[[], gymnasium.Env], str]] = {
    "reset without a seed": (OldReset, r"has a reset that takes no seed.*expects reset\(seed=None.*shimmy"),
    "reset gives the frame": (
        lambda: Answers(reset=lambda f: f),
        r"an array of shape \(20, 20, 3\) from reset.*shimmy",
    ),
    "reset gives two frames": (lambda: Answers(reset=lambda f: (f, f)), "a tuple of 2 from reset"),
    "reset gives two rows": (lambda: Answers(reset=lambda f: f[:2]), r"an array of shape \(2, 20, 3\) from reset"),
    "reset gives nothing": (lambda: Answers(reset=lambda f: None), r"None from reset.*expects \(observation, info\)"),
    "step gives four": (
        lambda: Answers(step=lambda o, r, end, cut, info: (o, r, end, info)),
        r"a tuple of 4 from step; Gymnasium expects \(observation, reward, terminated, truncated, info\).*shimmy",
    ),
    "spaces of another package": (OldSpaces, r"an action_space of builtins.object.*gymnasium.spaces.*shimmy"),
    "no reward": (rewarded(None), "the reward None; Gymnasium expects a number"),
    "rewards by name": (rewarded({"a": 1.0}), r"the reward \{'a': 1.0\}"),
    "two rewards": (rewarded(np.ones(2)), r"the reward array\(\[1., 1.\]\)"),
    "no end": (ended(None), "gave terminated as None; Gymnasium expects True or False"),
    "two ends": (ended(np.array([True, False])), "gave terminated as array"),
}


@pytest.mark.parametrize("action_repeat", [1, 3])
@pytest.mark.parametrize("kind", BROKEN)
def test_an_environment_of_another_api_is_told_what_gymnasium_expects(
    made: Callable[..., gymnasium.Env], kind: str, action_repeat: int
) -> None:
    stub, message = BROKEN[kind]

    def play() -> None:
        env = made(stub, action_repeat=action_repeat)
        env.reset(seed=0)
        env.step(0)

    with pytest.raises(InputError, match=f"^stub/Answers-v0 .*{message}"):
        play()


@pytest.mark.parametrize("action_repeat", [1, 3])
@pytest.mark.parametrize("reward", [1, np.float32(1), np.ones(1), np.ones((1, 1)), [1.0], True])
def test_rewards_of_one_number_are_that_number(
    made: Callable[..., gymnasium.Env], reward: Any, action_repeat: int
) -> None:
    env = made(rewarded(reward), action_repeat=action_repeat)
    env.reset(seed=0)
    assert env.step(0)[1] == action_repeat


@pytest.mark.parametrize("end", [True, np.True_, np.array([True]), 1])
def test_ends_of_one_truth_are_that_truth(made: Callable[..., gymnasium.Env], end: Any) -> None:
    env = made(ended(end))
    env.reset(seed=0)
    assert env.step(0)[2] is True


def test_what_cannot_succeed_is_not_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gymnasium.register("stub/Old-v0", entry_point=OldReset)
    try:
        with pytest.raises(InputError, match="takes no seed"):
            record(options(tmp_path, env="stub/Old-v0", workers=1))
    finally:
        del gymnasium.registry["stub/Old-v0"]
    assert not [line for line in caplog.messages if "worker" in line]


def test_a_renderer_of_old_gym_is_told_what_gymnasium_expects(made: Callable[..., gymnasium.Env]) -> None:
    class OldRenderer(StubEnv):
        metadata = {"render.modes": ["rgb_array"]}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Box(0, 1, (4,), np.float32)

    with pytest.raises(InputError, match=r"render modes are \[\].*shimmy"):
        made(OldRenderer)
