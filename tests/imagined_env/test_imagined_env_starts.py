"""Where imagined episodes begin: from training episodes, never at an end, or from frames of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from imagined import dream, dreams, endless, same, some_starts
from stores import make_episode, make_meta
from tiny_models import SIZE, noise_frames, tiny_world
from torch import Tensor

from vqvideo.data.clips import StartClips
from vqvideo.data.store import Store, StoreWriter
from vqvideo.imagined_env import Starts
from vqvideo.imagined_env.starts import read_starts
from vqvideo.world import WorldModel

LENGTHS = (7, 4, 9, 5)
"""Steps per episode; number 2 is held out, and all of them end."""


def marked_store(path: Path, splits: tuple[str, ...] = ("train", "train", "held_out", "train")) -> Store:
    """Episodes whose pixel (0, 0) of frame t is t in red and the number of the episode in green."""
    rng = np.random.default_rng(0)
    with StoreWriter.open(path, make_meta(frame_size=(SIZE, SIZE))) as writer:
        for index, (length, split) in enumerate(zip(LENGTHS, splits, strict=True)):
            frames = rng.integers(0, 256, (length + 1, SIZE, SIZE, 3), dtype=np.uint8)
            frames[:, 0, 0, 0], frames[:, 0, 0, 1] = np.arange(length + 1), index
            writer.add(index, replace(make_episode(length, index), frames=frames), split)
    return Store.open(path)


class Context(NamedTuple):
    """What the world was given to read before an episode."""

    episode: int
    frames: list[int]
    """Their numbers."""
    actions: list[float]


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Context]]:
    """Reads starts from a marked store and gives the contexts that the world read for them."""

    def read(world: WorldModel, store: Store, context: int, count: int = 512) -> list[Context]:
        seen: list[tuple[Tensor, Tensor]] = []
        begin = world.begin

        def spied(frames: Tensor, actions: Tensor) -> Any:
            seen.append((frames, actions))
            return begin(frames, actions)

        with monkeypatch.context() as patch:
            patch.setattr(world, "begin", spied)
            read_starts(world, store, context, count)
        frames, actions = (torch.cat(parts) for parts in zip(*seen, strict=True))
        numbers, episodes = frames[:, :, 0, 0, 0], frames[:, :, 1, 0, 0]
        assert (episodes == episodes[:, :1]).all()
        rows = zip(episodes[:, 0].tolist(), numbers.tolist(), actions[..., 0].tolist(), strict=True)
        return [Context(*row) for row in rows]

    return read


# ---------------------------------------------------------------- stores


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("context", [1, 2])
def test_episodes_begin_anywhere_in_training_episodes_but_at_their_ends(
    tmp_path: Path, stride: int, context: int, contexts: Any
) -> None:
    store = marked_store(tmp_path)
    found = contexts(tiny_world(stride), store, context)
    before = stride * (context - 1)
    expected = [
        (episode, list(range(t - before, t + 1)))
        for episode in (0, 1, 3)
        for t in range(before, LENGTHS[episode])  # frame number LENGTHS[episode] is the last one, at the end
    ]
    assert sorted((one.episode, one.frames) for one in found) == sorted(expected)
    for one in found:
        taken = store.episode(store.entries[one.episode]).actions[one.frames[0] : one.frames[-1]]
        assert one.actions == taken[:, 0].tolist()


def test_a_few_starts_come_from_as_many_episodes_as_possible(tmp_path: Path, contexts: Any) -> None:
    found = contexts(tiny_world(), marked_store(tmp_path), 1, count=3)
    assert sorted(one.episode for one in found) == [0, 1, 3]


def test_a_store_that_is_all_held_out_serves_too(tmp_path: Path, contexts: Any) -> None:
    """As the start clips of a shipped world."""
    found = contexts(tiny_world(), marked_store(tmp_path, ("held_out",) * 4), 1)
    assert {one.episode for one in found} == {0, 1, 2, 3}


def test_the_clip_that_an_episode_began_with_is_told(tmp_path: Path) -> None:
    world = tiny_world()
    starts = read_starts(world, marked_store(tmp_path), 1, 512)
    envs = dreams(world, 16, starts=starts)
    observations, infos = envs.reset(seed=0)
    assert infos["_start"].all()
    assert len(set(infos["start"].tolist())) > 4
    by_source = {int(source): frame.numpy() for source, frame in zip(starts.source, starts.frames, strict=True)}
    for observation, start in zip(observations, infos["start"], strict=True):
        assert np.array_equal(observation, by_source[int(start)])


def test_every_start_comes_up_about_as_often_as_any_other() -> None:
    starts = some_starts(tiny_world(), count=5)
    envs = dreams(endless(), 250, starts=starts, horizon=1, autoreset_mode="SameStep")
    drawn = [envs.reset(seed=0)[1]["start"]] + [envs.reset()[1]["start"] for _ in range(3)]
    counts = np.bincount(np.concatenate(drawn), minlength=5)
    assert ((counts - 200) ** 2 / 200).sum() < 30  # four degrees of freedom


def test_the_first_observation_is_the_newest_frame_of_the_context_as_the_tokenizer_shows_it() -> None:
    world = tiny_world()
    frames, actions = noise_frames(2, 5), torch.ones(2, 4, 1)
    starts = Starts.read(world, frames, actions)
    shown = world.vqvae.decode(world.vqvae.encode(frames))[:, -1]
    assert (starts.frames.permute(0, 3, 1, 2) / 255 - shown).abs().max() < 0.5 / 255 + 1e-4


def test_many_starts_are_read_in_parts_and_joined() -> None:
    world = tiny_world()
    frames, actions = noise_frames(70, 3), torch.arange(140).reshape(70, 2, 1) % 5.0
    whole, last = Starts.read(world, frames, actions), Starts.read(world, frames[64:], actions[64:])
    assert (len(whole), len(last)) == (70, 6)
    assert torch.equal(whole.source, torch.arange(70))
    assert torch.equal(whole.frames[64:], last.frames)
    action = torch.ones(6, 2, 1)
    one, _ = world.step(whole.state.rows(torch.arange(64, 70)), action, generator=torch.Generator().manual_seed(0))
    two, _ = world.step(last.state, action, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one.entropy, two.entropy, atol=1e-5, rtol=1e-5)
    assert torch.equal(one.codes, two.codes)


def test_clips_serve_as_starts() -> None:
    world = tiny_world()
    clips = StartClips(noise_frames(4, 9), torch.ones(4, 8, 1), torch.zeros(4, 8))
    starts = read_starts(world, clips, 2, 3)
    expected = Starts.read(world, clips.frames[:3, :3], clips.actions[:3, :2])
    assert torch.equal(starts.frames, expected.frames)
    assert starts.source.tolist() == [0, 1, 2]


# ---------------------------------------------------------------- frames of one's own


def own(rows: int, length: int, seed: int = 5) -> dict[str, Any]:
    """Options with frames (r, t, h, w, 3) and actions (r, t - 1, a)."""
    frames = noise_frames(rows, length, seed).permute(0, 1, 3, 4, 2).numpy()
    return {"frames": frames, "actions": np.arange(rows * (length - 1)).reshape(rows, length - 1, 1) % 5.0}


def test_episodes_begin_from_frames_and_actions_that_a_reset_is_given() -> None:
    world, options = endless(), own(3, 3)
    envs = dreams(world)
    observations, infos = envs.reset(seed=0, options=options)
    assert infos["start"].tolist() == [-1, -1, -1]
    given = torch.from_numpy(options["frames"]).permute(0, 1, 4, 2, 3)
    starts = Starts.read(world, given, torch.from_numpy(options["actions"]))
    assert np.array_equal(observations, starts.frames.numpy())
    other = dreams(world)
    other.reset(seed=0, options={name: torch.from_numpy(value) for name, value in options.items()})
    assert same(envs.step(np.array([1, 2, 3])), other.step(np.array([1, 2, 3])))


def test_one_context_serves_all_rows() -> None:
    world, options = endless(), own(1, 3)
    one, two = dreams(world), dreams(world)
    single = {name: value[0] for name, value in options.items()}
    batched = {name: value.repeat(3, axis=0) for name, value in options.items()}
    assert same(one.reset(seed=0, options=single), two.reset(seed=0, options=batched))
    assert same(one.step(np.array([1, 2, 3])), two.step(np.array([1, 2, 3])))
    env = dream(world)
    observation, _ = env.reset(seed=0, options=single)
    assert np.array_equal(observation, one.reset(seed=0, options=single)[0][0])


def test_some_rows_can_begin_from_frames_of_ones_own() -> None:
    envs = dreams(endless(), autoreset_mode="Disabled")
    envs.reset(seed=0)
    before = envs.step(np.array([0, 0, 0]))[0]
    mask = np.array([True, False, True])
    observations, infos = envs.reset(options={"reset_mask": mask, **own(2, 1)})
    assert infos["start"].tolist() == [-1, 0, -1]
    assert infos["_start"].tolist() == mask.tolist()
    assert np.array_equal(observations[1], before[1])
    expected, _ = dreams(endless(), 2).reset(seed=0, options=own(2, 1))
    assert np.array_equal(observations[mask], expected)
