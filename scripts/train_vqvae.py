"""Trains the tokenizer, a causal 3-D convolutional VQ-VAE. Records the episodes first if there are none.

accelerate launch scripts/train_vqvae.py
accelerate launch scripts/train_vqvae.py --config configs/car_racing.yaml --resume
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo import cli

if TYPE_CHECKING:
    from vqvideo.data.store import Store
    from vqvideo.experiment.config import Experiment

CONFIG = Path(__file__).parents[1] / "configs" / "car_racing.yaml"


def open_store(cfg: Experiment) -> Store:
    """The experiment's episodes, recorded now if there are none yet: by the first process of each machine, for which
    the others wait.
    """
    from vqvideo.data.store import Store
    from vqvideo.envs.recording import record
    from vqvideo.training.launch import join_processes
    from vqvideo.training.processes import on_main_process

    folder = cfg.record.folder
    manifest = folder / "manifest.jsonl"

    def record_first() -> None:
        if not manifest.exists() or not manifest.stat().st_size:
            print(f"no episodes in {folder}: recording {cfg.record.episodes} of {cfg.record.env} first", flush=True)
            record(cfg.record)

    join_processes()
    on_main_process(record_first, of_each_machine=True)
    store = Store.open(folder)
    if len(store.entries) < cfg.record.episodes:
        print(
            f"note: {folder} holds {len(store.entries)} of {cfg.record.episodes} episodes. Record the others: "
            f"python scripts/record.py --env {cfg.record.env} --out {folder} --episodes {cfg.record.episodes} "
            f"--steps {cfg.record.steps} --frame-size {'x'.join(map(str, cfg.record.size))}"
        )
    return store


def main() -> None:
    """Reads the settings and trains."""
    from vqvideo.experiment.config import TrainingOptions, parse, vqvae_folder

    cfg = parse(TrainingOptions, CONFIG, __doc__ or "")
    # After the settings: --help need not wait for torch.
    from vqvideo.experiment.tokenizer import train_vqvae
    from vqvideo.training.launch import join_processes

    figures = train_vqvae(cfg, open_store(cfg), resume=cfg.resume, any_world_size=cfg.any_world_size)
    if join_processes().is_main_process:
        cli.report(f"tokenizer in {vqvae_folder(cfg)}", figures)


if __name__ == "__main__":
    cli.run(main)
