"""Memory that was freed, kept for the next step.

A training step, or a dream of many streams, takes the same large temporaries again and again. glibc gives them back to
the system, which fills every page with zeros and hands it out anew at its first touch. On a virtual machine, steps took
2 to 12 % longer by that.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""
_LARGEST = 2**31 - 1
"""Bytes at the end of the heap that are kept: as many as an int can say."""
_OWN_PAGES = 2**25
"""Bytes from which on an allocation has pages of its own, which are given back. Steps were no faster with more, and
among allocations of mixed sizes the peak grew by 12 % on average at 2**30, by 3 % here. What glibc itself goes up to.
"""


def keep_freed_memory() -> bool:
    """Has this process keep what it frees, in place of giving it back to the system. Returns whether it does: only with
    glibc, and only where no environment variable (MALLOC_..., GLIBC_TUNABLES) says otherwise.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or sys.platform != "linux":
        return False
    c = ctypes.CDLL(None)
    if not hasattr(c, "gnu_get_libc_version"):
        return False
    return bool(c.mallopt(_MMAP_THRESHOLD, _OWN_PAGES)) and bool(c.mallopt(_TRIM_THRESHOLD, _LARGEST))
