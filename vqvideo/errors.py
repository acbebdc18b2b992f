"""The one error for what a user gave us: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something outside the code is wrong: a file, a flag, an action, a frame.

    Scripts print its message without a traceback and exit with code 2.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `name`: the nearest known names, or the short list of all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(known)}" if len(known) <= 20 else ""


class RunStoppedError(RuntimeError):
    """A run that ended early and in good order; scripts print the message and exit with `exit_code`."""

    exit_code = 1
