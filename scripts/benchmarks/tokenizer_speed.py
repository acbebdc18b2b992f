"""Frames per second and memory of a whole tokenizer: encode, decode, train, and one stream step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from vqvideo.models.tokenizer.vqvae import VQVAE, VQVAEConfig
from vqvideo.scripts.benchmarks.memory import peak_memory
from vqvideo.scripts.benchmarks.report import Table, megabytes, rate
from vqvideo.scripts.benchmarks.timing import Work, take_turns, threads

PRECISIONS = ("fp32", "bf16")
COLUMNS = ("work", "t stride", "batch", "precision", "frames/s", "ms", "quartiles", "peak MB")


@dataclass(frozen=True)
class NoiseClips:
    """What goes through the tokenizer: noise, since its speed does not depend on the pixels."""

    size: int = 64
    """Height and width in pixels."""
    frames: int = 9
    """Frames per clip, 1 + s k."""
    batch: int = 1
    """Clips at once."""
    stride: int = 2
    """Temporal stride s of the tokenizer; all else is its default."""
    seed: int = 0
    """Of weights and pixels."""

    def tokenizer(self, device: torch.device) -> VQVAE:
        """The default tokenizer with this stride, untrained: its speed does not depend on its weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            cfg = VQVAEConfig()
            strides = (self.stride, *cfg.backbone.strides[1:])
            return replace(cfg, backbone=replace(cfg.backbone, strides=strides)).build((self.size,) * 2).to(device)

    def pixels(self, device: torch.device) -> Tensor:
        """(b, t, 3, h, w) uint8 noise."""
        shape = (self.batch, self.frames, 3, self.size, self.size)
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)


@dataclass(frozen=True)
class Pass:
    """One kind of work in one precision."""

    kind: str
    """Key of `KINDS`."""
    precision: str = "fp32"
    """fp32, or bf16 by autocast."""
    clips: NoiseClips = field(default_factory=NoiseClips)
    """What goes through."""

    @property
    def name(self) -> str:
        return self.precision

    @property
    def frames_per_call(self) -> int:
        """Frames that a call handles, over the batch."""
        per_clip = self.clips.stride if self.kind.endswith("step") else self.clips.frames
        return per_clip * self.clips.batch

    def prepare(self, device: torch.device) -> Work:
        work = KINDS[self.kind](self.clips, device)
        bf16 = self.precision == "bf16"

        def call() -> object:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                return work()

        return call


@dataclass(frozen=True)
class Stream:
    """One stream, encoded and decoded again latent step by latent step."""

    clips: NoiseClips
    """Size and stride; a few frames that the stream repeats."""

    @property
    def name(self) -> str:
        return f"encode_step and decode_step, {self.clips.size}x{self.clips.size}, t stride {self.clips.stride}"

    def prepare(self, device: torch.device) -> Work:
        model, frames = self.clips.tokenizer(device).eval(), self.clips.pixels(device)
        blocks = cycle(frames[:, 1:].split(self.clips.stride, dim=1))
        codes, coding = model.encode_step(frames[:, :1], model.init_state(self.clips.batch))
        _, decoding = model.decode_step(codes, model.init_state(self.clips.batch))

        def step() -> None:
            nonlocal coding, decoding
            codes, coding = model.encode_step(next(blocks), coding)
            _, decoding = model.decode_step(codes, decoding)

        return step


def _encode(clips: NoiseClips, device: torch.device) -> Work:
    model, frames = clips.tokenizer(device).eval(), clips.pixels(device)
    return lambda: model.encode(frames)


def _decode(clips: NoiseClips, device: torch.device) -> Work:
    model = clips.tokenizer(device).eval()
    codes = model.encode(clips.pixels(device))
    return lambda: model.decode(codes)


def _train(clips: NoiseClips, device: torch.device) -> Work:
    model, frames = clips.tokenizer(device).train(), clips.pixels(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        output = model(frames)
        with torch.autocast(device.type, enabled=False):
            output.loss.backward()
            optimizer.step()
        optimizer.zero_grad()
        model.after_step()

    return step


def _encode_step(clips: NoiseClips, device: torch.device) -> Work:
    model, frames = clips.tokenizer(device).eval(), clips.pixels(device)
    _, state = model.encode_step(frames[:, :1], model.init_state(clips.batch))

    def step() -> None:
        nonlocal state
        _, state = model.encode_step(frames[:, : clips.stride], state)

    return step


def _decode_step(clips: NoiseClips, device: torch.device) -> Work:
    model = clips.tokenizer(device).eval()
    codes = model.encode(clips.pixels(device)[:, :1])
    _, state = model.decode_step(codes, model.init_state(clips.batch))

    def step() -> None:
        nonlocal state
        _, state = model.decode_step(codes, state)

    return step


KINDS: dict[str, Callable[[NoiseClips, torch.device], Work]] = {
    "encode": _encode,
    "decode": _decode,
    "train": _train,
    "encode_step": _encode_step,
    "decode_step": _decode_step,
}
"""What can be measured: whole clips, a training step (forward, backward, AdamW, codebook), a latent step."""


def precisions(device: torch.device) -> tuple[str, ...]:
    """fp32, and bf16 unless the GPU lacks it (every CPU computes it, if slowly)."""
    return PRECISIONS if device.type == "cpu" or torch.cuda.is_bf16_supported() else PRECISIONS[:1]


def cases(clips: NoiseClips, strides: Sequence[int], batches: Sequence[int]) -> list[tuple[str, NoiseClips]]:
    """Kinds of work and clips, in the table's order: whole clips in all batches, streams with one."""
    listed = []
    for stride in strides:
        for kind in KINDS:
            own = (1,) if kind.endswith("step") else batches
            listed += [(kind, replace(clips, stride=stride, batch=batch)) for batch in own]
    return listed


def measure_tokenizer(
    clips: NoiseClips,
    strides: Sequence[int],
    batches: Sequence[int],
    cpu_threads: int,
    device: torch.device,
    rounds: int,
    round_seconds: float,
) -> tuple[list[dict[str, Any]], Table]:
    """A record per kind of work, stride, batch and precision, and their table. The precisions take turns."""
    title = (
        f"default tokenizer at {clips.size}x{clips.size}, clips of {clips.frames} frames, {device.type}, "
        f"{cpu_threads} thread(s); the steps are of one stream"
    )
    records, table = [], Table(title, COLUMNS)
    for kind, own in cases(clips, strides, batches):
        found = _measure(kind, own, cpu_threads, device, rounds, round_seconds)
        records += found
        table.rows.extend(map(_row, found))
    return records, table


def _measure(
    kind: str, clips: NoiseClips, cpu_threads: int, device: torch.device, rounds: int, round_seconds: float
) -> list[dict[str, Any]]:
    entries = [Pass(kind, precision, clips) for precision in precisions(device)]
    with threads(cpu_threads):
        timings = take_turns({e.name: e.prepare(device) for e in entries}, device, rounds, round_seconds)
    return [
        {
            "work": kind,
            "stride": clips.stride,
            "batch": clips.batch,
            "frames": entry.frames_per_call,
            "size": clips.size,
            "precision": entry.precision,
            "threads": cpu_threads,
            "device": device.type,
            "frames_per_s": entry.frames_per_call / timings[entry.name].median,
            **timings[entry.name].to_json(),
            "peak_bytes": peak_memory(entry, device, cpu_threads),
        }
        for entry in entries
    ]


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    low, high = (1e3 * s for s in record["seconds_quartiles"])
    return (
        record["work"],
        str(record["stride"]),
        str(record["batch"]),
        record["precision"],
        rate(record["frames_per_s"]),
        f"{1e3 * record['seconds']:.2f}",
        f"{low:.2f}-{high:.2f}",
        megabytes(record["peak_bytes"]),
    )
