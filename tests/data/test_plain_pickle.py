"""Pickles of plain values are read as unpickling reads them; what would call anything is refused, and not called."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqvideo.data.formats import plain_pickle
from vqvideo.data.formats.plain_pickle import plain
from vqvideo.errors import InputError

ARRAY = np.arange(12).reshape(3, 4)
VALUES: dict[str, Any] = {
    "record": {"raw_video": bytes(range(256)) * 20, "sequence_length": 3, "actions": ARRAY},
    "numbers": [0, 255, 65535, -1, 2**40, -(2**200), 2.5, float("inf"), True, False, None],
    "texts": ["", "a", "ü" * 300, b"", b"x" * 300],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": {"a": {"b": [[1], [{"c": ()}]]}},
    "empty": [{}, [], ()],
    "long": list(range(3000)),
}
ARRAYS = {
    "rows": ARRAY,
    "columns first": np.asfortranarray(ARRAY.astype(np.float32)),
    "bytes": np.arange(5, dtype=np.uint8),
    "bools": np.array([True, False]),
    "big-endian": np.arange(4, dtype=">i4"),
    "half": np.array([0.5, -2], np.float16),
    "nothing": np.zeros((0, 3)),
    "no sides": np.array(5.0),
    "slice": ARRAY[:, ::2],
    "scalar": np.float64(2.5),
    "whole scalar": np.int64(-3),
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_are_read(protocol: int) -> None:
    assert plain(pickle.dumps(VALUES, protocol=protocol), "x")["record"]["actions"].tolist() == ARRAY.tolist()
    for name in VALUES.keys() - {"record"}:
        assert plain(pickle.dumps(VALUES[name], protocol=protocol), "x") == VALUES[name]
    assert plain(pickle.dumps([1, "a", (2.5, None)], protocol=2), "x") == [1, "a", (2.5, None)]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_read(name: str, protocol: int) -> None:
    array = ARRAYS[name]
    found = plain(pickle.dumps({"it": array, "again": array}, protocol=protocol), "x")
    assert np.array_equal(found["it"], array)
    assert (found["it"].dtype, found["it"].shape) == (array.dtype, array.shape)
    assert np.array_equal(found["again"], array)


def test_arrays_of_older_numpy_are_read() -> None:
    content = pickle.dumps(ARRAY, protocol=4)
    assert b"numpy._core.multiarray" in content
    framed = content.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    framed = framed[:3] + struct.pack("<Q", struct.unpack("<Q", framed[3:11])[0] - 1) + framed[11:]
    assert np.array_equal(plain(framed, "x"), ARRAY)


# ---------------------------------------------------------------- what is refused


class Runs:
    """What a hostile file holds: unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_what_would_run_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"actions": Runs(tmp_path / "made")}, protocol=protocol)
    with pytest.raises(InputError, match=r"^a file: .*posix\.mkdir" if protocol else "^a file: a pickle with"):
        plain(content, "a file")
    assert not (tmp_path / "made").exists()
    pickle.loads(content)
    assert (tmp_path / "made").exists(), "it would have run"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime.date(2020, 1, 1), r"calls 'datetime\.date'"),
        (collections.OrderedDict(a=1), r"calls 'collections\.OrderedDict'"),
        (np.array([print], object), r"calls 'builtins\.print'|an array of type 'O8'"),
        (np.array(["a"]), "an array of type 'U1', expected numbers"),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), "an array of type 'V8'"),
        (np.datetime64("2020"), "an array of type 'M8'"),
        ({1: 2}, "a dict with a int as key, expected texts"),
        ({1, 2}, "the instruction EMPTY_SET"),
        (print, r"calls 'builtins\.print'"),
        (np.random.default_rng(0), r"calls 'numpy\.random"),
    ],
    ids=lambda one: one[:12] if isinstance(one, str) else type(one).__name__,
)
def test_what_is_not_plain_is_refused_by_its_name(value: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        plain(pickle.dumps(value, protocol=4), "x")


def test_names_that_are_allowed_do_nothing_else() -> None:
    """A pickle by hand: names of NumPy, called with what they are not called with."""
    call = b"\x80\x04cnumpy._core.multiarray\n_reconstruct\ncnumpy\ndtype\n\x85R."
    with pytest.raises(InputError, match=r"calls 'numpy\._core\.multiarray\._reconstruct'"):
        plain(call, "x")
    with pytest.raises(InputError, match=r"calls 'numpy\.ndarray'"):
        plain(b"\x80\x04cnumpy\nndarray\n(K\x05tR.", "x")
    with pytest.raises(InputError, match=r"calls 'a dict'|a dict"):
        plain(b"\x80\x04}}b.", "x")


def nested(depth: int, *end: bytes) -> bytes:
    """A tuple of twice the same, of twice the same, ..."""
    return b"\x80\x02)q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(depth)) + b"".join(end)


@pytest.mark.parametrize(
    "end",
    [b"h\x00R.", b"h\x00h\x00R.", b"h\x00b.", b"h\x00\x93.", b"cnumpy\ndtype\nh\x00R.", b"}h\x00K\x01s."],
)
def test_values_that_would_take_for_ever_to_look_at_are_not_looked_at(end: bytes) -> None:
    with pytest.raises(InputError):
        plain(nested(5000, end), "x")


def test_arrays_that_lie_take_no_memory() -> None:
    honest = pickle.dumps(np.zeros(4, np.uint8), protocol=4)
    lying = honest.replace(b"K\x04\x85", b"\x8a\x06\xff\xff\xff\xff\xff\x7f\x85")
    start = lying.index(b"\x95")
    lying = lying[:start] + lying[start + 9 :]
    with pytest.raises(InputError, match=r"an array of uint8 \(140737488355327,\) in 4 bytes"):
        plain(lying, "x")


def test_endless_pickles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pickle, "_MOST_STEPS", 100)
    with pytest.raises(InputError, match="x: a pickle of more than 100 instructions"):
        plain(pickle.dumps(list(range(200))), "x")


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"\x80\x04.", b"\x80\x04K\x01K\x02.", b"\x80\x04t.", b"\x80\x04h\x05."]
)
def test_what_is_no_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=r"x: (no pickle of plain values|a pickle with the instruction)"):
        plain(content, "x")


def test_no_damage_raises_anything_else() -> None:
    content = pickle.dumps({"raw_video": bytes(20), "sequence_length": 3, "actions": ARRAY, "s": np.float32(1)})
    draw = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(content)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            plain(bytes(damaged[: draw.randrange(len(damaged)) + 1]), "x")
        except InputError:
            continue
