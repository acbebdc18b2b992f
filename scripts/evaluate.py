"""Measures an experiment's trained tokenizer on all of its held-out episodes, cut into clips that do not overlap.

    python scripts/evaluate.py
    accelerate launch scripts/evaluate.py --config configs/quickstart.yaml

Among the figures is the bound on the bits per dimension that the article reports of CIFAR-10 (bits_per_dim and its
terms, see vqvideo.evaluation.likelihood).
With several processes each takes its share of the clips; the figures do not depend on their number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vqvideo import cli

CONFIG = Path(__file__).parents[1] / "configs" / "car_racing.yaml"


def main() -> None:
    """Reads the settings, measures, writes evaluation.json beside the model."""
    from vqvideo.experiment.config import Experiment, parse

    @dataclass(frozen=True)
    class Options(Experiment):
        """Settings of the experiment."""

        clips: int | None = None
        """Held-out clips; by default all that do not overlap."""

    cfg = parse(Options, CONFIG, __doc__ or "")
    from vqvideo.data.clips import Clips
    from vqvideo.data.store import Store
    from vqvideo.errors import at_least
    from vqvideo.evaluation.likelihood import spread_in_training
    from vqvideo.evaluation.tokenizer import evaluate_tokenizer
    from vqvideo.experiment.config import vqvae_folder
    from vqvideo.models.tokenizer.vqvae import VQVAE
    from vqvideo.storage import files
    from vqvideo.storage.records import without_nan
    from vqvideo.training.launch import join_processes

    at_least(cfg, "--", clips=1)
    out = vqvae_folder(cfg).parent / "evaluation.json"
    files.check_writable(out.parent)
    processes = join_processes()
    vqvae = VQVAE.from_pretrained(vqvae_folder(cfg)).to(processes.device)
    store = Store.open(cfg.record.folder)
    clips = Clips(store, "held_out", vqvae.clip_length(cfg.vqvae.latent_steps))
    count = min(cfg.clips or clips.apart, len(clips))
    rank, world = processes.process_index, processes.num_processes
    sigma = spread_in_training(vqvae, store, clips.length)
    figures = evaluate_tokenizer(vqvae, clips, count, rank=rank, world=world, sigma=sigma)
    figures = {**figures, "bits_per_pixel": vqvae.bits_per_pixel, "clips": count, "frames": count * clips.length}
    if processes.is_main_process:
        files.write_file(out, (json.dumps(without_nan(figures), indent=2) + "\n").encode())
        cli.report(f"held-out figures of {vqvae_folder(cfg)}, also in {out}", figures)


if __name__ == "__main__":
    cli.run(main)
