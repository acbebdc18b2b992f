"""TFRecord files and the messages in them: as the official libraries write them, and damaged in every way."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tfrecords import example, feature, field, framed, varint, write_records

from vqvideo.data.formats.crc32c import crc32c
from vqvideo.data.formats.example import Feature, features_of
from vqvideo.data.formats.tfrecord import TFRecords, masked
from vqvideo.errors import InputError

# ---------------------------------------------------------------- checksums


@pytest.mark.parametrize(
    ("data", "sum"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_checksums_are_those_of_the_standard(data: bytes, sum: int) -> None:
    assert crc32c(data) == sum


def test_long_checksums_are_those_of_going_through_bytes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    datas = [os.urandom(size) for size in (63, 64, 65, 127, 1001, 4099)]
    fast = [crc32c(data) for data in datas]
    monkeypatch.setattr("vqvideo.data.formats.crc32c._BLOCK", 1000)
    assert [crc32c(data) for data in datas] == fast
    monkeypatch.setattr("vqvideo.data.formats.crc32c._SHORT", 10**6)
    assert [crc32c(data) for data in datas] == fast


# ---------------------------------------------------------------- records

RECORDS = [b"one", b"", b"three" * 500]


def test_records_are_found_and_read_one_by_one(tmp_path: Path) -> None:
    records = TFRecords(write_records(tmp_path / "a.tfrecord", RECORDS))
    assert (len(records), records.broken, records.size) == (3, None, sum(16 + len(one) for one in RECORDS))
    assert [records.read(number) for number in (2, 0, 1)] == [RECORDS[2], RECORDS[0], RECORDS[1]]
    assert len(TFRecords(write_records(tmp_path / "empty.tfrecord", []))) == 0


def test_the_official_writer_is_understood(tmp_path: Path) -> None:
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    with (tmp_path / "a.tfrecord").open("wb") as file:
        writer = record_writer.RecordWriter(file)
        for record in RECORDS:
            writer.write(record)
        writer.flush()
    records = TFRecords(tmp_path / "a.tfrecord")
    assert [records.read(number) for number in range(len(records))] == RECORDS
    assert (tmp_path / "a.tfrecord").read_bytes() == b"".join(map(framed, RECORDS))


def test_damaged_data_are_told_with_file_record_and_byte(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", RECORDS)
    content = bytearray(path.read_bytes())
    content[12 + 3 + 4 + 16 + 12 + 7] ^= 1
    path.write_bytes(content)
    records = TFRecords(path)
    assert records.read(0) == b"one"
    with pytest.raises(InputError, match=r"a\.tfrecord: record 2 at byte 47: its 2500 bytes do not fit their checksum"):
        records.read(2)


def test_what_lies_before_the_damage_can_be_read(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", RECORDS)
    whole = path.read_bytes()
    for content, said in (
        (whole[:-5], "record 2 at byte 35: 2500 bytes, and 2495 are there: the file is cut off"),
        (whole[: 35 + 7], "record 2 at byte 35 is cut off: 7 bytes, expected 12 of its length"),
        (whole[:35] + b"x" + whole[36:], "record 2 at byte 35: its length does not fit its checksum"),
    ):
        path.write_bytes(content)
        records = TFRecords(path)
        assert records.broken is not None
        assert said in str(records.broken)
        assert [records.read(number) for number in range(len(records))] == RECORDS[:2]


def test_a_length_beyond_the_file_takes_no_memory(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**60)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(length + struct.pack("<I", masked(length)) + b"short")
    records = TFRecords(path)
    assert len(records) == 0
    assert f"record 0 at byte 0: {2**60} bytes, and 1 are there" in str(records.broken)


def test_a_record_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**32)
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        file.write(length + struct.pack("<I", masked(length)))
        file.truncate(2**32 + 16)
    assert "4294967296 bytes, expected at most 2147483648" in str(TFRecords(path).broken)


def test_records_beyond_number_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqvideo.data.formats.tfrecord._MOST_RECORDS", 2)
    records = TFRecords(write_records(tmp_path / "a.tfrecord", RECORDS))
    assert len(records) == 2
    assert "record 2 at byte 35: more than 2 records" in str(records.broken)


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    path = write_records(tmp_path / "a.tfrecord", RECORDS)
    records = TFRecords(path)
    os.truncate(path, 100)
    with pytest.raises(InputError, match="record 2 at byte 47 is cut off: the file has become shorter"):
        records.read(2)


# ---------------------------------------------------------------- messages

FLOATS, INTS = [0.5, -2.0, 1e30], [0, 1, -1, 127, 128, 2**63 - 1, -(2**63)]


def lists_of(message: bytes) -> dict[str, Any]:
    found: dict[str, Feature] = features_of(message, "x")
    return {
        name: [bytes(item) for item in one.items()] if one.is_bytes else one.numbers("x").tolist()
        for name, one in found.items()
    }


def official_example() -> Any:
    """The class of the message, by protobuf itself."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example_for_tests.proto", package="t", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, int, str], parent: Any = file.message_type) -> Any:
        made = parent.add(name=name)
        for label, number, kind, repeated, of in fields:
            made.field.add(name=label, number=number, type=kind, label=3 if repeated else 1, type_name=of or None)
        return made

    message("BytesList", ("value", 1, 12, 1, ""))
    message("FloatList", ("value", 1, 2, 1, ""))
    message("Int64List", ("value", 1, 3, 1, ""))
    kinds = ("bytes_list", 1, 11, 0, ".t.BytesList"), ("float_list", 2, 11, 0, ".t.FloatList")
    one = message("Feature", *kinds, ("int64_list", 3, 11, 0, ".t.Int64List"))
    one.oneof_decl.add(name="kind")
    for part in one.field:
        part.oneof_index = 0
    features = message("Features", ("feature", 1, 11, 1, ".t.Features.FeatureEntry"))
    entry = ("key", 1, 9, 0, ""), ("value", 2, 11, 0, ".t.Feature")
    message("FeatureEntry", *entry, parent=features.nested_type).options.map_entry = True
    message("Example", ("features", 1, 11, 0, ".t.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def test_messages_of_the_official_library_are_understood() -> None:
    made = official_example()()
    made.features.feature["image"].bytes_list.value.extend([b"a", b"", b"\xff" * 300])
    made.features.feature["reward"].float_list.value.extend(FLOATS)
    made.features.feature["flag"].int64_list.value.extend(INTS)
    made.features.feature["nothing"].int64_list.SetInParent()
    found = lists_of(made.SerializeToString())
    assert found["image"] == [b"a", b"", b"\xff" * 300]
    assert found["reward"] == pytest.approx(FLOATS)
    assert (found["flag"], found["nothing"]) == (INTS, [])
    assert list(found) == sorted(found)


def test_own_messages_are_those_of_the_official_library() -> None:
    lists = {"image": [b"a", b"", b"\xff" * 300], "reward": FLOATS, "flag": INTS}
    read = official_example()()
    read.ParseFromString(example(lists))
    assert list(read.features.feature["flag"].int64_list.value) == INTS
    assert list(read.features.feature["image"].bytes_list.value) == lists["image"]
    assert lists_of(example(lists))["flag"] == INTS


def test_numbers_may_be_written_one_by_one() -> None:
    floats = field(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in (1.5, 2.5)))
    ints = field(3, b"".join(varint(1 << 3) + varint(value) for value in (3, -4)) + field(1, varint(5)))
    found = lists_of(b"".join(field(1, field(1, field(1, name) + field(2, one))) for name, one in
                              ((b"f", floats), (b"i", ints))))  # fmt: skip
    assert found == {"f": [1.5, 2.5], "i": [3, -4, 5]}


def test_fields_that_are_not_known_are_left_out() -> None:
    more = varint(9 << 3) + varint(300) + varint(8 << 3 | 1) + bytes(8) + varint(7 << 3 | 5) + bytes(4) + field(6, b"x")
    assert lists_of(more + example({"a": [1]}) + more) == {"a": [1]}


def test_the_last_of_two_lists_counts() -> None:
    entries = [field(1, field(1, b"a") + field(2, feature(values))) for values in ([1, 2], [0.5])]
    assert lists_of(field(1, b"".join(entries))) == {"a": [0.5]}
    for second, expected in (([3, 4], [1, 2, 3, 4]), ([0.5], [0.5])):
        entry = field(1, b"a") + field(2, feature([1, 2]) + feature(second))
        assert lists_of(field(1, field(1, entry))) == {"a": expected}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"", "nothing in it"),
        (b"\xff" * 12, "number without an end"),
        (field(1, b"")[:-1] + b"\x7f", "ends at byte 129 of a message of 2"),
        (b"\x0b", "wire type 3"),
        (field(1, field(1, field(1, b"\xff\xfe"))), "no tf.train.Example that can be read .*utf-8"),
        (b"hello, this is no message", "no tf.train.Example that can be read"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, said: str) -> None:
    with pytest.raises(InputError, match=f"^x: .*{said}"):
        features_of(message, "x")


def test_damaged_numbers_are_refused() -> None:
    def numbers(kind: int, content: bytes) -> None:
        made = field(1, field(1, field(1, b"a") + field(2, field(kind, field(1, content)))))
        features_of(made, "x")["a"].numbers("x: a")

    with pytest.raises(InputError, match="x: a: 5 bytes of floats, expected four of each"):
        numbers(2, bytes(5))
    with pytest.raises(InputError, match="x: a: the last whole number has no end"):
        numbers(3, b"\x01\xff")
    with pytest.raises(InputError, match="x: a: a whole number of 11 bytes"):
        numbers(3, b"\xff" * 10 + b"\x01")
    with pytest.raises(InputError, match="x: a: bytes or text, expected numbers"):
        numbers(1, b"x")


def test_lists_that_would_take_far_more_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqvideo.data.formats.example._MOST_VALUES", 3)
    with pytest.raises(InputError, match="x: 4 numbers, expected at most 3"):
        features_of(example({"a": [1] * 4}), "x")["a"].numbers("x")
    monkeypatch.setattr("vqvideo.data.formats.example._MOST_PARTS", 3)
    with pytest.raises(InputError, match="more than 3 single values"):
        features_of(example({"a": [b""] * 5}), "x")
    monkeypatch.setattr("vqvideo.data.formats.example._MOST_NAMES", 1)
    with pytest.raises(InputError, match="more than 1 names"):
        features_of(example({"a": [1], "b": [1]}), "x")


def test_no_damage_raises_anything_else() -> None:
    message = example({"image": [b"abc", b"d"], "reward": FLOATS, "flag": INTS})
    draw = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(message)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            for one in features_of(bytes(damaged[: draw.randrange(len(damaged)) + 1]), "x").values():
                np.asarray(one.items() if one.is_bytes else one.numbers("x"), object)
        except InputError:
            continue
