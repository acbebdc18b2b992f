"""Squares of pictures and films become a store in which held-out pictures are held out whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.scripts import cut_stills


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (60, 40)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def cut(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["cut_stills.py", *map(str, words)])
    cut_stills.main()


def test_a_picture_is_an_episode_of_its_squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    red, blue = picture(tmp_path / "red.png", (255, 0, 0)), picture(tmp_path / "blue.png", (0, 0, 255))
    words = (red, blue, "--held-out", "blue.png", "--out", tmp_path / "store", "--side", 32, "--squares", 5)
    cut(monkeypatch, *words)
    cut(monkeypatch, *words)
    store = Store.open(tmp_path / "store")
    assert [(entry.split, entry.length) for entry in store.entries] == [("train", 4), ("held_out", 4)]
    for entry, colour in zip(store.entries, ((255, 0, 0), (0, 0, 255)), strict=True):
        assert (store.episode(entry).frames == colour).all()
    assert store.meta.frame_size == (32, 32)


def test_squares_are_pieces_of_the_picture_of_many_sizes(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "ramp.png")
    found = np.stack(list(cut_stills.squares(tmp_path / "ramp.png", 40, 20, np.random.default_rng(0))))
    widths = np.ptp(found[..., 0].astype(int), axis=(1, 2)) + 1
    assert widths.min() < 30 < 80 < widths.max()
    assert found.min() < 30, "also from the left"
    assert found.max() > 170, "also from the right"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--held-out", "green.png"], r"--held-out green.png: expected some of red.png"),
        (["--side", "64"], r"red.png: 40 x 60 pixels, expected at least 64 a side"),
        (["--squares", "1"], r"--squares is 1, expected at least 2"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    red = picture(tmp_path / "red.png", (255, 0, 0))
    with pytest.raises(InputError, match=message):
        cut(monkeypatch, red, "--out", tmp_path / "store", *words)
