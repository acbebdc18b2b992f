"""What Accelerate's launcher and environment variables ask for is a setting of the run, or refused; never unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import launch
from runs import no_figures, toy_batches, toy_trainer
from tiny_models import train_config

from vqvideo.errors import InputError
from vqvideo.storage.checkpoint import newest_progress
from vqvideo.training import launch as launching
from vqvideo.training.launch import join_processes, make_accelerator


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*launching._REFUSED, "ACCELERATE_MIXED_PRECISION", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launching, "best_precision", lambda on_cpu: "no")
    # With a launcher's variables set, this process would end with the one that started it.
    monkeypatch.setattr(launching, "stop_with_launcher", lambda: None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "divide every gradient .* set --vqvae.train.accumulate"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "auto", "divide every gradient"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "compile the model.* Launch with --dynamo_backend no"),
        ("ACCELERATE_USE_FSDP", "true", "split up the model.* launch with --multi_gpu"),
        ("ACCELERATE_USE_DEEPSPEED", "True", "split up the optimizer.* launch with --multi_gpu"),
        ("ACCELERATE_USE_MEGATRON_LM", "1", "split up the model.* launch with --multi_gpu"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "split up the model.* launch with --multi_gpu"),
    ],
)
def test_a_variable_that_would_change_the_training_unseen_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{name} is {value}: it would {message}"):
        join_processes()
    with pytest.raises(InputError, match=f"^{name} is {value}"):
        make_accelerator(train_config(), tmp_path / "vqvae")


def test_what_the_launcher_sets_when_it_is_asked_for_nothing_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_USE_FSDP": "false",
    }.items():
        monkeypatch.setenv(name, value)
    accelerator = make_accelerator(train_config(), tmp_path)
    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("no", 1)


def test_the_precision_that_the_launcher_is_asked_for_is_taken_recorded_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "BF16")
    auto = train_config(precision="auto")
    trainer = toy_trainer(tmp_path, precision="auto")
    assert trainer.accelerator.mixed_precision == "bf16"
    trainer.fit(toy_batches(4), no_figures)
    assert newest_progress(trainer.run.checkpoints)["precision"] == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert make_accelerator(auto, tmp_path, resume=True).mixed_precision == "bf16"
    assert make_accelerator(auto, tmp_path / "another").mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError, match=r"asks for .* fp16 .* was trained in bf16: .*--mixed_precision no"):
        make_accelerator(auto, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("asked", "own", "message"),
    [
        ("bf16", "no", "asks for mixed precision bf16 .*but train.precision is no: .* --vqvae.train.precision bf16"),
        ("fp16", "bf16", "asks for mixed precision fp16 .*but train.precision is bf16"),
        ("fp8", "auto", "asks for mixed precision fp8 .*expected one of no, bf16, fp16"),
        ("fp16", "auto", "mixed precision fp16 needs a GPU: take bf16 on the CPU, or no"),
        ("no", "fp16", "mixed precision fp16 needs a GPU"),
    ],
)
def test_a_precision_that_contradicts_the_settings_or_the_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str, own: str, message: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    with pytest.raises(InputError, match=message):
        make_accelerator(train_config(precision=own), tmp_path / "vqvae")


def test_settings_win_over_a_launcher_that_was_asked_for_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert make_accelerator(train_config(precision="bf16"), tmp_path).mixed_precision == "bf16"


CONFIG = """
compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
mixed_precision: bf16
num_machines: 1
num_processes: 1
use_cpu: true
debug: false
"""
SHOW = """
from pathlib import Path
from vqvideo.training.config import TrainConfig
from vqvideo.training.launch import make_accelerator
accelerator = make_accelerator(TrainConfig(threads=1), Path("run"))
print(accelerator.mixed_precision, accelerator.device.type)
"""


def test_what_accelerate_config_saved_is_taken_by_a_launch(tmp_path: Path) -> None:
    (tmp_path / "saved.yaml").write_text(CONFIG)
    (tmp_path / "show.py").write_text(SHOW)
    ended = launch("--config_file", tmp_path / "saved.yaml", tmp_path / "show.py", cwd=tmp_path)
    assert ended.out.splitlines()[-1:] == ["bf16 cpu"], ended.err
