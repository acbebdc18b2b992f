"""Dataclasses to plain values and back: strict, with errors that name the key and suggest the right one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace
from vqvideo.storage.records import flat_settings, from_plain, read_yaml, to_plain, typed, without_nan, write_yaml

DISCRETE = ActionSpace.from_json({"kind": "discrete", "shape": [], "dtype": "int64", "low": [0], "high": [4]})


@dataclass(frozen=True)
class CircleConfig:
    radius: float = 1.0


@dataclass(frozen=True)
class BoxConfig:
    sides: tuple[int, int] = (1, 1)
    lid: bool = False

    def __post_init__(self) -> None:
        if min(self.sides) < 1:
            raise InputError(f"sides {self.sides}: too small")


class Point(NamedTuple):
    x: float
    y: float


ORIGIN = Point(0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    name: str
    shape: CircleConfig | BoxConfig = field(default_factory=CircleConfig)
    widths: tuple[int, ...] = (8, 16)
    rate: float = 1e-3
    limit: float | None = None
    out: Path | None = None
    mode: Literal["auto", "no", "bf16"] = "auto"
    centre: Point = ORIGIN
    space: ActionSpace = DISCRETE
    inner: CircleConfig = field(default_factory=CircleConfig)


FULL = Scene("a", BoxConfig((2, 3), True), (1,), 0.5, 7.0, Path("x/y"), "no", Point(1.0, -2.0), inner=CircleConfig(3.0))


@pytest.mark.parametrize("scene", [Scene("a"), FULL])
def test_a_record_survives_plain_values_and_yaml(tmp_path: Path, scene: Scene) -> None:
    assert typed(Scene, to_plain(scene)) == scene
    (tmp_path / "scene.yaml").write_text(write_yaml(scene))
    assert typed(Scene, read_yaml(tmp_path / "scene.yaml")) == scene


def test_a_union_is_told_by_its_kind() -> None:
    assert to_plain(FULL)["shape"] == {"kind": "Box", "sides": [2, 3], "lid": True}
    assert "kind" not in to_plain(FULL)["inner"]
    assert typed(Scene, {"name": "a", "shape": {"kind": "Box", "lid": True}}).shape == BoxConfig(lid=True)
    assert typed(Scene, {"name": "a", "shape": {"radius": 2}}).shape == CircleConfig(2.0)


def nested(depth: int) -> list[object]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"nam": "a"}, r"config.nam is not a setting: did you mean name\?"),
        ({"name": "a", "zzz": 1}, "config.zzz is not a setting: known: centre, inner, limit"),
        ({"name": "a", "shape": {"kind": "Cirle"}}, r"config.shape.kind is 'Cirle': did you mean Circle\?"),
        ({"name": "a", "shape": {"kind": "Box", "radius": 1}}, "config.shape.radius is not a setting"),
        ({"name": "a", "inner": {"kind": "Box"}}, "config.inner.kind is 'Box'"),
        ({}, "config: .*missing 1 required positional argument: 'name'"),
        ({"name": "a", "shape": {"kind": ["Box"]}}, r"config.shape.kind is \['Box'\]"),
        ({"name": "a", 7: 8}, "config.7 is not a setting"),
        ({"name": 3}, "config.name is 3, expected str"),
        ({"name": "a", "rate": 10**400}, r"config.rate is 1000.*000, expected float"),
        ({"name": "a", "rate": math.nan}, "config.rate is nan, expected float"),
        ({"name": "a", "limit": math.inf}, "config.limit is inf, expected float"),
        ({"name": "a", "out": "a\0b"}, "config.out is 'a.*b', expected Path"),
        ({"name": nested(900)}, r"config.name is \[\[\[\[...\]\]\]\], expected str"),
        ({"name": "a", "inner": ["x" * 10**6] * 100}, r"^.{,200}$"),
        ({"name": "a", "rate": "fast"}, "config.rate is 'fast', expected float"),
        ({"name": "a", "rate": True}, "config.rate is True, expected float"),
        ({"name": "a", "widths": 8}, "config.widths is 8, expected a list"),
        ({"name": "a", "widths": [8, 1.5]}, r"config.widths\[1\] is 1.5, expected int"),
        ({"name": "a", "shape": {"kind": "Box", "sides": [1]}}, "config.shape.sides is .*, expected a list of 2"),
        ({"name": "a", "shape": {"kind": "Box", "lid": 1}}, "config.shape.lid is 1, expected bool"),
        ({"name": "a", "shape": {"kind": "Box", "sides": [0, 1]}}, r"sides \(0, 1\): too small"),
        ({"name": "a", "mode": "fp8"}, "config.mode is 'fp8', expected one of 'auto', 'no', 'bf16'"),
        ({"name": "a", "inner": 3}, "config.inner is 3, expected keys and values of Circle"),
        ([], r"config is \[\], expected keys and values of Scene"),
    ],
)
def test_what_does_not_fit_is_named_and_explained(plain: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_plain(Scene, plain)


@pytest.mark.parametrize(("text", "number"), [("1e-3", 1e-3), ("2", 2.0), ("1E5", 1e5), ("0.5", 0.5), ("-.5", -0.5)])
def test_a_number_is_a_number_however_yaml_reads_it(tmp_path: Path, text: str, number: float) -> None:
    (tmp_path / "c.yaml").write_text(f"radius: {text}\n")
    radius = typed(CircleConfig, read_yaml(tmp_path / "c.yaml")).radius
    assert (radius, type(radius)) == (number, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice, first in line 1"),
        ("a: [1\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        ("- 1\n- 2\n", "expected keys and values, found list"),
        ("[1, 2]: 3\n", "not valid YAML"),
        ("when: 2024-13-45\n", "not valid YAML"),
        ("a: &x [*x]\nb: *y\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_bad_yaml_is_refused_with_the_name_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"(?s)bad.yaml: .*{message}"):
        read_yaml(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nnam: b\n", r"config.nam is not a setting: did you mean name\? \(line 2\)"),
        ("name: a\ninner:\n  radius: 1\n  radios: 2\n", r"config.inner.radios is not a setting: .* \(line 4\)"),
        ("name: a\n\n\nwidths: [8, x]\n", r"config.widths\[1\] is 'x', expected int \(line 4\)"),
        ("name: a\nshape:\n  kind: Box\n  sides: [0, 1]\n", r"sides \(0, 1\): too small \(line 2\)"),
        ("name: a\nshape: {kind: Cirle}\n", r"config.shape.kind is 'Cirle': .* \(line 2\)"),
    ],
)
def test_the_line_of_what_does_not_fit_is_named_once(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        typed(Scene, read_yaml(tmp_path / "c.yaml"))
    assert str(caught.value).count("(line ") == 1


def test_settings_with_errors_of_arithmetic_are_refused() -> None:
    @dataclass(frozen=True)
    class Share:
        of: int

        def __post_init__(self) -> None:
            1 // self.of

    with pytest.raises(InputError, match="config: integer division"):
        from_plain(Share, {"of": 0})


def test_what_refers_to_itself_many_times_over_is_refused_at_once(tmp_path: Path) -> None:
    """A billion laughs, which a full message would print."""
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    (tmp_path / "c.yaml").write_text("\n".join([*lines, "name: *l9"]))
    plain = read_yaml(tmp_path / "c.yaml")
    with pytest.raises(InputError, match=r"^.{,200}$"):
        typed(Scene, {"name": plain["name"]})


def test_what_was_read_from_yaml_can_be_written_again(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(write_yaml(FULL))
    plain = read_yaml(tmp_path / "c.yaml")
    (tmp_path / "again.yaml").write_text(write_yaml({"settings": plain}))
    assert read_yaml(tmp_path / "again.yaml")["settings"] == plain


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no configuration file .*gone.yaml: see configs/"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="no configuration file"):
        read_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid YAML"):
        read_yaml(tmp_path / "binary.yaml")


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_settings_are_flat_for_trackers() -> None:
    flat = flat_settings(FULL)
    assert flat["shape.lid"] is True
    assert flat["inner.radius"] == 3.0
    assert flat["out"] == "x/y"
    assert flat["widths"] == "[1]"
    assert all(isinstance(value, str | int | float | bool) for value in flat.values())


def test_numbers_that_json_does_not_know_become_null() -> None:
    plain = {"a": math.nan, "b": [1.0, -math.inf, {"c": (math.nan, 2)}], "d": "nan"}
    assert without_nan(plain) == {"a": None, "b": [1.0, None, {"c": [None, 2]}], "d": "nan"}
