"""Two processes on a CPU: one codebook, the results of one process, and launches that would not work are refused."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from processes import BIN, ROOT, SCRIPTS, Ended, launch, run
from safetensors.torch import load_file
from tiny_models import tiny_experiment, tiny_store
from two_rank_settings import PRIORS, TOKENIZERS

from vqvideo.errors import InputError
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.storage.checkpoint import load_training, training_checkpoints
from vqvideo.storage.records import write_yaml
from vqvideo.training.launch import check_processes
from vqvideo.world import WorldModel

STEPS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages trained by two processes in 20 steps of full precision."""
    folder = tmp_path_factory.mktemp("two")
    tiny_store(folder / "data")
    config = folder / "tiny.yaml"
    config.write_text(write_yaml(tiny_experiment(folder, steps=STEPS, batch=8)))
    tokenizer = pair(ROOT / "tests" / "two_ranks.py", config, folder, cwd=folder)
    assert tokenizer.code == 0, tokenizer.err
    assert sorted(re.findall(r"rank \d of \d", tokenizer.out)) == ["rank 0 of 2", "rank 1 of 2"]
    prior = pair(SCRIPTS / "train_prior.py", "--config", config, cwd=folder)
    assert prior.code == 0, prior.err
    assert prior.out.count("world model in") == 1
    return folder


def pair(*command: object, cwd: Path, seconds: float = 120) -> Ended:
    """Two processes on the CPU, as the README says to start them."""
    options = ("--multi_gpu", "--num_processes", 2)
    return launch(*options, *command, cwd=cwd, seconds=seconds, ACCELERATE_USE_CPU="true", CUDA_VISIBLE_DEVICES="")


def codebooks(folder: Path, rank: int) -> torch.Tensor:
    """(steps, k, d)."""
    return load_file(folder / f"codebooks-{rank}.safetensors")["codebooks"]


def test_both_ranks_hold_the_same_codebook_bit_by_bit_after_every_step(folder: Path) -> None:
    first, second = codebooks(folder, 0), codebooks(folder, 1)
    assert len(first) == STEPS
    assert torch.equal(first, second)
    assert all(not torch.equal(a, b) for a, b in pairwise(first))


def test_one_process_with_the_same_batch_learns_the_same_codebook(folder: Path, tmp_path: Path) -> None:
    cfg = tiny_experiment(tmp_path, steps=STEPS, batch=8)
    train_vqvae(cfg, tiny_store(tmp_path / "data"))
    alone = load_training(training_checkpoints(cfg.folder / "vqvae" / "checkpoints")[-1]).model
    together = load_training(training_checkpoints(folder / "runs" / "tiny" / "vqvae" / "checkpoints")[-1]).model
    assert alone.keys() == together.keys()
    torch.testing.assert_close(codebooks(folder, 0)[-1], alone["vqvae.quantizer.codebook"], atol=1e-5, rtol=1e-5)
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_both_stages_are_trained_and_logged_once(folder: Path) -> None:
    runs = folder / "runs" / "tiny"
    for stage in ("vqvae", "prior"):
        lines = (runs / stage / "metrics.jsonl").read_text().splitlines()
        steps = [record["step"] for record in map(json.loads, lines) if record["split"] == "train"]
        assert steps == list(range(1, STEPS + 1))
        state = load_training(training_checkpoints(runs / stage / "checkpoints")[-1])
        assert (state.progress["step"], state.progress["world"]) == (STEPS, 2)
    assert WorldModel.from_pretrained(runs / "world").stride == 2


@pytest.fixture(scope="module")
def settings_tried(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Of each rank what went wrong, by setting; all settings in one pair of processes."""
    folder = tmp_path_factory.mktemp("settings")
    tiny_store(folder / "data")
    ended = pair(ROOT / "tests" / "two_rank_settings.py", folder, cwd=folder, seconds=280)
    assert ended.code == 0, ended.err
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_both_encode_a_share_of_the_episodes(settings_tried: list[dict[str, str]]) -> None:
    # In 6 shards of an episode; the held-out split has 2 of them, one for each rank.
    assert [rank["encoded"] for rank in settings_tried] == ["3 episodes", "3 episodes"]


@pytest.mark.parametrize("name", [*TOKENIZERS, *PRIORS])
def test_two_processes_train_with_any_ordinary_setting(settings_tried: list[dict[str, str]], name: str) -> None:
    for rank in settings_tried:
        assert name in rank, f"a setting before it failed: {list(rank.items())[-1:]}"
        assert rank[name] == ""


def test_a_launch_that_starts_one_process_instead_of_two_is_refused_with_the_right_command(tmp_path: Path) -> None:
    ended = launch("--cpu", "--num_processes", 2, SCRIPTS / "train_vqvae.py", cwd=tmp_path)
    assert "returned non-zero exit status 2" in ended.err
    assert "error: several processes were asked for, but they do not work together" in ended.err
    assert "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "2 processes were asked for"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, "several processes were asked for"),
    ],
)
def test_processes_that_do_not_work_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    check_processes(1)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check_processes(2)
    with pytest.raises(InputError, match=message + ".*ACCELERATE_USE_CPU=true accelerate launch --multi_gpu"):
        check_processes(1)


def test_torchrun_joins_its_processes_without_further_settings(tmp_path: Path) -> None:
    count = tmp_path / "count.py"
    # Nobody leaves before the other has come: a rank that ends at once breaks the connection that is being made.
    count.write_text(
        "from vqvideo.training.launch import join_processes\n"
        "processes = join_processes()\n"
        "print(processes.num_processes, flush=True)\n"
        "processes.wait_for_everyone()\n"
    )
    ended = run(BIN / "torchrun", "--standalone", "--nproc_per_node", 2, count, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert "".join(ended.out.split()) == "22", ended.err


PATIENCE = """
import time
from datetime import timedelta
import torch.distributed as dist
dist.init_process_group("gloo", timeout=timedelta(seconds=2))
from vqvideo.errors import InputError
from vqvideo.training.processes import on_main_process, together
rank, began = dist.get_rank(), time.monotonic()
on_main_process(lambda: time.sleep(5))
print(f"rank {rank} waited {time.monotonic() - began > 4}\\n", end="", flush=True)
def encode():
    if rank == 1:
        raise InputError("episode 7 is damaged")
try:
    together(encode)
except InputError as error:
    print(f"rank {rank}: {error}\\n", end="", flush=True)
together(lambda: None)
"""


def test_ranks_wait_for_a_long_work_of_one_and_end_with_its_failure(tmp_path: Path) -> None:
    """The processes of this test end after two seconds in which nothing is heard of a collective of theirs."""
    (tmp_path / "wait.py").write_text(PATIENCE)
    options = ("--standalone", "--nproc_per_node", 2)
    ended = run(BIN / "torchrun", *options, tmp_path / "wait.py", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert ended.code == 0, ended.err
    assert sorted(ended.out.splitlines()) == [
        "rank 0 waited True",
        "rank 0: rank 1 stopped; its message says why",
        "rank 1 waited True",
        "rank 1: episode 7 is damaged",
    ]
