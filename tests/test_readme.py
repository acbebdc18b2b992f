"""What the README shows is true: its code runs, its commands exist, its figures are those that were measured."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reliability.guarantees import GUARANTEES
from reliability.table import markdown
from stores import make_meta
from tiny_models import make_spec, vqvae_config

from vqvideo.data.playing import Job, play
from vqvideo.data.store import StoreWriter
from vqvideo.envs import PRESETS
from vqvideo.envs.policies import imagined_actions, make_policy
from vqvideo.models.prior import Prior, PriorConfig
from vqvideo.spaces import ActionSpace
from vqvideo.world import EnvFacts, WorldModel

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Every command line of the bash blocks, without its comment."""
    joined = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line.strip()]


@pytest.fixture
def trained_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data/car_racing and runs/car_racing/world as the commands leave them, but tiny and untrained."""
    import dataclasses

    from vqvideo import envs

    preset = dataclasses.replace(PRESETS["CarRacing"], skip_first=0)
    env = envs.make(preset)
    space = ActionSpace.from_gymnasium(env.action_space)
    env.close()
    (tmp_path / "data").mkdir()
    meta = make_meta(action_space=space, frame_size=(64, 64), held_out_every=1)
    job = Job(lambda: envs.make(preset), lambda: make_policy("smooth"), 40, (64, 64), 0)
    with StoreWriter.open(tmp_path / "data" / "car_racing", meta) as writer:
        env, policy = job.make_env(), job.make_policy()
        writer.add(0, play(job, 0, env, policy, lambda step: None), "held_out")
        env.close()
    vqvae = vqvae_config(stride=2).build((64, 64)).eval()
    stats = make_spec(space).stats
    spec = make_spec(space, grid=vqvae.grid, stats=stats, tokenizer=vqvae.fingerprint())
    prior = Prior(PriorConfig(dim=32, heads=2), spec, vqvae.codebook)
    WorldModel(vqvae, prior, EnvFacts("CarRacing", 25.0, 2)).save_pretrained(tmp_path / "runs/car_racing/world")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_library_example_runs_and_gives_the_shapes_it_states(trained_folder: Path) -> None:
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(code, names)
    dream = names["dream"]
    assert dream.frames.shape == (1, 32, 3, 64, 64)  # type: ignore[attr-defined]
    assert dream.frames.dtype == torch.uint8  # type: ignore[attr-defined]
    assert dream.rewards.shape == dream.termination.shape == dream.entropy.shape == (1, 16)  # type: ignore[attr-defined]
    assert (trained_folder / "my_world" / "model.safetensors").is_file()


@pytest.mark.parametrize("command", [c for c in commands() if "scripts/" in c])
def test_every_command_names_a_script_and_flags_that_exist(command: str) -> None:
    words = shlex.split(command.split("&&")[-1])
    script = next(word for word in words if word.startswith("scripts/"))
    flags = [word for word in words[words.index(script) :] if word.startswith("--")]
    shown = subprocess.run(
        [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    known = set(re.findall(r"--[a-z][a-z0-9.-]*", shown.stdout)) | {"--config"}
    assert {flag.split("=")[0] for flag in flags} <= known


def test_the_set_up_is_two_commands_one_for_the_main_job_and_one_for_the_tests() -> None:
    installs = [command for command in commands() if "pip install" in command]
    assert len(installs) == 2
    assert installs[0].endswith("python scripts/quickstart.py")
    assert "&& pytest" in installs[1]


def test_the_named_actions_of_the_readme_are_known() -> None:
    named = [word for command in commands() for word in re.findall(r"--actions (\S+)", command)]
    assert named
    assert all(name in PRESETS["CarRacing"].actions for name in named)


def test_a_policy_that_needs_the_real_road_is_refused_in_a_dream() -> None:
    from gymnasium.spaces import Discrete

    from vqvideo.errors import InputError

    assert len(imagined_actions("random", Discrete(5), 3, seed=0)) == 3
    with pytest.raises(InputError, match="steers by the real road"):
        imagined_actions("drive", Discrete(5), 3, seed=0)


def test_the_figures_shown_are_the_measured_ones() -> None:
    results = json.loads((ROOT / "configs" / "results" / "quickstart.json").read_text())
    shown = README[README.index("## Figures") : README.index("## Step by step")]
    assert f"{results['tokenizer']['psnr_db']:.1f} dB" in shown
    assert f"{results['prior']['controllability_db']:.1f} dB" in shown
    assert f"{results['speed']['frames_per_s_1']:.0f}" in shown
    assert f"{results['speed']['frames_per_s_16']:.0f}" in shown


def test_the_promises_are_shown_with_their_last_results() -> None:
    page = (ROOT / "configs" / "results" / "README.md").read_text()
    shown = page.partition("<!-- promises -->")[2].partition("<!-- end of promises -->")[0].strip()
    assert shown == markdown(json.loads((ROOT / "configs" / "results" / "reliability.json").read_text()))
    assert shown.count("\n") == len(GUARANTEES) + 1, "run python tests/reliability and show its table"


def test_what_checkpoints_cost_is_what_was_measured() -> None:
    page = (ROOT / "configs" / "results" / "README.md").read_text()
    figures = json.loads((ROOT / "configs" / "results" / "benchmark_checkpoint.json").read_text())["results"]
    for saved in figures["save"]:
        if not saved["state"].startswith("tiny_world"):
            assert f"{saved['seconds']:.3f}" in page
    for share in figures["share"]:
        assert f"{share['percent']:.2f}%" in page
        assert share["percent"] < 3


@pytest.mark.parametrize("name", ["tiny_world", "dynamic_obstacles"])
def test_the_agents_returns_are_the_measured_ones(name: str) -> None:
    """On both pages."""
    results = json.loads((ROOT / "configs" / "results" / f"agent_{name}.json").read_text())
    page = (ROOT / "configs" / "results" / "README.md").read_text()
    for shown in (README.replace("**", ""), page):
        assert f"{results['real_frames_used']:,}" in shown
        for agent in results["agents"].values():
            low, high = (0.0 + round(agent[end], 2) for end in ("low_95", "high_95"))
            assert f"{agent['mean_return']:.2f} [{low:.2f}, {high:.2f}]" in shown


def test_the_settings_that_are_shown_are_settings() -> None:
    import yaml

    from vqvideo.experiment.config import Experiment
    from vqvideo.storage.records import typed

    shown = [typed(Experiment, yaml.safe_load(text)) for text in blocks("yaml")]
    prior, tokenizer = shown
    assert type(tokenizer.vqvae.model.quantizer).__name__ == "FSQConfig"
    assert tokenizer.vqvae.stills.per_batch == 8
    assert type(tokenizer.vqvae.adversarial).__name__ == "PatchDiscriminator3D"
    assert type(prior.prior.model.head).__name__ == "MaskedHeadConfig"
    assert type(prior.prior.model.conditioning).__name__ == "AdaLNConfig"
