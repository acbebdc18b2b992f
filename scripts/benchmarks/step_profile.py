"""Where the time of a step goes: its parts by the clock, and its operators by torch.profiler in a few families."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

from vqvideo.data.config import height_and_width
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.frame_sizes import fitted
from vqvideo.scripts.benchmarks.dream_parts import parts_of
from vqvideo.scripts.benchmarks.dreams import Dreams, Untrained, head_kinds
from vqvideo.scripts.benchmarks.imagine_speed import Contest
from vqvideo.scripts.benchmarks.report import Table
from vqvideo.scripts.benchmarks.timing import Work, synchronise, threads
from vqvideo.scripts.benchmarks.training_steps import PriorTraining, TokenizerTraining

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.steps import StepsBenchmark

# The first that matches an operator's name counts.
FAMILIES = {
    "convolutions": r"conv",
    "softmax, attention, cross-entropy": r"softmax|attention|nll_loss|cross_entropy",
    "matrix products": r"(add|b|badd)?bmm|(::|_)(add)?mm|linear|matmul|einsum",
    "norms": r"layer_norm|rms_norm|group_norm",
    "optimizer": r"adam|_foreach|vector_norm|lerp",
    "sampling": r"multinomial|exponential|rand|uniform|bernoulli|sort|topk|cumsum|argmax|argmin|searchsorted",
    "copies": r"copy|::cat|clone|contiguous|stack|index|gather|scatter|slice|select|pad|embedding|fill|zero|repeat",
    "element-wise and sums": r"",
}
"""Kinds of operation, and what of an operator's name tells them."""
PYTHON = "between operators (Python)"


def measure_steps(
    cfg: StepsBenchmark, experiment: Experiment, cpu_threads: int, device: torch.device
) -> list[dict[str, Any]]:
    """A record for each kind of step: milliseconds, those of its parts, and shares by family."""
    size = height_and_width(cfg.frame_size)
    own = fitted(replace(experiment, name="benchmark"), size)
    shape = Untrained(own.vqvae.model, own.prior.model, size)
    head = next(name for name, kind in head_kinds().items() if isinstance(shape.prior.head, kind))
    with threads(cpu_threads):
        trainings: dict[str, TokenizerTraining | PriorTraining] = {
            "train tokenizer": TokenizerTraining(shape, own.vqvae, cfg.precision),
            "train prior": PriorTraining(shape, own.prior, cfg.precision),
        }
        records = []
        for name, training in trainings.items():
            step = training.prepare(device)
            step()
            parts = _parts_in_turn(step.parts, cfg.rounds, device)
            whole = sum(parts.values())
            records.append({"step": name, "seconds": whole, "parts": parts, **_families(step, cfg.rounds, device)})
        for streams in cfg.streams:
            dream = Contest(Dreams(shape, head, streams, cfg.precision, sampling=own.sampling), device)
            assert dream.dreaming is not None
            timed = parts_of(dream.dreaming, dream, cfg.rounds + 1, device)
            whole = timed.pop("whole")
            timed["reward, end"] = max(0.0, whole - sum(timed.values()))
            name = f"imagine, {streams} stream(s)"
            records.append({"step": name, "seconds": whole, "parts": timed, **_families(dream, cfg.rounds, device)})
    return records


def tables(records: Sequence[Mapping[str, Any]], how: str) -> list[Table]:
    """The records for reading."""
    parts = [
        _parts_table(f"parts in ms, {how}", [record for record in records if record["step"].startswith(kind)])
        for kind in ("train", "imagine")
    ]
    kinds = Table(f"kinds of operation, {how}", ("", *(record["step"] for record in records)))
    kinds.rows.extend((name, *(f"{r['families'][name]:.0%}" for r in records)) for name in (*FAMILIES, PYTHON))
    largest = Table(f"largest operators, {how}", ("step", "share of the step"))
    for record in records:
        largest.rows.append((record["step"], ", ".join(f"{name} {x:.0%}" for name, x in record["operators"].items())))
    return [*parts, kinds, largest]


def _parts_table(title: str, records: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title, ("step", "whole", *records[0]["parts"]))
    for record in records:
        whole = record["seconds"]
        cells = (f"{1e3 * s:.1f} ({s / whole:.0%})" for s in record["parts"].values())
        table.rows.append((record["step"], f"{1e3 * whole:.1f}", *cells))
    return table


def _parts_in_turn(parts: Mapping[str, Work], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each part; they are called in their order, round by round, and once before."""
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, work in parts.items():
            synchronise(device)
            began = time.perf_counter()
            work()
            synchronise(device)
            taken[name].append(time.perf_counter() - began)
    return {name: median(seconds[1:]) for name, seconds in taken.items()}


def _families(work: Work, rounds: int, device: torch.device) -> dict[str, Any]:
    """Shares of a step by family, and of its largest operators."""
    steps, on_gpu = max(1, rounds // 3), device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        began = time.perf_counter()
        for _ in range(steps):
            work()
        synchronise(device)
        whole = time.perf_counter() - began
    seconds: dict[str, float] = {}
    for event in profiler.key_averages():
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if event.key.startswith(("aten::", "mkldnn::", "mkl::")):
            seconds[event.key.partition("::")[2]] = seconds.get(event.key.partition("::")[2], 0.0) + 1e-6 * own
    families = dict.fromkeys(FAMILIES, 0.0)
    for name, own in seconds.items():
        families[family_of(name)] += own / whole
    largest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:5]
    return {
        "families": {**families, PYTHON: max(0.0, 1 - sum(families.values()))},
        "operators": {name: seconds[name] / whole for name in largest},
    }


def family_of(operator: str) -> str:
    """The family of an operator, by its name without `aten::`."""
    return next(name for name, pattern in FAMILIES.items() if re.search(pattern, f"::{operator}"))
