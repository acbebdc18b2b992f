"""compress.py: films and episodes into small files and back, and what is refused before anything is written."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tiny_models import SIZE, tiny_episode, tiny_store, tiny_world
from videos import moving_frames, read_video, write_video

from vqvideo.codec import Codec
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


@cache
def episode_file() -> bytes:
    """25 frames, 10 a second, in chunks of 7."""
    episode, file = tiny_episode(24, seed=1), io.BytesIO()
    Codec(tiny_world(), 4).encode(episode.frames, 10.0, file, episode.actions)
    assert len(episode.frames) == 25
    return file.getvalue()


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    (tmp_path / "e.vqv").write_bytes(episode_file())
    return tmp_path / "e.vqv"


def test_a_part_of_a_film_comes_out_alone(coded: Path, world: str, called: Called) -> None:
    whole, part = coded.with_name("e.mkv"), coded.with_name("part.mkv")
    assert called(compress.main, "decode", coded, whole, "--world", world)[0] == 0
    words = ("decode", coded, part, "--world", world, "--frames", 9)
    frames, rows = read_video(whole)[12:21], whole.with_suffix(".csv").read_text().splitlines()[13:21]
    for begin in (("--from-frame", 12), ("--from-second", 1.2)):
        code, said = called(compress.main, *words, *begin)
        assert (code, "part.mkv: 9 frames" in said) == (0, True)
        assert np.array_equal(read_video(part), frames)
        assert part.with_suffix(".csv").read_text().splitlines() == ["action_0", *rows, '""']
        part.unlink()
    code, said = called(compress.main, "decode", coded, "--from-frame", 24, "--world", world)
    assert (code, "e_from_24.mp4: 1 frames" in said) == (0, True)
    assert "every 7 frames (0.7 s): a frame takes up to 3 latent steps" in called(compress.main, "info", coded)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from-frame", 25), "frame 25 asked for, expected 0 to 24: the film has 25 frames"),
        (("--from-frame", 20, "--frames", 6), "frames 20 to 25 asked for"),
        (("--from-second", "inf"), "asked for, expected 0 to 24"),
        (("--from-second", "nan"), "--from-second is nan, expected at least 0"),
        (("--from-frame", -1), "--from-frame is -1, expected at least 0"),
        (("--frames", 0), "--frames is 0, expected at least 1"),
        (("--from-second", 1, "--from-frame", 1), "give one"),
        ((), "chunk 1, from frame 7 on: its checksum is wrong"),
        (("--from-frame", 15), "chunk 1, from frame 7 on: its checksum is wrong"),
    ],
)
def test_a_part_that_cannot_be_had_is_said_and_leaves_nothing(
    words: tuple[object, ...], message: str, coded: Path, called: Called
) -> None:
    """Before any world is loaded."""
    if "checksum" in message:
        content = bytearray(coded.read_bytes())
        content[content.index(b"CHNK", content.index(b"CHNK") + 4) + 20] ^= 1
        coded.write_bytes(content)
    before = sorted(coded.parent.iterdir())
    code, said = called(compress.main, "decode", coded, *words, "--world", "nowhere")
    assert (code, "Traceback" in said) == (2, False)
    assert message in said
    assert sorted(coded.parent.iterdir()) == before


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
