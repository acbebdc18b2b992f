"""This machine: what it is, for a table of results, and the threads and precision that suit it, quickly measured."""

from __future__ import annotations

import os
import platform
import subprocess
import timeit
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from vqvideo.errors import InputError

YES = ("1", "true", "yes", "on", "y", "t")
"""What Accelerate reads as true."""
_PACKAGES = ("vqvideo", "torch", "numpy", "vector-quantize-pytorch")


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> str:
    """One line for a table of results: processor or accelerator, cores, threads, library version."""
    device = default_device()
    if device.type != "cpu":
        name = torch.cuda.get_device_name() if device.type == "cuda" else f"{device.type} of {_cpu_name()}"
        return f"{name}, torch {torch.__version__}"
    threads = f"{torch.get_num_threads()} thread(s)"
    return f"{_cpu_name()}, {available_cores()} core(s), {threads}, torch {torch.__version__}"


def hardware() -> dict[str, Any]:
    """The machine, and how busy it was: other work shows in every wall-clock figure."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "description": describe(),
        "cores": available_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": list(os.getloadavg()),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that figures depend on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def commit() -> str | None:
    """The commit of the clone that vqvideo runs from, with -dirty if files were changed since; None outside of one."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    asked = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def default_device() -> torch.device:
    """Where models go: to the accelerator of this machine, such as cuda or mps; to the CPU where there is none, or
    where ACCELERATE_USE_CPU=true asks for it, as in `accelerate launch --cpu`.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in YES:
        return torch.device("cpu")
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def device_named(name: str | torch.device | None) -> torch.device:
    """The device of that name, such as "cpu" or "cuda:1"; None is the `default_device`.

    Raises:
        InputError: there is none.
    """
    if name is None:
        return default_device()
    try:
        something = torch.zeros(1, device=name)
        something.cpu()  # what is on "meta" cannot be had back
        return something.device
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device is {name!r}: {str(error).splitlines()[0]:.200}. Expected one of this machine, such as 'cpu', "
            "'cuda', 'cuda:1' or 'mps'; leave it out for the best there is"
        ) from error


def configure_threads(threads: int | None, local_world: int = 1, *, on_cpu: bool | None = None) -> int:
    """Sets the number of CPU threads and returns it.

    By default the machine's cores are shared out among the processes, and a measurement decides between all of them
    and one: on busy cores, spinning threads can be many times slower than a single one. With a GPU one is enough.

    Args:
        threads: how many, or None to measure.
        local_world: processes on this machine.
        on_cpu: whether the work is done by the CPU; by default if that is the `default_device`.
    """
    on_cpu = default_device().type == "cpu" if on_cpu is None else on_cpu
    share = max(1, available_cores() // local_world)
    if threads is None:
        threads = _faster_thread_count(share) if on_cpu and share > 1 else 1
    torch.set_num_threads(threads)
    return threads


def best_precision(*, on_cpu: bool) -> str:
    """ "bf16" where the hardware is faster with it, otherwise "no", or "fp16" on CUDA GPUs without bf16."""
    if on_cpu:
        return "bf16" if _bf16_is_faster() else "no"
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


@cache
def _bf16_is_faster() -> bool:
    return _seconds(lambda: _convolve(torch.bfloat16)) < 0.9 * _seconds(lambda: _convolve(torch.float32))


def _faster_thread_count(most: int) -> int:
    """1 or `most`. Only a clear advantage makes it 1: a short disturbance must not halve a long run."""
    seconds = {1: [], most: []}  # type: dict[int, list[float]]
    for _ in range(2):
        for threads, times in seconds.items():
            torch.set_num_threads(threads)
            times.append(_seconds(lambda: _convolve(torch.float32)))
    return 1 if min(seconds[1]) < 0.9 * min(seconds[most]) else most


def _convolve(dtype: torch.dtype) -> None:
    """A convolution, forward and backward, of the size that training is made of."""
    x = torch.ones(32, 64, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    F.conv2d(x, torch.ones(64, 64, 3, 3, dtype=dtype, requires_grad=True), padding=1).sum().backward()


def _seconds(run: Callable[[], None], trials: int = 7) -> float:
    """Median time of a few runs after a warm-up."""
    run()
    return median(timeit.repeat(run, number=1, repeat=trials))
