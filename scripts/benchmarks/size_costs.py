"""What a frame size costs: trainings, coding and dreams of the models that an experiment has for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from vqvideo.data.config import height_and_width
from vqvideo.experiment.config import Experiment
from vqvideo.experiment.frame_sizes import fitted
from vqvideo.scripts.benchmarks.dreams import Dreams, Untrained, head_kinds
from vqvideo.scripts.benchmarks.memory import peak_memory
from vqvideo.scripts.benchmarks.report import Table, megabytes, rate
from vqvideo.scripts.benchmarks.timing import Contestant, Timing, Work, take_turns, threads
from vqvideo.scripts.benchmarks.training_steps import PriorTraining, TokenizerTraining

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.sizes import SizesBenchmark


@dataclass(frozen=True)
class Coding:
    """One clip of noise encoded, or its codes decoded."""

    world: Untrained
    """The shapes of the models."""
    latent_steps: int
    """Length of the clip."""
    decodes: bool = False
    """Decode, not encode."""

    @property
    def name(self) -> str:
        return f"{'decode' if self.decodes else 'encode'} {self.world.size} {self.world.vqvae.backbone.strides}"

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return self.world.vqvae.clip_length(self.latent_steps)

    def prepare(self, device: torch.device) -> Work:
        vqvae = self.world.load().vqvae.to(device).eval()
        frames = torch.randint(256, (1, self.frames, 3, *self.world.size), dtype=torch.uint8, device=device)
        codes = vqvae.encode(frames)
        return (lambda: vqvae.decode(codes)) if self.decodes else (lambda: vqvae.encode(frames))


def measure_sizes(
    cfg: SizesBenchmark, experiment: Experiment, cpu_threads: int, device: torch.device
) -> list[dict[str, Any]]:
    """A record for each size; in each kind of work the sizes take turns."""
    shapes = [shape_for(experiment, height_and_width(size), as_named=cfg.as_named) for size in cfg.sizes]
    records = [facts_of(shape) for shape in shapes]
    kinds = [_works(shape, experiment, cfg) for shape in shapes]
    for kind in kinds[0]:
        entries = [works[kind] for works in kinds]
        with threads(cpu_threads):
            timings = take_turns(
                {str(i): entry[0].prepare(device) for i, entry in enumerate(entries)},
                device,
                cfg.rounds,
                cfg.round_seconds,
            )
        for i, (record, (entry, frames)) in enumerate(zip(records, entries, strict=True)):
            record[kind] = _figures(timings[str(i)], frames, peak_memory(entry, device, cpu_threads), device)
    return records


def tables(records: Sequence[Mapping[str, Any]], how: str) -> list[Table]:
    """The records for reading: a column for each size."""
    heads = ("", *(f"{record['size']}" for record in records))
    kinds = [key for key, value in records[0].items() if isinstance(value, dict)]
    model = Table("what a frame becomes", heads)
    model.rows.append(("pixels per token", *(f"{r['strides'][1]}x{r['strides'][2]}" for r in records)))
    model.rows.append(("tokens per latent step", *(f"{r['tokens']:,}" for r in records)))
    model.rows.append(("bits per latent step", *(f"{r['bits_per_latent_step']:,.0f}" for r in records)))
    time, memory = Table(f"time, {how}", heads), Table(f"peak memory in MB (share of the machine's), {how}", heads)
    for kind in kinds:
        found = [record[kind] for record in records]
        time.rows.append((f"{kind}, frames/s", *(rate(f["frames_per_s"]) for f in found)))
        time.rows.append((f"{kind}, ms", *(f"{1e3 * f['seconds']:,.1f}" for f in found)))
        shares = (f"{megabytes(f['peak_bytes'])} ({f['share_of_memory']:.1%})" for f in found)
        memory.rows.append((kind, *shares))
    return [model, time, memory]


def shape_for(experiment: Experiment, size: tuple[int, int], *, as_named: bool) -> Untrained:
    """The models of an experiment for a frame size: as it would train them, or with the backbone that it names."""
    own = experiment if as_named else fitted(replace(experiment, name="benchmark"), size)
    return Untrained(own.vqvae.model, own.prior.model, size)


def facts_of(shape: Untrained) -> dict[str, Any]:
    """What a frame becomes."""
    with torch.device("meta"):
        vqvae = shape.vqvae.build(shape.size)
    h, w = shape.size
    return {
        "size": f"{h}" if h == w else f"{h}x{w}",
        "strides": shape.vqvae.backbone.strides,
        "patch": shape.vqvae.backbone.patch,
        "tokens": vqvae.tokens,
        "bits_per_latent_step": vqvae.bits_per_latent_step,
    }


def _works(shape: Untrained, experiment: Experiment, cfg: SizesBenchmark) -> dict[str, tuple[Contestant, int]]:
    """Contestants by kind of work, each with the frames that a call is about."""
    tokenizer = TokenizerTraining(shape, experiment.vqvae, cfg.precision)
    prior = PriorTraining(shape, experiment.prior, cfg.precision)
    encode = Coding(shape, experiment.vqvae.latent_steps)
    works: dict[str, tuple[Contestant, int]] = {
        "train tokenizer": (tokenizer, tokenizer.frames),
        "encode": (encode, encode.frames),
        "decode": (replace(encode, decodes=True), encode.frames),
        "train prior": (prior, prior.frames),
    }
    head = next(name for name, kind in head_kinds().items() if isinstance(shape.prior.head, kind))
    for streams in cfg.streams:
        dreams = Dreams(shape, head, streams, cfg.precision, sampling=experiment.sampling)
        works[f"imagine, {streams} stream(s)"] = (dreams, streams * shape.vqvae.backbone.strides[0])
    return works


def _figures(timing: Timing, frames: int, peak: int, device: torch.device) -> dict[str, Any]:
    return {
        "frames_per_s": frames / timing.median,
        **timing.to_json(),
        "peak_bytes": peak,
        "share_of_memory": peak / _memory_of(device),
    }


def _memory_of(device: torch.device) -> int:
    """Bytes that the machine, or the GPU, has."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
