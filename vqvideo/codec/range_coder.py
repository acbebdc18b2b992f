"""Symbols to 32-bit words and back, by constriction's range coder (Bamler 2022, arXiv:2201.01741)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError, MissingExtraError

Words = NDArray[np.uint32]


def coder_name() -> str:
    """The coder and the part of its version that tells incompatible ones apart."""
    _stream()
    major, minor, *_ = version("constriction").split(".")
    return f"constriction {major}.{minor}" if major == "0" else f"constriction {major}"


def _stream() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise MissingExtraError(error, "codec") from error
    return constriction.stream


def _family() -> Any:
    # Not the "perfect" one, which takes a thousand times as long for a ten thousandth of the size.
    return _stream().model.Categorical(perfect=False)


class RangeEncoder:
    """Takes symbols one table after the other."""

    def __init__(self) -> None:
        self._coder, self._categorical = _stream().queue.RangeEncoder(), _family()

    def encode(self, symbols: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Symbols (m,), each by its table of the weights (m, k)."""
        self._coder.encode(symbols.astype(np.int32), self._categorical, weights)

    def encode_flat(self, symbols: NDArray[np.int64], size: int) -> None:
        """Symbols (m,) of 0 .. size - 1, all as likely."""
        self._coder.encode(symbols.astype(np.int32), _stream().model.Uniform(size))

    def words(self) -> Words:
        """What they became."""
        return self._coder.get_compressed()


class RangeDecoder:
    """Gives symbols back, by the same tables in the same order."""

    def __init__(self, words: Words) -> None:
        self._coder, self._categorical = _stream().queue.RangeDecoder(words), _family()

    def decode(self, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Symbols (m,) by the weights (m, k). InputError for words that no symbols became."""
        return _checked(lambda: self._coder.decode(self._categorical, weights))

    def decode_flat(self, count: int, size: int) -> NDArray[np.int64]:
        """`count` symbols of 0 .. size - 1."""
        return _checked(lambda: self._coder.decode(_stream().model.Uniform(size), count))

    def finish(self) -> None:
        """InputError unless all words are used up."""
        if not self._coder.maybe_exhausted():
            raise InputError("more codes than were asked for: damaged, or of another model")


def _checked(decode: Any) -> NDArray[np.int64]:
    try:
        return np.asarray(decode(), np.int64)
    except (AssertionError, ValueError) as error:
        raise InputError(f"codes that cannot be decoded ({error}): damaged, or of another model") from error
