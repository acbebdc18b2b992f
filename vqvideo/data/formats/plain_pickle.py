"""Pickles of plain values, read without unpickling: nothing that a file names is ever imported or called.

A pickle is a program for a stack machine. This machine knows the instructions that make dictionaries, lists, tuples,
texts, bytes, numbers and arrays of NumPy, and refuses all others, with the name of what they would have called.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np

from vqvideo.errors import InputError

_MOST_STEPS = 2**22
"""Instructions of a pickle. Each adds at most one value to the memory."""
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
"""Numbers and bools: no objects, no texts."""
_CORE = ("numpy.core", "numpy._core")
_RECONSTRUCT = {(f"{core}.multiarray", "_reconstruct") for core in _CORE}
_SCALAR = {(f"{core}.multiarray", "scalar") for core in _CORE}
_FROM_BUFFER = {(f"{core}.numeric", "_frombuffer") for core in _CORE}
_ARRAY, _TYPE = ("numpy", "ndarray"), ("numpy", "dtype")
_KNOWN = _RECONSTRUCT | _SCALAR | _FROM_BUFFER | {_ARRAY, _TYPE}


def plain(content: bytes, where: str) -> Any:
    """The value of a pickle: dict, list, tuple, str, bytes, int, float, bool, None, arrays and scalars of NumPy.

    The strings that Python 2 wrote, which may be texts or bytes, come as texts in Latin-1.

    Args:
        content: the pickle, of protocol 2 or later. Arrays are read-only and point into it.
        where: begins errors.

    Raises:
        InputError: it would call something else, is damaged, or takes more steps than such values need.
    """
    machine = _Machine(where)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if number > _MOST_STEPS:
                raise InputError(f"{where}: a pickle of more than {_MOST_STEPS} instructions")
            machine.run(operation.name, argument)
        return machine.result()
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        said = str(error) if isinstance(error, ValueError) else repr(error)
        raise InputError(f"{where}: no pickle of plain values that can be read ({said:.200})") from error


class _Global(NamedTuple):
    """What a pickle names. It stays a name."""

    module: str
    name: str


@dataclass
class _Type:
    """The type of an array; what is said of it comes in two pieces."""

    letters: str
    order: str = "|"

    @property
    def dtype(self) -> np.dtype[Any]:
        if not _DTYPE.fullmatch(self.letters):
            raise ValueError(f"an array of type {self.letters!r:.40}, expected numbers")
        # "=" is the order of the machine that wrote it, which is not said: all that are used are little-endian.
        return np.dtype(self.letters).newbyteorder(">" if self.order == ">" else "<")


@dataclass
class _Blank:
    """An array that is announced, and follows."""

    memo: list[int] = field(default_factory=list)
    """Where it is remembered."""


class _Mark:
    """Where a group of values begins."""


class _Machine:
    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, operation: str, argument: Any) -> None:
        if operation in _VALUES:
            self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation]())
        elif operation in _OPERATIONS:
            _OPERATIONS[operation](self, argument)
        elif operation not in _NOTHING:
            raise InputError(f"{self.where}: a pickle with the instruction {operation}, expected plain values")

    def result(self) -> Any:
        if len(self.stack) != 1:
            raise ValueError(f"{len(self.stack)} values are left, expected one")
        return self.stack[0]

    def group(self) -> list[Any]:
        """The values behind the last mark, which leave the stack with it."""
        start = len(self.stack) - 1
        while not isinstance(self.stack[start], _Mark):
            start -= 1
            if start < 0:
                raise ValueError("a group of values without a beginning")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def take(self, count: int) -> list[Any]:
        """The uppermost values, which leave the stack."""
        if len(self.stack) < count:
            raise ValueError("values are missing")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    # ---------------------------------------------------------------- instructions

    def name(self, argument: str | None) -> None:
        module, name = argument.split(" ", 1) if argument is not None else self.take(2)
        found = _Global(_text(module), _text(name))
        if found not in _KNOWN:
            self.refuse(found)
        self.stack.append(found)

    def refuse(self, found: Any) -> NoReturn:
        called = f"{found.module}.{found.name}" if isinstance(found, _Global) else f"a {type(found).__name__}"
        raise InputError(
            f"{self.where}: a pickle that calls {called!r:.200}, and pickles can run anything: nothing was called. "
            "Expected plain values and arrays of NumPy; write the recordings anew, as npz or films"
        )

    def call(self, _: None) -> None:
        function, arguments = self.take(2)
        # Neither compared nor hashed before it is known to be no tuple of tuples of tuples ...
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            self.refuse(function)
        if function == _TYPE:
            self.stack.append(_Type(_text(arguments[0])))
        elif function in _RECONSTRUCT and arguments[0] == _ARRAY:
            self.stack.append(_Blank())
        elif function in _SCALAR:
            kind, content = arguments
            self.stack.append(_array(content, kind, ())[()])
        elif function in _FROM_BUFFER:
            content, kind, shape, order = arguments
            self.stack.append(_array(content, kind, shape, columns_first=_text(order) == "F"))
        else:
            self.refuse(function)

    def build(self, _: None) -> None:
        target, state = self.take(2)
        if not isinstance(state, tuple):
            raise ValueError(f"a {type(state).__name__} to build of, expected a tuple")
        if isinstance(target, _Type):
            target.order = _text(state[1])
            self.stack.append(target)
        elif isinstance(target, _Blank):
            _, shape, kind, columns_first, content = state
            array = _array(content, kind, shape, columns_first=columns_first is True)
            self.stack.append(array)
            self.memo.update(dict.fromkeys(target.memo, array))
        else:
            self.refuse(target)

    def remember(self, place: int | None) -> None:
        place, value = len(self.memo) if place is None else place, self.stack[-1]
        self.memo[place] = value
        if isinstance(value, _Blank):
            value.memo.append(place)

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError(f"values for a {type(target).__name__}, expected a list")
        target += values

    def set(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError(f"items for a {type(target).__name__}, expected a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str):
                raise ValueError(f"a dict with a {type(key).__name__} as key, expected texts")
            target[key] = value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__}, expected a text")
    return value


def _array(content: Any, kind: Any, shape: Any, *, columns_first: bool = False) -> np.ndarray[Any, Any]:
    """An array of its bytes. ValueError where its shape says another number of them."""
    content = content.encode("latin-1") if isinstance(content, str) else content  # as Python 2 wrote it
    if not isinstance(content, bytes) or not isinstance(kind, _Type) or not isinstance(shape, tuple):
        raise ValueError("an array without bytes, type or shape")
    if len(shape) > 32 or not all(isinstance(side, int) and 0 <= side < 2**63 for side in shape):
        raise ValueError("an array of a shape that is none")
    dtype = kind.dtype
    if prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"an array of {dtype} {shape} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if columns_first else "C")


_VALUES = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINSTRING", "BINSTRING"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_NOTHING = frozenset({"PROTO", "FRAME", "STOP"})
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.group())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.take(3))),
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.group()),
    "SETITEM": lambda machine, _: machine.set(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set(machine.group()),
    "BINPUT": lambda machine, place: machine.remember(place),
    "LONG_BINPUT": lambda machine, place: machine.remember(place),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}
