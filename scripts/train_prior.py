"""Trains the action-conditioned prior over the codes of the trained tokenizer and exports the world model.

accelerate launch scripts/train_prior.py
accelerate launch scripts/train_prior.py --config configs/car_racing.yaml --resume
accelerate launch scripts/train_prior.py --name my_videos    on the episodes that its tokenizer was trained on

The codes of the episodes are kept beside these for the next prior; of a store that cannot be written, such as a shared
one, in runs/<name>/prior/codes.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from vqvideo import cli
from vqvideo.scripts.train_vqvae import CONFIG

if TYPE_CHECKING:
    from vqvideo.experiment.config import TrainingOptions


def on_episodes_of_tokenizer(cfg: TrainingOptions) -> TrainingOptions:
    """The same settings, of the episodes that the run's tokenizer was trained on, unless the command line names some:
    a name alone must not lead to the default environment's.
    """
    from vqvideo.experiment.config import Experiment
    from vqvideo.storage.records import read_yaml, typed

    settings = cfg.folder / "vqvae" / "config.yaml"
    named = cfg.store or any(word.startswith("--record.") for word in sys.argv[1:])
    if named or not settings.is_file():
        return cfg
    record = typed(Experiment, read_yaml(settings), str(settings)).record
    if record.folder == cfg.record.folder:
        return cfg
    print(f"on the episodes that the tokenizer was trained on, {record.folder} (--store names others)", flush=True)
    return replace(cfg, record=record)


def main() -> None:
    """Reads the settings and trains."""
    from vqvideo.errors import InputError
    from vqvideo.experiment.config import TrainingOptions, parse, vqvae_folder, world_folder

    cfg = on_episodes_of_tokenizer(parse(TrainingOptions, CONFIG, __doc__ or "", measures=True).on_store())
    # After the settings: --help need not wait for torch.
    from vqvideo.data.store import Store
    from vqvideo.experiment.prior import train_prior
    from vqvideo.storage.files import standing
    from vqvideo.training.launch import join_processes

    join_processes()
    if not standing(vqvae_folder(cfg)).is_dir():
        same = shlex.join(word for word in sys.argv[1:] if word != "--resume")
        raise InputError(
            f"no tokenizer in {vqvae_folder(cfg)}. Train one, which also records the episodes if there are none: "
            f"accelerate launch scripts/train_vqvae.py {same}"
        )
    figures = train_prior(cfg, Store.open(cfg.record.folder), resume=cfg.resume, any_world_size=cfg.any_world_size)
    if join_processes().is_main_process:
        cli.report(f"world model in {world_folder(cfg)}", figures)


if __name__ == "__main__":
    cli.run(main)
