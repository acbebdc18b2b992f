"""Parts of rows: the same results, on threads that leave nothing behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from processes import ROOT, run
from tiny_models import noise_frames, tiny_world
from torch import Tensor

from vqvideo.models.imagination import WorldStep
from vqvideo.models.prior import Sampling
from vqvideo.models.row_parts import LARGEST, in_parts, side_by_side

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def shared(compute: object, rows: int) -> tuple[Tensor, ...]:
    with side_by_side(CPU, rows):
        return in_parts(compute, rows, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, LARGEST, 2 * LARGEST + 1, 5 * LARGEST])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_row_is_computed_once_and_comes_back_in_its_place(rows: int, threads: int) -> None:
    torch.set_num_threads(threads)
    x, asked = torch.randn(rows, 3), list[slice]()

    def compute(part: slice) -> tuple[Tensor, Tensor]:
        asked.append(part)
        return x[part] * 2, x[part, 0]

    doubled, first = shared(compute, rows)
    assert torch.equal(doubled, x * 2)
    assert torch.equal(first, x[:, 0])
    assert sorted(i for part in asked for i in range(rows)[part]) == list(range(rows))
    assert all(part.stop - part.start <= LARGEST for part in asked)


def test_parts_are_computed_on_one_thread_each_and_the_callers_count_stays() -> None:
    meet, counts = threading.Barrier(2, timeout=60), list[int]()

    def compute(part: slice) -> tuple[Tensor]:
        meet.wait(timeout=60)  # only two threads at once get past it
        counts.append(torch.get_num_threads())
        return (torch.zeros(part.stop - part.start),)

    shared(compute, 4)
    assert counts == [1, 1]
    assert torch.get_num_threads() == 2


def test_threads_compute_in_the_modes_of_the_caller() -> None:
    meet, modes = threading.Barrier(2, timeout=60), list[tuple[bool, ...]]()

    def compute(part: slice) -> tuple[Tensor]:
        meet.wait(timeout=60)
        found = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        modes.append(found)
        return (torch.zeros(1),)

    shared(compute, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        shared(compute, 4)
    assert modes[:2] == [(True, False, False)] * 2
    assert modes[2:] == [(False, True, True)] * 2


@pytest.mark.parametrize("rows", [1, 8, 2 * LARGEST])
def test_what_comes_back_is_an_ordinary_tensor(rows: int) -> None:
    weight = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        (found,) = shared(lambda part: (weight.expand(part.stop - part.start, 3) * 2,), rows)
    assert not found.is_inference()
    (found * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0 * rows] * 3


def test_an_error_in_a_part_comes_through_and_leaves_the_count_as_it_was() -> None:
    def compute(part: slice) -> tuple[Tensor]:
        raise RuntimeError(f"rows from {part.start}")

    with pytest.raises(RuntimeError, match="rows from"):
        shared(compute, 4)
    assert torch.get_num_threads() == 2
    assert len(shared(lambda part: (torch.zeros(part.stop - part.start),), 4)[0]) == 4


def dreamt(rows: int) -> WorldStep:
    """The second step of equal dreams, each time anew."""
    world, generator = tiny_world(), torch.Generator().manual_seed(0)
    state, action = world.start(noise_frames(rows, 5), torch.zeros(rows, 4, 1)), torch.ones(rows, 2, 1)
    for _ in range(2):
        step, state = world.step(state, action, sampling=Sampling(temperature=0.9), generator=generator)
    return step


@pytest.mark.parametrize("rows", [5, 2 * LARGEST + 1])
def test_equal_dreams_on_two_threads_are_equal_and_those_on_one_thread(rows: int) -> None:
    first, again = dreamt(rows), dreamt(rows)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))
    torch.set_num_threads(1)
    alone = dreamt(rows)
    assert torch.equal(alone.codes, first.codes)
    torch.testing.assert_close(alone.entropy, first.entropy)
    assert torch.get_num_threads() == 1


FORK = """
import os, torch
from vqvideo.models.row_parts import in_parts, side_by_side

def count():
    torch.set_num_threads(2)
    with side_by_side(torch.device("cpu"), 8):
        return int(in_parts(lambda part: (torch.ones(part.stop - part.start),), 8, torch.device("cpu"))[0].sum())

assert count() == 8
child = os.fork()
if not child:
    os._exit(count() != 8)
assert os.waitpid(child, 0)[1] == 0
print("ended")
"""


def test_a_forked_process_has_threads_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "fork.py").write_text(FORK)
    ended = run(sys.executable, "fork.py", cwd=tmp_path, seconds=60, PYTHONPATH=str(ROOT))
    assert (ended.code, ended.out) == (0, "ended\n"), ended.err
