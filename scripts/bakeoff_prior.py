"""Trains variants of one prior on the codes of one trained tokenizer under equal conditions and prints one table.

    python scripts/bakeoff_prior.py                                                     how tokens are drawn
    python scripts/bakeoff_prior.py --suite configs/bakeoff/prior_conditioning.yaml     how actions enter
    python scripts/bakeoff_prior.py --prior.init runs/car_racing/world --plot heads.png     heads on a trained backbone

A suite is a YAML file with a line per variant; what all share is the experiment (--config, and flags). The tokenizer is
--tokenizer, the store --record.out. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import tyro

from vqvideo import cli
from vqvideo.data.recording import snake_case
from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.results import Results, Row, markdown
from vqvideo.scripts.benchmarks.trial_config import TrialConfig
from vqvideo.scripts.train_vqvae import open_store

if TYPE_CHECKING:
    from vqvideo.data.store import Store
    from vqvideo.experiment.config import Experiment
    from vqvideo.scripts.benchmarks.horizon_plot import HorizonCurves
    from vqvideo.scripts.benchmarks.prior_trial import Trial

CONFIG = Path(__file__).parents[1] / "configs" / "bakeoff_prior.yaml"
SUITE = CONFIG.parent / "bakeoff" / "prior_heads.yaml"
TOKENIZER = Path("runs") / "car_racing" / "vqvae" / "model"

COLUMNS = {
    "token_nats": ".3f", "likelihood": "s", "bits_per_frame": ".1f", "gain_db": ".2f", "controllability_db": ".2f",
    "gain_at_window_db": ".2f", "gain_at_horizon_db": ".2f", "fd_at_window": ".1f", "fd_at_horizon": ".1f",
    "repeat_rate": ".1%", "reward_error": ".2f", "parameters": ",.0f", "steps": ".0f", "seconds": ".0f",
    "frames_per_s_1": ".0f", "frames_per_s_16": ".0f",
}  # fmt: skip
WITH_SPREAD = ("token_nats", "gain_db", "controllability_db")


@dataclass(frozen=True)
class Bench:
    """What all variants share."""

    folder: Path
    """Where the runs go."""
    tokenizer: Path
    """Folder of the trained tokenizer."""
    store: Store
    """The episodes."""
    trial: Trial
    """How they are measured."""


def measure(cfg: Experiment, variant: Experiment, bench: Bench) -> Row:
    """Trains `cfg`, or takes the run that is there, and measures it as `variant` draws from it."""
    from vqvideo.experiment.config import world_folder
    from vqvideo.experiment.prior import train_prior
    from vqvideo.scripts.benchmarks.prior_trial import as_drawn
    from vqvideo.training.hardware import default_device
    from vqvideo.training.run_folder import RunFolder
    from vqvideo.world import WorldModel

    train_prior(cfg, bench.store, resume=True, tokenizer=bench.tokenizer)
    last = RunFolder(cfg.folder / "prior").records()[-1]
    world = as_drawn(WorldModel.from_pretrained(world_folder(cfg)), variant.prior.model).to(default_device())
    return {
        **bench.trial.figures(world, variant.sampling),
        "steps": last["step"],
        "seconds": last["seconds"],
    }


def add_row(results: Results, bench: Bench, variants: Mapping[str, Experiment], name: str, seed: int) -> None:
    """Adds the row of a variant, unless the very same is there. What differs from an earlier variant only in how codes
    are drawn shares its training.
    """
    from vqvideo.scripts.benchmarks.prior_trial import as_trained

    def with_seed(variant: Experiment) -> Experiment:
        return replace(variant, prior=replace(variant.prior, train=replace(variant.prior.train, seed=seed)))

    wanted = as_trained(variants[name].prior)
    first = next(other for other, variant in variants.items() if as_trained(variant.prior) == wanted)
    trained = replace(with_seed(variants[first]), runs=bench.folder, name=f"{snake_case(first)}/seed{seed}")
    key = fingerprint(with_seed(variants[name]), bench)
    if results.rows.get(name, {}).get(seed, {}).get("of") != key:
        results.add(name, seed, {**measure(trained, variants[name], bench), "of": key})


def fingerprint(variant: Experiment, bench: Bench) -> str:
    """SHA-256 of all that a row depends on."""
    from vqvideo.models.tokenizer.vqvae import VQVAE
    from vqvideo.storage import files
    from vqvideo.storage.records import to_plain
    from vqvideo.world import WorldModel

    init = variant.prior.init
    depends = {
        "prior": to_plain(variant.prior),
        "sampling": to_plain(variant.sampling),
        "trial": to_plain(bench.trial.cfg),
        "store": bench.store.digest,
        "tokenizer": VQVAE.from_pretrained(bench.tokenizer).fingerprint(),
        "init": WorldModel.from_pretrained(init).fingerprint() if init else None,
    }
    return sha256(files.canonical_json(depends)).hexdigest()


def table(rows: Mapping[str, Mapping[int, Row]]) -> str:
    """Means over seeds as a Markdown table, with half the range of the seeds where it matters."""
    return markdown(rows, COLUMNS, WITH_SPREAD)


def curves(by_seed: Mapping[int, Row]) -> HorizonCurves:
    """The curves of a variant, means over its seeds."""
    from vqvideo.scripts.benchmarks.horizon_plot import HorizonCurves

    found = [row["curves"] for row in by_seed.values()]
    gains = [mean(steps) for steps in zip(*(curve["gain_db"] for curve in found), strict=True)]
    distances = [mean(blocks) for blocks in zip(*(curve["fd_effnetlite0"] for curve in found), strict=True)]
    return HorizonCurves(gains, dict(zip(found[0]["fd_last_steps"], distances, strict=True)))


def main() -> None:
    """Reads the settings and runs the variants."""
    from vqvideo.evaluation.frame_sets import lite0_missing
    from vqvideo.experiment.config import Experiment, parse
    from vqvideo.models.tokenizer.vqvae import VQVAE
    from vqvideo.scripts.benchmarks.horizon_plot import plot_horizons
    from vqvideo.scripts.benchmarks.plots import require_matplotlib
    from vqvideo.scripts.benchmarks.prior_trial import FIRST_STEPS, Trial
    from vqvideo.scripts.benchmarks.suites import Suite
    from vqvideo.training.hardware import default_device

    @dataclass(frozen=True)
    class Options(Experiment):
        """Settings of the experiment."""

        suite: Path = SUITE
        """The variants to compare."""
        only: tuple[str, ...] = ()
        """Names of the variants to run; all by default."""
        seeds: tuple[int, ...] = (0,)
        """Training seeds, one run of each variant for each."""
        tokenizer: Path = TOKENIZER
        """Folder of the trained tokenizer."""
        trial: tyro.conf.OmitArgPrefixes[TrialConfig] = field(default_factory=TrialConfig)
        """How they are measured."""
        plot: Path | None = None
        """Draws gain and Fréchet distance over the horizon into this PNG."""

    cfg = parse(Options, CONFIG, __doc__ or "")
    if cfg.plot:
        require_matplotlib()
    if not cfg.tokenizer.is_dir():
        raise InputError(f"no tokenizer in {cfg.tokenizer}: train one (scripts/train_vqvae.py), or name it --tokenizer")
    suite = Suite.read(cfg.suite)
    chosen = suite.chosen(cfg.only)
    variants = {name: suite.experiment(cfg, name) for name in suite.variants}
    stages = [variant.prior for variant in variants.values()]
    missing = lite0_missing() if cfg.trial.frechet_frames else "--frechet-frames 0"
    store, window = open_store(cfg), cfg.prior.model.window
    vqvae = VQVAE.from_pretrained(cfg.tokenizer).to(default_device())
    trial = Trial(cfg.trial, vqvae, store, stages, window)
    bench = Bench(cfg.folder / suite.name, cfg.tokenizer, store, trial)
    results = Results(bench.folder / "results.json")
    for seed in cfg.seeds:
        for name in chosen:
            add_row(results, bench, variants, name, seed)
            print(table({name: results.rows[name]}), flush=True)
    print(
        f"suite {suite.name}, seeds {list(cfg.seeds)}, {trial.count} held-out clips of {store.path}; gain: first "
        f"{FIRST_STEPS} of {cfg.trial.horizon} latent steps, window: {window}; fd: squared Fréchet distance, "
        f"EfficientNet-Lite0{f' (not measured: {missing})' if missing else ''}\n{table(results.rows)}"
    )
    if cfg.plot:
        title = f"{store.meta.env_id}, {suite.name}, {trial.count} held-out clips"
        plot_horizons({name: curves(rows) for name, rows in results.rows.items()}, window, title, cfg.plot)
        print(f"plot {cfg.plot}")


if __name__ == "__main__":
    cli.run(main)
