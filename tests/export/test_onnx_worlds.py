"""Exported worlds dream what torch dreams: every head, way in for actions, quantizer, backbone and stride."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from imagined import SPACES
from onnx_worlds import exported, some_actions, world_of
from tiny_models import NOTHING, noise_frames, tiny_vqvae
from tiny_tokenizers import BACKBONES, QUANTIZERS, STRIDES, name_of, noise, small_vqvae

from vqvideo.export import OnnxWorld
from vqvideo.export import noise as noise_numbers
from vqvideo.models.imagination import Imaginer
from vqvideo.models.prior import Sampling
from vqvideo.models.prior.config import ConditioningConfig, HeadConfig, PoolingConfig
from vqvideo.models.prior.sampling import TokenSampler
from vqvideo.models.tokenizer import FactorisedConv

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

GREEDY = Sampling(temperature=0)


def check(world: Imaginer, dreams: OnnxWorld, steps: int = 8, how: Sampling = GREEDY, batch: int = 3) -> None:
    """Codes of frames, greedy codes, rewards, ends, entropies and pictures are those of torch."""
    frames = noise(batch, world.vqvae.clip_length(2))
    acting = some_actions(world, batch, 1 + steps)
    expected = world.imagine(frames, acting, sampling=how)
    found = dreams.imagine(frames.numpy(), acting.numpy(), sampling=how)
    assert np.array_equal(dreams.encode(frames.numpy()), world.vqvae.encode(frames).numpy())
    assert np.array_equal(found.codes, expected.codes.numpy())
    assert np.abs(found.frames.astype(int) - expected.frames.numpy()).max() <= 1
    for name in ("rewards", "termination", "entropy"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name).numpy(), abs=1e-4), name


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that draws tokens in random order draws them from the first to the last, in torch and in ONNX."""
    monkeypatch.setattr(TokenSampler, "order", lambda self, rows, n, device: torch.arange(n).expand(rows, n))
    monkeypatch.setattr(noise_numbers, "noise", lambda keys, steps, count: _ascending(len(keys), count))


def _ascending(rows: int, count: int) -> Any:
    return np.arange(count, dtype=np.int32)[None].repeat(rows, axis=0)


@pytest.mark.parametrize("head", get_args(HeadConfig), ids=name_of)
@pytest.mark.usefixtures("in_order")
def test_heads(head: Any, tmp_path: Path) -> None:
    world = world_of(head=head(layers=2) if hasattr(head, "layers") else head(), layers=2)
    check(world, exported(world, tmp_path / "world"))
    check(world, OnnxWorld(tmp_path / "world"), how=Sampling(temperature=0, guidance=1.5), batch=2)


@pytest.mark.parametrize("conditioning", get_args(ConditioningConfig), ids=name_of)
def test_ways_in_for_the_actions(conditioning: Any, tmp_path: Path) -> None:
    world = world_of(tiny_vqvae(1), conditioning=conditioning())
    check(world, exported(world, tmp_path / "world"))


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=name_of)
def test_quantizers(quantizer: Any, tmp_path: Path) -> None:
    world = world_of(small_vqvae(quantizer=quantizer), layers=2)
    check(world, exported(world, tmp_path / "world"))


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [*((kind, None) for kind in BACKBONES), *((FactorisedConv, s) for s in STRIDES)],
    ids=name_of,
)
def test_backbones_and_strides(backbone: Any, stride: int | None, tmp_path: Path) -> None:
    world = world_of(small_vqvae(backbone, stride=stride), layers=2)
    check(world, exported(world, tmp_path / "world"))


@pytest.mark.parametrize("pooling", get_args(PoolingConfig), ids=name_of)
def test_patches_and_poolings(pooling: Any, tmp_path: Path) -> None:
    world = world_of(pooling=pooling(), patch=2, layers=4, two_hot="symlog")
    check(world, exported(world, tmp_path / "world"))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_action_spaces(space: Any, tmp_path: Path) -> None:
    world = world_of(space=space, layers=2)
    dreams = exported(world, tmp_path / "world")
    assert dreams.action_space == space
    check(world, dreams)


@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_guidance(guidance: float, tmp_path: Path) -> None:
    world = world_of()
    check(world, exported(world, tmp_path / "world"), how=Sampling(temperature=0, guidance=guidance))


def test_long_after_the_window_has_moved_on_greedy_codes_are_those_of_torch(tmp_path: Path) -> None:
    world = world_of(layers=4)
    check(world, exported(world, tmp_path / "world"), steps=100)


def test_logits_are_those_of_torch(tmp_path: Path) -> None:
    world = world_of()
    dreams = exported(world, tmp_path / "world")
    frames, acting = noise_frames(2, 5), some_actions(world, 2, 3)
    state = world.prior.start(world.vqvae.encode(frames), acting[:, :4].unflatten(1, (2, 2)))
    hidden, _ = world.prior._advance(state, acting[:, 4:])
    begun = dreams.start(frames.numpy(), acting[:, :4].numpy())
    inputs = dreams._inputs(begun.codes, acting[:, 4:].numpy(), GREEDY)
    (found,) = dreams._step.session.run(["logits"], inputs | begun.prior)
    assert found == pytest.approx(world.prior.head.logits(hidden.tokens[:, 0]).numpy(), abs=1e-4)


def test_films_without_actions_are_dreamt_for_so_many_steps(tmp_path: Path) -> None:
    world = world_of(space=NOTHING)
    dreams = exported(world, tmp_path / "world")
    expected = world.imagine(noise_frames(1, 3), steps=4, sampling=GREEDY)
    found = dreams.imagine(noise_frames(1, 3).numpy(), steps=4, sampling=GREEDY)
    assert np.array_equal(found.codes, expected.codes.numpy())


@pytest.mark.parametrize("weights", ["fp16", "int8"])
def test_narrower_weights_are_smaller_and_dream_what_their_rounded_world_dreams(weights: Any, tmp_path: Path) -> None:
    from vqvideo.export.weights import rounded

    world = world_of(dim=64)
    full = exported(world, tmp_path / "full")
    dreams = exported(world, tmp_path / "narrow", weights=weights)
    sizes = [dreams._manifest.files["step.onnx"].size, full._manifest.files["step.onnx"].size]
    assert sizes[0] < sizes[1] * {"fp16": 0.8, "int8": 0.65}[weights]
    check(rounded(world, weights), dreams)


def test_a_batch_dreams_what_its_rows_dream_alone_and_a_seed_repeats_it(tmp_path: Path) -> None:
    world = world_of()
    dreams = exported(world, tmp_path / "world")
    frames, acting = noise_frames(3, 3).numpy(), some_actions(world, 3, 6).numpy()
    together = dreams.imagine(frames, acting, seed=5)
    assert np.array_equal(together.codes, dreams.imagine(frames, acting, seed=5).codes)
    assert not np.array_equal(together.codes, dreams.imagine(frames, acting, seed=6).codes)
    for i in range(3):
        alone = dreams.imagine(frames[i : i + 1], acting[i : i + 1], seed=5 + i)
        assert np.array_equal(alone.codes[0], together.codes[i])


def test_a_dream_begins_from_frames_or_from_their_codes(tmp_path: Path) -> None:
    world = world_of()
    frames, acting = noise_frames(2, 5), some_actions(world, 2, 2)
    dreams = exported(world, tmp_path / "world", starts=(frames, acting))
    codes, actions = dreams.starts
    assert np.array_equal(actions, acting.numpy())
    assert np.array_equal(codes, world.vqvae.encode(frames).numpy())
    by_frames, shown = dreams.begin(frames.numpy(), acting.numpy(), seed=0)
    by_codes, again = dreams.begin(codes=codes, actions=actions, seed=0)
    expected = world.begin(frames, acting)[1].numpy()
    assert np.array_equal(shown, again)
    assert np.abs(shown.astype(int) - expected).max() <= 1
    first, second = (dreams.step(state, acting[:, :2])[0] for state in (by_frames, by_codes))
    assert np.array_equal(first.codes, second.codes)


def test_steps_do_not_change_the_state_that_they_go_on_from(tmp_path: Path) -> None:
    world = world_of()
    dreams = exported(world, tmp_path / "world")
    state = dreams.start(noise_frames(1, 1).numpy(), seed=0)
    acting = some_actions(world, 1, 1).numpy()
    first, _ = dreams.step(state, acting)
    second, _ = dreams.step(state, acting)
    assert np.array_equal(first.frames, second.frames)


def test_other_actions_make_other_dreams(tmp_path: Path) -> None:
    dreams = exported(world_of(), tmp_path / "world")
    state = dreams.start(noise_frames(1, 1).numpy(), seed=0)
    steps = [dreams.step(state, np.full((1, 2, 1), value))[0] for value in (0.0, 4.0)]
    assert abs(float(steps[0].reward[0] - steps[1].reward[0])) > 1e-3
