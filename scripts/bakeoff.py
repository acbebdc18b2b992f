"""Trains variants of one tokenizer on one store under equal conditions and prints one table.

    python scripts/bakeoff.py                                               what to build a tokenizer from
    python scripts/bakeoff.py --suite configs/bakeoff/quantizers.yaml       one quantizer after the other
    python scripts/bakeoff.py --only default "no L1" --seeds 0 1 2          some of them, three seeds each

A suite is a YAML file with a line per variant; what all share is the experiment (--config, and flags). Any store will
do (--record.out). Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from vqvideo import cli

if TYPE_CHECKING:
    from vqvideo.data.clips import Clips
    from vqvideo.data.store import Store
    from vqvideo.experiment.config import Experiment
    from vqvideo.models.tokenizer.vqvae import VQVAE
    from vqvideo.scripts.benchmarks.results import Row

CONFIG = Path(__file__).parents[1] / "configs" / "bakeoff.yaml"

COLUMNS = {
    "bits_per_pixel": ".4f", "psnr_db": ".2f", "ssim": ".4f", "changed_psnr_db": ".2f", "codes_used": ".0%",
    "effective_bits": ".2f", "parameters": ",.0f", "steps": ".0f", "seconds": ".0f", "encode_frames_per_s": ".0f",
    "decode_frames_per_s": ".0f",
}  # fmt: skip
WITH_SPREAD = ("psnr_db", "changed_psnr_db")


def measure(cfg: Experiment, store: Store) -> Row:
    """Trains one variant, or takes the run that is there, and measures it: held-out figures, size, rate, speed."""
    from vqvideo.data.clips import Clips
    from vqvideo.experiment.config import vqvae_folder
    from vqvideo.experiment.tokenizer import train_vqvae
    from vqvideo.models.tokenizer.vqvae import VQVAE
    from vqvideo.training.run_folder import RunFolder

    figures = train_vqvae(cfg, store, resume=True)
    last = RunFolder(cfg.folder / "vqvae").records()[-1]
    vqvae = VQVAE.from_pretrained(vqvae_folder(cfg))
    clips = Clips(store, "held_out", vqvae.clip_length(cfg.vqvae.latent_steps))
    return {
        "bits_per_pixel": vqvae.bits_per_pixel,
        **figures,
        "parameters": sum(p.numel() for p in vqvae.parameters()),
        "steps": last["step"],
        "seconds": last["seconds"],
        **reconstruction_speed(vqvae, clips),
    }


def reconstruction_speed(vqvae: VQVAE, clips: Clips, batch: int = 8, trials: int = 5) -> dict[str, float]:
    """Frames per second of encoding and of decoding `batch` clips at once: medians of a few trials."""
    import torch

    from vqvideo.data.clips import stack_frames

    frames = stack_frames(clips, clips.spread(batch).tolist()).to(vqvae.device)
    with torch.no_grad():
        codes = vqvae.encode(frames)
        count = frames.shape[0] * frames.shape[1]
        rates: dict[str, list[float]] = {"encode_frames_per_s": [], "decode_frames_per_s": []}
        for _ in range(trials):
            for name, work in (("encode", lambda: vqvae.encode(frames)), ("decode", lambda: vqvae.decode(codes))):
                began = time.perf_counter()
                work().cpu()
                rates[f"{name}_frames_per_s"].append(count / (time.perf_counter() - began))
    return {name: median(values) for name, values in rates.items()}


def table(rows: Mapping[str, Mapping[int, Row]]) -> str:
    """Means over seeds, with half the range of the seeds where it matters."""
    from vqvideo.scripts.benchmarks.results import means

    return means(rows, COLUMNS, WITH_SPREAD)


def main() -> None:
    """Reads the settings and runs the variants."""
    from vqvideo.experiment.config import parse
    from vqvideo.scripts.benchmarks.bakeoff_options import BakeoffOptions

    cfg = parse(BakeoffOptions, CONFIG, __doc__ or "")
    from vqvideo.data.config import snake_case
    from vqvideo.scripts.benchmarks.results import Results
    from vqvideo.scripts.benchmarks.suites import Suite
    from vqvideo.scripts.train_vqvae import open_store

    suite = Suite.read(cfg.suite)
    variants = {name: suite.experiment(cfg, name) for name in suite.chosen(cfg.only)}
    store = open_store(cfg, "vqvae", variants=variants.values())
    results = Results(cfg.folder / suite.name / "results.json")
    for seed in cfg.seeds:
        for name, variant in variants.items():
            train = replace(variant.vqvae.train, seed=seed)
            run = f"{cfg.name}/{suite.name}/{snake_case(name)}/seed{seed}"
            own = replace(variant, name=run, vqvae=replace(variant.vqvae, train=train))
            results.add(name, seed, measure(own, store))
            print(table({name: results.rows[name]}), flush=True)
    clips = next(iter(variants.values())).vqvae.validation_clips
    print(f"suite {suite.name}, seeds {list(cfg.seeds)}, {clips} held-out clips of {store.path}\n{table(results.rows)}")


if __name__ == "__main__":
    cli.run(main)
