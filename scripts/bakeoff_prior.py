"""Trains variants of one prior on the codes of one trained tokenizer under equal conditions and prints one table.

    python scripts/bakeoff_prior.py                                                     how tokens are drawn
    python scripts/bakeoff_prior.py --suite configs/bakeoff/prior_conditioning.yaml     how actions enter
    python scripts/bakeoff_prior.py --prior.init runs/car_racing/world --plot heads.png     heads on a trained backbone

A suite is a YAML file with a line per variant; what all share is the experiment (--config, and flags). The tokenizer is
--tokenizer, the store --record.out. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from vqvideo import cli
from vqvideo.errors import InputError

if TYPE_CHECKING:
    from vqvideo.data.store import Store
    from vqvideo.experiment.config import Experiment
    from vqvideo.scripts.benchmarks.bakeoff_options import PriorBakeoffOptions
    from vqvideo.scripts.benchmarks.plots import HorizonCurves
    from vqvideo.scripts.benchmarks.prior_trial import Trial
    from vqvideo.scripts.benchmarks.results import Results, Row
    from vqvideo.scripts.benchmarks.suites import Suite

CONFIG = Path(__file__).parents[1] / "configs" / "bakeoff_prior.yaml"

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

    train_prior(cfg, bench.store, resume=True, tokenizer=bench.tokenizer, codes=bench.folder / "codes")
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
    from vqvideo.data.config import snake_case
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
    """Means over seeds, with half the range of the seeds where it matters."""
    from vqvideo.scripts.benchmarks.results import means

    return means(rows, COLUMNS, WITH_SPREAD)


def curves(by_seed: Mapping[int, Row]) -> HorizonCurves:
    """The curves of a variant, means over its seeds."""
    from vqvideo.scripts.benchmarks.plots import HorizonCurves

    found = [row["curves"] for row in by_seed.values()]
    gains = [mean(steps) for steps in zip(*(curve["gain_db"] for curve in found), strict=True)]
    distances = [mean(blocks) for blocks in zip(*(curve["fd_effnetlite0"] for curve in found), strict=True)]
    return HorizonCurves(gains, dict(zip(found[0]["fd_last_steps"], distances, strict=True)))


def prepared(cfg: PriorBakeoffOptions, suite: Suite) -> tuple[dict[str, Experiment], Bench]:
    """All variants of the suite, and what they share."""
    from vqvideo.models.tokenizer.vqvae import VQVAE
    from vqvideo.scripts.benchmarks.prior_trial import Trial, check_comparable
    from vqvideo.scripts.train_vqvae import open_store
    from vqvideo.training.hardware import default_device

    variants: dict[str, Experiment] = {name: suite.experiment(cfg, name) for name in suite.variants}
    stages = [variant.prior for variant in variants.values()]
    check_comparable(cfg.trial, stages, cfg.prior.model.window)
    vqvae = VQVAE.from_pretrained(cfg.tokenizer).to(default_device())
    dreams = (cfg.trial.context, cfg.trial.horizon)
    store = open_store(cfg, "prior", variants=variants.values(), tokenizer=vqvae, dreams=dreams)
    folder = cfg.folder / suite.name
    trial = Trial(cfg.trial, vqvae, store, stages, cfg.prior.model.window, folder / "codes")
    return variants, Bench(folder, cfg.tokenizer, store, trial)


def main() -> None:
    """Reads the settings and runs the variants."""
    from vqvideo.experiment.config import parse
    from vqvideo.scripts.benchmarks.bakeoff_options import PriorBakeoffOptions

    cfg = parse(PriorBakeoffOptions, CONFIG, __doc__ or "")
    from vqvideo.evaluation.frame_sets import lite0_missing
    from vqvideo.scripts.benchmarks.plots import plot_horizons
    from vqvideo.scripts.benchmarks.prior_trial import FIRST_STEPS
    from vqvideo.scripts.benchmarks.results import Results
    from vqvideo.scripts.benchmarks.suites import Suite
    from vqvideo.scripts.fidelity_plot import require_matplotlib
    from vqvideo.storage.files import check_writable

    if cfg.plot:
        require_matplotlib(cfg.plot)
        check_writable(cfg.plot.parent)
    if not cfg.tokenizer.is_dir():
        raise InputError(f"no tokenizer in {cfg.tokenizer}: train one (scripts/train_vqvae.py), or name it --tokenizer")
    suite = Suite.read(cfg.suite)
    chosen = suite.chosen(cfg.only)
    missing = lite0_missing() if cfg.trial.frechet_frames else "--frechet-frames 0"
    variants, bench = prepared(cfg, suite)
    results, store, trial = Results(bench.folder / "results.json"), bench.store, bench.trial
    for seed in cfg.seeds:
        for name in chosen:
            add_row(results, bench, variants, name, seed)
            print(table({name: results.rows[name]}), flush=True)
    print(
        f"suite {suite.name}, seeds {list(cfg.seeds)}, {trial.count} held-out clips of {store.path}; gain: first "
        f"{FIRST_STEPS} of {cfg.trial.horizon} latent steps, window: {trial.window}; fd: squared Fréchet distance, "
        f"EfficientNet-Lite0{f' (not measured: {missing})' if missing else ''}\n{table(results.rows)}"
    )
    if cfg.plot:
        title = f"{store.meta.env_id}, {suite.name}, {trial.count} held-out clips"
        plot_horizons({name: curves(rows) for name, rows in results.rows.items()}, trial.window, title, cfg.plot)
        print(f"plot {cfg.plot}")


if __name__ == "__main__":
    cli.run(main)
