"""What the tests of several scripts need."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from vqvideo import cli


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a script's `main` inside this process, in the current folder; its exit code, and all that it printed."""

    def run(main: Callable[[], None], *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        code = 0
        try:
            cli.run(main)
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run
