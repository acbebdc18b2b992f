"""Makes a trained world ready to be shipped inside the package: half precision, start clips, model card.

    python scripts/ship_world.py                                  runs/car_racing to vqvideo/pretrained/carracing
    python scripts/ship_world.py --world runs/doom/world --store data/doom --out vqvideo/pretrained/doom

Measures the world as it is shipped, and what half precision costs; refuses more than 12 MiB. What is in the card beyond
that comes from the store, from the run's folder beside the world and from --card-figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from vqvideo import cli
from vqvideo.errors import InputError, at_least


@dataclass(frozen=True)
class Options:
    """What to ship."""

    world: Path = Path("runs/car_racing/world")
    """Folder of the trained world; its run is the folder above."""
    store: Path = Path("data/car_racing")
    """Folder of the episodes that it was trained on."""
    out: Path = Path("vqvideo/pretrained/carracing")
    """Where the shipped world goes; the folder's name is the world's."""
    clips: int = 24
    """Start clips, spread over the held-out episodes."""
    length: int = 25
    """Latent steps of a start clip."""
    config: Path | None = None
    """Configuration that the training was started with, for the card; by default configs/<run>.yaml, if there."""
    hardware: str | None = None
    """What it was trained on, for the card; by default what the figures' file says."""
    card_figures: Path | None = None
    """JSON file of further figures for the card, such as configs/results/car_racing.json."""
    evaluate: int = 32
    """Held-out clips for the figures."""
    context: int = 3
    """Latent steps that the model sees for them."""
    horizon: int = 16
    """Latent steps that it imagines for them."""
    threads: int | None = None
    """CPU threads; by default measured."""

    def __post_init__(self) -> None:
        at_least(self, "--", clips=1, length=3, evaluate=2, context=1, horizon=1)


def ship(options: Options) -> Path:
    """Ships a world and returns its folder."""
    from vqvideo.data.clips import Clips
    from vqvideo.data.store import Store
    from vqvideo.evaluation.world import evaluate_world
    from vqvideo.models.prior import Sampling
    from vqvideo.scripts import shipment
    from vqvideo.training.hardware import configure_threads, default_device
    from vqvideo.world import WorldModel

    configure_threads(options.threads)
    figures = read_figures(options)
    world, store = WorldModel.from_pretrained(options.world).to(default_device()), Store.open(options.store)
    store.require(world.action_space, world.vqvae.frame_size)
    shipped = shipment.rounded(world)
    starts = Clips(store, "held_out", world.vqvae.clip_length(options.length))
    measured = Clips(store, "held_out", world.vqvae.clip_length(options.context + options.horizon))
    picks = starts.spread(options.clips).tolist()
    judged = measured.spread(options.evaluate).tolist()
    full, half = (shipment.quality(model, measured, judged) for model in (world, shipped))
    rounding = shipment.rounding_text(full, half)
    report = evaluate_world(shipped, measured, options.evaluate, options.context, Sampling(), seed=0)
    training = shipment.training_text(
        options.world.parent, command(options), options.hardware or figures.get("hardware")
    )
    text = shipment.card(options.out.name, shipped, starts, picks, report, rounding, training, figures)
    shipment.export_world(shipped, options.out, starts, picks, text)
    print(f"{report.table()}\n{rounding}")
    size = shipment.folder_bytes(options.out) / 2**20
    print(f"shipped {options.out}: {size:.2f} MiB with {len(picks)} start clips of {starts.length} frames")
    return options.out


def read_figures(options: Options) -> dict[str, Any]:
    """The figures of --card-figures; empty without."""
    from vqvideo.storage import files

    if options.card_figures is None:
        return {}
    figures = files.parse_json(files.read_small(options.card_figures), str(options.card_figures))
    if not isinstance(figures, dict):
        raise InputError(f"{options.card_figures}: expected a JSON object of figures")
    return figures


def command(options: Options) -> str:
    """What was typed to train the world."""
    run = options.world.parent
    config = options.config or Path("configs") / f"{run.name}.yaml"
    if options.config is not None and not config.is_file():
        raise InputError(f"no configuration file {config}: see configs/")
    settings = f"--config {config}" if config.is_file() else f"--name {run.name}"
    return "\n".join(f"accelerate launch scripts/train_{stage}.py {settings}" for stage in ("vqvae", "prior"))


def main() -> None:
    """Reads the command line and ships."""
    ship(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
