"""Frozen dataclasses to plain JSON or YAML values and back, strictly: unknown keys and wrong types are errors.

A field that is a union of dataclasses is written with a `kind`, the class name without "Config". What a YAML file has
wrong is reported with its line.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
import typing
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vqvideo.errors import InputError, suggest

if TYPE_CHECKING:
    from yaml import MappingNode, SafeLoader

T = TypeVar("T")
_SCALARS = (int, float, str, bool, Path)
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3


def kind_of(cls: type) -> str:
    """The name by which configuration files call a class."""
    return cls.__name__.removesuffix("Config")


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as dicts, lists and strings."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        for name, hint in hints.items():
            if name in plain and len(_dataclass_members(hint)) > 1:
                plain[name] = {"kind": kind_of(type(getattr(value, name))), **plain[name]}
        return plain
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def without_defaults(value: Any) -> Any:
    """`to_plain` of a dataclass, less the fields that have their default; what is a dataclass itself is kept, with its
    `kind`.
    """
    plain: dict[str, Any] = {"kind": kind_of(type(value))}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            plain[field.name] = without_defaults(item)
        elif item != field.default:
            plain[field.name] = to_plain(item)
    return plain


def from_plain(hint: Any, plain: Any, where: str = "config") -> Any:
    """The value of type `hint` that `plain` describes.

    Raises:
        InputError: an unknown key (with a suggestion), a missing one, a wrong type; names the key.
    """
    if hint in _SCALARS:
        # First, for a store's sake: it has a line for each of its episodes.
        return _scalar(hint, plain, where)
    members = _dataclass_members(hint)
    if members:
        return _dataclass_from_plain(_member(members, plain, where), plain, where)
    if hasattr(hint, "from_json"):
        return hint.from_json(plain)
    if hasattr(hint, "_fields"):
        return hint(*_items(get_type_hints(hint).values(), plain, where))
    if hint is Any:
        return plain
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        rest = [arg for arg in args if arg is not types.NoneType]
        return None if plain is None else _first_that_fits(rest, plain, where)
    if origin is Literal:
        return _one_of(args, plain, where)
    if origin is dict:
        return {str(key): from_plain(args[1], item, f"{where}.{key!s:.80}") for key, item in _mapping(plain, where)}
    if origin is tuple:
        several = [args[0]] * len(plain) if args[-1] is Ellipsis and isinstance(plain, list | tuple) else args
        return _items(several, plain, where)
    return _scalar(hint, plain, where)


@cache
def _hints(cls: type) -> dict[str, Any]:
    """The types of a class's fields; Python looks them up anew each time."""
    return get_type_hints(cls)


@cache
def _dataclass_members(hint: Any) -> tuple[type, ...]:
    """The plain dataclasses of a (union) type; empty for anything else."""
    candidates = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    members = tuple(c for c in candidates if c is not types.NoneType)
    plain = all(dataclasses.is_dataclass(c) and not hasattr(c, "from_json") for c in members)
    return members if members and plain else ()


def _member(members: tuple[type, ...], plain: Any, where: str) -> type:
    kind = plain.get("kind", kind_of(members[0])) if isinstance(plain, Mapping) else None
    kinds = {kind_of(member): member for member in members}
    if kind is not None and not (isinstance(kind, str) and kind in kinds):
        raise InputError(f"{where}.kind is {_shown(kind)}: {suggest(_shown(kind), kinds)}")
    return kinds[kind] if kind is not None else members[0]


def _dataclass_from_plain(cls: type, plain: Any, where: str) -> Any:
    if not isinstance(plain, Mapping):
        raise InputError(f"{where} is {_shown(plain)}, expected keys and values of {kind_of(cls)}")
    hints = _hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    values = {}
    for key, item in plain.items():
        with _at_line_of(plain, key):
            if key not in names and key != "kind":
                found = f"{key!s:.80}"
                raise InputError(f"{where}.{found} is not a setting: {suggest(found, names)}")
            if key != "kind":
                values[key] = from_plain(hints[key], item, f"{where}.{key}")
    try:
        return cls(**values)
    except InputError:
        raise
    # What no field by itself forbids may still be no such thing: a square of side 0 to be cut into.
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{where}: {error}") from error


def _first_that_fits(hints: list[Any], plain: Any, where: str) -> Any:
    if len(hints) == 1:
        return from_plain(hints[0], plain, where)
    for hint in hints:
        with suppress(InputError):
            return from_plain(hint, plain, where)
    raise InputError(f"{where} is {_shown(plain)}, expected {' or '.join(map(_named, hints))}")


def _named(hint: Any) -> str:
    """A type in an error; of a choice, what there is to choose."""
    return " or ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else hint.__name__


def _mapping(plain: Any, where: str) -> Any:
    if not isinstance(plain, Mapping):
        raise InputError(f"{where} is {_shown(plain)}, expected keys and values")
    return plain.items()


def _items(hints: Any, plain: Any, where: str) -> tuple[Any, ...]:
    hints = list(hints)
    if not isinstance(plain, list | tuple) or len(plain) != len(hints):
        raise InputError(f"{where} is {_shown(plain)}, expected a list of {len(hints)}")
    return tuple(from_plain(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(hints, plain, strict=True)))


def _one_of(choices: tuple[Any, ...], plain: Any, where: str) -> Any:
    # YAML reads a bare `no` as false; the choice "no" (no mixed precision) is what was meant.
    plain = "no" if plain is False and "no" in choices else plain
    if plain not in choices:
        raise InputError(f"{where} is {_shown(plain)}, expected one of {', '.join(map(repr, choices))}")
    return plain


def _scalar(hint: Any, plain: Any, where: str) -> Any:
    if hint is float and isinstance(plain, str | int) and not isinstance(plain, bool):
        # YAML 1.1 reads 1e-3 as text.
        with suppress(ValueError, OverflowError):
            plain = float(plain)
    if hint is Path and isinstance(plain, str) and "\0" not in plain:
        return Path(plain)
    wrong = isinstance(plain, bool) and hint is not bool
    # No NaN and no infinity, which JSON does not know.
    if wrong or not isinstance(plain, hint) or (isinstance(plain, float) and not math.isfinite(plain)):
        raise InputError(f"{where} is {_shown(plain)}, expected {getattr(hint, '__name__', hint)}")
    return plain


def _shown(value: Any) -> str:
    """A value in an error: short, however long or deep it is."""
    return f"{_SHORT.repr(value):.120}"


# ---------------------------------------------------------------- YAML


class _Lines(dict[Any, Any]):
    """A mapping that knows in which line each of its keys stands."""

    lines: dict[Hashable, int]


class _LocatedError(InputError):
    """Says already in which line the error is."""


@contextmanager
def _at_line_of(plain: Mapping[Any, Any], key: Hashable) -> Iterator[None]:
    """Adds the line of a key to the errors inside, if it is known and no line of an inner key was added."""
    try:
        yield
    except _LocatedError:
        raise
    except InputError as error:
        line = plain.lines.get(key) if isinstance(plain, _Lines) else None
        if line is None:
            raise
        raise _LocatedError(f"{error} (line {line})") from error


def _unique_mapping(loader: SafeLoader, node: MappingNode) -> _Lines:
    lines: dict[Hashable, int] = {}
    for key_node, _ in node.value:
        key, line = loader.construct_object(key_node), key_node.start_mark.line + 1
        if key in lines:
            raise InputError(f"line {line}: the key {_shown(key)} is given twice, first in line {lines[key]}")
        lines[key] = line
    plain = _Lines(loader.construct_mapping(node, deep=True))
    plain.lines = lines
    return plain


@cache
def _strict_loader() -> Any:
    """Safe YAML that refuses a key given twice. PyYAML is loaded when it is needed: records are read without it."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        pass

    # YAML 1.1 knows no number without a point but with an exponent, such as 1e-3.
    number = re.compile(r"[-+]?\d+[eE][-+]?\d+$")
    StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", number, "-+0123456789")
    StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
    return StrictLoader


def _parsed(text: str | bytes) -> Any:
    """YAML text as plain values; InputError says what is wrong with it."""
    import yaml

    try:
        # A safe loader: no tag can construct an object.
        return _strict_loader()(text).get_single_data()
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InputError(f"not valid YAML: {error!s:.500}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. InputError names file and line of what is wrong."""
    if not path.is_file():
        raise InputError(f"no configuration file {path}: see configs/ for the ones that come with vqvideo")
    try:
        plain = _parsed(path.read_bytes())
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {error}") from error
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise InputError(f"{path}: expected keys and values, found {type(plain).__name__}")
    return plain


def parse_yaml(text: str, where: str) -> Any:
    """One value of YAML text, such as a number or a list. InputError, which names `where`, if it is none."""
    try:
        return _parsed(text)
    except InputError as error:
        raise InputError(f"{where}: {text!r:.80} is {error!s:.200}") from error


def write_yaml(value: Any) -> str:
    """A dataclass as YAML text that `read_yaml` and `from_plain` read back."""
    import yaml

    return yaml.safe_dump(to_plain(value), sort_keys=False, allow_unicode=True)


def typed(hint: type[T], plain: Any, where: str = "config") -> T:
    """`from_plain` for a class, with its type kept."""
    return typing.cast(T, from_plain(hint, plain, where))


def flat_settings(value: object) -> dict[str, str | int | float | bool]:
    """All settings as one flat dict with dotted names, as experiment trackers want them."""
    flat: dict[str, str | int | float | bool] = {}
    for key, item in to_plain(value).items():
        if isinstance(item, dict):
            flat |= {f"{key}.{name}": inner for name, inner in flat_settings(item).items()}
        else:
            flat[str(key)] = item if isinstance(item, str | int | float | bool) else str(item)
    return flat


def without_nan(value: Any) -> Any:
    """Plain values with None for every number that is not finite: JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
