"""Set up before any test is imported."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Processes that run beside each other share the cores: more threads than cores are far slower than one each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
