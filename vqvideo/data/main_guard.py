"""The script that records, which every worker imports. Without `if __name__ == "__main__":` it would come to the same
call there: it ends instead, and the main process says what to do.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

IMPORTING_NAME = "vqvideo-worker-imports-the-main-script"
"""What a worker's process is called until the main script is imported."""
UNGUARDED = 113
"""The exit code of one that met a recording there."""
ADVICE = (
    'this script records outside of `if __name__ == "__main__":`. Worker processes import it and would record in turn: '
    "put the call under that line, or play in this process with workers=0"
)


def end_second_recording() -> None:
    """Ends a worker that is still importing the main script; nothing anywhere else. For what begins a recording."""
    if multiprocessing.current_process().name == IMPORTING_NAME:
        sys.exit(UNGUARDED)


@contextmanager
def importable_main() -> Iterator[None]:
    """Lets processes start whose main script no longer has a file, or came through a pipe: they import none."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or os.path.exists(file):
        yield
        return
    # What cloudpickle sends of the script goes along by value.
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file
