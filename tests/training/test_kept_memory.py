"""Freed memory: kept by the process, unless the user has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vqvideo.training.memory import keep_freed_memory

PAGE = 4096
BYTES = 2**24
AGAIN_AND_AGAIN = f"""
import resource
from vqvideo.training.memory import keep_freed_memory
if not keep_freed_memory():
    raise SystemExit(77)
def touch():
    bytearray({BYTES})[:: {PAGE}] = bytes({BYTES // PAGE})
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_what_is_freed_is_taken_again_without_new_pages_of_the_system() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", AGAIN_AND_AGAIN], env=env, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip("another memory allocator than that of glibc")
    assert done.returncode == 0, done.stderr
    # Each time anew it would be 4 * 4096.
    assert int(done.stdout) < 400


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_TRIM_THRESHOLD_", "1000000"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000000")],
)
def test_what_the_user_has_set_counts(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()
