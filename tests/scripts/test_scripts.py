"""The scripts from end to end on TinyWorld, and how they end when something is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import SCRIPTS, run, script
from videos import read_video

sys.path.insert(0, str(SCRIPTS))

from vqvideo.data.config import RecordConfig
from vqvideo.data.store import Store
from vqvideo.experiment.config import Experiment, TrainingOptions
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts import evaluate, quickstart, record, rollout, train_prior, train_vqvae
from vqvideo.world import WorldModel

CONFIG = """
name: tiny_world
record: {env: TinyWorld}
vqvae:
  latent_steps: 3
  validation_clips: 4
  model:
    backbone: {strides: [2, 8, 8], widths: [8, 16], encoder_blocks: 1, decoder_blocks: 1}
    quantizer: {kind: EMAVQ, codebook_size: 16, dim: 4}
  train: &train {steps: 6, batch: 4, warmup: 1, threads: 1, precision: no, checkpoint_every: 3, learning_rate: 1e-3}
prior:
  latent_steps: 4
  validation_clips: 4
  segments: {latent_steps: 6, every: 5}
  model: {dim: 16, heads: 2, layers: 2, window: 3}
  train: *train
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands of the README were typed, one after the other."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(CONFIG)
    size = ("--frame-size", 32, "--episodes", 9, "--steps", 24, "--held-out-every", 3)
    commands = (
        ("record", "--env", "TinyWorld", *size, "--workers", 0),
        ("train_vqvae", "--config", "tiny.yaml"),
        ("train_prior", "--config", "tiny.yaml"),
        ("rollout", "--env", "TinyWorld", "--context", 2, "--length", 4, "--clips", 3, "--evaluate", 4),
    )
    for command in commands:
        ended = script(*command, cwd=home)  # type: ignore[arg-type]
        assert ended.code == 0, ended.err
        (home / f"{command[0]}.out").write_text(ended.out)
    return home


Called = Callable[..., tuple[int, str]]


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


# ---------------------------------------------------------------- from end to end


def test_every_stage_leaves_what_it_promises(home: Path) -> None:
    assert len(Store.open(home / "data" / "tiny_world").entries) == 9
    vqvae = VQVAE.from_pretrained(home / "runs" / "tiny_world" / "vqvae" / "model")
    world = WorldModel.from_pretrained(home / "runs" / "tiny_world" / "world")
    assert world.vqvae.fingerprint() == vqvae.fingerprint()
    assert (world.env.env_id, world.env.fps, world.stride) == ("TinyWorld", 10.0, 2)
    assert "tokenizer in runs/tiny_world/vqvae/model" in (home / "train_vqvae.out").read_text()
    assert "psnr_db" in (home / "train_vqvae.out").read_text()
    assert "token_nats" in (home / "train_prior.out").read_text()


def test_a_rollout_shows_real_reconstructed_and_imagined_frames(home: Path) -> None:
    out = home / "runs" / "tiny_world" / "rollout"
    video = read_video(out / "dream_true.mp4")
    assert len(video) == 1 + 2 * (2 + 4 - 1)
    assert min(video.shape[1:3]) >= 3 * 32, "three rows of three clips"
    assert (video[0] != video[-1]).any()
    figures = json.loads((out / "figures.json").read_text())
    assert figures["clips"] == 4
    assert all(len(value) == 4 for value in figures.values() if isinstance(value, list))
    gains = [a - b for a, b in zip(figures["psnr_db"], figures["psnr_repeat_db"], strict=True)]
    assert figures["psnr_gain_db"] == pytest.approx(gains)
    from PIL import Image

    picture = Image.open(out / "dream_true.png")
    assert picture.mode == "RGB"
    assert "controllability" in (home / "rollout.out").read_text()
    assert str(Path("runs/tiny_world/rollout/dream_true.mp4")) in (home / "rollout.out").read_text()


@pytest.mark.usefixtures("at_home")
def test_a_tokenizer_is_measured_on_the_whole_held_out_split(home: Path, called: Called) -> None:
    code, shown = called(evaluate.main, "--config", "tiny.yaml")
    assert code == 0, shown
    figures = json.loads((home / "runs" / "tiny_world" / "vqvae" / "evaluation.json").read_text())
    episodes = Store.open(home / "data" / "tiny_world").split("held_out")
    assert figures["clips"] == sum((entry.length + 1) // 5 for entry in episodes)
    assert figures["frames"] == 5 * figures["clips"]
    assert figures["bits_per_pixel"] == pytest.approx(16 * 4 / (2 * 32 * 32))
    assert f"{figures['psnr_db']:.4g}" in shown
    terms = figures["distortion_bits_per_dim"], figures["rate_bits_per_dim"]
    assert min(terms) > 0
    assert figures["bits_per_dim"] == pytest.approx(sum(terms))


ROLLOUT = (rollout.main, "--env", "TinyWorld", "--length", 3, "--clips", 2, "--evaluate", 0, "--threads", 1)
EVALUATE = (evaluate.main, "--config", "tiny.yaml")


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (ROLLOUT, ("--actions", "lefft"), "--actions 'lefft': did you mean left"),
        (ROLLOUT, ("--actions=9",), "--actions: column 0 is 9.0, expected a whole number from 0 to 4"),
        (ROLLOUT, ("--context", 0), "--context is 0, expected at least 1"),
        (ROLLOUT, ("--length", 100), "has 0 clips of length"),
        (EVALUATE, ("--clips", 0), "--clips is 0, expected at least 1"),
        (EVALUATE, ("--name", "other"), "no such folder, expected a saved vqvae"),
    ],
)
@pytest.mark.usefixtures("at_home")
def test_what_cannot_be_shown_or_measured_is_explained(
    called: Called, command: tuple[Any, ...], arguments: tuple[object, ...], message: str
) -> None:
    code, shown = called(*command, *arguments)
    assert code == 2
    assert message in shown


@pytest.mark.usefixtures("at_home")
def test_a_second_training_is_refused_and_a_resumed_one_is_done(called: Called) -> None:
    code, shown = called(train_vqvae.main, "--config", "tiny.yaml")
    assert code == 2
    assert "runs/tiny_world/vqvae holds a run already: go on with --resume, or name a new one with --name" in shown
    code, shown = called(train_vqvae.main, "--config", "tiny.yaml", "--resume")
    assert code == 0
    assert "psnr_db" in shown


# ---------------------------------------------------------------- when something is missing


def test_a_rollout_with_nothing_trained_gives_the_commands_that_train(tmp_path: Path) -> None:
    ended = script("rollout", "--env", "TinyWorld", cwd=tmp_path)
    assert ended.code == 2
    assert ended.err.splitlines()[:3] == [
        "error: no world model in runs/tiny_world/world. Train one:",
        "  accelerate launch -m vqvideo.scripts.train_vqvae --config configs/tiny_world.yaml",
        "  accelerate launch -m vqvideo.scripts.train_prior --config configs/tiny_world.yaml",
    ]
    ended = script("rollout", "--env", "CartPole-v1", cwd=tmp_path)
    assert "train_vqvae --env CartPole-v1" in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_prior_without_a_tokenizer_gives_the_command_that_trains_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: Called
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown = called(train_prior.main, "--name", "mine")
    assert code == 2
    assert "error: no tokenizer in runs/mine/vqvae/model" in shown
    assert "accelerate launch -m vqvideo.scripts.train_vqvae --name mine" in shown
    assert list(tmp_path.iterdir()) == []


def test_training_without_episodes_says_so_and_records_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = RecordConfig(
        env="TinyWorld", out=tmp_path / "store", episodes=2, steps=4, workers=0, frame_size=16, held_out_every=2
    )
    store = train_vqvae.open_store(Experiment(record=settings))
    assert len(store.entries) == 2
    assert f"no episodes in {tmp_path}/store: recording 2 episodes of TinyWorld first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (record.main, ("--env", "TinyWrld"), "did you mean TinyWorld"),
        (train_vqvae.main, ("--record.env", "TinyWrld"), "did you mean TinyWorld"),
        (quickstart.main, ("--config", "typo.yaml"), "vqvae.trian is not a setting: did you mean train?"),
        (rollout.main, ("--evn", "TinyWorld"), "--env"),
        (rollout.main, ("--temperature", -1), "temperature is -1.0"),
    ],
)
def test_what_is_misspelt_ends_a_script_with_code_2_and_a_hint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    called: Called,
    main: Callable[[], None],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    (tmp_path / "typo.yaml").write_text("vqvae: {trian: {steps: 3}}\n")
    monkeypatch.chdir(tmp_path)
    code, shown = called(main, *arguments)
    assert code == 2, shown
    assert message in shown
    assert "Traceback" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["typo.yaml"]


HELP_WITHOUT = """
import sys
from vqvideo import cli
class Blocked:
    def find_spec(self, name, path=None, target=None):
        assert name not in {heavy}, "--help loads " + name
sys.meta_path.insert(0, Blocked())
sys.argv = ["script.py", "--help"]
from vqvideo.scripts import {name}
cli.run({name}.main)
"""


@pytest.mark.parametrize(
    ("name", "heavy"),
    [
        ("record", ["torch", "numpy", "gymnasium", "pygame"]),
        ("verify", ["torch", "numpy"]),
        *((name, ["torch"]) for name in ("evaluate", "improve", "quickstart", "rollout", "train_agent")),
        *((name, ["torch"]) for name in ("train_prior", "train_vqvae")),
    ],
)
def test_help_lists_the_settings_and_loads_nothing_heavy(tmp_path: Path, name: str, heavy: list[str]) -> None:
    (tmp_path / "configs").symlink_to(SCRIPTS.parent / "configs")
    ended = run(sys.executable, "-c", HELP_WITHOUT.format(name=name, heavy=heavy), cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert any(option in ended.out for option in ("--record.env", "--env", "--deep"))
    assert [path.name for path in tmp_path.iterdir()] == ["configs"]


@pytest.mark.parametrize(
    ("flags", "folder"),
    [
        ((), "data/tiny_world"),
        (("--config", "other.yaml"), "data/tiny_world"),
        (("--record.env", "CarRacing"), "data/car_racing"),
    ],
)
def test_a_prior_named_without_its_episodes_is_trained_on_those_of_its_tokenizer(
    home: Path, flags: tuple[str, ...], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["train_prior.py", "--name", "tiny_world", *flags])
    cfg = train_prior.on_episodes_of_tokenizer(TrainingOptions(name="tiny_world"))
    assert cfg.record.folder == Path(folder)


def test_a_prior_is_trained_on_the_episodes_that_the_command_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["train_prior.py", "--name", "tiny_world", "--store", "data/other"])
    cfg = TrainingOptions(name="tiny_world", store=Path("data/other"))
    assert train_prior.on_episodes_of_tokenizer(cfg) == cfg
