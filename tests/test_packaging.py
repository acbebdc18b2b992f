"""What is installed: every package folder is listed, and a wheel does the main job in an empty folder."""

from __future__ import annotations

import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from processes import Ended, run

ROOT = Path(__file__).parents[1]
MAPPED = ("envs", "scripts", "configs")
"""Folders at the top level that are installed inside the package."""


def test_every_package_of_the_library_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "vqvideo").rglob("__init__.py")}
    assert there | {f"vqvideo.{name}" for name in MAPPED} == set(settings["packages"])
    assert settings["package-dir"] == {f"vqvideo.{name}": name for name in MAPPED}


def test_versions_with_known_holes_are_not_installed() -> None:
    """Of torch the `weights_only` reader before 2.10, of PyAV the hangs before 15.1."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    least = dict(line.split(">=") for line in wanted if ">=" in line)
    assert tuple(map(int, least["torch"].split("."))) >= (2, 10)
    assert tuple(map(int, least["av"].split("."))) >= (15, 1)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this tree with one more world in it."""
    pytest.importorskip("setuptools", "77")
    home = tmp_path_factory.mktemp("tree")
    for name in ("vqvideo", *MAPPED):
        leave_out = shutil.ignore_patterns("__pycache__", *(MAPPED if name == "vqvideo" else ()))
        shutil.copytree(ROOT / name, home / name, ignore=leave_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home)
    world = ("config.json", "model.safetensors", "manifest.json", "README.md")
    starts = ("starts/meta.json", "starts/manifest.jsonl", "starts/episodes/000000.safetensors")
    for name in (*world, *starts):
        (home / "vqvideo" / "pretrained" / "standin" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "vqvideo" / "pretrained" / "standin" / name).write_text("standin")
    (home / "out").mkdir()
    build = "from setuptools import build_meta; build_meta.build_wheel('out')"
    ended = run(sys.executable, "-c", build, cwd=home)
    assert ended.code == 0, ended.err
    (built,) = (home / "out").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, found before the tree that the tests run in."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


CONSOLE = """
import sys
# The finders of an editable installation would add what this tree has to what the wheel holds.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
from vqvideo.cli import console
console()
"""


def vqvideo(installed: Path, home: Path, *arguments: str) -> Ended:
    """The console command of the installed wheel, in the folder `home`."""
    return run(sys.executable, "-c", CONSOLE, *arguments, cwd=home, PYTHONPATH=str(installed))


def test_a_wheel_holds_library_scripts_configs_and_shipped_worlds_but_no_benchmarks(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    home = wheel.parents[1]
    worlds = {str(p.relative_to(home)) for p in (home / "vqvideo" / "pretrained").rglob("*") if p.is_file()}
    assert "vqvideo/pretrained/standin/starts/episodes/000000.safetensors" in worlds
    assert worlds <= inside
    assert {"vqvideo/scripts/rollout.py", "vqvideo/configs/car_racing.yaml", "vqvideo/envs/__init__.py"} <= inside
    assert {"vqvideo/export/web/index.html", "vqvideo/export/web/page.css", "vqvideo/export/web/app.js"} <= inside
    assert not [name for name in inside if "benchmarks/" in name or "results/" in name]


def test_an_installed_wheel_dreams_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    short = ("--clips", "1", "--length", "2", "--evaluate", "0", "--threads", "1")
    ended = vqvideo(installed, tmp_path, "rollout", "--env", "CarRacing", *short)
    assert ended.code == 0, ended.err
    assert "taking carracing, which comes with vqvideo" in ended.out
    assert list(tmp_path.rglob("*.mp4"))


def test_the_console_command_lists_its_verbs_and_names_itself_in_errors(installed: Path, tmp_path: Path) -> None:
    listed = vqvideo(installed, tmp_path)
    assert listed.code == 0, listed.err
    verbs = {line.split()[0] for line in listed.out.splitlines() if line.startswith("  ")}
    assert {"record", "train-vqvae", "train-prior", "rollout", "quickstart", "train-agent", "verify"} <= verbs
    misspelt = vqvideo(installed, tmp_path, "recrod")
    assert (misspelt.code, "did you mean record" in misspelt.err) == (2, True)
    untrained = vqvideo(installed, tmp_path, "train-prior", "--name", "nothing")
    assert untrained.code == 2
    assert "accelerate launch -m vqvideo.scripts.train_vqvae --name nothing" in untrained.err
    assert "scripts/" not in untrained.err
    assert "Traceback" not in untrained.err


def test_a_trainings_module_can_be_launched(installed: Path, tmp_path: Path) -> None:
    launch = ("-m", "accelerate.commands.launch", "--cpu", "-m", "vqvideo.scripts.train_vqvae", "--help")
    ended = run(sys.executable, *launch, cwd=tmp_path, PYTHONPATH=str(installed))
    assert ended.code == 0, ended.err
    assert "--vqvae.train.steps" in ended.out
