"""Images as clips of one frame: what is read, how it is fitted, and how it joins the clips of a batch."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_experiment, tiny_store
from tiny_tokenizers import moving_squares, noise, small_vqvae

from vqvideo.data.clips import Clips
from vqvideo.data.config import StillsConfig
from vqvideo.data.images import Images
from vqvideo.errors import InputError
from vqvideo.experiment.tokenizer import train_vqvae


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def striped(h: int, w: int) -> np.ndarray:
    """Red in the left and the right quarter, green between."""
    pixels = np.zeros((h, w, 3), np.uint8)
    pixels[:, :, 1] = 200
    for quarter in (slice(0, w // 4), slice(w - w // 4, w)):
        pixels[:, quarter] = (200, 0, 0)
    return pixels


def test_images_of_all_depths_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(("b.png", "a/z.JPG", "c/d/e.webp")):
        save(tmp_path / name, np.full((16, 16, 3), 60 * number, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    images = Images(tmp_path, (16, 16))
    means = [images[i]["frames"].float().mean().item() for i in range(len(images))]
    assert means == pytest.approx([60, 0, 120], abs=3)


def test_an_image_is_cut_to_the_shape_of_a_frame_around_its_centre(tmp_path: Path) -> None:
    save(tmp_path / "wide.png", striped(32, 64))
    frames = Images(tmp_path, (16, 16))[0]["frames"]
    assert frames.shape == (1, 3, 16, 16)
    assert frames.dtype == torch.uint8
    assert (frames[:, 1] > 150).float().mean() > 0.9
    wide = Images(tmp_path, (16, 32))[0]["frames"]
    assert wide[0, 0, :, :6].min() > 150


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no images in it, images end in \.bmp, \.jpeg, \.jpg, \.png, \.webp$"):
        Images(tmp_path, (8, 8))
    for name in ("a.TIF", "b.tif", "c.gif"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"images end in .*\(convert what is there: 2 \.tif, 1 \.gif\)"):
        Images(tmp_path, (8, 8))
    with pytest.raises(InputError, match="no such folder"):
        Images(tmp_path / "missing", (8, 8))


def test_what_is_left_out_is_named_and_hidden_files_are_no_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("x.png", "._x.png", ".cache/x.png", "more/._y.jpg"):
        save(tmp_path / name, striped(8, 8))
    assert len(Images(tmp_path, (8, 8))) == 1
    assert not caplog.messages
    (tmp_path / "y.gif").touch()
    assert len(Images(tmp_path, (8, 8))) == 1
    assert "left out 1 .gif; images end in .bmp" in caplog.text


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
def test_a_damaged_byte_gives_other_pixels_or_an_error_of_ours(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / f"x.{ending}"
    save(file, rng.integers(0, 256, (16, 16, 3), np.uint8))
    original, refused = file.read_bytes(), 0
    for position, value in zip(rng.integers(0, 60, 120), rng.integers(0, 256, 120), strict=True):
        file.write_bytes(original[:position] + bytes([value]) + original[position + 1 :])
        try:
            assert Images(tmp_path, (8, 8))[0]["frames"].shape == (1, 3, 8, 8)
        except InputError as error:
            refused += str(file) in str(error)
    assert refused


def test_a_file_of_another_format_is_no_image_whatever_its_name(tmp_path: Path) -> None:
    Image.fromarray(striped(8, 8)).save(tmp_path / "x.gif")
    (tmp_path / "x.gif").rename(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png: not an image that can be read"):
        Images(tmp_path, (8, 8))[0]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_half_a_file_is_an_error_that_names_it(tmp_path: Path, ending: str, share: float) -> None:
    file = tmp_path / f"x.{ending}"
    save(file, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError, match=rf"x\.{ending}: not an image that can be read .*; repair it, save it as"):
        Images(tmp_path, (8, 8))[0]


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / "x.png", striped(8, 8))
    assert len(Images(tmp_path, (8, 8))) == 1


def test_an_image_is_a_clip_of_one_frame() -> None:
    vqvae = small_vqvae().train()
    clips, stills = moving_squares(3, 5), noise(4, 1, seed=5)
    apart = vqvae(clips), vqvae(stills)
    together = vqvae(clips, stills)
    share = 4 / (3 * 5 + 4)
    torch.testing.assert_close(together.loss, (1 - share) * apart[0].loss + share * apart[1].loss)
    torch.testing.assert_close(
        together.metrics["mse"], (1 - share) * apart[0].metrics["mse"] + share * apart[1].metrics["mse"]
    )
    torch.testing.assert_close(together.reconstruction, apart[0].reconstruction)
    assert torch.equal(together.codes, apart[0].codes)


@pytest.mark.parametrize("own_folder", [False, True])
def test_the_tokenizer_trains_on_clips_and_images_together(tmp_path: Path, own_folder: bool) -> None:
    folder = tmp_path / "pictures" if own_folder else None
    for number in range(5):
        save(tmp_path / "pictures" / f"{number}.png", striped(24, 24))
    cfg, store = tiny_experiment(tmp_path, steps=3), tiny_store(tmp_path / "data")
    with_stills = replace(cfg, vqvae=replace(cfg.vqvae, stills=StillsConfig(per_batch=2, folder=folder)))
    train_vqvae(with_stills, store)
    lines = (cfg.folder / "vqvae" / "metrics.jsonl").read_text()
    assert '"stills_mse"' in lines


def test_a_tokenizer_can_be_trained_on_single_frames_alone(tmp_path: Path) -> None:
    cfg, store = tiny_experiment(tmp_path, steps=3), tiny_store(tmp_path / "data")
    assert len(Clips(store, "train", 1)) > len(Clips(store, "train", 2))
    figures = train_vqvae(replace(cfg, vqvae=replace(cfg.vqvae, latent_steps=1)), store)
    assert figures["psnr_db"] > 5


def test_a_negative_number_of_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"stills\.per_batch is -1"):
        StillsConfig(per_batch=-1)
