"""The world model on disk: what is saved dreams on as before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imagined import same
from tiny_models import FIVE, STEERING, noise_frames, tiny_world

from vqvideo.errors import InputError
from vqvideo.experiment.drawing import Drawing
from vqvideo.experiment.finding import Source
from vqvideo.models.prior import Sampling
from vqvideo.models.quantizers import EMAVQConfig
from vqvideo.models.tokenizer import FactorisedConv, ReconstructionConfig
from vqvideo.models.tokenizer.vqvae import VQVAEConfig
from vqvideo.storage.checkpoint import model_tensors, save_model
from vqvideo.world import WorldModel


@pytest.mark.parametrize(("stride", "space"), [(1, STEERING), (2, FIVE)])
def test_a_saved_world_dreams_the_same(tmp_path: Path, stride: int, space: object) -> None:
    world = tiny_world(stride, space)  # type: ignore[arg-type]
    world.save_pretrained(tmp_path / "world")
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    actions = np.full((1, 6 * stride, world.action_space.size), 1.0)
    frames = noise_frames(1, 1 + 2 * stride)
    assert same(loaded.imagine(frames, actions, seed=1), world.imagine(frames, actions, seed=1))
    assert loaded.fingerprint() == world.fingerprint()
    assert (loaded.env, loaded.prior.spec, loaded.prior.cfg) == (world.env, world.prior.spec, world.prior.cfg)


def test_a_world_draws_as_it_was_trained_for_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    world, frames, actions = tiny_world(), noise_frames(1, 3), np.full((1, 12, 1), 1.0)
    plain = world.fingerprint()
    world.sampling = Sampling(temperature=0)
    assert world.fingerprint() != plain
    world.save_pretrained(tmp_path / "world")
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    likeliest = world.imagine(frames, actions, sampling=Sampling(temperature=0), seed=1)
    assert same(loaded.imagine(frames, actions, seed=2), likeliest)
    assert not same(loaded.imagine(frames, actions, sampling=Sampling(top_p=1.0), seed=1), likeliest)
    envs = loaded.as_env(1, starts=(frames, actions[:, :2]), horizon=6)
    assert envs.dreams.sampling == Sampling(temperature=0)
    assert (Drawing().of(loaded), Drawing(top_p=0.5).of(loaded)) == (
        Sampling(temperature=0),
        Sampling(temperature=0, top_p=0.5),
    )


@pytest.mark.parametrize("option", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"guidance": -1.0}])
def test_drawing_in_a_way_that_is_none_is_refused_before_a_world_is_looked_for(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(option))):
        Drawing(**option)


def test_a_world_that_looks_far_back_is_loaded(tmp_path: Path) -> None:
    """No tensor is as large as its window."""
    world = tiny_world(window=2049)
    world.save_pretrained(tmp_path / "world")
    assert WorldModel.from_pretrained(tmp_path / "world").prior.cfg.window == 2049


def test_a_loaded_world_is_in_eval_mode_and_frozen(tmp_path: Path) -> None:
    tiny_world().train().requires_grad_(True).save_pretrained(tmp_path / "world")
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_folder_holds_json_safetensors_and_a_card(tmp_path: Path) -> None:
    tiny_world().save_pretrained(tmp_path / "world")
    names = {"config.json", "model.safetensors", "manifest.json", "README.md"}
    assert {path.name for path in (tmp_path / "world").iterdir()} == names
    config = json.loads((tmp_path / "world" / "config.json").read_text())
    assert (config["format"], config["format_version"]) == ("vqvideo-world", 4)
    assert config["env"] == {"env_id": "Tiny-v0", "fps": 10.0, "action_repeat": 1}


def test_a_world_whose_replacement_was_interrupted_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world = tiny_world()
    world.save_pretrained("runs/car_racing/world")
    Path("runs/car_racing/world").rename("runs/car_racing/.tmp-old-12ab34cd-world")
    assert Source().find_world().fingerprint() == world.fingerprint()


def test_defaults_and_settings_of_a_later_version_make_no_stranger_of_a_world_or_of_its_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tiny_world()
    prints = world.fingerprint(), world.vqvae.fingerprint()
    world.save_pretrained(tmp_path / "world")
    config = WorldModel.config
    monkeypatch.setattr(WorldModel, "config", lambda self: config(self) | {"later": 1})
    monkeypatch.setattr(EMAVQConfig.__dataclass_fields__["decay"], "default", 0.5)
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    assert (loaded.fingerprint(), loaded.vqvae.fingerprint()) == prints
    assert loaded.own_identity() != loaded.identity()


def test_a_world_knows_what_nobody_recorded_and_one_that_lacks_nothing_is_no_stranger(tmp_path: Path) -> None:
    world = tiny_world()
    assert "missing" not in world.own_identity()["spec"]
    world.prior.spec = replace(world.prior.spec, missing=("ends",))
    world.save_pretrained(tmp_path / "world")
    spec = WorldModel.from_pretrained(tmp_path / "world").prior.spec
    assert (spec.missing, spec.knows_rewards, spec.knows_ends) == (("ends",), True, False)


def test_a_setting_added_later_does_not_make_a_stranger_of_a_tokenizer() -> None:
    config = VQVAEConfig(backbone=FactorisedConv(strides=(1, 8, 8), widths=(8, 8)))
    identity = config.build((64, 64)).identity()
    assert identity["model"] == {
        "kind": "VQVAE",
        "backbone": {"kind": "FactorisedConv", "strides": [1, 8, 8], "widths": [8, 8]},
        "quantizer": {"kind": "EMAVQ"},
    }
    otherwise_trained = replace(config, reconstruction=ReconstructionConfig(worst=1.0))
    assert otherwise_trained.build((64, 64)).identity() == identity


@pytest.mark.parametrize("part", ["vqvae", "prior", "spec", "env"])
def test_a_world_without_one_of_its_parts_is_refused_with_the_name_of_the_file(tmp_path: Path, part: str) -> None:
    world = tiny_world()
    config = {name: value for name, value in world.config().items() if name != part}
    save_model(tmp_path / "world", world.kind, config, model_tensors(world))
    with pytest.raises(InputError, match=rf"config.json: nothing can be built from it \(KeyError: '{part}'\)"):
        WorldModel.from_pretrained(tmp_path / "world")
