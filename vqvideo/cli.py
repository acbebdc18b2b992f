"""What every script does around its `main`, and the one console command that runs them all: `vqvideo VERB ...`."""

from __future__ import annotations

import ast
import logging
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from vqvideo.errors import InputError, RunStoppedError, suggest

INPUT_ERROR_CODE = 2
INTERRUPTED_CODE = 130
TERMINATED_CODE = 143

_SCRIPT = re.compile(r"(?:python )?scripts/(\w+)\.py")


def console() -> None:
    """`vqvideo VERB ...` does what `python scripts/VERB.py ...` does in a clone."""
    verbs = _verbs()
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        width = max(map(len, verbs))
        print("usage: vqvideo VERB [options]; vqvideo VERB --help lists the options\n")
        print("\n".join(f"  {verb:{width}}  {what}" for verb, what in verbs.items()))
        return
    if given[0] == "--version":
        from vqvideo import __version__

        print(__version__)
        return
    verb, *arguments = given
    known = verb.replace("_", "-")
    if known not in verbs:
        print(f"error: vqvideo {verb}: {suggest(verb, verbs)}", file=sys.stderr)
        sys.exit(INPUT_ERROR_CODE)
    sys.argv = [f"vqvideo {known}", *arguments]
    run(lambda: import_module(f"vqvideo.scripts.{known.replace('-', '_')}").main())


def _verbs() -> dict[str, str]:
    """The scripts that can be run, with the first sentence of each. They are read and not imported: that takes time."""
    folder = Path(import_module("vqvideo.scripts").__path__[0])
    verbs = {}
    for found in pkgutil.iter_modules([str(folder)]):
        if not found.ispkg:
            tree = ast.parse((folder / f"{found.name}.py").read_text(encoding="utf-8"))
            if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
                verbs[found.name.replace("_", "-")] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return verbs


def run(main: Callable[[], None]) -> None:
    """Runs a script's `main`.

    An `InputError` is printed without a traceback and ends the script with code 2; Ctrl-C ends it with code 130,
    SIGTERM with 143, a run that stopped in good order with the code it gives. Any other exception is a bug and keeps
    its traceback.
    """
    from vqvideo.training.memory import keep_freed_memory
    from vqvideo.training.signals import Terminated, raise_on_termination

    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s", stream=sys.stderr)
    raise_on_termination()
    try:
        main()
    except InputError as error:
        print(f"error: {commands_here(str(error))}", file=sys.stderr)
        sys.exit(INPUT_ERROR_CODE)
    except RunStoppedError as stopped:
        print(f"stopped: {commands_here(str(stopped))}", file=sys.stderr)
        sys.exit(stopped.exit_code)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("vqvideo.scripts.benchmarks"):
            raise
        print(
            f"error: {sys.argv[0]}: what is measured beside others is in the repository only: clone it", file=sys.stderr
        )
        sys.exit(INPUT_ERROR_CODE)
    except Terminated:
        sys.exit(TERMINATED_CODE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_CODE)


def commands_here(text: str) -> str:
    """A text whose commands can be typed here: in a clone they name scripts, elsewhere the console command."""
    # Many projects have a folder of that name: it is this one's file that counts.
    if Path("scripts/train_vqvae.py").is_file():
        return text
    text = re.sub(r"accelerate launch scripts/(\w+)\.py", r"accelerate launch -m vqvideo.scripts.\1", text)
    return _SCRIPT.sub(lambda found: f"vqvideo {found[1].replace('_', '-')}", text)


def report(title: str, figures: Mapping[str, float]) -> None:
    """Prints figures, a line each."""
    print(title)
    for name, value in figures.items():
        print(f"  {name:24s} {value:.4g}")
