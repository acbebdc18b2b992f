"""Batches of CIFAR-10 become a store: labels are the actions, the test batch is held out, what is wrong is said."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vqvideo.data.config import ImportConfig
from vqvideo.data.formats import format_of, reader_of
from vqvideo.data.importing import import_data
from vqvideo.data.store import Store
from vqvideo.errors import InputError

Batch = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def batch(count: int, seed: int = 0) -> Batch:
    """Pictures (n, 3, 32, 32) and labels (n,)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, 10, count).astype(np.uint8)


def write_binary(folder: Path, name: str, pictures: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    folder.mkdir(exist_ok=True)
    records = np.concatenate([labels[:, None], pictures.reshape(-1, 3072)], axis=1)
    (folder / f"{name}.bin").write_bytes(records.tobytes())


def python2_pickle(pictures: NDArray[np.uint8], labels: NDArray[np.uint8]) -> bytes:
    """A batch as Python 2 pickled it: protocol 2, in which texts and bytes are the same strings."""

    def string(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<I", len(value)) + value

    kind = b"cnumpy\ndtype\n" + string(b"u1") + b"K\x00K\x01\x87R(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xff"
    kind += b"J\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b") + b"\x87R("
    array += b"K\x01M" + struct.pack("<H", len(labels)) + b"M\x00\x0c\x86" + kind + b"\x89"
    array += string(pictures.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    title = string(b"batch_label") + string(b"training batch 1 of 5")
    return b"\x80\x02}(" + title + string(b"labels") + numbers + string(b"data") + array + b"u."


def imported(source: Path, out: Path, **options: Any) -> Store:
    defaults: dict[str, Any] = {"frame_size": 32, "steps": 20, "workers": 1}
    return Store.open(import_data(ImportConfig(source, out=out, **(defaults | options))))


@pytest.mark.parametrize("version", ["bin", "python 2", "python 3"])
def test_an_action_is_the_label_of_the_picture_that_it_leads_to(tmp_path: Path, version: str) -> None:
    pictures, labels = batch(42)
    folder = tmp_path / "batches"
    if version == "bin":
        write_binary(folder, "data_batch_1", pictures, labels)
    else:
        folder.mkdir()
        plain = {"labels": labels.tolist(), "data": pictures.reshape(-1, 3072)}
        content = python2_pickle(pictures, labels) if version == "python 2" else pickle.dumps(plain)
        (folder / "data_batch_1").write_bytes(content)
    assert format_of(folder) == "cifar"
    store = imported(folder, tmp_path / "store")
    episodes = [store.episode(entry) for entry in store.entries]
    np.testing.assert_array_equal(
        np.concatenate([episode.frames for episode in episodes]), pictures.transpose(0, 2, 3, 1)
    )
    np.testing.assert_array_equal(episodes[1].actions[:, 0], labels[22:])
    assert store.meta.action_space.columns[0].categories == 10
    assert store.meta.missing == ("ends", "rewards")


def test_what_python_2_pickled_is_what_python_unpickles(tmp_path: Path) -> None:
    pictures, labels = batch(300)
    found = pickle.loads(python2_pickle(pictures, labels), encoding="latin-1")
    np.testing.assert_array_equal(found["data"], pictures.reshape(-1, 3072))
    assert found["labels"] == labels.tolist()


def test_the_test_batch_is_held_out_and_no_other(tmp_path: Path) -> None:
    for number in (1, 2):
        write_binary(tmp_path / "b", f"data_batch_{number}", *batch(21, number))
    write_binary(tmp_path / "b", "test_batch", *batch(21, 9))
    store = imported(tmp_path / "b", tmp_path / "store", held_out_every=2)
    assert [entry.split for entry in store.entries] == ["train", "train", "held_out"]
    np.testing.assert_array_equal(store.episode(store.entries[2]).frames, batch(21, 9)[0].transpose(0, 2, 3, 1))


def test_another_size_than_that_of_the_pictures_is_noticed(tmp_path: Path) -> None:
    write_binary(tmp_path, "data_batch_1", *batch(3))
    assert "--frame-size 32" in reader_of(ImportConfig(tmp_path))[1].open("data_batch_1").facts.notes[0]


def test_who_has_none_is_told_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    get = r"Download it: python -c .*CIFAR10\('data', download=True\)"
    with pytest.raises(InputError, match=rf"cifar-10-batches-py: no such file or folder. {get}"):
        reader_of(ImportConfig(tmp_path / "cifar-10-batches-py"))
    with pytest.raises(InputError, match=rf"no data_batch_1 or test_batch in it or below.* {get}"):
        reader_of(ImportConfig(tmp_path, "cifar"))


def test_two_versions_are_not_mixed(tmp_path: Path) -> None:
    write_binary(tmp_path / "a", "data_batch_1", *batch(3))
    write_binary(tmp_path / "b", "data_batch_1", *batch(3))
    with pytest.raises(InputError, match=r"holds 2 data sets, expected one: name one of .*a \(\.bin\)"):
        reader_of(ImportConfig(tmp_path))


def pickled(**values: Any) -> Callable[[bytes], bytes]:
    good = {"data": batch(3)[0].reshape(3, 3072), "labels": [1, 2, 3]}
    return lambda _: pickle.dumps({**good, **values})


@pytest.mark.parametrize(
    ("ending", "change", "message"),
    [
        (".bin", lambda content: content[:-1], r"9218 bytes, expected records of 3073: it is truncated"),
        (".bin", lambda _: b"", "0 bytes, expected records of 3073"),
        (".bin", lambda content: b"\x0a" + content[1:], "label 10 of picture 0, expected 0 to 9"),
        ("", lambda content: content, r"no pickle of plain values|a pickle with"),
        ("", pickled(labels=[1, 2]), r"found \['data', 'labels'\], expected a dict with data"),
        ("", pickled(labels=[1, 2, -3]), "label -3 of picture 2"),
        ("", pickled(labels=[1, 2, 2**70]), "expected a dict with data"),
        ("", pickled(labels=None), "expected a dict with data"),
        ("", pickled(data=np.zeros((3, 5), np.uint8)), r"expected a dict with data, \(n, 3072\) bytes"),
        ("", pickled(data=np.zeros((3, 3072), np.float32)), "expected a dict with data"),
        ("", lambda _: pickle.dumps([1]), "found list, expected a dict"),
        ("", lambda _: pickle.dumps(print), r"calls 'builtins\.print'"),
    ],
)
def test_what_is_wrong_with_a_batch_is_said(
    tmp_path: Path, ending: str, change: Callable[[bytes], bytes], message: str
) -> None:
    write_binary(tmp_path, "data_batch_1", *batch(3))
    content = (tmp_path / "data_batch_1.bin").read_bytes()
    (tmp_path / "data_batch_1.bin").unlink()
    (tmp_path / f"data_batch_1{ending}").write_bytes(change(content))
    with pytest.raises(InputError, match=message):
        reader_of(ImportConfig(tmp_path, "cifar"))[1].open("data_batch_1")
