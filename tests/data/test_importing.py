"""Stores of films: which frames become which episode, going on, and what is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from videos import moving_frames, write_video

from vqvideo import envs
from vqvideo.data import import_jobs, importing, write_store
from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import Facts, Moment
from vqvideo.data.import_plan import SOURCES, sources
from vqvideo.data.importing import import_data
from vqvideo.data.kept import thinned
from vqvideo.data.store import Store
from vqvideo.data.verify import verify
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

Written = list[np.ndarray]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Two films of 30 and 14 frames."""
    folder = tmp_path / "films"
    write_video(folder / "a.mkv", moving_frames(30))
    write_video(folder / "b.mkv", moving_frames(14))
    return folder


def imported(source: Path, **options: Any) -> Store:
    out = source.parent / "store"
    return Store.open(import_data(ImportConfig(source, **{"out": out, "frame_size": "32x48"} | options)))


def frames_of(store: Store) -> Written:
    return [store.episode(entry).frames for entry in store.entries]


def test_long_films_are_cut_into_episodes_that_do_not_overlap(films: Path) -> None:
    store = imported(films, steps=9)
    a, b = moving_frames(30), moving_frames(14)
    expected = [a[:10], a[10:20], a[20:], b[:10], b[10:]]
    assert all(map(np.array_equal, frames_of(store), expected))
    assert [entry.seed for entry in store.entries] == [0, 10, 20, 0, 10]
    assert [entry.split for entry in store.entries] == ["train"] * 4 + ["held_out"]
    meta = store.meta
    assert (meta.env_id, meta.fps, meta.action_space, meta.imported) == ("films", 10.0, ActionSpace.none(), "videos")
    episode = store.episode(store.entries[0])
    assert episode.actions.shape == (9, 0)
    assert not episode.rewards.any()
    assert not episode.terminated.any()
    assert episode.truncated.tolist() == [False] * 8 + [True]
    assert [(piece.name, piece.first) for piece in sources(store.path) if piece.index is not None] == [
        *(("a.mkv", first) for first in (0, 10, 20)),
        *(("b.mkv", first) for first in (0, 10)),
    ]
    assert not [found for found in verify([store.path], deep=True) if found.damage]


def test_a_single_frame_that_is_left_over_is_no_episode(tmp_path: Path) -> None:
    store = imported(write_video(tmp_path / "x.mkv", moving_frames(11)), steps=9)
    assert [entry.length for entry in store.entries] == [9]
    with pytest.raises(InputError, match="no recording has two frames to make an episode of"):
        imported(write_video(tmp_path / "one.mkv", moving_frames(1)), out=tmp_path / "other")


def test_a_single_film_is_cut_so_that_one_half_can_be_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = imported(write_video(tmp_path / "my film.mkv", moving_frames(30)))
    assert [(entry.length, entry.split) for entry in store.entries] == [(14, "train"), (14, "held_out")]
    assert store.meta.env_id == "my film"
    assert "cut into episodes of 14 steps, so that one can be held out" in capsys.readouterr().out
    imported(write_video(tmp_path / "my film.mkv", moving_frames(30)), out=tmp_path / "whole", steps=200)
    assert "no episode is held out, and trainings need one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fps", "every", "rate"), [(10, 1, 10), (5, 2, 5), (3, 3, 10 / 3), (4.1, 2, 5), (0.5, 20, 0.5), (60, 1, 10)]
)
def test_of_a_faster_film_every_nth_frame_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fps: float, every: int, rate: float
) -> None:
    store = imported(write_video(tmp_path / "x.mkv", moving_frames(45)), fps=fps, steps=200)
    assert np.array_equal(frames_of(store)[0], moving_frames(45)[::every])
    assert store.meta.fps == pytest.approx(rate)
    assert ("cannot be met" in capsys.readouterr().out) == (rate != pytest.approx(fps))


def test_a_film_of_another_speed_is_said_to_move_faster(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(films / "c.mkv", moving_frames(6), fps=5)
    assert imported(films).meta.fps == 10
    found = "c.mkv: it has 5 frames/s, of which all are kept: in the store of 10 it moves 2 times as fast"
    assert found in capsys.readouterr().out


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_film_of_another_shape_is_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str], fit: str) -> None:
    wide = np.full((2, 32, 96, 3), 100, np.uint8)
    wide[:, :, :32], wide[:, :, 64:] = (200, 0, 0), (0, 0, 200)
    frame = frames_of(imported(write_video(tmp_path / "x.mkv", wide), fit=fit, frame_size=32, steps=1))[0][0]
    middle, left, top = frame[16, 16].tolist(), frame[16, 1].tolist(), frame[1, 16].tolist()
    assert middle == [100] * 3
    assert left == ([100] * 3 if fit == "crop" else [200, 0, 0])
    assert top == ([0] * 3 if fit == "pad" else [100] * 3)
    assert f"--fit {fit})" in capsys.readouterr().out


# ---------------------------------------------------------------- going on


def test_the_same_command_adds_only_what_is_new(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = frames_of(imported(films, fps=5))
    assert len(imported(films, fps=5).entries) == len(before) == 2
    assert "holds 2 episodes already; nothing to import" in capsys.readouterr().out
    write_video(films / "aa.mkv", moving_frames(20), fps=20)
    after = frames_of(imported(films, steps=None))
    assert all(map(np.array_equal, after, [*before, moving_frames(20)[::4]]))


class StoppedError(Exception):
    """In place of a signal."""


@pytest.mark.parametrize("stop_at", [1, 9, 10, 15, 24, 31, 35, 43])
def test_an_import_that_was_stopped_goes_on_where_it_was(
    films: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    whole = frames_of(imported(films, steps=9, out=films.parent / "whole"))
    decoded = iter(range(1000))
    fitted = import_jobs.fitted

    def until(frame: np.ndarray, *how: Any) -> np.ndarray:
        if next(decoded) == stop_at:
            raise StoppedError
        return fitted(frame, *how)

    monkeypatch.setattr(import_jobs, "fitted", until)
    with pytest.raises(StoppedError):
        imported(films, steps=9)
    store = films.parent / "store"
    done = sum(piece.index is not None for piece in sources(store))
    assert done == len(list((store / "episodes").glob("*.safetensors")))
    with (store / SOURCES).open("ab") as file:
        file.write(b'{"index": 77, "na')
    monkeypatch.undo()
    again = imported(films)
    assert all(map(np.array_equal, frames_of(again), whole))
    assert len(again.entries) == len(whole)
    assert again.digest == Store.open(films.parent / "whole").digest
    assert (store / SOURCES).read_bytes() == (films.parent / "whole" / SOURCES).read_bytes()


@pytest.mark.parametrize(
    "change", [{"fps": 5.0}, {"steps": 5}, {"fit": "pad"}, {"frame_size": 64}, {"held_out_every": 3}]
)
def test_a_store_is_not_continued_with_other_settings(films: Path, change: dict[str, Any]) -> None:
    imported(films, steps=9)
    write_video(films / "c.mkv", moving_frames(20))
    with pytest.raises(InputError, match="was recorded with other settings"):
        imported(films, **{"steps": 9} | change)


def test_a_film_that_has_changed_is_not_imported_again(films: Path) -> None:
    imported(films)
    write_video(films / "b.mkv", moving_frames(20))
    with pytest.raises(InputError, match=r"b\.mkv had \d+ bytes when it was imported into .*another folder"):
        imported(films)


# ---------------------------------------------------------------- what is refused


def test_broken_films_are_all_named_before_anything_is_written_or_left_out(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b0.mp4", "c.mp4"):
        (films / name).write_bytes(b"junk")
    with pytest.raises(
        InputError, match=r"(?s)2 of 4 recordings cannot be read:.*b0\.mp4: not a.*c\.mp4: .*--skip-broken"
    ):
        imported(films)
    assert not (films.parent / "store").exists()
    assert len(imported(films, skip_broken=True).entries) == 2
    assert "left out: " in capsys.readouterr().out


def broken_at(films: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """From now on the decoder of a.mkv fails after so many frames."""
    from vqvideo.data.formats.videos import Film

    moments = Film.moments

    def failing(self: Film, first: int = 0) -> Any:
        for count, moment in enumerate(moments(self, first), first):
            if count == number and self.path.name == "a.mkv":
                raise InputError("a.mkv: not a video that can be read (damaged)")
            yield moment

    monkeypatch.setattr(Film, "moments", failing)


def test_of_a_film_that_breaks_off_whole_episodes_are_kept(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(films, monkeypatch, 25)
    with pytest.raises(InputError, match=r"a\.mkv: not a video that can be read \(damaged\)"):
        imported(films, steps=9)
    assert [entry.length for entry in Store.open(films.parent / "store").entries] == [9, 9]
    store = imported(films, steps=9, skip_broken=True)
    assert [entry.length for entry in store.entries] == [9, 9, 9, 3]
    assert len(imported(films, steps=9).entries) == 4, "what was left out is not tried again"


def test_a_dry_run_says_what_would_be_done_draws_it_and_imports_nothing(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_data(ImportConfig(films, out=films.parent / "store", steps=9, dry_run=True))
    said = capsys.readouterr().out
    assert "a.mkv: 48 x 32 pixels, 30 frames at 10/s: 3 episode(s)" in said
    assert (
        "5 episode(s) of at most 9 steps, 64 x 64 pixels (the middle is kept: --fit crop), 10 frames/s; nothing" in said
    )
    assert not (films.parent / "store").exists()
    with Image.open(films.parent / "store.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (2 * (128 + 3 * 14), 8 * 128, 3), "a row for each film, twice as large as stored"
    # The same place below the red part of a.mkv in its frames 0, 4, 8, ...
    assert pixels[14 + 120, 20::128, 0].tolist() == [4 * number for number in range(0, 32, 4)]


@pytest.mark.parametrize("option", [{"fps": 0}, {"fps": float("nan")}, {"steps": 0}, {"frame_size": "x"}])
def test_impossible_options_are_named(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--{next(iter(option)).replace('_', '-')} is"):
        ImportConfig(Path("films"), **option)


def test_imported_and_recorded_episodes_do_not_mix(films: Path) -> None:
    from stores import make_meta, make_store

    from vqvideo.data.store import StoreWriter

    make_store(films.parent / "recorded")
    with pytest.raises(InputError, match="recorded holds recorded episodes of Tiny-v0: import into another folder"):
        imported(films, out=films.parent / "recorded")
    arrays = {"frames": moving_frames(3), "actions": np.zeros(2)}
    write_store(films.parent / "arrays", [arrays] * 2, fps=5, held_out_every=2)
    with pytest.raises(InputError, match=r"arrays holds episodes of arrays \(write_store\): import into"):
        imported(films, out=films.parent / "arrays")
    store = imported(films)
    with (
        pytest.raises(InputError, match="holds episodes that were imported from videos: record into another"),
        StoreWriter.open(store.path, make_meta()),
    ):
        pass
    with pytest.raises(InputError, match="the episodes of films were imported from videos: there is no environment"):
        envs.as_recorded(store.meta)


# ---------------------------------------------------------------- formats with actions


class Played:
    """A format of one recording, whose actions and rewards are the numbers of their frames; it ends with the last."""

    action_space = ActionSpace.from_json({"kind": "box", "shape": [1], "dtype": "float32", "low": [0], "high": [99]})
    names = ("game",)
    facts = Facts(12, 10.0, (32, 48))
    episodes, missing, notes, ends = True, (), ("it is a game",), (11,)

    def size_of(self, name: str) -> int:
        return 1

    def open(self, name: str) -> Played:
        return self

    def moments(self, first: int = 0) -> Any:
        for number, frame in enumerate(moving_frames(12)[first:], first):
            yield Moment(frame, (number,), number, number == 11)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "reader_of", lambda options: ("played", Played()))


@pytest.mark.usefixtures("played")
def test_a_format_with_actions_needs_a_reader_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = imported(tmp_path / "x", steps=6)
    first, second = map(store.episode, store.entries)
    assert first.actions.tolist() == [[1], [2], [3], [4], [5], [6]]
    assert second.rewards.tolist() == [8, 9, 10, 11]
    assert (first.truncated[-1], second.truncated[-1], second.terminated[-1]) == (True, False, True)
    assert json.loads(store.meta.env_spec or "")["steps"] == 6
    assert "note: it is a game" in capsys.readouterr().out


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    ("aggregate", "actions"),
    [("last", [3, 6, 9, 11]), ("mean", [2, 5, 8, 10.5]), ("sum", [6, 15, 24, 21])],
)
def test_of_frames_left_out_actions_are_aggregated_and_rewards_summed(
    tmp_path: Path, aggregate: str, actions: list[float]
) -> None:
    store = imported(tmp_path / "x", fps=10 / 3, aggregate=aggregate, steps=200)
    (episode,) = map(store.episode, store.entries)
    assert episode.actions[:, 0].tolist() == actions
    assert episode.rewards.tolist() == [6, 15, 24, 21]
    assert np.array_equal(episode.frames, moving_frames(12)[[0, 3, 6, 9, 11]]), "the end lies between, and counts"
    assert episode.terminated.tolist() == [False, False, False, True]
    assert [column.high for column in store.meta.action_space.columns] == [297 if aggregate == "sum" else 99]


@given(every=st.integers(1, 5), ends=st.sets(st.integers(1, 29)), count=st.integers(1, 30))
def test_thinned_moments_lose_no_reward_and_no_end(every: int, ends: set[int], count: int) -> None:
    moments = (Moment(np.zeros((1, 1, 3), np.uint8), (n,), 2.0**n, n in ends) for n in range(count))
    kept = list(thinned(moments, every, "last"))
    assert sum(moment.reward for _, moment in kept) == sum(2.0**n for n in range(kept[-1][0] + 1))
    assert [number for number, moment in kept if moment.terminated] == sorted(ends & set(range(count)))
    assert {number for number, _ in kept} >= set(range(0, count, every))


def test_actions_that_are_choices_have_no_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gymnasium.spaces import Discrete

    monkeypatch.setattr(Played, "action_space", ActionSpace.from_gymnasium(Discrete(99)))
    monkeypatch.setattr(importing, "reader_of", lambda options: ("played", Played()))
    with pytest.raises(InputError, match=r"--aggregate mean: the actions are whole numbers .*--aggregate last"):
        imported(tmp_path / "x", fps=5, aggregate="mean")
    assert not (tmp_path / "store").exists()
