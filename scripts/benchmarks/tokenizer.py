"""The tokenizer's benchmark: quantizer beside its peers, whole model, long streams. Options and order of events."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from vqvideo.errors import at_least
from vqvideo.scripts.benchmarks.subject import Benchmark

if TYPE_CHECKING:
    from vqvideo.scripts.benchmarks.report import Report


@dataclass(frozen=True)
class TokenizerBenchmark(Benchmark):
    """Quantizer against vector-quantize-pytorch, encode, decode and train, long streams: speed and memory."""

    streaming_steps: int = 10_000
    """Latent steps of the long stream."""
    streaming_size: int = 32
    """Height and width of the long stream's frames, smaller than 64 to save time."""
    rounds: int = 9
    """Turns that each contestant has; figures are medians over them."""
    round_seconds: float = 0.05
    """How long a turn lasts at least; short calls are repeated."""

    def __post_init__(self) -> None:
        at_least(self, "--", streaming_steps=20, streaming_size=8, rounds=1)

    def measure(self) -> Report:
        from vqvideo.scripts.benchmarks.quantizer_contestants import PEER, Problem, peer_is_installed
        from vqvideo.scripts.benchmarks.quantizer_speed import measure_quantizers
        from vqvideo.scripts.benchmarks.report import Report
        from vqvideo.scripts.benchmarks.streaming import measure_long_run
        from vqvideo.scripts.benchmarks.timing import devices, thread_counts
        from vqvideo.scripts.benchmarks.tokenizer_speed import NoiseClips, Stream, measure_tokenizer

        cfg = replace(self, rounds=2, round_seconds=0.0, streaming_steps=20, streaming_size=16) if self.quick else self
        problems = [Problem(vectors=512, codes=64)] if self.quick else [Problem(), Problem(dim=64)]
        clips = NoiseClips(size=16, frames=5) if self.quick else NoiseClips()
        strides, batches = ((2,), (1,)) if self.quick else ((2, 1), (1, 8))
        report = Report("tokenizer", {**asdict(replace(cfg, json=None)), "seed": clips.seed})
        report.notes.append("encoding leaves autocast, its codes are to be exact: its bf16 rows are fp32, too")
        if not peer_is_installed():
            report.notes.append(f"{PEER} is not installed, its rows are left out: pip install {PEER}")
        for device in devices():
            counts = thread_counts(device)
            turns = (device, cfg.rounds, cfg.round_seconds)
            quantizers, tables = measure_quantizers(problems, counts, *turns)
            passes, table = measure_tokenizer(clips, strides, batches, counts[-1], *turns)
            stream = Stream(replace(clips, size=cfg.streaming_size))
            long_run, long_table = measure_long_run(stream, cfg.streaming_steps, counts[-1], device)
            long_run |= {"size": stream.clips.size, "stride": stream.clips.stride}
            report.results[device.type] = {"quantizer": quantizers, "tokenizer": passes, "streaming": long_run}
            report.tables.extend([*tables, table, long_table])
        return report
