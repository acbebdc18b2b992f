"""The tutorial on vector quantisation: every number that it shows is what comes out."""

from __future__ import annotations

import doctest
from pathlib import Path

TUTORIAL = Path(__file__).parents[1] / ".github" / "TUTORIAL.md"


def test_every_line_of_the_tutorial_gives_what_it_shows() -> None:
    tried = doctest.testfile(str(TUTORIAL), module_relative=False, encoding="utf-8")
    assert tried.attempted > 25
    assert tried.failed == 0
