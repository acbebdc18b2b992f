"""What is installed: every package folder is listed."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_of_the_library_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "vqvideo").rglob("__init__.py")}
    assert there | {"vqvideo.envs"} == set(settings["packages"])
