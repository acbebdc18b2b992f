"""The models: tensors in, tensors out. Knows no store, no training loop and no environment.

Each room below has its settings in `config.py`, which needs no torch, and one file for each class that is built from
them. `--help` reads settings only, so classes are loaded when they are built, or when their names are first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def class_of(settings: object, room: str) -> Any:
    """What settings are settings of, by its name among those of the room: for an FSQConfig that is FSQ."""
    return getattr(import_module(f"{__name__}.{room}"), type(settings).__name__.removesuffix("Config"))


def on_first_use(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The `__getattr__` (PEP 562) of a package for the names that each of its modules gives it."""
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
