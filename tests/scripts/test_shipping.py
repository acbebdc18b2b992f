"""Shipped worlds: half the bytes, the same dreams, clips to start from, and a card that says what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tiny_models import SIZE, make_spec, noise_frames, same_tensors, tiny_prior, tiny_store, tiny_world
from tiny_tokenizers import QUANTIZERS, name_of, small_backbone, small_quantizer

from vqvideo import pretrained
from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.models.tokenizer import VQVAEConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts import ship_world, shipment
from vqvideo.scripts.shipment import export_world, folder_bytes, origin, quality, rounded
from vqvideo.storage import hub
from vqvideo.storage.checkpoint import model_tensors, read_tensors
from vqvideo.world import EnvFacts, WorldModel

SHIPPED = {folder.name: folder for folder in Path(pretrained.__file__).parent.iterdir() if (folder / "starts").is_dir()}


class Shipped(NamedTuple):
    """A world that went through scripts/ship_world.py, and what it was made from."""

    world: WorldModel
    store: Store
    folder: Path
    options: ship_world.Options

    def loaded(self) -> WorldModel:
        return WorldModel.from_pretrained(self.folder)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
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
    folders = {"world": home / "runs" / "tiny" / "world", "store": store.path, "out": home / "worlds" / "tinyworld"}
    sizes = {"clips": 4, "length": 5, "evaluate": 4, "context": 2, "horizon": 3, "threads": 1}
    options = ship_world.Options(**folders, **sizes, card_figures=home / "figures.json")
    return Shipped(world, store, ship_world.ship(options), options)


@pytest.fixture(autouse=True)
def _found(shipped: Shipped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQVIDEO_WORLDS", str(shipped.folder.parent))


def starts_of(store: Store, length: int = 9) -> Clips:
    return Clips(store, "held_out", length)


# ---------------------------------------------------------------- half precision


def test_parameters_take_half_the_bytes_and_buffers_stay_exact(shipped: Shipped) -> None:
    stored, own = read_tensors(shipped.folder / "model.safetensors"), model_tensors(shipped.world)
    learned = {name for name, _ in shipped.world.named_parameters()}
    assert {stored[name].dtype for name in learned} == {torch.float16}
    buffers = own.keys() - learned
    assert {"vqvae.variance", "vqvae.quantizer.codebook", "vqvae.quantizer.ema_sum"} <= buffers
    assert same_tensors({name: stored[name] for name in buffers}, {name: own[name] for name in buffers})
    assert all(stored[name].dtype == own[name].dtype for name in buffers)


def test_a_shipped_world_computes_in_fp32_with_the_rounded_weights_and_its_prior_knows_them(shipped: Shipped) -> None:
    loaded, again = shipped.loaded(), rounded(shipped.world)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert same_tensors(model_tensors(loaded), model_tensors(again))
    own = dict(shipped.world.named_parameters())
    torch.testing.assert_close(dict(loaded.named_parameters()), own, rtol=2**-11, atol=1e-7)
    assert loaded.vqvae.fingerprint() != shipped.world.vqvae.fingerprint(), "rounding changed nothing here"
    assert loaded.prior.spec.tokenizer == loaded.vqvae.fingerprint()
    assert loaded.fingerprint() == again.fingerprint() == rounded(loaded).fingerprint()
    assert shipped.world.prior.spec.tokenizer == shipped.world.vqvae.fingerprint(), "the original was changed"


@pytest.mark.parametrize("kind", QUANTIZERS, ids=name_of)
def test_worlds_of_every_quantizer_can_be_shipped(kind: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vqvae = VQVAE(VQVAEConfig(small_backbone(), small_quantizer(kind)), (SIZE, SIZE))
    vqvae.initialize(noise_frames(8, 5))
    vqvae = vqvae.eval().requires_grad_(False)
    k, d = vqvae.quantizer.codebook_size, vqvae.codebook.shape[1]
    spec = make_spec(grid=vqvae.grid, codebook_size=k, code_dim=d, tokenizer=vqvae.fingerprint())
    world = WorldModel(vqvae, tiny_prior(spec, vqvae.codebook), EnvFacts("Tiny-v0", 10.0, 1)).eval()
    half, clips = rounded(world), starts_of(tiny_store(tmp_path / "data", episodes=3))
    export_world(half, tmp_path / "world", clips, [0], "card")
    loaded = WorldModel.from_pretrained(tmp_path / "world")
    frames = noise_frames(2, 5, seed=1)
    assert torch.equal(loaded.vqvae.encode(frames), half.vqvae.encode(frames))
    assert (world.vqvae.encode(frames) == half.vqvae.encode(frames)).float().mean() > 0.9


def test_a_weight_beyond_half_precision_is_refused() -> None:
    world = tiny_world()
    next(world.prior.parameters()).data.flatten()[0] = 1e6
    with pytest.raises(InputError, match=r"prior\..*: a weight is not finite in half precision, which reaches 65504"):
        shipment.half_tensors(world)


# ---------------------------------------------------------------- found by name


@pytest.mark.parametrize("name", ["tinyworld", "TinyWorld", "tiny_world", "Tiny-World", "TINYWORLD"])
def test_a_shipped_world_is_found_by_its_name_without_a_network(
    shipped: Shipped, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("the network was asked"))
    assert WorldModel.from_pretrained(name).fingerprint() == shipped.loaded().fingerprint()


def test_a_local_folder_of_that_name_wins(shipped: Shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny_world(seed=3)
    own.save_pretrained(tmp_path / "tinyworld")
    monkeypatch.chdir(tmp_path)
    assert WorldModel.from_pretrained("tinyworld").fingerprint() == own.fingerprint()
    assert WorldModel.from_pretrained("TinyWorld").fingerprint() == shipped.loaded().fingerprint()


def test_an_unknown_name_is_answered_with_the_shipped_ones_and_a_path_is_no_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(InputError, match=r"TinyWrld: no such folder, expected a saved world .* did you mean tinyworld"):
        WorldModel.from_pretrained("TinyWrld")
    with pytest.raises(InputError, match=r"no world called 'moon' is shipped: known: .*tinyworld"):
        pretrained.start_clips("moon")
    with pytest.raises(InputError, match="tinyworld: no such folder, expected a saved vqvae"):
        VQVAE.from_pretrained("tinyworld")
    assert pretrained.find("./tinyworld") is pretrained.find("") is None


# ---------------------------------------------------------------- clips to start from


def test_start_clips_are_held_out_pieces_of_the_store(shipped: Shipped) -> None:
    clips = starts_of(shipped.store)
    frames, actions, rewards = pretrained.start_clips("TinyWorld")
    assert (frames.dtype, frames.shape) == (torch.uint8, (4, 9, 3, SIZE, SIZE))
    for i, pick in enumerate(clips.spread(4).tolist()):
        assert torch.equal(frames[i], clips[pick]["frames"])
        assert torch.equal(actions[i], clips[pick]["actions"])
        assert torch.equal(rewards[i], clips[pick]["rewards"])
        entry, first = origin(clips, pick)
        whole = shipped.store.episode(entry)
        assert (entry.split, entry.seed) == ("held_out", whole.seed)
        assert np.array_equal(frames[i].permute(0, 2, 3, 1).numpy(), whole.frames[first : first + 9])


def test_start_clips_are_a_store_to_dream_from(shipped: Shipped) -> None:
    store = pretrained.start_store("tinyworld")
    assert store.meta == shipped.store.meta
    assert len(store.split("held_out")) == len(store.entries) == 4
    store.verify()
    frames, actions, _ = pretrained.start_clips("tinyworld", length=5)
    dream = shipped.loaded().imagine(frames, torch.cat([actions, actions], dim=1), seed=0)
    assert dream.frames.shape[:2] == (4, 4)
    for length in (0, 10):
        with pytest.raises(InputError, match=f"no start clip of tinyworld has {length} frames, expected 1 to 9"):
            pretrained.start_clips("tinyworld", length=length)


# ---------------------------------------------------------------- the folder


def exported(folder: Path, data: Path, seed: int = 0, clips: int = 2) -> WorldModel:
    store = Store.open(data) if data.is_dir() else tiny_store(data)
    world, starts = rounded(tiny_world(seed=seed)), starts_of(store)
    export_world(world, folder, starts, starts.spread(clips).tolist(), "card")
    return world


def test_a_newer_world_replaces_the_older_one_whole_unless_it_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(tmp_path / "world", tmp_path / "data", clips=4)
    newer = exported(tmp_path / "world", tmp_path / "data", seed=1, clips=2)
    monkeypatch.setattr(shipment, "MAX_BYTES", folder_bytes(tmp_path / "world") - 1)
    with pytest.raises(InputError, match=r"would have .* MiB \(weights .*, start clips .*\), expected at most"):
        exported(tmp_path / "world", tmp_path / "data", seed=2)
    assert WorldModel.from_pretrained(tmp_path / "world").fingerprint() == newer.fingerprint()
    assert len(Store.open(tmp_path / "world" / "starts").entries) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"world", "data"}


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("once upon a time")
    with pytest.raises(InputError, match="thesis exists and is not a model folder"):
        exported(tmp_path / "thesis", tmp_path / "data")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


# ---------------------------------------------------------------- the card


def test_the_card_says_what_was_measured_and_its_snippet_runs(shipped: Shipped) -> None:
    card = (shipped.folder / "README.md").read_text()
    clips = starts_of(shipped.store)
    full, half = (quality(world, clips, clips.spread(4).tolist()) for world in (shipped.world, shipped.loaded()))
    for fact in (
        "license: mit",
        'WorldModel.from_pretrained("tinyworld")',
        "# tinyworld: a world model of TinyWorld",
        "train: 6 episodes, 144 steps",
        "held_out: 3 episodes, 72 steps",
        "policy: random",
        "accelerate launch scripts/train_prior.py --name tiny",
        "hardware: an abacus",
        "tokenizer:\n  step: 7\n  seconds: 3.5",
        "latent_steps: 9",
        "psnr_db: 12.345",
        shipment.rounding_text(full, half),
        "4 clips of 9 frames",
        "The environment ended 0 of the episodes",
        "## Licence",
    ):
        assert fact in card, fact
    scope: dict[str, Any] = {}
    exec(card.split("```python\n")[1].split("```")[0], scope)
    assert scope["dream"].frames.shape == (4, 4, 3, SIZE, SIZE)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_world_in_the_package_is_whole_and_dreams(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VQVIDEO_WORLDS")
    world, store = WorldModel.from_pretrained(name), pretrained.start_store(name)
    store.verify()
    assert (store.split("train"), store.meta.env_id) == ((), world.env.env_id)
    frames, actions, _ = pretrained.start_clips(name, length=1 + 4 * world.stride)
    dream = world.imagine(frames[:2, : 1 + 2 * world.stride], actions[:2], seed=0)
    assert dream.frames.shape[:2] == (2, 2 * world.stride)
    assert dream.frames.float().std() > 1
    assert len(starts_of(store, 1 + 18 * world.stride)) >= 4, "rollout.py wants clips of 3 + 16 latent steps"
    assert sum(map(folder_bytes, SHIPPED.values())) <= shipment.MAX_BYTES, "everyone who installs downloads them"
    card = (SHIPPED[name] / "README.md").read_text()
    assert all(fact in card for fact in ("train_vqvae.py", "train_prior.py", "## Figures", "## Limits", "MIT"))
    assert "not written down" not in card, "say with --hardware what it was trained on"
