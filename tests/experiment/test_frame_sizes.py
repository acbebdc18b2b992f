"""The tokenizer follows the size of the frames, unless somebody names a backbone."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import SIZE, tiny_experiment, tiny_store

from vqvideo.errors import InputError
from vqvideo.experiment.checks import check_settings
from vqvideo.experiment.config import Experiment, TrainingOptions, parse, vqvae_folder
from vqvideo.experiment.frame_sizes import about_tokens, fitted
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.tokenizer import FactorisedConv
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts.train_vqvae import CONFIG
from vqvideo.storage.records import read_yaml, typed


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str, config: Path = CONFIG) -> TrainingOptions:
    monkeypatch.setattr(sys, "argv", ["train_vqvae.py", *words])
    return parse(TrainingOptions, config, "")


@pytest.mark.parametrize(
    ("size", "strides", "tokens"),
    [
        ("64", (2, 8, 8), 64),
        ("96", (2, 8, 8), 144),
        ("128", (2, 8, 8), 256),
        ("128x192", (2, 16, 16), 96),
        ("256", (2, 16, 16), 256),
        ("512", (2, 32, 32), 256),
        # Half as many rows, 15, could not be cut into the prior's squares of 2 x 2.
        ("240x320", (2, 8, 8), 1200),
    ],
)
def test_large_frames_get_a_coarser_backbone_of_the_same_widths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str, strides: tuple[int, int, int], tokens: int
) -> None:
    cfg = parsed(monkeypatch, "--record.frame-size", size, "--runs", str(tmp_path))
    check_settings(cfg, "vqvae", "prior")
    own = fitted(cfg, cfg.record.size).vqvae.model
    h, w = own.grid_of(cfg.record.size)
    assert (own.backbone.strides, own.backbone.patch, h * w) == (strides, strides[1] // 2, tokens)
    assert own.backbone.widths == cfg.vqvae.model.backbone.widths
    assert fitted(fitted(cfg, cfg.record.size), cfg.record.size).vqvae.model == own


def test_a_backbone_that_a_flag_or_a_file_names_is_obeyed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flags = ("--vqvae.model.backbone.strides", "2", "8", "8")
    assert parsed(monkeypatch).vqvae.most_tokens == 256
    assert parsed(monkeypatch, *flags).vqvae.most_tokens is None
    assert parsed(monkeypatch, *flags, "--vqvae.most-tokens", "64").vqvae.most_tokens == 64
    assert parsed(monkeypatch, "--vqvae.most-tokens", "None").vqvae.most_tokens is None
    path = tmp_path / "mine.yaml"
    for written, most in (
        ("name: mine", 256),
        ("vqvae: {model: {backbone: {patch: 4}}}", None),
        ("vqvae: {model: {backbone: {patch: 4}}, most_tokens: 100}", 100),
        ("vqvae: {most_tokens: null}", None),
    ):
        path.write_text(written)
        assert parsed(monkeypatch, config=path).vqvae.most_tokens == most
    path.write_text("vqvae: {most_tokens: 0}")
    with pytest.raises(InputError, match=r"vqvae.most_tokens is 0, expected at least 1"):
        parsed(monkeypatch, config=path)
    assert Experiment().vqvae.most_tokens is None


def test_levels_are_kept_and_other_kinds_of_backbone_are_coarsened_too() -> None:
    coarse = FactorisedConv().coarsened((256, 256), 256)
    assert (coarse.strides, coarse.patch, coarse.widths) == ((2, 16, 16), 8, (64, 128))
    assert FactorisedConv().coarsened((100, 100), 16) == FactorisedConv(), "what cannot be cut is left to `grid_of`"


def test_who_trains_is_told_what_becomes_of_large_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = parsed(monkeypatch)
    assert about_tokens(cfg, fitted(cfg, (64, 64)), (64, 64)) == ""
    said = about_tokens(cfg, fitted(cfg, (256, 256)), (256, 256))
    assert "256x256: a token covers 16x16 pixels" in said
    assert "256 tokens in place of 1,024; --vqvae.most-tokens" in said
    assert "1,200 tokens per latent step" in about_tokens(cfg, fitted(cfg, (240, 320)), (240, 320))
    assert "Fewer: --vqvae.most-tokens 256" in about_tokens(cfg, cfg, (256, 256))


def test_a_run_keeps_the_backbone_that_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg, store = tiny_experiment(tmp_path), tiny_store(tmp_path / "data")
    limited = replace(cfg, vqvae=replace(cfg.vqvae, most_tokens=1))
    coarse = replace(limited, name="coarse")
    # Before there was a limit.
    train_vqvae(cfg, store)
    longer = replace(limited, vqvae=replace(limited.vqvae, train=replace(cfg.vqvae.train, steps=9)))
    train_vqvae(longer, store, resume=True)
    assert VQVAE.from_pretrained(vqvae_folder(cfg)).grid == (2, 2)
    assert "in place of" not in capsys.readouterr().out
    # With it, also from the settings that the run wrote down.
    train_vqvae(coarse, store)
    assert "1 tokens in place of 4" in capsys.readouterr().out
    settings = coarse.folder / "vqvae" / "config.yaml"
    written = typed(Experiment, read_yaml(settings), str(settings))
    assert written.vqvae.model == fitted(coarse, (SIZE, SIZE)).vqvae.model
    for again in (coarse, written):
        longer = replace(again, vqvae=replace(again.vqvae, train=replace(again.vqvae.train, steps=9)))
        train_vqvae(longer, store, resume=True)
    assert VQVAE.from_pretrained(vqvae_folder(coarse)).grid == (1, 1)
