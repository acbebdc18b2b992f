"""What is installed: every package folder is listed, and shipped worlds are in the wheel."""

from __future__ import annotations

import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from processes import run

ROOT = Path(__file__).parents[1]


def test_every_package_of_the_library_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "vqvideo").rglob("__init__.py")}
    assert there | {"vqvideo.envs", "vqvideo.scripts", "vqvideo.configs"} == set(settings["packages"])


def test_a_shipped_world_is_whole_in_a_wheel(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77")
    for name in ("vqvideo", "envs", "scripts", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    home = tmp_path / "vqvideo" / "pretrained"
    world = ("config.json", "model.safetensors", "manifest.json", "README.md")
    starts = ("starts/meta.json", "starts/manifest.jsonl", "starts/episodes/000000.safetensors")
    for name in (*world, *starts):
        (home / "standin" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "standin" / name).write_text("standin")
    (tmp_path / "out").mkdir()
    build = "from setuptools import build_meta; build_meta.build_wheel('out')"
    ended = run(sys.executable, "-c", build, cwd=tmp_path)
    assert ended.code == 0, ended.err
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    there = {str(path.relative_to(tmp_path)) for path in home.rglob("*") if path.is_file()}
    assert "vqvideo/pretrained/standin/starts/episodes/000000.safetensors" in there
    assert there <= inside
