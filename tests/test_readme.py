"""What the README shows is true: its code runs, its commands run, its figures are those that were measured."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from processes import launch
from videos import moving_frames, write_video

from vqvideo.export import runtime as page_runtime
from vqvideo.play import server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "configs" / "results"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Every command line of the bash blocks, without its comment, in the order of the page."""
    joined = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip()]


# ---------------------------------------------------------------- code and settings


def test_the_library_example_runs_and_gives_the_shapes_it_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(code, names)
    dream = names["dream"]
    assert (dream.frames.shape, dream.frames.dtype) == ((1, 32, 3, 64, 64), torch.uint8)
    assert dream.rewards.shape == dream.termination.shape == dream.entropy.shape == (1, 16)
    assert names["observations"].shape == (4, 64, 64, 3)
    assert (tmp_path / "my_world" / "model.safetensors").is_file()


def test_the_settings_that_are_shown_are_settings() -> None:
    from vqvideo.experiment.config import Experiment
    from vqvideo.storage.records import typed

    (shown,) = [typed(Experiment, yaml.safe_load(text)) for text in blocks("yaml")]
    assert type(shown.vqvae.model.quantizer).__name__ == "FSQConfig"
    assert shown.vqvae.stills.per_batch == 8
    assert type(shown.vqvae.adversarial).__name__ == "PatchDiscriminator3D"
    assert type(shown.prior.model.head).__name__ == "MaskedHeadConfig"
    assert type(shown.prior.model.conditioning).__name__ == "AdaLNConfig"


def test_the_set_up_is_two_commands_one_for_the_main_job_and_one_for_the_tests() -> None:
    installs = [command for command in commands() if "pip install" in command]
    assert len(installs) == 2
    assert installs[0].endswith("python scripts/quickstart.py")
    assert "&& pytest" in installs[1]


def test_the_page_is_short_and_its_guides_fit_on_a_screen() -> None:
    assert len(README.splitlines()) <= 200
    for guide in re.findall(r"^## For .*?(?=^## )", README, flags=re.DOTALL | re.MULTILINE):
        assert len(guide.splitlines()) <= 42, guide.splitlines()[0]


def test_files_and_links_that_the_page_names_are_there() -> None:
    named = re.findall(r"\]\((?!#|http)([^)#]+)", README) + re.findall(r"`(vqvideo/[\w/]+\.py)`", README)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


# ---------------------------------------------------------------- commands

TRAIN = {"steps": 3, "batch": 2, "warmup": 1, "threads": 1, "precision": "no", "min_seconds": None, "max_seconds": None}
TINY: dict[str, Any] = {
    "record": {"episodes": 6, "steps": 40, "frame_size": 32, "workers": 0, "held_out_every": 3},
    "vqvae": {
        "latent_steps": 3,
        "validation_clips": 2,
        "model": {
            "backbone": {"kind": "FactorisedConv", "strides": [2, 8, 8], "patch": 4, "widths": [8, 16]},
            "quantizer": {"kind": "EMAVQ", "codebook_size": 16, "dim": 4},
        },
        "train": TRAIN,
    },
    "prior": {
        "latent_steps": 3,
        "validation_clips": 2,
        "segments": {"latent_steps": 4, "every": 7},
        "model": {"dim": 16, "heads": 2, "layers": 2, "window": 3, "patch": 1},
        "train": TRAIN,
    },
    "agent": {
        **{"steps": 64, "num_envs": 4, "horizon": 4, "starts": 8, "direct_envs": 1, "episodes": 2, "longest": 8},
        "ppo": {"rollout": 8, "batch": 16, "epochs": 1},
    },
}
FLAGS: Mapping[str, list[str]] = {
    "import_data": ["--steps", "12", "--frame-size", "32", "--held-out-every", "3"],
    "record": ["--episodes", "6", "--steps", "40", "--frame-size", "32", "--workers", "0", "--held-out-every", "3"],
    "rollout": ["--clips", "1", "--evaluate", "2", "--context", "2", "--length", "3", "--threads", "1"],
    "evaluate_world": ["--clips", "2", "--context", "2", "--horizon", "3"],
    "evaluate_dreams": ["--episodes", "2", "--horizon", "3"],
    "bakeoff_prior": ["--context", "2", "--horizon", "3", "--clips", "2"],
    "benchmark": ["--quick"],
    "improve": ["--improve.rounds", "2"],
    "report": [
        "--clips",
        "2",
        "--shown",
        "1",
        "--context",
        "2",
        "--horizon",
        "3",
        "--teacher-steps",
        "3",
        "--threads",
        "1",
    ],
    "export_web": ["--starts", "2"],
    "play": ["--port", "0", "--threads", "1", "--no-real"],
}
"""What makes a command of the README small, beside settings."""


def tiny_config(path: Path) -> str:
    """A config of this repository with models and budgets cut down, as YAML."""
    settings = yaml.safe_load(path.read_text())
    for stage, own in TINY.items():
        given = settings.get(stage) or {}
        settings[stage] = {**given, **own}
    return yaml.safe_dump(settings)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as a newcomer has it, but with small settings: the commands are typed in it, one after the other."""
    home = tmp_path_factory.mktemp("clone")
    (home / "scripts").symlink_to(ROOT / "scripts")
    for path in (ROOT / "configs").rglob("*.yaml"):
        copy = home / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text() if path.parent.name == "bakeoff" else tiny_config(path))
    for number in range(2):
        write_video(home / "my_videos" / f"{number}.mp4", moving_frames(40), codec="libx264", pixels="yuv420p")
    return home


def tiny(words: list[str], module: Any) -> list[str]:
    """The arguments of a command with what makes it small: their own values of such flags are replaced."""
    script = module.__name__.rpartition(".")[2]
    own = list(FLAGS.get(script, []))
    if script.startswith("bakeoff"):
        suite = words[words.index("--suite") + 1] if "--suite" in words else "configs/bakeoff/tokenizer.yaml"
        own += ["--only", next(iter(yaml.safe_load(Path(suite).read_text())))]
    for flag in (word for word in own if word.startswith("--")):
        if flag in words:
            del words[words.index(flag) : words.index(flag) + 2]
    if hasattr(module, "CONFIG") and "--config" not in words:
        own += ["--config", f"configs/{module.CONFIG.name}"]
    return words + own


def typed(command: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a command of the README; empty, or what went wrong."""
    words = shlex.split(command.split("&&")[-1])
    place = next(i for i, word in enumerate(words) if word.startswith("scripts/"))
    module = import_module(f"vqvideo.scripts.{Path(words[place]).stem}")
    arguments = tiny(words[place + 1 :], module)
    if "--num_processes" in words:
        several = words[words.index("launch") + 1 : place]
        ended = launch(*several, words[place], *arguments, "--name", "two", cwd=home, ACCELERATE_USE_CPU="true")
        return "" if ended.code == 0 else ended.err
    monkeypatch.setattr(sys, "argv", [words[place], *arguments])
    try:
        module.main()
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return ""


COMMANDS = [command for command in commands() if "scripts/" in command]


@pytest.fixture(scope="module")
def outcomes(home: Path) -> dict[str, str]:
    """All commands in the order of the page: later ones need what earlier ones made."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(home)
        # A server would not end, and a browser's runtime would be fetched.
        monkeypatch.setattr(server, "runner", lambda app, size: SimpleNamespace(run=lambda sockets: None))
        monkeypatch.setattr(page_runtime, "runtime", lambda given: dict.fromkeys(page_runtime.FILES, b"-"))
        return {command: typed(command, home, monkeypatch) for command in COMMANDS}


@pytest.mark.timeout(1200)  # the first one runs them all
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_does_its_job(command: str, outcomes: dict[str, str]) -> None:
    assert outcomes[command] == ""


@pytest.mark.timeout(1200)
def test_the_commands_leave_what_the_page_says(home: Path, outcomes: dict[str, str]) -> None:
    del outcomes
    assert (home / "data" / "car_racing" / "manifest.jsonl").is_file()
    assert list((home / "runs" / "car_racing" / "rollout").glob("*.mp4"))
    figures = json.loads((home / "figures.json").read_text())
    assert {"subject", "hardware", "versions", "settings", "notes", "results"} == set(figures)
    assert all(row["frames_per_s"] > 0 for row in figures["results"]["cpu"]["tokenizer"])
    for name in ("quickstart", "car_racing", "lunar_lander_v3", "two", "my_videos"):
        assert (home / "runs" / name / "vqvae" / "model" / "model.safetensors").is_file(), name


# ---------------------------------------------------------------- figures


def test_the_figures_shown_are_the_measured_ones() -> None:
    flagship = json.loads((RESULTS / "car_racing.json").read_text())
    shown = README[README.index("What to expect") : README.index("## For video")]
    assert f"reaches {flagship['tokenizer']['psnr_db']:.1f} dB" in shown
    assert f"are {flagship['summary']['gain_db_mean_of_8_steps']:.1f} dB better" in shown
    assert f"worth {flagship['summary']['controllability_db_16_steps']:.1f} dB" in shown


@pytest.mark.parametrize(("name", "digits"), [("agent_tiny_world_rounds", 1), ("agent_obstacles_rounds", 2)])
def test_the_agents_returns_are_the_measured_ones(name: str, digits: int) -> None:
    agents = json.loads((RESULTS / f"{name}.json").read_text())["agents"]
    page = (RESULTS / "README.md").read_text()
    for agent in agents.values():
        mean, least = agent["iqm"], agent["minimum"]
        assert f"{mean:.2f}" in page
        assert f"{least:.2f}" in page
    dream = agents["learnt in the dream"]
    assert f"interquartile mean {dream['iqm']:.{digits}f}, minimum {dream['minimum']:.{digits}f}" in " ".join(
        README.split()
    )
