"""Episodes on disk and the clips that training sees."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqvideo.data.arrays import write_store as write_store

_HOMES = {"write_store": "arrays"}
"""Public names and their modules, which are loaded when they are first used."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqvideo.data' has no attribute {name!r}")
    return getattr(import_module(f"vqvideo.data.{_HOMES[name]}"), name)
