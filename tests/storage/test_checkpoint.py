"""Models and training states on disk: exact, whole or not at all, and never silently damaged."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import torch
from stores import flip
from tiny_models import same_tensors
from torch import nn

from vqvideo.errors import InputError
from vqvideo.storage.checkpoint import (
    TrainingState,
    fingerprint,
    latest_training,
    load_into,
    load_model,
    load_optimizer,
    load_training,
    model_tensors,
    optimizer_tensors,
    read_tensors,
    save_model,
    save_training,
    set_aside_after,
    tensor_bytes,
    training_checkpoints,
)
from vqvideo.storage.files import DiskError, commit_folder

TENSORS = {
    "weight": torch.tensor([[0.1, -0.0], [float("inf"), 1e-42]]),
    "half": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
    "count": torch.tensor(2**40),
    "flag": torch.tensor(True),
}


def state_of(step: int) -> TrainingState:
    return TrainingState({"w": torch.full((3,), float(step))}, {"w/exp_avg": torch.ones(3)}, {}, {"step": step})


# ---------------------------------------------------------------- models


def test_a_model_comes_back_bit_by_bit(tmp_path: Path) -> None:
    save_model(tmp_path / "m", "toy", {"width": 3}, TENSORS)
    saved = load_model(tmp_path / "m", "toy")
    assert saved.config == {"width": 3}
    assert same_tensors(saved.tensors, TENSORS)
    assert all(saved.tensors[name].dtype == value.dtype for name, value in TENSORS.items())


def test_the_fingerprint_follows_configuration_names_and_every_bit() -> None:
    base = fingerprint({"a": 1, "b": 2}, TENSORS)
    assert base == fingerprint({"b": 2, "a": 1}, dict(reversed(TENSORS.items())))
    nudged = TENSORS | {"weight": TENSORS["weight"] * torch.tensor([[1, 1], [1, 2]])}
    renamed = {name.upper(): value for name, value in TENSORS.items()}
    others = [({"a": 1, "b": 3}, TENSORS), ({"a": 1, "b": 2}, nudged), ({"a": 1, "b": 2}, renamed)]
    assert len({base, *(fingerprint(config, tensors) for config, tensors in others)}) == 4


def test_a_model_replaces_an_older_one_but_no_other_folder(tmp_path: Path) -> None:
    save_model(tmp_path / "m", "toy", {"width": 3}, TENSORS)
    save_model(tmp_path / "m", "toy", {"width": 4}, TENSORS)
    assert load_model(tmp_path / "m", "toy").config == {"width": 4}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a model folder: name another folder, nothing was written"):
        save_model(tmp_path / "mine", "toy", {}, TENSORS)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_model_whose_replacement_was_interrupted_is_loaded_and_replaced_later(tmp_path: Path) -> None:
    save_model(tmp_path / "m", "toy", {"width": 3}, TENSORS)
    (tmp_path / "m").rename(tmp_path / ".tmp-old-12ab34cd-m")
    assert load_model(tmp_path / "m", "toy").config == {"width": 3}
    save_model(tmp_path / "m", "toy", {"width": 4}, TENSORS)
    assert load_model(tmp_path / "m", "toy").config == {"width": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    save_model(tmp_path / "m", "toy", {}, TENSORS)
    assert load_model(tmp_path / "m", "toy").config == {}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "no such folder, expected a saved toy"),
        (lambda folder: folder.mkdir(), "a folder without a manifest, expected a saved toy"),
        (lambda folder: save_model(folder, "other", {}, TENSORS), "holds a vqvideo-other, expected a vqvideo-toy"),
    ],
)
def test_a_folder_that_is_no_such_model_is_refused(tmp_path: Path, prepare, message: str) -> None:  # type: ignore[no-untyped-def]
    prepare(tmp_path / "m")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "m", "toy")


def test_every_damaged_byte_of_a_model_is_found(tmp_path: Path) -> None:
    save_model(tmp_path / "m", "toy", {"width": 3}, TENSORS)
    for file in sorted((tmp_path / "m").iterdir()):
        original = file.read_bytes()
        for byte in range(0, len(original) - 1, 29):
            flip(file, byte, byte % 8)
            with pytest.raises(InputError, match=file.name):
                load_model(tmp_path / "m", "toy")
            file.write_bytes(original)
        file.write_bytes(original[: len(original) // 2])
        with pytest.raises(InputError, match=file.name):
            load_model(tmp_path / "m", "toy")
        file.write_bytes(original)
    load_model(tmp_path / "m", "toy")


def test_tensors_that_do_not_fit_are_listed() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(InputError) as caught:
        load_into(model, {"weight": torch.zeros(2, 4), "scale": torch.zeros(2)}, "the file")
    for part in ("the file", 'Missing key(s) in state_dict: "bias"', '"scale"', "torch.Size([2, 4])"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"not tensors", b"", b"\2" + bytes(7) + b'{"a": 1}', b"\0\0\0\x08" + bytes(4) + b"{}", b"\7" + bytes(7) + b'{"a"'],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"x.safetensors: not a readable safetensors file"):
        read_tensors(tmp_path / "x.safetensors")


# ---------------------------------------------------------------- training states


def test_a_training_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    parts = (TENSORS, {"w/step": torch.tensor(3.0)}, {"w": torch.ones(2)})
    state = TrainingState(*parts, {"step": 7, "seconds": 0.1})
    path = save_training(tmp_path, 7, state, keep=2)
    assert path.name == "step-00000007"
    loaded = load_training(path)
    assert all(same_tensors(a, b) for a, b in zip(loaded[:3], state[:3], strict=True))
    assert loaded.progress == {"step": 7, "seconds": 0.1}


@pytest.mark.parametrize(("keep", "left"), [(2, [8, 9]), (3, [7, 8, 9]), (0, [8, 9])])
def test_the_newest_checkpoints_are_kept_and_never_fewer_than_two(tmp_path: Path, keep: int, left: list[int]) -> None:
    for step in range(10):
        save_training(tmp_path, step, state_of(step), keep)
    assert [load_training(path).progress["step"] for path in training_checkpoints(tmp_path)] == left


def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (10, 20, 30):
        save_training(tmp_path, step, state_of(step), keep=3)
    flip(tmp_path / "step-00000030" / "optimizer.safetensors", -1)
    (tmp_path / "step-00000020" / "model.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        state = latest_training(tmp_path)
    assert state is not None
    assert state.progress["step"] == 10
    assert caplog.text.count("skipping a damaged checkpoint") == 2
    assert "step-00000030/optimizer.safetensors" in caplog.text


def test_without_checkpoints_there_is_no_state(tmp_path: Path) -> None:
    assert latest_training(tmp_path / "nothing") is None
    (tmp_path / "step-last").mkdir()
    assert latest_training(tmp_path) is None


def test_a_checkpoint_that_lost_its_manifest_is_not_taken_for_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (10, 20):
        save_training(tmp_path, step, state_of(step), keep=2)
    (tmp_path / "step-00000020" / "manifest.json").unlink()
    state = latest_training(tmp_path)
    assert state is not None
    assert state.progress["step"] == 10
    assert "step-00000020: no manifest.json" in caplog.text
    (tmp_path / "step-00000010" / "manifest.json").unlink()
    with pytest.raises(InputError, match="none of its 2 checkpoints can be read"):
        latest_training(tmp_path)
    set_aside_after(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-step-00000020", "step-00000010"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_training(tmp_path, 5, state_of(5), keep=2)
    save_training(tmp_path, 5, state_of(6), keep=2)
    assert [load_training(path).progress["step"] for path in training_checkpoints(tmp_path)] == [6]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=rf"gone/step-00000001: cannot be written .*No such file.* free in {tmp_path}"):
        save_training(tmp_path / "gone", 1, state_of(1), keep=2)
    assert not (tmp_path / "gone").exists()


def test_a_checkpoint_that_also_kept_counts_is_read(tmp_path: Path) -> None:
    state = state_of(3)
    files = {f"{part}.safetensors": tensor_bytes(getattr(state, part)) for part in ("model", "optimizer", "average")}
    files["window.safetensors"] = tensor_bytes({"codes": torch.arange(4)})
    commit_folder(tmp_path / "step-00000003", files, state.progress)
    assert same_tensors(load_training(tmp_path / "step-00000003").model, state.model)


def test_a_manifest_that_lists_too_little_is_refused(tmp_path: Path) -> None:
    commit_folder(tmp_path / "step-00000001", {"model.safetensors": tensor_bytes(TENSORS)}, {"step": 1})
    with pytest.raises(InputError, match=r"step-00000001/manifest\.json: lists no optimizer\.safetensors"):
        load_training(tmp_path / "step-00000001")


def test_a_full_disk_is_an_error_of_the_disk_whoever_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vqvideo.storage.files.write_new", full)
    with pytest.raises(DiskError, match=r"step-00000001: cannot be written \(No space left.*\d+ bytes are free"):
        save_training(tmp_path, 1, state_of(1), keep=2)
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_goes_on_as_if_it_had_never_stopped() -> None:
    def run(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    whole = nn.Linear(3, 2)
    broken = nn.Linear(3, 2)
    broken.load_state_dict(whole.state_dict())
    run(whole, torch.optim.AdamW(whole.parameters()), 6)
    first = torch.optim.AdamW(broken.parameters())
    run(broken, first, 3)
    saved = optimizer_tensors(broken, first)
    assert set(saved) == {f"{p}/{key}" for p in ("weight", "bias") for key in ("step", "exp_avg", "exp_avg_sq")}
    second = torch.optim.AdamW(broken.parameters())
    load_optimizer(broken, second, saved)
    run(broken, second, 3)
    assert same_tensors(model_tensors(whole), model_tensors(broken))
