"""The commands, a module each. `benchmarks/` is part of the repository alone: an installed package comes without it."""

from __future__ import annotations

from importlib.util import find_spec

from vqvideo.errors import InputError


def require_benchmarks() -> None:
    """InputError unless the benchmarks are there."""
    if find_spec("vqvideo.scripts.benchmarks") is None:
        raise InputError(
            "benchmarks are part of the repository, not of the installed package: clone it, run pip install -e . "
            "there, and then this script from scripts/"
        )
