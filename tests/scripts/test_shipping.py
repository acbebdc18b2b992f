"""Shipped worlds: half the bytes, the same dreams, clips to start from, and a card that says what was measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from processes import SCRIPTS
from stores import flip
from tiny_models import SIZE, make_spec, noise_frames, same_tensors, tiny_prior, tiny_store, tiny_world
from tiny_tokenizers import QUANTIZERS, name_of, small_backbone, small_quantizer

sys.path.insert(0, str(SCRIPTS))

from vqvideo import cli, pretrained
from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.models.tokenizer import VQVAEConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts import ship_world, shipping
from vqvideo.scripts.shipping import MAX_BYTES, export_world, folder_bytes, half_tensors, rounded, rounding_loss
from vqvideo.storage import hub
from vqvideo.storage.checkpoint import model_tensors, read_tensors
from vqvideo.world import EnvFacts, WorldModel

SHIPPED = {
    folder.name: folder for folder in pretrained.worlds().values() if folder.parent == Path(pretrained.__file__).parent
}


class Shipment(NamedTuple):
    """A world that went through scripts/ship_world.py, and what it was made from."""

    world: WorldModel
    store: Store
    folder: Path
    options: ship_world.Options

    def loaded(self) -> WorldModel:
        return WorldModel.from_pretrained(self.folder)


@pytest.fixture(scope="module")
def shipment(tmp_path_factory: pytest.TempPathFactory) -> Shipment:
    """The shipped world TinyWorld in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    world, store = tiny_world(), tiny_store(home / "data", episodes=9)
    world.save_pretrained(home / "runs" / "tiny" / "world")
    (home / "figures.json").write_text(json.dumps({"hardware": "an abacus", "tokenizer": {"psnr_db": 12.345}}))
    log = {"step": 7, "split": "held_out", "seconds": 3.5}
    for stage in ("vqvae", "prior"):
        (home / "runs" / "tiny" / stage).mkdir()
        (home / "runs" / "tiny" / stage / "metrics.jsonl").write_text(json.dumps(log) + "\n")
    (home / "runs" / "tiny" / "prior" / "config.yaml").write_text("name: tiny\nprior: {latent_steps: 9}\n")
    options = ship_world.Options(
        world=home / "runs" / "tiny" / "world",
        store=store.path,
        out=home / "worlds" / "tinyworld",
        clips=4,
        length=5,
        evaluate=4,
        context=2,
        horizon=3,
        threads=1,
        card_figures=home / "figures.json",
    )
    return Shipment(world, store, ship_world.ship(options), options)


@pytest.fixture(autouse=True)
def _found(shipment: Shipment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQVIDEO_WORLDS", str(shipment.folder.parent))


def starts_of(store: Store, length: int = 9) -> Clips:
    return Clips(store, "held_out", length)


# ---------------------------------------------------------------- half precision


def test_parameters_take_half_the_bytes_and_buffers_stay_exact(shipment: Shipment) -> None:
    stored, own = read_tensors(shipment.folder / "model.safetensors"), model_tensors(shipment.world)
    learned = {name for name, _ in shipment.world.named_parameters()}
    assert {stored[name].dtype for name in learned} == {torch.float16}
    buffers = own.keys() - learned
    assert {"vqvae.variance", "vqvae.quantizer.codebook", "vqvae.quantizer.ema_sum"} <= buffers
    assert same_tensors({name: stored[name] for name in buffers}, {name: own[name] for name in buffers})
    assert all(stored[name].dtype == own[name].dtype for name in buffers)


def test_a_shipped_world_computes_in_fp32_with_the_rounded_weights(shipment: Shipment) -> None:
    loaded = shipment.loaded()
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert same_tensors(model_tensors(loaded), model_tensors(rounded(shipment.world)))
    for name, parameter in shipment.world.named_parameters():
        torch.testing.assert_close(loaded.get_parameter(name), parameter, rtol=2**-11, atol=1e-7)


def test_the_prior_of_a_shipped_world_knows_the_rounded_tokenizer(shipment: Shipment) -> None:
    loaded = shipment.loaded()
    assert loaded.vqvae.fingerprint() != shipment.world.vqvae.fingerprint(), "rounding changed nothing here"
    assert loaded.prior.spec.tokenizer == loaded.vqvae.fingerprint()
    assert loaded.fingerprint() == rounded(shipment.world).fingerprint()
    assert shipment.world.prior.spec.tokenizer == shipment.world.vqvae.fingerprint(), "the original was changed"


def test_shipping_what_was_shipped_changes_nothing(shipment: Shipment) -> None:
    assert rounded(shipment.loaded()).fingerprint() == shipment.loaded().fingerprint()


@pytest.mark.parametrize("kind", QUANTIZERS, ids=name_of)
def test_worlds_of_every_quantizer_can_be_shipped(kind: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vqvae = VQVAE(VQVAEConfig(small_backbone(), small_quantizer(kind)), (SIZE, SIZE))
    vqvae.initialize(noise_frames(8, 5))
    vqvae = vqvae.eval().requires_grad_(False)
    spec = make_spec(
        grid=vqvae.grid,
        codebook_size=vqvae.quantizer.codebook_size,
        code_dim=vqvae.codebook.shape[1],
        tokenizer=vqvae.fingerprint(),
    )
    world = WorldModel(vqvae, tiny_prior(spec, vqvae.codebook), EnvFacts("Tiny-v0", 10.0, 1)).eval()
    shipped, clips = rounded(world), starts_of(tiny_store(tmp_path / "data", episodes=3))
    export_world(shipped, tmp_path / "world", clips, [0], "card")
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    frames = noise_frames(2, 5, seed=1)
    assert torch.equal(loaded.vqvae.encode(frames), shipped.vqvae.encode(frames))
    assert rounding_loss(world, shipped, clips, [0, 1]).same_codes > 0.9


def test_a_weight_beyond_half_precision_is_refused() -> None:
    world = tiny_world()
    next(world.prior.parameters()).data.flatten()[0] = 1e6
    with pytest.raises(InputError, match=r"prior\..*: a weight is not finite in half precision, which reaches 65504"):
        half_tensors(world)


def test_the_loss_is_measured_between_two_worlds(shipment: Shipment) -> None:
    clips = starts_of(shipment.store)
    nothing = rounding_loss(shipment.world, shipment.world, clips, [0, 5, 9])
    assert (nothing.clips, nothing.same_codes) == (3, 1.0)
    assert (nothing.psnr_db, nothing.token_nats) == (nothing.psnr_rounded_db, nothing.token_nats_rounded)
    other = rounding_loss(shipment.world, tiny_world(seed=1), clips, [0, 5, 9])
    assert other.same_codes < 0.9
    assert other.psnr_db != other.psnr_rounded_db
    assert other.token_nats != other.token_nats_rounded


# ---------------------------------------------------------------- found by name


@pytest.mark.parametrize("name", ["tinyworld", "TinyWorld", "tiny_world", "Tiny-World", "TINYWORLD"])
def test_a_shipped_world_is_found_by_its_name_without_a_network(
    shipment: Shipment, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("the network was asked"))
    assert WorldModel.from_pretrained(name).fingerprint() == shipment.loaded().fingerprint()


def test_a_local_folder_of_that_name_wins(shipment: Shipment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny_world(seed=3)
    own.save_pretrained(tmp_path / "tinyworld")
    monkeypatch.chdir(tmp_path)
    assert WorldModel.from_pretrained("tinyworld").fingerprint() == own.fingerprint()
    assert WorldModel.from_pretrained("TinyWorld").fingerprint() == shipment.loaded().fingerprint()


def test_an_unknown_name_is_answered_with_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(InputError, match=r"TinyWrld: no such folder, expected a saved world .* did you mean tinyworld"):
        WorldModel.from_pretrained("TinyWrld")
    with pytest.raises(InputError, match=r"no world called 'moon' is shipped: known: .*tinyworld"):
        pretrained.start_clips("moon")


def test_a_path_is_no_name() -> None:
    assert pretrained.find("./tinyworld") is None
    assert pretrained.find("") is None


def test_a_tokenizer_is_not_what_is_shipped() -> None:
    with pytest.raises(InputError, match="tinyworld: no such folder, expected a saved vqvae"):
        VQVAE.from_pretrained("tinyworld")


# ---------------------------------------------------------------- clips to start from


def test_start_clips_are_held_out_pieces_of_the_store(shipment: Shipment) -> None:
    clips = starts_of(shipment.store)
    picks = clips.spread(4).tolist()
    frames, actions, rewards = pretrained.start_clips("TinyWorld")
    assert (frames.dtype, frames.shape) == (torch.uint8, (4, 9, 3, SIZE, SIZE))
    for i, pick in enumerate(picks):
        assert torch.equal(frames[i], clips[pick]["frames"])
        assert torch.equal(actions[i], clips[pick]["actions"])
        assert torch.equal(rewards[i], clips[pick]["rewards"])
    held_out = {entry.index: shipment.store.episode(entry) for entry in shipment.store.split("held_out")}
    for i, start in enumerate(shipping.origins(clips, picks)):
        whole = held_out[start.episode]
        assert whole.seed == start.seed
        assert np.array_equal(frames[i].permute(0, 2, 3, 1).numpy(), whole.frames[start.first : start.first + 9])


def test_start_clips_are_a_store_to_dream_from(shipment: Shipment) -> None:
    store = pretrained.start_store("tinyworld")
    assert store.meta == shipment.store.meta
    assert len(store.split("held_out")) == len(store.entries) == 4
    store.verify()
    frames, actions, _ = pretrained.start_clips("tinyworld", length=5)
    world = WorldModel.from_pretrained("tinyworld")
    assert frames.shape[:2] == (4, 5)
    dream = world.imagine(frames, torch.cat([actions, actions], dim=1), seed=0)
    assert dream.frames.shape[:2] == (4, 4)


@pytest.mark.parametrize("length", [0, 10])
def test_start_clips_of_another_length_than_they_have_are_refused(length: int) -> None:
    with pytest.raises(InputError, match=f"no start clip of tinyworld has {length} frames, expected 1 to 9"):
        pretrained.start_clips("tinyworld", length=length)


# ---------------------------------------------------------------- the folder


def exported(folder: Path, data: Path, seed: int = 0, clips: int = 2) -> WorldModel:
    store = Store.open(data) if data.is_dir() else tiny_store(data)
    world, starts = rounded(tiny_world(seed=seed)), starts_of(store)
    export_world(world, folder, starts, starts.spread(clips).tolist(), "card")
    return world


def test_a_newer_world_replaces_the_older_one_whole(tmp_path: Path) -> None:
    exported(tmp_path / "world", tmp_path / "data", clips=4)
    newer = exported(tmp_path / "world", tmp_path / "data", seed=1, clips=2)
    assert WorldModel.from_pretrained(tmp_path / "world").fingerprint() == newer.fingerprint()
    assert len(Store.open(tmp_path / "world" / "starts").entries) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"world", "data"}


def test_what_is_too_large_is_refused_and_the_older_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = exported(tmp_path / "world", tmp_path / "data")
    monkeypatch.setattr(shipping, "MAX_BYTES", folder_bytes(tmp_path / "world") - 1)
    with pytest.raises(InputError, match=r"would have .* MiB \(weights .*, start clips .*\), expected at most"):
        exported(tmp_path / "world", tmp_path / "data", seed=1)
    assert WorldModel.from_pretrained(tmp_path / "world").fingerprint() == older.fingerprint()
    assert {path.name for path in tmp_path.iterdir()} == {"world", "data"}


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("once upon a time")
    with pytest.raises(InputError, match="thesis exists and is not a model folder"):
        exported(tmp_path / "thesis", tmp_path / "data")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


@pytest.mark.parametrize("name", ["model.safetensors", "starts/episodes/000000.safetensors"])
def test_damage_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    exported(tmp_path / "world", tmp_path / "data")
    file = tmp_path / "world" / name
    flip(file, file.stat().st_size // 2)
    monkeypatch.setenv("VQVIDEO_WORLDS", str(tmp_path))
    with pytest.raises(InputError, match="damaged"):
        _ = WorldModel.from_pretrained("world"), pretrained.start_clips("world")


# ---------------------------------------------------------------- the card


def test_the_card_says_what_was_measured_and_on_what(shipment: Shipment) -> None:
    card = (shipment.folder / "README.md").read_text()
    clips = starts_of(shipment.store)
    loss = rounding_loss(shipment.world, shipment.loaded(), starts_of(shipment.store), clips.spread(4).tolist())
    for fact in (
        "license: mit",
        'WorldModel.from_pretrained("tinyworld")',
        "recorded as `TinyWorld`",
        "6 episodes, 144 steps",
        "3 episodes, 72 steps (every 5th episode)",
        "| policy | `random` |",
        "accelerate launch scripts/train_prior.py --name tiny",
        "| tokenizer | 7 steps, 4 s |",
        "| hardware | an abacus |",
        "latent_steps: 9",
        "| tokenizer.psnr_db | 12.345 |",
        f"{loss.same_codes:.3%}",
        "4 clips of 9 frames",
        "terminations mean nothing",
        "## Licence",
    ):
        assert fact in card, fact


def test_the_snippet_of_the_card_runs(shipment: Shipment) -> None:
    card = (shipment.folder / "README.md").read_text()
    scope: dict[str, object] = {}
    exec(card.split("```python\n")[1].split("```")[0], scope)
    assert scope["dream"].frames.shape == (4, 4, 3, SIZE, SIZE)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": 0}, "--clips is 0; it must be at least 1"),
        ({"length": 2}, "--length is 2; it must be at least 3"),
        ({"config": Path("gone.yaml")}, "no configuration file gone.yaml"),
        ({"world": Path("gone")}, "gone: no such folder, expected a saved world"),
    ],
)
def test_a_wrong_option_is_named(shipment: Shipment, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ship_world.ship(replace(shipment.options, **changes))


def test_nothing_to_ship_ends_the_command_with_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ship_world.py", "--threads", "1"])
    with pytest.raises(SystemExit, match="2"):
        cli.run(ship_world.main)
    assert "error: runs/car_racing/world: no such folder, expected a saved world" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what is really shipped


def test_all_that_is_shipped_is_small() -> None:
    assert sum(map(folder_bytes, SHIPPED.values())) <= MAX_BYTES


@pytest.mark.parametrize("name", SHIPPED)
def test_a_world_in_the_package_is_whole_and_dreams(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VQVIDEO_WORLDS")
    world, store = WorldModel.from_pretrained(name), pretrained.start_store(name)
    store.verify()
    assert not store.split("train")
    assert store.meta.env_id == world.env.env_id
    frames, actions, _ = pretrained.start_clips(name, length=1 + 4 * world.stride)
    seen = 1 + 2 * world.stride
    dream = world.imagine(frames[:2, :seen], actions[:2], seed=0)
    assert dream.frames.shape[:2] == (2, 2 * world.stride)
    assert dream.frames.float().std() > 1
    assert len(starts_of(store, 1 + 18 * world.stride)) >= 4, "rollout.py wants clips of 3 + 16 latent steps"


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_of_a_world_in_the_package_is_complete(name: str) -> None:
    card = (SHIPPED[name] / "README.md").read_text()
    for fact in ("train_vqvae.py", "train_prior.py", "## Figures", "The true actions are worth", "MIT"):
        assert fact in card, fact
    assert "not written down" not in card, "say with --hardware what it was trained on"
