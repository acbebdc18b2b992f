"""The experiment's settings: defaults < YAML < flags, and the files in configs/."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vqvideo.data.config import RecordConfig
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, parse
from vqvideo.models.quantizers import EMAVQConfig, FSQConfig
from vqvideo.storage.records import read_yaml, typed, write_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@dataclass(frozen=True)
class Options(Experiment):
    """A script's settings."""

    resume: bool = False
    """Go on."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nvqvae:\n  train: {steps: 7, learning_rate: 1e-2}\n")
    return path


def parsed(monkeypatch: pytest.MonkeyPatch, config: Path, *arguments: str) -> Options:
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    return parse(Options, config, "A script.")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_comes_with_vqvideo_is_valid_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    experiment = typed(Experiment, read_yaml(path), str(path))
    (tmp_path / "copy.yaml").write_text(write_yaml(experiment))
    assert typed(Experiment, read_yaml(tmp_path / "copy.yaml")) == experiment
    assert experiment.name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_describes_models_that_can_be_built(path: Path) -> None:
    experiment = typed(Experiment, read_yaml(path), str(path))
    vqvae = experiment.vqvae.model.build(experiment.record.size)
    assert vqvae.clip_length(experiment.vqvae.latent_steps) <= experiment.record.steps + 1
    assert vqvae.clip_length(experiment.prior.latent_steps) <= experiment.record.steps + 1
    assert experiment.prior.segments.latent_steps >= experiment.prior.latent_steps
    assert 0 < experiment.record.held_out_every <= experiment.record.episodes


def test_defaults_come_before_the_file_and_the_file_before_flags(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    cfg = parsed(monkeypatch, config, "--vqvae.train.steps", "9", "--prior.model.dim", "64")
    assert cfg.name == "mine"
    assert cfg.vqvae.train.steps == 9
    assert cfg.vqvae.train.learning_rate == 1e-2
    assert cfg.vqvae.train.batch == Experiment().vqvae.train.batch
    assert cfg.prior.model.dim == 64
    assert cfg.prior.train == Experiment().prior.train
    assert not cfg.resume


@pytest.mark.parametrize("written", ["48x96", "[48, 96]"])
def test_a_frame_size_comes_from_the_file_or_from_a_flag(
    monkeypatch: pytest.MonkeyPatch, config: Path, written: str
) -> None:
    config.write_text(f"name: mine\nrecord: {{frame_size: {written}}}\n")
    for arguments, size in ((), (48, 96)), (("64",), (64, 64)), (("32x64",), (32, 64)):
        flag = ("--record.frame-size", *arguments) if arguments else ()
        cfg = parsed(monkeypatch, config, *flag)
        assert cfg.record.size == size
        config.with_name("again.yaml").write_text(write_yaml(cfg.record))
        assert typed(RecordConfig, read_yaml(config.with_name("again.yaml"))).size == size


@pytest.mark.parametrize("written", ["true", "4.5", "[1, 2, 3]", "{h: 3}", "wide"])
def test_a_frame_size_that_is_none_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, config: Path, written: str
) -> None:
    config.write_text(f"record:\n  frame_size: {written}\n")
    with pytest.raises(InputError, match=r"frame.size is .*, expected .*\(line"):
        parsed(monkeypatch, config)


def test_arguments_of_the_environment_come_from_the_file_or_from_flags(
    monkeypatch: pytest.MonkeyPatch, config: Path
) -> None:
    config.write_text("record:\n  env_kwargs: {difficulty: 2, gain: 1e-3, size: [4, 5]}\n")
    written = parsed(monkeypatch, config).record
    assert written.env_kwargs == {"difficulty": 2, "gain": 0.001, "size": [4, 5]}
    config.with_name("again.yaml").write_text(write_yaml(written))
    assert typed(RecordConfig, read_yaml(config.with_name("again.yaml"))) == written
    flags = ("difficulty=3", "map=a=b", "gain=1e-3", "size=[4, 5]", "fast=true", "none=")
    cfg = parsed(monkeypatch, config, "--record.env-kwargs", *flags, "--record.pixels", "rgb")
    given = {"difficulty": 3, "map": "a=b", "gain": 0.001, "size": [4, 5], "fast": True, "none": None}
    assert (cfg.record.env_kwargs, cfg.record.pixels) == (given, "rgb")


@pytest.mark.parametrize(
    ("written", "message"), [("difficulty", "NAME=VALUE, as in"), ("size=[4", "is not valid YAML")]
)
def test_an_argument_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str], written: str, message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(monkeypatch, config, "--record.env-kwargs", written)
    assert message in capsys.readouterr().err


def test_another_file_is_named_by_config(monkeypatch: pytest.MonkeyPatch, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("name: other\nresume: true\n")
    for arguments in (["--config", str(other)], [f"--config={other}"], ["--seen", "--config", str(other)][1:]):
        cfg = parsed(monkeypatch, config, *arguments)
        assert (cfg.name, cfg.resume) == ("other", True)
    assert parsed(monkeypatch, config, "--name", "third", "--config", str(other)).name == "third"


@pytest.mark.parametrize("name", ["tiny_world", "tiny_world.yaml", "configs/tiny_world.yaml"])
def test_configs_that_come_along_are_found_by_name_anywhere_but_a_file_of_ones_own_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    home = next(path for path in CONFIGS if path.name == "car_racing.yaml")
    assert parsed(monkeypatch, home, "--config", name).record.env == "TinyWorld"
    (tmp_path / "configs").mkdir()
    for path in (tmp_path / "tiny_world", tmp_path / "tiny_world.yaml", tmp_path / "configs" / "tiny_world.yaml"):
        path.write_text("name: mine\n")
    assert parsed(monkeypatch, home, "--config", name).name == "mine"


def test_a_quantizer_of_the_file_keeps_its_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("vqvae:\n  model:\n    quantizer: {kind: FSQ, levels: [5, 5]}\n")
    assert parsed(monkeypatch, path).vqvae.model.quantizer == FSQConfig((5, 5))
    cfg = parsed(monkeypatch, path, "--vqvae.model.quantizer.levels", "4", "4", "4")
    assert cfg.vqvae.model.quantizer == FSQConfig((4, 4, 4))
    path.write_text("vqvae:\n  model:\n    quantizer: {kind: EMAVQ, codebook_size: 32}\n")
    cfg = parsed(monkeypatch, path, "--vqvae.model.quantizer.dim", "5")
    assert cfg.vqvae.model.quantizer == EMAVQConfig(codebook_size=32, dim=5)


@pytest.mark.parametrize(("flag", "value"), [("no", "no"), ("bf16", "bf16")])
def test_precision_can_be_given_by_file_and_by_flag(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: str, value: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"vqvae: {{train: {{precision: {flag}}}}}\n")
    assert parsed(monkeypatch, path).vqvae.train.precision == value
    assert parsed(monkeypatch, path, "--prior.train.precision", flag).prior.train.precision == value


def test_a_bad_config_flag_is_explained(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    with pytest.raises(InputError, match=r"--config needs a file: --config configs/car_racing.yaml"):
        parsed(monkeypatch, config, "--config")
    with pytest.raises(InputError, match=r"no configuration file nowhere.yaml: see configs/"):
        parsed(monkeypatch, config, "--config", "nowhere.yaml")


def test_an_unknown_flag_ends_with_code_2(
    monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parsed(monkeypatch, config, "--vqvae.train.stepps", "9")
    assert end.value.code == 2
    assert "--vqvae.train.steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vqvae: {train: {keep: 1}}", "train.keep is 1, expected at least 2"),
        ("prior: {model: {window: 0}}", "prior.window"),
        ("vqvae: {model: {backbone: {strides: [3, 8, 8]}}}", "time stride is 3"),
    ],
)
def test_impossible_settings_of_the_file_are_refused(
    monkeypatch: pytest.MonkeyPatch, config: Path, text: str, message: str
) -> None:
    config.write_text(text)
    with pytest.raises(InputError, match=message):
        parsed(monkeypatch, config)


@pytest.mark.parametrize("word", ["none", "null", "None"])
def test_no_limit_is_said_on_the_command_line_as_in_the_messages(
    config: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    config.write_text("vqvae: {train: {max_seconds: 9}}\n")
    words = ("--vqvae.train.max-seconds", word, "--prior.train.threads", "follow", "--name", "none")
    cfg = parsed(monkeypatch, config, *words)
    assert cfg.vqvae.train.max_seconds is None
    assert cfg.prior.train.threads == "follow"
    assert cfg.name == "none"
