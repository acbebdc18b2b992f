"""What every script does around its `main`: set up logging, and end cleanly on errors of the user's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping

from vqvideo.errors import InputError, RunStoppedError
from vqvideo.training.signals import Terminated, raise_on_termination

INPUT_ERROR_CODE = 2
INTERRUPTED_CODE = 130
TERMINATED_CODE = 143


def run(main: Callable[[], None]) -> None:
    """Runs a script's `main`.

    An `InputError` is printed without a traceback and ends the script with code 2; Ctrl-C ends it with code 130,
    SIGTERM with 143, a run that stopped in good order with the code it gives. Any other exception is a bug and keeps
    its traceback.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s", stream=sys.stderr)
    raise_on_termination()
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(INPUT_ERROR_CODE)
    except RunStoppedError as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except Terminated:
        sys.exit(TERMINATED_CODE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_CODE)


def report(title: str, figures: Mapping[str, float]) -> None:
    """Prints figures, a line each."""
    print(title)
    for name, value in figures.items():
        print(f"  {name:24s} {value:.4g}")
