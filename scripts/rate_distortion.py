"""Rate-distortion of tokenizers and worlds beside x264, x265 and SVT-AV1, over held-out episodes: table, JSON, plot.

    python scripts/rate_distortion.py --models runs/car_racing/vqvae/model
    python scripts/rate_distortion.py --models runs/*/vqvae/model --record.out data/car_racing --episodes 20
    python scripts/rate_distortion.py --worlds carracing --record.out data/fresh --episodes 4

Of a world it is the size of real files that counts, as `scripts/compress.py` makes them, without header and actions.
The codecs get slow presets, one key frame per episode and no overhead counted, and of all settings tried the best.
Writes rate_distortion.json and rate_distortion.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo import cli
from vqvideo.scripts.train_vqvae import CONFIG

if TYPE_CHECKING:
    from vqvideo.data.store import Store
    from vqvideo.scripts.benchmarks.coded import Coded
    from vqvideo.scripts.benchmarks.curves import Point, RateDistortion

COLUMNS = ("name", "bits/pixel", "PSNR dB", "PSNR of mean MSE", "SSIM", "Fréchet", "kbit/s")
COMPARED = ("tokenizer", "its PSNR", "codec", "codec's PSNR", "difference", "codec's size at its PSNR")


def main() -> None:
    """Reads the settings, measures, prints and writes."""
    from vqvideo.experiment.config import Experiment, parse

    @dataclass(frozen=True)
    class Options(Experiment):
        """Settings of the experiment; of them only the folder of the episodes counts here."""

        models: tuple[Path, ...] = ()
        """Folders of trained tokenizers; by default the experiment's, unless worlds are named."""
        worlds: tuple[str, ...] = ()
        """Folders of world models, or names of those that come along; needs vqvideo[codec]."""
        crf: tuple[int, int] = (0, 63)
        """Only settings of codecs whose constant rate factors lie between these: near one PSNR, a part is enough."""
        frechet: bool = False
        """Also Fréchet distances of files and codecs; needs vqvideo[perceptual], and takes some minutes more."""
        episodes: int = 10
        """Held-out episodes, spread over the split."""
        table_episodes: int = 40
        """Training episodes whose code frequencies make the static table; 0 for no table."""
        out: Path | None = None
        """Where plot and figures go; by default rate_distortion/ in the experiment's folder."""
        json: Path | None = None
        """Figures; by default rate_distortion.json in --out."""
        threads: int | None = None
        """CPU threads; by default measured."""

    options = parse(Options, CONFIG, __doc__ or "")
    from vqvideo.data.store import Store
    from vqvideo.errors import at_least
    from vqvideo.experiment.config import vqvae_folder
    from vqvideo.models.tokenizer.features import Lite0Features
    from vqvideo.scripts.benchmarks.rate_distortion import measure
    from vqvideo.scripts.fidelity_plot import require_matplotlib
    from vqvideo.training.hardware import configure_threads

    at_least(options, "--", episodes=1, table_episodes=0)
    require_matplotlib()
    configure_threads(options.threads)
    store = Store.open(options.record.folder)
    models = options.models or (() if options.worlds else (vqvae_folder(options),))
    net = Lite0Features() if options.frechet else None
    found, files = measure(store, models, options.episodes, options.table_episodes, options.worlds, options.crf, net)
    print(tables(found))
    print(*map(of_files, files), sep="\n")
    out = options.out or options.folder / "rate_distortion"
    write(found, files, store, out / "rate_distortion.png", options.json or out / "rate_distortion.json")


def write(found: RateDistortion, files: Sequence[Coded], store: Store, picture: Path, figures: Path) -> None:
    """Writes the plot and the figures."""
    from vqvideo.scripts.benchmarks.plots import plot_rate_distortion
    from vqvideo.scripts.benchmarks.results import write_figures
    from vqvideo.training.hardware import hardware, versions

    record = {
        "store": str(store.path),
        "store_digest": store.digest,
        "hardware": hardware(),
        "versions": versions(),
        **found.to_json(),
        "files": [file.to_json() for file in files],
    }
    write_figures(figures, record)
    h, w = found.frame_size
    title = f"{store.meta.env_id}, {found.sequences} held-out episodes, {h}x{w}, {store.meta.fps:g} frames/s"
    plot_rate_distortion(found, title, picture)
    print(f"\nplot    {picture}\nfigures {figures}")


def tables(found: RateDistortion) -> str:
    """The tokenizers' points and the codecs' curves, then each tokenizer against the codecs at its rate."""
    from vqvideo.evaluation.tables import cell, table

    h, w = found.frame_size
    compared = []
    for point in found.ours:
        for family, figures in found.compared(point).items():
            peer = both(figures["psnr_db_at_same_rate"], figures["psnr_of_mean_mse_db_at_same_rate"])
            gain = both(figures["difference_db"], figures["difference_of_mean_mse_db"], "+")
            times = cell(figures["bits_per_pixel_at_same_psnr"] / point.bits_per_pixel, ".2f")
            compared.append((point.name, both(point.psnr_db, point.psnr_of_mean_mse_db), family, peer, gain, times))
    return (
        f"{found.sequences} held-out episodes, {found.frames} frames of {h}x{w}\n\n"
        f"{table(COLUMNS, map(cells, chain(found.ours, *found.hulls.values())))}\n\n"
        "At the tokenizer's rate, dB: mean of PSNR (PSNR of mean MSE); and how many times its size a codec needs for "
        f"its PSNR\n\n{table(COMPARED, compared)}"
    )


def of_files(file: Coded) -> str:
    """What else there is to say of a world's files."""
    return (
        f"\n{file.point.name}: {file.share:.1%} of codes of fixed length, and {file.actions:.1f} bits a frame for the "
        f"actions; {file.encoded_per_s:.0f} frames/s encoded, {file.decoded_per_s:.0f} decoded; "
        f"{file.weights:,} weights"
    )


def both(mean: float, of_mean: float, sign: str = "") -> str:
    """The two kinds of PSNR; a dash where the codec does not reach the rate."""
    return "-" if isnan(mean) else f"{mean:{sign}.2f} ({of_mean:{sign}.2f})"


def cells(point: Point) -> tuple[str, ...]:
    """A point as text, in the order of COLUMNS."""
    return (
        point.name,
        f"{point.bits_per_pixel:.4f}",
        f"{point.psnr_db:.2f}",
        f"{point.psnr_of_mean_mse_db:.2f}",
        f"{point.ssim:.4f}",
        "-" if isnan(point.frechet) else f"{point.frechet:.1f}",
        f"{point.kbit_per_s:.2f}",
    )


if __name__ == "__main__":
    cli.run(main)
