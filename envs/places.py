"""Where an error comes from, in the user's code."""

from __future__ import annotations

import traceback
from pathlib import Path

import gymnasium


def place_of(error: BaseException) -> str:
    """File and line of the code that raised an error, as " (my_env.py, line 3)"; nothing for Gymnasium's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    last = frames[-1] if frames else None
    ours = (str(Path(__file__).parent), str(Path(gymnasium.__file__).parent))
    return "" if last is None or last.filename.startswith(ours) else f" ({last.filename}, line {last.lineno})"
