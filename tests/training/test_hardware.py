"""Which device, which precision."""

from __future__ import annotations

import pytest
import torch

from vqvideo.training import hardware


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu", None])
def test_models_go_to_the_accelerator_if_there_is_one(monkeypatch: pytest.MonkeyPatch, kind: str | None) -> None:
    found = torch.device(kind) if kind else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    assert hardware.default_device().type == (kind or "cpu")


@pytest.mark.parametrize(("asked", "kind"), [("true", "cpu"), ("1", "cpu"), ("false", "mps"), ("", "mps")])
def test_the_launcher_may_ask_for_the_cpu(monkeypatch: pytest.MonkeyPatch, asked: str, kind: str) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
    assert hardware.default_device().type == kind


def test_an_accelerator_needs_one_thread_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("mps"))
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(hardware, "_faster_thread_count", lambda most: pytest.fail("measured on the CPU"))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    assert hardware.configure_threads(None) == 1
    assert hardware.describe().startswith("mps of ")


def test_an_accelerator_that_is_none_of_nvidias_trains_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: pytest.fail("asked a GPU that is not there"))
    assert hardware.best_precision(on_cpu=False) == "no"
