"""The counter of waits counts what stalls on a GPU, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from waiting import DEVICE, waits

WAITS: list[Callable[[Tensor], Any]] = [
    lambda x: bool((x > 1).any()),
    lambda x: x.sum().item(),
    lambda x: x.tolist(),
    lambda x: x.cpu(),
    lambda x: x.numpy(),
    lambda x: x[x > 1],
    lambda x: x.nonzero(),
    lambda x: x.masked_select(x > 1),
    lambda x: x.copy_(torch.ones(3)),
    lambda x: torch.tensor([1, 2], device=x.device),
    lambda x: x[torch.tensor([0, 2])],
]
FREE: list[Callable[[Tensor], Any]] = [
    lambda x: x.add_(1) * 2,
    lambda x: torch.zeros(3, device=x.device) + x,
    lambda x: x.where(x > 1, x.argsort())[:2],
    lambda x: x[x.long() * 0],
    lambda x: x.to(DEVICE),
    lambda x: torch.as_tensor(x, device=DEVICE),
    lambda x: torch.ones(3).sum().item(),
]


@pytest.mark.parametrize("ask", WAITS)
def test_what_needs_values_on_the_host_or_brings_them_waits_once(ask: Callable[[Tensor], Any]) -> None:
    with waits() as waited:
        x = torch.arange(3.0, device=DEVICE)
        assert not waited
        ask(x)
        assert len(waited) == 1


@pytest.mark.parametrize("compute", FREE)
def test_what_stays_where_it_is_does_not_wait(compute: Callable[[Tensor], Any]) -> None:
    with waits() as waited:
        compute(torch.arange(3.0, device=DEVICE))
    assert waited == []


def test_tensors_of_host_and_device_do_not_mix() -> None:
    with waits(), pytest.raises(AssertionError, match=r"add.Tensor mixes tensors of the device and of the host"):
        torch.arange(3.0, device=DEVICE) + torch.ones(3)
