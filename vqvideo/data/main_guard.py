"""Scripts that record without `if __name__ == "__main__":`. Every worker imports the script, and would come to the same
call: it ends there instead, and the main process says what to do.
"""

from __future__ import annotations

import multiprocessing
import sys

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
