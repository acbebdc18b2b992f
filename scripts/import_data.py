"""Makes a store of recordings that others made, on which tokenizers and worlds train.

    python scripts/import_data.py my_game                            a folder or a file, into data/my_game
    python scripts/import_data.py my_game --dry-run                  only says what would be done, and shows it
    python scripts/import_data.py hf://lerobot/pusht               a data set, or a store, of the Hugging Face Hub
    python scripts/import_data.py --from videos my_game --out data/my_game --frame-size 48x96 --fps 10

A film with a file of the same name beside it (game1.mp4, game1.csv: a row per frame, with columns such as action_0,
action_1, reward, done) has actions. Long recordings are cut into episodes that do not overlap. Only whole episodes are
written: the same command continues an import that was stopped, and adds what has come into the folder since.
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

    from vqvideo.data.formats import FORMATS

    listed = "\n".join(f"    {name:<18}{format.what}" for name, format in FORMATS.items())
    options = tyro.cli(ImportConfig, description=f"{__doc__}\nFormats (--from):\n\n{listed}")
    from vqvideo.data.importing import import_data

    folder = import_data(options)
    if not options.dry_run:
        print(cli.commands_here(next_steps(folder)))


if __name__ == "__main__":
    cli.run(main)
