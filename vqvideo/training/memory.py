"""Memory that was freed, kept for the next step.

A training step, or a dream of many streams, takes the same large temporaries again and again. glibc gives them back to
the X
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
_LARGEST = 2**31 - 1
"""Bytes at the end of the heap that are kept: as many as an int can say."""
_OWN_MAPPING = (2**30, 2**25)
"""From this size on an allocation gets pages of its own, which are given back. Older glibcs take the smaller only."""


def keep_freed_memory() -> bool:
    """Has this process keep what it frees, up to its peak, which does not change by that. Returns whether it does:
    only with glibc, and only where no environment variable (MALLOC_..., GLIBC_TUNABLES) says otherwise.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or sys.platform != "linux":
        return False
    c = ctypes.CDLL(None)
    if not hasattr(c, "gnu_get_libc_version"):
        return False
    return any(c.mallopt(_MMAP_THRESHOLD, size) for size in _OWN_MAPPING) and bool(c.mallopt(_TRIM_THRESHOLD, _LARGEST))
