"""Tokenizers on disk: what is saved comes back exactly, fingerprints tell models apart, damage is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_tokenizers import (
    BACKBONES,
    QUANTIZERS,
    STRIDES,
    name_of,
    noise,
    small_vqvae,
)

from vqvideo.errors import InputError
from vqvideo.models.quantizers import EMAVQConfig
from vqvideo.models.tokenizer import ConvConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.files import commit_folder

each_backbone = pytest.mark.parametrize("backbone", BACKBONES, ids=name_of)
each_quantizer = pytest.mark.parametrize("quantizer", QUANTIZERS, ids=name_of)
each_stride = pytest.mark.parametrize("stride", STRIDES)


@each_backbone
@each_quantizer
def test_a_saved_tokenizer_comes_back_exactly(tmp_path: Path, backbone: type[ConvConfig], quantizer: type) -> None:
    model = small_vqvae(backbone, quantizer).train()
    model(noise(4, 5)).loss.backward()
    model.after_step()
    model.save_pretrained(tmp_path / "new" / "model")
    loaded = VQVAE.from_pretrained(tmp_path / "new" / "model")
    assert loaded.cfg == model.cfg
    assert loaded.frame_size == model.frame_size
    assert loaded.fingerprint() == model.fingerprint()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    assert {b.device for b in loaded.buffers()} == {torch.device("cpu")}, (
        "a buffer that is not saved was never computed"
    )
    frames = noise(2, 5, seed=8)
    assert torch.equal(loaded.encode(frames), model.encode(frames))
    assert torch.equal(loaded.decode(loaded.encode(frames)), model.decode(model.encode(frames)))


def test_a_loaded_tokenizer_is_frozen(tmp_path: Path) -> None:
    small_vqvae().save_pretrained(tmp_path / "model")
    loaded = VQVAE.from_pretrained(str(tmp_path / "model"))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@each_quantizer
def test_one_changed_number_changes_the_fingerprint(quantizer: type) -> None:
    model = small_vqvae(quantizer=quantizer)
    prints = {model.fingerprint()}
    for tensor in model.state_dict().values():
        changed = tensor.view(-1)[:1]
        old = changed.clone()
        changed.copy_(~old if old.dtype == torch.bool else old + 1)
        prints.add(model.fingerprint())
        changed.copy_(old)
    assert len(prints) == 1 + len(model.state_dict())
    assert model.fingerprint() in prints
    assert small_vqvae(quantizer=quantizer).fingerprint() == model.fingerprint()


def test_another_setting_changes_the_fingerprint() -> None:
    model, other = small_vqvae(), small_vqvae(commitment=0.5)
    assert model.state_dict().keys() == other.state_dict().keys()
    assert model.fingerprint() != other.fingerprint()


def test_a_default_that_changes_leaves_saved_models_their_fingerprints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_vqvae(commitment=0.25)
    was = model.fingerprint()
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(EMAVQConfig.__dataclass_fields__["commitment"], "default", 0.5)
    assert small_vqvae(commitment=0.25).fingerprint() != was
    loaded = VQVAE.from_pretrained(tmp_path / "model")
    assert loaded.fingerprint() == was
    loaded.save_pretrained(tmp_path / "again")
    assert VQVAE.from_pretrained(tmp_path / "again").fingerprint() == was
    loaded.variance.add_(1)
    assert loaded.fingerprint() != was


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder, expected a saved vqvae"):
        VQVAE.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a folder without a manifest, expected a saved vqvae"):
        VQVAE.from_pretrained(tmp_path)


def rewrite(folder: Path, change: dict[str, Any]) -> None:
    """Commits a model folder again with another config.json."""
    config = json.loads((folder / "config.json").read_text()) | change
    files = {"config.json": json.dumps(config).encode()}
    files["model.safetensors"] = (folder / "model.safetensors").read_bytes()
    commit_folder(folder, files, {"kind": "vqvae"}, replace=True)


WIDER = {"backbone": {"strides": [2, 4, 4], "patch": 2, "widths": [8, 24], "encoder_blocks": 1, "decoder_blocks": 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "vqvideo-world"}, "holds a vqvideo-world, expected a vqvideo-vqvae"),
        ({"format_version": 99}, "format 99, this vqvideo reads up to 4: install a newer one"),
        ({"model": None}, "model is None, expected keys and values of VQVAE"),
        ({"model": {"quantiser": {}}}, "quantiser is not a setting: did you mean quantizer"),
        ({"model": {"quantizer": {"kind": "FSK"}}}, "kind is 'FSK': did you mean FSQ"),
        ({"model": WIDER}, "does not fit its config"),
        ({"frame_size": [16]}, "config.json lacks model or frame_size"),
        ({"frame_size": 16}, "config.json lacks model or frame_size"),
        ({"frame_size": [16, 18]}, "frames of 16x18 cannot be cut"),
        ({"frame_size": ["16", 16]}, "frame_size of config.json is '16', 16: expected two whole numbers"),
        ({"frame_size": [16.0, 16]}, "frame_size of config.json is 16.0, 16"),
        ({"frame_size": [[], {}]}, "frame_size of config.json"),
        ({"frame_size": [-16, 0]}, "frame_size of config.json"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    small_vqvae().save_pretrained(tmp_path / "model")
    rewrite(tmp_path / "model", change)
    with pytest.raises(InputError, match=message):
        VQVAE.from_pretrained(tmp_path / "model")


HUGE = {"encoder_blocks": 10**9, "widths": [10**5, 10**5]}


@pytest.mark.parametrize("setting", HUGE)
def test_settings_that_ask_for_more_than_the_file_holds_are_refused_before_memory_is_spent(
    tmp_path: Path, setting: str
) -> None:
    small_vqvae().save_pretrained(tmp_path / "model")
    model = json.loads((tmp_path / "model" / "config.json").read_text())["model"]
    model["backbone"][setting] = HUGE[setting]
    rewrite(tmp_path / "model", {"model": model})
    with pytest.raises(InputError, match=r"model\.safetensors: does not fit its config"):
        VQVAE.from_pretrained(tmp_path / "model")
