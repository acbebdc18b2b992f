"""Worlds of labels: what is imagined is judged by a classifier, and looked for among what the world was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from label_worlds import label_store, label_world
from mnist_files import squares
from torch import Tensor

from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.evaluation import labels as evaluation
from vqvideo.evaluation.label_classifier import Labelled, labelled_frames, trained_classifier
from vqvideo.evaluation.label_pictures import code_map, label_sheet
from vqvideo.evaluation.labels import evaluate_labels, nearest
from vqvideo.models.prior import Sampling
from vqvideo.world import WorldModel


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return label_store(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def world(store: Store) -> WorldModel:
    return label_world(store)


def with_dreams(monkeypatch: pytest.MonkeyPatch, frames: Tensor) -> None:
    monkeypatch.setattr(evaluation, "imagined_by_label", lambda *_: frames)


def drawn(labels: Tensor) -> Tensor:
    """(n, 3, 28, 28): what `squares` draws for labels."""
    rows = torch.arange(28)[None, :, None] < 2 + 2 * labels[:, None, None]
    return torch.where(rows.expand(-1, -1, 28), 200, 20).to(torch.uint8)[:, None].expand(-1, 3, -1, -1)


def test_a_world_that_imagines_what_it_is_asked_for_is_recognised(
    store: Store, world: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = torch.arange(10)[:, None].expand(-1, 4).clone()
    right[3] = 7
    with_dreams(monkeypatch, drawn(right.flatten()).unflatten(0, (10, 4)))
    report = evaluate_labels(world, store, per_label=4, epochs=6, columns=2)
    assert report.real == 1
    assert report.recognised.tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    assert report.distance == pytest.approx(0, abs=1e-3), "these are copies, and the distance says so"
    assert report.distance_of_real > report.distance
    assert report.held_out == 99
    assert "36 %" not in report.table()
    assert "90.0" in report.table()
    assert json.loads(json.dumps(report.to_json()))["recognised"] == pytest.approx(0.9)


def test_equal_seeds_find_equal_figures(store: Store, world: WorldModel) -> None:
    one, two = (evaluate_labels(world, store, per_label=3, epochs=1, columns=3).to_json() for _ in range(2))
    assert one == two
    assert one["mse"] > 0
    sheet = label_sheet(evaluate_labels(world, store, per_label=3, epochs=1, columns=3).shown)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 15 * 56


def test_frames_of_a_split_have_the_labels_of_the_actions_that_lead_to_them(store: Store) -> None:
    frames, labels = labelled_frames(store, "held_out")
    images, known = squares(100, seed=1)
    np.testing.assert_array_equal(frames[:, 0].numpy(), images[1:])
    np.testing.assert_array_equal(labels.numpy(), known[1:])


def test_the_nearest_of_many_is_found_with_its_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    among = torch.randint(256, (5000, 3, 4, 4), generator=generator).to(torch.uint8)
    frames = among[[4999, 17]].clone()
    frames[1, 0, 0, 0] ^= 128
    index, away = nearest(frames, among)
    assert index.tolist() == [4999, 17]
    assert away.tolist() == pytest.approx([0, 128 / 255 / 48**0.5], abs=1e-3)


def test_a_classifier_of_equal_seed_is_the_same_and_leaves_the_randomness_of_others_alone() -> None:
    data = Labelled(drawn(torch.arange(100) % 10), torch.arange(100) % 10)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two = (trained_classifier(data, 10, 1, 0, torch.device("cpu")) for _ in range(2))
    assert torch.rand(1) == expected
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_equal_codes_have_equal_colours_and_others_do_not() -> None:
    colours = code_map(torch.arange(128).view(1, 8, 16))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 120
    assert (code_map(torch.full((1, 2, 2), 5)) == colours[0, 0, 5]).all()


def test_what_has_no_label_per_frame_is_refused(
    store: Store, world: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(world), "stride", 2)
    with pytest.raises(InputError, match="a latent step of this world is 2 frames, expected one"):
        evaluate_labels(world, store)


def test_imagined_frames_follow_seed_and_label(store: Store, world: WorldModel) -> None:
    contexts = labelled_frames(store, "held_out").frames
    one, two, other = (evaluation.imagined_by_label(world, contexts, 10, 2, Sampling(), seed) for seed in (0, 0, 1))
    assert one.shape == (10, 2, 3, 28, 28)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_actions_that_are_no_labels_are_refused(tmp_path: Path, world: WorldModel) -> None:
    from gymnasium import spaces
    from stores import make_meta

    from vqvideo.data.store import StoreWriter
    from vqvideo.spaces import ActionSpace

    meta = make_meta(action_space=ActionSpace.from_gymnasium(spaces.Box(-1.0, 1.0, (2,))))
    with StoreWriter.open(tmp_path, meta):
        pass
    with pytest.raises(InputError, match="expected one label per frame"):
        evaluate_labels(world, Store(tmp_path, meta, ()))
