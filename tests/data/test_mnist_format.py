"""MNIST's files become a store: labels are the actions, test images are held out, what is wrong with a file is said."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist_files import idx_bytes, real_mnist, squares, write_mnist

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import format_of, reader_of
from vqvideo.data.formats.idx import Idx
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def imported(source: Path, out: Path, **options: Any) -> Store:
    defaults: dict[str, Any] = {"frame_size": 28, "steps": 20, "workers": 1}
    return Store.open(import_data(ImportConfig(source, out=out, **(defaults | options))))


@pytest.mark.parametrize("packed", [False, True])
def test_an_action_is_the_label_of_the_frame_that_it_leads_to(tmp_path: Path, packed: bool) -> None:
    images, labels = squares(63)
    write_mnist(tmp_path, images, labels, packed=packed)
    store = imported(tmp_path, tmp_path / "store")
    episodes = [store.episode(entry) for entry in store.entries]
    assert [episode.length for episode in episodes] == [20, 20, 20]
    np.testing.assert_array_equal(np.concatenate([e.frames[..., 0] for e in episodes]), images)
    for number, episode in enumerate(episodes):
        first = 21 * number
        np.testing.assert_array_equal(episode.actions[:, 0], labels[first + 1 : first + 21])
    assert store.meta.action_space.columns[0].categories == 10
    assert store.meta.missing == ("ends", "rewards")
    assert [entry.split for entry in store.entries] == ["train", "train", "held_out"], "nobody says which to hold out"


def test_images_for_testing_are_held_out_and_no_others(tmp_path: Path) -> None:
    write_mnist(tmp_path, *squares(63))
    write_mnist(tmp_path, *squares(42, seed=1), part="t10k")
    store = imported(tmp_path, tmp_path / "store", held_out_every=2)
    assert [entry.split for entry in store.entries] == ["train"] * 3 + ["held_out"] * 2
    np.testing.assert_array_equal(store.episode(store.entries[3]).frames[..., 0], squares(42, seed=1)[0][:21])


def test_processes_import_the_same_as_one(tmp_path: Path) -> None:
    write_mnist(tmp_path, *squares(2100), packed=True)
    one, two = (imported(tmp_path, tmp_path / f"{n}", workers=n, steps=200) for n in (1, 2))
    assert [entry.sha256 for entry in one.entries] == [entry.sha256 for entry in two.entries]


def test_files_that_torchvision_unpacked_are_there_once(tmp_path: Path) -> None:
    write_mnist(tmp_path, *squares(5), packed=True)
    raw = write_mnist(tmp_path, *squares(5))
    for place in (tmp_path, raw, raw / IMAGES, raw / f"{IMAGES}.gz"):
        assert format_of(place) == "mnist"
        name, reader = reader_of(ImportConfig(place))
        assert (name, list(reader.names)) == ("mnist", ["train"])
    assert reader_of(ImportConfig(tmp_path))[1].size_of("train") == (raw / IMAGES).stat().st_size


def test_another_size_than_that_of_the_digits_is_noticed(tmp_path: Path) -> None:
    write_mnist(tmp_path, *squares(5))
    _, reader = reader_of(ImportConfig(tmp_path))
    assert reader.open("train").facts.notes == (
        "frames of 28 x 28 pixels are stored in another size: --frame-size 28x28",
    )
    _, reader = reader_of(ImportConfig(tmp_path, frame_size=28))
    assert reader.open("train").facts.notes == ()


# ---------------------------------------------------------------- what is missing or wrong


def test_who_has_no_digits_is_told_where_they_were_looked_for_and_how_to_get_them(tmp_path: Path) -> None:
    get = r"Download it: python -c .*MNIST\('data', download=True\)"
    with pytest.raises(InputError, match=rf"MNIST: no such file or folder. {get}"):
        reader_of(ImportConfig(tmp_path / "MNIST"))
    with pytest.raises(InputError, match=rf"no train-images-idx3-ubyte or t10k-images-idx3-ubyte in it.* {get}"):
        reader_of(ImportConfig(tmp_path, "mnist"))
    raw = write_mnist(tmp_path, *squares(5))
    (raw / LABELS).unlink()
    with pytest.raises(InputError, match=rf"{IMAGES}: no {LABELS} beside it"):
        reader_of(ImportConfig(tmp_path))[1].open("train")


def test_two_data_sets_are_not_mixed(tmp_path: Path) -> None:
    write_mnist(tmp_path / "digits", *squares(5))
    write_mnist(tmp_path / "clothes", *squares(5))
    with pytest.raises(InputError, match=r"holds 2 data sets, expected one: name one of .*clothes"):
        reader_of(ImportConfig(tmp_path))


def written(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda raw: (raw / name).write_bytes(change((raw / name).read_bytes())) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            written(IMAGES, lambda c: c[:-1]),
            rf"{IMAGES}: 3935 bytes, expected 3936 of .*28\): .*truncated",
        ),
        (written(IMAGES, lambda c: c + b"x"), rf"{IMAGES}: 3937 bytes, expected 3936 .*damaged"),
        (written(IMAGES, lambda c: c[:9]), rf"{IMAGES} ends within its header"),
        (written(IMAGES, lambda c: b"<!DOCTYPE html>"), rf"{IMAGES} begins with b'<!DO', expected b'.*x03'"),
        (written(IMAGES, lambda c: b""), rf"{IMAGES} begins with b''"),
        (written(LABELS, lambda c: idx_bytes(np.zeros(4, np.uint8))), rf"{LABELS}: 4 labels of 5 images"),
        (written(LABELS, lambda c: idx_bytes(np.full(5, 10, np.uint8))), r"label 10 of picture 0, expected 0 to 9"),
        (written(IMAGES, lambda c: idx_bytes(np.zeros((5, 0, 28), np.uint8))), r"shape \(5, 0, 28\)"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(write_mnist(tmp_path, *squares(5)))
    with pytest.raises(InputError, match=message):
        imported(tmp_path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 28, 28), r"its header says .* expected at most"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(99), r"its header says .*at most"),
        (idx_bytes(np.zeros((9, 28, 28), np.uint8))[:-3], r"7069 bytes, expected 7072 .*truncated"),
        (idx_bytes(np.zeros((9, 28, 28), np.uint8)) + bytes(10**6), r"more than 7072 bytes, expected 7072 .*damaged"),
    ],
)
def test_a_packed_file_is_never_unpacked_beyond_what_it_can_hold(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=message):
        Idx(path, 3).array()


def test_half_a_packed_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 255, (9, 28, 28), np.uint8)))
    for content in (whole[: len(whole) // 2], b"no gzip", whole[:5]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be read \(.*\). Download it again"):
            Idx(path, 3).array()


@pytest.mark.slow
def test_the_real_digits_are_read(tmp_path: Path) -> None:
    _, reader = reader_of(ImportConfig(real_mnist(tmp_path), frame_size=28))
    found = {name: reader.open(name) for name in reader.names}
    assert {name: one.facts.frames for name, one in found.items()} == {"train": 60000, "t10k": 10000}
    assert {name: one.facts.split for name, one in found.items()} == {"train": "train", "t10k": "held_out"}
    moment = next(found["t10k"].moments(1))
    assert moment.action[0] == 2, "the second test image is a 2"
    assert moment.frame.shape == (28, 28, 3)
    assert 0 < moment.frame.mean() < 60
