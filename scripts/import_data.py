"""Makes a store of recordings that others made, such as a folder of videos, on which tokenizers and worlds train.

    python scripts/import_data.py my_videos                          a folder or a file, into data/my_videos
    python scripts/import_data.py --from videos my_videos --out data/my_videos --frame-size 48x96 --fps 10
    python scripts/import_data.py my_videos --dry-run                only says what would be done

Then train on it: accelerate launch scripts/train_vqvae.py --name my_videos --store data/my_videos. Long recordings are
cut into episodes that do not overlap. Only whole episodes are written: the same command continues an import that was
stopped, and adds what has come into the folder since.
"""

from __future__ import annotations

from pathlib import Path

from vqvideo import cli
from vqvideo.data.config import ImportConfig


def next_steps(store: Path) -> str:
    """The commands that come next."""
    these = f"--name {store.name} --store {store}"
    return (
        f"Train on it:\n  accelerate launch scripts/train_vqvae.py {these}\n"
        f"  accelerate launch scripts/train_prior.py {these}\n  python scripts/rollout.py {these}"
    )


def main() -> None:
    """Reads the command line and imports."""
    import tyro

    options = tyro.cli(ImportConfig, description=__doc__)
    from vqvideo.data.importing import import_data

    folder = import_data(options)
    if not options.dry_run:
        print(cli.commands_here(next_steps(folder)))


if __name__ == "__main__":
    cli.run(main)
