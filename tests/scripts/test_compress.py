"""compress.py: films and episodes into small files and back, and what is refused before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_models import SIZE, tiny_store, tiny_world
from videos import moving_frames, read_video, write_video

from vqvideo import cli
from vqvideo.scripts import compress

pytest.importorskip("constriction")


@pytest.fixture
def world(tmp_path: Path) -> str:
    tiny_world().save_pretrained(tmp_path / "world")
    return str(tmp_path / "world")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["compress.py", *words])
    try:
        cli.run(compress.main)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_film_goes_in_and_comes_out(
    tmp_path: Path, world: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = write_video(tmp_path / "x.mkv", moving_frames(30, (SIZE, SIZE)))
    assert run(monkeypatch, "encode", str(film), "--world", world, "--tokenizer-alone") == 0
    assert "x.vqv: 30 frames in" in capsys.readouterr().out
    assert run(monkeypatch, "info", str(tmp_path / "x.vqv")) == 0
    assert "30 in 1 chunks" in capsys.readouterr().out
    assert run(monkeypatch, "decode", str(tmp_path / "x.vqv"), "--world", world, "--tokenizer-alone") == 0
    assert read_video(tmp_path / "x_decoded.mp4").shape == (30, SIZE, SIZE, 3)


def test_an_episode_keeps_its_actions(tmp_path: Path, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = tiny_store(tmp_path / "data", 2), str(tmp_path / "e.vqv")
    assert run(monkeypatch, "encode", str(store.path), out, "--episode", "1", "--world", world) == 0
    assert run(monkeypatch, "decode", out, str(tmp_path / "e.mkv"), "--world", world) == 0
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
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "large.mkv", moving_frames(5))
    write_video(tmp_path / "small.mkv", moving_frames(5, (SIZE, SIZE)))
    tiny_store(tmp_path / "data", 1)
    before = sorted(tmp_path.iterdir())
    assert run(monkeypatch, *words, "--world", world) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before
