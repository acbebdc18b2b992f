"""The one error for what a user gave us: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable


class InputError(ValueError):
    """Something outside the code is wrong: a file, a flag, an action, a frame.

    Scripts print its message without a traceback and exit with code 2.
    """


class MissingExtraError(InputError, ModuleNotFoundError):
    """A package is not installed that an extra of vqvideo brings. `except ImportError` catches it too.

    Args:
        error: what went wrong, usually the failed import; `name` of this error is then the missing module's.
        extra: the extra, as in `pip install 'vqvideo[agent]'`.
    """

    def __init__(self, error: Exception | str, extra: str) -> None:
        super().__init__(f"{error}: pip install 'vqvideo[{extra}]'")
        self.name = getattr(error, "name", None)


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `name`: the nearest known names, or the short list of all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(known)}" if len(known) <= 20 else ""


def at_least(settings: object, prefix: str, **least: float) -> None:
    """InputError for the first setting that is given (is not None) and below its least value.

    Args:
        settings: what has them as attributes.
        prefix: what goes before their names: "agent." for a part of an experiment, "--" for options.
        least: the least value of each.
    """
    for name, low in least.items():
        value = getattr(settings, name)
        # Also for nan, which is not smaller than anything.
        if value is not None and not value >= low:
            shown = name.replace("_", "-") if prefix == "--" else name
            raise InputError(f"{prefix}{shown} is {value}, expected at least {low}")


def fractions(settings: object, prefix: str, *names: str) -> None:
    """InputError for the first of these settings that is not in 0 .. 1; prefix as of `at_least`."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise InputError(f"{prefix}{name} is {value}, expected 0 .. 1")


def whole(value: object, name: str, least: int = 1, most: int = 2**63 - 1) -> int:
    """A whole number as a Python int: numpy's and PyTorch's are ones, while 2.0, "2" and True are mistakes.

    Raises:
        InputError: something else, or a number outside `least` .. `most`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{name} is {value!r:.100}, expected a whole number of at least {least}")
    if number > most:
        raise InputError(f"{name} is {value!r:.100}, expected at most {most}")
    return number


class RunStoppedError(RuntimeError):
    """A run that ended early and in good order; scripts print the message and exit with `exit_code`."""

    exit_code = 1
