"""Trains the tokenizer, a causal 3-D convolutional VQ-VAE. Records or imports the episodes first if there are none.

What tokenizer or prior would refuse of settings and episodes is refused before anything is recorded or trained.

accelerate launch scripts/train_vqvae.py
accelerate launch scripts/train_vqvae.py --config configs/car_racing.yaml --resume
accelerate launch scripts/train_vqvae.py --name my_videos --record.source my_videos
accelerate launch scripts/train_vqvae.py --name my_videos --store data/my_videos    what import_data.py has imported
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from vqvideo import cli

if TYPE_CHECKING:
    from vqvideo.data.config import RecordConfig
    from vqvideo.data.store import Store
    from vqvideo.experiment.checks import Known, Stage
    from vqvideo.experiment.config import Experiment

CONFIG = Path(__file__).parents[1] / "configs" / "car_racing.yaml"


def open_store(cfg: Experiment, *stages: Stage, variants: Iterable[Experiment] = (), **known: Unpack[Known]) -> Store:
    """The experiment's episodes, recorded now if there are none yet: by the first process of each machine, for which
    the others wait. What the stages to come would refuse is refused before.

    Args:
        cfg: the settings.
        stages: those to come, the next one first.
        variants: what is going to be trained in place of `cfg`, on its episodes.
        known: what else is known of them.
    """
    from vqvideo.data.store import Store
    from vqvideo.envs.recording import record, with_frame_size
    from vqvideo.errors import InputError
    from vqvideo.experiment.checks import check_settings, check_store
    from vqvideo.training.launch import join_processes
    from vqvideo.training.processes import on_main_process, together

    folder = cfg.record.folder
    manifest = folder / "manifest.jsonl"
    trained = [replace(variant, record=cfg.record) for variant in variants] or [cfg]
    known["processes"] = join_processes().num_processes

    def is_empty() -> bool:
        return not manifest.exists() or not manifest.stat().st_size

    def check_first() -> None:
        # What is in recordings of others is known when they are imported.
        if cfg.record.source is not None or not is_empty():
            return
        try:
            planned = with_frame_size(cfg.record)
        except InputError as error:
            import_them = f"python scripts/import_data.py my_recordings --out {folder}"
            raise InputError(f"{error}. If there are recordings, import them: {import_them}") from error
        for one in trained:
            check_settings(replace(one, record=planned), *stages, **known)

    def record_first() -> None:
        if is_empty():
            print(f"no episodes in {folder}: {doing(cfg.record)} first", flush=True)
            record(cfg.record)

    def opened() -> Store:
        store = Store.open(folder)
        for one in trained:
            check_store(one, store, *stages, **known)
        return store

    together(check_first)
    on_main_process(record_first, of_each_machine=True)
    store = together(opened)
    if len(store.entries) < cfg.record.episodes and recorded_as(cfg.record.env, store):
        print(
            f"note: {folder} holds {len(store.entries)} of {cfg.record.episodes} episodes. Record the others: "
            f"{cfg.record.command}"
        )
    return store


def doing(record: RecordConfig) -> str:
    """Where episodes come from, such as: recording 120 episodes of CarRacing."""
    return (
        f"recording {record.episodes} episodes of {record.env}"
        if record.source is None
        else f"importing {record.source}"
    )


def recorded_as(env: str, store: Store) -> bool:
    """Whether a store holds episodes of this environment, and no other or imported ones."""
    from vqvideo import envs
    from vqvideo.errors import InputError

    if store.meta.imported or store.meta.env_id == env:
        return not store.meta.imported
    try:
        return store.meta.env_id == envs.name_of(envs.resolve(env))
    except InputError:  # it is not installed here, and need not be
        return False


def main() -> None:
    """Reads the settings and trains."""
    from vqvideo.experiment.config import TrainingOptions, parse, vqvae_folder

    cfg = parse(TrainingOptions, CONFIG, __doc__ or "", measures=True).on_store()
    # After the settings: --help need not wait for torch.
    from vqvideo.experiment.tokenizer import train_vqvae
    from vqvideo.training.launch import join_processes

    store = open_store(cfg, "vqvae", "prior", resume=cfg.resume)
    figures = train_vqvae(cfg, store, resume=cfg.resume, any_world_size=cfg.any_world_size)
    if join_processes().is_main_process:
        cli.report(f"tokenizer in {vqvae_folder(cfg)}", figures)


if __name__ == "__main__":
    cli.run(main)
