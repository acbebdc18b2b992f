"""Writes the episodes of a store as a dataset of other tools, or puts the store onto the Hugging Face Hub.

    python scripts/export_data.py data/car_racing --to minari              into exports/car_racing_minari
    python scripts/export_data.py data/car_racing --to lerobot --lossless --out my_dataset
    python scripts/export_data.py data/car_racing --to mp4 --split held_out
    python scripts/export_data.py data/car_racing --to hub --repo your_name/car_racing

The folder appears when it is complete. The environment, the action space and the frame rate go along.
"""

from __future__ import annotations

from vqvideo import cli
from vqvideo.data.export_config import ExportConfig


def export_data(options: ExportConfig) -> None:
    """Exports, and says how the result is read."""
    if options.format == "hub":
        from vqvideo.data.store import Store

        address = Store.open(options.store).push_to_hub(options.repo or "", private=options.private)
        print(f'{address}: fetch it with Store.from_hub("{options.repo}")')
        return
    from vqvideo.data.export import export_store
    from vqvideo.data.exporting import exporter_class

    folder = export_store(options)
    print(f"{folder}: read it with {exporter_class(options.format).read_with.format(folder=folder)}")


def main() -> None:
    """Reads the command line and exports."""
    import tyro

    export_data(tyro.cli(ExportConfig, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
