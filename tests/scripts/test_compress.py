"""compress.py: films and episodes into small files and back, and what is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import SIZE, tiny_store, tiny_world
from videos import moving_frames, read_video, write_video

from vqvideo.scripts import compress

pytest.importorskip("constriction")
Called = Callable[..., tuple[int, str]]


@pytest.fixture
def world(tmp_path: Path) -> str:
    tiny_world().save_pretrained(tmp_path / "world")
    return str(tmp_path / "world")


def test_a_film_goes_in_and_comes_out(tmp_path: Path, world: str, called: Called) -> None:
    film = write_video(tmp_path / "x.mkv", moving_frames(30, (SIZE, SIZE)))
    code, said = called(compress.main, "encode", film, "--world", world, "--tokenizer-alone")
    assert (code, "x.vqv: 30 frames in" in said) == (0, True)
    code, said = called(compress.main, "info", tmp_path / "x.vqv")
    assert (code, "30 in 1 chunks" in said) == (0, True)
    assert called(compress.main, "decode", tmp_path / "x.vqv", "--world", world, "--tokenizer-alone")[0] == 0
    assert read_video(tmp_path / "x_decoded.mp4").shape == (30, SIZE, SIZE, 3)


def test_an_episode_keeps_its_actions(tmp_path: Path, world: str, called: Called) -> None:
    store, out = tiny_store(tmp_path / "data", 2), tmp_path / "e.vqv"
    assert called(compress.main, "encode", store.path, out, "--episode", 1, "--world", world)[0] == 0
    assert called(compress.main, "decode", out, tmp_path / "e.mkv", "--world", world)[0] == 0
    rows = (tmp_path / "e.csv").read_text().splitlines()
    actions = store.episode(store.entries[1]).actions[:, 0]
    assert [float(row) for row in rows[1:-1]] == actions.tolist()
    assert read_video(tmp_path / "e.mkv").shape == (len(actions) + 1, SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("encode", "nothing.mp4"), "nothing.mp4: no such film or store"),
        (
            ("encode", "large.mkv"),
            "frames of 48 x 32 pixels, the tokenizer takes 16 x 16: --resize crop",
        ),
        (("encode", "small.mkv"), "and the film none: --tokenizer-alone"),
        (("encode", "data", "--episode", "7"), "no episode 7"),
        (("decode", "nothing.vqv"), "nothing.vqv: no such file"),
        (("decode", "small.mkv"), "not a .vqv file"),
        (("decode", "small.mkv", "out.avi"), "expected a name that ends in .mp4"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    world: str,
    called: Called,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "large.mkv", moving_frames(5))
    write_video(tmp_path / "small.mkv", moving_frames(5, (SIZE, SIZE)))
    tiny_store(tmp_path / "data", 1)
    before = sorted(tmp_path.iterdir())
    code, said = called(compress.main, *words, "--world", world)
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before
