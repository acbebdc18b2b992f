"""Environments of other packages by their usual names: recorded, told what is missing, and played as recorded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from processes import script

from vqvideo import envs
from vqvideo.data.config import RecordConfig
from vqvideo.data.store import Store
from vqvideo.envs import packages
from vqvideo.envs.min_atar import CELL, COLOURS, GROUND
from vqvideo.envs.packages import PACKAGES, package_of
from vqvideo.envs.recording import record, with_frame_size
from vqvideo.errors import InputError


def recorded(folder: Path, env: str, **settings: object) -> Store:
    defaults = {"env": env, "out": folder / "store", "episodes": 1, "steps": 6, "workers": 0}
    return Store.open(record(RecordConfig(**(defaults | settings))))  # type: ignore[arg-type]


CASES = [
    ("ALE/Pong-v5", "ale_py", (64, 48), "arcade"),
    ("ALE/Freeway-v5", "ale_py", (64, 48), "arcade"),
    ("MinAtar/Breakout-v1", "minatar", (80, 80), "minatar"),
    ("MinAtar/SpaceInvaders-v1", "minatar", (80, 80), "minatar"),
    ("MiniGrid-Empty-5x5-v0", "minigrid", (40, 40), "wander"),
    ("VizdoomBasic-v1", "vizdoom", (48, 64), "sticky-random"),
]


@pytest.mark.parametrize(("env_id", "module", "size", "policy"), CASES)
def test_an_environment_is_recorded_by_its_usual_name_and_met_again_as_it_was(
    tmp_path: Path, env_id: str, module: str, size: tuple[int, int], policy: str
) -> None:
    pytest.importorskip(module)
    store = recorded(tmp_path, env_id)
    assert (store.meta.env_id, store.meta.frame_size, store.meta.policy) == (env_id, size, policy)
    frames = store.episode(store.entries[0]).frames
    assert frames.any()
    env = envs.as_recorded(store.meta)
    first, _ = env.reset(seed=store.entries[0].seed)
    env.close()
    assert np.array_equal(first, frames[0])


def test_workers_find_the_package_too(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    assert len(recorded(tmp_path, "ALE/Boxing-v5", workers=2, episodes=2).entries) == 2


def test_mujoco_is_recorded_where_it_can_draw(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    # In a process of its own, since a broken OpenGL may end one.
    ended = script("record", "--env", "HalfCheetah-v5", "--episodes", 1, "--steps", 2, "--workers", 0, cwd=tmp_path)
    if ended.code:
        pytest.skip(f"no OpenGL here: {ended.err[-300:]}")
    store = Store.open(tmp_path / "data" / "half_cheetah_v5")
    assert store.episode(store.entries[0]).frames.std() > 10


def test_minatar_is_played_by_better_and_by_worse_players(tmp_path: Path) -> None:
    pytest.importorskip("minatar")
    store = recorded(tmp_path, "MinAtar/Breakout-v1", steps=100, episodes=16)
    lengths = sorted(entry.length for entry in store.entries)
    assert lengths[0] < 15
    assert lengths[-1] > 60


def test_the_cells_of_minatar_are_crisp(tmp_path: Path) -> None:
    pytest.importorskip("minatar")
    store = recorded(tmp_path, "MinAtar/Asterix-v1", steps=30)
    frames = store.episode(store.entries[0]).frames
    cells = frames[:, ::CELL, ::CELL]
    assert np.array_equal(frames, cells.repeat(CELL, axis=1).repeat(CELL, axis=2))
    known = {tuple(colour) for colour in [*COLOURS.tolist(), GROUND.tolist()]}
    assert len({tuple(colour) for colour in cells.reshape(-1, 3).tolist()} & known) > 2
    assert {tuple(colour) for colour in cells.reshape(-1, 3).tolist()} <= known


def test_a_given_frame_size_counts() -> None:
    assert with_frame_size(RecordConfig("TinyWorld")).size == (32, 32)
    assert with_frame_size(RecordConfig("TinyWorld", frame_size=64)).size == (64, 64)
    assert with_frame_size(RecordConfig("ALE/Pong-v5", frame_size="32x96")).size == (32, 96)


def test_the_buttons_of_atari_have_their_names() -> None:
    pytest.importorskip("ale_py")
    from vqvideo.spaces import ActionSpace

    env = envs.make(envs.resolve("ALE/Breakout-v5"))
    space = ActionSpace.from_gymnasium(env.action_space)
    env.close()
    names = envs.named_actions("ALE/Breakout-v5", space)
    assert names == {"noop": (0,), "fire": (1,), "right": (2,), "left": (3,)}
    assert envs.named_actions("ALE/Pong-v5", space) == {}, "a world with other actions"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.module)
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(
    package: packages.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert package_of(package.example) is package
    monkeypatch.setattr(packages, "_installed", lambda module: False)
    for env_id in [id_ for id_ in envs.gymnasium.registry if package.matches(id_)]:
        if not package.builtin:
            monkeypatch.delitem(envs.gymnasium.registry, env_id)
    with pytest.raises(
        InputError, match=f"{re.escape(package.example)} .*: pip install .*{re.escape(package.install)}"
    ):
        envs.make(envs.resolve(package.example))


def test_a_package_that_is_broken_is_told_apart_from_one_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_games.py").write_text("raise RuntimeError('no such chip')")
    monkeypatch.syspath_prepend(tmp_path)
    package = packages.Package("Broken/", "broken_games", "broken-games", "Broken/X-v0")
    with pytest.raises(
        InputError, match=r"broken_games, which brings Broken/X-v0, .*RuntimeError: no such chip.*line 1"
    ):
        package.load("Broken/X-v0")


def test_a_misspelt_member_of_a_family_is_answered_with_its_nearest() -> None:
    pytest.importorskip("ale_py")
    with pytest.raises(InputError, match=r"no environment is called 'ALE/Pongg-v5': did you mean .*ALE/Pong-v5"):
        envs.resolve("ALE/Pongg-v5")


def test_policies_of_a_family_refuse_other_games(tmp_path: Path) -> None:
    for policy in ("arcade", "minatar", "wander", "roam"):
        with pytest.raises(InputError, match=f"the policy {policy} .*: take --policy sticky-random"):
            recorded(tmp_path / policy, "TinyWorld", policy=policy)
