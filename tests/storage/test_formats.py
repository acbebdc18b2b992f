"""Old formats of saved models: newer ones are refused, older ones become today's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import noise_frames, tiny_world

from vqvideo.errors import InputError
from vqvideo.storage import checkpoint, formats
from vqvideo.storage.checkpoint import fingerprint, load_model, model_tensors, save_model
from vqvideo.storage.formats import SavedModel
from vqvideo.world import WorldModel

TENSORS = {"w": torch.arange(3.0)}


def test_a_newer_format_is_refused_and_an_older_one_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MODEL_FORMAT", 3)
    save_model(tmp_path / "new", "toy", {"width": 3}, TENSORS)
    monkeypatch.setattr(checkpoint, "MODEL_FORMAT", 1)
    with pytest.raises(InputError, match="format 3, this vqvideo reads up to 1: install a newer one"):
        load_model(tmp_path / "new", "toy")
    save_model(tmp_path / "old", "toy", {"width": 3}, TENSORS)
    for module in (checkpoint, formats):
        monkeypatch.setattr(module, "MODEL_FORMAT", 3)

    def deeper(saved: SavedModel) -> SavedModel:
        return saved._replace(config=saved.config | {"depth": saved.config.get("depth", 0) + 1})

    monkeypatch.setattr(formats, "UPGRADES", {1: deeper, 2: deeper})
    assert load_model(tmp_path / "old", "toy").config == {"width": 3, "depth": 2}


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_of_format_1_names_its_loss_terms_as_format_2_does(nested: bool) -> None:
    old = {"model": {"backbone": {"kind": "FullConv"}, "l1_weight": 0.3}, "frame_size": [64, 64]}
    new = {"model": {"backbone": {"kind": "FullConv"}, "reconstruction": {"l1": 0.3}}, "frame_size": [64, 64]}
    config: dict[str, Any] = {"env": {"fps": 25}, "vqvae": old} if nested else old
    expected: dict[str, Any] = {"env": {"fps": 25}, "vqvae": new} if nested else new
    assert formats.UPGRADES[1](SavedModel(config, {})).config == expected
    assert formats.UPGRADES[1](SavedModel(expected, {})).config == expected


def test_a_world_of_format_3_keeps_its_targets_of_rewards_and_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tiny_world()
    config, tensors = world.config(), model_tensors(world)
    # Settings that came later.
    del config["prior"]["two_hot"], config["prior"]["own_draws"], config["spec"]["missing"]
    monkeypatch.setattr(checkpoint, "MODEL_FORMAT", 3)
    save_model(tmp_path / "old", "world", config, tensors)
    monkeypatch.undo()
    loaded = WorldModel.from_pretrained(tmp_path / "old")
    assert loaded.prior.cfg.two_hot == "symlog"
    assert loaded.fingerprint() == fingerprint(config, tensors) != world.fingerprint()
    loaded.save_pretrained(tmp_path / "new")
    assert WorldModel.from_pretrained(tmp_path / "new").prior.cfg.two_hot == "symlog"


def test_a_world_of_format_2_dreams_as_before_and_cannot_be_guided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tiny_world()
    tensors = {
        name.replace("prior.backbone.", "prior."): value
        for name, value in model_tensors(world).items()
        if name != "prior.backbone.actions.unknown"
    }
    config = world.config()
    known = ("dim", "heads", "layers", "time_every", "window", "mlp_ratio", "corruption")
    config["prior"] = {key: config["prior"][key] for key in known} | {"head": {}}
    monkeypatch.setattr(checkpoint, "MODEL_FORMAT", 2)
    save_model(tmp_path / "old", "world", config, tensors)
    monkeypatch.undo()
    old = WorldModel.from_pretrained(tmp_path / "old")
    frames, actions = noise_frames(2, 3), torch.ones(2, 10, 1)
    assert torch.equal(old.imagine(frames, actions, seed=0).frames, world.imagine(frames, actions, seed=0).frames)
    assert world.prior.can_guide
    assert not old.prior.can_guide


def test_a_world_that_comes_along_keeps_its_fingerprints(tmp_path: Path) -> None:
    world = WorldModel.from_pretrained("carracing")
    assert (world.fingerprint()[:16], world.vqvae.fingerprint()[:16]) == ("83721691c486c082", "e367d45ea6e59f9d")
    world.save_pretrained(tmp_path / "again")
    assert WorldModel.from_pretrained(tmp_path / "again").fingerprint() == world.fingerprint()
